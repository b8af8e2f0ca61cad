"""What a scenario file of the design guest_memfd may say, and the system that it describes."""

from __future__ import annotations

from typing import Any

from ultrafolio.errors import InputError
from ultrafolio.fields import Field
from ultrafolio.model.bounds import most

from .layout import *
from .machines import MODULES
from .policy import MemfdPolicy

STATES = ("private", "shared")
MAX_VCPUS = 8 * VM["fresh"].itemsize
"""vm.fresh has a bit for each vCPU."""
MAX_HOLDERS = most(MM, "longs") - MAX_VCPUS
"""Actors that may reference a page, beside KVM for a vCPU each."""
_PAGES = Field("ints", [], 0, 4095)
_STARTS = Field("int", 1, 0, ENDLESS)
_STARTS_NONE = Field("int", 0, 0, ENDLESS)
_CPU = Field("int", 0, 0, 63)
_AFTER = Field("text", "")
_PROCESS = Field("int", 0, 0, 8 * MM["users"].itemsize - 1)
_PIN = {"page": Field("int", ..., 0, 4095), "pages": Field("int", 1, 1, 512), "process": _PROCESS, "starts": _STARTS,
        "after": _AFTER}  # fmt: skip

MEMORY = {
    "folios": Field("ints", ..., 0, 1),
    "state": Field("texts", ["private"]),
    "allocated": Field("bool", True),
    "mapped": Field("bool", False),
    "refuses": _PAGES,
    "never": _PAGES,
    "no_table": _STARTS_NONE,
    "no_folio": _STARTS_NONE,
}
ACTORS: dict[str, dict[str, Field]] = {
    "vcpu": {"cpu": _CPU, "touch": _PAGES, "share": _PAGES, "unshare": _PAGES, "small": Field("bool", False),
             "starts": _STARTS, "after": _AFTER},
    "disk": {**_PIN, "completes": Field("bool", True)},
    "lru": {"page": _PAGES, "starts": _STARTS, "cpu": _CPU, "after": _AFTER},
    "speculative": {"page": _PAGES, "starts": _STARTS, "after": _AFTER},
    "pin": _PIN,
    "vmsplice": {name: _PIN[name] for name in ("page", "process", "starts", "after")},
    "access": {"page": _PAGES, "copies": Field("bool", False), "starts": _STARTS, "after": _AFTER},
    "user": {"page": _PAGES, "process": _PROCESS, "locked": Field("bool", False), "starts": _STARTS, "after": _AFTER},
    "vmm": {"page": Field("int", ..., 0, 4095), "pages": Field("int", 1, 1, 512), "cpu": _CPU,
            "to": Field("choice", ..., choices=STATES), "starts": _STARTS, "after": _AFTER},
    "hole": {"page": Field("int", ..., 0, 4095), "pages": Field("int", 1, 1, 512), "starts": _STARTS, "after": _AFTER},
}  # fmt: skip
"""A table per actor. process: whose page table it uses; locked: its mapping is VM_LOCKED; to: what is asked for."""
BESIDE_A_HOLE = (VCPU, USER, VMM, HOLE, ACCESS)
"""Kinds of actors that a scenario with a hole may have, a user without a VM_LOCKED mapping. The others may keep a page
for as long as they like, as a batch keeps one that was locked, and a page that is freed while somebody keeps it has no
place in a state."""


