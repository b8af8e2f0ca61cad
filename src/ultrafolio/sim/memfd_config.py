"""The configuration of a simulation of guest_memfd: its axes, their defaults and bounds, and the canonical form."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ultrafolio.errors import InputError, one_of
from ultrafolio.fields import Field, take
from ultrafolio.files import named
from ultrafolio.model import policies
from ultrafolio.model.bounds import fits, most
from ultrafolio.model.designs import GUEST_MEMFD
from ultrafolio.model.guest_memfd import machines
from ultrafolio.model.guest_memfd.layout import ACTOR, CFG, MM, TASK, VM
from ultrafolio.model.guest_memfd.policy import CHOICES, MemfdPolicy

from . import config, costs
from .config import recording_digest

MOST_ORDER = 18
"""A folio of 1 GiB."""
MOST_PAGES = 1 << 20
MOST_HOLDERS = 64
MOST_VCPUS = 8 * VM["fresh"].itemsize
HOLDERS = ("none", "user", "mlock", "gup", "vfio", "vmsplice", "walker", "lru")
"""Who uses pages that the guest shares: nobody, a process by its mapping, by a VM_LOCKED one, GUP-fast for direct I/O,
long-term pins of VFIO or io_uring, pipes filled by vmsplice, a PFN walker, the LRU batch of an idle CPU."""

PATIENCE: dict[str, dict[str, Any]] = {
    "for-ever": {},
    "one-try": {"retries": 1},
    "four-tries": {"retries": 4},
    "four-paused": {"retries": 4, "pause_us": 100},
    "unmap-first": {"iommu": "first"},
    "unmap-asked": {"iommu": "on-eagain"},
}
"""What a VMM does about a refusal: name -> fields that differ from PATIENCE_FIELDS."""
PATIENCE_FIELDS = {
    "retries": Field("int", 0, 0, most(CFG, "retries")),
    "pause_us": Field("int", 0, 0, 10**6),
    "iommu": Field("choice", "never", choices=CHOICES["iommu"]),
}
WORKLOAD = {
    "pages": Field("int", 0, 0, MOST_PAGES),
    "vcpus": Field("int", 2, 1, MOST_VCPUS),
    "touch_ns": Field("int", 500, 0, 10**9),
    "convert_rate": Field("number", 0.001, 0, 1),
    "request_pages": Field("int", 1, 1, 1 << MOST_ORDER),
    "pool_pages": Field("int", 64, 1, 1 << 16),
    "holders": Field("int", 2, 1, MOST_HOLDERS),
    "holder_us": Field("int", 100, 0, 10**9),
    "hold_us": Field("int", 0, 0, 2 * 10**6),
    "walker_us": Field("int", 5, 0, 10**6),
    "tlb_entries": Field("int", 1536, 0, 1 << 16),
    "touches": Field("text", ""),
    "requests": Field("text", ""),
}
"""The fields of a [workload.NAME] table of a plan of guest_memfd; memfd_words.py has their meaning."""
AXES = {
    "policy": Field("text", "gmem-7.4"),
    "order": Field("int", 0, 0, MOST_ORDER),
    "workload": Field("text", "default"),
    "machine": Field("choice", machines.NAMES[0], choices=machines.NAMES),
    "patience": Field("text", "for-ever"),
    "holder": Field("choice", "none", choices=HOLDERS),
    **{name: config.AXES[name] for name in ("placement", "costs", "seed", "duration_us", "check", "tables")},
}
SETTABLE = {**{name: AXES[name] for name in ("machine", "patience", "holder")}, **WORKLOAD, **config.WORKLOAD}
"""What `run --set` takes, of every design."""
RECORDINGS = ("touches", "requests")
READERS: Mapping[str, Callable[[Any, str], object]] = {
    "policy": policies.any_from_table,
    "workload": lambda block, where: take(block, where, WORKLOAD, then=config.THEN),
    "costs": lambda block, where: costs.from_table(block, where, GUEST_MEMFD),
    "patience": lambda block, where: take(block, where, PATIENCE_FIELDS, then=config.THEN),
}
"""What reads a definition of a plan, by the name of its table."""

fits("references of a folio, each page mapped and held", 2 << MOST_ORDER, most(MM, "refs"), "guest_memfd/layout.py: MM")
fits("pages of a request", 1 << MOST_ORDER, min(most(ACTOR, "n"), most(TASK, "n"), most(TASK, "at")),
     "guest_memfd/layout.py: TASK, ACTOR")  # fmt: skip
fits("pages of a file", MOST_PAGES << 1, min(most(CFG, "pages"), most(TASK, "end")), "guest_memfd/layout.py: CFG, TASK")
fits("the order of a huge page", MOST_ORDER, most(CFG, "block"), "guest_memfd/layout.py: CFG")
for _count in ("longs", "granted", "pins"):
    fits("holders that pin a page", MOST_HOLDERS, most(MM, _count), f"guest_memfd/layout.py: MM, {_count}")
fits("holders that reference a page, and KVM", MOST_HOLDERS + MOST_VCPUS, most(MM, "spec"),
     "guest_memfd/layout.py: MM, spec")  # fmt: skip


def resolve(cell: Mapping[str, Any], base: Path) -> dict[str, Any]:
    """The canonical configuration of a cell: every axis, workload value, policy choice and cost.

    `cell` holds axes (AXES, or any field of WORKLOAD, which overrides the workload's), and "tables": the plan's own
    [policy.*], [workload.*], [patience.*] and [costs.*] blocks. Raises InputError with the axis, the value and what is
    allowed.
    """
    tables: Mapping[str, Any] = cell.get("tables") or {}
    config.check_tables(tables, READERS)
    known = {**AXES, **{name: Field(f.kind, None, f.low, f.high, f.choices) for name, f in WORKLOAD.items()}}
    values = take(cell, "cell", known, then=config.THEN)
    workloads = {"default": {}, **tables.get("workload", {})}
    if values["workload"] not in workloads:
        raise one_of("unknown workload", values["workload"], workloads, then="add a [workload.NAME] block")
    load = take(workloads[values["workload"]], f"[workload.{values['workload']}]", WORKLOAD,
                then=config.THEN)  # fmt: skip
    load.update({field: values[field] for field in WORKLOAD if values[field] is not None})
    for field in RECORDINGS:
        if load[field]:
            load[field] = [load[field], recording_digest(named(base, load[field]))]
    if load["request_pages"] > load["pool_pages"]:
        raise InputError(
            "workload: a request is larger than the pool",
            value=load["request_pages"],
            allowed=f"at most pool_pages, {load['pool_pages']}",
            then=config.THEN,
        )
    patience = patience_of(values["patience"], tables.get("patience", {}))
    policy = policy_of(values["policy"], values["machine"], tables.get("policy"))
    return {
        "design": GUEST_MEMFD.name,
        "policy": asdict(replace(policy, retries=patience["retries"], iommu=patience["iommu"])),
        "pause_us": patience["pause_us"],
        "costs": costs.find(values["costs"], tables.get("costs", {}), base, GUEST_MEMFD),
        "workload": load,
        **{axis: values[axis] for axis in
           ("order", "machine", "holder", "placement", "seed", "duration_us", "check")},
    }  # fmt: skip


def patience_of(name: str, tables: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a patience: a [patience.NAME] block, or one of PATIENCE."""
    known = PATIENCE | dict(tables)
    if name not in known:
        raise one_of("unknown patience", name, known, then="add a [patience.NAME] block")
    return take(known[name], f"[patience.{name}]", PATIENCE_FIELDS, then=config.THEN)


def policy_of(name: str, machine: str, tables: Mapping[str, Any] | None) -> MemfdPolicy:
    """The policy of this name. Raises InputError for one of another design, or that the machine cannot enforce."""
    policy = policies.find_any(name, tables)
    if not isinstance(policy, MemfdPolicy):
        raise InputError(
            "a policy of another design",
            value=name,
            allowed=", ".join(policies.presets_of(GUEST_MEMFD.name)),
            cause="the plan is one of guest_memfd",
            then="ultrafolio policies",
        )
    if not policy.fits(machine):
        raise InputError(
            f"policy {name}: the machine cannot enforce it",
            value=machine,
            allowed=", ".join(one for one in machines.NAMES if policy.fits(one)),
            then="a [[skip]] in the plan leaves these cells out",
        )
    return policy
