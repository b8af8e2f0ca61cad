"""Who waits for whom in a replayed state: the wait-for graph that services.host_mm.waits has of a live one.

A thread that sleeps in the host stands at a rule that is not enabled. A vCPU that was told "busy" tries again; what it
met last stands until it gets on.
"""

from __future__ import annotations

from typing import Any, Protocol

import msgspec

from services.host_mm.waits import BUSY, Met
from ultrafolio.check import explain
from ultrafolio.engine.load import interpreted
from ultrafolio.model import layout
from ultrafolio.model.layout import AGAIN, DEAD, ENDLESS, NOTHING, RUN, W_MUTEX, WRITEBACK
from ultrafolio.model.rule import RULES


class Undo(Protocol):
    def mark(self) -> int: ...

    def undo(self, mark: int) -> None: ...


class Told(msgspec.Struct, frozen=True):
    """One wait in words. kind: permanent, transient, livelock, fatal;  expected: pin shared doing its work."""

    actor: int
    waiter: str
    waits: str
    held: str
    released: str
    kind: str
    expected: bool


class Waiting:
    """Follows the steps of a replay, and knows after each who waits."""

    def __init__(self, live: Any, notes: Undo) -> None:
        self._live, self._notes = live, notes
        self._met: dict[int, Met] = {}
        self._about: dict[int, tuple[int, int]] = {}
        self._split: set[int] = set()

    def before(self, t: int) -> None:
        """Thread `t` is about to step: remember what it is about, which its last step clears."""
        task = self._live.task[t]
        if task.page or task.call:
            self._about[t] = task.page, task.call

    def after(self, t: int, pc: int, outcome: int) -> None:
        """Thread `t` took a step from `pc`."""
        self.before(t)
        now = self._live.task[t].pc
        if pc == layout.SPLIT and outcome in BUSY:
            self._split.add(t)
        if now == AGAIN and outcome in BUSY:
            self._met[t] = Met(outcome, *self._about.get(t, (0, NOTHING)), t in self._split)
            self._split.discard(t)
        elif now == RUN or outcome == layout.SUCCESS:
            self._met.pop(t, None)
            self._split.discard(t)

    def now(self) -> list[Told]:
        """One entry per thread that waits, by number."""
        met = {t: found for t in range(len(self._live.task)) if (found := self._stops(t))}
        return [self._told(t, met) for t in met]

    def _stops(self, t: int) -> Met | None:
        pc = self._live.task[t].pc
        if pc == DEAD:
            return Met(layout.E_FATAL, *self._about.get(t, (0, NOTHING)))
        if t in self._met:
            return self._met[t]
        if pc not in RULES or RULES[pc].actor != "host" or RULES[pc].chooses:
            return None
        mark = self._notes.mark()
        outcome = interpreted().step(self._live, t, NOTHING, 0)
        self._notes.undo(mark)
        return Met(outcome, self._live.task[t].page, self._live.task[t].call) if outcome < 0 else None

    def _words(self, t: int, found: Met) -> explain.Wait:
        """The wait in words. What a vCPU is about is put back, for as long, where the words look for it."""
        task, wish, mark = self._live.task[t], self._live.actor[t], self._notes.mark()
        task.page, wish.op = task.page or found.page, wish.op or found.op
        told = explain.explain(self._live, t, found.outcome, found.whole)
        self._notes.undo(mark)
        return told

    def _told(self, t: int, met: dict[int, Met]) -> Told:
        told = self._words(t, met[t])
        kind = self._kind(t, met)
        return Told(t, told.waiter, told.waits_for, told.held_by, told.released_by, kind, told.expected)

    def _kind(self, t: int, met: dict[int, Met]) -> str:
        """The class of a stall from its holder: what a fair step releases is transient (MODEL section 5)."""
        s, found = self._live, met[t]
        if found.outcome == layout.E_FATAL:
            return "fatal"
        if found.outcome == layout.E_DIRTY:
            endless = any(s.who[o].kind == WRITEBACK and s.actor[o].budget == ENDLESS for o in range(len(s.task)))
            return "livelock" if endless else "permanent"
        if found.outcome == W_MUTEX:
            owner = int(s.vm[s.who[t].vm].mutex) - 1
            return self._kind(owner, met) if owner in met else "transient"
        released = self._words(t, found).released_by
        return "permanent" if explain.EVER in released or "does not do" in released else "transient"
