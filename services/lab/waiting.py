"""Who waits for whom in a replayed state, as the page shows it."""

from __future__ import annotations

from typing import Any, Protocol

import msgspec

from ultrafolio.engine.load import interpreted
from ultrafolio.explore.stalls import Stall, Stalls
from ultrafolio.model.layout import NOTHING


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
        self._live, self._notes, self._stalls = live, notes, Stalls()

    def before(self, t: int) -> None:
        """Thread `t` is about to step."""
        self._stalls.before(self._live, t)

    def after(self, t: int, pc: int, outcome: int) -> None:
        """Thread `t` took a step from `pc`."""
        self._stalls.after(self._live, t, [(pc, outcome)])

    def now(self) -> list[Told]:
        """One entry per thread that waits, by number."""
        mark = self._notes.mark()
        stalls = self._stalls.now(self._live, self._tried)
        self._notes.undo(mark)
        return [_told(stall) for stall in stalls]

    def _tried(self, t: int) -> int:
        mark = self._notes.mark()
        outcome = int(interpreted().step(self._live, t, NOTHING, 0))
        self._notes.undo(mark)
        return outcome


def _told(stall: Stall) -> Told:
    told = stall.wait
    return Told(stall.actor, told.waiter, told.waits_for, told.held_by, told.released_by, stall.kind, told.expected)
