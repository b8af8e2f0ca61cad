"""A part dies, an answer is lost, a holder returns: every step is applied once, in both stores."""

import random
import threading
import time

import msgspec
import pytest

import chaos_rounds
from patience import HUNG
from services.common.groups import Groups
from store_faults import Breakable, Crash, InMemory, InRedis
from ultrafolio.conformance.suite import SCENARIOS, system_of
from ultrafolio.model.layout import EXPORTED, PINNED_SHARED, UV_OK
from ultrafolio.redis_server import Server
from ultrafolio.rpc.client import request_id
from ultrafolio.rpc.v1 import guest_pb2, host_mm_pb2
from ultrafolio.rpc.v1.common_pb2 import OUTCOME_DONE, OUTCOME_WAITS
from ultrafolio.state.store import Commit, Patch, Turn
from ultrafolio.state.turn import Contended, Group
from ultrafolio.state.validate import validate


@pytest.fixture(scope="module")
def server():
    with Server.start() as server:
        yield server


@pytest.fixture(params=["memory", "redis"])
def places(request):
    """A function: lease in milliseconds -> stores of the roles on one server."""
    server = request.getfixturevalue("server") if request.param == "redis" else None
    return lambda lease_ms: InRedis(server.url, lease_ms) if server else InMemory(lease_ms)


# --------------------------------------------------------------------------------------------- the turn protocol
LEASE_MS = 60
RING, WRITEBACK = 1, 2
"""Actors of the system `ring`."""


@pytest.fixture
def stores(places, tmp_path):
    """Per role the store's commit on a laid-out group, with a short lease."""
    engine = Breakable(places(LEASE_MS).stores, tmp_path)
    engine.load(system_of("ring", "per-page").state)
    return Roles(engine)


class Roles:
    """Commits to one group: role(number, ...) by that role's process, or by another `writer` of it."""

    def __init__(self, engine):
        self.engine = engine

    def __getattr__(self, role):
        def commit(number, writer="first", **rest):
            return self.engine.stores[role].commit(self.engine.group, Commit(str(number), f"{role}-{writer}", **rest))

        return commit

    def events(self):
        return [event.data for event in self.engine.stream()][3:]


TAKE = {role: Turn("token", role, 0, 0, 0) for role in ("host", "guest")}
WRITE = {"host": [Patch("mm", 0, b"\1")], "guest": [Patch("actor", 0, b"\1")], "ultravisor": [Patch("uv", 0, b"\1")]}


def lease_over():
    time.sleep(LEASE_MS / 1000 + 0.02)


def test_a_turn_with_an_empty_journal_is_void_after_its_lease(stores):
    assert stores.host(1, take=TAKE["host"]).status == "done"
    held = stores.guest(1)
    assert (held.status, held.turn.role) == ("held", "host") and 0 < held.wait <= LEASE_MS
    lease_over()
    assert stores.guest(2, patches=WRITE["guest"]).status == "done"
    late = stores.host(2, token="token", patches=WRITE["host"], events=[b"late"], release=True)
    assert late.status == "lost", "a holder that comes back after others went on"
    assert stores.ultravisor(1, token="token", journal=(0, b"late")).status == "lost"
    assert stores.events() == []


def test_a_turn_with_results_waits_for_its_role_and_is_finished_once(stores):
    stores.host(1, take=TAKE["host"])
    assert stores.ultravisor(1, token="token", patches=WRITE["ultravisor"], journal=(0, b"result")).status == "done"
    lease_over()
    other = stores.guest(1, patches=WRITE["guest"])
    assert (other.status, other.wait) == ("held", 0), "a lease that is over does not let another role in"
    left = stores.host(1, "second", patches=WRITE["host"])
    assert (left.status, left.journal, left.turn.token) == ("left", [b"result"], "token")
    adopted = msgspec.structs.replace(TAKE["host"], token="new")
    assert stores.host(2, "second", take=adopted, adopt=True).status == "done"
    assert stores.host(2, token="token", events=[b"twice"]).status == "lost"
    assert stores.ultravisor(2, token="token", journal=(1, b"")).status == "lost"
    again = stores.ultravisor(3, token="new", journal=(0, b"another"))
    assert (again.status, again.journal) == ("done", [b"result"]), "a place that is taken keeps its result"
    assert stores.host(3, "second", token="new", events=[b"step"], release=True).status == "done"
    assert stores.guest(2, patches=WRITE["guest"]).status == "done"
    assert stores.events() == [b"step"]


