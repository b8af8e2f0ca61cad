"""The machine of the control blocks: its life cycle in the shared state, its pages in their groups."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple, Protocol

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from services.ultravisor import machine_state, sie
from services.ultravisor.calls import Calls
from services.ultravisor.commits import Part
from services.ultravisor.contents import Contents
from services.ultravisor.firmware import PAGE_CALLS, Answer, Firmware
from services.ultravisor.machine_state import Configuration, Machine, Storage
from services.ultravisor.pages import Outcome, Pages
from ultrafolio.model.layout import ALLOWED, PAGE_SIZE, PGM_3D, UV_BUSY, UV_ERROR, UV_OK
from ultrafolio.rpc.messages import laboratory_handle
from ultrafolio.rpc.v1 import common_pb2
from ultrafolio.rpc.v1 import ultravisor_pb2 as pb
from ultrafolio.state.acl import group_name
from ultrafolio.state.redis import RedisStore
from ultrafolio.state.requests import repeats
from ultrafolio.state.store import FormerOwner, StoreBehind
from ultrafolio.uvcall import image, uvcb
from ultrafolio.uvcall.calls import CC_BUSY, CC_OK

KEY, BEHIND = "uf:machine:state", "uf:machine:behind"
"""Redis keys: the machine, and the mark of one that lost changes."""
BEYOND = 1 << 46
"""Address of the base storage of a machine that is not initialised but has laid-out groups: overlaps no other."""
ADDRESSING = 0x05
"""Program interruption: an address that is not of real storage."""
ON_LAID_OUT = (*PAGE_CALLS, "unshare_all")
"""Calls allowed for guests of laid-out groups, which no call created."""


class Groups(Protocol):
    """The pages of a folio group by its name; StatusError if there is no such group."""

    def __getitem__(self, name: str) -> Pages: ...

    def seized(self, name: str) -> Pages:
        """The same, from whichever ultravisor owns the group."""


class Seen(NamedTuple):
    """The machine for one call: with the guests of a laid-out group, which no call created.

    lent: handles of these guests
    """

    machine: Machine
    lent: Mapping[int, Configuration]

    def without(self, kept: Machine, after: Machine) -> Machine:
        """Returns the stored machine after the call: `after` without the lent guests."""
        if not self.lent:
            return after
        own = {handle: of for handle, of in after.configurations.items() if handle not in self.lent}
        return after.replace(base=kept.base, configurations=own)


class Machines:
    """The machine of a cluster, in the shared state. Every change is a compare-and-set of the whole.

    contents: its storage and its secrets;  groups: the pages by folio group
    """

    def __init__(self, store: RedisStore, contents: Contents, groups: Groups) -> None:
        self._store, self._contents, self._groups = store, contents, groups
        self._seen = contents.seen
        self._fresh = Machine(seed=contents.secret("handles"))
        self._host_key = X25519PrivateKey.from_private_bytes(contents.secret("host key"))
        self._open = lru_cache(64)(lambda header: image.open_header(header, self._host_key))

    @property
    def host_key(self) -> bytes:
        """The public host key, 32 bytes: owners of guests seal images for it."""
        return self._host_key.public_key().public_bytes_raw()

    def execute(self, request: pb.ExecuteRequest, guest: int | None, part: Part | None) -> pb.ExecuteResponse:
        """Execute the instruction once, for virtual machine `guest` of the request's group, or for the host (None).
        firmware has the order of its checks.

        A page call is committed before its change of the machine. On a conflict the call is repeated, which for these
        calls (unpack, unshare all, destroy) has the same result.
        """
        asker = "host" if guest is None else str(guest)
        named = f"{request.request_id}@{asker}" if request.request_id else ""  # an id is its caller's own
        name = uvcb.unpack(request.control_block).name if len(request.control_block) >= uvcb.HEADER.size else ""
        while True:
            kept, machine = self._kept()
            self.check(request.owner)
            before = next((machine.answered[one] for one in machine.answered if named and repeats(named, one)), None)
            if before:
                return pb.ExecuteResponse(condition_code=before.condition_code, control_block=before.block)
            pages = self._pages(request, machine)
            # the guests of a deleted group can be destroyed by no call, as no group has their pages
            present = machine.without(self._deleted(machine)) if name == "create_configuration" else machine
            calls, seen = Calls(pages, part, request.request_id), _seen(present, pages, name)
            caller = None if guest is None else _handle_of(seen.machine, pages, guest)
            answer = Firmware(calls, self._open).execute(
                seen.machine,
                request.control_block,
                caller,
                m3=request.m3,
                problem_state=request.problem_state,
                cpus_running=max(1, request.running_cpus),
                operand=request.operand,
                vm=request.vm if guest is None and request.HasField("vm") else None,
                group=request.group,
            )
            after = seen.without(present, answer.machine)
            if answer.machine is seen.machine or after == machine:
                break
            if request.request_id and not part and answer.cc == CC_OK:
                after = after.answering(named, answer.cc, answer.block)
            if self._put(kept, machine, after):
                break
        if calls.last is None and not answer.interruption and not answer.interception and answer.cc != CC_OK:
            calls.untouched(name, busy=answer.cc >= CC_BUSY)
        return _response(answer, calls, pages)

    def check(self, owner: common_pb2.Ownership) -> None:
        """Raises FormerOwner if a host asks for a group that another host owns now. Where the machine is read before
        and stored after, nothing of the next owner is in between."""
        if owner.epoch and self._store.owned(group_name(owner.group), "host") != owner.epoch:
            raise FormerOwner(f"{owner.group}, ownership {owner.epoch}")

    def _pages(self, request: pb.ExecuteRequest, machine: Machine) -> Pages | None:
        """Returns the pages of a call: those of the named group, else the memory of the configuration."""
        name = request.group
        if not name and len(request.control_block) >= uvcb.HEADER.size:
            handle = uvcb.unpack(request.control_block).fields.get("guest_handle", 0)
            of = machine.configurations.get(handle)
            name = of.group if of else ""
        return self._groups[name] if name else None

    def enter(self, request: pb.EnterRequest) -> int:
        """0 where a processor runs a guest, else the interception code."""
        _, machine = self._kept()
        self.check(request.owner)
        of = machine.configurations.get(request.configuration)
        prefix = of is not None and self._accessible(of, request.prefix)
        return sie.enter(machine, request.configuration, request.cpu, request.asce, prefix, request.running)

    def _accessible(self, of: Configuration, prefix: int) -> bool:
        """Whether the guest may access both pages of its prefix area."""
        if not of.group:
            return False
        pages = self._groups[of.group]
        first = (prefix - of.guest.origin) // PAGE_SIZE
        inside = 0 <= first < int(pages.meta.cfg["pages"][0]) - 1
        return inside and all(pages.guest_view(of.vm, page) == ALLOWED for page in (first, first + 1))

    def diagnose_308(self, group: str, guest: int, subcode: int) -> None:
        """A guest asks for its reset. InputError: it was not created by calls, or there is no such subcode."""

        def asked(machine: Machine) -> Machine:
            return sie.diagnose_308(machine, _handle_of(machine, self._groups[group], guest), subcode)

        self._change(asked)

    def real_storage(self, accesses: Sequence[pb.PageAccess]) -> list[Outcome]:
        """Do the host's accesses to real storage outside of groups. Returns an outcome each: 0x3d on donated pages."""
        _, machine = self._kept()
        return [self._stored(machine, one) for one in accesses]

    def _stored(self, machine: Machine, one: pb.PageAccess) -> Outcome:
        """Access a page of the machine itself, which no guest owns."""
        address = one.page * PAGE_SIZE
        if address >= machine.ram:
            return Outcome(ADDRESSING, b"")
        if machine.donated(address):
            return Outcome(PGM_3D, b"")
        if one.data:
            self._contents.write(address, 0, one.data, one.offset)
        return Outcome(ALLOWED, self._contents.read(address, 0)[one.offset : one.offset + one.length])

    def inject(self, command: int, count: int, cc: int) -> None:
        """The next `count` executions of a command answer busy or partial."""
        self._change(lambda machine: machine_state.inject(machine, command, cc, count))

    def clear(self) -> None:
        """diag 308 load normal: remove all guests; donated storage reads as zeros. Groups with a guest are this
        ultravisor's own from then on."""
        _, machine = self._kept()
        gone = self._deleted(machine)
        for of in machine.configurations.values():
            if of.group and of.group not in gone:
                self._groups.seized(of.group).call("uv_reset", (of.vm,))
        self._change(Machine.clear)

    def _deleted(self, machine: Machine) -> set[str]:
        """Returns the groups of the machine's guests that were deleted."""
        return self._store.deleted({of.group for of in machine.configurations.values() if of.group})

    def _change(self, change: Callable[[Machine], Machine]) -> None:
        """Store the changed machine; computed anew while another process changes it."""
        while True:
            kept, machine = self._kept()
            if self._put(kept, machine, change(machine)):
                return

    def _kept(self) -> tuple[bytes | None, Machine]:
        """Returns the stored bytes and the machine; a new one if none is stored. Raises StoreBehind for an old one."""
        kept = self._store.get(KEY)
        machine = machine_state.decode(kept) if kept else self._fresh
        # missing after an operator accepted an empty store
        machine = machine if machine.seed else machine.replace(seed=self._fresh.seed)
        if machine.changes < self._seen:
            self._store.swap(BEHIND, None, b"1")
            raise StoreBehind(KEY)
        self._see(machine.changes)
        return kept, machine

    def _put(self, kept: bytes | None, machine: Machine, after: Machine) -> bool:
        """Zero returned storage, then store the machine. False if the stored one has changed."""
        left = set(after.storages())
        for storage in machine.storages():
            if storage not in left:
                self._contents.clear(storage.origin, storage.length)
        new = after.replace(changes=machine.changes + 1).encode()
        done = self._store.swap(KEY, kept, new) or self._store.get(KEY) == new
        if done:
            self._see(machine.changes + 1)
        return done

    def _see(self, changes: int) -> None:
        """Record the machine's number of changes, if it is higher than the recorded one."""
        if changes > self._seen:
            self._seen = self._contents.seen = changes


