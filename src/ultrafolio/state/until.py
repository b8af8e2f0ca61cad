"""Until when the work of this thread is wanted: by the deadline of the call that it serves, where it serves one."""

from __future__ import annotations

import time
from contextvars import ContextVar

LAST_WORD_S = 0.25
"""How long before the deadline a part gives up, so that its answer still arrives."""
SHORTEST_S = 1.0
"""What is begun near the deadline, or after it, gets so long all the same: some work goes on when nobody waits."""

_until: ContextVar[float | None] = ContextVar("monotonic seconds of the deadline", default=None)


class Wanted:
    """Inside of a with-block the work of this thread is wanted for so many seconds from its begin."""

    __slots__ = ("_before", "_seconds")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def __enter__(self) -> None:
        self._before = _until.set(time.monotonic() + self._seconds)

    def __exit__(self, *error: object) -> None:
        _until.reset(self._before)


def left(most: float) -> float:
    """Seconds for a piece of work that may take `most`: fewer where its result would come after the deadline."""
    until = _until.get()
    return most if until is None else min(most, max(SHORTEST_S, until - LAST_WORD_S - time.monotonic()))
