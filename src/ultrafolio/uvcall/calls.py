"""The table of ultravisor calls: command codes, block lengths, fields, installed bits, and the response codes of each.

Offsets and lengths follow the structures of Linux arch/s390/include/asm/uv.h (v6.13); response codes follow
kvm-unit-tests s390x/uv-host.c, uv-guest.c and pv-attest.c (kernel §1.1 to §1.4). For a refusal without a published code
this project chooses one, from 0x100 on and different from the published ones, and lists it in `Call.chosen`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

# ---- condition codes: done; see rc and rrc; busy: repeat the call; partial: work progressed, repeat the call
CC_OK, CC_ERROR, CC_BUSY, CC_PARTIAL = range(4)

# ---- generic response codes (kernel §1.2)
RC_EXECUTED, RC_INV_CMD, RC_INV_STATE, RC_INV_LEN = 0x0001, 0x0002, 0x0003, 0x0005
RC_INV_GHANDLE, RC_INV_CHANDLE = 0x0020, 0x0021
RC_MORE_DATA = 0x0100
NEED_DESTROY = 0x8000
"""Flag in the rc of a failed create-configuration call: destroy the created handle before the next try."""

RC_NOT_MAPPED = 0x010A
"""Import, unpin and unpack: the address is not mapped in the host's tables; fault it in and repeat the call."""
RC_ADDRESS, RC_REFUSED, RC_INTEGRITY = 0x0101, 0x0111, 0x0112
"""Chosen for host calls: no such address; the page's state does not allow the call; content was altered."""

HOST, GUEST, BOTH = "host", "guest", "both"
CONFIGURATION, CPU = "guest_handle", "cpu_handle"

# ---- states of a processor (Cpu set state)
CPU_OPERATING, CPU_STOPPED, CPU_CHECK_STOPPED, CPU_LOAD = 1, 2, 3, 5


class Field(NamedTuple):
    """A field of a block: offset and width in bytes; an unsigned big-endian number."""

    offset: int
    width: int = 8


class Call(NamedTuple):
    """One ultravisor call.

    name, command  name in this project, command code
    length         of the whole block, bytes;  shortest: the least accepted length, smaller only for Query
    who            HOST, GUEST or BOTH
    bit            in Query's bitmap of installed calls, counted from the left; None if none is published
    inputs         fields that the caller sets;  outputs: fields that the ultravisor sets
    handle         name of the input that must be a known handle, CONFIGURATION or CPU; "" for none
    codes          response codes of this call only -> meaning
    chosen         those of `codes` that this project chose
    installed      whether this ultravisor has the call; if not, its bit is clear and the answer is 0x0002
    """

    name: str
    command: int
    length: int
    who: str
    bit: int | None
    inputs: Mapping[str, Field] = {}
    outputs: Mapping[str, Field] = {}
    handle: str = ""
    codes: Mapping[int, str] = {}
    chosen: frozenset[int] = frozenset()
    installed: bool = True
    shortest: int = 0

    def returns(self, rc: int) -> bool:
        """Whether `rc` is documented for this call."""
        generic = {RC_EXECUTED, RC_INV_CMD, RC_INV_STATE, RC_INV_LEN}
        if self.handle or self.who == GUEST:
            generic.add(RC_INV_CHANDLE if self.handle == CPU else RC_INV_GHANDLE)
        return rc in generic or rc in self.codes


_GUEST, _CPU, _ADDRESS = {CONFIGURATION: Field(0x18)}, {CPU: Field(0x18)}, {"paddr": Field(0x18)}
_GUEST_PAGE = {CONFIGURATION: Field(0x18), "gaddr": Field(0x20)}
_OF_PADDR = {
    RC_ADDRESS: "address not of a page of real storage",
    RC_REFUSED: "the page's state does not allow it, or it is donated",
}
_OF_GADDR = {
    RC_ADDRESS: "address not of a page of guest storage",
    RC_NOT_MAPPED: "address not mapped in the host's tables",
    RC_REFUSED: "the state of the page or the configuration does not allow it",
    RC_INTEGRITY: "the page's content was altered",
}
_CHOSEN = frozenset({RC_ADDRESS, RC_REFUSED, RC_INTEGRITY})
_RESET = {RC_REFUSED: "the processor, or others of the configuration, or the order of a reset does not allow it"}
_SHARED = {0x101: "address outside guest memory", RC_REFUSED: "the page's state does not allow it"}

