"""Guests over gRPC: instructions, devices, workloads, reboot."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar

import grpc

from services.common import parking
from services.common.groups import (
    Groups,
    actor_of,
    any_actor_of,
    bounded,
    check_sections,
    exists,
    in_words,
    meta_of,
    page_of,
)
from services.common.parking import Pausing, Wait, parks
from services.guest import workload
from services.guest.boot import Boot
from services.guest.devices import Devices
from services.guest.once import Once
from services.guest.orders import Patience, Work
from services.guest.peers import PAGE, Parts
from services.guest.vcpu import Machine, bell, of_guest
from ultrafolio.model.layout import DISK, INTERRUPT, PIN, REBOOT, RING, SHARE, UNSHARE, VCPU
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
"""Touches of a workload in one message to the ultravisor: its answer is read before others' calls are."""
MOST_PAGES = 1_000_000
"""Pages of a workload that are listed."""
LONGEST_HOLD_US = 60_000_000


class Guest(guest_pb2_grpc.GuestServiceServicer):
    """store: with the guests' rights;  parts: the way to the other parts;  machine, devices: what runs the guests."""

    def __init__(self, store: Store, parts: Parts, machine: Machine, devices: Devices) -> None:
        self.store, self.parts, self.machine, self.devices = store, parts, machine, devices
        self.groups = Groups(store, lambda name, meta: Group(store, name, meta, "guest", parts.ask(name), of_guest))
        self.starting = Boot(parts, machine)
        self._once = Once(store)
        self.machine_of = self.groups.machine_of

    @parks
    def Touch(self, request: pb.TouchRequest, context: Any) -> Pausing[pb.TouchResponse]:
        group, actor, page = self._order(request, context, (VCPU,), "vCPUs")
        if request.offset + max(request.length, len(request.data)) > PAGE:
            raise StatusError(
                grpc.StatusCode.INVALID_ARGUMENT,
                "BEYOND_THE_PAGE",
                "offset and length",
                allowed="within 4,096 bytes",
                value=f"{request.offset}, {max(request.length, len(request.data))}",
            )
        access = (page, request.offset, request.length, request.data)
        patience = Patience.of(context)

        def order() -> Pausing[pb.TouchResponse]:
            work, data = yield from self.machine.touch(group, actor, access, patience)
            return _filled(pb.TouchResponse(data=data, exceptions=work.exceptions), work)

        with in_words():
            if not request.data:
                return (yield from order())
            return (yield from self._once(group.name, request.request_id, patience, pb.TouchResponse, order))

    @parks
    def Share(self, request: pb.ShareRequest, context: Any) -> Pausing[pb.ShareResponse]:
        return (yield from self._instruct(request, context, SHARE, pb.ShareResponse))

    @parks
    def Unshare(self, request: pb.UnshareRequest, context: Any) -> Pausing[pb.UnshareResponse]:
        return (yield from self._instruct(request, context, UNSHARE, pb.UnshareResponse))

    @parks
    def DirectIo(self, request: pb.DirectIoRequest, context: Any) -> Pausing[pb.DirectIoResponse]:
        if request.hold_us > LONGEST_HOLD_US:
            raise StatusError(
                grpc.StatusCode.INVALID_ARGUMENT,
                "HELD_TOO_LONG",
                "hold_us",
                value=request.hold_us,
                allowed=f"0 to {LONGEST_HOLD_US} microseconds",
            )
        group, disk, page = self._order(request, context, (DISK,), "disks")
        patience, name = Patience.of(context), request.request_id
        offset = group.view.meta.origin + page * PAGE

        def order() -> Pausing[pb.DirectIoResponse]:
            work, error = yield from self.devices.direct_io(
                group, disk, page, read=request.read, hold_us=request.hold_us, request=name, patience=patience
            )
            return _filled(pb.DirectIoResponse(offset=offset, error=error), self._let_go(group, work))

        with in_words():
            return (yield from self._once(group.name, name, patience, pb.DirectIoResponse, order))

    @parks
    def Configure(self, request: pb.ConfigureRequest, context: Any) -> Pausing[pb.ConfigureResponse]:
        group, ring, page = self._order(request, context, (RING, PIN), "virtio devices and other long-term pins")
        patience, name = Patience.of(context), request.request_id

        def order() -> Pausing[pb.ConfigureResponse]:
            work = yield from self.devices.configure(group, ring, page, name, patience)
            return _filled(pb.ConfigureResponse(), work)

        with in_words():
            return (yield from self._once(group.name, name, patience, pb.ConfigureResponse, order))

    @parks
    def Interrupt(self, request: pb.InterruptRequest, context: Any) -> Pausing[pb.InterruptResponse]:
        group, device, page = self._order(request, context, (INTERRUPT,), "adapter interrupts")
        patience, name = Patience.of(context), request.request_id

        def order() -> Pausing[pb.InterruptResponse]:
            work = yield from self.devices.interrupt(group, device, page, name, patience)
            return _filled(pb.InterruptResponse(), self._let_go(group, work))

        with in_words():
            return (yield from self._once(group.name, name, patience, pb.InterruptResponse, order))

    @parks
    def Reboot(self, request: pb.RebootRequest, context: Any) -> Pausing[pb.RebootResponse]:
        group = self.groups[request.group]
        actor = actor_of(group.view.meta, request.actor, (REBOOT,), "reboot actors")
        patience, name = Patience.of(context), request.request_id

        def order() -> Pausing[pb.RebootResponse]:
            work = yield from self.devices.reboot(group, actor, request.shutdown, name, patience)
            return _filled(pb.RebootResponse(), self._let_go(group, work))

        with in_words():
            return (yield from self._once(group.name, name, patience, pb.RebootResponse, order))

    @parks
    def RunWorkload(self, request: pb.RunWorkloadRequest, context: Any) -> Iterator[pb.RunWorkloadResponse | Wait]:
        group = self.groups[request.group]
        meta = group.view.meta
        actor = actor_of(meta, request.actor, (VCPU,), "vCPUs")
        bounded("pages", len(request.pages), MOST_PAGES)
        bounded("batch", request.batch, MOST_BATCH)
        pages = [page_of(meta, page) for page in request.pages]
        if request.recording:
            pages = yield from workload.unpacked_alone(request.recording, int(meta.cfg["pages"][0]), request.touches)
        batch, longest_s = request.batch or BATCH, request.patience_us / 1e6
        with in_words():
            for news in workload.run(self.machine, group, actor, pages, batch, Patience.of(context), longest_s):
                yield news if isinstance(news, Wait) else pb.RunWorkloadResponse(total=len(pages), **news._asdict())

    @parks
    def Boot(self, request: pb.BootRequest, context: Any) -> Pausing[pb.BootResponse]:
        group, actor, page = self._order(request, context, (VCPU,), "vCPUs")
        page_of(group.view.meta, page, -(-len(request.image) // PAGE))
        patience = Patience.of(context)

        def order() -> Pausing[pb.BootResponse]:
            work, answer = yield from self.starting.boot(group, actor, page, request.image, patience)
            return _filled(answer, work)

        with in_words():
            return (yield from self._once(group.name, request.request_id, patience, pb.BootResponse, order))

    def Step(self, request: pb.GuestServiceStepRequest, context: Any) -> pb.GuestServiceStepResponse:
        group = self.groups[request.group]
        actor, page = any_actor_of(group.view.meta, request.actor), page_of(group.view.meta, request.page)
        with in_words():
            done = group.burst(actor, request.op, page, most=1, request=request.request_id)
        return pb.GuestServiceStepResponse(step=step_to(done[-1]) if done else None)

    def Prepare(self, request: pb.GuestServicePrepareRequest, context: Any) -> pb.GuestServicePrepareResponse:
        sections = dict(request.sections)
        with in_words():
            check_sections(meta_of(self.store, request.group), sections, "guest")
            if not self.store.create(request.group, sections, encode(Made("guest", sections))):
                raise exists(request.group)
        return pb.GuestServicePrepareResponse()

    def _instruct(self, request: Any, context: Any, op: int, shape: type[M]) -> Pausing[M]:
        group, actor, page = self._order(request, context, (VCPU,), "vCPUs")
        patience, name = Patience.of(context), request.request_id

        def order() -> Pausing[M]:
            self.machine.enter(group, actor, op, page)
            work = yield from self.machine.instruct(group, actor, op, page, name, patience, Work())
            return _filled(shape(), work)

        with in_words():
            return (yield from self._once(group.name, name, patience, shape, order))

    def _let_go(self, group: Group, work: Work) -> Work:
        """An order has ended that may have let go of pages: who waits for some of the group looks again."""
        parking.HERE.ring(bell(group.name))
        return work

    def _order(self, request: Any, context: Any, kinds: tuple[int, ...], names: str) -> tuple[Group, int, int]:
        """The group, actor and page of an order to an actor of one of these kinds."""
        group = self.groups[request.group]
        actor, count = actor_of(group.view.meta, request.actor, kinds, names), 1
        if VCPU not in kinds:
            with in_words():
                count = int(group.refresh().live.actor[actor].n)
        return group, actor, page_of(group.view.meta, request.page, count)


def _filled(message: M, work: Work) -> M:
    """The answer with what every order says of its work."""
    answer: Any = message
    answer.steps.extend(map(step_to, work.steps))
    answer.outcome = work.outcome
    if work.wait is not None:
        answer.wait.CopyFrom(work.wait)
    return message
