"""Which pages and machines an actor's steps can look at, and the regions into which that divides them.

A step of a thread looks at the folios of the pages that its actor may choose, as they are at the start (they are split,
never joined), and at the actor's own machine, if it is a guest's. An actor of a kind that is not in NAMED looks at
everything: a reboot takes all pages of its machine.

In the design guest_memfd a step looks at the pages from the first to the last that its actor may choose, in huge pages;
of single pages two are looked at together, as TDX keeps one record for both (machines/tdx.py, tdx_neighbour). All but
FILELESS take the file's lock, which is in the machine. Its properties ask the same pages
(model/guest_memfd/properties.py, broken_within).
"""

from __future__ import annotations

from dataclasses import dataclass

from ultrafolio.check.kinds import DEVICES, WORKERS
from ultrafolio.engine.tables import guest_kinds
from ultrafolio.model import designs
from ultrafolio.model.designs import S390
from ultrafolio.model.layout import ACCESS, LRU, SPECULATIVE, TAMPER, VCPU
from ultrafolio.model.scenario import System

NAMED = (VCPU, *DEVICES, *WORKERS, LRU, TAMPER)
"""Kinds of actors whose steps look at the folios of their choices."""
GUEST_KINDS = guest_kinds()
"""Those of a guest; the others are the host's, and look at no machine."""
FILELESS = (LRU, SPECULATIVE, ACCESS)
"""Kinds of guest_memfd that look at no machine."""
MOST_REGIONS = 8
"""Most regions of a system. Each has a field in every row."""


@dataclass(frozen=True, slots=True)
class Regions:
    """The regions of a system.

    places  per region: its positions, pages and then machines
    uses    per actor and region: whether the actor's steps look at it
    extents  per actor: the range of pages that its steps look at, the first and the one behind the last
    """

    places: tuple[tuple[int, ...], ...]
    uses: tuple[tuple[bool, ...], ...]
    extents: tuple[tuple[int, int], ...]


def together(system: System) -> Regions:
    """Returns one region of all pages and machines, at which every actor looks."""
    pages, actors = len(system.state.mm), len(system.choices)
    return Regions((tuple(range(pages + len(system.state.vm))),), ((True,),) * actors, ((0, pages),) * actors)


def regions_of(system: System) -> Regions:
    """Returns the regions: positions that the same actors look at. A machine is of the region of pages that all use who
    look at it, if that is only one: so most actors use one region. Beyond MOST_REGIONS the last are one."""
    pages, everything = len(system.state.mm), frozenset(range(len(system.state.mm) + len(system.state.vm)))
    reached = [places_of(system, t) & everything for t in range(len(system.choices))]
    alike: dict[tuple[bool, ...], list[int]] = {}
    for place in range(pages):
        alike.setdefault(tuple(place in mine for mine in reached), []).append(place)
    for place in sorted(everything)[pages:]:
        users = tuple(place in mine for mine in reached)
        shared = [found for found in alike if _all_use(users, found) and alike[found][0] < pages]
        alike.setdefault(shared[0] if len(shared) == 1 else users, []).append(place)
    found = list(alike.values())
    last = sorted(place for places in found[MOST_REGIONS - 1 :] for place in places)
    places = tuple(tuple(some) for some in [*found[: MOST_REGIONS - 1], last] if some)
    uses = tuple(tuple(not mine.isdisjoint(some) for some in places) for mine in reached)
    return Regions(places, uses, tuple(extent_of(system, t) for t in range(len(reached))))


def _all_use(users: tuple[bool, ...], found: tuple[bool, ...]) -> bool:
    """Whether all users of a machine are among those of a region. A machine that nobody looks at is of any."""
    return all(other for mine, other in zip(users, found, strict=True) if mine)


def places_of(system: System, t: int) -> frozenset[int]:
    """Returns the positions (pages, machines) that steps of actor `t` can look at."""
    state, pages = system.state, len(system.state.mm)
    kind = int(state.who["kind"][t])
    if designs.of(state) is not S390:
        first, end = extent_of(system, t)
        return frozenset([*range(first, end), *(() if kind in FILELESS else (pages + int(state.who["vm"][t]),))])
    if kind not in NAMED:
        return frozenset(range(pages + len(state.vm)))
    found = {pages + int(state.who["vm"][t])} if kind in GUEST_KINDS else set()
    for page in _chosen(system, t):
        order = int(state.mm["order"][page])
        head = page >> order << order
        found.update(range(head, head + (1 << order)))
    return frozenset(found)


def extent_of(system: System, t: int) -> tuple[int, int]:
    """Returns the range of pages that steps of actor `t` can look at: the first, and the one behind the last. It is
    never empty; an actor without choices takes no step."""
    pages = len(system.state.mm)
    if designs.of(system.state) is S390:
        mine = [place for place in places_of(system, t) if place < pages]
        return (min(mine), max(mine) + 1) if mine else (0, 1)
    mine, order = _chosen(system, t) or [0], max(int(system.state.cfg["block"][0]), 1)
    return min(mine) >> order << order, min(((max(mine) >> order) + 1) << order, pages)


def _chosen(system: System, t: int) -> list[int]:
    """Returns the pages that actor `t` may choose, with those behind them that it takes at once."""
    state = system.state
    several = int(state.who["kind"][t]) in DEVICES or designs.of(state) is not S390
    more = int(state.actor["n"][t]) if several else 1
    return [page for _, first in system.choices[t] for page in range(first, first + more)]
