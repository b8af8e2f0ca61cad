"""Devices: direct I/O of disks, long-term pins such as virtio rings, adapter interrupts, and the reboot that tears them
down."""

from __future__ import annotations

import errno
import threading
import time

from services.common.disk import Disk
from services.common.scheduler import Suspending, Wait
from services.guest.orders import NO_DEADLINE, Deadline, OrderResult, busy, pc_of, refused
from services.guest.peers import Parts
from ultrafolio.model.layout import (
    AGAIN,
    DEAD,
    DEVICE_IDLE,
    E_IO,
    IO_END,
    IO_START,
    MISUSE,
    NOTHING,
    PAGE_SIZE,
    REBOOT,
    REBOOT_IDLE,
    RING_READY,
    RUN,
    TOUCH,
)
from ultrafolio.model.rule import RULES
from ultrafolio.rpc.v1.common_pb2 import OUTCOME_DONE, OUTCOME_REFUSED, OUTCOME_WAITS
from ultrafolio.state.turn import Group

STOP_SLICE_S = 0.2
"""Seconds that a stopping machine waits for one of its actors before it checks the others."""
NEVER_S = 60.0
"""Seconds of one wait for I/O that never completes."""
START_PAUSES_S = (0.0, 0.01, 0.05, 0.2)
"""Seconds between checks whether a busy device works for this request: another replica may not have recorded it yet."""