def test_a_repeated_journal_index_acts_once(stores):
    stores.host(1, take=TAKE["host"])
    first = stores.ultravisor(1, token="token", patches=WRITE["ultravisor"], journal=(0, b"first"))
    second = stores.ultravisor(
        1, "second", cached={"uv": 1}, token="token", patches=WRITE["ultravisor"], journal=(0, b"second")
    )
    assert (first.journal, second.journal, second.revisions["uv"]) == ([], [b"first"], 2)


def test_a_commit_whose_answer_was_lost_is_answered_done_and_a_late_copy_changes_nothing(stores):
    stores.host(1, take=TAKE["host"])
    last = {"token": "token", "events": [b"step"], "patches": WRITE["host"], "release": True, "cached": {"mm": 1}}
    assert [stores.host(2, **last).status for _ in range(2)] == ["done", "done"]
    assert stores.host(3, events=[b"next"]).status == "done"
    assert stores.host(2, events=[b"copy"]).status == "stale"
    assert stores.events() == [b"step", b"next"]


def test_a_request_keeps_its_answer_per_role(stores):
    stores.host(1, request=("r", b"answer"))
    group = stores.engine.group
    assert stores.engine.stores["host"].reply(group, "r") == b"answer"
    assert stores.engine.stores["guest"].reply(group, "r") is None


def left_behind(engine, actor):
    """A guest dies while it configures its ring, after the host has committed its part."""
    for at in range(1, 20):
        engine.load(system_of("ring", "per-page").state)
        engine.faults.arm(at, after=True)
        with pytest.raises(Crash):
            engine.burst("guest", actor, 1, 0, most=1, request="configure")
        turn = engine.stores["admin"].turn(engine.group)
        engine.faults.arm()
        if turn and engine.state().task["n"][actor]:
            return
    raise AssertionError("the host never took part")


def test_another_role_waits_until_the_dead_holders_role_is_back(places, tmp_path):
    engine = Breakable(places(0).stores, tmp_path)
    left_behind(engine, RING)
    engine.start()
    engine.host._patience = 0.05
    with pytest.raises(Contended, match="held by guest"):
        engine.burst("host", WRITEBACK, 1, 0)
    assert engine.steps() == []
    engine.guest.refresh()
    assert len(engine.steps()) == 1 and engine.stores["admin"].turn(engine.group) is None
    assert engine.burst("host", WRITEBACK, 1, 0)
    accept(engine)


def test_a_paused_holder_finds_its_step_done_by_another_process(places, tmp_path):
    """Two hosts; the first is paused after the ultravisor has acted, until the second has adopted the turn."""
    engine = Breakable(places(LEASE_MS).stores, tmp_path)
    engine.load(system_of("ring", "per-page").state)
    acted, go_on = threading.Event(), threading.Event()

    def paused(*asked):
        result = engine.ask(*asked)
        acted.set()
        assert go_on.wait(10)
        return result

    first, second = (
        Group(engine.stores["host"], engine.group, engine.meta, "host", ask) for ask in (paused, engine.ask)
    )
    answers = []
    thread = threading.Thread(target=lambda: answers.append(first.burst(WRITEBACK, 1, 0, request="writeback")))
    thread.start()
    assert acted.wait(10)
    done = second.burst(WRITEBACK, 1, 0, request="writeback")
    go_on.set()
    thread.join(10)
    assert answers == [done] and [step.outcome for step in engine.steps()] == [step.outcome for step in done]
    accept(engine)


