"""The ultravisor call instruction: executes one control block, with its checks in the order that hosts rely on.

The checks: privilege, M3 field, block readable, command available to the caller, ultravisor initialised, length of the
block, handle, then the call's own (kernel §1.5, from kvm-unit-tests s390x/uv-host.c). A pure function of the machine;
pages are behind the protocol `Pages`.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import msgspec

from services.ultravisor import lifecycle
from services.ultravisor.lifecycle import Fields, OpenHeader, Refused
from services.ultravisor.machine_state import Configuration, Injection, Machine
from services.ultravisor.query import LENGTH, query
from ultrafolio.errors import InputError
from ultrafolio.model.layout import ALLOWED, DAT_FAULT, PAGE_SIZE, UV_BUSY, UV_EXIT, UV_INTEGRITY, UV_OK
from ultrafolio.uvcall import calls as codes
from ultrafolio.uvcall import uvcb
from ultrafolio.uvcall.calls import BY_COMMAND, CC_BUSY, CC_ERROR, CC_OK, CONFIGURATION, GUEST, HOST, Call

# ---- program interruptions of the instruction itself (kernel §1.1)
PRIVILEGED_OPERATION, SPECIFICATION, PAGE_TRANSLATION = 0x02, 0x06, 0x11
NOTIFICATION = 0x6C
"""Interception code of a guest's unshare of a page that the host pinned: ICPT_PV_NOTIFY, kernel §2.3."""


PAGE_CALLS = ("import", "export", "destroy_page", "pin", "unpin", "unpack", "share", "unshare")
"""Calls about one page."""


class Pages(Protocol):
    """The pages of calls. Every call returns a result of ultrafolio.model.layout: UV_OK, UV_ERROR, UV_BUSY,
    UV_INTEGRITY or UV_EXIT; `page`: result of `locate`."""

    def locate(self, address: int, of: Configuration | None) -> int | None:
        """The page at an absolute address of the host (of None), or at a guest's; None where none is, or is mapped."""

    def exception(self, of: Configuration, page: int) -> int:
        """Returns the program interruption of the guest's access to its page, or 0."""

    def import_(self, of: Configuration, page: int) -> int: ...
    def export(self, page: int) -> int: ...
    def destroy(self, page: int) -> int: ...
    def pin(self, page: int) -> int: ...
    def unpin(self, of: Configuration, page: int) -> int: ...
    def unpack(self, of: Configuration, page: int, key: bytes, tweak: int, offset: int) -> int:
        """Import a page that the host filled with a page of the image, encrypted: see ultrafolio.uvcall.image."""

    def content(self, page: int) -> bytes:
        """Returns the content of a guest's page, 4,096 bytes of plain text."""

    def share(self, of: Configuration, page: int) -> int: ...
    def unshare(self, of: Configuration, page: int) -> int: ...
    def unshare_all(self, of: Configuration) -> int: ...
    def reset(self, of: Configuration) -> int:
        """Unshare and destroy every page of the guest."""


class Given(NamedTuple):
    """Operands of an instruction beside its block.

    caller        handle of the configuration whose guest calls; None: the host does
    m3            the instruction's M3 field;  problem_state: whether the processor is in it
    cpus_running  processors of the host that run now
    operand       the bytes that the block points to: the SE header
    vm            number among the owners of pages, 0 to 255, of a configuration made by this call; None: the next
    group         the folio group that is to be such a configuration's memory
    """

    caller: int | None = None
    m3: int = 0
    problem_state: bool = False
    cpus_running: int = 1
    operand: bytes = b""
    vm: int | None = None
    group: str = ""


class Answer(NamedTuple):
    """Result of an instruction.

    cc            condition code: 0 done, 1 error, 2 busy, 3 partial
    block         the block with rc, rrc and outputs; as it was after an interruption, an interception, busy or partial
    machine       the new machine; the given object itself if nothing changed
    interruption  program interruption code instead of a condition code; 0 for none
    interception  code of an exit to the host instead of a condition code; 0 for none. The guest repeats the call
    result        what a page call returned, a result of ultrafolio.model.layout; None where no page call was made
    """

    cc: int
    block: bytes
    machine: Machine
    interruption: int = 0
    interception: int = 0
    result: int | None = None


