"""A request id belongs to one call with its arguments: another use is refused, and never gets the first answer."""

import threading

import pytest

from patience import NEVER
from running_cluster import ROOT, running
from services.common import scheduler
from ultrafolio.errors import InputError
from ultrafolio.model import scenario
from ultrafolio.model.layout import SHARED, TOUCH
from ultrafolio.model.policies import find
from ultrafolio.redis_server import Server
from ultrafolio.rpc.cluster import Cluster
from ultrafolio.rpc.v1 import guest_pb2, host_mm_pb2, ultravisor_pb2
from ultrafolio.rpc.v1.common_pb2 import OUTCOME_DONE
from ultrafolio.state import requests
from ultrafolio.state.memory import Memory, MemoryStore
from ultrafolio.state.redis import RedisStore
from ultrafolio.state.store import Commit, Patch
from ultrafolio.uvcall import uvcb


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    with running(tmp_path_factory.mktemp("c")) as where, Cluster.at(where) as cluster:
        yield cluster


@pytest.fixture
def group(lab, request):
    name = f"ids-{abs(hash(request.node.name)) % 10**9}"
    story = scenario.read(ROOT / "scenarios/03-virtio.toml")
    lab.lay_out(name, scenario.system(story, find("per-page", story.tables)), "ids")
    return name


def refused(call, message):
    with pytest.raises(InputError) as caught:
        call(message, timeout=NEVER)
    return caught.value.reason


def touch(group, **more):
    return guest_pb2.TouchRequest(**{"group": group, "actor": 0, "page": 1, "request_id": "x"} | more)


def test_the_same_call_again_gets_the_same_answer(lab, group):
    first, again = (lab.guest.Touch(touch(group, data=b"A")) for _ in range(2))
    assert first == again and first.outcome == OUTCOME_DONE


def test_a_repeated_touch_reads_again_and_writes_once(lab, group):
    swap = touch(group, data=b"A", length=1)
    assert lab.guest.Touch(swap).data == b"A"
    assert lab.guest.Touch(touch(group, data=b"B", request_id="y")).outcome == OUTCOME_DONE
    assert [lab.guest.Touch(one).data for one in (swap, touch(group, length=1, request_id="z"))] == [b"B", b"B"]


def test_a_touch_that_exits_returns_what_it_wrote(lab, group):
    lab.lay_out(
        f"{group}-out",
        scenario.system(
            scenario.parse({"memory": {"folios": [0, 0], "state": ["exported"] * 2}, "vcpu": [{}]}, "out"),
            find("per-page", {}),
        ),
        "out",
    )
    answer = lab.guest.Touch(touch(f"{group}-out", data=b"A", length=1))
    assert (answer.data, answer.exceptions) == (b"A", 1)


def test_other_arguments_and_other_calls_are_refused(lab, group):
    assert lab.guest.Touch(touch(group, data=b"A")).outcome == OUTCOME_DONE
    share = guest_pb2.ShareRequest(group=group, actor=0, page=1, request_id="x")
    assert refused(lab.guest.Touch, touch(group, data=b"B")) == "REQUEST_ID_REUSED"
    assert refused(lab.guest.Touch, touch(group, data=b"A", page=0)) == "REQUEST_ID_REUSED"
    assert refused(lab.guest.Share, share) == "REQUEST_ID_REUSED"
    assert lab.guest.Touch(touch(group, length=1, request_id="y")).data == b"A"
    assert lab.state(group).uv["state"][1] != SHARED
    assert lab.guest.Share(guest_pb2.ShareRequest(group=group, actor=0, page=1, request_id="z")).outcome == OUTCOME_DONE
    unshare = guest_pb2.UnshareRequest(group=group, actor=0, page=1, request_id="z")
    assert refused(lab.guest.Unshare, unshare) == "REQUEST_ID_REUSED"
    assert lab.state(group).uv["state"][1] == SHARED


EVERY_ACTOR = {
    "memory": {"folios": [1, 0], "state": ["shared", "shared", "secure"]},
    "vcpu": [{}],
    "disk": [{"page": 0}],
    "virtio": [{"page": 1}],
    "interrupt": [{"page": 1}],
    "reclaim": [{"page": [2]}],
    "reboot": [{}],
}
VCPU, DISK, RING, RECLAIM, REBOOT, INTERRUPT = range(6)
GUEST = {
    "Touch": {"actor": VCPU, "page": 2, "length": 1},
    "Share": {"actor": VCPU, "page": 1},
    "Unshare": {"actor": VCPU, "page": 0},
    "DirectIo": {"actor": DISK, "page": 0},
    "Configure": {"actor": RING, "page": 1},
    "Interrupt": {"actor": INTERRUPT, "page": 1},
    "Reboot": {"actor": REBOOT},
    "Boot": {"actor": VCPU, "image": bytes(4096)},
    "Step": {"actor": VCPU, "op": TOUCH, "page": 2},
    "Convert": {"actor": VCPU},
    "PunchHole": {"actor": VCPU},
    "Release": {"actor": VCPU},
}
HOST = {
    "Run": {"actor": RECLAIM},
    "Start": {"actor": RECLAIM, "page": 2},
    "Step": {"actor": RECLAIM, "op": TOUCH, "page": 2},
    "CreateGuest": {"cpus": 1, "header": b"none"},
}
OTHER_DESIGN = {"Convert", "PunchHole", "Release"}
"""Calls of guest_memfd: test_conversions has their request ids."""
KEEPS_NONE = ["Run"]
"""A Run of an idle thread takes no step, and keeps no answer."""


