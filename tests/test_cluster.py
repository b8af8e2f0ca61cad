"""The cluster does what the interpreter does: conformance cases and walks, step by step over gRPC and Redis."""

import pytest

from clustered import Clustered, running
from ultrafolio.engine.conformance import CASES, SCENARIOS, Interpreter, agree, walked
from ultrafolio.model.policies import PRESETS


@pytest.fixture(scope="module")
def where(tmp_path_factory):
    with running(tmp_path_factory.mktemp("c")) as where:
        yield where


@pytest.fixture
def engine(where):
    engine = Clustered(where)
    yield engine
    engine.cluster.close()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_case(engine, case):
    case.run(engine)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("name", SCENARIOS)
def test_walks_agree_with_the_interpreter(engine, preset, name):
    agree(Interpreter(), engine, walked(name, preset), 3, 30)
