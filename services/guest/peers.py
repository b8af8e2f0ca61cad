"""The other parts as a guest sees them: the ultravisor's view of its accesses, the host that takes over at an exit."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import NamedTuple

import grpc

from services.common import parking
from services.common.parking import Pausing, Wait
from ultrafolio.rpc.client import request_id
from ultrafolio.rpc.errors import StatusError, from_call
from ultrafolio.rpc.messages import step_from
from ultrafolio.rpc.v1 import common_pb2, host_mm_pb2, host_mm_pb2_grpc, ultravisor_pb2, ultravisor_pb2_grpc
from ultrafolio.state.store import Turn
from ultrafolio.state.turn import Ask, Done, Lost, Result
from ultrafolio.state.view import View
from ultrafolio.uvcall import uvcb

TURN_LOST = "TURN_LOST"
PAGE = 4096
LATER = (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE)
IN_A_THREAD = 32
"""Calls of the host that are waited for in a thread; further ones are waited for without one."""
TOLD_S = 0.05
"""How long an explanation is good for others who ask."""
CALLS = {"uv_share": "share", "uv_unshare": "unshare"}


class Seen(NamedTuple):
    """exception: 0 or the program interruption;  data: bytes read."""

    exception: int
    data: bytes


class Told(NamedTuple):
    """What the host explained of a group, by actor, and when that was (monotonic seconds)."""

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

    def run(self, group: str, actor: int, timeout_s: float) -> Pausing[tuple[list[Done], common_pb2.Wait | None]]:
        """Let the host run an actor's thread until it comes back, or time is up: its steps, and what it waits for.
        A host that is away is waited for like any other."""
        message = host_mm_pb2.RunRequest(group=group, actor=actor, request_id=request_id())
        try:
            answer = yield from self._run(message, timeout_s)
        except StatusError as error:
            if error.code in LATER:
                return [], None
            raise
        return [step_from(step) for step in answer.steps], answer.wait if answer.HasField("wait") else None

    def _run(self, message: host_mm_pb2.RunRequest, timeout_s: float) -> Pausing[host_mm_pb2.RunResponse]:
        """The call, in this thread while few threads are in one, which is quicker, else without a thread."""
        if self._here.acquire(blocking=False):
            try:
                return self.host.Run(message, timeout=timeout_s)  # type: ignore[no-any-return]
            finally:
                self._here.release()
        answered = object()
        parking.HERE.take(answered)
        call = self.host.Run.future(message, timeout=timeout_s)  # type: ignore[attr-defined]
        call.add_done_callback(lambda _: parking.HERE.give(answered))
        while not call.done():
            yield Wait(timeout_s + 1, behind=answered)
        try:
            return call.result()  # type: ignore[no-any-return]
        except grpc.RpcError as error:
            raise from_call(error, "the host MM") from None

    def wait_of(self, group: str, actor: int) -> common_pb2.Wait | None:
        """What the actor waits for, as the host explains it now, or explained it a moment ago where many ask at once;
        None if it knows of nothing."""
        told = self._told.get(group)
        if told is None or time.monotonic() - told.asked > TOLD_S:
            waits = self.host.Explain(host_mm_pb2.ExplainRequest(group=group)).waits
            told = self._told[group] = Told(time.monotonic(), {wait.actor: wait for wait in waits})
        return told.waits.get(actor)

    def ask(self, group: str) -> Ask:
        """What answers the crossings of the guest's rules."""

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
            block = uvcb.pack(CALLS[function], paddr=page * PAGE)
            message = ultravisor_pb2.ExecuteRequest(group=group, control_block=block, turn=part, vm=vm)
            message.request_id = request_id()
            return Result(self.ultravisor.Execute(message).result)
        actor, *rest = arguments
        crossing = host_mm_pb2.CrossRequest(
            group=group, turn=part, function=function, actor=actor, arguments=map(int, rest)
        )
        return Result(self.host.Cross(crossing).outcome)
