"""A service answers every message and runs on; a refused message changes nothing."""

import random
from functools import partial

import grpc
import pytest
from google.protobuf import symbol_database
from google.protobuf.descriptor import FieldDescriptor

from running_cluster import running
from services.common import rights
from services.common.probe import serving
from services.launcher import certificates
from services.ultravisor.hardware import VERBS_OF
from test_firmware import mutated
from test_uv_service import ServiceBench
from ultrafolio.errors import InputError
from ultrafolio.model.designs import DESIGNS
from ultrafolio.model.layout import blank
from ultrafolio.rpc.client import Tls, connect
from ultrafolio.rpc.cluster import ROLES, Cluster
from ultrafolio.rpc.errors import StatusError
from ultrafolio.rpc.v1 import guest_pb2, host_mm_pb2, ultravisor_pb2
from ultrafolio.state import validate
from ultrafolio.state.crossing import WALLS
from ultrafolio.state.sections import every_section
from ultrafolio.uvcall import uvcb
from ultrafolio.uvcall.calls import BY_COMMAND, CALLS
from ultravisor_harness import blocks

SERVICES = {
    "ultravisor": ultravisor_pb2.DESCRIPTOR.services_by_name["UltravisorService"],
    "host_mm": host_mm_pb2.DESCRIPTOR.services_by_name["HostMmService"],
    "guest": guest_pb2.DESCRIPTOR.services_by_name["GuestService"],
}
METHODS = [(name, method) for name, service in SERVICES.items() for method in service.methods]
SECTIONS = every_section()
WORDS = {
    "verb": [verb for verbs in VERBS_OF.values() for verb in verbs],
    "function": sorted({name for roles in WALLS.values() for names in roles.values() for name in names}),
    "writer": [f"{role}-0123456789ab" for role in ("host", "guest")],
    "design": list(DESIGNS),
    "name": SECTIONS,
}
"""Field of text -> words that mean something there."""
NOT_CLEAR = (grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL)


@pytest.fixture(scope="module")
def where(tmp_path_factory):
    """A cluster; at the end it is SERVING, and the validator accepts the stream of every group."""
    with running(tmp_path_factory.mktemp("c")) as where:
        yield where
        assert all(serving(address) for address in addresses(where).values())
        with Cluster.at(where) as cluster:
            for group in cluster.store.groups():
                if not group.startswith("fuzzed"):
                    verdict = validate.validate(cluster.store.history(group), partial(cluster.state, group))
                    assert verdict.accepted, (group, verdict)


@pytest.fixture(scope="module")
def clusters(where):
    made = {role: Cluster.at(where, role=role) for role in ("lab", "host", "guest")}
    yield made
    for cluster in made.values():
        cluster.close()


def addresses(where):
    return {part["service"]: part["address"] for part in where["services"] if part["service"] in SERVICES}


# ------------------------------------------------------------------------------------------- control blocks
def judge(bench, block, caller):
    """Execute a block and check the answer: state changes with cc 0 only. Returns whether it was refused."""
    before, pages = bench.machine, bench.pages.snapshot()
    answer = bench.execute(block, caller)
    if answer.interruption or answer.interception or answer.cc > 1:
        assert answer.block == block
    else:
        read = uvcb.unpack(answer.block)
        call = BY_COMMAND.get(read.command)
        assert read.rc == 0x0002 if call is None else call.returns(read.rc), (read, hex(read.rc))
        assert answer.cc == (read.rc != 0x0001) and answer.block[:4] == block[:4]
    refused = bool(answer.cc or answer.interruption or answer.interception)
    if refused:
        assert bench.machine == before and bench.pages.snapshot() == pages
    return refused


