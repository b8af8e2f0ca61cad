"""The conformance suite: what an engine over the rules must do, shipped so that any engine can be bound to it.

An engine is anything with `load`, `step` and `state` (see Engine): the interpreter and the compiled rules here, a
store or a cluster elsewhere. Each Case drives an engine and raises AssertionError, with the steps so far, where the
engine does otherwise. Bound to pytest, each case is a test:

    class TestMine:
        @pytest.fixture
        def engine(self):
            return MyEngine()

        @pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
        def test_case(self, engine, case):
            case.run(engine)

`agree` compares an engine with another on random walks, byte for byte. docs/conformance.md says which case is
decided where, and which lie outside the model.
"""

from __future__ import annotations

from ultrafolio.conformance import access, calls, host, imports, kernels, steps, walks
from ultrafolio.conformance.bench import EVERY, Bench, Compiled, Engine, Interpreter, build
from ultrafolio.conformance.case import CASES, Case
from ultrafolio.conformance.walks import SAFE, SCENARIOS, Step, agree, check_walk, inconsistency, system_of, walk

MODULES = (
    calls,
    imports,
    kernels,
    access,
    host,
    steps,
    walks,
)
"""The modules that fill CASES."""

__all__ = [
    "CASES",
    "EVERY",
    "MODULES",
    "SAFE",
    "SCENARIOS",
    "Bench",
    "Case",
    "Compiled",
    "Engine",
    "Interpreter",
    "Step",
    "agree",
    "build",
    "check_walk",
    "inconsistency",
    "system_of",
    "walk",
]  # fmt: skip
