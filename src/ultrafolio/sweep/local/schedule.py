"""Which span goes out next: spans shrink towards the end, and whatever a worker did not finish comes back."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from ultrafolio.sweep.work import CHUNK_SECONDS, Tally

FIRST_SPAN = 64
SHORTEST_SECONDS = CHUNK_SECONDS / 15
"""Below this a span's batch on the disk would cost as much as its cells."""


class Schedule:
    """The indices still to be worked, as spans. It decides how much goes out; it knows nothing of workers.

    A span is sized by the measured rate to last CHUNK_SECONDS, and less towards the end so that all
    workers finish together. A worker that meets slower cells stops early and the rest comes back here.
    """

    def __init__(self, spans: Iterable[range], workers: int) -> None:
        self._waiting = deque(span for span in spans if span)
        self._workers = workers
        self._rate = FIRST_SPAN / CHUNK_SECONDS

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def take(self) -> range:
        """The next span; an error when there is none."""
        waiting = sum(len(span) for span in self._waiting)
        fair = waiting // (2 * self._workers) if self._workers > 1 else waiting
        length = max(1, min(int(self._rate * CHUNK_SECONDS), max(fair, int(self._rate * SHORTEST_SECONDS))))
        first = self._waiting.popleft()
        self.give_back(first[length:])
        return first[:length]

    def give_back(self, span: range) -> None:
        """Put a span in front of the queue."""
        if span:
            self._waiting.appendleft(span)

    def done(self, given: range, tally: Tally) -> None:
        """A worker that was given ``given`` reported ``tally``: learn the rate, take the rest back."""
        measured = len(tally.span) / max(tally.seconds, 1e-4)
        # At most fourfold a step: a run of dropped or stored cells is no measure of the cells behind it.
        self._rate = min(measured, 4 * self._rate)
        self.give_back(given[len(tally.span) :])

    def died(self, given: range, at: int, *, again: bool) -> None:
        """A worker died with ``given``, in the cell ``at`` or (-1) between cells: all of it is to be redone.

        The suspect stands alone, so that its second death takes nobody else's results with it; without
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
