"""The machine behind the control blocks: its life cycle in the shared state, its pages in their groups."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from services.identity import Identity
from services.ultravisor import entry, inventory
from services.ultravisor.firmware import Answer, Firmware
from services.ultravisor.inventory import Machine, Storage
from services.ultravisor.pages import Outcome, Pages, Part
from ultrafolio.engine.load import interpreted
from ultrafolio.model.layout import ALLOWED, MAPPED, PGM_3D, UV_BUSY, UV_OK
from ultrafolio.rpc import uvcb
from ultrafolio.rpc.messages import laboratory_handle
from ultrafolio.rpc.uvcb_calls import CC_BUSY, GUEST
from ultrafolio.rpc.v1 import ultravisor_pb2 as pb
from ultrafolio.state.burst import Result
from ultrafolio.state.redis import RedisStore

PAGE = 4096
KEY = "uf:machine:state"
EVERYTHING = 1 << 46
"""Real storage that laid-out groups may lie in, bytes: far more than the machine of the life cycle has."""


class Machines:
    """The one machine of a cluster, kept in the shared state. Every change is a compare-and-set of the whole."""

    def __init__(self, store: RedisStore) -> None:
        self._store = store
        self._lock = threading.Lock()

    def execute(
        self, request: pb.ExecuteRequest, caller: Identity, pages: Pages | None, part: Part | None
    ) -> pb.ExecuteResponse:
        """One execution of the instruction, by the host or by a guest; see firmware for the order of its checks."""
        vm = request.vm if request.HasField("vm") else int(caller.vm or 0)
        handle = (laboratory_handle(pages.group, vm) if pages else 0) if caller.role == GUEST else None
        calls = _Calls(pages, part)
        if caller.role == GUEST and pages and not part:
            exception = calls.exception(vm, request.control_block)
            if exception:
                return pb.ExecuteResponse(control_block=request.control_block, program_interruption=exception)
        with self._lock:
            answer = self._committed(request, handle, calls, pages)
        if answer.cc >= CC_BUSY and pages:
            calls.busy(request.control_block)
        return pb.ExecuteResponse(
            condition_code=answer.cc,
            control_block=answer.block,
            program_interruption=answer.interruption,
            interception=answer.interception,
            result=calls.last.code if answer.result is not None else UV_OK,
            fresh=calls.last.fresh,
            revision=pages.revision if pages else 0,
        )

    def _committed(self, request: pb.ExecuteRequest, handle: int | None, calls: _Calls, pages: Pages | None) -> Answer:
        """The answer, once the machine it leaves stands in the shared state. A page call happens once: what is done
        again after a lost race is the life cycle's part, which then meets the page as it is."""
        while True:
            kept = self._store.get(KEY)
            machine = inventory.decode(kept) if kept else Machine()
            seen = _with(machine, pages) if pages else machine
            answer = Firmware(calls).execute(
                seen,
                request.control_block,
                handle,
                m3=request.m3,
                problem_state=request.problem_state,
                cpus_running=max(1, request.running_cpus),
            )
            if answer.machine is seen:
                return answer
            after = answer.machine if not pages else machine.replace(injections=answer.machine.injections)
            if self._store.swap(KEY, kept, after.encode()):
                return answer

    def enter(self, request: pb.EnterRequest) -> int:
        """0 where a processor runs a guest, else the interception code."""
        kept = self._store.get(KEY)
        machine = inventory.decode(kept) if kept else Machine()
        return entry.enter(machine, request.configuration, request.cpu, request.asce, request.prefix_secure)

    def real_storage(self, page_numbers: Sequence[int]) -> list[Outcome]:
        """The host's accesses to real storage outside of any group: donated pages raise 0x3d, the others hold zeros."""
        kept = self._store.get(KEY)
        machine = inventory.decode(kept) if kept else Machine()
        donated = [machine.donated(page * PAGE) for page in page_numbers]
        return [Outcome(PGM_3D, b"") if secure else Outcome(ALLOWED, bytes(PAGE)) for secure in donated]

    def inject(self, command: int, count: int, cc: int) -> None:
        """The next `count` executions of a command answer busy or partial."""
        self._change(lambda machine: inventory.inject(machine, command, cc, count))

    def clear(self) -> None:
        """diag 308 load normal."""
        self._change(Machine.clear)

    def _change(self, change: Callable[[Machine], Machine]) -> None:
        while True:
            kept = self._store.get(KEY)
            after = change(inventory.decode(kept) if kept else Machine())
            if self._store.swap(KEY, kept, after.encode()):
                return


