"""Running host threads: bursts of rules until the thread is done, passes to the guest, or has waited long enough."""

from __future__ import annotations

import errno
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import msgspec

from services.common import scheduler
from services.common.failures import NOT_FOUND
from services.common.groups import Groups
from services.common.scheduler import Suspending, Wait
from services.host_mm.swap import Swap
from services.host_mm.unfinished import Thread, UnfinishedThreads
from services.host_mm.waits import Waits, WouldEnd
from ultrafolio.engine.load import interpreted
from ultrafolio.model.layout import NOTHING, PAGE_SIZE, SWAPPED, WB_END
from ultrafolio.rpc.errors import StatusError
from ultrafolio.rpc.v1 import common_pb2
from ultrafolio.state.crossing import Ask
from ultrafolio.state.requests import split
from ultrafolio.state.sections import Meta
from ultrafolio.state.store import LEASE_MS, Commit, NotOwner, Store, Turn
from ultrafolio.state.turn import Contended, Done, Group
from ultrafolio.state.view import View

MARGIN_S = 0.1
"""Seconds before its deadline at which a waiting call ends, so that its answer still arrives."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.001, 0.02
MOST_HANDED = 4096
"""Threads that came over and were not run yet, which are known; of another the store is asked whether it was run."""


def part_of(request: str, number: int = 0) -> str:
    """Returns the name under which steps of a client's request are kept: of the first, or after so many. Without an id
    nothing is kept: ""."""
    return f"{request}/{number}" if request else ""


@dataclass
class Drive:
    """Result of a run. steps: in order;  over: whether the thread finished, or passed to another role;  wait: its wait,
    if not;  error: errno of its I/O, or 0."""

    steps: list[Done] = field(default_factory=list)
    over: bool = False
    wait: common_pb2.Wait | None = None
    error: int = 0


ReadPages = Callable[[str, int, int], bytes]
"""(group, first page, count) -> the pages' content, 4,096 bytes each; PermissionError on a secure page."""


class HostGroup(Group):
    """A group of the host's. swap: its swap, where writeback writes, too;  left: as of Group."""

    def __init__(
        self, store: Store, name: str, meta: Meta, ask: Ask, left: Callable[[str, Turn], None], swap: Swap
    ) -> None:
        super().__init__(store, name, meta, "host", ask, left=left)
        self.swap = swap

    @property
    def revision(self) -> int:
        """The revision of the threads, as last read."""
        return self.view.revisions[self.view.sections.whole["task"]]

    def keep(self, request: str) -> None:
        """Keep the id of a client's request that takes no step. Raises Reused if it is another request's, Contended if
        others keep the group busy for longer than the patience."""
        end = time.monotonic() + self._patience
        while self.known(name := part_of(request)) is None:
            answer = msgspec.msgpack.encode([])
            commit = Commit(self._next(), self._writer, request=(name, answer))
            if self.store.commit(self.name, commit).status == "done":
                return
            if time.monotonic() > end:
                raise Contended(f"{self.name}: the turn is held by others")
            time.sleep(LONGEST_PAUSE_S)

    def under_way(self, pc: int) -> bool:
        """Whether a thread whose next rule is `pc` has unfinished work at the host."""
        return self.runs(pc) and not self.design.rules[pc].chooses