@pytest.mark.parametrize("seed", range(4))
def test_fuzzed_blocks_harm_nothing(clusters, seed):
    """1,000 blocks of hosts and guests: valid ones with a fault, and random bytes."""
    choose, refused = random.Random(seed), 0
    for _ in range(5):
        bench = ServiceBench(clusters)
        guest, cpu = bench.booted() if choose.random() < 0.8 else bench.created()
        for name, block in choose.choices(list(blocks(guest, cpu, bench.origin).items()), k=50):
            changed = mutated(choose, block) if choose.random() < 0.9 else choose.randbytes(choose.randrange(0x130))
            as_guest = guest if choose.random() < 0.1 or CALLS[name].who == "guest" else None
            refused += judge(bench, changed, as_guest)
    assert 125 < refused < 250  # some mutants are harmless: they are executed


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 140))
def test_more_fuzzed_blocks(clusters, seed):
    test_fuzzed_blocks_harm_nothing(clusters, seed)


# ------------------------------------------------------------------------------------------------- messages
def send(channel, method, data):
    """Returns the status code for a message of these bytes, OK included."""
    path = f"/{method.containing_service.full_name}/{method.name}"
    kind = channel.unary_stream if method.name == "RunWorkload" else channel.unary_unary
    try:
        answer = kind(path)(data, timeout=3)
        if method.name == "RunWorkload":
            list(answer)
    except StatusError as error:
        assert error.what and error.reason
        return error.code
    return grpc.StatusCode.OK


def filled(choose, shape, group):
    """Returns a message with every field set: small or large numbers, an existing or unknown group."""
    message = shape()
    for field in shape.DESCRIPTOR.fields:
        if choose.random() < 0.2:
            continue
        value = partial(_value, choose, field, group)
        if field.message_type and field.message_type.GetOptions().map_entry:
            number = field.message_type.fields_by_name["value"].type == FieldDescriptor.TYPE_UINT64
            entry = choose.randrange(1 << 64) if number else choose.randbytes(5)
            getattr(message, field.name)[choose.choice((*SECTIONS, ""))] = entry
        elif field.is_repeated:
            getattr(message, field.name).extend(value() for _ in range(choose.randrange(4)))
        elif field.message_type:
            getattr(message, field.name).CopyFrom(value())
        else:
            setattr(message, field.name, value())
    return message


def _value(choose, field, group):
    kind = field.type
    if field.message_type:
        return filled(choose, symbol_database.Default().GetSymbol(field.message_type.full_name), group)
    if kind == FieldDescriptor.TYPE_STRING:
        text = "".join(choose.choices("ab/:{}*\n\x00é", k=choose.randrange(70)))
        known = (group, group) if field.name == "group" else WORDS.get(field.name, ())
        return choose.choice((choose.choice(known), choose.choice(known), text, "")) if known else text
    if kind == FieldDescriptor.TYPE_BYTES:
        return choose.choice((b"", choose.randbytes(40), bytes(4096), uvcb.pack(choose.choice(list(CALLS)))))
    if kind == FieldDescriptor.TYPE_BOOL:
        return choose.random() < 0.5
    small = dict.fromkeys((FieldDescriptor.TYPE_SINT32, FieldDescriptor.TYPE_ENUM), 31)
    top = ({FieldDescriptor.TYPE_UINT64: 64} | small).get(kind, 32)
    return choose.choice((0, 1, choose.randrange(9), choose.randrange(1 << top), (1 << top) - 1))


@pytest.fixture(scope="module")
def fuzzed(clusters):
    """A group that is not validated: the laboratory may put any state into it."""
    clusters["lab"].lay_out_state("fuzzed", blank(8, 2, 1), [], "a group to be fuzzed")
    return "fuzzed"


@pytest.mark.parametrize(("name", "method"), METHODS, ids=lambda value: getattr(value, "name", value))
@pytest.mark.parametrize("role", ["lab", "guest:0"])
def test_messages_of_any_kind(where, fuzzed, name, method, role):
    """Random bytes, truncated and well-formed messages: a status or an answer, never a defect."""
    choose = random.Random(method.full_name + role)
    shape = symbol_database.Default().GetSymbol(method.input_type.full_name)
    messages = [choose.randbytes(n) for n in (1, 7, 60, 3000)] + [b"", b"\xff" * 50]
    for _ in range(20):
        whole = filled(choose, shape, fuzzed).SerializeToString()
        messages += [whole, whole[: choose.randrange(len(whole) + 1)]]
    with connect(addresses(where)[name], role) as channel:
        codes = {data: send(channel, method, data) for data in messages}
    unclear = {data for data, code in codes.items() if code in NOT_CLEAR}
    assert not unclear, (method.name, list(unclear)[0])
    if role.partition(":")[0] in rights.TABLE[f"{method.containing_service.full_name}/{method.name}"].roles:
        assert grpc.StatusCode.INVALID_ARGUMENT in codes.values()
    else:
        assert set(codes.values()) == {grpc.StatusCode.PERMISSION_DENIED}, "whatever the bytes: nothing is decoded"