QUERY_FIELDS = {
    "calls": Field(0x10, 32), "uv_base_stor_len": Field(0x40), "conf_base_phys_stor_len": Field(0x50),
    "conf_base_virt_stor_len": Field(0x58), "conf_virt_var_stor_len": Field(0x60), "cpu_stor_len": Field(0x68),
    "max_num_sec_conf": Field(0x7C, 4), "max_guest_stor_addr": Field(0x80), "max_guest_cpu_id": Field(0x9E, 2),
    "features": Field(0xA0), "header_versions": Field(0xB0), "pcf": Field(0xB8), "dump_state_len": Field(0xC8),
    "dump_finalize_len": Field(0xD0), "attest_versions": Field(0xE0), "attest_flags": Field(0xE8),
    "secret_versions": Field(0xF8), "secret_pcf": Field(0x100), "secret_types": Field(0x108),
    "max_secrets": Field(0x110, 2), "max_retrievable_secrets": Field(0x112, 2),
}  # fmt: skip

_TABLE = (
    Call("query", 0x0001, 0x120, BOTH, 0, outputs=QUERY_FIELDS, shortest=0xA8,
         codes={RC_MORE_DATA: "the block is too short for all data; what fits is there"}),
    Call("query_keys", 0x0002, 0x200, BOTH, 34, installed=False),
    Call("initialise", 0x000F, 0x48, HOST, 1, {"stor_origin": Field(0x18), "stor_len": Field(0x20)}, codes={
        0x101: "initialised already", 0x102: "more than one processor is running", 0x103: "wrong length of storage",
        0x104: "origin outside memory or not on 1 MiB", 0x105: "origin and length reach beyond memory",
        0x108: "origin below 2 GiB"}),
    Call("create_configuration", 0x0100, 0x80, HOST, 2, {
        "conf_base_stor": Field(0x20), "conf_var_stor": Field(0x28), "flags": Field(0x36, 2),
        "guest_stor_origin": Field(0x38), "guest_stor_len": Field(0x40), "sca": Field(0x48), "asce": Field(0x50),
    }, {CONFIGURATION: Field(0x18)}, codes={
        0x101: "guest storage begins above the highest guest address", 0x102: "guest storage empty or ends above it",
        0x105: "bad address space control element", 0x106: "another configuration has that element",
        0x108: "base storage outside memory", 0x109: "base storage contains the lowcore",
        0x10A: "base storage not on 16 KiB, or donated already",
        0x10B: "variable storage outside memory, not on 4 KiB, or donated already",
        0x10C: "no system control area", 0x10D: "system control area inaccessible",
        0x10E: "variable storage contains the lowcore", 0x10F: "no more configurations",
        0x110: "the virtual machine has a configuration",
    }, chosen=frozenset({0x106, 0x10A, 0x10B, 0x10F, 0x110})),
    Call("destroy_configuration", 0x0101, 0x40, HOST, 3, _GUEST, handle=CONFIGURATION,
         codes={RC_REFUSED: "it still has processors"}, chosen=_CHOSEN),
    Call("destroy_configuration_fast", 0x0102, 0x48, HOST, 23, _GUEST, handle=CONFIGURATION,
         codes={0x104: "nothing to do; tolerated by KVM", RC_REFUSED: "it still has processors"}, chosen=_CHOSEN),
    Call("create_cpu", 0x0120, 0x60, HOST, 4, {
        CONFIGURATION: Field(0x20), "stor_origin": Field(0x28), "number": Field(0x36, 2), "state_origin": Field(0x38),
    }, {CPU: Field(0x18)}, CONFIGURATION, {
        0x103: "number above the highest", 0x104: "defined already", 0x105: "storage inaccessible",
        0x106: "storage in the lowcore", 0x107: "state description inaccessible"}),
    Call("destroy_cpu", 0x0121, 0x40, HOST, 5, _CPU, handle=CPU),
    Call("import", 0x0200, 0x28, HOST, 6, _GUEST_PAGE, handle=CONFIGURATION, codes=_OF_GADDR, chosen=_CHOSEN),
    Call("export", 0x0201, 0x20, HOST, 7, _ADDRESS, codes=_OF_PADDR, chosen=_CHOSEN),
    Call("destroy_page", 0x0202, 0x20, HOST, None, _ADDRESS, chosen=_CHOSEN,
         codes=_OF_PADDR | {0x107: "the page was not secure (old firmware, rrc 0x0d)"}),
    Call("set_parameters", 0x0300, 0x50, HOST, 11, {
        CONFIGURATION: Field(0x18), "header_origin": Field(0x20), "header_len": Field(0x28, 4),
    }, handle=CONFIGURATION, codes={0x103: "header inaccessible", 0x108: "no matching host key",
                                    RC_REFUSED: "a header was accepted before",
                                    RC_INTEGRITY: "the header was altered"}, chosen=_CHOSEN),
    Call("unpack", 0x0301, 0x50, HOST, 13, _GUEST_PAGE | {"tweak": Field(0x28), "offset": Field(0x30)},
         handle=CONFIGURATION, codes=_OF_GADDR, chosen=_CHOSEN),
    Call("verify", 0x0302, 0x40, HOST, 14, _GUEST, handle=CONFIGURATION,
         codes={RC_REFUSED: "no header yet, or verified already", RC_INTEGRITY: "not the pages that the header says"},
         chosen=_CHOSEN),
    Call("cpu_reset", 0x0310, 0x40, HOST, 15, _CPU, handle=CPU, codes=_RESET, chosen=_CHOSEN),
    Call("cpu_reset_initial", 0x0311, 0x40, HOST, 16, _CPU, handle=CPU, codes=_RESET, chosen=_CHOSEN),
    Call("prepare_reset", 0x0320, 0x40, HOST, 18, _GUEST, handle=CONFIGURATION, codes=_RESET, chosen=_CHOSEN),
    Call("cpu_reset_clear", 0x0321, 0x40, HOST, 19, _CPU, handle=CPU, codes=_RESET, chosen=_CHOSEN),
    Call("cpu_set_state", 0x0330, 0x50, HOST, 17, _CPU | {"state": Field(0x27, 1)}, handle=CPU,
         codes=_RESET | {RC_ADDRESS: "no such state"}, chosen=_CHOSEN),
    Call("unshare_all", 0x0340, 0x40, HOST, 20, _GUEST, handle=CONFIGURATION, codes=_RESET, chosen=_CHOSEN),
    Call("pin", 0x0341, 0x20, HOST, 21, _ADDRESS, codes=_OF_PADDR, chosen=_CHOSEN),
    Call("unpin", 0x0342, 0x28, HOST, 22, _GUEST_PAGE, handle=CONFIGURATION, codes=_OF_GADDR, chosen=_CHOSEN),
    Call("dump_init", 0x0400, 0x40, HOST, 24, installed=False),
    Call("dump_storage_state", 0x0401, 0x50, HOST, 25, installed=False),
    Call("dump_cpu", 0x0402, 0x50, HOST, 26, installed=False),
    Call("dump_complete", 0x0403, 0x50, HOST, 27, installed=False),
    Call("share", 0x1000, 0x30, GUEST, 8, {"paddr": Field(0x20)}, codes=_SHARED, chosen=frozenset({RC_REFUSED})),
    Call("unshare", 0x1001, 0x30, GUEST, 9, {"paddr": Field(0x20)}, codes=_SHARED, chosen=frozenset({RC_REFUSED})),
    Call("attest", 0x1020, 0x188, GUEST, 28, installed=False),
    Call("add_secret", 0x1031, 0x48, GUEST, 29, installed=False),
    Call("list_secrets", 0x1033, 0x48, GUEST, 30, installed=False),
    Call("lock_secrets", 0x1034, 0x48, GUEST, 31, installed=False),
    Call("retrieve_secret", 0x1035, 0x48, GUEST, 33, installed=False),
)  # fmt: skip

CALLS: Mapping[str, Call] = {call.name: call._replace(shortest=call.shortest or call.length) for call in _TABLE}
"""Name -> call. Dump, attestation, secrets and key hashes are listed but not installed: their cryptography does not
concern page states."""
BY_COMMAND: Mapping[int, Call] = {call.command: call for call in CALLS.values()}


def installed_for(guest: bool) -> list[Call]:
    """Returns the installed calls of a guest, or of the host."""
    return [call for call in CALLS.values() if call.installed and call.who in (BOTH, GUEST if guest else HOST)]
