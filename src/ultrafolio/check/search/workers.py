"""Workers that share an exploration: plain threads over compiled code, which runs without the interpreter's lock."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor


class Team:
    """So many workers; close it, or use it in a with statement."""

    def __init__(self, workers: int) -> None:
        self._pool, self.workers = ThreadPoolExecutor(workers), workers

    def __enter__(self) -> Team:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    def all(self, part: Callable[[int], object]) -> None:
        """Every worker does its part; the first is this thread. Returns when all are done."""
        others = [self._pool.submit(part, w) for w in range(1, self.workers)]
        part(0)
        for other in others:
            other.result()