def methods(module, service):
    """Names and request classes of a service's methods whose request has an id."""
    methods = module.DESCRIPTOR.services_by_name[service].methods
    named = (one for one in methods if "request_id" in one.input_type.fields_by_name)
    return {one.name: getattr(module, one.input_type.name) for one in named}


@pytest.mark.parametrize(
    ("part", "module", "service", "calls"),
    [("guest", guest_pb2, "GuestService", GUEST), ("host", host_mm_pb2, "HostMmService", HOST)],
)
def test_each_call_refuses_the_id_of_each_other_one(lab, part, module, service, calls):
    """All methods with a request id, in all pairs: the first keeps the id, each other one is refused."""
    shapes = methods(module, service)
    assert shapes.keys() == calls.keys()
    made = scenario.system(scenario.parse(EVERY_ACTOR, "all"), find("per-page", {}))
    stub = getattr(lab, part)

    def call(method, group):
        return getattr(stub, method)(shapes[method](group=group, request_id="x", **calls[method]), timeout=NEVER)

    names = sorted(calls.keys() - OTHER_DESIGN)
    for first in names:
        group = f"{part}-{first}".lower()
        lab.lay_out(group, made, "all")
        call(first, group)
        for second in names if first not in KEEPS_NONE else ():
            if second == first:
                continue
            with pytest.raises(InputError) as caught:
                call(second, group)
            assert caught.value.reason == "REQUEST_ID_REUSED", (first, second)


def test_another_service_of_the_same_group_keeps_ids_of_its_own(lab, group):
    assert lab.guest.Touch(touch(group, data=b"A")).outcome == OUTCOME_DONE
    lab.host.Run(host_mm_pb2.RunRequest(group=group, actor=0, request_id="x"))


def test_control_blocks(lab):
    lab.ultravisor.Clear(ultravisor_pb2.ClearRequest())
    query = ultravisor_pb2.ExecuteRequest(
        request_id="q", control_block=uvcb.pack("initialise", stor_origin=2 << 30, stor_len=128 << 20)
    )
    first = lab.ultravisor.Execute(query)
    query.request_id = "q"
    assert lab.ultravisor.Execute(query) == first and first.condition_code == 0
    query.request_id, query.m3 = "q", 1
    assert refused(lab.ultravisor.Execute, query) == "REQUEST_ID_REUSED"
    lab.ultravisor.Clear(ultravisor_pb2.ClearRequest())


@pytest.mark.parametrize("odd", ["q/answer", "a\0b", "x}:mm", "a\nb", "i" * 129, "\u202e", "a~b", " "])
def test_ids_that_are_none(lab, group, odd):
    assert refused(lab.guest.Touch, touch(group, data=b"A", request_id=odd)) == "BAD_INPUT"


def test_the_longest_id(lab, group):
    assert lab.guest.Touch(touch(group, data=b"A", request_id="i" * 128)).outcome == OUTCOME_DONE


def test_two_calls_with_one_id_at_once():
    """Both run at once: the second is refused, and does not get the first's answer."""
    from services.guest.deduplication import Deduplicator
    from services.guest.orders import Deadline
    from ultrafolio.rpc.v1.guest_pb2 import ShareResponse

    deduplicator, inside, over, got = (
        Deduplicator(MemoryStore(Memory(), "guest")),
        threading.Event(),
        threading.Event(),
        [],
    )
    deadline = Deadline(lambda: 9.0, lambda: True)

    def slow():
        inside.set()
        over.wait(9)
        return ShareResponse(outcome=OUTCOME_DONE)
        yield

    def order(name):
        try:
            got.append(
                scheduler.run_blocking(deduplicator("g", requests.MARK.join(name), deadline, ShareResponse, slow))
            )
        except requests.Reused as error:
            got.append(error)

    first = threading.Thread(target=order, args=[("0" * 16, "x")])
    first.start()
    inside.wait(9)
    order(("1" * 16, "x"))
    over.set()
    first.join(9)
    assert [type(one) for one in got] == [requests.Reused, ShareResponse]


@pytest.mark.parametrize("kind", ["memory", "redis"])
def test_the_second_of_two_commits_of_one_id_changes_nothing(kind):
    """Both checked before either was stored: the store refuses the second commit."""
    with Server.start() as server:
        store = MemoryStore(Memory(), "guest") if kind == "memory" else RedisStore(server.url, "guest")
        store.create("g", {"pc": b"\0"}, b"made")

        def commit(writer, digest, value):
            patches = [Patch("pc", 0, value)]
            return store.commit("g", Commit("1", writer, {"pc": -1}, [], patches, request=(f"{digest}~x/0", value)))

        assert commit("a", "a" * 16, b"\1").status == "done"
        with pytest.raises(requests.Reused):
            commit("b", "b" * 16, b"\2")
        assert store.read("g", ["pc"]) == {"pc": b"\1"} and store.reply("g", "a" * 16 + "~x/0") == b"\1"
        with pytest.raises(requests.Reused):
            store.reply("g", "b" * 16 + "~x/0")
        assert commit("c", "a" * 16, b"\3").status == "done"
