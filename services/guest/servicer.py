"""Guests over gRPC: instructions, devices, workloads, reboot."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from functools import partial
from typing import Any, TypeVar

import grpc
from grpc import ServicerContext as Context

from services.common import memory, scheduler
from services.common.groups import (
    Groups,
    actor_of,
    any_actor_of,
    bounded,
    check_sections,
    exists,
    meta_of,
    of_design,
    operation_of,
    page_of,
)
from services.common.scheduler import Suspending, Wait, suspends
from services.guest import workload
from services.guest.boot import Boot
from services.guest.conversions import PINNED, Conversions, io_error
from services.guest.deduplication import Deduplicator, kept_as
from services.guest.devices import Devices
from services.guest.orders import Deadline, OrderResult
from services.guest.peers import Parts
from services.guest.vcpu import Machine, bell
from ultrafolio.model.designs import GUEST_MEMFD, S390
from ultrafolio.model.guest_memfd.layout import HOLE, SPLICE, VMM
from ultrafolio.model.layout import DISK, INTERRUPT, PAGE_SIZE, PIN, REBOOT, RING, SHARE, TOUCH, UNSHARE, VCPU
from ultrafolio.rpc.errors import StatusError
from ultrafolio.rpc.messages import step_to
from ultrafolio.rpc.v1 import guest_pb2 as pb
from ultrafolio.rpc.v1 import guest_pb2_grpc
from ultrafolio.state.events import Made, encode
from ultrafolio.state.store import Store
from ultrafolio.state.turn import Group

M = TypeVar("M")
BATCH = 64
MOST_BATCH = 1024
"""Touches of a workload in one message to the ultravisor, which handles messages one at a time."""
MOST_PAGES = 1_000_000
"""Pages of a workload that are listed."""
LONGEST_HOLD_US = 60_000_000


class Guest(guest_pb2_grpc.GuestServiceServicer):
    """store: with the guests' rights;  parts: the peers;  machine, devices: run the guests."""

    def __init__(self, store: Store, parts: Parts, machine: Machine, devices: Devices) -> None:
        self.store, self.parts, self.machine, self.devices = store, parts, machine, devices
        self.groups = Groups(store, lambda name, meta, _: Group(store, name, meta, "guest", parts.ask(name)))
        self.starting, self.conversions = Boot(parts, machine), Conversions(parts)
        self._deduplicated = Deduplicator(store)
        self.machine_of = self.groups.machine_of

    @suspends
    def Touch(self, request: pb.TouchRequest, context: Context) -> Suspending[pb.TouchResponse]:
        group, actor, page = self._order(request, context, (VCPU,), "vCPUs")
        if request.offset + max(request.length, len(request.data)) > PAGE_SIZE:
            raise StatusError(
                grpc.StatusCode.INVALID_ARGUMENT,
                "BEYOND_THE_PAGE",
                "offset and length",
                allowed="within 4,096 bytes",
                value=f"{request.offset}, {max(request.length, len(request.data))}",
            )
        deadline = Deadline.of(context)

        def order(data: bytes = request.data) -> Suspending[pb.TouchResponse]:
            if group.design is GUEST_MEMFD:
                _without_content(group.name, request.length or request.data)
                named = request.request_id
                work = yield from self.conversions.order(group, actor, TOUCH, page, request=named, deadline=deadline)
                return _filled(pb.TouchResponse(exceptions=work.exceptions), work)
            access = page, request.offset, request.length, data
            work, read = yield from self.machine.touch(group, actor, access, deadline)
            return _filled(pb.TouchResponse(data=read, exceptions=work.exceptions), work)

        name, again = request.request_id, partial(order, b"") if request.length else None
        return (yield from self._deduplicated(group.name, name, deadline, pb.TouchResponse, order, again))

    @suspends
    def Share(self, request: pb.ShareRequest, context: Context) -> Suspending[pb.ShareResponse]:
        return (yield from self._instruct(request, context, SHARE, pb.ShareResponse))

    @suspends
    def Unshare(self, request: pb.UnshareRequest, context: Context) -> Suspending[pb.UnshareResponse]:
        return (yield from self._instruct(request, context, UNSHARE, pb.UnshareResponse))

    @suspends
    def DirectIo(self, request: pb.DirectIoRequest, context: Context) -> Suspending[pb.DirectIoResponse]:
        if request.hold_us > LONGEST_HOLD_US:
            raise StatusError(
                grpc.StatusCode.INVALID_ARGUMENT,
                "HELD_TOO_LONG",
                "hold_us",
                value=request.hold_us,
                allowed=f"0 to {LONGEST_HOLD_US} microseconds",
            )
        group, disk, page = self._order(request, context, (DISK,), "disks")
        deadline, name = Deadline.of(context), request.request_id
        offset = group.view.meta.origin + page * PAGE_SIZE

        def order() -> Suspending[pb.DirectIoResponse]:
            if group.design is GUEST_MEMFD:
                work = yield from self.conversions.order(
                    group, disk, TOUCH, page, request=name, deadline=deadline, hold_s=request.hold_us / 1e6
                )
                return _filled(pb.DirectIoResponse(error=io_error(work)), self._let_go(group, work))
            work, error = yield from self.devices.direct_io(
                group, disk, page, read=request.read, hold_us=request.hold_us, request=name, deadline=deadline
            )
            return _filled(pb.DirectIoResponse(offset=offset, error=error), self._let_go(group, work))

        return (yield from self._deduplicated(group.name, name, deadline, pb.DirectIoResponse, order))

    @suspends
    def Configure(self, request: pb.ConfigureRequest, context: Context) -> Suspending[pb.ConfigureResponse]:
        group, ring, page = self._order(
            request, context, (RING, PIN, SPLICE), "virtio devices and other long-term pins"
        )
        deadline, name = Deadline.of(context), request.request_id

        def order() -> Suspending[pb.ConfigureResponse]:
            if group.design is GUEST_MEMFD:
                work = yield from self.conversions.order(
                    group, ring, TOUCH, page, request=name, deadline=deadline, until=PINNED
                )
            else:
                work = yield from self.devices.configure(group, ring, page, name, deadline)
            return _filled(pb.ConfigureResponse(), work)

        return (yield from self._deduplicated(group.name, name, deadline, pb.ConfigureResponse, order))

    @suspends
    def Convert(self, request: pb.ConvertRequest, context: Context) -> Suspending[pb.ConvertResponse]:
        op = UNSHARE if request.private else SHARE
        return (yield from self._converts(request, context, (VMM,), "VMMs", op, pb.ConvertResponse))

    @suspends
    def PunchHole(self, request: pb.PunchHoleRequest, context: Context) -> Suspending[pb.PunchHoleResponse]:
        return (yield from self._converts(request, context, (HOLE,), "holes", TOUCH, pb.PunchHoleResponse))

    def _converts(
        self, request: Any, context: Context, kinds: tuple[int, ...], names: str, op: int, shape: type[M]
    ) -> Suspending[M]:
        """Let an actor of the VMM do something once per request id. Returns a `shape` message with its result."""
        group, actor, page = self._order(request, context, kinds, names)
        deadline, name = Deadline.of(context), request.request_id

        def order() -> Suspending[M]:
            work = yield from self.conversions.order(group, actor, op, page, request=name, deadline=deadline)
            return _filled(shape(), self._let_go(group, work))

        return (yield from self._deduplicated(group.name, name, deadline, shape, order))

    @suspends
    def Release(self, request: pb.ReleaseRequest, context: Context) -> Suspending[pb.ReleaseResponse]:
        group = self.groups[request.group]
        of_design(group.view.meta, group.name, GUEST_MEMFD)
        actor = actor_of(group.view.meta, request.actor, (PIN, SPLICE), "long-term pins and pipes")
        deadline, name = Deadline.of(context), request.request_id

        def order() -> Suspending[pb.ReleaseResponse]:
            work = yield from self.conversions.release(group, actor, name, deadline)
            return _filled(pb.ReleaseResponse(), self._let_go(group, work))

        return (yield from self._deduplicated(group.name, name, deadline, pb.ReleaseResponse, order))

    @suspends
    def Interrupt(self, request: pb.InterruptRequest, context: Context) -> Suspending[pb.InterruptResponse]:
        group, device, page = self._order(request, context, (INTERRUPT,), "adapter interrupts")
        deadline, name = Deadline.of(context), request.request_id

        def order() -> Suspending[pb.InterruptResponse]:
            work = yield from self.devices.interrupt(group, device, page, name, deadline)
            return _filled(pb.InterruptResponse(), self._let_go(group, work))

        return (yield from self._deduplicated(group.name, name, deadline, pb.InterruptResponse, order))

    @suspends
    def Reboot(self, request: pb.RebootRequest, context: Context) -> Suspending[pb.RebootResponse]:
        group = self.groups[request.group]
        actor = actor_of(group.view.meta, request.actor, (REBOOT,), "reboot actors")
        deadline, name = Deadline.of(context), request.request_id

        def order() -> Suspending[pb.RebootResponse]:
            work = yield from self.devices.reboot(group, actor, request.shutdown, name, deadline)
            return _filled(pb.RebootResponse(), self._let_go(group, work))

        return (yield from self._deduplicated(group.name, name, deadline, pb.RebootResponse, order))

    @suspends
    def RunWorkload(self, request: pb.RunWorkloadRequest, context: Context) -> Iterator[pb.RunWorkloadResponse | Wait]:
        group = self.groups[request.group]
        meta = group.view.meta
        of_design(meta, group.name, S390)
        actor = actor_of(meta, request.actor, (VCPU,), "vCPUs")
        bounded("pages", len(request.pages), MOST_PAGES)
        bounded("batch", request.batch, MOST_BATCH)
        pages = array("H", (page_of(meta, page) for page in request.pages))
        if request.recording:
            pages = yield from workload.unpacked_alone(request.recording, int(meta.cfg["pages"][0]), request.touches)
        batch, longest_s = request.batch or BATCH, request.patience_us / 1e6
        # of the listed pages, the decoded request holds four bytes each
        with memory.HELD.during(pages.itemsize * len(pages) + 4 * len(request.pages)):
            for news in workload.run(self.machine, group, actor, pages, batch, Deadline.of(context), longest_s):
                yield news if isinstance(news, Wait) else pb.RunWorkloadResponse(total=len(pages), **news._asdict())

    @suspends
    def Boot(self, request: pb.BootRequest, context: Context) -> Suspending[pb.BootResponse]:
        group, actor, page = self._order(request, context, (VCPU,), "vCPUs")
        of_design(group.view.meta, group.name, S390)
        page_of(group.view.meta, page, -(-len(request.image) // PAGE_SIZE))
        deadline = Deadline.of(context)

        def order() -> Suspending[pb.BootResponse]:
            work, answer = yield from self.starting.boot(group, actor, page, request.image, deadline)
            return _filled(answer, work)

        return (yield from self._deduplicated(group.name, request.request_id, deadline, pb.BootResponse, order))

    def Step(self, request: pb.GuestServiceStepRequest, context: Context) -> pb.GuestServiceStepResponse:
        group = self.groups[request.group]
        actor, page = any_actor_of(group.view.meta, request.actor), page_of(group.view.meta, request.page)
        name = request.request_id
        if name:
            group.known(name)  # raises Reused where an instruction that still waits has the id
            name = kept_as(name)
        done = group.burst(actor, operation_of(request.op), page, most=1, request=name)
        return pb.GuestServiceStepResponse(step=step_to(done[-1]) if done else None)

    def Prepare(self, request: pb.GuestServicePrepareRequest, context: Context) -> pb.GuestServicePrepareResponse:
        sections = dict(request.sections)
        check_sections(meta_of(self.store, request.group), sections, "guest")
        if not self.store.create(request.group, sections, encode(Made("guest", sections))):
            raise exists(request.group)
        return pb.GuestServicePrepareResponse()

    def _instruct(self, request: Any, context: Context, op: int, shape: type[M]) -> Suspending[M]:
        """Run an instruction (`op`) of a vCPU once per request id. Returns a `shape` message with its result."""
        group, actor, page = self._order(request, context, (VCPU,), "vCPUs")
        deadline, name = Deadline.of(context), request.request_id

        def order() -> Suspending[M]:
            if group.design is GUEST_MEMFD:
                work = yield from self.conversions.order(group, actor, op, page, request=name, deadline=deadline)
                return _filled(shape(), work)
            self.machine.enter(group, actor, op, page)
            work = yield from self.machine.instruct(group, actor, op, page, name, deadline, OrderResult())
            return _filled(shape(), work)

        return (yield from self._deduplicated(group.name, name, deadline, shape, order))

    def _let_go(self, group: Group, work: OrderResult) -> OrderResult:
        """Resume the calls that wait in the group, since the ended order may have released pages. Returns `work`."""
        scheduler.DEFAULT.wake(bell(group.name))
        return work

    def _order(self, request: Any, context: Context, kinds: tuple[int, ...], names: str) -> tuple[Group, int, int]:
        """The group, actor and page of an order to an actor of one of these kinds."""
        group = self.groups[request.group]
        actor, count = actor_of(group.view.meta, request.actor, kinds, names), 1
        if VCPU not in kinds:
            count = int(group.refresh().live.actor[actor].n)
        return group, actor, page_of(group.view.meta, request.page, count)


def _without_content(group: str, bytes_asked: Any) -> None:
    """Raises StatusError if a touch of a guest_memfd group asks for bytes."""
    if bytes_asked:
        raise StatusError(
            grpc.StatusCode.FAILED_PRECONDITION,
            "NO_CONTENT",
            f"group {group}: bytes of a page of the design {GUEST_MEMFD.name}",
            allowed="a touch without length and data",
            cause="of the content the design has one bit, whether it was lost",
        )


def _filled(message: M, work: OrderResult) -> M:
    """Fill the common fields of an order's answer. Returns it."""
    answer: Any = message
    answer.steps.extend(map(step_to, work.steps))
    answer.outcome = work.outcome
    if work.wait is not None:
        answer.wait.CopyFrom(work.wait)
    return message
