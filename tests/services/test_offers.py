"""Offered turns: a part that is asked first takes the turn for its beginner, in both stores; and what a touch costs."""

import re
import threading
from functools import partial

import grpc
import pytest

import test_faults
from running_cluster import running
from store_faults import Breakable, Crash
from test_faults import LEASE_MS, TAKE, WRITE, accept, lease_over, places, server, stores  # noqa: F401
from ultrafolio.conformance.suite import build
from ultrafolio.model.layout import EXPORTED, FAULT, PGM_3E, SECURE, TOUCH, UV_OK
from ultrafolio.rpc.client import connect, request_id
from ultrafolio.rpc.cluster import Cluster
from ultrafolio.rpc.errors import StatusError
from ultrafolio.rpc.messages import offer_to
from ultrafolio.rpc.v1 import common_pb2, guest_pb2, host_mm_pb2, host_mm_pb2_grpc, ultravisor_pb2, ultravisor_pb2_grpc
from ultrafolio.rpc.v1.common_pb2 import OUTCOME_DONE
from ultrafolio.state.crossing import NotTaken
from ultrafolio.state.store import Offer, Turn

FIRST = {"mm": 1, "task": 1, "pc": 1}


def offered(standing=FIRST, number=1, role="host", turn=None):
    return Offer(turn or TAKE[role], standing, f"{role}-first", number)


# ------------------------------------------------------------------------------------------------- in the store
def test_an_offered_turn_is_taken_with_the_first_result(stores):  # noqa: F811
    took = stores.ultravisor(1, offer=offered(), patches=WRITE["ultravisor"], journal=(0, b"result"))
    assert (took.status, took.journal) == ("done", [])
    again = stores.ultravisor(2, offer=offered(), patches=WRITE["ultravisor"], journal=(0, b"another"))
    assert (again.status, again.journal, again.revisions["uv"]) == ("done", [b"result"], 2), "asked twice, done once"
    assert stores.guest(1, patches=WRITE["guest"]).status == "held"
    assert stores.ultravisor(3, token="token", journal=(1, b"second")).status == "done"
    last = {"token": "token", "patches": WRITE["host"], "events": [b"step"], "release": True}
    assert stores.host(2, **last).status == "done"
    assert stores.engine.stores["admin"].turn(stores.engine.group) is None and stores.events() == [b"step"]


def test_an_offer_is_refused_where_what_its_beginner_saw_does_not_stand(stores):  # noqa: F811
    assert stores.host(1, "second", patches=WRITE["host"]).status == "done"
    refused = stores.ultravisor(1, offer=offered(), patches=WRITE["ultravisor"], journal=(0, b""), cached={"uv": 1})
    assert (refused.status, refused.revisions["uv"]) == ("moved", 1)
    assert stores.ultravisor(2, offer=offered(FIRST | {"mm": 2}), journal=(0, b"")).status == "done"


def test_an_offer_counts_once_and_not_after_a_later_one(stores):  # noqa: F811
    seen = {"actor": 1}
    for number, status in ((3, "done"), (3, "moved"), (2, "moved"), (4, "done")):
        turn = Turn(f"token-{number}", "guest", 0, 0, 0)
        look = stores.ultravisor(number, f"at {number}-{status}", offer=offered(seen, number, "guest", turn))
        assert look.status == status, number
    free = Turn("", "guest", 0, 0, 0)
    for number in (1, 1):
        assert stores.ultravisor(10 + number, f"free {number}", offer=offered(seen, 1, "guest", free)).status == "done"
    assert stores.engine.stores["admin"].turn(stores.engine.group) is None, "nobody asked for a turn"


def test_an_offer_that_arrives_after_its_beginners_next_commit_is_late(stores):  # noqa: F811
    assert stores.host(5).status == "done"
    assert stores.ultravisor(1, offer=offered(number=5), journal=(0, b"")).status == "moved"
    assert stores.ultravisor(2, offer=offered(number=6), journal=(0, b"")).status == "done"


def test_an_offer_waits_for_who_has_the_turn(stores):  # noqa: F811
    other = Turn("other", "guest", 0, 0, 0)
    stores.guest(1, take=other)
    assert stores.ultravisor(1, offer=offered(), journal=(0, b"")).status == "held"
    lease_over()
    assert stores.ultravisor(2, offer=offered(), journal=(0, b"result")).status == "done", "nobody took part in it"
    assert stores.guest(2, token="other", release=True).status == "lost"


