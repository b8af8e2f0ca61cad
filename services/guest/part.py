"""The other parts as a guest sees them: the ultravisor's view of its accesses, the host that takes over at an exit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import grpc

from ultrafolio.rpc import uvcb
from ultrafolio.rpc.client import request_id
from ultrafolio.rpc.errors import StatusError
from ultrafolio.rpc.messages import step_from
from ultrafolio.rpc.v1 import common_pb2, host_mm_pb2, host_mm_pb2_grpc, ultravisor_pb2, ultravisor_pb2_grpc
from ultrafolio.state.burst import Ask, Done, Lost, Result
from ultrafolio.state.group import View
from ultrafolio.state.store import Turn

TURN_LOST = "TURN_LOST"
PAGE = 4096
LATER = (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE)
CALLS = {"uv_share": "share", "uv_unshare": "unshare"}


class Seen(NamedTuple):
    """exception: 0 or the program interruption;  data: bytes read."""

    exception: int
    data: bytes


class Parts:
    """Stubs to the ultravisor, as a guest and as a device, and to the host MM."""

    def __init__(
        self,
        ultravisor: ultravisor_pb2_grpc.UltravisorServiceStub,
        device: ultravisor_pb2_grpc.UltravisorServiceStub,
        host: host_mm_pb2_grpc.HostMmServiceStub,
    ) -> None:
        self.ultravisor, self.device, self.host = ultravisor, device, host

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

    def run(self, group: str, actor: int, timeout_s: float) -> tuple[list[Done], common_pb2.Wait | None]:
        """Let the host run an actor's thread until it comes back, or time is up: its steps, and what it waits for.
        A host that is away is waited for like any other."""
        message = host_mm_pb2.RunRequest(group=group, actor=actor, request_id=request_id())
        try:
            answer = self.host.Run(message, timeout=timeout_s)
        except StatusError as error:
            if error.code in LATER:
                return [], None
            raise
        return [step_from(step) for step in answer.steps], answer.wait if answer.HasField("wait") else None

    def wait_of(self, group: str, actor: int) -> common_pb2.Wait | None:
        """What the actor waits for, as the host explains it now; None if it knows of nothing."""
        waits = self.host.Explain(host_mm_pb2.ExplainRequest(group=group)).waits
        return next((wait for wait in waits if wait.actor == actor), None)

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
