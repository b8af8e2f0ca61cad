"""The ultravisor over gRPC: control blocks, the hardware's view of accesses, and what the laboratory may do to it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import numpy as np

from services.common import identity, rights
from services.common.groups import Groups, bounded, check_sections, exists, in_words, meta_of, page_of
from services.ultravisor.contents import PAGE, Contents
from services.ultravisor.machine import Machines
from services.ultravisor.pages import Busy, Outcome, Pages, Part, lay_out
from ultrafolio.model.layout import UV
from ultrafolio.rpc.errors import StatusError
from ultrafolio.rpc.v1 import common_pb2, ultravisor_pb2, ultravisor_pb2_grpc
from ultrafolio.state.events import Made, encode
from ultrafolio.state.redis import RedisStore
from ultrafolio.waits.load import interpreted

MOST_ACCESSES = 16_384
"""Accesses, or questions, in one message: the pages of the largest group."""
MOST_READ = 16 << 20
"""Bytes that one message may read."""


class Ultravisor(ultravisor_pb2_grpc.UltravisorServiceServicer):
    """store: with the ultravisor's rights;  contents: the machine's memory and secrets."""

    def __init__(self, store: RedisStore, contents: Contents) -> None:
        self.store, self.contents = store, contents
        self.groups = Groups(store, lambda name, meta: Pages(store, contents, name, meta))
        self.machine = Machines(store, contents, self.groups)
        # loaded before the first question, whose deadline may be near
        interpreted()

    def Execute(self, request: ultravisor_pb2.ExecuteRequest, context: Any) -> ultravisor_pb2.ExecuteResponse:
        caller, guest = identity.of(context), None
        if caller.role == "guest":
            guest = rights.own_machine(caller, request.vm if request.HasField("vm") else None)
        with in_words(), busy_in_words():
            return self.machine.execute(request, guest, _part(request))

    def Access(self, request: ultravisor_pb2.AccessRequest, context: Any) -> ultravisor_pb2.AccessResponse:
        bounded("accesses", len(request.accesses), MOST_ACCESSES)
        bounded("bytes to read", sum(one.length for one in request.accesses), MOST_READ)
        caller = identity.of(context)
        vm = request.vm if request.HasField("vm") else None
        _may_access(caller, vm)
        if not request.group:
            identity.require(context, ("host", "lab"))
            for one in request.accesses:
                _within(one)
            with in_words():
                storage = self.machine.real_storage(request.accesses)
            return ultravisor_pb2.AccessResponse(outcomes=[_outcome(one) for one in storage])
        with in_words(), busy_in_words():
            pages = self.groups[request.group]
            accesses = [_access(pages, one) for one in request.accesses]
            part = _part(request)
            if not accesses or (part and len(accesses) != 1):
                raise StatusError(
                    grpc.StatusCode.INVALID_ARGUMENT,
                    "BAD_ACCESSES",
                    "accesses",
                    value=len(accesses),
                    allowed="one in a turn, at least one otherwise",
                )
            outcomes = pages.access(vm, accesses, part)
        return ultravisor_pb2.AccessResponse(outcomes=[_outcome(one) for one in outcomes], revision=pages.revision)

    def Shares(self, request: ultravisor_pb2.SharesRequest, context: Any) -> ultravisor_pb2.SharesResponse:
        with in_words(), busy_in_words():
            pages = self.groups[request.group]
            arguments = request.vm, page_of(pages.meta, request.page)
            return ultravisor_pb2.SharesResponse(shares=bool(pages.call("uv_shared", arguments, _part(request)).code))

    def WouldEnd(self, request: ultravisor_pb2.WouldEndRequest, context: Any) -> ultravisor_pb2.WouldEndResponse:
        bounded("instructions", len(request.instructions), MOST_ACCESSES)
        with in_words():
            pages = self.groups[request.group]
            asked = [(one.vm, page_of(pages.meta, one.page), one.op) for one in request.instructions]
            return ultravisor_pb2.WouldEndResponse(ends=pages.would_end(asked))

    def Enter(self, request: ultravisor_pb2.EnterRequest, context: Any) -> ultravisor_pb2.EnterResponse:
        with in_words():
            return ultravisor_pb2.EnterResponse(interception=self.machine.enter(request))

    def Diagnose(self, request: ultravisor_pb2.DiagnoseRequest, context: Any) -> ultravisor_pb2.DiagnoseResponse:
        with in_words():
            self.machine.diagnose_308(request.group, request.vm, request.subcode)
        return ultravisor_pb2.DiagnoseResponse()

    def HostKey(self, request: ultravisor_pb2.HostKeyRequest, context: Any) -> ultravisor_pb2.HostKeyResponse:
        return ultravisor_pb2.HostKeyResponse(key=self.machine.host_key)

    def Prepare(self, request: ultravisor_pb2.UltravisorServicePrepareRequest, context: Any) -> Any:
        with in_words():
            meta = meta_of(self.store, request.group)
            check_sections(meta, {"uv": request.uv}, "ultravisor")
            uv = np.frombuffer(request.uv, UV)
            seal = lay_out(self.contents, request.group, meta, uv, list(request.altered))
            event = encode(Made("ultravisor", {"uv": request.uv}))
            if not self.store.create(request.group, {"uv": request.uv, "seal": seal}, event):
                raise exists(request.group)
        return ultravisor_pb2.UltravisorServicePrepareResponse()

    def Inject(self, request: ultravisor_pb2.InjectRequest, context: Any) -> ultravisor_pb2.InjectResponse:
        with in_words():
            self.machine.inject(request.command, request.count, request.condition_code)
        return ultravisor_pb2.InjectResponse()

    def Clear(self, request: ultravisor_pb2.ClearRequest, context: Any) -> ultravisor_pb2.ClearResponse:
        with in_words(), busy_in_words():
            self.machine.clear()
        return ultravisor_pb2.ClearResponse()


@contextmanager
def busy_in_words() -> Iterator[None]:
    """A call that met a step under way, as a status that a client may retry."""
    try:
        yield
    except Busy as error:
        raise StatusError(
            grpc.StatusCode.UNAVAILABLE,
            "GROUP_BUSY",
            "a step of the group is under way",
            value=str(error),
            then="ask again",
        ) from None


def _outcome(one: Outcome) -> ultravisor_pb2.PageOutcome:
    return ultravisor_pb2.PageOutcome(exception=one.exception, data=one.data)


def _part(request: Any) -> Part | None:
    turn: common_pb2.Turn = request.turn
    return Part(turn.token, turn.index) if request.HasField("turn") else None


def _may_access(caller: identity.Identity, vm: int | None) -> None:
    """StatusError: the view is not the caller's. Which machine a guest speaks for is compared before."""
    if caller.role != "lab" and (caller.role == "guest") != (vm is not None):
        raise rights.not_yours("the host" if vm is None else f"guest {vm}", caller)


def _access(pages: Pages, one: ultravisor_pb2.PageAccess) -> tuple[int, int, int, bytes]:
    page_of(pages.meta, one.page)
    _within(one)
    return one.page, one.offset, one.length, one.data


def _within(one: ultravisor_pb2.PageAccess) -> None:
    """StatusError: an access that leaves its page."""
    if one.offset + max(one.length, len(one.data)) > PAGE:
        raise StatusError(
            grpc.StatusCode.INVALID_ARGUMENT,
            "BEYOND_THE_PAGE",
            "offset and length",
            allowed="within 4,096 bytes",
            value=f"{one.offset}, {max(one.length, len(one.data))}",
        )