def test_a_taken_turn_is_left_to_its_beginners_role(stores):  # noqa: F811
    stores.ultravisor(1, offer=offered(), patches=WRITE["ultravisor"], journal=(0, b"result"))
    lease_over()
    assert stores.guest(1, patches=WRITE["guest"]).status == "held"
    left = stores.host(9, "second", patches=WRITE["host"])
    assert (left.status, left.journal, left.turn.token) == ("left", [b"result"], "token")


# -------------------------------------------------------------------------------------------------- in a burst
def laid(places, folder, lease_ms=0):  # noqa: F811
    """A vCPU, and two exported pages."""
    engine = Breakable(places(lease_ms).stores, folder)
    engine.load(build("per-page", [0, 0], ["exported", "exported"], vcpu=[{}]).state)
    return engine


def test_steps_before_the_first_crossing_are_committed_once_with_it(places, tmp_path):  # noqa: F811
    engine = laid(places, tmp_path)
    assert engine.burst("guest", 0, TOUCH, 0, most=1)[0].outcome == FAULT
    acted = engine.ask

    def dies(*asked):
        acted(*asked)
        raise Crash

    engine.host._ask = dies
    with pytest.raises(Crash):
        engine.burst("host", 0, request="import/0")
    turn, state = engine.stores["admin"].turn(engine.group), engine.state()
    assert turn.request == "import/0" and state.uv["state"][0] == SECURE
    assert not state.mm["locked"][0] and len(engine.steps()) == 1, "none of the host's steps stands yet"
    engine.start()
    done = engine.burst("host", 0, request="import/0")
    assert [step.name for step in done][-1] == "import-call", "the successor begins where the burst began"
    assert engine.burst("host", 0, request="import/1")
    accept(engine)


def test_a_host_whose_view_is_old_looks_again_before_anything_is_done(places, tmp_path):  # noqa: F811
    engine = laid(places, tmp_path)
    engine.burst("guest", 0, TOUCH, 0, most=1)
    asked, act = [], engine.ask

    def ask(view, turn, index, function, arguments, offer=None):
        if offer and not asked:
            group = engine.stores["admin"]
            group.commit(engine.group, test_faults.Commit("1", "other", patches=WRITE["host"]))
        asked.append((function, offer is not None))
        return act(view, turn, index, function, arguments, offer)

    engine.host._ask = ask
    engine.host.refresh()
    engine.burst("host", 0)
    assert asked == [("uv_import", True)] * 2, "once in vain, and again over what stands"
    assert engine.state().uv["state"][0] == SECURE


def test_the_ultravisor_refuses_a_first_access_whose_beginner_saw_another_state(places, tmp_path):  # noqa: F811
    engine = laid(places, tmp_path)
    engine.guest.refresh()
    old = engine.guest.begin(0, TOUCH, 0, lambda view: True)
    (seen,) = engine.pages.first_access(0, [(0, 0, 0, b"")], old)
    assert seen.exception == PGM_3E and engine.stores["admin"].turn(engine.group).token == old.turn.token
    (again,) = engine.pages.first_access(0, [(0, 0, 0, b"")], old)
    assert again == seen, "asked again, it is answered as before"
    engine.guest.refresh()  # finishes what was left
    later = engine.guest.begin(0, TOUCH, 0, lambda view: True)
    with pytest.raises(NotTaken):
        engine.pages.first_access(0, [(0, 0, 1, b"x")], old)
    assert later.standing != old.standing and engine.state().uv["state"][0] == EXPORTED
    accept(engine)


def test_an_allowed_access_is_made_once_for_one_offer(places, tmp_path):  # noqa: F811
    engine = laid(places, tmp_path)
    assert engine.pages.call("uv_import", [0, 0, 0]).code == UV_OK
    engine.guest.refresh()
    offer = engine.guest.begin(0, TOUCH, 0, lambda view: True)
    (seen,) = engine.pages.first_access(0, [(0, 0, 1, b"x")], offer)
    assert (seen.exception, seen.data) == (0, b"x")
    with pytest.raises(NotTaken):
        engine.pages.first_access(0, [(0, 0, 1, b"y")], offer)
    assert engine.pages.access(0, [(0, 0, 1, b"")])[0].data == b"x"
    assert engine.stores["admin"].turn(engine.group) is None


# ------------------------------------------------------------------------------------------------ in a cluster
MOST_SCRIPTS = 10
"""Scripts and reads of the store that one import takes."""


@pytest.fixture(scope="module")
def where(tmp_path_factory):
    with running(tmp_path_factory.mktemp("offers")) as where:
        yield where


@pytest.fixture
def cluster(where):
    with Cluster.at(where) as cluster:
        yield cluster


