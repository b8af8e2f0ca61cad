"""The ultravisor's conformance cases by number, asked of the service: the tests of test_kut_uv.py on a bench over gRPC.

Outside: 19 (attestation is not installed: see case 5) and 53 (an exit is what the ultravisor made it, not a block that
the host reads). Case 23 and 50 to 52 are the host's and the guest's side too: test_cluster.py steps them.
"""

import itertools
import re
from functools import partial

import pytest

import test_kut_uv
from running_cluster import ROOT, running
from services.ultravisor.firmware import PAGE_CALLS, Answer
from services.ultravisor.machine import KEY
from services.ultravisor.machine_state import Machine, decode
from test_kut_uv import *  # noqa: F403
from ultrafolio.engine.interp import to_lists
from ultrafolio.errors import InputError
from ultrafolio.model.layout import EXPORTED, PAGE_SIZE, SECURE, blank
from ultrafolio.rpc.cluster import Cluster
from ultrafolio.rpc.v1 import lab_pb2
from ultrafolio.rpc.v1 import ultravisor_pb2 as pb
from ultrafolio.state import validate
from ultrafolio.uvcall import image
from ultrafolio.uvcall.calls import BY_COMMAND, CALLS
from ultrafolio.uvcall.uvcb import pack, unpack
from ultravisor_harness import ANOTHER, HOST_KEY, INIT, SEALED, Bench, blocks

NUMBERS = itertools.count()


class ServicePages:
    """ModelPages for a folio group."""

    def __init__(self, cluster, group):
        self.cluster, self.group = cluster, group

    @property
    def state(self):
        return to_lists(self.cluster.state(self.group))

    def snapshot(self):
        return self.cluster.state(self.group).uv[["state", "owner", "shared"]].tolist()


