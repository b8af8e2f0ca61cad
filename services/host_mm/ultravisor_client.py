"""The host's client of the ultravisor: control blocks, the host's accesses, and the guests created there."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from services.common.failures import TURN_LOST
from services.host_mm.swap import Seen, Swap
from ultrafolio.engine.load import interpreted
from ultrafolio.model.designs import GUEST_MEMFD
from ultrafolio.model.layout import ACCESS, ALLOWED, PAGE_SIZE, UV_OK, WRITE, State
from ultrafolio.rpc.client import request_id
from ultrafolio.rpc.errors import FORMER_OWNER, StatusError
from ultrafolio.rpc.messages import laboratory_handle, offer_to
from ultrafolio.rpc.v1 import common_pb2, ultravisor_pb2, ultravisor_pb2_grpc
from ultrafolio.state.crossing import SWAPS, WALLS, Ask, NotTaken, Result
from ultrafolio.state.redis import RedisStore
from ultrafolio.state.store import NotOwner, Offer, Turn
from ultrafolio.state.turn import Lost
from ultrafolio.state.view import View
from ultrafolio.uvcall import uvcb
from ultrafolio.uvcall.calls import CC_BUSY, CPU_LOAD, CPU_STOPPED
from ultrafolio.uvcall.uvcb import Block

FLIPPED = b"\xff" * 16
"""Bytes that the host writes at a page's start: a requested write, or that of a broken or hostile host."""
BY_ADDRESS = {"uv_export": "export", "uv_pin": "pin"}
T = TypeVar("T")
BY_GUEST = {"uv_import": "import", "uv_unpin": "unpin"}


class Created(msgspec.Struct, frozen=True, array_like=True):
    """The host's record of a secure guest that it created.

    configuration, cpus  their handles;  asce: what its processors run with
    request              the request that created it;  started: whether its image was verified
    epoch                of the ownership under which this was recorded: one of an earlier one does not replace it
    """

    configuration: int
    cpus: list[int]
    asce: int
    request: str
    started: bool = False
    epoch: int = 0


def gone_guest(epoch: int) -> Created | None:
    """Returns the record of a guest that is gone: none where the host has one process."""
    return Created(0, [], 0, "", epoch=epoch) if epoch else None


class Guests:
    """The guests that this host created, in the shared state, and the image pages still to unpack."""

    def __init__(self, store: RedisStore) -> None:
        self._store = store
        self.unpacking: dict[tuple[str, int], dict[int, tuple[int, int]]] = {}
        """By group and vCPU: per page that its next import unpacks, tweak and offset."""

    def forget(self, group: str) -> None:
        """Another process may have had the group: what is to be unpacked was told to that one."""
        for key in [key for key in self.unpacking if key[0] == group]:
            self.unpacking.pop(key, None)

    def find(self, group: str, vm: int) -> Created | None:
        """Returns the guest of virtual machine `vm` of a group, None if it was laid out without a boot."""
        kept = _decoded(self._store.get(_key(group, vm)))
        return kept if kept and kept.configuration else None

    def keep(self, group: str, vm: int, guest: Created | None) -> None:
        """Record a guest; None removes it. Raises NotOwner if a later owner of the group has recorded one."""
        new = msgspec.msgpack.encode(guest) if guest else b""
        while True:
            kept = self._store.get(_key(group, vm))
            before = _decoded(kept)
            if before and guest and before.epoch > guest.epoch:
                raise NotOwner(group)
            if self._store.swap(_key(group, vm), kept, new) or kept == new:
                return

    def handle(self, group: str, vm: int) -> int:
        """Returns the handle of the machine's configuration."""
        guest = self.find(group, vm)
        return guest.configuration if guest else laboratory_handle(group, vm)