def test_a_request_under_its_own_left_turn_waits_for_the_lease(places, tmp_path):
    """The thread is at the host, but the step that passed it there is not finished: the answer may not be empty."""
    engine = Breakable(places(5 * LEASE_MS).stores, tmp_path)
    left_behind(engine, RING)
    engine.start()
    assert len(engine.burst("guest", RING, 1, 0, most=1, request="configure")) == 1
    assert len(engine.steps()) == 1
    accept(engine)


def test_a_service_finishes_abandoned_turns_of_its_role(places, tmp_path, monkeypatch):
    engine = Breakable(places(0).stores, tmp_path)
    left_behind(engine, RING)
    engine.start()
    monkeypatch.setattr("services.common.groups.meta_of", lambda store, name: engine.meta)
    over = threading.Event()
    Groups(engine.stores["guest"], lambda name, meta, held: engine.guest).tend(Group.refresh, 0.01, over)
    until = time.monotonic() + 5
    while engine.stores["admin"].turn(engine.group) and time.monotonic() < until:
        time.sleep(0.01)
    over.set()
    assert len(engine.steps()) == 1, "finished, and nobody asked for it"


def test_finishing_a_turn_reports_its_holder(places, tmp_path):
    """So that the abandoned thread, which holds a folio lock, can be resumed."""
    engine = Breakable(places(0).stores, tmp_path)
    engine.load(system_of("ring", "per-page").state)
    acted, told = engine.ask, []

    def dies(*asked):
        acted(*asked)
        raise Crash

    engine.host._ask = dies
    with pytest.raises(Crash):
        engine.burst("host", WRITEBACK, 1, 0, request="back/1")
    assert engine.stores["admin"].turn(engine.group)
    Group(
        engine.stores["host"],
        engine.group,
        engine.meta,
        "host",
        engine.ask,
        left=lambda group, turn: told.append((group, turn.actor, turn.request)),
    ).refresh()
    assert told == [(engine.group, WRITEBACK, "back/1")] and engine.state().mm["locked"][0]


# --------------------------------------------------------------------------------------------- contents of pages
def marked(engine):
    """The system `ring`, with data in its second page, which is then exported to its second frame."""
    engine.load(system_of("ring", "per-page").state)
    data = bytes(range(256)) * 16
    assert not engine.pages.access(0, [(1, 0, 0, data)])[0].exception
    assert engine.pages.call("uv_export", [1]).code == UV_OK
    return data


def test_a_fresh_ultravisor_writes_over_no_frame_in_use(places, tmp_path):
    engine = Breakable(places(0).stores, tmp_path)
    data = marked(engine)
    engine.start()
    assert engine.pages.call("uv_import", [0, 1, 0]).code == UV_OK
    assert engine.pages.access(0, [(1, 0, 4096, b"")])[0].data == data


def test_a_page_call_with_a_request_id_happens_once(places, tmp_path):
    engine = Breakable(places(0).stores, tmp_path)
    marked(engine)
    engine.faults.arm(2, after=True)
    with pytest.raises(Crash):
        engine.pages.call("uv_import", [0, 1, 0], request="again")
    engine.faults.arm()
    engine.start()
    assert engine.pages.call("uv_export", [1]).code == UV_OK
    assert engine.pages.call("uv_import", [0, 1, 0], request="again").code == UV_OK
    assert engine.state().uv["state"][1] == EXPORTED, "as the later call left it"
    accept(engine)


def test_a_commit_that_a_dead_ultravisor_left_under_way_changes_nothing_later(places, tmp_path):
    engine = Breakable(places(0).stores, tmp_path)
    data, sent = marked(engine), []
    store = engine.stores["ultravisor"]
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Crash):

        def send(group, commit):
            sent.append(commit)
            raise Crash

        patch.setattr(store, "commit", send)
        engine.pages.call("uv_import", [0, 1, 0])
    engine.start()
    engine.pages.guest_view(0, 1)
    assert sent[0].patches and store.commit(engine.group, sent[0]).status == "stale", "though no revision has moved"
    assert engine.pages.call("uv_import", [0, 1, 0]).code == UV_OK
    assert engine.plain()[1] == data