class Threads:
    """Runs host threads of any group. unfinished: record of unfinished threads."""

    def __init__(self, read_pages: ReadPages, would_end: WouldEnd, unfinished: UnfinishedThreads) -> None:
        self._read, self._unfinished = read_pages, unfinished
        self.waits = Waits(would_end)
        self._handed: OrderedDict[tuple[str, str], int] = OrderedDict()

    def handed(self, group: HostGroup, token: str) -> None:
        """A thread came over in the turn `token`. Nobody has run it yet under a request of that name."""
        self._handed[group.name, token] = group.view.revisions["pc"]
        while len(self._handed) > MOST_HANDED:
            self._handed.popitem(last=False)

    def drive(
        self,
        group: HostGroup,
        actor: int,
        op: int = NOTHING,
        page: int = 0,
        *,
        request: str,
        remaining: Callable[[], float],
        alive: Callable[[], bool],
    ) -> Suspending[Drive]:
        """Run thread `actor`, with its choice where it chooses, until it is done or passes to another part.

        It waits while its rule is not enabled, as long as `remaining()` seconds are left and the caller is `alive()`.
        Two calls for one thread take turns. An idle thread with no choice to make stays as it is.
        """
        turn = "thread", group.name, actor
        while not scheduler.DEFAULT.hold(turn):
            yield Wait(max(0.0, remaining() - MARGIN_S), behind=turn)
            if remaining() < MARGIN_S or not alive():
                scheduler.DEFAULT.wake_next(turn)
                return Drive(wait=self.waits.of(group, actor))
        try:
            return (yield from self._drive(group, actor, op, page, request, remaining, alive))
        finally:
            scheduler.DEFAULT.release(turn, wake_all=False)

    def _drive(
        self,
        group: HostGroup,
        actor: int,
        op: int,
        page: int,
        request: str,
        remaining: Callable[[], float],
        alive: Callable[[], bool],
    ) -> Suspending[Drive]:
        drive, pause = Drive(), FIRST_PAUSE_S
        fresh = self._handed.pop((group.name, split(request)[0]), -1)

        def stop(view: View) -> bool:
            return bool(view.live.task[actor].pc == WB_END)

        # in the view as last refreshed: a burst notices a newer state
        pc = group.view.live.task[actor].pc
        if not group.under_way(pc):
            pc = group.refresh().live.task[actor].pc
        if request and not group.under_way(pc):
            while known := group.known(part_of(request, len(drive.steps))):
                drive.steps += known
                op = NOTHING  # it was started and has finished
        while group.under_way(pc) or (op != NOTHING and group.runs(pc)):
            if pc == WB_END and not group.view.meta.who["stuck"][actor]:
                drive.error = drive.error or self._write_back(group, actor)
            name = part_of(request, len(drive.steps))
            burst = group.burst(actor, op, page, request=name, stop=stop, fresh=fresh)
            fresh = -1
            if group.under_way(group.view.live.task[actor].pc):
                self._unfinished.record(Thread(group.name, actor, request))
            if burst and burst[-1].outcome < 0:
                drive.steps += burst[:-1]
                if group.design.rules[pc].chooses or remaining() < MARGIN_S or not alive():
                    drive.steps = drive.steps or burst
                    drive.wait = self.waits.of(group, actor)
                    return drive
                yield Wait(min(pause, max(0.0, remaining() - MARGIN_S)))
                pause = min(2 * pause, LONGEST_PAUSE_S)
            else:
                drive.steps += burst
                pause = FIRST_PAUSE_S
            op, page, pc = NOTHING, 0, group.view.live.task[actor].pc
        self._unfinished.remove(group.name, actor)
        drive.over = True
        return drive

    def left(self, group: str, turn: Turn) -> None:
        """Called when a dead process's turn was finished; its thread may have more steps."""
        request, _, number = turn.request.rpartition("/")
        if number.isdecimal():
            self._unfinished.record(Thread(group, turn.actor, request))

    def look_after(self, groups: Groups[HostGroup]) -> None:
        """Start a thread that resumes abandoned host threads."""

        def look() -> None:
            while True:
                time.sleep(LEASE_MS / 1000)
                # any failure here is retried in the next round
                with suppress(Exception):
                    for thread in self._unfinished.abandoned():
                        self.resume(groups, thread)

        threading.Thread(target=look, name="left threads", daemon=True).start()

    def resume(self, groups: Groups[HostGroup], thread: Thread) -> None:
        """Run a thread until it would wait, as part of its request. Another replica's group is left to that replica."""
        try:
            group = groups.unasked(thread.group)
        except NotOwner:
            return
        except StatusError as error:
            if error.reason != NOT_FOUND:
                raise
            self._unfinished.remove(thread.group, thread.actor)
            return
        now = self.drive(group, thread.actor, request=thread.request, remaining=lambda: 0.0, alive=lambda: True)
        scheduler.run_blocking(now)

    def _write_back(self, group: HostGroup, actor: int) -> int:
        """Do the I/O of a writeback: write the folio's pages that are in memory to the disk. Returns an errno, or 0."""
        live: Any = group.view.live
        page, origin = live.task[actor].page, group.view.meta.origin
        first = interpreted().head(live, page)
        count = 1 << live.mm[page].order
        try:
            seen = self._read(group.name, first, count)
        except PermissionError:
            return errno.EIO
        for at in range(count):
            if live.pt[first + at].present != SWAPPED:
                group.swap.write(origin, first + at, seen[at * PAGE_SIZE : (at + 1) * PAGE_SIZE])
        return 0
