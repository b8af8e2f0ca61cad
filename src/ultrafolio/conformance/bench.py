"""The test bench of the conformance suite: the Engine protocol, tiny systems, and a Bench that records steps."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from ultrafolio.conformance import entry
from ultrafolio.engine import load
from ultrafolio.engine.interp import to_lists, write_back
from ultrafolio.model import kernels, policies, properties
from ultrafolio.model.layout import (
    DONE,
    IDLE_PC,
    OUTCOMES,
    PAGE_STATES,
    VCPU,
    WAITS,
    State,
    copy,
    pack,
)
from ultrafolio.model.policies import PRESETS
from ultrafolio.model.policy import Policy
from ultrafolio.model.rule import RULES
from ultrafolio.model.scenario import System, parse, system


class Engine(Protocol):
    """The protocol of an engine: it runs the rules on one state. The suite uses nothing else.

    name   what a failure calls it
    load   start from a copy of `state`; replaces an earlier state
    step   one step of thread `actor`; (op, page) is its choice where its rule chooses. Returns the rule's outcome
    state  the present state as arrays of layout's dtypes; the caller may keep and change what it gets
    """

    name: str

    def load(self, state: State) -> None: ...

    def step(self, actor: int, op: int, page: int) -> int: ...

    def state(self) -> State: ...


class Interpreter:
    """The engine of the rules as plain Python; `rules` may be those of engine.load.mutant()."""

    def __init__(self, rules: Any = None, name: str = "interpreter") -> None:
        self.name = name
        self._step = (rules or load.interpreted()).step

    def load(self, state: State) -> None:
        self._arrays = copy(state)
        self._lists = to_lists(state)
        self._stale = False

    def step(self, actor: int, op: int, page: int) -> int:
        self._stale = True
        return int(self._step(self._lists, actor, op, page))

    def state(self) -> State:
        if self._stale:  # the conversion takes longer than the step, and a walk asks twice for one state
            write_back(self._lists, self._arrays)
            self._stale = False
        return copy(self._arrays)


class Compiled:
    """The engine of the rules compiled by Numba. The first use in a process compiles them, or loads them from the
    cache."""

    def __init__(self) -> None:
        self.name = "compiled"
        self._step = _entry()

    def load(self, state: State) -> None:
        self._state = copy(state)

    def step(self, actor: int, op: int, page: int) -> int:
        return int(self._step(self._state, actor, op, page))

    def state(self) -> State:
        return copy(self._state)


@functools.cache
def _entry() -> Callable[[State, int, int, int], int]:
    """Returns step(state, actor, op, page) over arrays, compiled if possible."""
    if not load.can_compile():
        return _over_arrays
    inner, called = load.inner_flags(), load.entry_flags()
    import numba

    njit: Any = numba.njit
    space = load.functions(njit(**inner))
    load.add_functions(space, entry, njit(**called))
    made: Callable[[State, int, int, int], int] = space["enter"]
    return made


def _over_arrays(state: State, actor: int, op: int, page: int) -> int:
    """Without a compiler: the interpreter, with a conversion from and to the arrays at every step."""
    lists = to_lists(state)
    outcome = int(load.interpreted().step(lists, actor, op, page))
    write_back(lists, state)
    return outcome


# ---------------------------------------------------------------------------------------------- tiny systems
KERNELS = tuple(kernels.names())
"""The presets of kernels, oldest first."""
EVERY = (*PRESETS, *KERNELS)
"""Every preset: of proposals and of kernels."""


def having(**choices: Any) -> tuple[str, ...]:
    """The presets that make these choices: `large="split"`; a tuple of values: one of them."""

    def fits(policy: Policy) -> bool:
        return all(
            getattr(policy, name) in (value if isinstance(value, tuple) else (value,))
            for name, value in choices.items()
        )

    return tuple(name for name in EVERY if fits(policies.find(name)))


def build(
    policy: str | Policy,
    folios: Sequence[int] = (0,),
    state: Sequence[str] = ("secure",),
    *,
    memory: Any = None,
    features: Any = None,
    **actors: Any,
) -> System:
    """The system of a scenario given as its tables, under a preset or kernel by name or a policy; `memory` adds to that
    table.

    Threads are numbered in the order of scenario.ACTORS: all vCPUs first, then disks, virtio devices, writeback …
    """
    document = {
        "memory": {"folios": list(folios), "state": list(state), **(memory or {})},
        "features": dict(features or {}),
        **actors,
    }
    chosen = policies.find(policy) if isinstance(policy, str) else policy
    return system(parse(document, "conformance"), chosen)


def word(outcome: int) -> str:
    """Returns an outcome in kernel words; of a step that is not enabled, what it waits for."""
    return OUTCOMES[outcome] if outcome > 0 else f"waits for {WAITS[-outcome]}"


class Bench:
    """An engine with a system loaded, which records what each step did and which property it broke.

    A thread whose rule chooses takes the choice it is given, else the first that its scenario allows.

    log      "rule-name: OUTCOME" of every step so far, in order
    broken   numbers of the properties that steps broke, in order, each once
    """

    def __init__(self, engine: Engine, system: System) -> None:
        self.engine = engine
        self.log: list[str] = []
        self.broken: list[int] = []
        self._choices = system.choices
        engine.load(system.state)
        self._before = engine.state()
        self._lists = to_lists(self._before)

    @property
    def state(self) -> State:
        """The present state."""
        return self._before

    def step(self, actor: int, op: int | None = None, page: int | None = None) -> int:
        """One step of a thread; its outcome."""
        first = self._choices[actor][0]
        op, page = first[0] if op is None else op, first[1] if page is None else page
        before = self._lists
        pc = before.task[actor].pc
        about = properties.focus(before, actor, page)
        outcome = self.engine.step(actor, op, page)
        self._before = self.engine.state()
        self._lists = to_lists(self._before)
        self.log.append(f"{RULES[pc].name if pc in RULES else 'dead'}: {word(outcome)}")
        if outcome > 0:
            wrong = properties.broken(self._lists, actor, pc, about, before.uv[about].state, outcome)
            if wrong and wrong not in self.broken:
                self.broken.append(wrong)
        return outcome

    def go(self, actor: int, op: int | None = None, page: int | None = None, *, limit: int = 100) -> list[str]:
        """Run one thread alone until it finishes, is not enabled, or made `limit` steps. Returns its steps.

        It has finished if it is at its first rule again: idle, or for a vCPU with the instruction done.
        """
        first = len(self.log)
        for _ in range(limit):
            outcome = self.step(actor, op, page)
            task, who = self._before.task[actor], self._before.who[actor]
            if outcome < 0 or task["pc"] not in RULES:
                break
            if task["pc"] in IDLE_PC and (who["kind"] != VCPU or outcome == DONE):
                break
        return self.log[first:]

    def fails_for_ever(self, actor: int, op: int | None = None, page: int | None = None) -> list[str]:
        """Run one vCPU alone until its instruction has failed twice in the same state. Returns its steps.

        Equal states lead to equal steps, so that the instruction fails for ever. AssertionError if it does not, or if
        no state came again after 100 steps.
        """
        first, failed_in = len(self.log), set()
        for _ in range(100):
            outcome = self.step(actor, op, page)
            if self.log[-1] == "vcpu-again: FAULT":
                state = pack(self._before)
                if state in failed_in:
                    return self.log[first:]
                failed_in.add(state)
            elif outcome < 0 or self._before.task[actor]["pc"] in IDLE_PC:
                break
        steps = "\n  ".join(self.log[first:][-40:])
        raise AssertionError(f"{self.engine.name}: the instruction does not fail for ever:\n  {steps}")

    def upto(self, actor: int, rule: str, op: int | None = None, page: int | None = None) -> list[str]:
        """Run one thread alone until its next rule is `rule`. Returns its steps."""
        first = len(self.log)
        for _ in range(100):
            pc = int(self._before.task[actor]["pc"])
            if len(self.log) > first and RULES[pc].name == rule:
                return self.log[first:]
            if self.step(actor, op, page) < 0:
                break
        raise AssertionError(f"{self.engine.name}: {rule} was not reached:\n" + "\n".join(self.log[first:]))

    def pages(self) -> list[str]:
        """Returns the ultravisor's state of every page."""
        return [PAGE_STATES[state] for state in self._before.uv["state"]]

    def bits(self) -> list[int]:
        """Returns the arch bit of every page; with a bit per folio it is on the folio's first page."""
        return [int(bit) for bit in self._before.mm["arch"]]

    def expect(self, what: str, got: Any, wanted: Any) -> None:
        """Raises AssertionError with the engine, the steps so far and both values, unless they are equal."""
        if got != wanted:
            steps = "\n  ".join(self.log[-40:])
            raise AssertionError(f"{self.engine.name}: {what}:\n got    {got}\n wanted {wanted}\n after\n  {steps}")

    def expect_steps(self, what: str, got: list[str], wanted: str) -> None:
        """As expect, for steps; `wanted` is one "rule: OUTCOME" a line."""
        self.expect(what, got, [line.strip() for line in wanted.strip().splitlines()])


