"""Orders to the actors of a guest_memfd group: vCPUs, and what their VMM does: conversions, holes, pins, direct I/O.

The VMM is a part of its own: it knows what a call returned and why a vCPU left the guest. A thread is run here at the
rules of guest, device and VMM, and by the host at those of the kernel, until it is idle again.
"""

from __future__ import annotations

import errno
import time
from dataclasses import dataclass, field

import grpc

from services.common import scheduler
from services.common.scheduler import Suspending, Wait
from services.guest.orders import NO_DEADLINE, Deadline, OrderResult, busy, pc_of, refused
from services.guest.peers import Parts
from services.guest.vcpu import FIRST_PAUSE_S, LONGEST_PAUSE_S, bell, of_vcpu
from ultrafolio.model.guest_memfd.layout import (
    DMA_ASKED,
    DMA_END,
    DMA_STANDS,
    DONE,
    E_SIGBUS,
    FAULT,
    NOTHING,
    OK,
    OPS,
    PIPE_READ,
    REFUSED,
    SUCCESS,
    VCPU,
    VMM,
    VMM_IDLE,
    VMM_UNMAPPED,
)
from ultrafolio.rpc.errors import StatusError
from ultrafolio.rpc.v1.common_pb2 import OUTCOME_DONE, OUTCOME_FATAL, OUTCOME_REFUSED, OUTCOME_WAITS, Outcome
from ultrafolio.state.crossing import ROUNDS
from ultrafolio.state.turn import Done, Group

PINNED = (DMA_STANDS, DMA_ASKED, PIPE_READ)
"""Where a device stands that has what it asked for, until the VMM ends it."""
RELEASED = (DMA_STANDS, PIPE_READ)
"""Where the VMM may end it, and need not."""


@dataclass
class _Order:
    """An order under way. until, hold_s: as of Conversions.order;  last: the actor's last step that was seen;
    told_no: its request or its pin was refused."""

    group: Group
    actor: int
    deadline: Deadline
    until: tuple[int, ...] = ()
    hold_s: float = 0.0
    work: OrderResult = field(default_factory=OrderResult)
    last: Done | None = None
    told_no: bool = False

    @property
    def pc(self) -> int:
        return pc_of(self.group, self.actor)

    @property
    def kind(self) -> int:
        return int(self.group.view.meta.who["kind"][self.actor])

    @property
    def idle(self) -> bool:
        return self.pc == self.group.design.idle[self.kind]

    def took(self, steps: list[Done]) -> None:
        """Enter steps of the actor."""
        self.work.round(steps)
        self.last = steps[-1] if steps else self.last
        self.told_no = self.told_no or any(step.outcome == E_SIGBUS for step in steps)