BESIDE = re.compile(
    r"GET uf:\{[^}]*\}:turn$|GET uf:host:unfinished$|SMEMBERS uf:groups$|(PING|HELLO|CLIENT|SELECT|AUTH)\b"
)
"""What services ask of the store now and then, whether or not there is a call."""


def trips(monitor, store, call):
    """What `call` asks of the store: commands that no script ran and that are not asked now and then anyway."""
    call()
    store._client.execute_command("ECHO", "over")
    found = []
    while not (told := monitor.next_command())["command"].startswith("ECHO"):
        if told["client_type"] != "lua" and not BESIDE.match(told["command"]):
            found.append(told["command"].split()[0])
    return found


def test_scripts_of_an_import_and_of_a_touch(cluster):
    pages, exits = 6, []
    cluster.lay_out("counted", build("per-page", [0] * pages, ["exported"] * pages, vcpu=[{}]))

    def touch(page):
        answer = cluster.guest.Touch(guest_pb2.TouchRequest(group="counted", actor=0, page=page))
        assert answer.outcome == OUTCOME_DONE
        exits.append(answer.exceptions)

    with cluster.store._client.monitor() as monitor:
        imports = [trips(monitor, cluster.store, partial(touch, page)) for page in range(pages)]
        touches = [trips(monitor, cluster.store, partial(touch, page)) for page in range(pages)]
    assert exits == [1] * pages + [0] * pages
    print(f"an import: {imports[-1]}, a touch: {touches[-1]}")
    # the first call of a process reads what it never read before
    assert max(map(len, imports[1:])) <= MOST_SCRIPTS and touches == [["EVALSHA"]] * pages


OFFERING = ("guest:0", "guest-0123456789ab"), ("lab", "guest-0123456789ab"), ("guest", "~uv"), ("guest", "host-1a2b3c")


def test_only_services_may_offer_turns(where, cluster):
    cluster.lay_out("offers", build("per-page", [0], ["exported"], vcpu=[{}]))
    (address,) = [part["address"] for part in where["services"] if part["service"] == "ultravisor"]
    access = [ultravisor_pb2.PageAccess(page=0)]
    for role, writer in OFFERING:
        with connect(address, role) as channel:
            begins = offer_to(Offer(Turn("mine", "guest", 0, TOUCH, 0), {}, writer, 1))
            request = ultravisor_pb2.AccessRequest(group="offers", vm=0, accesses=access, begins=begins)
            with pytest.raises(StatusError) as refused:
                ultravisor_pb2_grpc.UltravisorServiceStub(channel).Access(request)
            assert (refused.value.code, refused.value.reason) == (grpc.StatusCode.PERMISSION_DENIED, "NOT_YOUR_TURN")
    assert cluster.store.turn("offers") is None


def test_a_guest_is_not_told_of_other_machines_counters(where, cluster):
    cluster.lay_out("two", build("per-page", [0], ["secure"], vcpu=[{}], writeback=[{"page": [0]}]))
    (address,) = [part["address"] for part in where["services"] if part["service"] == "host_mm"]
    asked = host_mm_pb2.RunRequest(group="two", actor=0, known={"pc": 0, "vm": 0, "mm": 0, "actor": 0})
    told = {}
    for role in ("guest", "guest:0"):
        with connect(address, role) as channel:
            run = channel.unary_unary(
                "/ultrafolio.rpc.v1.HostMmService/Run",
                host_mm_pb2.RunRequest.SerializeToString,
                host_mm_pb2.RunResponse.FromString,
            )
            told[role] = {section.name for section in run(asked).sections}
    assert told == {"guest": {"pc", "vm"}, "guest:0": set()}, "what a guest service reads itself, and no more"