class Firmware:
    """Executes control blocks on given pages. `open_header` decrypts a header with the machine's host key."""

    def __init__(self, pages: Pages, open_header: OpenHeader) -> None:
        self._pages, self._open = pages, open_header

    def execute(self, machine: Machine, block: bytes, caller: int | None = None, **given: Any) -> Answer:
        """Execute the instruction once, with the operands of `Given`. Never raises for the block's content.

        InputError: `vm` is no owner of pages.
        """
        more = Given(caller, **given)
        if more.vm is not None and not 0 <= more.vm <= 255:
            raise InputError("number of a virtual machine", value=more.vm, allowed="0 to 255, an owner of pages")
        interruption = _interruption(block, more.m3, more.problem_state)
        if interruption:
            return Answer(CC_OK, block, machine, interruption)
        read = uvcb.unpack(block)
        call = BY_COMMAND.get(read.command)
        rc = _refusal(machine, read, call, caller)
        if rc or call is None:
            return Answer(CC_ERROR, uvcb.answer(block, rc), machine)
        if call.command in machine.injections:
            return _injected(machine, block, call)
        try:
            if call.name == "query":
                return self._query(machine, block, read.length, guest=caller is not None)
            if call.name in PAGE_CALLS or call.name in lifecycle.OF_A_GUEST:
                return self._with_pages(machine, block, read.fields, call, caller)
            after, outputs = self._alone(machine, read.fields, call.name, more)
            return Answer(CC_OK, uvcb.answer(block, codes.RC_EXECUTED, **outputs), after)
        except Refused as refused:
            return Answer(CC_ERROR, uvcb.answer(block, refused.rc), machine)

    def _query(self, machine: Machine, block: bytes, length: int, *, guest: bool) -> Answer:
        """Answer a query. A block that is too short gets what fits, and rc 0x0100 (more data)."""
        told = query(machine, guest=guest)
        if length < LENGTH:
            return Answer(CC_ERROR, uvcb.answer(block, codes.RC_MORE_DATA, **told), machine)
        return Answer(CC_OK, uvcb.answer(block, codes.RC_EXECUTED, **told), machine)

    def _alone(self, machine: Machine, fields: Fields, name: str, given: Given) -> lifecycle.Done:
        """Execute a call that changes the machine and no page."""
        if name == "initialise":
            return lifecycle.initialise(machine, fields, given.cpus_running)
        if name == "create_configuration":
            return lifecycle.create_configuration(machine, fields, given.vm, given.group)
        if name == "set_parameters":
            return lifecycle.set_parameters(machine, fields, given.operand, self._open)
        if name == "verify":
            return lifecycle.verify(machine, fields, self._open)
        return lifecycle.CALLS[name](machine, fields)

    def _with_pages(self, machine: Machine, block: bytes, fields: Fields, call: Call, caller: int | None) -> Answer:
        """Execute a call on a page, or on all pages of a guest; it changes the machine only if it succeeds."""
        handle = caller if call.who == GUEST else fields.get(CONFIGURATION)
        if call.name in lifecycle.OF_A_GUEST:
            of = machine.configurations[fields[CONFIGURATION]]
            after, _ = lifecycle.OF_A_GUEST[call.name](machine, fields)
            result = self._pages.unshare_all(of) if call.name == "unshare_all" else self._pages.reset(of)
        elif handle is None:
            after, result = machine, self._of_real_storage(machine, call.name, fields["paddr"])
        else:
            of = machine.configurations[handle]
            page = self._page(of, fields["paddr" if call.who == GUEST else "gaddr"], call)
            exception = DAT_FAULT if page is None else self._pages.exception(of, page) if call.who == GUEST else ALLOWED
            if page is None or exception != ALLOWED:
                return Answer(CC_OK, block, machine, exception)
            result = self._of_guest_storage(machine, of, call.name, page, fields)
            unpacked = call.name == "unpack" and result == UV_OK
            after = lifecycle.unpacked(machine, fields, self._pages.content(page)) if unpacked else machine
        if result != UV_OK:
            return _failed(machine, block, call, result)
        return Answer(CC_OK, uvcb.answer(block, codes.RC_EXECUTED), after, result=result)

    def _page(self, of: Configuration, address: int, call: Call) -> int | None:
        """The page at a guest's address. None: a guest names a page of its own that is not mapped."""
        if address % PAGE_SIZE or not of.guest.origin <= address < of.guest.end:
            raise Refused(codes.RC_ADDRESS)
        page = self._pages.locate(address, of)
        if page is None and call.who == HOST:
            raise Refused(codes.RC_NOT_MAPPED)
        return page

    def _of_guest_storage(self, machine: Machine, of: Configuration, name: str, page: int, fields: Fields) -> int:
        """Make a call about a page of a guest's storage. Returns UV_OK or another result."""
        pages = self._pages
        if name == "unpack":
            key = lifecycle.unpacks(machine, fields, self._open).key
            return pages.unpack(of, page, key, fields["tweak"], fields["offset"])
        methods = {"import": pages.import_, "unpin": pages.unpin, "share": pages.share, "unshare": pages.unshare}
        return methods[name](of, page)

    def _of_real_storage(self, machine: Machine, name: str, address: int) -> int:
        """Export, destroy and pin name a page of the host. One that belongs to no guest is not secure: nothing to do
        for the first two (kernel §1.4), and not shared for the third."""
        page = None if address % PAGE_SIZE else self._pages.locate(address, None)
        if address % PAGE_SIZE or (page is None and address >= machine.ram):
            raise Refused(codes.RC_ADDRESS)
        if machine.donated(address):
            raise Refused(codes.RC_REFUSED)
        if page is None:
            if name == "pin":
                raise Refused(codes.RC_REFUSED)
            return UV_OK
        methods = {"export": self._pages.export, "destroy_page": self._pages.destroy, "pin": self._pages.pin}
        return methods[name](page)


