"""A secure guest's boot, from its owner's plain image to a processor that runs."""

from __future__ import annotations

from services.common.scheduler import Suspending
from services.guest.orders import Deadline, OrderResult
from services.guest.peers import Parts
from services.guest.vcpu import Machine
from ultrafolio.model.layout import PAGE_SIZE, TOUCH, VCPU
from ultrafolio.rpc.client import request_id
from ultrafolio.rpc.v1 import guest_pb2 as pb
from ultrafolio.rpc.v1 import host_mm_pb2, ultravisor_pb2
from ultrafolio.rpc.v1.common_pb2 import OUTCOME_DONE, OUTCOME_REFUSED
from ultrafolio.state.turn import Group
from ultrafolio.uvcall import image
from ultrafolio.uvcall.calls import RC_EXECUTED

CHUNK = 256 * PAGE_SIZE
"""Bytes of an image in one message to the host."""
PREFIX = 2
"""Pages of the prefix area, which SIE entry needs; here the first pages of the image."""


class Boot:
    """Boots guests: encrypts as the owner, and touches page by page as the vCPU, so that the host unpacks."""

    def __init__(self, parts: Parts, machine: Machine) -> None:
        self._parts, self._machine = parts, machine

    def boot(
        self, group: Group, actor: int, page: int, plain: bytes, deadline: Deadline
    ) -> Suspending[tuple[OrderResult, pb.BootResponse]]:
        """Boot the machine of vCPU `actor` from the image `plain`, whose first page is `page` of the group. The machine
        needs two pages even for an image of one. If the ultravisor refuses or the deadline passes, the guest is
        destroyed. Raises InputError if `plain` is not whole pages."""
        key = self._parts.ultravisor.HostKey(ultravisor_pb2.HostKeyRequest()).key
        sealed = image.seal(plain, [key], page * PAGE_SIZE)
        self._machine.enter(group, actor, TOUCH, page)
        who, vm = group.view.meta.who, int(group.view.meta.who["vm"][actor])
        cpus = sum(kind == VCPU and mine == vm for kind, mine in zip(who["kind"], who["vm"], strict=True))
        wanted = host_mm_pb2.CreateGuestRequest(
            group=group.name, vm=vm, cpus=cpus, header=sealed.header, request_id=request_id()
        )
        made = self._parts.host.CreateGuest(wanted)
        response = pb.BootResponse(configuration=made.configuration, answer=made.answer)
        if made.answer.rc != RC_EXECUTED:
            return OrderResult().end(OUTCOME_REFUSED), response
        work = yield from self._unpack(group, actor, page, sealed, deadline, response)
        if work.outcome == OUTCOME_DONE:
            begin = host_mm_pb2.StartGuestRequest(group=group.name, vm=vm, prefix=page * PAGE_SIZE)
            response.answer.CopyFrom(self._parts.host.StartGuest(begin).answer)
            if response.answer.rc != RC_EXECUTED or response.answer.interception:
                work.end(OUTCOME_REFUSED)
        if work.outcome != OUTCOME_DONE:
            self._parts.host.DestroyGuest(host_mm_pb2.DestroyGuestRequest(group=group.name, vm=vm))
            response.configuration = 0
        return work, response

    def _unpack(
        self, group: Group, actor: int, page: int, sealed: image.Sealed, deadline: Deadline, response: pb.BootResponse
    ) -> Suspending[OrderResult]:
        """Send the image to the host, then touch its pages in order, and those of the prefix area."""
        touched = OrderResult().end(OUTCOME_DONE)
        for offset in range(0, len(sealed.pages), CHUNK):
            some = sealed.pages[offset : offset + CHUNK]
            first, count = page + offset // PAGE_SIZE, len(some) // PAGE_SIZE
            request = host_mm_pb2.UnpackRequest(
                group=group.name, actor=actor, page=first, image=some, tweak=sealed.tweak, offset=offset
            )
            self._parts.host.Unpack(request)
            for one in range(first, first + count):
                touched = yield from self._touch(group, actor, one, deadline, touched)
                if touched.outcome != OUTCOME_DONE:
                    return touched
                response.pages += 1
        for one in range(page, min(page + PREFIX, int(group.view.meta.cfg["pages"][0]))):
            if touched.outcome == OUTCOME_DONE:
                touched = yield from self._touch(group, actor, one, deadline, touched)
        return touched

    def _touch(
        self, group: Group, actor: int, page: int, deadline: Deadline, before: OrderResult
    ) -> Suspending[OrderResult]:
        work, _ = yield from self._machine.touch(group, actor, (page, 0, 0, b""), deadline)
        before.round(work.steps)
        return before.end(work.outcome, work.wait)