def _seen(machine: Machine, pages: Pages | None, name: str) -> Seen:
    """Returns the machine as a call sees it: with the guests of a laid-out group, which no call created."""
    if pages is None or name not in ON_LAID_OUT:
        return Seen(machine, {})
    memory = Storage(0, int(pages.meta.cfg["pages"][0]) * PAGE_SIZE)
    created = {of.vm for of in machine.configurations.values() if of.group == pages.group}
    guests = {laboratory_handle(pages.group, vm): (vm, memory) for vm in range(pages.meta.vms) if vm not in created}
    laid_out = machine_state.laboratory(guests, BEYOND, pages.group)
    configurations = machine.configurations | laid_out.configurations
    base = machine.base or (laid_out.base if guests else None)
    return Seen(machine.replace(base=base, configurations=configurations), laid_out.configurations)


def _handle_of(machine: Machine, pages: Pages | None, vm: int) -> int:
    """Returns the handle of a virtual machine of a group: from its creation or its layout, else 0."""
    if pages is None:
        return 0
    mine = (of.handle for of in machine.configurations.values() if (of.group, of.vm) == (pages.group, vm))
    return next(mine, laboratory_handle(pages.group, vm))


def _response(answer: Answer, calls: Calls, pages: Pages | None) -> pb.ExecuteResponse:
    untouched = (UV_OK, UV_ERROR, UV_BUSY, UV_BUSY)[answer.cc]
    return pb.ExecuteResponse(
        condition_code=answer.cc,
        control_block=answer.block,
        program_interruption=answer.interruption,
        interception=answer.interception,
        result=calls.last.code if calls.last else untouched,
        fresh=bool(calls.last and calls.last.fresh),
        revision=pages.revision if pages and calls.last else 0,
    )
