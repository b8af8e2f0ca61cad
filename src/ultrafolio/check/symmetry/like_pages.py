"""Symmetry: pages of a folio that are alike, so that one state may stand for all its permutations. For safety only.
Guests that are alike are found in like_guests.py.

Pages are alike if they start equal and every actor may choose either where it may choose the other. That is enough
where rules treat the pages of a folio one by one or as a sum. It is not where a loop takes them in order and another
part may run in between: then which page comes first can be seen, and nothing is folded there. Never folded are the
first page of a large folio, on which the folio's own fields stand, and the pages of a device.
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

_MOVING = ("uv", "mm", "io", "pt")


@dataclass(frozen=True, slots=True)
class Likeness:
    """What may change places.

    alike    per page 0, or the number of the set of like pages it belongs to
    turns    the ways to put like guests in each other's place (guests.turns)
    reasons  why others may not
    """

    alike: tuple[int, ...]
    turns: tuple[tuple[int, ...], ...]
    reasons: tuple[str, ...]


def likeness(system: System) -> Likeness:
    """Which pages and which guests are alike, and per folio why its pages or guests may not be taken for each other."""
    state = system.state
    pages = len(state.mm)
    ordered = {head: why for head in range(pages) if (why := in_order(system, head))}
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
        looks = tuple(getattr(state, name)[page].tobytes() for name in _MOVING)
        groups.setdefault((head if order else -1, chosen, looks), []).append(page)
    alike = [0] * pages
    for number, group in enumerate((g for g in groups.values() if len(g) > 1), 1):
        for page in group:
            alike[page] = number
    turns, shared = like_guests.turns(system)
    return Likeness(tuple(alike), turns, (*(f"folio of page {head}: {why}" for head, why in ordered.items()), *shared))


def in_order(system: System, head: int) -> str:
    """Why the pages of the large folio at `head` are taken in order, or ""; "" for any other page too."""
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


def required(system: System) -> Likeness:
    """likeness(), or InputError where no two pages or guests are alike: there is nothing to fold."""
    found = likeness(system)
    if not any(found.alike) and not found.turns:
        raise InputError(
            "symmetry reduction is not possible here",
            allowed="a folio with pages that are alike, or guests that are",
            cause="; ".join(found.reasons)
            or "no two pages start equal and may be chosen by the same actors, and no two guests do the same",
            then="the same without symmetry reduction",
        )
    return found


def _device_pages(system: System, of: int | None = None) -> set[int]:
    """The pages that devices, or one of them, may pin."""
    state, found = system.state, set()
    for t, some in enumerate(system.choices):
        if state.who["kind"][t] in DEVICES and of in (None, t):
            found |= {page + i for _, page in some for i in range(int(state.actor["n"][t]))}
    return found