class Firmware:
    """The ultravisor for the host.

    owner: where the host has several processes, its ownership of the group for which this asks outside of steps. The
    ultravisor refuses it once another host has the group: NotOwner. In a step the turn's token has the epoch.
    """

    owner: common_pb2.Ownership | None = None

    def __init__(self, stub: ultravisor_pb2_grpc.UltravisorServiceStub, guests: Guests) -> None:
        self.stub, self.guests = stub, guests

    @property
    def epoch(self) -> int:
        """Of the ownership, 0 for none."""
        return self.owner.epoch if self.owner else 0

    def under(self, group: str, epoch: int) -> Firmware:
        """Returns the ultravisor for the owner of a group in `epoch`, 0: the host has one process."""
        made = copy.copy(self)
        made.owner = common_pb2.Ownership(group=group, epoch=epoch) if epoch else None
        return made

    def send(self, call: Callable[[Any], T], request: Any) -> T:
        """Send a request outside of any step, for this owner. Returns the ultravisor's answer."""
        if self.owner is None:
            return call(request)
        request.owner.CopyFrom(self.owner)
        try:
            return call(request)
        except StatusError as error:
            if error.reason == FORMER_OWNER:
                raise NotOwner(self.owner.group) from None
            raise

    def execute(
        self,
        name: str,
        *,
        group: str = "",
        vm: int | None = None,
        operand: bytes = b"",
        request: str = "",
        **fields: int,
    ) -> Block:
        """Issue a call outside of any step until it is not busy (uv_call in asm/uv.h, v6.13). Returns its block.

        request: id of the call; a repetition returns the first answer
        """
        message = ultravisor_pb2.ExecuteRequest(
            group=group,
            vm=vm,
            operand=operand,
            running_cpus=1,
            request_id=request or request_id(),
            control_block=uvcb.pack(name, **fields),
        )
        while (answer := self.send(self.stub.Execute, message)).condition_code >= CC_BUSY:
            continue
        return uvcb.unpack(answer.control_block)

    def see(self, group: str, page: int, data: bytes = b"", turn: common_pb2.Turn | None = None) -> Seen:
        """An access by the host: reads the page, and writes `data` at its beginning."""
        access = ultravisor_pb2.PageAccess(page=page, length=PAGE_SIZE, data=data)
        answer = self.stub.Access(ultravisor_pb2.AccessRequest(group=group, accesses=[access], turn=turn))
        return Seen(answer.outcomes[0].exception, answer.outcomes[0].data)

    def would_end(self, group: str, instructions: list[tuple[int, int, int]]) -> list[bool]:
        """Returns, per instruction (virtual machine, page, operation), whether the hardware would complete it now."""
        asked = [ultravisor_pb2.Instruction(vm=vm, page=page, op=op) for vm, page, op in instructions]
        return list(self.stub.WouldEnd(ultravisor_pb2.WouldEndRequest(group=group, instructions=asked)).ends)

    def read_pages(self, group: str, first: int, count: int) -> bytes:
        """Returns the content of `count` pages. Raises PermissionError if one is secure."""
        accesses = [ultravisor_pb2.PageAccess(page=page, length=PAGE_SIZE) for page in range(first, first + count)]
        answer = self.stub.Access(ultravisor_pb2.AccessRequest(group=group, accesses=accesses))
        for page, one in zip(range(first, first + count), answer.outcomes, strict=True):
            if one.exception != ALLOWED:
                raise PermissionError(f"I/O on page {page} of {group}: exception {one.exception:#x}")
        return b"".join(one.data for one in answer.outcomes)

    def ask(self, group: str, swap: Swap) -> Ask:
        """Returns the function that answers the calls of the host's rules to the ultravisor. swap: of the group."""

        def ask(
            view: View, turn: Turn, index: int, function: str, arguments: tuple[int, ...], offer: Offer | None = None
        ) -> Result:
            part = offer_to(offer) if offer else common_pb2.Turn(token=turn.token, index=index)
            try:
                if function in WALLS[GUEST_MEMFD.name]["host"]:
                    return self._enforce(group, part, function, arguments)
                if function in SWAPS:
                    move = swap.out if function == "swap_out" else swap.back
                    return Result(move(functools.partial(self.see, group), view.meta.origin, arguments[0], part))
                if function == "hw_host":
                    return Result(self.see(group, arguments[0], written(view.live, turn.actor), part).exception)
                if function == "uv_reset":
                    return self._reset(group, view, part, arguments[0])
                return self._call(group, view, part, function, arguments, turn.actor)
            except StatusError as error:
                if error.reason == TURN_LOST:
                    raise Lost from None
                raise

        return ask

    def _enforce(self, group: str, part: common_pb2.Turn, verb: str, arguments: tuple[int, ...]) -> Result:
        """Ask the machine of a guest_memfd group. NotTaken: the turn was not taken."""
        asked = ultravisor_pb2.EnforceRequest(group=group, verb=verb, arguments=map(int, arguments), turn=part)
        answer = self.stub.Enforce(asked)
        if answer.not_taken:
            raise NotTaken
        return Result(answer.outcome)

    def _call(
        self, group: str, view: View, part: common_pb2.Turn, function: str, arguments: tuple[int, ...], actor: int
    ) -> Result:
        """Make a page call, again while it is busy if it is not the guest's own. Returns its result. NotTaken: the turn
        was not offered."""
        message = ultravisor_pb2.ExecuteRequest(group=group, turn=part, request_id=request_id())
        message.control_block = self._block(group, view.meta.origin, function, arguments, actor)
        answer = self.stub.Execute(message)
        # an import is tried once (since v5.16), every other call until it is not busy: uv_call in asm/uv.h, v6.13
        while answer.condition_code >= CC_BUSY and function not in BY_GUEST:
            answer = self.stub.Execute(message)
        if answer.not_taken:
            raise NotTaken
        if function == "uv_import" and answer.result == UV_OK:
            self.guests.unpacking.get((group, actor), {}).pop(arguments[1], None)
        return Result(answer.result, answer.fresh)

    def _block(self, group: str, origin: int, function: str, arguments: tuple[int, ...], actor: int) -> bytes:
        """The control block of a page call of model.ultravisor, for a group whose page 0 is at `origin`."""
        if function in BY_ADDRESS:
            return uvcb.pack(BY_ADDRESS[function], paddr=origin + arguments[0] * PAGE_SIZE)
        vm, *pages = arguments
        handle = self.guests.handle(group, vm)
        if function not in BY_GUEST:
            return uvcb.pack("unshare_all", guest_handle=handle)
        page, address = pages[0], pages[0] * PAGE_SIZE
        waits = self.guests.unpacking.get((group, actor), {}).get(page) if function == "uv_import" else None
        if waits:
            return uvcb.pack("unpack", guest_handle=handle, gaddr=address, tweak=waits[0], offset=waits[1])
        return uvcb.pack(BY_GUEST[function], guest_handle=handle, gaddr=address)

    def _reset(self, group: str, view: View, part: common_pb2.Turn, vm: int) -> Result:
        """Reset a machine. A guest created by calls needs the calls in a given order (kernel §1.5)."""
        guest = self.guests.find(group, vm)
        for cpu in guest.cpus if guest else ():
            self.execute("cpu_set_state", cpu_handle=cpu, state=CPU_STOPPED)
        result = self._call(group, view, part, "uv_reset", (vm,), 0)
        if guest:
            self.execute("prepare_reset", guest_handle=guest.configuration)
            for cpu in guest.cpus:
                self.execute("cpu_reset_clear", cpu_handle=cpu)
            self.execute("cpu_set_state", cpu_handle=guest.cpus[0], state=CPU_LOAD)
        return result


def written(s: State, actor: int) -> bytes:
    """Returns the bytes that a host access writes, b"" for a read or no access."""
    if s.who[actor].kind == ACCESS:
        return FLIPPED if s.task[actor].call == WRITE else b""
    return FLIPPED if s.actor[actor].budget and interpreted().turn_come(s, actor) else b""


def _decoded(kept: bytes | None) -> Created | None:
    return msgspec.msgpack.decode(kept, type=Created) if kept else None


def _key(group: str, vm: int) -> str:
    return f"uf:host:guest:{group}:{vm}"
