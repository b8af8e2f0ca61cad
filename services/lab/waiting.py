"""The waits of a replayed state, for the page."""

from __future__ import annotations

import msgspec

from ultrafolio.model.layout import State
from ultrafolio.waits import telling
from ultrafolio.waits.words import Stall, WaitClass


class ActorWait(msgspec.Struct, frozen=True):
    """One actor's wait, in words."""

    actor: int
    waiter: str
    waits: str
    held: str
    released: str
    kind: WaitClass


def waits_of(state: State) -> list[ActorWait]:
    """Returns one entry per waiting actor, by number."""
    return [_wait_of(stall) for stall in telling.of(state).stalls(state)]


def _wait_of(stall: Stall) -> ActorWait:
    wait = stall.wait
    return ActorWait(stall.actor, wait.waiter, wait.waits_for, wait.held_by, wait.released_by, stall.kind)
