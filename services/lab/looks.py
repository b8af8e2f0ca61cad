"""How the lab's page shows a group of each design: what a page's code holds, its colours, signs and words.

A code packs the fields of a look, the first in the lowest bits, 31 bits in all. The page unpacks it by the same list,
which the start of a replay has with it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import msgspec
import numpy as np

from ultrafolio.engine.load import interpreted
from ultrafolio.model.designs import GUEST_MEMFD, S390
from ultrafolio.model.guest_memfd.layout import HW_POISONED, HW_STUCK, MAPPED, MAPPED_PRIVATE
from ultrafolio.model.layout import PAGE_STATES, SECURE

HEAD = "head"
"""The field that says whether a page is the first of its folio."""
Values = dict[str, Any]


class Field(msgspec.Struct, frozen=True, array_like=True):
    """A field of a page's code. words: for each of its values, "" for none; or the noun of a count; or nothing."""

    name: str
    width: int
    words: list[str] | str = []


class Sign(msgspec.Struct, frozen=True, array_like=True):
    """A sign on a page's square: there where the field has one of the bits of the mask."""

    words: str
    shape: Literal["outline", "corner", "dot", "bar", "triangle"]
    field: str
    mask: int


class Look(msgspec.Struct, frozen=True):
    """The look of a design.

    states   what a page is, by the field `state`;  letters: one for each;  colours: the names of theirs in page.css
    columns  heads of the ladder's columns: guest, host, ultravisor, device
    """

    states: list[str]
    letters: str
    colours: str
    fields: list[Field]
    signs: list[Sign]
    columns: list[str]

    def packed(self, values: Values, clipped: Callable[[Any, int], Any]) -> Any:
        """Returns the code of a page, or of an array of pages; clipped: limits a value to 0 and a maximum."""
        code, at = 0, 0
        for field in self.fields:
            code |= clipped(values[field.name], (1 << field.width) - 1) << at
            at += field.width
        return code

    def mask(self, name: str) -> int:
        """Returns the bits of a field in a code."""
        at = 0
        for field in self.fields:
            if field.name == name:
                return ((1 << field.width) - 1) << at
            at += field.width
        raise KeyError(name)


_S390 = Look(
    states=list(PAGE_STATES),
    letters="NSHPE",
    colours="NSHPE",
    fields=[
        Field("state", 3),
        Field("arch", 2, ["", "arch bit set", "", "arch bit set, though it is not secure"]),
        Field("locked", 1, ["", "locked"]),
        Field("frozen", 1, ["", "reference count frozen"]),
        Field("writeback", 2, ["", "flagged for writeback", "being written back", ""]),
        Field("dirty", 1, ["", "dirty"]),
        Field("flying", 1, ["", "I/O in flight"]),
        Field(HEAD, 1),
        Field("pins", 6, "pin"),
        Field("longs", 6, "long-term pin"),
        Field("refs", 7, "extra reference"),
    ],
    signs=[
        Sign("arch bit set, though not secure", "outline", "arch", 2),
        Sign("long-term pin", "corner", "longs", 63),
        Sign("pin for I/O", "dot", "pins", 63),
        Sign("writeback", "bar", "writeback", 3),
        Sign("I/O in flight", "triangle", "flying", 1),
    ],
    columns=["guest", "host MM", "ultravisor", "device"],
)
_GUEST_MEMFD = Look(
    states=["shared", "private", "shared, not allocated", "private, not allocated", "kept by the machine, or poisoned"],
    letters="SPspX",
    colours="HSNPE",
    fields=[
        Field("state", 3),
        Field("map", 2, ["", "KVM maps it as shared", "KVM maps it as private", ""]),
        Field("wrong", 1, ["", "unlike its attribute"]),
        Field("turned", 1, ["", "the guest uses it as the other kind"]),
        Field("users", 1, ["", "mapped by a process"]),
        Field("zapped", 1, ["", "under invalidation"]),
        Field("batch", 1, ["", "in an LRU batch"]),
        Field("flying", 1, ["", "I/O in flight"]),
        Field("dma", 1, ["", "mapped for DMA"]),
        Field(HEAD, 1),
        Field("longs", 5, "long-term pin"),
        Field("pins", 5, "pin"),
        Field("refs", 6, "extra reference"),
    ],
    signs=[
        Sign("KVM maps it as the other kind", "outline", "wrong", 1),
        Sign("long-term pin", "corner", "longs", 31),
        Sign("pin", "dot", "pins", 31),
        Sign("mapped by a process", "bar", "users", 1),
        Sign("I/O in flight", "triangle", "flying", 1),
    ],
    columns=["guest", "host MM, KVM", "machine", "VMM, device"],
)
LOOKS = {S390.name: _S390, GUEST_MEMFD.name: _GUEST_MEMFD}
"""By design."""


def _of_s390(s: Any, page: Any) -> Values:
    """Returns what the code of a page of s390 says, or of an array of pages of a state of record arrays."""
    rules = interpreted(S390)
    uv, mm = s.uv[page].state, s.mm[page]
    bit = s.mm[rules.bit_page(s, page)].arch > 0
    return {
        "state": uv, "arch": bit * 1 + (bit & (uv != SECURE)) * 2, "locked": mm.locked, "frozen": mm.frozen,
        "writeback": mm.writeback, "dirty": mm.dirty, "flying": s.io[page].flying,
        HEAD: rules.head(s, page) == page, "pins": mm.pins, "longs": mm.longs, "refs": mm.refs,
    }  # fmt: skip


def _of_guest_memfd(s: Any, page: Any) -> Values:
    """As _of_s390(), of guest_memfd. A map is that of KVM's table."""
    uv, mm, io, there = s.uv[page], s.mm[page], s.io[page], s.pt[page].present
    private, used = mm.private > 0, uv.shared == 0
    kept = (uv.state == HW_STUCK) | (uv.state == HW_POISONED)
    mapped = (there == MAPPED) * 1 + (there == MAPPED_PRIVATE) * 2
    return {
        "state": np.where(kept, 4, private * 1 + (mm.allocated == 0) * 2),
        "map": mapped, "wrong": (mapped > 0) & ((mapped == 2) != private), "turned": used != private,
        "users": mm.users > 0, "zapped": mm.zapped > 0, "batch": mm.batch > 0, "flying": io.flying, "dma": io.dma > 0,
        HEAD: interpreted(GUEST_MEMFD).head(s, page) == page, "longs": mm.longs, "pins": mm.pins, "refs": mm.refs,
    }  # fmt: skip


VALUES: dict[str, Callable[[Any, Any], Values]] = {S390.name: _of_s390, GUEST_MEMFD.name: _of_guest_memfd}
"""Design -> what its codes say, by field."""
for _look in LOOKS.values():
    assert sum(field.width for field in _look.fields) <= 31, "a code is a number of 31 bits"
    assert len(_look.states) == len(_look.letters) == len(_look.colours) <= 8
