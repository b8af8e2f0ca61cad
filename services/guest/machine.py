"""What guests and their devices do, step by step: instructions of vCPUs, direct I/O, virtio devices, reboot."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import grpc

from services.disk import Disk
from services.guest.part import PAGE, Parts
from ultrafolio.model import layout
from ultrafolio.model.layout import (
    AGAIN,
    DEVICE_IDLE,
    DISK,
    IO_END,
    IO_START,
    NOTHING,
    OPS,
    REBOOT_IDLE,
    RING,
    RING_READY,
    RUN,
    TOUCH,
    VCPU,
)
from ultrafolio.model.rule import RULES
from ultrafolio.rpc.errors import StatusError
from ultrafolio.rpc.messages import step_from
from ultrafolio.rpc.v1 import common_pb2
from ultrafolio.state.burst import Done, Group

BUSY = (layout.E_LOCKED, layout.E_REFS, layout.E_WRITEBACK, layout.E_DIRTY, layout.E_UV)
MARGIN_S = 0.15
"""How long before its deadline a waiting instruction gives up, so that its answer still arrives."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.001, 0.05
"""Pauses of a vCPU that re-enters after "busy". The kernel polls without one, and so do the rules."""


def of_guest(pc: int) -> bool:
    """Whether the guest service runs this rule: a guest's own, or a device's."""
    return RULES[pc].actor in ("guest", "device")


@dataclass
class Work:
    """What came of an order: the steps; what it waits for where time ran out."""

    steps: list[Done] = field(default_factory=list)
    wait: common_pb2.Wait | None = None

    @property
    def exceptions(self) -> int:
        """How many exits to the host there were."""
        return sum(done.outcome == layout.FAULT for done in self.steps)


class Patience(NamedTuple):
    """remaining: seconds until the deadline;  alive: whether the caller still listens."""

    remaining: Callable[[], float]
    alive: Callable[[], bool]

    @property
    def over(self) -> bool:
        return self.remaining() < MARGIN_S or not self.alive()


