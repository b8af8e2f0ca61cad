"""A part that dies, an answer that is lost, a holder that comes back: every step stands once, in both stores."""

import random

import pytest

from faulty import Breakable, Crash, InMemory, InRedis
from ultrafolio.engine.conformance import SCENARIOS, walked
from ultrafolio.model.layout import IDLE_PC
from ultrafolio.model.rule import RULES
from ultrafolio.state.server import Server
from ultrafolio.state.validate import validate


@pytest.fixture(scope="module")
def server():
    with Server.start() as server:
        yield server


@pytest.fixture(params=["memory", "redis"])
def places(request):
    """Where groups are kept: lease in milliseconds -> stores that share one place."""
    server = request.getfixturevalue("server") if request.param == "redis" else None
    return lambda lease_ms: InRedis(server.url, lease_ms) if server else InMemory(lease_ms)


# ------------------------------------------------------------------------------------------------- crash points
def sections(engine):
    return {name: array.tobytes() for name, array in engine.state()._asdict().items()}


def accept(engine):
    verdict = validate(engine.stream(), engine.state)
    assert verdict.accepted, (verdict.at, verdict.why)
    return verdict


def crash_everywhere(place, folder, system, seed, bursts):
    """Bursts of random threads. Each is done once undisturbed, then again from the same start with a fault at every
    call that it makes: before the call takes effect or after, and with the faulty process dead or still alive.
    Returns how many faults there were."""
    engine, generator, faults = Breakable(place.stores, folder), random.Random(seed), 0
    engine.load(system.state)
    for number in range(bursts):
        actor = generator.randrange(len(system.choices))
        op, page = generator.choice(system.choices[actor])
        pc = int(engine.state().task["pc"][actor])
        if pc not in RULES:
            continue
        role, most = ("host", 64) if engine._of_host(pc) else ("guest", 1)
        if role == "host" and pc == IDLE_PC[int(engine.meta.who["kind"][actor])] and not RULES[pc].chooses:
            continue
        request = (role, actor, op, page, most, f"r{number}")
        before, bytes_before = place.keep(engine.group), (folder / "memory").read_bytes()
        engine.start()
        engine.faults.arm()
        done = engine.repeated(*request, 0)
        calls = engine.faults.calls
        wanted = sections(engine), engine.steps(), engine.plain()
        for at in range(1, calls + 1):
            for after in (False, True):
                for dies in (True, False):
                    place.put_back(engine.group, before)
                    (folder / "memory").write_bytes(bytes_before)
                    engine.start()
                    engine.faults.arm(at, after=after)
                    with pytest.raises(Crash):
                        engine.repeated(*request, len(done))
                    engine.faults.arm()
                    if dies:
                        engine.start()
                    again = engine.repeated(*request, len(done))
                    where = (number, request, RULES[pc].name, at, after, dies)
                    assert (again, engine.steps()) == (done, wanted[1]), where
                    assert (sections(engine), engine.plain()) == (wanted[0], wanted[2]), where
                    faults += 1
    accept(engine)
    return faults


@pytest.mark.parametrize("preset", ["per-page", "import-lock", "whole-folio-literal"])
@pytest.mark.parametrize("name", SCENARIOS)
def test_a_crash_at_every_call(tmp_path, name, preset):
    faults = crash_everywhere(InMemory(0), tmp_path, walked(name, preset), 1, 40)
    assert faults > 100


@pytest.mark.parametrize("name", ["ring", "faults"])
def test_a_crash_at_every_call_with_redis(server, tmp_path, name):
    assert crash_everywhere(InRedis(server.url, 0), tmp_path, walked(name, "per-page"), 2, 12) > 100
