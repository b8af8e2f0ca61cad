"""The guest's peers: the ultravisor, which decides its accesses, and the host, which handles its exits."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import grpc

from services.common import scheduler
from services.common.failures import TURN_LOST
from services.common.scheduler import Suspending, Wait
from ultrafolio.model.designs import GUEST_MEMFD
from ultrafolio.model.layout import PAGE_SIZE
from ultrafolio.rpc.client import request_id
from ultrafolio.rpc.errors import NOT_THE_OWNER, StatusError, from_call
from ultrafolio.rpc.messages import Access, offer_to, sections_from, sections_to, step_from
from ultrafolio.rpc.v1 import common_pb2, host_mm_pb2, host_mm_pb2_grpc, ultravisor_pb2, ultravisor_pb2_grpc
from ultrafolio.state.crossing import HANDS_OVER, Ask, NotTaken, Result
from ultrafolio.state.store import Offer, Turn
from ultrafolio.state.turn import Done, Group, Lost, Section
from ultrafolio.state.view import View
from ultrafolio.uvcall import uvcb

LATER = (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE)
IN_A_THREAD = 32
"""Calls to the host that each hold a thread; further ones suspend."""
TOLD_S = 0.05
"""Seconds for which an explanation of the host is reused."""
ENTRANCES = ("close_pipe",)
"""Functions that the host of a guest_memfd group executes for the VMM."""
CALLS = {"uv_share": "share", "uv_unshare": "unshare"}


class Seen(NamedTuple):
    """Result of an access. exception: 0 or the program interruption;  data: bytes read."""

    exception: int
    data: bytes


@dataclass
class Wanted:
    """The access that a vCPU's instruction is about, and the bytes read once the hardware has allowed it in a step."""

    access: Access
    read: bytes | None = None


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
        self._handed_over: dict[tuple[str, int], str] = {}
        """By group and actor: the turn in which its thread went over to the host, where the host has not run it yet."""
        self.wanted: dict[tuple[str, int], Wanted] = {}
        """By group and vCPU: what its present instruction accesses, where somebody waits for the data."""

    def access(
        self,
        group: str,
        vm: int | None,
        accesses: Sequence[Access],
        turn: common_pb2.Turn | None = None,
        begins: common_pb2.Turn | None = None,
    ) -> list[Seen]:
        """Accesses by virtual machine `vm`, or by a device with the host's view (None). NotTaken: nothing was done, as
        what the turn that is offered says does not stand."""
        made = [ultravisor_pb2.PageAccess(page=p, offset=o, length=n, data=data) for p, o, n, data in accesses]
        stub = self.device if vm is None else self.ultravisor
        answer = stub.Access(ultravisor_pb2.AccessRequest(group=group, vm=vm, accesses=made, turn=turn, begins=begins))
        if answer.not_taken:
            raise NotTaken
        return [Seen(one.exception, one.data) for one in answer.outcomes]

    def run(self, group: Group, actor: int, timeout_s: float) -> Suspending[tuple[list[Done], common_pb2.Wait | None]]:
        """Let the host run an actor's thread until it returns or `timeout_s` passes. Returns its steps and its wait.
        While the host does not answer, or no host owns the group, returns no steps and no wait. The group's view is
        then as the host left it."""
        name = self._handed_over.pop((group.name, actor), "") or request_id()
        known = {section: at for section, at in group.view.revisions.items() if at >= 0}
        message = host_mm_pb2.RunRequest(group=group.name, actor=actor, request_id=name, known=known)
        try:
            answer = yield from self._run(message, timeout_s)
        except StatusError as error:
            if error.code in LATER or error.reason == NOT_THE_OWNER:
                group.refresh()
                return [], None
            raise
        group.learn(sections_from(answer.sections), "host")
        return [step_from(step, group.design) for step in answer.steps], answer.wait if answer.HasField(
            "wait"
        ) else None

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

        def ask(
            view: View, turn: Turn, index: int, function: str, arguments: tuple[int, ...], offer: Offer | None = None
        ) -> Result:
            part = offer_to(offer) if offer else common_pb2.Turn(token=turn.token, index=index)
            try:
                return self._answer(group, view, turn.actor, part, function, arguments)
            except StatusError as error:
                if error.reason == TURN_LOST:
                    raise Lost from None
                raise

        return ask

    def _answer(
        self, group: str, view: View, actor: int, part: common_pb2.Turn, function: str, arguments: tuple[int, ...]
    ) -> Result:
        """Returns the result of a question that a step of a guest or device asks the hardware or the ultravisor."""
        if view.meta.design is GUEST_MEMFD and function not in ENTRANCES:
            return self._enforce(group, part, function, arguments)
        if function == "hw_guest":
            return self._hardware(group, actor, part, *arguments)
        if function == "uv_shared":
            vm, page = arguments
            asked = ultravisor_pb2.SharesRequest(group=group, vm=vm, page=page, turn=part)
            return Result(int(self.ultravisor.Shares(asked).shares))
        if function in CALLS:
            vm, page = arguments
            block = uvcb.pack(CALLS[function], paddr=page * PAGE_SIZE)
            message = ultravisor_pb2.ExecuteRequest(group=group, control_block=block, turn=part, vm=vm)
            message.request_id = request_id()
            answer = self.ultravisor.Execute(message)
            if answer.not_taken:
                raise NotTaken
            return Result(answer.result)
        actor, *rest = arguments
        # who finishes another's step sees the counters as they were, which is no news
        counters = [Section("pc", view.revisions["pc"], view.section("pc"))] if view.revisions["pc"] >= 0 else []
        crossing = host_mm_pb2.CrossRequest(
            group=group,
            turn=part,
            function=function,
            actor=actor,
            arguments=map(int, rest),
            sections=sections_to(counters),
        )
        result = Result(self.host.Cross(crossing).outcome)
        if function in HANDS_OVER:
            self._handed_over[group, actor] = part.token
        return result

    def _enforce(self, group: str, part: common_pb2.Turn, verb: str, arguments: tuple[int, ...]) -> Result:
        """Ask the machine of a guest_memfd group, as its guest or a device. NotTaken: the turn was not taken."""
        asked = ultravisor_pb2.EnforceRequest(group=group, verb=verb, arguments=map(int, arguments), turn=part)
        if verb == "host_access":
            return Result(self.device.Enforce(asked).outcome)
        asked.vm = 0
        answer = self.ultravisor.Enforce(asked)
        if answer.not_taken:
            raise NotTaken
        return Result(answer.outcome)

    def _hardware(self, group: str, actor: int, part: common_pb2.Turn, vm: int, page: int) -> Result:
        """What the hardware says of the access of vCPU `actor`, which is made where it is wanted and allowed."""
        wanted = self.wanted.get((group, actor))
        wanted = wanted if wanted and wanted.access[0] == page else None
        seen = self.access(group, vm, [wanted.access if wanted else (page, 0, 0, b"")], part)[0]
        if wanted and not seen.exception:
            wanted.read = seen.data
        return Result(seen.exception)