class ServiceBench(Bench):
    """A cluster's machine after load normal, and a new folio group, which the first two configurations share."""

    def __init__(self, clusters, pages=8):
        self.host, self.guest, self.group = clusters["host"], clusters["guest"], f"bench-{next(NUMBERS)}"
        self.lab = clusters["lab"]
        self.clear()
        state = blank(pages, 1, 2)
        self.origin = self.lab.lay_out_state(self.group, state, [], "a bench")
        self.pages = ServicePages(self.lab, self.group)
        key = self.lab.ultravisor.HostKey(pb.HostKeyRequest()).key
        self.operand = image.header(image.open_header(SEALED.header, HOST_KEY), [key])
        sealed = [pb.PageAccess(page=at // PAGE_SIZE, data=page) for at, page in image.pages_of(SEALED.pages)]
        self.host.ultravisor.Access(pb.AccessRequest(group=self.group, accesses=sealed))

    @property
    def machine(self):
        kept = self.lab.store.get(KEY)
        return decode(kept) if kept else Machine()

    def execute(self, block, caller=None, cpus_running=1, **more):
        command = int.from_bytes(block[2:4], "big")
        name = BY_COMMAND[command].name if command in BY_COMMAND else ""
        mine = self.machine.configurations
        request = pb.ExecuteRequest(control_block=block, running_cpus=cpus_running, operand=self.operand, **more)
        if caller is not None or (name in PAGE_CALLS and mine):
            request.group = self.group
        if caller is not None:
            request.vm = mine[caller].vm if caller in mine else 200
        elif name == "create_configuration" and len(mine) < 2:
            request.group, request.vm = self.group, len(mine)
        answer = (self.host if caller is None else self.guest).ultravisor.Execute(request)
        result = None if answer.program_interruption else answer.result
        return Answer(
            answer.condition_code, answer.control_block, None, answer.program_interruption, answer.interception, result
        )

    def clear(self):
        self.lab.ultravisor.Clear(pb.ClearRequest())

    def inject(self, command, condition_code, count):
        self.lab.ultravisor.Inject(pb.InjectRequest(command=command, condition_code=condition_code, count=count))

    def diagnose_308(self, guest, subcode):
        vm = self.machine.configurations[guest].vm
        self.guest.ultravisor.Diagnose(pb.DiagnoseRequest(group=self.group, vm=vm, subcode=subcode))

    def enter(self, guest, cpu, asce, prefix=0, running=()):
        asked = pb.EnterRequest(configuration=guest, cpu=cpu, asce=asce, prefix=prefix, running=running)
        return self.host.ultravisor.Enter(asked).interception

    def host_accesses(self, origin, length):
        pages, seen = range(origin // PAGE_SIZE, (origin + length) // PAGE_SIZE), set()
        for first in range(pages.start, pages.stop, 4096):
            some = range(first, min(first + 4096, pages.stop))
            accesses = [pb.PageAccess(page=page, **how) for page in some for how in ({"length": 1}, {"data": b"host"})]
            answer = self.host.ultravisor.Access(pb.AccessRequest(accesses=accesses))
            seen |= {one.exception for one in answer.outcomes}
        return seen

    def read(self, address):
        access = pb.PageAccess(page=address // PAGE_SIZE, length=PAGE_SIZE)
        (one,) = self.host.ultravisor.Access(pb.AccessRequest(accesses=[access])).outcomes
        return one.exception, one.data


@pytest.fixture(scope="module")
def where(tmp_path_factory):
    with running(tmp_path_factory.mktemp("c")) as where:
        yield where


@pytest.fixture(scope="module")
def clusters(where):
    """Clients by role; at the end the validator must accept the stream of every group."""
    made = {role: Cluster.at(where, role=role) for role in ("lab", "host", "guest")}
    yield made
    store = made["lab"].store
    for group in store.groups():
        verdict = validate.validate(store.history(group), partial(made["lab"].state, group))
        assert verdict.accepted, (group, verdict)
    for cluster in made.values():
        cluster.close()


@pytest.fixture(autouse=True)
def over_grpc(monkeypatch, clusters):
    monkeypatch.setattr(test_kut_uv, "Bench", lambda **more: ServiceBench(clusters, **more))


@pytest.fixture
def bench(clusters):
    return ServiceBench(clusters)


def deleted_with_a_guest(clusters):
    """A bench whose group is deleted while its guest is there, and the guest's donated storage."""
    bench = ServiceBench(clusters)
    bench.booted()
    donated = [storage.origin for storage in bench.machine.storages()][1:]
    clusters["lab"].lab.DeleteGroup(lab_pb2.DeleteGroupRequest(group=bench.group))
    return bench, donated


def test_the_guest_of_a_deleted_group_goes_with_clear(clusters):
    bench, donated = deleted_with_a_guest(clusters)
    bench.clear()
    assert not bench.machine.configurations and {bench.read(origin)[0] for origin in donated} == {0}


def test_the_guest_of_a_deleted_group_goes_with_the_next_guest(clusters, monkeypatch):
    gone, donated = deleted_with_a_guest(clusters)
    monkeypatch.setattr(ServiceBench, "clear", lambda self: None)
    bench = ServiceBench(clusters)
    assert bench.execute(pack("create_configuration", **ANOTHER)).cc == 0
    machine = bench.machine
    assert [of.group for of in machine.configurations.values()] == [bench.group] and not machine.cpus
    assert {bench.read(origin) for origin in donated} == {(0, bytes(PAGE_SIZE))}


def test_14_what_was_donated_reads_zero(bench):
    """Cases 13 and 14: returned storage has neither the host's nor the ultravisor's old bytes."""
    at = INIT["stor_origin"] + 5 * PAGE_SIZE
    assert bench.host_accesses(at, PAGE_SIZE) == {0} and bench.read(at) == (0, b"host" + bytes(PAGE_SIZE - 4))
    bench.booted()
    donated = [storage.origin for storage in bench.machine.storages()]
    assert bench.read(at) == (0x3D, b"") and {bench.read(origin) for origin in donated} == {(0x3D, b"")}
    bench.clear()
    assert {bench.read(origin) for origin in (at, *donated)} == {(0, bytes(PAGE_SIZE))}
    assert bench.read(1 << 40) == (0x05, b"")


def test_14_load_normal_leaves_no_page_of_a_guest(bench):
    bench.booted()
    assert bench.pages.snapshot()[0][0] == SECURE
    bench.clear()
    assert {state for state, *_ in bench.pages.snapshot()} == {0}


def test_13_pages_go_with_their_configuration(bench):
    guest, cpu = bench.booted()
    bench.ok("export", paddr=bench.origin)
    bench.ok("destroy_cpu", cpu_handle=cpu)
    bench.ok("destroy_configuration", guest_handle=guest)
    assert {state for state, *_ in bench.pages.snapshot()} == {0}


def test_10_one_configuration_to_a_virtual_machine(bench):
    bench.created()
    again = pack("create_configuration", **test_kut_uv.ANOTHER)
    request = pb.ExecuteRequest(control_block=again, group=bench.group, vm=0)
    assert unpack(bench.host.ultravisor.Execute(request).control_block).rc == 0x110


def test_addresses_are_of_the_group_that_is_named(bench):
    """An address of another group is not real storage; a guest's page of another group is not mapped."""
    guest, _ = bench.booted()
    other = f"bench-{next(NUMBERS)}"
    origin = bench.lab.lay_out_state(other, blank(8, 1, 2), [], "another")
    for name in ("export", "pin", "destroy_page"):
        bench.refused(0x101, name, paddr=origin)
    for name, rc in (("import", 0x10A), ("unpin", 0x10A), ("unshare_all", 0x111)):
        fields = {"gaddr": 0} if name != "unshare_all" else {}
        block = pack(name, guest_handle=guest, **fields)
        answer = bench.host.ultravisor.Execute(pb.ExecuteRequest(group=other, control_block=block))
        assert (answer.condition_code, unpack(answer.control_block).rc) == (1, rc)
    assert bench.pages.snapshot()[0][0] == SECURE


def test_a_request_is_done_once(bench):
    bench.ok("initialise", **INIT)
    create = pb.ExecuteRequest(control_block=pack("create_configuration", **test_kut_uv.CONFIGURATION), request_id="r")
    first, again = (bench.host.ultravisor.Execute(create) for _ in range(2))
    assert first == again and len(bench.machine.configurations) == 1
    for number in range(40):  # stored until MOST_ANSWERED later requests
        bench.host.ultravisor.Execute(pb.ExecuteRequest(control_block=pack("query"), request_id=f"q{number}"))
    assert bench.host.ultravisor.Execute(create) == first


def test_unshare_all_alone_keeps_the_pages(bench):
    """Outside of a step the call only unshares; in a reset's step the model unshares and destroys at once."""
    guest, cpu = bench.booted()
    bench.ok("share", guest, paddr=PAGE_SIZE)
    bench.ok("cpu_set_state", cpu_handle=cpu, state=2)
    bench.ok("unshare_all", guest_handle=guest)
    assert [state for state, *_ in bench.pages.snapshot()[:2]] == [SECURE, SECURE]


def test_50_51_unshare(bench):
    """Unpinned: no exit. Pinned: 0x6c, the host unpins, and the repeated call finds the page secure."""
    guest, _ = bench.booted()
    for pinned in (False, True):
        bench.ok("share", guest, paddr=PAGE_SIZE)
        if pinned:
            bench.ok("pin", paddr=bench.origin + PAGE_SIZE)
            assert bench.execute(pack("unshare", paddr=PAGE_SIZE), guest).interception == 0x6C
            bench.ok("unpin", guest_handle=guest, gaddr=PAGE_SIZE)
        bench.ok("unshare", guest, paddr=PAGE_SIZE)
        assert bench.pages.snapshot()[1][0] == SECURE


def test_the_hardware_speaks_before_a_guests_call(bench):
    """A page that the guest may not access: 0x3e, and the host imports it first."""
    guest, _ = bench.booted()
    bench.ok("export", paddr=bench.origin)
    for page, name in itertools.product((0, 5), ("share", "unshare")):
        assert bench.execute(pack(name, paddr=page * PAGE_SIZE), guest).interruption == 0x3E
    assert bench.pages.snapshot()[0][0] == EXPORTED


def test_roles(bench, where):
    """Guests have no host call (rc 0x0002); devices, the ultravisor and callers without a role execute nothing."""
    guest, cpu = bench.booted()
    before, pages = bench.machine, bench.pages.snapshot()
    for name, block in blocks(guest, cpu, bench.origin).items():
        if CALLS[name].who == "host":
            request = pb.ExecuteRequest(group=bench.group, control_block=block, vm=0, operand=bench.operand)
            answer = bench.guest.ultravisor.Execute(request)
            assert (answer.condition_code, unpack(answer.control_block).rc) == (1, 0x0002)
    assert bench.machine == before and bench.pages.snapshot() == pages
    for role, vm in (("device", None), ("ultravisor", None), ("guest:1", 0), ("guest", None), ("guest:x", None)):
        with Cluster.at(where, role=role) as other, pytest.raises(InputError) as caught:
            other.ultravisor.Execute(pb.ExecuteRequest(group=bench.group, control_block=pack("query"), vm=vm))
        assert caught.value.reason in ("ROLE_NOT_ALLOWED", "NOT_YOUR_VIEW")


def test_the_table_names_tests_that_are_here():
    """docs/conformance.md: every case of the ultravisor's, 1 to 22, passes by a test or is said to be outside."""
    table = (ROOT / "docs" / "conformance.md").read_text()
    rows = dict(re.findall(r"^\| (\d+) \|.*\| (.+) \|$", table, re.MULTILINE))
    named = {number: re.findall(r"`test_uv_service\.py::(\w+)`", where) for number, where in rows.items()}
    assert all(name in globals() for names in named.values() for name in names)
    assert {int(number) for number, names in named.items() if names} >= set(range(1, 23))
    cases = [name for name in globals() if re.match(r"test_\d", name)]
    assert {name for names in named.values() for name in names} >= set(cases)