# ------------------------------------------------------------------------------------------------- crash points
def sections(engine):
    return {name: array.tobytes() for name, array in engine.state()._asdict().items()}


def accept(engine):
    verdict = validate(engine.stream(), engine.state)
    assert verdict.accepted, (verdict.at, verdict.why)
    return verdict


def crash_everywhere(place, folder, system, seed, bursts):
    """Bursts of random threads. Each runs once without a fault, then again from the same state with a fault at each of
    its calls: before or after the call takes effect, with the faulty process dead or alive. Returns the number of
    faults."""
    engine, generator, faults = Breakable(place.stores, folder), random.Random(seed), 0
    memory = folder / "memory"
    memory.touch()
    engine.load(system.state)
    actor = 0
    for number in range(bursts):
        actor = generator.choice([actor, generator.randrange(len(system.choices))])
        op, page = generator.choice(system.choices[actor])
        pc = int(engine.state().task["pc"][actor])
        if pc not in engine.meta.design.rules:
            continue
        rule = engine.meta.design.rules[pc]
        role, most = ("host", 64) if engine.host.runs(pc) else ("guest", 1)
        if role == "host" and pc == engine.meta.design.idle[int(engine.meta.who["kind"][actor])] and not rule.chooses:
            continue
        request = (role, actor, op, page, most, f"r{number}")
        before, bytes_before = place.keep(engine.group), memory.read_bytes()
        engine.start()
        engine.faults.arm()
        done = engine.repeated(*request, 0)
        calls = engine.faults.calls
        wanted = sections(engine), engine.steps(), engine.plain()
        for at in range(1, calls + 1):
            for after in (False, True):
                for dies in (True, False):
                    place.put_back(engine.group, before)
                    memory.write_bytes(bytes_before)
                    engine.start()
                    engine.faults.arm(at, after=after)
                    with pytest.raises(Crash):
                        engine.repeated(*request, len(done))
                    engine.faults.arm()
                    if dies:
                        engine.start()
                    again = engine.repeated(*request, len(done))
                    where = (number, request, rule.name, at, after, dies)
                    assert (again, engine.steps()) == (done, wanted[1]), where
                    assert (sections(engine), engine.plain()) == (wanted[0], wanted[2]), where
                    faults += 1
    accept(engine)
    return faults


POLICIES = ("per-page", "import-lock", "whole-folio-literal")


@pytest.mark.parametrize("turn", [0, *(pytest.param(more, marks=pytest.mark.slow) for more in (1, 2))])
@pytest.mark.parametrize("name", SCENARIOS)
def test_a_crash_at_every_call(tmp_path, name, turn):
    """A system under one policy, the next under the next; --long: each under all."""
    preset = POLICIES[(list(SCENARIOS).index(name) + turn) % 3]
    faults = crash_everywhere(InMemory(0), tmp_path, system_of(name, preset), 1, 40)
    assert faults > 100


@pytest.mark.parametrize("name", ["ring", "faults"])
def test_a_crash_at_every_call_with_redis(server, tmp_path, name):
    assert crash_everywhere(InRedis(server.url, 0), tmp_path, system_of(name, "per-page"), 2, 12) > 100


# ------------------------------------------------------------------------------------------------- a real cluster
GROUPS = (("ring", "per-page"), ("busy-host", "import-lock"), ("two-guests", "per-page"))