def _with(machine: Machine, pages: Pages) -> Machine:
    """The machine with the guests of a laid-out group, which run without having been created by calls."""
    memory = Storage(0, int(pages.meta.cfg["pages"][0]) * PAGE)
    guests = {laboratory_handle(pages.group, vm): (vm, memory) for vm in range(pages.meta.vms)}
    laid_out = inventory.laboratory(guests, EVERYTHING)
    return machine.replace(
        ram=EVERYTHING,
        base=machine.base or laid_out.base,
        configurations=machine.configurations | laid_out.configurations,
    )


class _Calls:
    """firmware.Pages over one group, as part of a turn or alone. Page numbers are the group's."""

    def __init__(self, pages: Pages | None, part: Part | None) -> None:
        self._of, self._part = pages, part
        self.last = Result(UV_OK)

    @property
    def _pages(self) -> Pages:
        assert self._of is not None
        return self._of

    def locate(self, address: int, vm: int | None) -> int | None:
        if self._of is None:
            return None
        meta = self._of.meta
        page = (address - (meta.origin if vm is None else 0)) // PAGE
        if not 0 <= page < meta.cfg["pages"][0]:
            return None
        if vm is not None and self._part is None and self._of.look().pt[page].present != MAPPED:
            return None
        return page

    def exception(self, vm: int, block: bytes) -> int:
        """What the hardware says before it lets a guest's own call name its page."""
        if len(block) < uvcb.HEADER.size:
            return ALLOWED
        page = self.locate(uvcb.unpack(block).fields.get("paddr", -1), vm)
        return ALLOWED if page is None else int(interpreted().hw_guest(self._pages.look(), vm, page))

    def busy(self, block: bytes) -> None:
        """A call answered busy changes nothing; as part of a turn, that is what its step goes on with."""
        read = uvcb.unpack(block)
        if self._part and read.name in ("import", "unpin", "unpack"):
            self.last = self._pages.call("uv_import", (0, 0, 0), self._part, forced=UV_BUSY)

    def _call(self, function: str, *arguments: int, image: bytes | None = None) -> int:
        self.last = self._pages.call(function, arguments, self._part, image=image)
        return self.last.code

    def import_(self, vm: int, page: int) -> int:
        return self._call("uv_import", vm, page, int(self._pages.meta.cfg["misc"][0]))

    def export(self, page: int) -> int:
        return self._call("uv_export", page)

    def destroy(self, page: int) -> int:
        return self._call("uv_destroy", page)

    def pin(self, page: int) -> int:
        return self._call("uv_pin", page)

    def unpin(self, vm: int, page: int) -> int:
        return self._call("uv_unpin", vm, page)

    def unpack(self, vm: int, page: int, tweak: int, offset: int) -> int:
        return self._call("uv_import", vm, page, int(self._pages.meta.cfg["misc"][0]))

    def share(self, vm: int, page: int) -> int:
        return self._call("uv_share", vm, page)

    def unshare(self, vm: int, page: int) -> int:
        return self._call("uv_unshare", vm, page)

    def unshare_all(self, vm: int) -> int:
        """In a step of the model, unshare all and destroy are one; by itself the call does what its name says."""
        return self._call("uv_reset" if self._part else "uv_unshare_all", vm)
