"""Which pages and machines an actor's steps can look at, and the regions into which that divides them.

A step of a thread looks at the folios of the pages that its actor may choose, as they are at the start (they are split,
never joined), and at the actor's own machine, if it is a guest's. An actor of a kind that is not in NAMED looks at
everything: a reboot takes all pages of its machine. So does every actor of another design than s390.
"""

from __future__ import annotations

from dataclasses import dataclass

from ultrafolio.check.kinds import DEVICES, WORKERS
from ultrafolio.engine.tables import guest_kinds
from ultrafolio.model import designs
from ultrafolio.model.designs import S390
from ultrafolio.model.layout import LRU, TAMPER, VCPU
from ultrafolio.model.scenario import System

NAMED = (VCPU, *DEVICES, *WORKERS, LRU, TAMPER)
"""Kinds of actors whose steps look at the folios of their choices."""
GUEST_KINDS = guest_kinds()
"""Those of a guest; the others are the host's, and look at no machine."""
MOST_REGIONS = 8
"""Most regions of a system. Each has a field in every row."""


@dataclass(frozen=True, slots=True)
class Regions:
    """The regions of a system.

    places  per region: its positions, pages and then machines
    uses    per actor and region: whether the actor's steps look at it
    """

    places: tuple[tuple[int, ...], ...]
    uses: tuple[tuple[bool, ...], ...]


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
    return Regions(places, tuple(tuple(not mine.isdisjoint(some) for some in places) for mine in reached))


def _all_use(users: tuple[bool, ...], found: tuple[bool, ...]) -> bool:
    """Whether all users of a machine are among those of a region. A machine that nobody looks at is of any."""
    return all(other for mine, other in zip(users, found, strict=True) if mine)


def places_of(system: System, t: int) -> frozenset[int]:
    """Returns the positions (pages, machines) that steps of actor `t` can look at."""
    state, pages = system.state, len(system.state.mm)
    kind = int(state.who["kind"][t])
    if designs.of(state) is not S390 or kind not in NAMED:
        return frozenset(range(pages + len(state.vm)))
    more = int(state.actor["n"][t]) if kind in DEVICES else 1
    found = {pages + int(state.who["vm"][t])} if kind in GUEST_KINDS else set()
    for _, first in system.choices[t]:
        for page in range(first, first + more):
            order = int(state.mm["order"][page])
            head = page >> order << order
            found.update(range(head, head + (1 << order)))
    return frozenset(found)
