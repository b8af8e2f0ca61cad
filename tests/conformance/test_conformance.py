"""The conformance suite over both engines; the engines against each other; every case can fail."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mutants import MUTANTS
from ultrafolio.conformance import suite
from ultrafolio.conformance.suite import (
    CASES,
    EVERY,
    SAFE,
    SCENARIOS,
    Bench,
    Case,
    Compiled,
    Engine,
    Interpreter,
    agree,
    build,
    check_walk,
    inconsistency,
    system_of,
    walk,
)
from ultrafolio.engine import load
from ultrafolio.model import properties
from ultrafolio.model.layout import pack
from ultrafolio.model.policies import PRESETS, find
from ultrafolio.model.policy import VARIANTS, Policy
from ultrafolio.model.rule import RULES

TABLE = Path(__file__).parents[2] / "docs" / "conformance.md"
BY_NAME = {case.name: case for case in CASES}
POLICIES: dict[str, Policy] = {
    **{name: find(name) for name in EVERY},
    "sleeps": replace(PRESETS["split"][1], on_busy="sleep"),
    "gives-up": replace(PRESETS["import-lock"][1], on_busy="give-up", give_up=20),
    "never-drains": replace(PRESETS["whole-folio"][1], drain="none", on_busy="sleep"),
    "every-bug": replace(PRESETS["split-writeback"][1], variants=tuple(VARIANTS)),
}


class Suite:
    """Every case against the engine of a subclass: its fixture `engine`."""

    @pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
    def test_case(self, engine: Engine, case: Case) -> None:
        case.run(engine)

    @pytest.mark.parametrize("preset", EVERY)
    def test_walks_are_consistent(self, engine: Engine, preset: str) -> None:
        for name in SCENARIOS:
            check_walk(engine, system_of(name, preset), 7, 300, safe=preset in SAFE)

    def test_the_caller_may_change_a_returned_state(self, engine: Engine) -> None:
        system = build("per-page", [0], ["exported"], vcpu=[{}])
        before = pack(system.state)
        engine.load(system.state)
        engine.state().uv["state"] = 1
        assert pack(engine.state()) == before
        assert engine.step(0, 1, 0) > 0
        assert pack(system.state) == before
        engine.load(system.state)
        assert pack(engine.state()) == before


class TestInterpreter(Suite):
    @pytest.fixture
    def engine(self, request: pytest.FixtureRequest) -> Engine:
        # half of this file's time; the compiled engine always makes these walks, and both agree to the byte below
        walks = re.match(r"test_case\[walks-keep-the-invariant|test_walks_are_consistent", request.node.name)
        if walks and not request.config.getoption("--long"):
            pytest.skip("a long round; --long runs it")
        return Interpreter()


class TestCompiled(Suite):
    @pytest.fixture
    def engine(self) -> Engine:
        return Compiled()


# ------------------------------------------------------------------------------- one engine against the other
@pytest.fixture(scope="module")
def pair() -> tuple[Engine, Engine]:
    return Interpreter(), Compiled()


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("policy", POLICIES)
def test_the_engines_agree_to_the_byte(pair: tuple[Engine, Engine], policy: str, seed: int) -> None:
    for name in SCENARIOS:
        agree(*pair, system_of(name, POLICIES[policy]), seed, 350)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.sampled_from(sorted(SCENARIOS)), st.sampled_from(sorted(POLICIES)), st.integers(0, 2**32 - 1))
def test_the_engines_agree_on_any_walk(pair: tuple[Engine, Engine], name: str, policy: str, seed: int) -> None:
    agree(*pair, system_of(name, POLICIES[policy]), seed, 300)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(st.sampled_from(sorted(SCENARIOS)), st.sampled_from(SAFE), st.integers(0, 2**32 - 1))
def test_safe_presets_stay_safe_on_any_walk(name: str, preset: str, seed: int) -> None:
    check_walk(Interpreter(), system_of(name, preset), seed, 400, safe=True)


def test_the_walks_take_every_step_of_the_model() -> None:
    never = set(RULES)
    for seed, policy, name in itertools.product(range(2), POLICIES.values(), SCENARIOS):
        never -= {s.pc for s in walk(Interpreter(), system_of(name, policy), seed, 400) if s.outcome > 0}
        if not never:
            break
    assert sorted(RULES[pc].name for pc in never) == []


def test_equal_seeds_are_equal_walks() -> None:
    system = system_of("busy-host", "split")
    one, two, other = ([str(s) for s in walk(Interpreter(), system, seed, 200)] for seed in (5, 5, 6))
    assert one == two != other


# ------------------------------------------------------------------------------------------ every case can fail
@pytest.mark.parametrize("name", MUTANTS)
def test_a_broken_rule_fails_its_cases(name: str) -> None:
    changed, red = MUTANTS[name]
    engine = Interpreter(load.mutant(changed), name)
    for case in red:
        with pytest.raises(AssertionError, match=re.escape(name)):
            BY_NAME[case].run(engine)


def test_every_case_has_a_broken_rule_that_fails_it() -> None:
    red = {case for _, cases in MUTANTS.values() for case in cases}
    assert sorted(set(BY_NAME) - red) == []


def test_engines_that_differ_do_not_agree() -> None:
    changed, _ = MUTANTS["bit cleared before the export"]
    clears_early = Interpreter(load.mutant(changed), "mutant")
    denies = Interpreter(load.mutant({"    if uv.owner == vm:\n        return ALLOWED": "    if 0:\n        pass"}))
    for engine, says in ((clears_early, "differ in bytes"), (denies, r"vcpu-run.* says")):
        with pytest.raises(AssertionError, match=says):
            for seed in range(10):
                agree(Interpreter(), engine, system_of("busy-host", "per-page"), seed, 400)


def test_a_busy_call_is_undone_and_made_again() -> None:
    """Case 22: one attempt, then everything undone and the vCPU touches again; the bit over-indicates meanwhile."""
    new_page = "\n    if uv.state == NON_SECURE or"
    busy = load.mutant({f"return UV_ERROR{new_page} (": f"return UV_BUSY{new_page} ("})
    bench = Bench(Interpreter(busy), build("per-page", [0], ["exported"], memory={"refuses": [0]}, vcpu=[{}]))
    bench.upto(0, "import-call")
    assert bench.go(0, limit=2) == ["import-call: EAGAIN (UVC busy)", "vcpu-again: FAULT"]
    mm = bench.state.mm[0]
    assert (mm["locked"], mm["frozen"], mm["arch"], bench.pages()) == (0, 0, 1, ["EXPORTED"])


# --------------------------------------------------------------------------------------- the suite's own tools
@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("order", 0, "orders"),
        ("pins", 1, "extra references"),
        ("batch", 1, "extra references"),
        ("arch", 0, "arch bits"),
        ("frozen", 1, "frozen but not locked"),
        ("locked", 1, "on a tail page"),
        ("refs", 1, "on a tail page"),
        ("writeback", 1, "on a tail page"),
        ("granted", 1, "pins granted"),
    ],
)
def test_inconsistent_states_are_seen(field: str, value: int, says: str) -> None:
    state = build("per-page", [1], ["secure"], vcpu=[{}]).state
    assert inconsistency(state) == ""
    state.mm[field][1] = value
    assert says in inconsistency(state)


def test_inconsistent_mutexes_are_seen() -> None:
    for where, name in (("vm", "mutex"), ("task", "mutex")):
        state = build("import-lock", vcpu=[{}, {}]).state
        getattr(state, where)[name][0] = 2
        assert "import mutex of machine 0" in inconsistency(state)


def test_a_failure_says_engine_steps_and_both_values() -> None:
    bench = Bench(Interpreter(name="mine"), build("per-page", [0], ["exported"], vcpu=[{}]))
    bench.go(0)
    with pytest.raises(AssertionError) as error:
        bench.expect("the page", bench.pages(), ["SHARED"])
    for part in ("mine: the page", "['SECURE']", "['SHARED']", "import-call: OK"):
        assert part in str(error.value)
    with pytest.raises(AssertionError, match="split was not reached"):
        bench.upto(0, "split")


def test_unsafe_presets_are_seen_by_the_invariant() -> None:
    """The invariant is not vacuous: a rule without the writeback check breaks it, seen by step and by page."""
    changed, _ = MUTANTS["import without the writeback check"]
    engine = Interpreter(load.mutant(changed))
    with pytest.raises(AssertionError, match="broke property 1"):
        for seed in range(10):
            check_walk(engine, system_of("busy-host", "per-page"), seed, 400, safe=True)
    assert properties.PROPERTIES[1].startswith("no I/O")


# ------------------------------------------------------------------------------------------------- the table
def _rows() -> dict[int, list[str]]:
    rows = re.findall(r"^\| (\d+) \| (.+?) \| (.+) \|$", TABLE.read_text(encoding="utf-8"), re.MULTILINE)
    numbers = [int(number) for number, _, _ in rows]
    assert sorted(numbers) == list(range(1, 59))
    return {int(number): [says, where] for number, says, where in rows}


def test_the_table_and_the_suite_are_in_step() -> None:
    for number, (_, where) in _rows().items():
        decided = {case.name for case in CASES if number in case.numbers}
        named = set(re.findall(r"`([a-z0-9-]+)`", where))
        assert named <= set(BY_NAME), (number, named - set(BY_NAME))
        if where.startswith("outside: "):
            assert not decided, (number, decided)
        else:
            assert named == decided, number


def test_the_cases_of_kernels_and_of_the_host_are_in_the_second_table() -> None:
    second = TABLE.read_text(encoding="utf-8").split("## What later kernels do")[1]
    named = set(re.findall(r"`([a-z0-9-]+)`", second))
    modules = ("conformance.kernels", "conformance.host")
    assert {case.name for case in CASES if case.run.__module__.endswith(modules)} <= named <= set(BY_NAME)


def test_names_are_unique_and_titles_say_something() -> None:
    sources = [Path(str(module.__file__)).read_text(encoding="utf-8") for module in suite.MODULES]
    assert len(BY_NAME) == len(CASES) == sum(len(re.findall(r"^@case\(", text, re.MULTILINE)) for text in sources)
    for case in CASES:
        assert len(case.title) > 30 and case.title[-1] in ".)", case.name
