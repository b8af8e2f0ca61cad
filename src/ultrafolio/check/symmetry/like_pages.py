"""Symmetry: interchangeable pages of a folio. Valid for safety properties only. like_guests.py finds the guests.

Two pages are interchangeable if their records start equal and every actor that may choose one may choose the other.
That suffices where rules take the pages of a folio one by one or as a sum. It does not where a loop takes them in order
and other threads run in between: the order is visible, and the folio's pages are excluded. The first page of a large
folio, which holds the folio's own fields, and the pages of a device are always excluded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ultrafolio.check.kinds import DEVICES
from ultrafolio.check.symmetry import like_guests
from ultrafolio.errors import InputError
from ultrafolio.model.layout import (
    ACC_UNIT_PAGE,
    ACCESS,
    IOMAP,
    LARGE_SPLIT,
    REBOOT,
    RECLAIM,
    UNMAP_FOLIO,
    WRITEBACK,
)
from ultrafolio.model.scenario import System

_PAGE_SECTIONS = ("uv", "mm", "io", "pt")


@dataclass(frozen=True, slots=True)
class Symmetry:
    """The symmetry of a system.

    page_class    per page: 0, or the number of its class of interchangeable pages
    permutations  like_guests.permutations()
    reasons       why other pages and guests are excluded
    """

    page_class: tuple[int, ...]
    permutations: tuple[tuple[int, ...], ...]
    reasons: tuple[str, ...]


def symmetry_of(system: System) -> Symmetry:
    """Returns the interchangeable pages and guests of a system, and per folio why others are excluded."""
    state = system.state
    pages = len(state.mm)
    ordered = {head: why for head in range(pages) if (why := order_reason(system, head))}
    devices = _device_pages(system)
    groups: dict[Any, list[int]] = {}
    for page in range(pages):
        order = int(state.mm["order"][page])
        head = page >> order << order
        if page in devices or head in ordered or (order and page == head):
            continue
        chosen = tuple(
            (t, op)
            for t, some in enumerate(system.choices)
            if state.who["kind"][t] != REBOOT
            for op, p in some
            if p == page
        )
        looks = tuple(getattr(state, name)[page].tobytes() for name in _PAGE_SECTIONS)
        groups.setdefault((head if order else -1, chosen, looks), []).append(page)
    page_class = [0] * pages
    for number, group in enumerate((g for g in groups.values() if len(g) > 1), 1):
        for page in group:
            page_class[page] = number
    permutations, shared = like_guests.permutations(system)
    return Symmetry(
        tuple(page_class), permutations, (*(f"folio of page {head}: {why}" for head, why in ordered.items()), *shared)
    )


def order_reason(system: System, head: int) -> str:
    """Returns why the pages of the large folio at `head` are taken in order, or "". "" also where no large folio
    starts."""
    state, cfg = system.state, system.state.cfg[0]
    order = int(state.mm["order"][head])
    if not order or head >> order << order != head:
        return ""
    inside = range(head, head + (1 << order))
    for t, some in enumerate(system.choices):
        kind = int(state.who["kind"][t])
        here = any(page in inside for _, page in some) and state.actor["budget"][t] > 0
        if kind == WRITEBACK and here:
            return "writeback makes every page accessible, one after the other"
        if kind == RECLAIM and here and cfg["unmap"] == UNMAP_FOLIO:
            return "reclaim exports every page of the folio, one after the other"
        if kind == ACCESS and here and cfg["accessible"] != ACC_UNIT_PAGE:
            return "a host access makes every page of the folio accessible, one after the other"
        if kind in DEVICES and _device_pages(system, t) & set(inside) and cfg["accessible"] != ACC_UNIT_PAGE:
            return "a pin makes every page of the folio accessible, one after the other"
    if cfg["large"] == LARGE_SPLIT and cfg["split_writeback"] and state.mm["backing"][head] == IOMAP:
        return "an import writes the folio back before it splits it, page after page"
    return ""


def required_symmetry(system: System) -> Symmetry:
    """Returns symmetry_of(system). Raises InputError if no two pages or guests are interchangeable."""
    found = symmetry_of(system)
    if not any(found.page_class) and not found.permutations:
        raise InputError(
            "symmetry reduction is not possible here",
            allowed="a folio with pages that are alike, or guests that are",
            cause="; ".join(found.reasons)
            or "no two pages start equal and may be chosen by the same actors, and no two guests do the same",
            then="the same without symmetry reduction",
        )
    return found


def _device_pages(system: System, of: int | None = None) -> set[int]:
    """Returns the pages that devices, or device `of`, may pin."""
    state, found = system.state, set()
    for t, some in enumerate(system.choices):
        if state.who["kind"][t] in DEVICES and of in (None, t):
            found |= {page + i for _, page in some for i in range(int(state.actor["n"][t]))}
    return found
