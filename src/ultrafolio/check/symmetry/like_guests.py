"""Symmetry: guests that are alike, so that one state may stand for all that differ in which of them is which.

Guests are alike if one can be put in the place of the other, with its pages in their order, its vCPUs and devices, and
whoever of the host works on its pages, and the system is the same as before. Whole folios change places, so neither
their first pages nor loops that take pages in order can tell. A guest that shares a folio with another stays where it
is: one of the two would have to have the folio's first page.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from ultrafolio.check.kinds import DEVICES
from ultrafolio.engine.tables import guest_kinds
from ultrafolio.model.layout import NON_SECURE, REBOOT, VCPU, WHO
from ultrafolio.model.scenario import System

MOST = 4
"""Guests of one kind that are folded; the ways to put them grow with the factorial."""
_ITS_OWN = guest_kinds()
"""Actors that belong to a guest; all others are the host's, whatever machine stands in their record."""


def turns(system: System) -> tuple[tuple[tuple[int, ...], ...], tuple[str, ...]]:
    """Every way to put like guests in each other's place but the one that moves nothing, as Space.moves has them; and
    why some guests were not looked at."""
    pages, reasons = pages_of(system)
    classes: list[list[int]] = []
    for vm in pages:
        for like in classes:
            if len(like) < MOST and _moves(system, pages, {like[0]: vm, vm: like[0]}):
                like.append(vm)
                break
        else:
            classes.append([vm])
    made = []
    for orders in itertools.product(*(itertools.permutations(like) for like in classes)):
        to = dict(zip(itertools.chain(*classes), itertools.chain(*orders), strict=True))
        moves = _moves(system, pages, to) if any(a != b for a, b in to.items()) else None
        if moves:
            made.append(moves)
    return tuple(made), reasons


def pages_of(system: System) -> tuple[dict[int, list[int]], tuple[str, ...]]:
    """The pages of each guest that shares no folio with another, those of whole folios; and which guests do."""
    state = system.state
    pages, vms = len(state.mm), len(state.vm)
    heads = [page >> int(state.mm["order"][page]) << int(state.mm["order"][page]) for page in range(pages)]
    users: list[set[int]] = [set() for _ in range(pages)]
    for page in range(pages):
        if state.uv["state"][page] != NON_SECURE:
            users[heads[page]].add(int(state.uv["owner"][page]))
    for t, some in enumerate(system.choices):
        if state.who["kind"][t] in (VCPU, *DEVICES):
            for _, first in some:
                for page in range(first, first + (1 if state.who["kind"][t] == VCPU else int(state.actor["n"][t]))):
                    users[heads[page]].add(int(state.who["vm"][t]))
    reasons = tuple(
        f"folio of page {head}: guests {', '.join(map(str, sorted(some)))} have pages in it"
        for head, some in enumerate(users)
        if len(some) > 1
    )
    apart = [vm for vm in range(vms) if all(some == {vm} for some in users if vm in some)]
    return {vm: [p for p in range(pages) if users[heads[p]] == {vm}] for vm in apart}, reasons


def _moves(system: System, pages: Mapping[int, Sequence[int]], to: Mapping[int, int]) -> tuple[int, ...] | None:
    """Where every page, machine and actor goes when guests go where `to` says; None if the system would not be the
    same afterwards."""
    state = system.state
    vms = [to.get(vm, vm) for vm in range(len(state.vm))]
    page = list(range(len(state.mm)))
    for vm, other in to.items():
        if len(pages[vm]) != len(pages[other]):
            return None
        for p, q in zip(pages[vm], pages[other], strict=True):
            page[p] = q
    alike = all(
        _place(state, p) == _place(state, page[p]) and _page(state, p, vms) == _page(state, page[p])
        for p in range(len(page))
    )
    alike = alike and all(state.vm[vm] == state.vm[other] for vm, other in enumerate(vms))
    actors = _actors(system, page, vms) if alike else None
    if actors is None:
        return None
    width = len(page) + len(vms)
    return (*page, *(len(page) + vm for vm in vms), *(width + t for t in actors))


def _place(state: Any, p: int) -> tuple[int, int]:
    """Order of a page's folio, and which of its pages it is."""
    order = int(state.mm["order"][p])
    return order, p & ((1 << order) - 1)


def _page(state: Any, p: int, vms: Sequence[int] = ()) -> tuple[Any, ...]:
    """What a page holds; its owner as it would be called after machines went where `vms` says."""
    _, owner, *uv = (int(n) for n in state.uv[p])
    secure = int(state.uv["state"][p])
    if vms and secure != NON_SECURE:
        owner = vms[owner]
    return secure, owner, *uv, state.mm[p].tobytes(), state.io[p].tobytes(), state.pt[p].tobytes()


def _actors(system: System, page: Sequence[int], vms: Sequence[int]) -> list[int] | None:
    """Where each actor goes: to one that is what it would be, comes after the one that it would come after, and may
    choose what it then might."""
    left = list(range(len(system.choices)))
    made: dict[int, int] = {}
    for t in _in_turn(system):
        wanted = _wanted(system, t, page, vms, made)
        found = [other for other in left if _actor(system, other) == wanted] if wanted else []
        if not found:
            return None
        made[t] = found[0]
        left.remove(found[0])
    return [made[t] for t in range(len(system.choices))]


def _in_turn(system: System) -> list[int]:
    """The actors, each behind the one that it comes after."""
    after = system.state.who["after"].tolist()

    def before(t: int) -> int:
        return 1 + before(after[t] - 1) if after[t] else 0

    return sorted(range(len(after)), key=before)


def _wanted(
    system: System, t: int, page: Sequence[int], vms: Sequence[int], made: Mapping[int, int]
) -> tuple[Any, ...] | None:
    """What an actor would be after pages, machines and the actors of `made` went where these say; None for a device
    whose pages would be apart."""
    state, some = system.state, system.choices[t]
    kind, vm, after, *rest = _who(system, t)
    n = int(state.actor["n"][t])
    chosen = set(some)
    if kind != REBOOT:
        chosen = {(op, page[p]) for op, p in some}
    if kind in DEVICES and any(page[p + i] != page[p] + i for _, p in some for i in range(n)):
        return None
    return (
        kind,
        vms[vm] if kind in _ITS_OWN else -1,
        made[after - 1] + 1 if after else 0,
        rest,
        state.task[t],
        state.actor[t],
        chosen,
    )


def _actor(system: System, t: int) -> tuple[Any, ...]:
    """What an actor is and may choose, as `_wanted` has it."""
    state = system.state
    kind, vm, after, *rest = _who(system, t)
    return (kind, vm if kind in _ITS_OWN else -1, after, rest, state.task[t], state.actor[t], set(system.choices[t]))


def _who(system: System, t: int) -> list[int]:
    """An actor's record of `who`: kind, machine and the actor that it comes after, then every other field."""
    first = ("kind", "vm", "after")
    who = system.state.who[t]
    return [int(who[name]) for name in (*first, *(name for name in WHO.names or () if name not in first))]