class Devices:
    """The devices of any group. disk: the file that they read and write."""

    def __init__(self, parts: Parts, disk: Disk) -> None:
        self.parts, self.disk = parts, disk
        self._flying: set[tuple[str, int]] = set()
        self._lock = threading.Lock()

    def direct_io(
        self, group: Group, disk: int, page: int, *, read: bool, hold_us: int, request: str, deadline: Deadline
    ) -> Suspending[tuple[OrderResult, int]]:
        """A disk's direct I/O on its pages from `page`: pin, real I/O, unpin. Returns the result and an errno, or 0.

        Once started, the I/O and the unpin complete even if the caller disconnects.
        """
        work, error = (yield from self._begin(group, disk, page, request)), 0
        yield from self._host(group, disk, work, deadline, (IO_START, IO_END, DEVICE_IDLE))
        if pc_of(group, disk) == IO_START:
            work.round(group.burst(disk, most=1))
        if pc_of(group, disk) == IO_END:
            error = yield from self._io(group, disk, read, hold_us)
            if group.view.meta.who["stuck"][disk]:
                return (yield from self._never(group, disk, work, deadline)), 0
            work.round(group.burst(disk, most=1))
            deadline = NO_DEADLINE
        yield from self._host(group, disk, work, deadline, (DEVICE_IDLE,))
        return self._ended(group, disk, work, DEVICE_IDLE, _refused(work) or error)

    def _never(self, group: Group, disk: int, work: OrderResult, deadline: Deadline) -> Suspending[OrderResult]:
        """Wait until the deadline for I/O that never completes."""
        while not deadline.over:
            yield deadline.pause(NEVER_S)
        return work.end(OUTCOME_WAITS, self.parts.wait_of(group.name, disk))

    def interrupt(
        self, group: Group, device: int, page: int, request: str, deadline: Deadline
    ) -> Suspending[OrderResult]:
        """An adapter interrupt sets bits in its page: pinned for that, or referenced."""
        work = yield from self._begin(group, device, page, request)
        yield from self._host(group, device, work, deadline, (IO_START, DEVICE_IDLE))
        if pc_of(group, device) == IO_START:
            work.round(group.burst(device, most=1))
        yield from self._host(group, device, work, deadline, (DEVICE_IDLE,))
        return self._ended(group, device, work, DEVICE_IDLE, 0)[0]

    def configure(
        self, group: Group, ring: int, page: int, request: str, deadline: Deadline
    ) -> Suspending[OrderResult]:
        """A virtio device, or another long-term pin: its pages are pinned until the guest reboots or shuts down."""
        work = yield from self._begin(group, ring, page, request)
        yield from self._host(group, ring, work, deadline, (IO_START, RING_READY, DEVICE_IDLE))
        if pc_of(group, ring) == IO_START:
            work.round(group.burst(ring, most=1))
        return self._ended(group, ring, work, RING_READY, 0)[0]

    def _begin(self, group: Group, device: int, page: int, request: str) -> Suspending[OrderResult]:
        """Start a device, once per request. Raises StatusError if it works for another request."""
        work = OrderResult()
        for pause_s in START_PAUSES_S if request else (0.0,):
            yield Wait(pause_s)
            live = group.refresh().live
            begun = bool(request) and group.store.reply(group.name, request) is not None
            if begun or pc_of(group, device) == DEVICE_IDLE:
                break
        else:
            doing = f"{RULES[pc_of(group, device)].name}, page {live.actor[device].page}"
            raise busy(f"device {device}", doing, "to repeat that with its request id, or a reboot")
        if not begun:
            steps = group.burst(device, TOUCH, page, most=1, request=request)
            if steps and steps[0].outcome < 0:
                raise refused(group, device, steps[0])
            work.round(steps)
        return work

    def _host(
        self, group: Group, device: int, work: OrderResult, deadline: Deadline, until: tuple[int, ...]
    ) -> Suspending[None]:
        """Let the host pin or unpin, until the device's next rule is one of `until`."""
        while pc_of(group, device) not in until and not deadline.over:
            steps, work.wait = yield from self.parts.run(group, device, deadline.slice())
            work.round(steps)

    def _ended(self, group: Group, device: int, work: OrderResult, goal: int, error: int) -> tuple[OrderResult, int]:
        """Returns the result of an order, and `error` or 0: done or refused at rule `goal` or idle, else it waits."""
        pc = pc_of(group, device)
        if pc not in (goal, DEVICE_IDLE):
            return work.end(OUTCOME_WAITS, work.wait or self.parts.wait_of(group.name, device)), 0
        return work.end(OUTCOME_REFUSED if _refused(work) else OUTCOME_DONE), error

    def _io(self, group: Group, disk: int, read: bool, hold_us: int) -> Suspending[int]:
        """Do the I/O: real bytes, then wait `hold_us` microseconds. Returns an errno, or 0."""
        mine, me = group.view.live.actor[disk], (group.name, disk)
        with self._lock:
            self._flying.add(me)
        try:
            error = self._transfer(group, mine.page, mine.n, read)
            end = time.monotonic() + hold_us / 1e6
            while (left := end - time.monotonic()) > 0:
                yield Wait(left)
            return error
        finally:
            with self._lock:
                self._flying.discard(me)

    def _transfer(self, group: Group, first: int, count: int, read: bool) -> int:
        """Copy `count` pages from page `first` on, from the disk to memory (`read`) or back. Returns 0, or EIO if a
        page was refused."""
        offset = group.view.meta.origin + first * PAGE_SIZE
        if read:
            data = self.disk.read(offset, count * PAGE_SIZE)
            accesses = [(first + i, 0, 0, data[i * PAGE_SIZE : (i + 1) * PAGE_SIZE]) for i in range(count)]
        else:
            accesses = [(first + i, 0, PAGE_SIZE, b"") for i in range(count)]
        seen = self.parts.access(group.name, None, accesses)
        if any(one.exception for one in seen):
            return errno.EIO
        if not read:
            self.disk.write(offset, b"".join(one.data for one in seen))
        return 0

    def reboot(
        self, group: Group, actor: int, shutdown: bool, request: str, deadline: Deadline
    ) -> Suspending[OrderResult]:
        """Stop vCPUs, wait for I/O, tear down and unpin devices, unshare and destroy all pages."""
        work = OrderResult()
        group.refresh()
        begun = bool(request) and group.store.reply(group.name, request) is not None
        if not begun and pc_of(group, actor) == REBOOT_IDLE:
            steps = group.burst(actor, NOTHING if shutdown else TOUCH, 0, most=1, request=request)
            if steps and steps[0].outcome < 0:
                raise refused(group, actor, steps[0])
            work.round(steps)
        wait = None
        while group.refresh().live.task[actor].pc != REBOOT_IDLE:
            if deadline.over:
                return work.end(OUTCOME_WAITS, wait or self.parts.wait_of(group.name, actor))
            yield from self._stop_actors(group, int(group.view.meta.who["vm"][actor]), work, deadline)
            steps, wait = yield from self.parts.run(group, actor, deadline.slice(STOP_SLICE_S))
            work.round(steps)
        return work.end(OUTCOME_DONE)

    def _stop_actors(self, group: Group, vm: int, work: OrderResult, deadline: Deadline) -> Suspending[None]:
        """Every vCPU drops its instruction, every device is torn down; waits for I/O in flight."""
        who = group.view.meta.who
        for t in range(len(who)):
            if who["vm"][t] != vm or who["kind"][t] == REBOOT or not group.view.meta.is_guest(who["kind"][t]):
                continue
            pc = group.refresh().live.task[t].pc
            if pc in (RUN, DEVICE_IDLE, DEAD) or (group.name, t) in self._flying:
                continue
            if not group.runs(pc):
                work.round((yield from self.parts.run(group, t, deadline.slice(STOP_SLICE_S)))[0])
            elif pc in (AGAIN, RING_READY, IO_START, IO_END):
                work.round(group.burst(t, most=1))


def _refused(work: OrderResult) -> int:
    """Returns the errno of a refused pin, or 0."""
    errors = {E_IO: errno.EFAULT, MISUSE: errno.ENOMEM}
    return next((errors[done.outcome] for done in work.steps if done.outcome in errors), 0)
