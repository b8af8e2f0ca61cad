"""The threads that share an exploration. Compiled code runs without the GIL."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor


class ThreadTeam:
    """`workers` threads, of which the caller is one. A context manager: leaving it ends the threads."""

    def __init__(self, workers: int) -> None:
        self._pool, self.workers = ThreadPoolExecutor(workers), workers

    def __enter__(self) -> ThreadTeam:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    def all(self, work: Callable[[int], object]) -> None:
        """Call work(0) in this thread and work(1), work(2), ... in the others. Returns when all are done; raises what
        one raised."""
        others = [self._pool.submit(work, w) for w in range(1, self.workers)]
        work(0)
        for other in others:
            other.result()
