"""Running host threads: bursts of rules until the thread is done, passes to the guest, or has waited long enough."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

from services.disk import Disk
from services.host_mm.waits import Obstacles
from ultrafolio.engine.load import interpreted
from ultrafolio.model.layout import NOTHING, RECLAIM_FREE, WB_END
from ultrafolio.model.rule import RULES
from ultrafolio.rpc.v1 import common_pb2
from ultrafolio.state.burst import Done, Group
from ultrafolio.state.group import View

PAGE = 4096
MARGIN_S = 0.1
"""How long before its deadline a waiting call gives up, so that its answer still arrives."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.001, 0.02


def of_host(pc: int) -> bool:
    """Whether the host MM service runs this rule; a broken or hostile host is the host, too."""
    return RULES[pc].actor in ("host", "fault")


class Drive(NamedTuple):
    """steps: what was done;  wait: what the thread waits for where time ran out, else None."""

    steps: list[Done]
    wait: common_pb2.Wait | None


ReadPages = Callable[[str, int, int], bytes]
"""(group, first page, count) -> what the host sees there, 4,096 bytes a page; PermissionError on a secure page."""


class Threads:
    """Runs host threads of any group. swap: where writeback and reclaim write to."""

    def __init__(self, read_pages: ReadPages, swap: Disk) -> None:
        self._read, self._swap = read_pages, swap
        self.obstacles = Obstacles()

    def drive(
        self,
        group: Group,
        actor: int,
        op: int = NOTHING,
        page: int = 0,
        *,
        request: str,
        remaining: Callable[[], float],
        alive: Callable[[], bool],
    ) -> Drive:
        """Run thread `actor`, with its choice where it chooses, until it is done or passes to another part.

        It waits while its rule is not enabled, as long as `remaining()` seconds are left and the caller is `alive()`.
        """
        steps: list[Done] = []
        pause = FIRST_PAUSE_S
        while True:
            name = f"{request}/{len(steps)}" if request else ""
            burst = group.burst(actor, op, page, request=name, stop=lambda view: self._io_next(view, actor))
            waits = burst and burst[-1].outcome < 0
            steps += burst[:-1] if waits else burst
            self.obstacles.note(group, actor, burst)
            pc = group.view.live.task[actor].pc
            if not waits:
                if pc in (WB_END, RECLAIM_FREE) and burst:
                    self._do_io(group, actor)
                elif not burst or pc not in RULES or not of_host(pc) or RULES[pc].chooses:
                    return Drive(steps, None)
                pause = FIRST_PAUSE_S
            elif RULES[pc].chooses or remaining() < MARGIN_S or not alive():
                return Drive(steps or burst, self.obstacles.wait(group, actor))
            else:
                time.sleep(min(pause, max(0.0, remaining() - MARGIN_S)))
                pause = min(2 * pause, LONGEST_PAUSE_S)
            op, page = NOTHING, 0

    @staticmethod
    def _io_next(view: View, actor: int) -> bool:
        return view.live.task[actor].pc in (WB_END, RECLAIM_FREE)

    def _do_io(self, group: Group, actor: int) -> None:
        """The I/O between its start and its end: what the host sees of the pages goes to the disk."""
        live: Any = group.view.live
        task = live.task[actor]
        first, count = task.page, 1
        if task.pc == WB_END:
            first = interpreted().head(live, task.page)
            count = 1 << live.mm[task.page].order
        self._swap.write(group.view.meta.origin + first * PAGE, self._read(group.name, first, count))
