"""Cost profiles: the time of each step, in ns. The rules do not read costs, so no cost can change a verdict.

A profile is a TOML file with a [costs] table; a missing cost has the default below. The defaults are those of
kernel §7: measured on x86 where the source says so, assumed where no public figure exists (all ultravisor
calls), so results should be read as functions of these.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ultrafolio.errors import InputError, one_of
from ultrafolio.fields import Field, read_toml, take
from ultrafolio.files import named, reading
from ultrafolio.model.bounds import fits
from ultrafolio.model.design import Design
from ultrafolio.model.designs import DESIGNS, S390
from ultrafolio.sim.records import OUTCOME_SLOTS

MOST_NS = 10_000_000_000
"""The largest cost of a step."""
DEFAULTS: dict[str, tuple[int, str]] = {
    "access": (100, "a guest access that hits: assumed, one cache miss"),
    "exit": (2_000, "SIE exit and re-entry: assumed; 1 to 10 us"),
    "import_call": (5_000, "import of 4 KiB: no public figure; 1 to 50 us"),
    "export_call": (5_000, "export of 4 KiB: no public figure; 1 to 50 us"),
    "pin_call": (1_000, "pin shared: no public figure; 0.3 to 5 us"),
    "unpin_call": (1_000, "unpin, completing an unshare: no public figure; 0.3 to 5 us"),
    "fault": (2_300, "write fault on a 4 KiB page: measured, x86 VM, Linux 6.18, p50"),
    "split_fixed": (1_500, "folio split, fixed part: fitted to measured 4.5 us for 4 pages"),
    "split_page": (750, "folio split, per sub-page: measured 0.7 to 1.1 us, x86 VM, PTE-mapped"),
    "lock": (50, "a lock or flag operation: assumed"),
    "drain_own": (300, "LRU drain of this CPU: measured upper bound"),
    "drain_all": (47_000, "LRU drain of all CPUs, fixed part: measured p50, 2 CPUs"),
    "drain_all_spread": (60_000, "its exponential part: measured mean 100 to 130 us"),
    "read": (54_000, "4 KiB O_DIRECT read: measured p50, virtio-blk"),
    "write": (72_000, "4 KiB O_DIRECT write: measured p50, virtio-blk"),
    "writeback": (1_000_000, "writeback of a folio: assumed; 0.1 to 10 ms"),
    "swap_write": (72_000, "swap write: as a 4 KiB write"),
    "swap_read": (54_000, "swap read: as a 4 KiB read"),
    "configure": (20_000, "setting a virtio device up or down, per page: assumed"),
}  # fmt: skip

MEMFD: dict[str, tuple[int, str]] = {
    "machine_call": (2_000, "a page, or an entry of a huge page, given to the machine or taken back, or split "
                            "(RMPUPDATE, PSMASH, PAGE.AUG, REMOVE, DEMOTE, a granule): no public figure; 0.5 to 50 us"),
    "zap_entry": (100, "an entry of a page table cleared: assumed, one cache miss"),
    "flush": (2_000, "a flush of the vCPUs' TLBs behind that: assumed, as an exit; 1 to 10 us"),
    "zero_page": (465, "zeroing a page as it is allocated: measured, 119 us for 1 MiB, x86 VM, Linux 6.18"),
    "restructure_fixed": (1_500, "split or merge of a huge page's folio, fixed part: assumed, as split_fixed"),
    "restructure_page": (100, "the same, per page of it: assumed; 10 to 1,000 ns"),
    "walk": (50, "a TLB miss, a walk of the guest's table and KVM's: assumed; 20 to 200 ns"),
}  # fmt: skip
"""Costs that steps of guest_memfd have beside those of DEFAULTS, for what they do to pages."""
PRICES = (*MEMFD, "tlb_entries")
"""What world.price has, in this order."""

Costs = dict[str, int]
_strange = [
    f"{word} of {rule.name}"
    for design in DESIGNS.values()
    for rule in design.rules.values()
    for word in rule.cost
    if word.removeprefix("~").partition("@")[0] not in DEFAULTS
]
fits(
    f"classes of cost, of which nobody knows {', '.join(_strange)}",
    len(DEFAULTS) + len(_strange),
    len(DEFAULTS),
    "sim/costs.py: DEFAULTS",
)


def defaults_of(design: Design) -> dict[str, tuple[int, str]]:
    """The costs that a profile has for a design: name -> default and source."""
    return DEFAULTS if design is S390 else DEFAULTS | MEMFD


def from_table(table: Mapping[str, Any], where: str, design: Design = S390) -> Costs:
    """The profile of a [costs] table, with defaults. Raises InputError for an unknown name or a cost over MOST_NS."""
    fields = {name: Field("int", ns, 0, MOST_NS) for name, (ns, _) in defaults_of(design).items()}
    return take(table, where, fields, then="ultrafolio reference costs")


def find(name: str, tables: Mapping[str, Any], base: Path, design: Design = S390) -> Costs:
    """The profile `name`: "default", a [costs.NAME] block of the file, or a FILE.toml relative to `base`."""
    if name in tables:
        return from_table(tables[name], f"[costs.{name}]", design)
    if name == "default":
        return from_table({}, "default costs", design)
    if name.endswith(".toml"):
        file = named(base, name)
        with reading(file, name):
            document = read_toml(file)
            if "costs" not in document:
                raise InputError(
                    f"{file}: no [costs] in it",
                    value=", ".join(document) or "an empty file",
                    allowed="a table [costs]",
                    cause="every cost would have its default",
                    then="ultrafolio reference costs",
                )
            return from_table(document["costs"], f"{file}: [costs]", design)
    raise one_of("unknown cost profile", name, ["default", *tables], then="a FILE.toml or a [costs.NAME] block")


def table_of(costs: Costs, design: Design = S390) -> np.ndarray[Any, Any]:
    """Cost in ns by rule x OUTCOME_SLOTS + outcome, from the cost classes of a design's rules. Slot 0 of a rule: the
    mean of the exponential part of its steps."""
    cost = np.zeros((design.last_rule + 1) * OUTCOME_SLOTS, np.int64)
    for pc, rule in design.rules.items():
        for word in rule.cost:
            name, _, outcomes = word.removeprefix("~").partition("@")
            slots = [design.constants[one] for one in outcomes.split(",")] if outcomes else range(1, OUTCOME_SLOTS)
            for slot in [0] if word.startswith("~") else slots:
                cost[pc * OUTCOME_SLOTS + slot] = costs[name]
    return cost
