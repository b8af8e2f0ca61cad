"""Who waits, for what, held by whom, and of which class: the wait-for graph of a group whose steps are followed.

A thread that sleeps in the host stands at a rule that is not enabled: the state itself says so. A vCPU that was told
"busy" is back in the guest and tries again; what it met stands until it comes back from the host with something else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ultrafolio.check.explain import Wait, explain
from ultrafolio.model import layout
from ultrafolio.model.layout import AGAIN, DEAD, E_FATAL, NOTHING, RUN, SPLIT
from ultrafolio.model.rule import RULES
from ultrafolio.sim.kernel import who_holds
from ultrafolio.sim.layout import EXPECTED, HANG_CLASSES, PERMANENT

BUSY = (layout.E_LOCKED, layout.E_REFS, layout.E_WRITEBACK, layout.E_DIRTY, layout.E_UV)
"""Outcomes with which an import comes back to be tried again."""


class Met(NamedTuple):
    """What stopped a thread: an outcome, the page it was about, what its guest wanted; whole: a split met it."""

    outcome: int
    page: int = 0
    op: int = NOTHING
    whole: bool = False


class Stall(NamedTuple):
    """kind: a word of sim.layout.HANG_CLASSES;  known: whether it is known what the actor was about."""

    actor: int
    wait: Wait
    kind: str
    known: bool


class Stalls:
    """Follows the threads of one group. States are given as records that may be written, and are left as they were."""

    def __init__(self) -> None:
        self._met: dict[int, Met] = {}
        self._about: dict[int, tuple[int, int]] = {}
        self._split: set[int] = set()

    def before(self, s: Any, t: int) -> None:
        """Thread `t` is about to step, or did: remember what it is about, which its last step clears."""
        task = s.task[t]
        if task.page or task.call:
            self._about[t] = task.page, task.call

    def after(self, s: Any, t: int, steps: Sequence[tuple[int, int]]) -> None:
        """Thread `t` took `steps` (rule, outcome), and stands where `s` says."""
        self.before(s, t)
        if any(pc == SPLIT and outcome in BUSY for pc, outcome in steps):
            self._split.add(t)
        if s.task[t].pc == AGAIN:
            if steps[-1][1] in BUSY:
                self._met[t] = Met(steps[-1][1], *self._about.get(t, (0, NOTHING)), t in self._split)
            else:
                self._met.pop(t, None)
            self._split.discard(t)
        for other in [other for other in self._met if s.task[other].pc == RUN]:
            del self._met[other]

    def now(self, s: Any, tried: Callable[[int], int]) -> list[Stall]:
        """One entry per thread that waits, by number. tried: the outcome of a thread's next step, were it taken."""
        found = ((t, self._stops(s, t, tried)) for t in range(len(s.task)))
        return [_stall(s, t, met) for t, met in found if met]

    def _stops(self, s: Any, t: int, tried: Callable[[int], int]) -> Met | None:
        """What stops thread `t`; None if it goes on, or has nothing to do."""
        task = s.task[t]
        if task.pc == DEAD:
            return Met(E_FATAL, *self._about.get(t, (0, NOTHING)))
        if task.pc in RULES and RULES[task.pc].actor == "host" and not RULES[task.pc].chooses:
            outcome = tried(t)
            if outcome < 0:
                return Met(outcome, task.page, task.call)
        return self._met.get(t) if task.pc != RUN else None


def _stall(s: Any, t: int, met: Met) -> Stall:
    known = s.who[t].kind != layout.VCPU or bool(met.op or s.task[t].call)
    return Stall(t, _words(s, t, met), kind_of(s, t, met), known)


def _words(s: Any, t: int, met: Met) -> Wait:
    """The wait in words. What a vCPU is about is put back, for as long, where the words look for it."""
    task, wish = s.task[t], s.actor[t]
    page, op = task.page, wish.op
    task.page, wish.op = page or met.page, op or met.op
    try:
        return explain(s, t, met.outcome, met.whole)
    finally:
        task.page, wish.op = page, op


def kind_of(s: Any, t: int, met: Met) -> str:
    """The class of a stall from its holder, as MODEL section 5 has it."""
    if met.outcome == E_FATAL:
        return "fatal"
    kind, _ = who_holds(s, t, s.task[t].page or met.page, SPLIT if met.whole else s.task[t].pc, met.outcome)
    return HANG_CLASSES[PERMANENT if kind == EXPECTED else kind]
