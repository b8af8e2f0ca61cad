"""The guest's peers: the ultravisor, which decides its accesses, and the host, which handles its exits."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import NamedTuple

import grpc

from services.common import scheduler
from services.common.failures import TURN_LOST
from services.common.scheduler import Suspending, Wait
from ultrafolio.model.layout import PAGE_SIZE
from ultrafolio.rpc.client import request_id
from ultrafolio.rpc.errors import StatusError, from_call
from ultrafolio.rpc.messages import step_from
from ultrafolio.rpc.v1 import common_pb2, host_mm_pb2, host_mm_pb2_grpc, ultravisor_pb2, ultravisor_pb2_grpc
from ultrafolio.state.store import Turn
from ultrafolio.state.turn import Ask, Done, Lost, Result
from ultrafolio.state.view import View
from ultrafolio.uvcall import uvcb

LATER = (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE)
IN_A_THREAD = 32
"""Calls to the host that each hold a thread; further ones suspend."""
TOLD_S = 0.05
"""Seconds for which an explanation of the host is reused."""
CALLS = {"uv_share": "share", "uv_unshare": "unshare"}


class Seen(NamedTuple):
    """Result of an access. exception: 0 or the program interruption;  data: bytes read."""

    exception: int
    data: bytes


class Told(NamedTuple):
    """The host's explanation of a group: waits by actor, and its time (monotonic seconds)."""

    asked: float
    waits: dict[int, common_pb2.Wait]


class Parts:
    """Stubs to the ultravisor, as a guest and as a device, and to the host MM."""

    def __init__(
        self,
        ultravisor: ultravisor_pb2_grpc.UltravisorServiceStub,
        device: ultravisor_pb2_grpc.UltravisorServiceStub,
        host: host_mm_pb2_grpc.HostMmServiceStub,
    ) -> None:
        self.ultravisor, self.device, self.host = ultravisor, device, host
        self._here = threading.Semaphore(IN_A_THREAD)
        self._told: dict[str, Told] = {}

    def access(
        self,
        group: str,
        vm: int | None,
        accesses: Sequence[tuple[int, int, int, bytes]],
        turn: common_pb2.Turn | None = None,
    ) -> list[Seen]:
        """Accesses (page, offset, length, data) by virtual machine `vm`, or by a device with the host's view (None)."""
        made = [ultravisor_pb2.PageAccess(page=p, offset=o, length=n, data=data) for p, o, n, data in accesses]
        stub = self.device if vm is None else self.ultravisor
        answer = stub.Access(ultravisor_pb2.AccessRequest(group=group, vm=vm, accesses=made, turn=turn))
        return [Seen(one.exception, one.data) for one in answer.outcomes]

    def run(self, group: str, actor: int, timeout_s: float) -> Suspending[tuple[list[Done], common_pb2.Wait | None]]:
        """Let the host run an actor's thread until it returns or `timeout_s` passes. Returns its steps and its wait.
        While the host does not answer, returns no steps and no wait."""
        message = host_mm_pb2.RunRequest(group=group, actor=actor, request_id=request_id())
        try:
            answer = yield from self._run(message, timeout_s)
        except StatusError as error:
            if error.code in LATER:
                return [], None
            raise
        return [step_from(step) for step in answer.steps], answer.wait if answer.HasField("wait") else None

    def _run(self, message: host_mm_pb2.RunRequest, timeout_s: float) -> Suspending[host_mm_pb2.RunResponse]:
        """Call the host: in this thread, which is faster, or suspended if IN_A_THREAD calls hold a thread."""
        if self._here.acquire(blocking=False):
            try:
                return self.host.Run(message, timeout=timeout_s)  # type: ignore[no-any-return]
            finally:
                self._here.release()
        answered = object()
        scheduler.DEFAULT.hold(answered)
        call = self.host.Run.future(message, timeout=timeout_s)  # type: ignore[attr-defined]
        call.add_done_callback(lambda _: scheduler.DEFAULT.release(answered))
        while not call.done():
            yield Wait(timeout_s + 1, behind=answered)
        try:
            return call.result()  # type: ignore[no-any-return]
        except grpc.RpcError as error:
            raise from_call(error, "the host MM") from None

    def wait_of(self, group: str, actor: int) -> common_pb2.Wait | None:
        """Returns the actor's wait as the host explains it now, or explained it up to TOLD_S ago; None if it waits for
        nothing."""
        told = self._told.get(group)
        if told is None or time.monotonic() - told.asked > TOLD_S:
            waits = self.host.Explain(host_mm_pb2.ExplainRequest(group=group)).waits
            told = self._told[group] = Told(time.monotonic(), {wait.actor: wait for wait in waits})
        return told.waits.get(actor)

    def ask(self, group: str) -> Ask:
        """Returns the function that answers the calls of the guest's rules to other roles."""

        def ask(view: View, turn: Turn, index: int, function: str, arguments: tuple[int, ...]) -> Result:
            part = common_pb2.Turn(token=turn.token, index=index)
            try:
                return self._answer(group, view, part, function, arguments)
            except StatusError as error:
                if error.reason == TURN_LOST:
                    raise Lost from None
                raise

        return ask

    def _answer(
        self, group: str, view: View, part: common_pb2.Turn, function: str, arguments: tuple[int, ...]
    ) -> Result:
        if function == "hw_guest":
            vm, page = arguments
            return Result(self.access(group, vm, [(page, 0, 0, b"")], part)[0].exception)
        if function == "uv_shared":
            vm, page = arguments
            asked = ultravisor_pb2.SharesRequest(group=group, vm=vm, page=page, turn=part)
            return Result(int(self.ultravisor.Shares(asked).shares))
        if function in CALLS:
            vm, page = arguments
            block = uvcb.pack(CALLS[function], paddr=page * PAGE_SIZE)
            message = ultravisor_pb2.ExecuteRequest(group=group, control_block=block, turn=part, vm=vm)
            message.request_id = request_id()
            return Result(self.ultravisor.Execute(message).result)
        actor, *rest = arguments
        crossing = host_mm_pb2.CrossRequest(
            group=group, turn=part, function=function, actor=actor, arguments=map(int, rest)
        )
        return Result(self.host.Cross(crossing).outcome)
