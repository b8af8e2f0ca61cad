"""An operation of a thread of guest_memfd, in C and in the rules: its begin, and the word of its end.

Both sides end with a word: done, mapped, again (the vCPU faults once more), exit (the VMM is told), or "waits".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ultrafolio.model.guest_memfd.layout import (
    HOLE,
    HOLE_IDLE,
    HOLE_LOCK,
)


@dataclass(frozen=True, slots=True)
class Way:
    """An operation in the rules: the kind of actor, the first rule, and the rules at which it has ended."""

    kind: int
    start: int
    ends: tuple[int, ...]


WAYS = {
    "hole": Way(HOLE, HOLE_LOCK, (HOLE_IDLE,)),
}


def set_up(state: Any, thread: int, operation: str, page: int, pages: int) -> None:
    """Put a thread at the start of its operation."""
    k, way = state.task[thread], WAYS[operation]
    k.pc = way.start
    k.start, k.end = page, page + pages


def rule_end(state: Any, thread: int, operation: str, outcome: int) -> str:
    """The word with which a thread of the rules ended; "" before its end."""
    pc = state.task[thread].pc
    return "done" if pc in WAYS[operation].ends else ""


def c_end(operation: str, value: int) -> str:
    """The word for the result of a kernel function."""
    return "done" if value == 0 else f"error {-value}"