def rounds_of_faults(folder, seed, rounds, fresh=10, faults=chaos_rounds.FAULTS, replicas=1):
    """Rounds under load: one fault each, then wait until every client gets answers. New groups every `fresh` rounds."""
    generator, figures = random.Random(seed), {"steps": 0, "rounds": 0, "slowest start": 0.0, "slowest return": 0.0}
    figures["faults"] = set()
    with chaos_rounds.cluster_at(folder, replicas) as cluster, cluster.client() as client:
        for first in range(0, rounds, fresh):
            loads = []
            for name, preset in GROUPS:
                group, system = f"{name}-{first}", system_of(name, preset)
                client.lay_out(group, system)
                actors = list(range(len(system.choices)))
                loads += [chaos_rounds.Load(client, group, system, actors[n::2], generator.random()) for n in range(2)]
            cluster.under_load = sorted({load.group for load in loads})
            for number in range(first, min(first + fresh, rounds)):
                time.sleep(generator.uniform(0.05, 0.4))
                fault = generator.choice(list(faults))
                started = faults[fault](cluster)
                began, answers = time.monotonic(), [load.answers for load in loads]
                while any(load.answers < before + 2 for load, before in zip(loads, answers, strict=True)):
                    assert not [load.failed for load in loads if load.failed], (number, fault, loads)
                    assert time.monotonic() - began < HUNG, f"round {number}, {fault}: some client gets no answer"
                    time.sleep(0.02)
                back = started + time.monotonic() - began
                print(f"round {number}: {fault}: start {started:.2f} s, all clients answered after {back:.2f} s")
                figures["rounds"] += 1
                figures["faults"].add(fault)
                figures["slowest start"] = max(figures["slowest start"], started)
                figures["slowest return"] = max(figures["slowest return"], back)
            for load in loads:
                load.over = True
            for load in loads:
                load.join(60)
                assert not load.is_alive() and not load.failed, load.failed
            for name, _ in GROUPS:
                mine = [load for load in loads if load.group == f"{name}-{first}"]
                figures["steps"] += chaos_rounds.check_books(client, f"{name}-{first}", mine)
    print(figures)
    return figures


def test_a_cluster_under_faults(tmp_path):
    """The six rounds of this seed kill every part once, pause one and lose answers."""
    assert rounds_of_faults(tmp_path, 304, 6)["steps"] > 100


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_a_cluster_under_faults_for_long(tmp_path):
    assert rounds_of_faults(tmp_path, 2023, 200)["steps"] > 10_000


def test_device_pins_and_page_contents_outlive_every_part(tmp_path):
    with chaos_rounds.cluster_at(tmp_path) as cluster, cluster.client() as client:
        client.lay_out("g", system_of("ring", "per-page"))
        data = bytes(range(256)) * 16
        wrote = guest_pb2.TouchRequest(group="g", actor=0, page=1, data=data, request_id=request_id())
        configured = guest_pb2.ConfigureRequest(group="g", actor=RING, page=0, request_id=request_id())
        assert chaos_rounds.patiently(client.guest.Touch, wrote).outcome == OUTCOME_DONE
        assert chaos_rounds.patiently(client.guest.Configure, configured).outcome == OUTCOME_DONE
        exported = host_mm_pb2.StartRequest(group="g", actor=WRITEBACK, page=0, request_id=request_id())
        assert chaos_rounds.patiently(client.host.Start, exported).steps
        for name in ("ultravisor", "host_mm", "guest"):
            cluster.kill(name)
        cluster.kill_redis()
        assert client.state("g").mm["longs"][0] == 1
        assert client.state("g").uv["state"].tolist() == [PINNED_SHARED, EXPORTED]
        read = guest_pb2.TouchRequest(group="g", actor=0, page=1, length=4096)
        assert chaos_rounds.patiently(client.guest.Touch, read).data == data
        unshared = guest_pb2.UnshareRequest(group="g", actor=0, page=0, request_id=request_id())
        assert client.guest.Unshare(unshared, timeout=1).outcome == OUTCOME_WAITS, "the device's pin still holds it"
        again = chaos_rounds.patiently(client.guest.Configure, configured)
        assert again.outcome == OUTCOME_DONE and client.state("g").mm["longs"][0] == 1, "configured once"
        reboot = guest_pb2.RebootRequest(group="g", actor=3, request_id=request_id())
        assert chaos_rounds.patiently(client.guest.Reboot, reboot).outcome == OUTCOME_DONE
        assert client.state("g").mm["longs"][0] == 0
        verdict = validate(client.store.history("g"), lambda: client.state("g"))
        assert verdict.accepted and not verdict.broken, verdict
