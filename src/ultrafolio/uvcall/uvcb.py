"""Ultravisor control blocks: pack, unpack, answer.

A block is big endian: a header of u16 length, u16 command, u16 rc, u16 rrc, then the fields of the call
(`uvcall.calls.CALLS`, kernel §1.1).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from ultrafolio.errors import InputError, one_of
from ultrafolio.nouns import plural
from ultrafolio.uvcall.calls import BY_COMMAND, CALLS, Call, Field

HEADER = struct.Struct(">4H")
THEN = "see ultrafolio.uvcall.calls.CALLS"


class Block(NamedTuple):
    """An unpacked block. `name` and `fields` are empty if the command is unknown. Fields beyond the block's end are
    missing."""

    length: int
    command: int
    rc: int
    rrc: int
    name: str
    fields: Mapping[str, int]


def pack(name: str, *, length: int | None = None, **fields: int) -> bytes:
    """Returns the block of call `name` with these inputs, the rest zeros.

    length: of the block and in its header, bytes, instead of the call's own.
    Raises InputError for an unknown call or field, or a number that is too wide.
    """
    call = CALLS.get(name)
    if call is None:
        raise one_of("ultravisor call", name, CALLS, then=THEN)
    size = call.length if length is None else length
    if not HEADER.size <= size <= 0xFFFF:
        raise InputError(f"{name}: length of the block", value=size, allowed="8 to 65535 bytes", then=THEN)
    block = bytearray(size)
    HEADER.pack_into(block, 0, size, call.command, 0, 0)
    _set(block, name, call.inputs, fields)
    return bytes(block)


def unpack(block: bytes) -> Block:
    """Returns the header and all fields. Raises InputError for fewer bytes than a header has."""
    if len(block) < HEADER.size:
        raise InputError(
            "control block", value=plural(len(block), "byte"), allowed="8 bytes of header at least", then=THEN
        )
    length, command, rc, rrc = HEADER.unpack_from(block)
    call = BY_COMMAND.get(command)
    fields = dict(_fields(call, block[:length])) if call else {}
    return Block(length, command, rc, rrc, call.name if call else "", fields)


def answer(block: bytes, rc: int, rrc: int = 0, **outputs: int) -> bytes:
    """Returns the block with rc, rrc and outputs set, everything else unchanged.

    Outputs beyond the header's length are left out. Raises InputError for an unknown output or a number too wide.
    """
    length, command, _, _ = HEADER.unpack_from(block)
    answered = bytearray(block)
    HEADER.pack_into(answered, 0, length, command, rc, rrc)
    if outputs:
        call = BY_COMMAND[command]
        cut = {name for name, field in call.outputs.items() if field.offset + field.width > length}
        _set(answered, call.name, call.outputs, {name: n for name, n in outputs.items() if name not in cut})
    return bytes(answered)


def _set(block: bytearray, name: str, known: Mapping[str, Field], values: Mapping[str, int]) -> None:
    """Write fields into a control block. Raises InputError for an unknown field, or a wrong size."""
    for key, value in values.items():
        if key not in known:
            raise one_of(f"{name}: field", key, known, then=THEN)
        offset, width = known[key]
        if not 0 <= value < 1 << 8 * width:
            raise InputError(f"{name}.{key}", value=value, allowed=f"0 to {(1 << 8 * width) - 1:#x}", then=THEN)
        if offset + width > len(block):
            raise InputError(
                f"{name}.{key}",
                value=f"a block of {plural(len(block), 'byte')}",
                allowed=f"at least {plural(offset + width, 'byte')}",
                then=THEN,
            )
        block[offset : offset + width] = value.to_bytes(width, "big")


def _fields(call: Call, block: bytes) -> Iterator[tuple[str, int]]:
    """Yields (name, value) of each field of a call that lies within the block."""
    for name, (offset, width) in {**call.inputs, **call.outputs}.items():
        if offset + width <= len(block):
            yield name, int.from_bytes(block[offset : offset + width], "big")
