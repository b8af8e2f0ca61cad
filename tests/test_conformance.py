"""The shipped suite, bound to both engines; the engines against each other; and that its cases can fail."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ultrafolio.engine import conformance, load
from ultrafolio.engine.conformance import (
    CASES,
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
    walk,
    walked,
)
from ultrafolio.model import properties
from ultrafolio.model.layout import pack
from ultrafolio.model.policies import PRESETS, Policy
from ultrafolio.model.rule import RULES

TABLE = Path(__file__).parent.parent / "docs" / "conformance.md"
BY_NAME = {case.name: case for case in CASES}
POLICIES: dict[str, Policy] = {
    **{name: policy for name, (_, policy) in PRESETS.items()},
    "sleeps": replace(PRESETS["split"][1], on_busy="sleep"),
    "gives-up": replace(PRESETS["import-lock"][1], on_busy="give-up", give_up=20),
    "never-drains": replace(PRESETS["whole-folio"][1], drain="none", on_busy="sleep"),
}


class Suite:
    """Every case against the engine of the fixture."""

    @pytest.fixture
    def engine(self) -> Engine:
        raise NotImplementedError

    @pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
    def test_case(self, engine: Engine, case: Case) -> None:
        case.run(engine)

    @pytest.mark.parametrize("preset", PRESETS)
    def test_walks_are_consistent(self, engine: Engine, preset: str) -> None:
        for name in SCENARIOS:
            check_walk(engine, walked(name, preset), 7, 300, safe=preset in SAFE)

    def test_what_it_hands_out_is_the_callers(self, engine: Engine) -> None:
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
    def engine(self) -> Engine:
        return Interpreter()


class TestCompiled(Suite):
    @pytest.fixture
    def engine(self) -> Engine:
        return Compiled()


# ------------------------------------------------------------------------------- one engine against the other
@pytest.fixture(scope="module")
def pair() -> tuple[Engine, Engine]:
    return Interpreter(), Compiled()


@pytest.mark.parametrize("policy", POLICIES)
def test_the_engines_agree_to_the_byte(pair: tuple[Engine, Engine], policy: str) -> None:
    for name in SCENARIOS:
        for seed in (1, 2):
            agree(*pair, walked(name, POLICIES[policy]), seed, 350)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.sampled_from(sorted(SCENARIOS)), st.sampled_from(sorted(POLICIES)), st.integers(0, 2**32 - 1))
def test_the_engines_agree_on_any_walk(pair: tuple[Engine, Engine], name: str, policy: str, seed: int) -> None:
    agree(*pair, walked(name, POLICIES[policy]), seed, 300)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(st.sampled_from(sorted(SCENARIOS)), st.sampled_from(SAFE), st.integers(0, 2**32 - 1))
def test_safe_presets_stay_safe_on_any_walk(name: str, preset: str, seed: int) -> None:
    check_walk(Interpreter(), walked(name, preset), seed, 400, safe=True)


def test_the_walks_take_every_step_of_the_model() -> None:
    taken = set()
    for policy in POLICIES.values():
        for name in SCENARIOS:
            for seed in range(2):
                taken |= {s.pc for s in walk(Interpreter(), walked(name, policy), seed, 400) if s.outcome > 0}
    assert sorted(RULES[pc].name for pc in set(RULES) - taken) == []


def test_equal_seeds_are_equal_walks() -> None:
    system = walked("busy-host", "split")
    one, two, other = ([str(s) for s in walk(Interpreter(), system, seed, 200)] for seed in (5, 5, 6))
    assert one == two != other


# ----------------------------------------------------------------------------------- every case can turn red
MUTANTS: dict[str, tuple[dict[str, str], tuple[str, ...]]] = {
    "import without the writeback check": (
        {"    if s.mm[head(s, k.page)].writeback != NO_WRITEBACK:\n        unlock": "    if 0:\n        unlock"},
        ("import-under-writeback", "walks-keep-the-invariant"),
    ),
    "bit cleared before the export": (
        {"    if uv_pin(s, k.i) == UV_OK:\n        return page_done(s, t)\n":
         "    if uv_pin(s, k.i) == UV_OK:\n        return page_done(s, t)\n    clear_arch(s, k.i)\n"},
        ("walks-keep-the-invariant", "trace-of-point-3", "unshare-beats-the-pin", "two-pins-at-once",
         "writeback-too-late",
         "the-intended-result", "steps-of-direct-io-on-secure-pages", "the-posted-loops"),
    ),
    "an export that launders a changed page": (
        {"        uv.state = EXPORTED\n        s.mm[p].altered = 0\n":
         "        uv.state = EXPORTED\n    s.mm[p].altered = 0\n"},
        ("export-does-not-launder-a-changed-page",),
    ),
    "no freeze": (
        {"    s.mm[counted(s, k.page)].frozen = 1\n": ""},
        ("import-order", "mapped-twice"),
    ),
    "no count of references": (
        {"    if extra_refs(s, k.page):\n        unlock": "    if 0:\n        unlock"},
        ("import-of-a-pinned-page", "import-of-a-page-in-an-lru-batch", "unshare-under-a-pin", "trace-of-point-12",
         "neighbour-of-direct-io", "neighbour-of-a-virtio-ring", "two-ways-to-be-busy",
         "steps-of-an-unshare-under-a-pin", "hang-of-the-ring-page-itself"),
    ),
    "bit not set by an import": (
        {"    set_arch(s, k.page)\n    foreign": "    foreign"},
        ("import-plain", "unshare-of-a-pinned-page", "walks-keep-the-invariant", "steps-of-an-import",
         "import-of-any-backing", "steps-of-a-split", "steps-of-a-split-with-writeback"),
    ),
    "a call without looking at the bit": (
        {"            if s.mm[p].arch:\n                break": "            break"},
        ("a-clear-bit-saves-the-call",),
    ),
    "pin shared takes any page": (
        {"(uv.state != SHARED and uv.state != PINNED_SHARED)": "uv.state == NON_SECURE"},
        ("calls-pin", "pin-of-a-secure-page"),
    ),
    "export forgets what was shared": (
        {"uv.shared = 1 if uv.state != SECURE else 0": "uv.shared = 0"},
        ("calls-export", "steps-of-a-reclaim"),
    ),
    "unshare of a pinned page does not exit": (
        {"    if uv.state == PINNED_SHARED:\n        return UV_EXIT\n    if uv.state == SHARED and":
         "    if (uv.state == SHARED or uv.state == PINNED_SHARED) and"},
        ("calls-share-and-unshare", "unshare-under-a-pin"),
    ),
    "an exported page is imported unchecked": (
        {"            return UV_INTEGRITY\n        uv.state = SHARED": "            pass\n        uv.state = SHARED"},
        ("calls-integrity", "import-of-a-changed-page"),
    ),
    "a refused import forgets the lock": (
        {"    thaw(s, k.page)\n    if rc == UV_BUSY": "    if rc == UV_BUSY"},
        ("import-refused-by-the-ultravisor",),
    ),
    "writeback makes one page accessible": (
        {"make_accessible(s, t, s.task[t].page, True, WB_IO)": "make_accessible(s, t, s.task[t].page, False, WB_IO)"},
        ("writeback-makes-all-accessible", "steps-of-a-writeback"),
    ),
    "export also before an unpin": (
        {" and k.call != UNSHARE": ""},
        ("export-before-import",),
    ),
    "own drain drains all": (
        {"drain(s, k.page, s.who[t].cpu + 1)": "drain(s, k.page, 0)"},
        ("steps-of-draining", "import-of-a-page-in-an-lru-batch"),
    ),
    "a reference that the folio does not count": (
        {"        m.spec += 1\n    s.mm[head(s, p)].refs += 1": "        m.spec += 1"},
        ("walks-keep-the-invariant", "import-of-a-large-folio-with-a-pin", "plain-references-make-nothing-accessible"),
    ),
    "the mutex is dropped over a wait": (
        {"        k.pc = WAIT_WRITEBACK\n        return E_WRITEBACK\n    k.pc = IMPORT_FREEZE":
         "        leave(s, t)\n        k.pc = WAIT_WRITEBACK\n        return E_WRITEBACK\n    k.pc = IMPORT_FREEZE"},
        ("steps-under-the-import-mutex",),
    ),
    "a reboot does not wait for devices": (
        {"if mine and pc not in (RUN, DEVICE_IDLE, DEAD):": "if 0:"},
        ("steps-of-virtio-and-reboot",),
    ),
    "split without looking at references": (
        {"    if m.refs:\n        return too_many_refs": "    if 0:\n        return too_many_refs"},
        ("import-of-a-large-folio-with-a-pin", "steps-of-a-refused-split"),
    ),
    "split of a dirty iomap folio": (
        {"if m.dirty and m.backing == IOMAP:": "if 0:"},
        ("import-of-a-dirty-iomap-folio", "background-writeback-does-not-cure"),
    ),
    "reset of every machine": (
        {"if s.uv[p].state != NON_SECURE and s.uv[p].owner == vm:": "if s.uv[p].state != NON_SECURE:"},
        ("calls-destroy", "reset-takes-all-pages"),
    ),
    "a failed pin keeps its reference": (
        {"    k.pc = UNPIN\n    return E_IO": "    k.pc = DEVICE_IDLE\n    return E_IO"},
        ("pin-fails", "whole-folio-fails-at-a-page"),
    ),
    "every unshare of a shared page exits": (
        {"    if uv.state == PINNED_SHARED:\n        return UV_EXIT":
         "    if uv.state == SHARED or uv.state == PINNED_SHARED:\n        return UV_EXIT"},
        ("unshare-of-an-unpinned-page", "calls-share-and-unshare"),
    ),
    "pin shared always fails": (
        {"    uv.state = PINNED_SHARED\n    return UV_OK": "    return UV_ERROR"},
        ("pin-of-a-shared-page", "steps-of-direct-io-on-a-shared-page", "steps-of-virtio-and-reboot"),
    ),
    "import ignores the owner": (
        {"    if uv.owner != vm:\n        if not misc": "    if 0:\n        if not misc"},
        ("calls-import", "calls-import-ownership"),
    ),
    "unpin ignores the owner": (
        {" or uv.state == NON_SECURE or uv.owner != vm": ""},
        ("calls-unpin",),
    ),
    "a refused pin succeeds": (
        {"    if uv.refuses or (uv.state != SHARED": "    if (uv.state != SHARED"},
        ("calls-refused",),
    ),
    "the host may access secure pages": (
        {"return PGM_3D if s.uv[p].state == SECURE else ALLOWED": "return ALLOWED"},
        ("access-by-the-host",),
    ),
    "a guest may access another's pages": (
        {"    return PGM_3F if uv.state == SECURE else PGM_3E": "    return ALLOWED"},
        ("access-by-the-guest", "calls-share-and-unshare"),
    ),
    "a pin makes the folio accessible": (
        {"make_accessible(s, t, p, unit != ACC_UNIT_PAGE, PIN_GET)": "make_accessible(s, t, p, 1, PIN_GET)"},
        ("neighbour-page-by-page", "pin-of-a-secure-page"),
    ),
    "import through a read-only mapping": (
        {"MAPPED and s.mm[head(s, k.page)].writable:": "MAPPED:"},
        ("import-of-a-page-not-mapped-writable",),
    ),
    "import of a page that is not mapped any more": (
        {"    if s.pt[k.page].present != MAPPED:\n        thaw": "    if 0:\n        thaw"},
        ("calls-import-unmapped",),
    ),
    "import takes a locked folio": (
        {"    if h.locked:\n        return busy(": "    if 0:\n        return busy("},
        ("import-meets-the-folio-lock",),
    ),
    "large folios are imported": (
        {"s.mm[k.page].order == 0 or large == LARGE_DIRECT": "1"},
        ("no-bit-on-a-large-folio", "import-of-a-large-folio"),
    ),
    "split leaves the folio large": (
        {"q.order, q.dirty, q.writable = 0, ": "q.order, q.dirty, q.writable = order, "},
        ("pin-after-the-split", "import-of-a-large-folio"),
    ),
    "share and unshare without end": (
        {"op != TOUCH and not spend(s, t)": "0"},
        ("steps-of-a-share",),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MUTANTS)
def test_a_broken_rule_turns_its_cases_red(name: str) -> None:
    changed, red = MUTANTS[name]
    engine = Interpreter(load.mutant(changed), name)
    for case in red:
        with pytest.raises(AssertionError, match=re.escape(name)):
            BY_NAME[case].run(engine)


def test_every_case_has_a_broken_rule_that_turns_it_red() -> None:
    red = {case for _, cases in MUTANTS.values() for case in cases}
    assert sorted(set(BY_NAME) - red) == []


def test_engines_that_differ_do_not_agree() -> None:
    changed, _ = MUTANTS["bit cleared before the export"]
    clears_early = Interpreter(load.mutant(changed), "mutant")
    denies = Interpreter(load.mutant({"    if uv.owner == vm:\n        return ALLOWED": "    if 0:\n        pass"}))
    for engine, says in ((clears_early, "differ in bytes"), (denies, r"vcpu-run.* says")):
        with pytest.raises(AssertionError, match=says):
            for seed in range(10):
                agree(Interpreter(), engine, walked("busy-host", "per-page"), seed, 400)


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
@pytest.mark.parametrize(("field", "value", "says"), [
    ("order", 0, "orders"), ("pins", 1, "extra references"), ("batch", 1, "extra references"), ("arch", 0, "arch bits"),
    ("frozen", 1, "frozen but not locked"), ("locked", 1, "on a tail page"), ("refs", 1, "on a tail page"),
    ("writeback", 1, "on a tail page"),
])  # fmt: skip
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
            check_walk(engine, walked("busy-host", "per-page"), seed, 400, safe=True)
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


def test_names_are_unique_and_titles_say_something() -> None:
    sources = [Path(str(module.__file__)).read_text(encoding="utf-8") for module in conformance.MODULES]
    assert len(BY_NAME) == len(CASES) == sum(len(re.findall(r"^@case\(", text, re.MULTILINE)) for text in sources)
    for case in CASES:
        assert len(case.title) > 30 and case.title[-1] in ".)", case.name