def system(
    memory: dict[str, Any], actors: list[tuple[int, dict[str, Any]]], policy: MemfdPolicy, machine: int, where: str
) -> tuple[MemfdState, list[list[tuple[int, int]]]]:
    """Returns the initial state under a policy, and what each actor may choose.

    machine: its number. Nothing is mapped into a process at the start; a private page that KVM maps is the guest's, and
    accepted. A guest that converts by itself has shared no page that is not allocated. InputError for more vCPUs than a
    state can hold.
    """
    pages = sum(1 << order for order in memory["folios"])
    vcpus = sum(kind == VCPU for kind, _ in actors)
    if vcpus > MAX_VCPUS:
        raise InputError(f"{where}: too many vCPUs", value=vcpus, allowed=f"at most {MAX_VCPUS} in one machine")
    holders = sum(kind in (DISK, PIN, SPLICE, SPECULATIVE) for kind, _ in actors)
    if holders > MAX_HOLDERS:
        raise InputError(f"{where}: too many actors that hold pages", value=holders, allowed=f"at most {MAX_HOLDERS}")
    kept = [kind for kind, actor in actors if kind not in BESIDE_A_HOLE or actor.get("locked")]
    if kept and any(kind == HOLE for kind, _ in actors):
        raise InputError(
            f"{where}: a hole, and what may keep a page",
            value=f"[[{KINDS[kept[0]]}]]{' with locked = true' if kept[0] == USER else ''}",
            allowed=", ".join(f"[[{KINDS[kind]}]]" for kind in BESIDE_A_HOLE) + ", none with locked = true",
            cause="the page that is freed would live on outside the file, which this model does not follow",
            then="docs/model.md, section 9.3",
        )
    state = new_state(pages, len(actors), 1)
    for name, code in policy.codes().items():
        state.cfg[name] = code
    state.cfg["machine"] = machine
    huge = policy.large != "none" and 1 in memory["folios"]
    state.cfg["block"] = huge
    if huge and (0 in memory["folios"] or any(kind == HOLE for kind, _ in actors)):
        raise InputError(
            f"{where}: huge pages beside single ones, or a hole",
            value=memory["folios"],
            allowed="folios of order 1 only, and no [[hole]], under a policy with huge pages",
            then="docs/model.md, section 9.10",
        )
    words = memory["state"] * (1 if len(memory["state"]) == pages else pages)
    shared = [word == "shared" and (memory["allocated"] or policy.convert != "by-guest") for word in words]
    state.uv["shared"] = shared
    state.mm["private"] = [not one for one in shared]
    state.mm["allocated"] = memory["allocated"]
    private = [all(not one for one in shared[p & ~1 : (p & ~1) + 2]) for p in range(pages)]
    state.mm["order"] = [huge and (one or not memory["allocated"]) for one in private]
    state.mm["stale"] = NOT_WRITTEN if huge and not memory["allocated"] else UP_TO_DATE
    state.vm["no_table"], state.vm["no_folio"] = memory["no_table"], memory["no_folio"]
    if policy.convert == "by-guest":
        state.mm["private"] = 0
        state.pt["present"] = [MAPPED_PRIVATE if one or memory["mapped"] else UNMAPPED for one in shared]
        state.uv["state"] = [HW_BOTH if one else HW_PRIVATE if memory["mapped"] else HW_HOST for one in shared]
    elif memory["mapped"]:
        state.pt["present"] = [MAPPED if one else MAPPED_PRIVATE for one in shared]
        private_is = HW_PRIVATE if HW_PRIVATE in MODULES[machine].STATES else HW_HOST
        state.uv["state"] = [HW_HOST if one else private_is for one in shared]
        state.pt["large"] = state.mm["order"]
        state.uv["large"] = [order and MODULES[machine].HAS_ENTRIES for order in state.mm["order"]]
    if policy.hold == "mapping":
        mapped = [int(one != UNMAPPED) for one in state.pt["present"]]
        state.mm["spec"] = state.mm["kvm"] = mapped
        whole = [order and not p & 1 for p, order in enumerate(state.mm["order"])]
        state.mm["refs"] = [sum(mapped[p : p + 2]) if one else mapped[p] for p, one in enumerate(whole)]
        state.mm["refs"][[p for p, order in enumerate(state.mm["order"]) if order and p & 1]] = 0
    for name in ("refuses", "never"):
        state.uv[name][memory[name]] = 1
    return state, [_actor(state, t, kind, actor, pages) for t, (kind, actor) in enumerate(actors)]


def _actor(state: MemfdState, t: int, kind: int, actor: dict[str, Any], pages: int) -> list[tuple[int, int]]:
    """Enter one actor; return its choices."""
    who = state.who[t]
    who["kind"], who["cpu"], who["process"] = kind, actor.get("cpu", 0), actor.get("process", 0)
    who["stuck"], who["locks"] = not actor.get("completes", True), actor.get("locked", False)
    who["copies"], who["small"] = actor.get("copies", False), actor.get("small", False)
    state.task["pc"][t] = IDLE_PC[kind]
    state.actor["budget"][t], state.actor["n"][t] = actor["starts"], actor.get("pages", 1)
    every = list(range(pages))
    if kind == VCPU:
        named = any(actor[word] for word in ("touch", "share", "unshare"))
        ops = [(TOUCH, actor["touch"] if named else every), (SHARE, actor["share"]), (UNSHARE, actor["unshare"])]
        return [(op, page) for op, chosen in ops for page in chosen]
    if kind == VMM:
        return [(UNSHARE if actor["to"] == "private" else SHARE, actor["page"])]
    page = actor["page"]
    return [(TOUCH, p) for p in (([page] if isinstance(page, int) else page) or every)]