def test_touches_at_once_by_one_vcpu(cluster):
    """Only one of them has the vCPU; none is lost, and the rules accept what they did."""
    pages = 8
    cluster.lay_out("crowd", build("per-page", [0] * pages, ["exported"] * pages, vcpu=[{}, {}]))
    failed = []

    def touch(actor):
        for page in range(pages):
            request = guest_pb2.TouchRequest(group="crowd", actor=actor, page=page, request_id=request_id())
            try:
                while cluster.guest.Touch(request, timeout=20).outcome != OUTCOME_DONE:
                    continue
            except StatusError as error:
                if error.reason != "ACTOR_BUSY":
                    failed.append(error)

    threads = [threading.Thread(target=touch, args=(n % 2,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failed, failed
    assert set(cluster.state("crowd").uv["state"][:pages].tolist()) == {SECURE}


def test_a_guest_that_tells_of_what_never_was_stops_nothing(where, cluster):
    cluster.lay_out("told", build("per-page", [0], ["exported"], vcpu=[{}]))
    (address,) = [part["address"] for part in where["services"] if part["service"] == "host_mm"]
    told = common_pb2.Section(name="pc", revision=1 << 40, data=cluster.store.read("told", ["pc"])["pc"])
    turn = common_pb2.Turn(token="none")
    crossing = host_mm_pb2.CrossRequest(group="told", turn=turn, function="turn_come", actor=0, sections=[told])
    with connect(address, "guest") as channel, pytest.raises(StatusError) as refused:
        host_mm_pb2_grpc.HostMmServiceStub(channel).Cross(crossing)
    assert refused.value.reason == "TURN_LOST"
    touch = guest_pb2.TouchRequest(group="told", actor=0, page=0, request_id=request_id())
    assert cluster.guest.Touch(touch).outcome == OUTCOME_DONE


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        ("take_pin", [-2, -2]),
        ("take_pin", [0, 2]),
        ("take_pin", [1, 0]),
        ("take_pin", [0]),
        ("take_exit", [PGM_3E, TOUCH, 1]),
        ("take_exit", [256, TOUCH, 0]),
        ("take_exit", [PGM_3E, 6, 0]),
        ("take_reboot", [2]),
        ("turn_come", [0]),
        ("close_pipe", []),
        ("fatal", []),
    ],
)
def test_an_entrance_of_the_host_has_arguments_of_the_group(where, cluster, function, arguments):
    if "entered" not in cluster.store.groups():
        cluster.lay_out("entered", build("per-page", [0], ["exported"], vcpu=[{}]))
    (address,) = [part["address"] for part in where["services"] if part["service"] == "host_mm"]
    turn = common_pb2.Turn(token="none")
    crossing = host_mm_pb2.CrossRequest(group="entered", turn=turn, function=function, arguments=arguments)
    with connect(address, "guest") as channel, pytest.raises(StatusError) as refused:
        host_mm_pb2_grpc.HostMmServiceStub(channel).Cross(crossing)
    assert (refused.value.code, refused.value.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "NO_SUCH_ENTRANCE")


HOSTILE = {
    "of no actor": {"actor": 1},
    "of no page": {"page": 1},
    "of no operation": {"op": 6},
    "that shows too little": {"seen": {}},
    "that shows a section of another size": {"seen": {"pc": b"", "vm": b""}},
    "that shows another section": {"more": {"uv": b"1"}},
    "over many sections": {"standing": dict.fromkeys(map(str, range(20_000)), 1)},
    "over a section that is not its own": {"standing": {"uv": 1}},
    "for a long request": {"request": "x" * 300},
}
"""An offer that no service makes -> the fields that differ from a good one."""


@pytest.mark.parametrize("kind", [*HOSTILE, "", "with a long token"])
def test_an_offer_that_nobody_could_finish_is_refused(where, cluster, kind):
    """A turn that was taken by it would be finished by whoever comes next: the group would be refused for ever."""
    group = f"hostile-{len(kind)}-{kind.count(' ')}"
    cluster.lay_out(group, build("per-page", [0], ["exported"], vcpu=[{}]))
    (address,) = [part["address"] for part in where["services"] if part["service"] == "ultravisor"]
    sections = cluster.store.read(group, ["pc", "vm"])
    fields = {"actor": 0, "op": TOUCH, "page": 0, "seen": sections, "standing": {"pc": 1}, "number": 1}
    changes = dict(HOSTILE.get(kind, {}))
    fields = fields | changes | {"seen": changes.pop("seen", sections) | changes.pop("more", {})}
    fields.pop("more", None)
    begins = common_pb2.Turn(token="t" * (65 if kind == "with a long token" else 64))
    begins.offer.CopyFrom(common_pb2.Offer(writer="guest-0123456789ab", **fields))
    access = [ultravisor_pb2.PageAccess(page=0)]
    request = ultravisor_pb2.AccessRequest(group=group, vm=0, accesses=access, begins=begins)
    with connect(address, "guest") as channel:
        stub = ultravisor_pb2_grpc.UltravisorServiceStub(channel)
        if kind:
            with pytest.raises(StatusError) as refused:
                stub.Access(request)
            assert (refused.value.code, refused.value.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "BAD_OFFER")
        else:
            assert stub.Access(request).outcomes[0].exception == PGM_3E
    assert (cluster.store.turn(group) is None) == bool(kind)
    # its beginner does not come back: another finishes what it began
    touch = guest_pb2.TouchRequest(group=group, actor=0, page=0, request_id=request_id())
    assert cluster.guest.Touch(touch).outcome == OUTCOME_DONE