def _interruption(block: bytes, m3: int, problem_state: bool) -> int:
    """Returns the program interruption before the block is read, or 0. A truncated block ends at an invalid page."""
    if problem_state:
        return PRIVILEGED_OPERATION
    if m3:
        return SPECIFICATION
    if len(block) < uvcb.HEADER.size or len(block) < uvcb.unpack(block).length:
        return PAGE_TRANSLATION
    return 0


def _refusal(machine: Machine, read: uvcb.Block, call: Call | None, caller: int | None) -> int:
    """Returns the generic response code of a block that is not executed, or 0."""
    if call is None or not call.installed or call.who == (GUEST if caller is None else HOST):
        return codes.RC_INV_CMD
    if caller is None and machine.base is None and call.name not in ("query", "initialise"):
        return codes.RC_INV_STATE
    if read.length < call.shortest or (read.length != call.length and call.name != "query"):
        return codes.RC_INV_LEN
    if call.handle == codes.CPU and read.fields[codes.CPU] not in machine.cpus:
        return codes.RC_INV_CHANDLE
    handle = caller if call.who == GUEST else read.fields.get(call.handle)
    if (call.handle == CONFIGURATION or call.who == GUEST) and handle not in machine.configurations:
        return codes.RC_INV_GHANDLE
    return 0


def _injected(machine: Machine, block: bytes, call: Call) -> Answer:
    """Returns the injected answer for this command: block unchanged, to be repeated. Consumes one injection."""
    cc, count = msgspec.structs.astuple(machine.injections[call.command])
    left = {code: injection for code, injection in machine.injections.items() if code != call.command}
    if count > 1:
        left[call.command] = Injection(cc, count - 1)
    return Answer(cc, block, machine.replace(injections=left), result=UV_BUSY)


def _failed(machine: Machine, block: bytes, call: Call, result: int) -> Answer:
    """Returns the answer to a failed page call."""
    if result == UV_EXIT:
        return Answer(CC_OK, block, machine, interception=NOTIFICATION, result=result)
    if result == UV_BUSY:
        return Answer(CC_BUSY, block, machine, result=result)
    altered = result == UV_INTEGRITY and codes.RC_INTEGRITY in call.codes
    rc = codes.RC_INTEGRITY if altered else codes.RC_REFUSED
    return Answer(CC_ERROR, uvcb.answer(block, rc), machine, result=result)
