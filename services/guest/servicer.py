"""Guests over gRPC: instructions, devices, workloads, reboot."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import grpc

from services import identity
from services.groups import Groups, actor_of, any_actor_of, check_sections, exists, in_words, meta_of, page_of
from services.guest.machine import Machine, Patience, Work, of_guest
from services.guest.part import PAGE, Parts
from ultrafolio.model.layout import DISK, REBOOT, RING, SHARE, TOUCH, UNSHARE, VCPU
from ultrafolio.rpc.errors import StatusError
from ultrafolio.rpc.messages import step_to
from ultrafolio.rpc.v1 import guest_pb2 as pb
from ultrafolio.rpc.v1 import guest_pb2_grpc
from ultrafolio.state.burst import Group
from ultrafolio.state.events import Made, encode
from ultrafolio.state.store import Store

BATCH = 64
DRIVERS = ("guest", "lab")


class Guest(guest_pb2_grpc.GuestServiceServicer):
    """store: with the guests' rights;  parts: the way to the other parts;  machine: what runs the guests."""

    def __init__(self, store: Store, parts: Parts, machine: Machine) -> None:
        self.store, self.parts, self.machine = store, parts, machine
        self.groups = Groups(store, lambda name, meta: Group(store, name, meta, "guest", parts.ask(name), of_guest))

    def Touch(self, request: pb.TouchRequest, context: Any) -> pb.TouchResponse:
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
        vm, patience, all_work = int(group.view.meta.who["vm"][actor]), _patience(context), Work()
        with in_words():
            while True:
                (seen,) = self.parts.access(group.name, vm, [access])
                if not seen.exception or all_work.wait:
                    break
                name = f"{request.request_id}/{len(all_work.steps)}" if request.request_id else ""
                work = self.machine.instruct(group, actor, TOUCH, page, name, patience)
                all_work.steps += work.steps
                all_work.wait = work.wait
                if patience.over:
                    break
        return pb.TouchResponse(
            data=seen.data, steps=map(step_to, all_work.steps), wait=all_work.wait, exceptions=all_work.exceptions
        )

    def Share(self, request: pb.ShareRequest, context: Any) -> pb.ShareResponse:
        work = self._instruct(request, context, SHARE)
        return pb.ShareResponse(steps=map(step_to, work.steps), wait=work.wait)

    def Unshare(self, request: pb.UnshareRequest, context: Any) -> pb.UnshareResponse:
        work = self._instruct(request, context, UNSHARE)
        return pb.UnshareResponse(steps=map(step_to, work.steps), wait=work.wait)

    def DirectIo(self, request: pb.DirectIoRequest, context: Any) -> pb.DirectIoResponse:
        group, actor, page = self._order(request, context, (DISK,), "disks")
        with in_words():
            work, error = self.machine.direct_io(
                group,
                actor,
                page,
                read=request.read,
                hold_us=request.hold_us,
                request=request.request_id,
                patience=_patience(context),
            )
        offset = group.view.meta.origin + page * PAGE
        return pb.DirectIoResponse(steps=map(step_to, work.steps), wait=work.wait, offset=offset, error=error)

    def Configure(self, request: pb.ConfigureRequest, context: Any) -> pb.ConfigureResponse:
        group, actor, page = self._order(request, context, (RING,), "virtio devices")
        with in_words():
            work = self.machine.configure(group, actor, page, request.request_id, _patience(context))
        return pb.ConfigureResponse(steps=map(step_to, work.steps), wait=work.wait)

    def Reboot(self, request: pb.RebootRequest, context: Any) -> pb.RebootResponse:
        identity.require(context, DRIVERS)
        group = self.groups[request.group]
        actor = actor_of(group.view.meta, request.actor, (REBOOT,), "reboot actors")
        with in_words():
            work = self.machine.reboot(group, actor, request.shutdown, request.request_id, _patience(context))
        return pb.RebootResponse(steps=map(step_to, work.steps), wait=work.wait)

    def RunWorkload(self, request: pb.RunWorkloadRequest, context: Any) -> Iterator[pb.RunWorkloadResponse]:
        identity.require(context, DRIVERS)
        group = self.groups[request.group]
        actor = actor_of(group.view.meta, request.actor, (VCPU,), "vCPUs")
        for page in request.pages:
            page_of(group.view.meta, page)
        vm, done, exceptions = int(group.view.meta.who["vm"][actor]), 0, 0
        with in_words():
            while done < len(request.pages):
                batch = request.pages[done : done + (request.batch or BATCH)]
                seen = self.parts.access(group.name, vm, [(page, 0, 0, b"") for page in batch])
                through = next((i for i, one in enumerate(seen) if one.exception), len(batch))
                done += through
                if through < len(batch):
                    patience = _limited(context, request.patience_us / 1e6)
                    work = self.machine.instruct(group, actor, TOUCH, batch[through], "", patience)
                    exceptions += work.exceptions
                    if work.wait:
                        yield pb.RunWorkloadResponse(done=done, exceptions=exceptions, wait=work.wait)
                        return
                yield pb.RunWorkloadResponse(done=done, exceptions=exceptions)

    def Step(self, request: pb.GuestServiceStepRequest, context: Any) -> pb.GuestServiceStepResponse:
        identity.require(context, ("lab",))
        group = self.groups[request.group]
        actor, page = any_actor_of(group.view.meta, request.actor), page_of(group.view.meta, request.page)
        with in_words():
            done = group.burst(actor, request.op, page, most=1, request=request.request_id)
        return pb.GuestServiceStepResponse(step=step_to(done[-1]) if done else None)

    def Prepare(self, request: pb.GuestServicePrepareRequest, context: Any) -> pb.GuestServicePrepareResponse:
        identity.require(context, ("lab",))
        sections = dict(request.sections)
        with in_words():
            check_sections(meta_of(self.store, request.group), sections, "guest")
            if not self.store.create(request.group, sections, encode(Made("guest", sections))):
                raise exists(request.group)
        return pb.GuestServicePrepareResponse()

    def _instruct(self, request: Any, context: Any, op: int) -> Work:
        group, actor, page = self._order(request, context, (VCPU,), "vCPUs")
        with in_words():
            return self.machine.instruct(group, actor, op, page, request.request_id, _patience(context))

    def _order(self, request: Any, context: Any, kinds: tuple[int, ...], names: str) -> tuple[Group, int, int]:
        """The group, actor and page of an order to an actor of one of these kinds."""
        identity.require(context, DRIVERS)
        group = self.groups[request.group]
        actor = actor_of(group.view.meta, request.actor, kinds, names)
        count = 1 if VCPU in kinds else max(1, int(group.view.live.actor[actor].n))
        return group, actor, page_of(group.view.meta, request.page, count)


def _patience(context: Any) -> Patience:
    return Patience(lambda: float(context.time_remaining()), context.is_active)


def _limited(context: Any, longest_s: float) -> Patience:
    """The call's patience, or `longest_s` seconds from now if that is shorter; 0 for no limit of its own."""
    end = time.monotonic() + (longest_s or float("inf"))
    return Patience(lambda: min(float(context.time_remaining()), end - time.monotonic()), context.is_active)
