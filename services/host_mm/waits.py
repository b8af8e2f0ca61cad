"""The wait-for graph as the host sees it now: from its own sections, and from what each thread met last."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from ultrafolio.check import explain
from ultrafolio.engine.interp import to_lists
from ultrafolio.model import layout
from ultrafolio.model.layout import State
from ultrafolio.rpc.v1 import common_pb2
from ultrafolio.state.burst import Done, Group
from ultrafolio.state.group import View

BUSY = (layout.E_LOCKED, layout.E_REFS, layout.E_WRITEBACK, layout.E_DIRTY, layout.E_UV)


class Obstacles:
    """What each thread met last: an outcome that stopped it, and the page it was about."""

    def __init__(self) -> None:
        self._met: dict[tuple[str, int], tuple[int, int, bool]] = {}
        self._lock = threading.Lock()

    def note(self, group: Group, actor: int, burst: Sequence[Done]) -> None:
        """Remember why the thread stopped, or that it goes on."""
        task = group.view.live.task[actor]
        with self._lock:
            old = self._met.pop((group.name, actor), None)
            for done in burst:
                if done.outcome in BUSY or done.outcome < 0:
                    page = task.page or (old[1] if old else 0)
                    self._met[group.name, actor] = (done.outcome, page, done.pc == layout.SPLIT)
                elif done.outcome == layout.E_FATAL:
                    self._met[group.name, actor] = (done.outcome, 0, False)

    def wait(self, group: Group, actor: int) -> common_pb2.Wait | None:
        """What thread `actor` waits for; None if nothing stopped it."""
        with self._lock:
            met = self._met.get((group.name, actor))
        return None if met is None else _wait(group.view, actor, *met)

    def graph(self, group: Group) -> list[common_pb2.Wait]:
        """One entry per thread that waits."""
        view = group.refresh()
        with self._lock:
            met = [(actor, found) for (name, actor), found in sorted(self._met.items()) if name == group.name]
        return [_wait(view, actor, *found) for actor, found in met]


def _wait(view: View, actor: int, outcome: int, page: int, whole: bool) -> common_pb2.Wait:
    state: State = to_lists(view.arrays)
    if not state.task[actor].page:
        state.task[actor].page = page
    found = explain.explain(state, actor, outcome, whole)
    return common_pb2.Wait(
        actor=actor,
        waiter=found.waiter,
        waits_for=found.waits_for,
        held_by=found.held_by,
        released_by=found.released_by,
        stall_class=_class(state, outcome, found),
    )


def _class(state: State, outcome: int, wait: explain.Wait) -> common_pb2.StallClass.ValueType:
    """The class of a stall from its holder: what a fair step releases is transient (MODEL section 5)."""
    if outcome == layout.E_FATAL:
        return common_pb2.STALL_CLASS_FATAL
    if outcome == layout.E_DIRTY:
        again = state.cfg[0].background
        return common_pb2.STALL_CLASS_LIVELOCK if again else common_pb2.STALL_CLASS_PERMANENT
    lasting = explain.EVER in wait.released_by or "does not do" in wait.released_by
    return common_pb2.STALL_CLASS_PERMANENT if lasting else common_pb2.STALL_CLASS_TRANSIENT
