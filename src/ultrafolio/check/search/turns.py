"""Who expands the next states: one worker, or two that share rounds. Whether sharing helps is measured, and depends on
the system and on what else the machine does; the graph is the same.

The states are divided into turns. Where the number of expanded states has doubled, two short turns are timed, one of
one worker and one of all; the faster way goes on until it has doubled again.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping
from typing import Any

from ultrafolio.check.search import allocation
from ultrafolio.check.search.packing import RUNNING, Space
from ultrafolio.check.search.workers import ThreadTeam

SHARE_FROM = 1 << 20
"""Expanded states from which sharing is tried: smaller systems are explored before it can pay."""
TRIAL = 32
"""A timed turn has this part of the states expanded before."""
NEVER = 1 << 62


class Search:
    """The compiled or plain functions over one system's arrays."""

    def __init__(self, functions: Mapping[str, Any], state: Any, words: Any, folds: bool) -> None:
        self._functions, self._state, self._words, self._folds = functions, state, words, folds

    def begin(self, space: Space) -> None:
        """Store the system's initial state as state 0."""
        if self._folds:
            self._functions["begin_folded"](self._state, space, self._words)
        else:
            self._functions["begin"](space, self._words)

    def alone(self, space: Space, until: int) -> None:
        """Expand states below `until` by one worker."""
        self._functions["explore_folded" if self._folds else "explore"](self._state, space, self._words, until)

    def shared(self, space: Space, team: ThreadTeam, until: int) -> None:
        """Expand states below `until` by all workers."""
        run = self._functions["explore_shared"]
        team.all(functools.partial(self._shared, run, space, until))

    def _shared(self, run: Any, space: Space, until: int, worker: int) -> None:
        """Run one worker of sharing.explore_shared()."""
        run(self._state, space, self._words, worker, until)


def is_faster(alone: float, shared: float) -> bool:
    """Whether sharing is worth it: seconds per state of one worker and of all."""
    return shared < 0.95 * alone


class Turns:
    """The turns of an exploration by a team."""

    def __init__(self, count: Any, team: ThreadTeam) -> None:
        self._count, self._team = count, team
        self._shares = False
        self._next_trial = SHARE_FROM

    def take(self, search: Search, space: Space) -> None:
        """Expand states until all are expanded or COUNT.stop is set."""
        if self._team.workers == 1:
            search.alone(space, NEVER)
            return
        while self._goes_on():
            here = self._expanded()
            if here >= self._next_trial:
                self._try(search, space, here)
            elif self._shares:
                self._share(search, space, self._next_trial)
            else:
                search.alone(space, self._next_trial)

    def _expanded(self) -> int:
        return int(self._count["next"][0])

    def _goes_on(self) -> bool:
        return int(self._count["stop"][0]) == RUNNING and self._expanded() < int(self._count["states"][0])

    def _share(self, search: Search, space: Space, until: int) -> None:
        """Expand states below `until` in shared rounds, and what does not fill one by one worker."""
        before = self._expanded()
        search.shared(space, self._team, until)
        if self._expanded() == before and self._goes_on():
            search.alone(space, min(until, int(self._count["states"][0])))

    def _try(self, search: Search, space: Space, here: int) -> None:
        """Time both ways, and choose. A turn that ends early, to grow or for want of states, decides nothing."""
        search.shared(space, self._team, 0)  # loads it, so that this is not timed
        size = max(here // TRIAL // allocation.SHARED_ROUND, 1) * allocation.SHARED_ROUND
        took = []
        for run in (search.alone, functools.partial(self._shared_turn, search)):
            start, before = time.perf_counter(), self._expanded()
            run(space, before + size)
            if self._expanded() < before + size:
                return
            took.append(time.perf_counter() - start)
        self._shares = is_faster(*took)
        self._next_trial = 2 * self._expanded()

    def _shared_turn(self, search: Search, space: Space, until: int) -> None:
        """Expand states below `until` in shared rounds."""
        search.shared(space, self._team, until)
