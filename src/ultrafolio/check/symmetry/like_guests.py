"""Symmetry: interchangeable guests, and the permutations of them.

Two guests are interchangeable if swapping them leaves the system unchanged: their pages in order, vCPUs, devices, and
the host threads that work on their pages. Whole folios are swapped, so neither the first page of a folio nor a loop
that takes pages in order tells the two apart. A guest that shares a folio with another is excluded: only one of the two
can have the folio's first page.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from ultrafolio.check.kinds import DEVICES
from ultrafolio.engine.tables import guest_kinds
from ultrafolio.model.layout import NON_SECURE, REBOOT, VCPU, WHO, State
from ultrafolio.model.scenario import System

MAX_GUESTS = 4
"""Most guests of a class; the number of permutations is its factorial."""
_GUEST_KINDS = guest_kinds()
"""Kinds of actors that belong to a guest. All others are the host's; their who.vm has no meaning."""


def permutations(system: System) -> tuple[tuple[tuple[int, ...], ...], tuple[str, ...]]:
    """Returns all permutations of interchangeable guests but the identity, each as a row of Space.permutations; and the
    reasons why other guests are excluded."""
    pages, reasons = pages_of(system)
    classes: list[list[int]] = []
    for vm in pages:
        for like in classes:
            if len(like) < MAX_GUESTS and _mapping(system, pages, {like[0]: vm, vm: like[0]}):
                like.append(vm)
                break
        else:
            classes.append([vm])
    made = []
    for orders in itertools.product(*(itertools.permutations(like) for like in classes)):
        to = dict(zip(itertools.chain(*classes), itertools.chain(*orders), strict=True))
        mapping = _mapping(system, pages, to) if any(a != b for a, b in to.items()) else None
        if mapping:
            made.append(mapping)
    return tuple(made), reasons


def pages_of(system: System) -> tuple[dict[int, list[int]], tuple[str, ...]]:
    """Returns the pages, by guest, of the guests that share no folio with another; and the reasons why the others are
    excluded."""
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


def _mapping(system: System, pages: Mapping[int, Sequence[int]], to: Mapping[int, int]) -> tuple[int, ...] | None:
    """Returns the position that each page, machine and actor maps to if guest g maps to `to[g]`; None if that changes
    the system."""
    state = system.state
    vms = [to.get(vm, vm) for vm in range(len(state.vm))]
    page = list(range(len(state.mm)))
    for vm, other in to.items():
        if len(pages[vm]) != len(pages[other]):
            return None
        for p, q in zip(pages[vm], pages[other], strict=True):
            page[p] = q
    alike = all(
        _position(state, p) == _position(state, page[p]) and _content(state, p, vms) == _content(state, page[p])
        for p in range(len(page))
    )
    alike = alike and all(state.vm[vm] == state.vm[other] for vm, other in enumerate(vms))
    actors = _actor_mapping(system, page, vms) if alike else None
    if actors is None:
        return None
    width = len(page) + len(vms)
    return (*page, *(len(page) + vm for vm in vms), *(width + t for t in actors))


def _position(state: State, p: int) -> tuple[int, int]:
    """Returns the order of a page's folio, and the page's index in it."""
    order = int(state.mm["order"][p])
    return order, p & ((1 << order) - 1)


def _content(state: State, p: int, vms: Sequence[int] = ()) -> tuple[Any, ...]:
    """Returns the contents of a page's records, with its owner mapped by `vms`."""
    _, owner, *uv = (int(n) for n in state.uv[p])
    secure = int(state.uv["state"][p])
    if vms and secure != NON_SECURE:
        owner = vms[owner]
    return secure, owner, *uv, state.mm[p].tobytes(), state.io[p].tobytes(), state.pt[p].tobytes()


def _actor_mapping(system: System, page: Sequence[int], vms: Sequence[int]) -> list[int] | None:
    """Returns the actor that each actor maps to: one with the same records, choices and predecessor (who.after) under
    the mapping. None if there is none."""
    left = list(range(len(system.choices)))
    made: dict[int, int] = {}
    for t in _in_start_order(system):
        wanted = _image_of(system, t, page, vms, made)
        found = [other for other in left if _key_of(system, other) == wanted] if wanted else []
        if not found:
            return None
        made[t] = found[0]
        left.remove(found[0])
    return [made[t] for t in range(len(system.choices))]


def _in_start_order(system: System) -> list[int]:
    """Returns the actors, each after its predecessor (who.after)."""
    after = system.state.who["after"].tolist()

    def before(t: int) -> int:
        return 1 + before(after[t] - 1) if after[t] else 0

    return sorted(range(len(after)), key=before)


def _image_of(
    system: System, t: int, page: Sequence[int], vms: Sequence[int], made: Mapping[int, int]
) -> tuple[Any, ...] | None:
    """Returns _key_of() an actor with its pages, machine and predecessor mapped; None for a device whose pages are not
    contiguous then."""
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
        vms[vm] if kind in _GUEST_KINDS else -1,
        made[after - 1] + 1 if after else 0,
        rest,
        state.task[t],
        state.actor[t],
        chosen,
    )


def _key_of(system: System, t: int) -> tuple[Any, ...]:
    """Returns what must be equal for two actors to be interchangeable: kind, records, choices."""
    state = system.state
    kind, vm, after, *rest = _who(system, t)
    return (
        kind,
        vm if kind in _GUEST_KINDS else -1,
        after,
        rest,
        state.task[t],
        state.actor[t],
        set(system.choices[t]),
    )


def _who(system: System, t: int) -> list[int]:
    """Returns an actor's record of `who`: kind, machine, predecessor, then every other field."""
    first = ("kind", "vm", "after")
    who = system.state.who[t]
    return [int(who[name]) for name in (*first, *(name for name in WHO.names or () if name not in first))]