class Machine:
    """Guests of any group. disk: the file that devices read and write."""

    def __init__(self, parts: Parts, disk: Disk) -> None:
        self.parts, self.disk = parts, disk

    def instruct(self, group: Group, actor: int, op: int, page: int, request: str, patience: Patience) -> Work:
        """A vCPU executes one instruction on a page, through as many exits as it takes, or until patience is over.

        An instruction that an earlier call left unfinished is gone on with, if it is the same. StatusError otherwise.
        """
        self._free_for(group, actor, op, page)
        work, pause = Work(), FIRST_PAUSE_S
        while True:
            work.steps += group.burst(
                actor, op, page, most=1, request=f"{request}/{len(work.steps)}" if request else ""
            )
            pc = group.view.live.task[actor].pc
            if pc == RUN and work.steps and work.steps[-1].outcome < 0:
                raise refused(actor, work.steps[-1])
            if pc in (RUN, layout.DEAD):
                return work
            if pc != AGAIN:
                self._host(group, actor, request, work, patience)
            if group.view.live.task[actor].pc == layout.DEAD or patience.over:
                return work
            if work.wait is None and work.steps[-1].outcome in BUSY:
                time.sleep(min(pause, max(0.0, patience.remaining() - MARGIN_S)))
                pause = min(2 * pause, LONGEST_PAUSE_S)
            op, page = NOTHING, 0

    def _free_for(self, group: Group, actor: int, op: int, page: int) -> None:
        live = group.view.live
        busy = live.actor[actor]
        if live.task[actor].pc != RUN and (busy.op, busy.page) != (op, page):
            group.refresh()
            if live.task[actor].pc != RUN and (busy.op, busy.page) != (op, page):
                raise StatusError(
                    grpc.StatusCode.FAILED_PRECONDITION,
                    "VCPU_BUSY",
                    "the vCPU is in the middle of an instruction",
                    value=f"{OPS[busy.op]} page {busy.page}",
                    allowed="to repeat that, or another vCPU",
                    cause="an earlier call ended before the instruction did",
                )

    def _host(self, group: Group, actor: int, request: str, work: Work, patience: Patience) -> None:
        """The host runs the actor's thread until it comes back."""
        name = f"{request}/{len(work.steps)}" if request else ""
        answer = self.parts.run(group.name, actor, name, max(0.05, patience.remaining() - MARGIN_S / 2))
        work.steps += map(step_from, answer.steps)
        work.wait = answer.wait if answer.HasField("wait") else None
        group.refresh()

    def direct_io(
        self, group: Group, actor: int, page: int, *, read: bool, hold_us: int, request: str, patience: Patience
    ) -> tuple[Work, int]:
        """A disk's direct I/O on its pages from `page`: pin, real I/O, unpin. Returns the work and an errno or 0."""
        work = self._to(group, actor, page, request, IO_START, patience)
        if work.wait or group.view.live.task[actor].pc != IO_START:
            return work, 0 if work.wait else errno.EIO
        count = group.view.live.actor[actor].n
        first = group.view.live.actor[actor].page
        work.steps += group.burst(actor, most=1, request=f"{request}/start" if request else "")
        error = self._transfer(group, first, count, read)
        time.sleep(hold_us / 1e6)
        work.steps += group.burst(actor, most=1, request=f"{request}/end" if request else "")
        while group.view.live.task[actor].pc != DEVICE_IDLE and not patience.over:
            self._host(group, actor, request, work, patience)
        return work, error

    def _transfer(self, group: Group, first: int, count: int, read: bool) -> int:
        offset = group.view.meta.origin + first * PAGE
        if read:
            data = self.disk.read(offset, count * PAGE)
            accesses = [(first + i, 0, 0, data[i * PAGE : (i + 1) * PAGE]) for i in range(count)]
        else:
            accesses = [(first + i, 0, PAGE, b"") for i in range(count)]
        seen = self.parts.access(group.name, None, accesses)
        if any(one.exception for one in seen):
            return errno.EIO
        if not read:
            self.disk.write(offset, b"".join(one.data for one in seen))
        return 0

    def configure(self, group: Group, actor: int, page: int, request: str, patience: Patience) -> Work:
        """A virtio device is configured: its ring pages are pinned until the guest reboots or shuts down."""
        work = self._to(group, actor, page, request, IO_START, patience)
        if group.view.live.task[actor].pc == IO_START:
            work.steps += group.burst(actor, most=1, request=f"{request}/start" if request else "")
        return work

    def _to(self, group: Group, actor: int, page: int, request: str, goal: int, patience: Patience) -> Work:
        """Start a device and let the host pin its pages."""
        work = Work()
        work.steps += group.burst(actor, TOUCH, page, most=1, request=f"{request}/0" if request else "")
        if work.steps and work.steps[-1].outcome < 0:
            raise refused(actor, work.steps[-1])
        while group.view.live.task[actor].pc not in (goal, DEVICE_IDLE) and not patience.over:
            self._host(group, actor, request, work, patience)
        return work

    def reboot(self, group: Group, actor: int, shutdown: bool, request: str, patience: Patience) -> Work:
        """vCPUs stop, I/O ends, devices are torn down and unpinned, all is unshared and destroyed."""
        work = Work()
        work.steps += group.burst(
            actor, NOTHING if shutdown else TOUCH, 0, most=1, request=f"{request}/0" if request else ""
        )
        if work.steps and work.steps[-1].outcome < 0:
            raise refused(actor, work.steps[-1])
        vm = int(group.view.meta.who["vm"][actor])
        while True:
            self._stop_actors(group, vm, work, patience)
            answer = self.parts.run(group.name, actor, "", min(0.5, max(0.05, patience.remaining() - MARGIN_S / 2)))
            work.steps += map(step_from, answer.steps)
            work.wait = answer.wait if answer.HasField("wait") else None
            if group.refresh().live.task[actor].pc == REBOOT_IDLE or patience.over:
                return work

    def _stop_actors(self, group: Group, vm: int, work: Work, patience: Patience) -> None:
        """Let every vCPU of the machine drop its instruction, and every device be torn down."""
        who = group.view.meta.who
        for t in range(len(who)):
            if who["vm"][t] != vm or who["kind"][t] not in (VCPU, DISK, RING):
                continue
            pc = group.refresh().live.task[t].pc
            if pc in (AGAIN, RING_READY, IO_START) or (pc == IO_END and who["kind"][t] == DISK):
                work.steps += group.burst(t, most=1)
            elif pc not in (RUN, DEVICE_IDLE, layout.DEAD):
                answer = self.parts.run(group.name, t, "", min(0.2, max(0.05, patience.remaining() - MARGIN_S / 2)))
                work.steps += map(step_from, answer.steps)


def refused(actor: int, done: Done) -> StatusError:
    return StatusError(
        grpc.StatusCode.FAILED_PRECONDITION,
        "NOT_ENABLED",
        f"actor {actor} cannot do that now",
        value=done.name,
        allowed=f"it waits for {done.word}",
    )