class Conversions:
    """The actors of any group of guest_memfd. parts: the peers."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts

    def order(
        self,
        group: Group,
        actor: int,
        op: int,
        page: int,
        *,
        request: str,
        deadline: Deadline,
        until: tuple[int, ...] = (),
        hold_s: float = 0.0,
    ) -> Suspending[OrderResult]:
        """Let the actor start (op, page), once per request, and run its thread until it is idle, or at one of `until`.
        An order that an earlier call left unfinished goes on. hold_s: seconds, at least, that direct I/O is in flight.

        Raises StatusError if the rules do not allow the start, or the actor has not finished another order.
        """
        one = _Order(group, actor, deadline, until, hold_s)
        return (yield from self._alone(one, op, page, request))

    def release(self, group: Group, actor: int, request: str, deadline: Deadline) -> Suspending[OrderResult]:
        """The VMM ends a mapping for DMA, or somebody reads a pipe. Raises StatusError if there is neither."""
        one = _Order(group, actor, deadline)
        group.refresh()
        begun = bool(request) and group.store.reply(group.name, request) is not None
        if not begun and one.pc not in RELEASED:
            raise StatusError(
                grpc.StatusCode.FAILED_PRECONDITION,
                "NOT_ENABLED",
                f"actor {actor} has nothing that its VMM may end",
                value=group.design.rules[one.pc].name,
                allowed=", ".join(group.design.rules[pc].name for pc in RELEASED),
                cause="it has no pin yet, or the VMM ends it as it converts the pages (the policy's iommu)",
            )
        return (yield from self._alone(one, NOTHING, 0, request))

    def _alone(self, one: _Order, op: int, page: int, request: str) -> Suspending[OrderResult]:
        """Run an order once no other call of this process runs its actor."""
        key = of_vcpu(one.group, one.actor)
        while not scheduler.DEFAULT.hold(key):
            yield Wait(one.deadline.left, behind=key)
            if one.deadline.over:
                scheduler.DEFAULT.wake_next(key)
                return one.work.end(OUTCOME_WAITS, self.parts.wait_of(one.group.name, one.actor))
        try:
            one.group.refresh()
            self._start(one, op, page, request)
            yield from self._run(one)
            return one.work
        finally:
            scheduler.DEFAULT.release(key, wake_all=one.work.outcome != OUTCOME_WAITS)

    def _start(self, one: _Order, op: int, page: int, request: str) -> None:
        """Take the first step, unless it was taken for this request, or for the same order by an earlier call."""
        group, actor, rules = one.group, one.actor, one.group.design.rules
        if request and (known := group.known(request)) is not None:
            one.took(known)
            return
        mine = group.view.live.actor[actor]
        if not one.idle and one.pc not in RELEASED:
            if one.kind == VCPU and (mine.op, mine.page) != (op, page):
                raise busy(f"vCPU {actor}", f"{OPS[mine.op]} page {mine.page}", "to repeat that, or another vCPU")
            if one.kind != VCPU:
                raise busy(
                    f"actor {actor}", f"{rules[one.pc].name}, page {mine.page}", "to repeat it with its request id"
                )
            return
        if not one.idle and op != NOTHING:
            raise busy(f"actor {actor}", f"{rules[one.pc].name}, page {mine.page}", "to release it first")
        steps = group.burst(actor, op, page, most=1, request=request)
        if steps and steps[0].outcome < 0:
            raise refused(group, actor, steps[0])
        one.took(steps)

    def _run(self, one: _Order) -> Suspending[OrderResult]:
        """Run the actor's thread until it is idle or at one of `until`, or the deadline."""
        group, actor, pause, wait, held = one.group, one.actor, FIRST_PAUSE_S, None, False
        while not one.idle and one.pc not in one.until:
            pc, steps = one.pc, list[Done]()
            if pc == DMA_END and not held:
                held = yield from self._in_flight(one)
            if one.deadline.over:
                return one.work.end(OUTCOME_WAITS, wait or self.parts.wait_of(group.name, actor))
            if group.runs(pc):
                one.told_no = one.told_no or (one.kind == VCPU and group.view.live.task[actor].back == REFUSED)
                steps = group.burst(actor, most=1)
                polls = not steps or steps[-1].outcome < 0 or (pc, steps[-1].outcome) in ROUNDS[group.design.name]
                if polls and pc == VMM_UNMAPPED:
                    yield from self._unmap(one)
            else:
                steps, wait = yield from self.parts.run(group, actor, one.deadline.slice())
                polls = not steps and wait is None
            one.took([step for step in steps if step.outcome > 0])
            if polls:
                yield one.deadline.pause(pause, bell(group.name))
                pause = min(2 * pause, LONGEST_PAUSE_S)
                group.refresh()
        return one.work.end(_outcome(one))

    def _in_flight(self, one: _Order) -> Suspending[bool]:
        """Let direct I/O be in flight for as long as was asked. Once started, it and the unpin complete even if the
        caller disconnects, unless the device never answers. Returns True."""
        end = time.monotonic() + one.hold_s
        while (left := end - time.monotonic()) > 0:
            yield Wait(left)
        one.deadline = one.deadline if one.group.view.meta.who["stuck"][one.actor] else NO_DEADLINE
        return True

    def _unmap(self, one: _Order) -> Suspending[None]:
        """The VMM ends those of its mappings for DMA that it is asked to end."""
        for t in range(len(one.group.view.meta.who)):
            if pc_of(one.group, t) == DMA_ASKED:
                steps = one.group.burst(t, most=1)
                if steps and steps[0].outcome > 0:
                    one.work.round(steps)
                    one.work.round((yield from self.parts.run(one.group, t, one.deadline.slice()))[0])


def io_error(work: OrderResult) -> int:
    """Returns the errno of an order for direct I/O, or 0: its pin was refused, or the hardware refused its accesses."""
    if work.outcome == OUTCOME_REFUSED:
        return errno.EFAULT
    return errno.EIO if any(step.pc == DMA_END and step.outcome > OK for step in work.steps) else 0


def _outcome(one: _Order) -> Outcome.ValueType:
    """Returns how an order ended whose thread is where it should be. A conversion whose end was not seen here is
    done: the host went on with it by itself."""
    last = one.last
    if one.told_no:
        return OUTCOME_REFUSED
    if last and one.kind == VCPU and last.outcome not in (DONE, FAULT):
        return OUTCOME_FATAL
    if last and one.kind == VMM and last.pc != VMM_IDLE and last.outcome != SUCCESS:
        return OUTCOME_REFUSED
    return OUTCOME_DONE
