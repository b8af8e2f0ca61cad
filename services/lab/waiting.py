"""Who waits for whom in a replayed state, as the page shows it."""

from __future__ import annotations

import msgspec

from ultrafolio.model.layout import State
from ultrafolio.waits.words import Stall, stalls


class Told(msgspec.Struct, frozen=True):
    """One wait in words. kind: fatal, permanent, expected or waiting."""

    actor: int
    waiter: str
    waits: str
    held: str
    released: str
    kind: str


def told(state: State) -> list[Told]:
    """One entry per actor that waits, by number."""
    return [_told(stall) for stall in stalls(state)]


def _told(stall: Stall) -> Told:
    wait = stall.wait
    return Told(stall.actor, wait.waiter, wait.waits_for, wait.held_by, wait.released_by, stall.kind)
