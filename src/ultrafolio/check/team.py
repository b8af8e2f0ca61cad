"""Workers that share an exploration, level by level and round by round, as plain threads over compiled code.

While few states wait, one worker does all. Otherwise a round gives each its own states to expand and its own shards of
the hash table to fill. Between the phases all wait for each other; what every phase writes belongs to one worker.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from .layout import FULL, RUNNING, Space
from .room import ROUND, SHARE

ENOUGH = 1024
"""States for each worker that must wait before a round is shared."""
ALONE = 1 << 62


class Team:
    """`threads` workers over the exploring functions; close it, or use it in a with statement."""

    def __init__(self, functions: Mapping[str, Any], threads: int) -> None:
        self._functions, self._threads = functions, threads
        self._pool = ThreadPoolExecutor(threads - 1) if threads > 1 else None

    def __enter__(self) -> Team:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool:
            self._pool.shutdown()

    def explore(self, state: Any, space: Space, words: Any) -> None:
        """Explore until no state is left or the exploration stops (COUNT.stop)."""
        one = self._functions["explore"]
        if not self._pool:
            one(state, space, words, ROUND, ALONE)
            return
        count = space.count
        while count["stop"][0] == RUNNING and count["next"][0] < count["states"][0]:
            one(state, space, words, ROUND, ENOUGH * self._threads)
            if count["stop"][0] == RUNNING and count["next"][0] < count["states"][0]:
                self._round(state, space, words)
                if count["stop"][0] == FULL:
                    count["stop"] = RUNNING
                    one(state, space, words, ROUND, ALONE)

    def _round(self, state: Any, space: Space, words: Any) -> None:
        """One round of all workers."""
        do, count = self._functions, space.count
        do["plan"](space, SHARE * self._threads)
        if count["stop"][0] != RUNNING:
            return
        first, states = int(count["next"][0]), int(count["round"][0])
        bounds = [first + states * w // self._threads for w in range(self._threads + 1)]
        self._all(lambda w: do["look"](space, w, bounds[w], bounds[w + 1]))
        if space.missed.any():
            do["fill"](state, space, words)
            if count["stop"][0] != RUNNING:
                count["stop"] = FULL
                return
        self._all(lambda w: do["make"](space, w, bounds[w], bounds[w + 1]))
        self._all(lambda w: [do["insert"](space, shard) for shard in range(w, len(space.listed), self._threads)])
        self._all(lambda w: do["settle"](space, w))
        if count["keeps"][0]:
            self._all(lambda w: do["link"](space, w, bounds[w], bounds[w + 1]))
        do["advance"](space)

    def _all(self, phase: Callable[[int], object]) -> None:
        """Every worker does the phase; the first is this thread. Returns when all are done."""
        assert self._pool
        waiting = [self._pool.submit(phase, w) for w in range(1, self._threads)]
        phase(0)
        for done in waiting:
            done.result()
