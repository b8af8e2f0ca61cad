"""The shared state: rules run against a store agree with the interpreter, and the validator accepts what they did."""

from pathlib import Path

import pytest

from stored import Stored
from ultrafolio.engine.conformance import CASES, Interpreter, agree
from ultrafolio.model.policies import PRESETS
from ultrafolio.model.scenario import read, system
from ultrafolio.state.memory import Memory, MemoryStore
from ultrafolio.state.validate import validate

SCENARIOS = sorted((Path(__file__).parent.parent / "scenarios").glob("*.toml"))


@pytest.fixture
def engine(tmp_path):
    memory = Memory()
    return Stored({role: MemoryStore(memory, role) for role in ("ultravisor", "host", "guest", "admin")}, tmp_path)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_case(engine, case):
    case.run(engine)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("file", SCENARIOS, ids=lambda file: file.stem)
def test_scenario(engine, file, preset):
    agree(Interpreter(), engine, system(read(file), PRESETS[preset][1]), 3, 40)
    verdict = validate(engine.stores["admin"].events(engine.group), engine.state)
    assert verdict.accepted, (verdict.at, verdict.why)
