"""Workers that share an exploration, level by level and round by round, as plain threads over compiled code.

While few states wait, one worker does all. Otherwise a round gives each its own states to expand and its own shards of
the hash table to fill. Between the phases all wait for each other; what every phase writes belongs to one worker.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from .layout import RUNNING, Space
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
            waiting = count["states"][0] - count["next"][0]
            if count["stop"][0] == RUNNING and waiting and not self._round(state, space, words):
                one(state, space, words, ROUND, ALONE)

    def _round(self, state: Any, space: Space, words: Any) -> bool:
        """One round of all workers. False, and nothing has happened, where it might not fit: who is alone goes on to
        the very state at which the arrays are full or a limit is met."""
        do, count = self._functions, space.count[0]
        usual = min(int(count["widest"]), 2 + 2 * int(count["edges"]) // int(count["next"]))
        first, states = int(count["next"]), do["plan"](space, SHARE * self._threads, usual)
        if states < ENOUGH:
            count["stop"] = RUNNING
            return False
        bounds = [first + states * w // self._threads for w in range(self._threads + 1)]
        self._all(lambda w: do["look"](space, w, bounds[w], bounds[w + 1]))
        if space.missed.any():
            do["fill"](state, space, words)
            if count["stop"] != RUNNING:
                count["stop"] = RUNNING
                return False
        fired = space.fired.copy()
        self._all(lambda w: do["make"](space, w, bounds[w], bounds[w + 1]))
        made = int(space.made.sum())
        if made > do["room"](space) or made > count["limit"] - count["states"]:
            space.fired[:] = fired
            for written in (space.made, space.loops, space.listed):
                written[:] = 0
            return False
        self._all(lambda w: [do["insert"](space, shard) for shard in range(w, len(space.hash), self._threads)])
        self._all(lambda w: do["settle"](space, w))
        if count["keeps"]:
            self._all(lambda w: do["link"](space, w, bounds[w], bounds[w + 1]))
        do["advance"](space)
        return True

    def _all(self, phase: Callable[[int], object]) -> None:
        """Every worker does the phase; the first is this thread. Returns when all are done."""
        assert self._pool
        waiting = [self._pool.submit(phase, w) for w in range(1, self._threads)]
        phase(0)
        for done in waiting:
            done.result()
