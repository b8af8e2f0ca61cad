"""The cluster agrees with the interpreter: conformance cases and scenarios, step by step over gRPC and Redis."""

from pathlib import Path

import pytest

from running_cluster import Clustered, running
from ultrafolio.commands import validate
from ultrafolio.conformance.suite import CASES, Interpreter, agree
from ultrafolio.model.policies import PRESETS
from ultrafolio.model.scenario import read, system
from ultrafolio.state.redis import RedisStore
from ultrafolio.state.validate import validate as hold

SCENARIOS = sorted((Path(__file__).parents[2] / "scenarios").glob("*.toml"))
LONG = ("walks-keep-the-invariant", "no-bit-on-a-large-folio")
PAIRS = [(file, preset) for file in SCENARIOS for preset in PRESETS]
QUICK = [(file, list(PRESETS)[n % len(PRESETS)]) for n, file in enumerate(SCENARIOS)]


@pytest.fixture(scope="module")
def where(tmp_path_factory):
    """A cluster; at the end the validator must accept all its streams."""
    with running(tmp_path_factory.mktemp("c")) as where:
        yield where
        store = RedisStore(where["redis"], "admin")
        groups = store.groups()
        for group in groups:
            verdict = hold(store.history(group), validate.stored(store, group))
            assert verdict.accepted, (group, verdict)


@pytest.fixture
def engine(where):
    engine = Clustered(where)
    yield engine
    engine.cluster.close()


def long_ones(case):
    """Whether a case has thousands of steps, each a call here; the scenarios below run some under every policy."""
    return pytest.param(case, marks=pytest.mark.slow) if case.name in LONG else case


@pytest.mark.parametrize("case", [long_ones(case) for case in CASES], ids=lambda case: case.name)
def test_case(engine, case):
    case.run(engine)


def walk_together(engine, file, preset, steps):
    agree(Interpreter(), engine, system(read(file), PRESETS[preset][1]), 3, steps)


@pytest.mark.parametrize(("file", "preset"), QUICK, ids=lambda value: getattr(value, "stem", value))
def test_scenario(engine, file, preset):
    walk_together(engine, file, preset, 25)


@pytest.mark.slow
@pytest.mark.parametrize(("file", "preset"), PAIRS, ids=lambda value: getattr(value, "stem", value))
def test_every_scenario_under_every_policy(engine, file, preset):
    walk_together(engine, file, preset, 60)
