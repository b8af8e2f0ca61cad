"""The wait-for graph as the host sees it now.

What vCPUs met that try again is kept in memory only. After a restart of this service it is known again as soon as
they try again, which they do as long as their callers wait.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from ultrafolio.engine.interp import to_lists
from ultrafolio.explore.stalls import Stall, Stalls
from ultrafolio.model.layout import NOTHING, State
from ultrafolio.rpc.v1 import common_pb2
from ultrafolio.state.burst import Done, Group, rules_of
from ultrafolio.state.group import Live, View


class Obstacles:
    """What each vCPU that tries again met last, and the graph."""

    def __init__(self) -> None:
        self._stalls: dict[str, Stalls] = defaultdict(Stalls)
        self._lock = threading.Lock()

    def about(self, group: Group, actor: int) -> Callable[[View], None]:
        """To be called before and after each step of a thread: what it is about, its last step clears."""

        def see(view: View) -> None:
            with self._lock:
                self._stalls[group.name].before(view.live, actor)

        return see

    def note(self, group: Group, actor: int, burst: Sequence[Done]) -> None:
        """Remember why the thread came back from the host, or that nothing stopped it."""
        if burst:
            with self._lock:
                steps = [(done.pc, done.outcome) for done in burst]
                self._stalls[group.name].after(group.view.live, actor, steps)

    def wait(self, group: Group, actor: int) -> common_pb2.Wait | None:
        """What thread `actor` waits for; None if nothing stops it."""
        return next((wait for wait in self.graph(group) if wait.actor == actor), None)

    def graph(self, group: Group) -> list[common_pb2.Wait]:
        """One entry per thread that waits, now."""
        arrays = group.snapshot()
        with self._lock:
            stalls = self._stalls[group.name].now(to_lists(arrays), lambda t: _tried(arrays, t))
        return [_message(stall) for stall in stalls]


class _Crossed(Exception):
    pass


class _Wall:
    """In the place of the other parts, when a step is only tried: a rule that calls them is enabled."""

    def call(self, function: str, arguments: tuple[int, ...]) -> Any:
        raise _Crossed


def _tried(arrays: State, t: int) -> int:
    """The outcome of thread `t`'s next step, tried on a copy; 1 if it would call another part."""
    copy = Live(*to_lists(arrays))
    copy.crossing = _Wall()
    try:
        return int(rules_of("host").step(copy, t, NOTHING, 0))
    except _Crossed:
        return 1


def _message(stall: Stall) -> common_pb2.Wait:
    told = stall.wait
    return common_pb2.Wait(
        actor=stall.actor,
        waiter=told.waiter if stall.known else told.waiter.partition(" (")[0],
        waits_for=told.waits_for,
        held_by=told.held_by,
        released_by=told.released_by,
        stall_class=common_pb2.StallClass.Value(f"STALL_CLASS_{stall.kind.upper()}"),
    )
