"""Two hosts and guests race for one folio: the rules can reach the resulting state."""

import random
import sys
import threading

import pytest

from store_faults import Breakable, InMemory, InRedis, flattened
from ultrafolio.conformance.suite import SCENARIOS, build, inconsistency
from ultrafolio.model.layout import IDLE_PC, NOTHING
from ultrafolio.model.properties import PROPERTIES
from ultrafolio.model.rule import RULES
from ultrafolio.redis_server import Server
from ultrafolio.state.turn import Group
from ultrafolio.state.validate import validate

ENDLESS = 255
"""Starts of every actor: enough for 10,000 races."""


@pytest.fixture(autouse=True)
def impatient_threads():
    """Switch threads so often that they interleave within a burst, as processes do."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(usual)


@pytest.fixture(params=["memory", "redis"])
def place(request):
    """Stores on one server, with the services' lease."""
    if request.param == "memory":
        yield InMemory(2_000)
    else:
        with Server.start() as server:
            yield InRedis(server.url, 2_000)


def endless(name, preset):
    """A system of the conformance walks whose actors never run out of starts."""
    words = {
        key: [{**actor, "starts": ENDLESS} for actor in value] if key not in ("folios", "state", "memory") else value
        for key, value in SCENARIOS[name].items()
    }
    return build(preset, **words)


class Replica:
    """A host or guest with the view and writer name of a separate process."""

    def __init__(self, engine, role):
        self.role, self.group = role, Group(engine.stores[role], engine.group, engine.meta, role, engine.ask)


def race(engine, hosts, system, seed, races):
    """Both hosts and two guest services run threads of one group at once, `races` times; in about every fourth race
    both hosts get the same request. Returns the number of bursts with steps, and the answers by request."""
    generator = random.Random(seed)
    replicas = [Replica(engine, "host") for _ in range(hosts)] + [Replica(engine, "guest") for _ in range(2)]
    starts, ends = threading.Barrier(len(replicas) + 1), threading.Barrier(len(replicas) + 1)
    todo, answers, failed = {}, {}, []

    def run(number, replica):
        while True:
            starts.wait()
            if not todo:
                return
            actor, op, page, request = todo[number]
            try:
                pc = replica.group.refresh().live.task[actor].pc
                chooses = pc in RULES and pc == IDLE_PC[int(engine.meta.who["kind"][actor])]
                if pc in RULES and not (chooses and op == NOTHING):
                    done = replica.group.burst(
                        actor, op, page, most=64 if replica.role == "host" else 1, request=request
                    )
                    if done and done[0].outcome > 0:
                        answers.setdefault((replica.role, request), []).append(done)
            except BaseException as error:
                failed.append(error)
            ends.wait()

    threads = [threading.Thread(target=run, args=(n, one), daemon=True) for n, one in enumerate(replicas)]
    for thread in threads:
        thread.start()
    actors = range(len(system.choices))
    for number in range(races):
        same = generator.random() < 0.25
        for n in range(len(replicas)):
            actor = generator.choice(actors)
            todo[n] = (actor, *generator.choice(system.choices[actor]), f"{number}-{n}")
        if same:
            todo[1] = todo[0]
        starts.wait()
        ends.wait()
        assert not failed, failed
    todo.clear()
    starts.wait()
    return answers


def held_to_the_rules(engine, answers, races):
    """The validator accepts the stream; it has each answered step once; only properties of pinned pages, which no
    policy keeps, are broken."""
    events = engine.stream()
    verdict = validate(events, engine.state)
    assert verdict.accepted, (verdict.at, verdict.why)
    assert {name for _, name in verdict.broken} <= set(PROPERTIES[10:]), verdict.broken[:3]
    assert not inconsistency(engine.state())
    for key, given in answers.items():
        assert all(steps == given[0] for steps in given), (key, given)
    assert len(flattened(events)) == sum(len(given[0]) for given in answers.values())
    assert len(answers) > races
    refused = engine.faults.statuses["stale"] + engine.faults.statuses["held"]
    assert refused, "they never met"
    print(f"{races} races: {len(flattened(events))} steps, {dict(engine.faults.statuses)}")


@pytest.mark.parametrize(("name", "preset"), [("ring", "per-page"), ("two-guests", "import-lock")])
def test_two_hosts_race_for_one_folio(place, tmp_path, name, preset):
    engine, system = Breakable(place.stores, tmp_path), endless(name, preset)
    engine.load(system.state)
    held_to_the_rules(engine, race(engine, 2, system, 1, 130), 130)


@pytest.mark.slow
def test_two_hosts_race_for_one_folio_10_000_times(place, tmp_path):
    engine, system = Breakable(place.stores, tmp_path), endless("ring", "per-page")
    engine.load(system.state)
    held_to_the_rules(engine, race(engine, 2, system, 3, 10_000), 10_000)
