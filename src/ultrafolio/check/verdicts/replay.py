"""Replay of a counterexample with the plain interpreter. Every story that is printed was certified here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ultrafolio.engine.interp import to_lists, values_of
from ultrafolio.engine.load import interpreted_of
from ultrafolio.model import designs
from ultrafolio.model.layout import OPS, State
from ultrafolio.model.rule import STRONG
from ultrafolio.model.scenario import System
from ultrafolio.waits import load as waits


class NotCertified(Exception):
    """The interpreter does not confirm a story: a defect of the checker, or a trace of other rules.

    path  the story (actor << 16 | choice), or empty if unknown
    """

    path: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class Step:
    """One replayed step. broke: number of the property it broke, or 0. before, after: states as frozen() returns
    them. design: the name of their design."""

    by: int
    actor: int
    kind: str
    rule: str
    op: str
    page: int
    outcome: int
    broke: int
    before: Any
    after: Any
    design: str = designs.S390.name

    @property
    def outcome_word(self) -> str:
        """Returns the outcome in words."""
        design = designs.DESIGNS[self.design]
        return design.outcomes[self.outcome] if self.outcome > 0 else f"waits for {design.waits[-self.outcome]}"

    def record(self) -> dict[str, Any]:
        """Returns the step as a JSON object, without its states."""
        return {
            "by": self.by,
            "actor": self.actor,
            "kind": self.kind,
            "rule": self.rule,
            "op": self.op,
            "page": self.page,
            "outcome": self.outcome_word,
        }


def frozen(lists: State) -> Any:
    """Returns the mutable sections of a state (as lists) as nested tuples: comparable, hashable."""
    return tuple(tuple(map(values_of(rows[0].__slots__), rows)) if rows else () for rows in lists[2:])


def replay(system: System, path: Sequence[int], rules: Any = None) -> tuple[list[Step], State]:
    """Take the steps of `path` (actor << 16 | choice) from the system's initial state, with the interpreted rules.

    Returns the steps, and the state after them as lists. Raises NotCertified if a step is not enabled.
    """
    state = to_lists(system.state)
    steps: list[Step] = []
    for by in path:
        steps.append(take(system, state, by, rules, steps[-1].after if steps else None))
    return steps, state


def take(system: System, state: State, by: int, rules: Any = None, before: Any = None) -> Step:
    """Take one step in `state` (as lists), in place. before: frozen(state), where it is known. Raises NotCertified if
    the step does not exist or is not enabled."""
    run, design = rules or interpreted_of(state), designs.of(state)
    t, choice = by >> 16, by & 0xFFFF
    if not 0 <= t < len(system.choices):
        raise NotCertified(f"there is no actor {t}, only 0 to {len(system.choices) - 1}")
    pc = state.task[t].pc
    kind = design.kinds[state.who[t].kind]
    idle = pc == design.idle[state.who[t].kind] and not (pc == 0 and state.actor[t].op)
    if choice >= (len(system.choices[t]) if idle else 1):
        raise NotCertified(f"{kind} {t} has no choice {choice} there")
    op, page = system.choices[t][choice] if idle else (0, 0)
    p = run.focus(state, t, page)
    was, before = state.uv[p].state, before or frozen(state)
    outcome = run.step(state, t, op, page)
    rule = design.rules[pc].name if pc in design.rules else "none"
    if outcome < 0:
        raise NotCertified(f"{kind} {t} at {rule} waits for {design.waits[-outcome]}")
    broke = run.broken(state, t, pc, p, was, outcome)
    return Step(by, t, kind, rule, OPS[op], p, outcome, broke, before, frozen(state), design.name)


def certify_violation(system: System, path: Sequence[int], number: int, rules: Any = None) -> list[Step]:
    """Returns the steps of a safety counterexample.

    Raises NotCertified unless its last step, and no earlier one, breaks property `number`.
    """
    steps, _ = replay(system, path, rules)
    if not steps or steps[-1].broke != number:
        raise NotCertified(f"the last step does not break property {number}")
    if any(step.broke == number for step in steps[:-1]):
        raise NotCertified(f"an earlier step breaks property {number} already")
    return steps


def certify_lasso(
    system: System, stem: Sequence[int], cycle: Sequence[int], waiter: int
) -> tuple[list[Step], list[Step]]:
    """Returns the steps of stem and cycle.

    Raises NotCertified unless the cycle closes, the waiter waits in all its states, and it is fair: the fair step of a
    thread that takes none is disabled in one state of the cycle (weakly fair) or in all (strongly fair). In the state
    of an empty cycle no fair step is enabled.
    """
    steps, state = replay(system, [*stem, *cycle])
    way_in, around = steps[: len(stem)], steps[len(stem) :]
    if around and around[-1].after != around[0].before:
        raise NotCertified("the cycle does not close")
    _, state = replay(system, stem)
    if not around and enabled_fair(system, state):
        raise NotCertified(f"the cycle is empty, but fair steps are enabled: of actors {enabled_fair(system, state)}")
    rules = designs.of(state).rules
    asleep = {t for t, k in enumerate(state.task) if k.pc in rules and rules[k.pc].fairness == STRONG}
    enabled: list[set[int]] = []
    for step in [*around, None]:
        if not is_pending(state, waiter):
            raise NotCertified(f"actor {waiter} does not wait in a state of the cycle")
        enabled.append(enabled_fair(system, state))
        if step:
            take(system, state, step.by)
    idle = set(range(len(system.choices))) - {step.actor for step in around}
    owed = idle.intersection(*enabled)
    if owed:
        raise NotCertified(f"the cycle is not fair to {sorted(owed)}")
    starved = idle & asleep & set().union(*enabled)
    if starved:
        raise NotCertified(f"the cycle is not fair to {sorted(starved)}, whose strongly fair step is enabled in it")
    return way_in, around


def enabled_fair(system: System, state: State) -> set[int]:
    """Returns the threads whose next step is fair and enabled in this state (as lists)."""
    run, design, found = interpreted_of(state), designs.of(state), set()
    for t in range(len(system.choices)):
        pc = state.task[t].pc
        if pc == design.idle[state.who[t].kind] or pc not in design.rules or not design.rules[pc].fair:
            continue
        trial = copied(state)
        if run.step(trial, t, 0, 0) > 0:
            found.add(t)
    return found


def copied(state: State) -> State:
    """Returns an independent copy of a state as lists; cfg and who are shared."""

    def row(record: Any) -> Any:
        made = type(record)()
        for name in record.__slots__:
            setattr(made, name, getattr(record, name))
        return made

    return type(state)(state.cfg, state.who, *([row(r) for r in section] for section in state[2:]))


def is_pending(state: State, t: int) -> bool:
    """Whether actor `t` has begun something that leads-to must end, in a state as lists."""
    return bool(waits.of(state).is_pending(state, t))
