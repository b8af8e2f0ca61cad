"""What the names in a report mean: its axes, workloads, policies and cost profiles, so that the file stands alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ultrafolio.errors import InputError
from ultrafolio.model import policies as model
from ultrafolio.sim.config import AXES, WORKLOAD
from ultrafolio.sim.costs import DEFAULTS

from .store import MIX, Results
from .tables import Table

AXIS_MEANING = {
    "policy": "which policy tracks the pages of the guest",
    "order": "the folio order: a folio has 2^order pages of 4 KiB",
    "workload": "what the guest and its devices do; the workloads are explained below",
    "placement": "where shared pages lie: aligned, in folios of their own; contiguous, in one run that starts inside a "
                 "folio; scattered, each somewhere else",
    "costs": "what each step takes; the profiles are explained below",
    "seed": "the seed of the random numbers; it changes nothing but the order and the times of events",
    "duration_us": "simulated time of a run, in µs",
    "check": "whether the properties of the model were checked",
    "pages": "pages of a guest; 0: as many as the recording touches",
    "guests": "guests on the host",
    "vcpus": "vCPUs of a guest",
    "disks": "disk requests of a guest in flight",
    "io_pages": "pages of a disk request",
    "pool_pages": "bounce buffer pages that a guest shares",
    "rings": "virtio rings of a guest, pinned by their device until the guest reboots",
    "ring_pages": "pages of a ring",
    "ring_after_us": "when the rings are configured, in µs",
    "touch_ns": "mean time between two touches of a vCPU, in ns",
    "io_us": "mean time between two requests of one disk slot, in µs",
    "writeback_us": "mean time between two writebacks of a folio by the host, in µs; 0: none",
    "reclaim_us": "mean time between two folios that the host reclaims, in µs; 0: none",
    "lru_us": "mean time between two folios in a per-CPU batch of the LRU, in µs; 0: none",
    "mapping_us": "mean time between two changes of a mapping, in µs; 0: none",
    "speculative_us": "mean time between two speculative references, in µs; 0: none",
    "reboot_us": "mean time between two reboots of a guest, in µs; 0: none",
    "share_rate": "part of the vCPUs' operations that share or unshare a page",
    "fail_pages": "pages on which calls of the ultravisor fail",
    "backing": "what backs the guest's memory",
    "imported": "true: all pages are secure at the start; false: only the shared ones were imported before",
    "early_rings": "true: devices pin the rings before their first import",
    "one_address_space": "true: the guests share one address space on the host",
    "ownership_transfer": "true: an import takes a page of another guest without an export first",
    "touches": "the recording of page touches that the guest repeats",
    "requests": "the recording of disk requests that the guest repeats",
    "orders": "the recording that gives the sizes of the folios",
}  # fmt: skip
"""Every axis and every field of a workload, in words."""


def explained(results: Results) -> list[Table]:
    """The tables of axes, workloads, policies and cost profiles that this store names."""
    shown = [axes(results), workloads(results), policies(results), costs(results)]
    return [table for table in shown if table.rows]


def axes(results: Results) -> Table:
    """Every axis of the plan in words."""
    rows = [[name, str(len(axis.values)), AXIS_MEANING.get(name, "an axis of the plan's own")]
            for name, axis in results.axes.items()]  # fmt: skip
    if MIX in results.order.values:
        rows.append([f"order {MIX}", "", "each folio has the size that a recording gives it"])
    return Table("axis-words", "The axes.", ["axis", "values", "meaning"], rows, numeric=False)


def workloads(results: Results) -> Table:
    """Every workload: the fields in which it differs from the default, with their meaning."""
    axis = results.axes.get("workload")
    rows = []
    for value in axis.values if axis else ():
        table = results.workload(str(value))
        rows += _differing(str(value), table, {name: field.default for name, field in WORKLOAD.items()}, AXIS_MEANING)
    caption = "The workloads: what they set; every other field has the default of `ultrafolio reference`."
    return Table("workload-words", caption, ["workload", "field", "value", "meaning"], rows, numeric=False)


def policies(results: Results) -> Table:
    """Every policy: where it comes from, and every choice it makes."""
    tables = results.document.get("policy", {})
    rows = []
    for value in results.policy.values:
        name = str(value)
        own = name not in model.PRESETS or name in tables
        source = "the plan's own, or a kernel" if own else model.PRESETS[name][0]
        try:
            found = model.find(name, tables)
        except InputError:
            rows.append([name, source, "not known here"])
            continue
        choices = [f"{choice} = {getattr(found, choice)}" for choice in model.CHOICES if choice != "interrupt"]
        rows.append([name, source, ", ".join(choices)])
    words = "; ".join(f"{choice}: {model.MEANING[choice]}" for choice in model.CHOICES if choice != "interrupt")
    return Table("policy-words", f"The policies. {words}.", ["policy", "from", "choices"], rows, numeric=False)


def costs(results: Results) -> Table:
    """Every cost profile: what it sets, in ns, with the meaning; the default of each cost where it has none."""
    axis = results.axes.get("costs")
    tables = results.document.get("costs", {})
    defaults = {name: ns for name, (ns, _) in DEFAULTS.items()}
    meaning = {name: f"{text} (default {ns:,} ns)" for name, (ns, text) in DEFAULTS.items()}
    rows = []
    for value in axis.values if axis else ("default",):
        table = tables.get(str(value), {})
        rows += _differing(str(value), table if isinstance(table, dict) else {}, defaults, meaning)
        if str(value) == "default" and not table:
            rows = rows[:-1] + [["default", name, f"{ns:,} ns", meaning[name]] for name, ns in defaults.items()]
    return Table("cost-words", "The costs of a step.", ["profile", "cost", "value", "meaning"], rows, numeric=False)


def _differing(
    name: str, table: Mapping[str, Any], defaults: Mapping[str, Any], meaning: Mapping[str, str]
) -> list[list[str]]:
    """A row for every field of `table` that is not the default; one row that says so where there is none."""
    rows = [[name, field, str(value), meaning.get(field, "not known here")] for field, value in table.items()
            if value != defaults.get(field)]  # fmt: skip
    return rows or [[name, "–", "–", "the defaults, or a file of its own"]]


assert set(AXIS_MEANING) == (set(AXES) | set(WORKLOAD)) - {"tables"}, "every axis and field has its meaning"