def none_broken(bench: Bench) -> None:
    """Raises AssertionError if a step of the bench broke a property."""
    bench.expect("properties broken", bench.broken, [])


_LARGE_BEFORE = {
    "before-lock": "import-trylock", "after-export": "import-writeback", "after-writeback": "import-freeze",
}  # fmt: skip
"""Per choice of large_at: the rule before which an import tests for a large folio."""


def import_steps(preset: str, until: str = "", *, foreign: bool = False) -> list[str]:
    """The steps of an import of a small mapped page without obstacles, from the exit on; up to rule `until`, exclusive.

    foreign: the page is another guest's and the machine cannot transfer ownership, so that an export comes first.
    """
    policy = policies.find(preset)
    rules = [
        "import-map",
        "import-trylock",
        "import-writeback",
        "import-freeze",
        "import-arch",
        "import-call",
        "import-end",
    ]
    rules.insert(rules.index(_LARGE_BEFORE[policy.large_at]), "import-large")
    if foreign:
        rules.insert(rules.index("import-trylock") + 1, "import-export")
    if policy.import_lock == "vm":
        rules.insert(0, "import-mutex")
    steps = [f"{rule}: {'SUCCESS' if rule == 'import-end' else 'OK'}" for rule in rules]
    return steps[: rules.index(until)] if until else steps
