"""Systems of guest_memfd in which a property that is not proved may be broken: which scenarios meet what a proof
assumes, and small systems that are made of a failed step."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from ultrafolio.errors import InputError
from ultrafolio.model import scenario
from ultrafolio.model.guest_memfd.layout import HOLE, KINDS, MAPPED_PRIVATE, VCPU, VMM
from ultrafolio.model.guest_memfd.policy import MemfdPolicy
from ultrafolio.model.guest_memfd.scenario import ACTORS, BESIDE_A_HOLE

PAGES = (("private", True), ("shared", True), ("private", False), ("shared", False))
"""The one page of made systems: its state, and whether KVM maps it."""
HUGE_PAGES = (
    (["private"], True, ("shared", 0, 2)),
    (["private"], True, ("shared", 1, 1)),
    (["shared"], False, ("private", 0, 2)),
    (["private"], False, ("shared", 0, 1)),
    (["private", "shared"], True, ("private", 1, 1)),
)
"""The one huge page of made systems: its states, whether KVM maps it, and what the VMM asks for: the state that a page
and so many from it are to have."""


def meets(story: scenario.Scenario, policy: MemfdPolicy, without: Collection[int], huge: bool) -> bool:
    """Whether a scenario meets what a proof of a policy assumes; huge: of systems with huge pages, else of others."""
    memory = story.memory
    if memory["refuses"] or memory["never"]:
        return False
    if (policy.large != "none" and 1 in memory["folios"]) != huge or any(kind in without for kind, _ in story.actors):
        return False
    try:
        state = scenario.system(story, policy).state
    except InputError:
        return False
    return not any(state.pt["present"] > state.mm["allocated"] * MAPPED_PRIVATE)


def documents(kind: int, more: int, machine: str, huge: bool) -> Iterator[dict[str, Any]]:
    """Systems of one page, or of one huge page: an actor of each of these kinds, and the VMM that asks for a
    conversion."""
    kinds = [one for one in dict.fromkeys((kind, more)) if one != VMM]
    if HOLE in kinds and any(one not in BESIDE_A_HOLE for one in kinds):
        return
    if huge:
        for states, mapped, (to, page, pages) in HUGE_PAGES:
            yield {
                "design": "guest_memfd",
                "machine": machine,
                "memory": {"folios": [1], "state": states, "mapped": mapped},
                "vmm": [{"page": page, "pages": pages, "to": to}],
                **{KINDS[one]: [_actor(one)] for one in kinds},
            }
        return
    for state, mapped in PAGES:
        yield {
            "design": "guest_memfd",
            "machine": machine,
            "memory": {"folios": [0], "state": [state], "mapped": mapped},
            "vmm": [{"page": 0, "to": "private" if state == "shared" else "shared"}],
            **{KINDS[one]: [_actor(one)] for one in kinds},
        }


def _actor(kind: int) -> dict[str, Any]:
    """An actor on the one page, which acts once."""
    if kind == VCPU:
        return {"touch": [0], "share": [0], "unshare": [0]}
    return {"page": 0 if ACTORS[KINDS[kind]]["page"].kind == "int" else [0]}
