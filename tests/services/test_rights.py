"""Access control of calls: every method, every role, its own machine and another's."""

import itertools

import grpc
import pytest
from google.protobuf import symbol_database

from patience import NEVER
from running_cluster import ROOT, running
from services.common import calls, identity, rights
from test_fuzz_services import SERVICES as PARTS
from ultrafolio.conformance.suite import build
from ultrafolio.errors import InputError
from ultrafolio.model import scenario
from ultrafolio.model.policies import find
from ultrafolio.rpc.client import connect
from ultrafolio.rpc.cluster import Cluster
from ultrafolio.rpc.errors import StatusError
from ultrafolio.rpc.v1 import guest_pb2, host_mm_pb2, lab_pb2
from ultrafolio.rpc.v1.common_pb2 import OUTCOME_WAITS

SERVICES = PARTS | {"lab": lab_pb2.DESCRIPTOR.services_by_name["LabService"]}
METHODS = [(name, method) for name, service in SERVICES.items() for method in service.methods]
CALLERS = [*identity.ROLES, "guest:0", "guest:1"]
ROLES = {
    "lab": {m.full_name for _, m in METHODS}
    - {"ultrafolio.rpc.v1.HostMmService.Cross", "ultrafolio.rpc.v1.UltravisorService.Enforce"},
    "host": {"HostMmService": "Run Start ReadPage Explain CreateGuest Unpack StartGuest DestroyGuest",
             "UltravisorService": "Execute Access WouldEnd Enforce Enter HostKey"},
    "guest": {"GuestService": "Touch Share Unshare DirectIo Configure Convert PunchHole Release Interrupt Reboot "
              "RunWorkload Boot",
              "HostMmService": "Run Cross Explain CreateGuest Unpack StartGuest DestroyGuest",
              "UltravisorService": "Execute Access Shares Enforce Diagnose HostKey"},
    "device": {"HostMmService": "Run Cross Explain", "UltravisorService": "Access Enforce HostKey"},
    "ultravisor": {"UltravisorService": "HostKey"},
}  # fmt: skip
"""The table of rights, written independently of the code."""
OF_NO_MACHINE = {"HostKey", "Explain"}
"""Methods for guests without a machine in the request; Explain returns its own actors only."""
REFUSED = {"ROLE_NOT_ALLOWED", "NOT_YOUR_VIEW", "UNKNOWN_ROLE"}


def may(role, method):
    allowed = ROLES[role]
    if isinstance(allowed, set):
        return method.full_name in allowed
    return method.name in allowed.get(method.containing_service.name, "").split()


def test_every_method_is_in_the_table_and_nothing_else():
    names = {f"{method.containing_service.full_name}/{method.name}" for _, method in METHODS}
    assert names == set(rights.TABLE)


def test_a_method_that_is_not_in_the_table_cannot_be_registered(monkeypatch):
    monkeypatch.delitem(rights.TABLE, rights.PACKAGE + "LabService/ListGroups")
    handler = grpc.unary_unary_rpc_method_handler(lambda request, context: request)
    with pytest.raises(KeyError, match="ListGroups"):
        calls.surround(rights.PACKAGE + "LabService/ListGroups", handler, None)


@pytest.fixture(scope="module")
def where(tmp_path_factory):
    with running(tmp_path_factory.mktemp("c")) as where:
        yield where


NUMBERS = itertools.count()


@pytest.fixture
def group(where):
    """Actors of two machines: 0 is a vCPU of machine 0, 1 a vCPU of machine 1. Each test has its own group, since some
    methods delete it."""
    name = f"rights-{next(NUMBERS)}"
    with Cluster.at(where) as cluster:
        cluster.lay_out_state(name, build("per-page", vcpu=[{}, {"guest": 1, "cpu": 1}]).state, [], "a test")
    return name


def asked(where, caller, name, method, vm, group, patience=1):
    """Returns the reason of a call's refusal by the rights table, "" if that allows it."""
    shape = symbol_database.Default().GetSymbol(method.input_type.full_name)
    fields = {"group": group, "actor": vm, "vm": vm}
    request = shape(**{field: value for field, value in fields.items() if field in shape.DESCRIPTOR.fields_by_name})
    (address,) = [part["address"] for part in where["services"] if part["service"] == name]
    path = f"/{method.containing_service.full_name}/{method.name}"
    data = request.SerializeToString()
    streams = method.client_streaming, method.server_streaming
    with connect(address, caller, retry=False) as channel:
        kind = {
            (False, False): channel.unary_unary,
            (False, True): channel.unary_stream,
            (True, False): channel.stream_unary,
        }[streams](path)
        try:
            answer = kind(iter([data]) if streams[0] else data, timeout=patience)
            if streams[1]:
                list(itertools.islice(answer, 1))
        except StatusError as error:
            return error.reason if error.reason in REFUSED else ""
    return ""


@pytest.mark.parametrize(("name", "method"), METHODS, ids=lambda value: getattr(value, "full_name", value))
def test_roles_and_machines(where, group, name, method):
    for caller in CALLERS:
        role, _, number = caller.partition(":")
        own = asked(where, caller, name, method, int(number or 0), group, 1 if may(role, method) else NEVER)
        assert (own == "ROLE_NOT_ALLOWED") == (not may(role, method)), (caller, own)
        if number and may(role, method):
            patience = 1 if method.name in OF_NO_MACHINE else NEVER
            foreign = asked(where, caller, name, method, 1 - int(number), group, patience)
            assert own == "" and foreign == ("" if method.name in OF_NO_MACHINE else "NOT_YOUR_VIEW"), (caller, foreign)


@pytest.mark.parametrize(("name", "method"), METHODS, ids=lambda value: getattr(value, "full_name", value))
def test_a_guest_of_one_group_has_nothing_of_another(where, group, name, method):
    if not may("guest", method) or "group" not in method.input_type.fields_by_name:
        return
    assert asked(where, f"guest:{group}/0", name, method, 0, group) == ""
    assert asked(where, "guest:other/0", name, method, 0, group, NEVER) == "NOT_YOUR_VIEW"
    if method.name not in OF_NO_MACHINE:
        assert asked(where, f"guest:{group}/0", name, method, 1, group, NEVER) == "NOT_YOUR_VIEW"


def test_a_caller_without_a_role_gets_nothing(where, group):
    for name, method in METHODS:
        assert asked(where, "nobody", name, method, 0, group, NEVER) == "UNKNOWN_ROLE"


def test_a_guest_is_told_of_its_own_actors_only(where):
    with Cluster.at(where) as lab, Cluster.at(where, role="guest:1") as other, Cluster.at(where, role="guest:0") as own:
        story = scenario.read(ROOT / "scenarios/25-reboot-with-device.toml")
        lab.lay_out("waits", scenario.system(story, find("whole-folio", story.tables)))
        lab.guest.Configure(guest_pb2.ConfigureRequest(group="waits", actor=1, page=0))
        touch = guest_pb2.TouchRequest(group="waits", actor=0, page=1)
        assert own.guest.Touch(touch, timeout=2).outcome == OUTCOME_WAITS
        with pytest.raises(InputError, match="as guest 0"):
            other.guest.Touch(touch, timeout=2)
        explained = host_mm_pb2.ExplainRequest(group="waits")
        assert [wait.actor for wait in own.host.Explain(explained).waits] == [0]
        assert not other.host.Explain(explained).waits
