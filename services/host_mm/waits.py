"""The wait-for graph as the host sees it now.

A thread that sleeps in the host stands at a rule that is not enabled: the state itself says so. A vCPU that was told
"busy" is back in the guest and tries again; what it met is kept here, in memory only. After a restart of this service
it is known again as soon as the vCPU tries again, which it does as long as its caller waits.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ultrafolio.check import explain
from ultrafolio.engine.interp import to_lists
from ultrafolio.model import layout
from ultrafolio.model.layout import AGAIN, DEAD, ENDLESS, NOTHING, VCPU, W_MUTEX, WRITEBACK, State
from ultrafolio.model.rule import RULES
from ultrafolio.rpc.v1 import common_pb2
from ultrafolio.rpc.v1.common_pb2 import (
    STALL_CLASS_FATAL,
    STALL_CLASS_LIVELOCK,
    STALL_CLASS_PERMANENT,
    STALL_CLASS_TRANSIENT,
    StallClass,
)
from ultrafolio.state.burst import Done, Group, rules_of
from ultrafolio.state.group import Live, View

BUSY = (layout.E_LOCKED, layout.E_REFS, layout.E_WRITEBACK, layout.E_DIRTY, layout.E_UV)


@dataclass(frozen=True, slots=True)
class Met:
    """What stopped a thread: an outcome, the page it was about, what its guest wanted; whole: a split met it."""

    outcome: int
    page: int = 0
    op: int = NOTHING
    whole: bool = False


class Obstacles:
    """What each vCPU that tries again met last, and the graph."""

    def __init__(self) -> None:
        self._met: dict[tuple[str, int], Met] = {}
        self._about: dict[tuple[str, int], tuple[int, int]] = {}
        self._lock = threading.Lock()

    def about(self, group: Group, actor: int) -> Callable[[View], None]:
        """To be called before and after each step: remembers what the thread is about, which its last step clears."""

        def see(view: View) -> None:
            task = view.live.task[actor]
            if task.page or task.call:
                self._about[group.name, actor] = task.page, task.call

        return see

    def note(self, group: Group, actor: int, burst: Sequence[Done]) -> None:
        """Remember why the thread came back from the host, or that nothing stopped it."""
        page, op = self._about.get((group.name, actor), (0, NOTHING))
        with self._lock:
            self._met.pop((group.name, actor), None)
            if burst and burst[-1].outcome in BUSY and group.view.live.task[actor].pc == AGAIN:
                whole = any(done.pc == layout.SPLIT and done.outcome in BUSY for done in burst)
                self._met[group.name, actor] = Met(burst[-1].outcome, page, op, whole)

    def wait(self, group: Group, actor: int) -> common_pb2.Wait | None:
        """What thread `actor` waits for; None if nothing stops it."""
        return next((wait for wait in self.graph(group) if wait.actor == actor), None)

    def graph(self, group: Group) -> list[common_pb2.Wait]:
        """One entry per thread that waits, now."""
        arrays = group.snapshot()
        met = {t: found for t in range(len(arrays.task)) if (found := self._stops(group.name, arrays, t))}
        return [_wait(arrays, t, met) for t in met]

    def _stops(self, name: str, arrays: State, t: int) -> Met | None:
        """What stops thread `t`; None if it goes on, or has nothing to do."""
        task = arrays.task[t]
        pc = int(task["pc"])
        if pc == DEAD:
            return Met(layout.E_FATAL, *self._about.get((name, t), (0, NOTHING)))
        if pc == AGAIN:
            with self._lock:
                return self._met.get((name, t))
        if pc not in RULES or RULES[pc].actor != "host" or RULES[pc].chooses:
            return None
        outcome = _tried(arrays, t)
        return Met(outcome, int(task["page"]), int(task["call"])) if outcome < 0 else None


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


def _wait(arrays: State, t: int, met: dict[int, Met]) -> common_pb2.Wait:
    told = _told(arrays, t, met[t])
    # of a vCPU that a service before this one saw last, it is not known what it was about
    unknown = arrays.who["kind"][t] == VCPU and not (met[t].op or arrays.task["call"][t])
    return common_pb2.Wait(
        actor=t,
        waiter=told.waiter.partition(" (")[0] if unknown else told.waiter,
        waits_for=told.waits_for,
        held_by=told.held_by,
        released_by=told.released_by,
        stall_class=_class(arrays, t, met),
    )


def _told(arrays: State, t: int, found: Met) -> explain.Wait:
    """The wait in words. What a vCPU is about is put back where the words look for it: in the guest's own record."""
    state = to_lists(arrays)
    task, wish = state.task[t], state.actor[t]
    task.page, wish.op = task.page or found.page, wish.op or found.op
    return explain.explain(state, t, found.outcome, found.whole)


def _class(arrays: State, t: int, met: dict[int, Met]) -> StallClass.ValueType:
    """The class of a stall from its holder: what a fair step releases is transient (MODEL section 5)."""
    found = met[t]
    if found.outcome == layout.E_FATAL:
        return STALL_CLASS_FATAL
    if found.outcome == layout.E_DIRTY:
        # a writeback cleans the folio, and the next write fault dirties it again: for ever, if writeback never stops
        endless = (arrays.who["kind"] == WRITEBACK) & (arrays.actor["budget"] == ENDLESS)
        return STALL_CLASS_LIVELOCK if endless.any() else STALL_CLASS_PERMANENT
    if found.outcome == W_MUTEX:
        # as long as its owner sleeps with it
        owner = int(arrays.vm[arrays.who[t]["vm"]]["mutex"]) - 1
        return _class(arrays, owner, met) if owner in met else STALL_CLASS_TRANSIENT
    released = _told(arrays, t, found).released_by
    lasting = explain.EVER in released or "does not do" in released
    return STALL_CLASS_PERMANENT if lasting else STALL_CLASS_TRANSIENT