@pytest.mark.parametrize("name", SERVICES)
def test_oversized_messages_and_unknown_methods(where, name):
    method = SERVICES[name].methods[0]
    with connect(addresses(where)[name], "lab", message_mib=64) as channel:
        assert send(channel, method, bytes(17 << 20)) == grpc.StatusCode.RESOURCE_EXHAUSTED
        with pytest.raises(StatusError) as caught:
            channel.unary_unary(f"/{SERVICES[name].full_name}/Nonsense")(b"")
        assert caught.value.code == grpc.StatusCode.UNIMPLEMENTED
    assert serving(addresses(where)[name])


# -------------------------------------------------------------------------------------------- certificates
@pytest.fixture(scope="module")
def certified(tmp_path_factory):
    folder = tmp_path_factory.mktemp("t")
    certificates.make(folder / "tls", guests=["3"])
    with running(folder, "--tls") as where:
        yield where


def test_a_wrong_certificate_gets_nothing(certified, tmp_path):
    """Another authority's certificate, a plain connection, and another service's name: no call comes through."""
    certificates.make(tmp_path / "others")
    theirs = Tls.read(tmp_path / "others", "lab")
    mine = Tls.read(certified["tls"], "lab")
    mixed = Tls(mine.authority, theirs.certificate, theirs.key)
    for name, address in addresses(certified).items():
        method = SERVICES[name].methods[0]
        other = next(role for part, role in ROLES.items() if part != name)
        for tls, server in ((theirs, ROLES[name]), (mixed, ROLES[name]), (None, ""), (mine, other)):
            with connect(address, "lab", tls=tls, server=server, retry=False) as channel:
                assert send(channel, method, b"") in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
        assert serving(address, mine)


def test_a_certified_guest_has_no_host_call(certified):
    """Its certificate decides, not its metadata: rc 0x0002; the host's and the laboratory's methods are refused."""
    block = uvcb.pack("initialise", stor_origin=2 << 30, stor_len=128 << 20)
    execute = ultravisor_pb2.ExecuteRequest(control_block=block, vm=3)
    with Cluster.at(certified, role="guest") as guest:
        answer = guest.ultravisor.Execute(execute)
        assert (answer.condition_code, uvcb.unpack(answer.control_block).rc) == (1, 0x0002)
        for call, request in (
            (guest.ultravisor.Clear, ultravisor_pb2.ClearRequest()),
            (guest.host.Start, host_mm_pb2.StartRequest()),
            (guest.ultravisor.Enter, ultravisor_pb2.EnterRequest()),
            (guest.ultravisor.Access, ultravisor_pb2.AccessRequest()),
        ):
            with pytest.raises(InputError) as caught:
                call(request)
            assert caught.value.code == grpc.StatusCode.PERMISSION_DENIED
    tls = Tls.read(certified["tls"], "guest-3")
    path = "/ultrafolio.rpc.v1.UltravisorService/Execute"
    for said, vm, good in (
        ("guest:3", 3, True),
        ("guest", 3, True),
        ("guest:3", 4, False),
        ("guest:4", 4, False),
        ("host", 3, False),
    ):
        with connect(addresses(certified)["ultravisor"], said, tls=tls, server="ultravisor") as channel:
            execute.vm = vm
            try:
                channel.unary_unary(path, request_serializer=type(execute).SerializeToString)(execute)
                assert good
            except StatusError as error:
                assert not good and error.code == grpc.StatusCode.PERMISSION_DENIED
