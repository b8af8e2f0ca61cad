"""The way from the host to the ultravisor: control blocks, and the host's view of pages."""

from __future__ import annotations

from typing import NamedTuple

from services.groups import TURN_LOST
from ultrafolio.model.layout import ALLOWED
from ultrafolio.rpc import uvcb
from ultrafolio.rpc.client import request_id
from ultrafolio.rpc.errors import StatusError
from ultrafolio.rpc.messages import laboratory_handle
from ultrafolio.rpc.uvcb_calls import CC_BUSY
from ultrafolio.rpc.v1 import common_pb2, ultravisor_pb2, ultravisor_pb2_grpc
from ultrafolio.state.burst import Ask, Lost, Result
from ultrafolio.state.group import View
from ultrafolio.state.store import Turn

PAGE = 4096
FLIPPED = b"\xff" * 16
"""What a broken or hostile host writes over a page's beginning."""
BY_ADDRESS = {"uv_export": "export", "uv_pin": "pin"}
BY_GUEST = {"uv_import": "import", "uv_unpin": "unpin"}


class Seen(NamedTuple):
    """exception: 0 or 0x3d;  data: the page's 4,096 bytes."""

    exception: int
    data: bytes


class Firmware:
    """The ultravisor as the host may use it."""

    def __init__(self, stub: ultravisor_pb2_grpc.UltravisorServiceStub) -> None:
        self.stub = stub

    def see(self, group: str, page: int, data: bytes = b"", turn: common_pb2.Turn | None = None) -> Seen:
        """An access by the host: reads the page, and writes `data` at its beginning."""
        access = ultravisor_pb2.PageAccess(page=page, length=PAGE, data=data)
        answer = self.stub.Access(ultravisor_pb2.AccessRequest(group=group, accesses=[access], turn=turn))
        return Seen(answer.outcomes[0].exception, answer.outcomes[0].data)

    def read_pages(self, group: str, first: int, count: int) -> bytes:
        """What the host sees in `count` pages; PermissionError where one is secure."""
        accesses = [ultravisor_pb2.PageAccess(page=page, length=PAGE) for page in range(first, first + count)]
        answer = self.stub.Access(ultravisor_pb2.AccessRequest(group=group, accesses=accesses))
        for page, one in zip(range(first, first + count), answer.outcomes, strict=True):
            if one.exception != ALLOWED:
                raise PermissionError(f"I/O on page {page} of {group}: exception {one.exception:#x}")
        return b"".join(one.data for one in answer.outcomes)

    def ask(self, group: str) -> Ask:
        """What answers the crossings of the host's rules."""

        def ask(view: View, turn: Turn, index: int, function: str, arguments: tuple[int, ...]) -> Result:
            part = common_pb2.Turn(token=turn.token, index=index)
            try:
                if function == "hw_host":
                    return Result(self.see(group, arguments[0], FLIPPED, part).exception)
                return self._call(group, view, part, function, arguments)
            except StatusError as error:
                if error.reason == TURN_LOST:
                    raise Lost from None
                raise

        return ask

    def _call(self, group: str, view: View, part: common_pb2.Turn, function: str, arguments: tuple[int, ...]) -> Result:
        message = ultravisor_pb2.ExecuteRequest(group=group, turn=part, request_id=request_id())
        message.control_block = block(group, view.meta.origin, function, arguments)
        answer = self.stub.Execute(message)
        # an import is tried once (since v5.16), every other call until it is not busy: uv_call in asm/uv.h, v6.13
        while answer.condition_code >= CC_BUSY and function not in BY_GUEST:
            answer = self.stub.Execute(message)
        return Result(answer.result, answer.fresh)


def block(group: str, origin: int, function: str, arguments: tuple[int, ...]) -> bytes:
    """The control block of a page call of model.ultravisor, for a group whose page 0 is at `origin`."""
    if function in BY_ADDRESS:
        return uvcb.pack(BY_ADDRESS[function], paddr=origin + arguments[0] * PAGE)
    vm = arguments[0]
    if function in BY_GUEST:
        return uvcb.pack(BY_GUEST[function], guest_handle=laboratory_handle(group, vm), gaddr=arguments[1] * PAGE)
    return uvcb.pack("unshare_all", guest_handle=laboratory_handle(group, vm))
