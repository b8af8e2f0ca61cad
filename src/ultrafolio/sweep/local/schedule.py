"""The schedule of spans: spans get shorter towards the end, and the unfinished part of a span is scheduled again."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from ultrafolio.sweep.work import BATCH_SECONDS, Tally

FIRST_SPAN = 64
MIN_SPAN_SECONDS = BATCH_SECONDS / 15
"""The shortest target of a span: storing the batch of a shorter one would take as long as its cells."""


class Schedule:
    """The indices that are not computed yet, as spans; ``take`` decides the length of the next span.

    A span is sized by the measured rate to last BATCH_SECONDS, and less towards the end so that all workers
    finish together. A worker whose cells are slower stops early, and ``done`` schedules the rest again.
    """

    def __init__(self, spans: Iterable[range], workers: int) -> None:
        self._waiting = deque(span for span in spans if span)
        self._workers = workers
        self._rate = FIRST_SPAN / BATCH_SECONDS

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def take(self) -> range:
        """The next span. Raises IndexError when there is none."""
        waiting = sum(len(span) for span in self._waiting)
        fair = waiting // (2 * self._workers) if self._workers > 1 else waiting
        length = max(1, min(int(self._rate * BATCH_SECONDS), max(fair, int(self._rate * MIN_SPAN_SECONDS))))
        first = self._waiting.popleft()
        self.give_back(first[length:])
        return first[:length]

    def give_back(self, span: range) -> None:
        """Put a span in front of the queue."""
        if span:
            self._waiting.appendleft(span)

    def done(self, given: range, tally: Tally) -> None:
        """A worker that was given ``given`` returned ``tally``: update the rate, schedule the rest again."""
        measured = len(tally.span) / max(tally.seconds, 1e-4)
        # At most fourfold a step: dropped and stored cells take no time, and say nothing about the cells after them.
        self._rate = min(measured, 4 * self._rate)
        self.give_back(given[len(tally.span) :])

    def died(self, given: range, at: int, *, again: bool) -> None:
        """A worker died with ``given``, in the cell ``at`` or (-1) between cells: schedule all of it again.

        The cell ``at`` becomes a span of its own, so that a second death loses no other cell's result; without
        ``again`` it is left out.
        """
        if at not in given:
            self.give_back(given)
            return
        split = at - given.start
        self.give_back(given[split + 1 :])
        if again:
            self.give_back(given[split : split + 1])
        self.give_back(given[:split])
