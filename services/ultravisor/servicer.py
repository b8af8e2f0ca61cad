"""The ultravisor over gRPC: control blocks, accesses, and the laboratory's injections."""

from __future__ import annotations

from typing import Any

import grpc
import numpy as np
from grpc import ServicerContext as Context

from services.common import identity, rights
from services.common.groups import (
    Groups,
    Held,
    OfDesign,
    bounded,
    check_sections,
    exists,
    machine_of,
    meta_of,
    page_of,
)
from services.common.moved import file_of
from services.ultravisor.commits import Part
from services.ultravisor.contents import Contents
from services.ultravisor.hardware import Hardware, checked
from services.ultravisor.machine import Machines
from services.ultravisor.offers import part_of
from services.ultravisor.pages import Outcome, Pages, lay_out
from ultrafolio.engine import load
from ultrafolio.model.designs import GUEST_MEMFD, S390
from ultrafolio.model.layout import PAGE_SIZE, UV
from ultrafolio.rpc.errors import StatusError
from ultrafolio.rpc.v1 import ultravisor_pb2, ultravisor_pb2_grpc
from ultrafolio.state.crossing import NotTaken
from ultrafolio.state.events import Made, encode
from ultrafolio.state.redis import RedisStore
from ultrafolio.state.sections import Meta
from ultrafolio.waits.load import interpreted

MOST_ACCESSES = 16_384
"""Accesses, or questions, in one message: the pages of the largest group."""
MOST_READ = 15 << 20
"""Bytes that one message may read: with what is beside them, the answer stays within the largest message."""


