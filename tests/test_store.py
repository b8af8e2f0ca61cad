"""The shared state: rules run against a store agree with the interpreter step for step."""

import pytest

from stored import Stored
from ultrafolio.engine.conformance import CASES, SCENARIOS, Interpreter, agree, walked
from ultrafolio.model.policies import PRESETS
from ultrafolio.state.memory import Memory, MemoryStore


@pytest.fixture
def engine(tmp_path):
    memory = Memory()
    return Stored({role: MemoryStore(memory, role) for role in ("ultravisor", "host", "guest", "admin")}, tmp_path)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_case(engine, case):
    case.run(engine)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("name", SCENARIOS)
def test_walks_agree_with_the_interpreter(engine, preset, name):
    agree(Interpreter(), engine, walked(name, preset), 3, 60)