class Ultravisor(ultravisor_pb2_grpc.UltravisorServiceServicer):
    """store: with the ultravisor's rights;  contents: the machine's memory and secrets;  replica: this process's name
    among several ultravisors, "" for the only one."""

    def __init__(self, store: RedisStore, contents: Contents, replica: str = "") -> None:
        self.store, self.contents = store, contents
        self.groups = Groups(store, self._made, replica)
        self.pages = OfDesign(self.groups, Pages, S390)
        self.hardware = OfDesign(self.groups, Hardware, GUEST_MEMFD)
        self.machine = Machines(store, contents, self.pages)
        # loaded before the first question, whose deadline may be near
        interpreted()
        load.interpreted(GUEST_MEMFD)

    def _made(self, name: str, meta: Meta, held: Held) -> Pages | Hardware:
        """Returns the pages of a group, whose frames this process has from now on. A group of guest_memfd has none."""
        if meta.design is GUEST_MEMFD:
            return Hardware(held.store, name, meta)
        lone, size = self.contents.path, 2 * PAGE_SIZE * int(meta.cfg["pages"][0])
        path = file_of(lone.parent, lone, name, held, 2 * meta.origin, size)
        return Pages(held.store, self.contents.at(path), name, meta)

    def Execute(self, request: ultravisor_pb2.ExecuteRequest, context: Context) -> ultravisor_pb2.ExecuteResponse:
        caller, guest = identity.of(context), None
        if caller.role == "guest":
            guest = rights.own_machine(caller, request.vm if request.HasField("vm") else None)
        try:
            return self.machine.execute(request, guest, self._part(request, caller))
        except NotTaken:
            return ultravisor_pb2.ExecuteResponse(not_taken=True)

    def _part(self, request: ultravisor_pb2.ExecuteRequest, caller: identity.Identity) -> Part | None:
        """Returns the turn of a control block. Raises StatusError as part_of."""
        turn = request.turn
        if not turn.HasField("offer"):
            return Part(turn.token, turn.index) if turn.token else None
        return part_of(turn, caller, self.groups[request.group])

    def Access(self, request: ultravisor_pb2.AccessRequest, context: Context) -> ultravisor_pb2.AccessResponse:
        bounded("accesses", len(request.accesses), MOST_ACCESSES)
        bounded("bytes to read", sum(one.length for one in request.accesses), MOST_READ)
        caller = identity.of(context)
        vm = request.vm if request.HasField("vm") else None
        _may_access(caller, vm)
        if not request.group:
            identity.require(context, ("host", "lab"))
            for one in request.accesses:
                _within(one)
            storage = self.machine.real_storage(request.accesses)
            return ultravisor_pb2.AccessResponse(outcomes=[_outcome(one) for one in storage])
        pages = self.pages[request.group]
        accesses = [_access(pages, one) for one in request.accesses]
        part, begins = part_of(request.turn, caller, pages), part_of(request.begins, caller, pages)
        self.machine.check(request.owner)
        if not accesses or (part and len(accesses) != 1):
            raise StatusError(
                grpc.StatusCode.INVALID_ARGUMENT,
                "BAD_ACCESSES",
                "accesses",
                value=len(accesses),
                allowed="one in a turn, at least one otherwise",
            )
        try:
            if vm is not None and begins and begins.offer:
                outcomes = pages.first_access(vm, accesses, begins.offer)
            else:
                outcomes = pages.access(vm, accesses, part)
        except NotTaken:
            return ultravisor_pb2.AccessResponse(not_taken=True)
        return ultravisor_pb2.AccessResponse(outcomes=[_outcome(one) for one in outcomes], revision=pages.revision)

    def Shares(self, request: ultravisor_pb2.SharesRequest, context: Context) -> ultravisor_pb2.SharesResponse:
        pages = self.pages[request.group]
        arguments, part = (request.vm, page_of(pages.meta, request.page)), part_of(request.turn, None, pages)
        return ultravisor_pb2.SharesResponse(shares=bool(pages.call("uv_shared", arguments, part).code))

    def WouldEnd(self, request: ultravisor_pb2.WouldEndRequest, context: Context) -> ultravisor_pb2.WouldEndResponse:
        bounded("instructions", len(request.instructions), MOST_ACCESSES)
        pages = self.groups[request.group]
        asked = [(one.vm, page_of(pages.meta, one.page), one.op) for one in request.instructions]
        return ultravisor_pb2.WouldEndResponse(ends=pages.would_end(asked))

    def Enforce(self, request: ultravisor_pb2.EnforceRequest, context: Context) -> ultravisor_pb2.EnforceResponse:
        caller, hardware = identity.of(context), self.hardware[request.group]
        _may_access(caller, request.vm if request.HasField("vm") else None)
        machine_of(hardware.meta, request.vm)
        arguments = checked(caller.role, request.verb, request.arguments, int(hardware.meta.cfg["pages"][0]))
        part = part_of(request.turn, caller, hardware)
        if part is None:
            raise StatusError(
                grpc.StatusCode.INVALID_ARGUMENT,
                "NO_TURN",
                "a verb of the machine outside of any step",
                value=request.verb,
                allowed="as part of a step, whose turn the request names",
            )
        try:
            return ultravisor_pb2.EnforceResponse(outcome=hardware.call(request.verb, arguments, part).code)
        except NotTaken:
            return ultravisor_pb2.EnforceResponse(not_taken=True)

    def Enter(self, request: ultravisor_pb2.EnterRequest, context: Context) -> ultravisor_pb2.EnterResponse:
        return ultravisor_pb2.EnterResponse(interception=self.machine.enter(request))

    def Diagnose(self, request: ultravisor_pb2.DiagnoseRequest, context: Context) -> ultravisor_pb2.DiagnoseResponse:
        self.machine.diagnose_308(request.group, request.vm, request.subcode)
        return ultravisor_pb2.DiagnoseResponse()

    def HostKey(self, request: ultravisor_pb2.HostKeyRequest, context: Context) -> ultravisor_pb2.HostKeyResponse:
        return ultravisor_pb2.HostKeyResponse(key=self.machine.host_key)

    def Prepare(self, request: ultravisor_pb2.UltravisorServicePrepareRequest, context: Context) -> Any:
        meta = meta_of(self.store, request.group)
        check_sections(meta, {"uv": request.uv}, "ultravisor")
        if self.store.read(request.group, ["uv"]):
            raise exists(request.group)
        made, sections = self.groups[request.group], {"uv": request.uv}
        if isinstance(made, Pages):
            uv = np.frombuffer(request.uv, UV)
            sections["seal"] = lay_out(made.contents, request.group, meta, uv, list(request.altered))
        if not made.store.create(request.group, sections, encode(Made("ultravisor", {"uv": request.uv}))):
            raise exists(request.group)
        return ultravisor_pb2.UltravisorServicePrepareResponse()

    def Inject(self, request: ultravisor_pb2.InjectRequest, context: Context) -> ultravisor_pb2.InjectResponse:
        self.machine.inject(request.command, request.count, request.condition_code)
        return ultravisor_pb2.InjectResponse()

    def Clear(self, request: ultravisor_pb2.ClearRequest, context: Context) -> ultravisor_pb2.ClearResponse:
        self.machine.clear()
        return ultravisor_pb2.ClearResponse()


def _outcome(one: Outcome) -> ultravisor_pb2.PageOutcome:
    return ultravisor_pb2.PageOutcome(exception=one.exception, data=one.data)


def _may_access(caller: identity.Identity, vm: int | None) -> None:
    """Raises StatusError if the caller has no right to this view. The rights table has checked a guest's machine."""
    if caller.role != "lab" and (caller.role == "guest") != (vm is not None):
        raise rights.not_yours("the host" if vm is None else f"guest {vm}", caller)


def _access(pages: Pages, one: ultravisor_pb2.PageAccess) -> tuple[int, int, int, bytes]:
    """Returns (page, offset, length, data) of a requested access. Raises StatusError if it is out of range."""
    page_of(pages.meta, one.page)
    _within(one)
    return one.page, one.offset, one.length, one.data


def _within(one: ultravisor_pb2.PageAccess) -> None:
    """Raises StatusError if an access crosses its page's end."""
    if one.offset + max(one.length, len(one.data)) > PAGE_SIZE:
        raise StatusError(
            grpc.StatusCode.INVALID_ARGUMENT,
            "BEYOND_THE_PAGE",
            "offset and length",
            allowed="within 4,096 bytes",
            value=f"{one.offset}, {max(one.length, len(one.data))}",
        )
