"""Make a cost profile from samples: [costs] for the simulator, and the measurements behind them."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ultrafolio.sim.costs import DEFAULTS, Costs

from .measures import WRITEBACK_BYTES
from .sample import Missing, Sample

FLOOR = "a floor: the encryption alone, in software here; the call around it is firmware's"
MEASURED = {
    "import_call": ("open", FLOOR),
    "export_call": ("seal", FLOOR),
    "fault": ("fault_4kB", "the first touch, with zeroing; a write fault on a mapped page is less"),
    "drain_own": ("drain_own", ""),
    "drain_all": ("drain_all", ""),
    "read": ("read_4kB", ""),
    "write": ("write_4kB", ""),
    "writeback": (f"writeback_{WRITEBACK_BYTES >> 10}kB", "without the journal"),
    "swap_write": ("write_4kB", "as a 4 KiB write"),
    "swap_read": ("read_4kB", "as a 4 KiB read"),
}
"""Cost that is the median of a sample -> (name of the sample, remark for the reader)."""

UNMEASURED = {
    "access": "a guest's access, needs a guest",
    "exit": "needs a secure guest (s390)",
    "pin_call": "needs an ultravisor (s390)",
    "unpin_call": "needs an ultravisor (s390)",
    "lock": "inside the kernel, not to be told apart from the rest of a call",
    "configure": "needs a virtio device of a guest",
}
"""Cost that cannot be measured without secure guests -> the reason."""


@dataclass(frozen=True, slots=True)
class Cost:
    """One entry of the profile. `source`: "measured" or "assumed". `why`: the sample, or why there is none."""

    name: str
    ns: int
    source: str
    why: str


def entries(samples: Sequence[Sample], missing: Sequence[Missing]) -> list[Cost]:
    """Every cost of the simulator, in its order: measured if the samples allow it, else the default as assumed."""
    by = {made.name: made for made in samples}
    found = {cost.name: cost for cost in [*_medians(by), *_splits(by), *_spread(by)]}
    because = {lost.name: lost.reason for lost in missing}
    return [
        found.get(name) or Cost(name, ns, "assumed", _reason(name, because, one_size="split_page" in found))
        for name, (ns, _) in DEFAULTS.items()
    ]


def _medians(by: dict[str, Sample]) -> list[Cost]:
    """Returns the costs that are the median of a sample."""
    return [
        Cost(name, by[source].median, "measured", _reason_text(by[source], remark))
        for name, (source, remark) in MEASURED.items()
        if source in by
    ]


def _reason_text(made: Sample, remark: str = "") -> str:
    return f"the median of {made.name}" + (f": {remark}" if remark else "")


def _spread(by: dict[str, Sample]) -> list[Cost]:
    """Returns the cost drain_all_spread, if drain_all was measured."""
    if "drain_all" not in by:
        return []
    made = by["drain_all"]
    beyond = max(0, made.mean - made.median)
    return [Cost("drain_all_spread", beyond, "measured", "the mean of drain_all less its median")]


def _splits(by: dict[str, Sample]) -> list[Cost]:
    """split_fixed and split_page: the line through the medians by pages; with one size only, split_page above the
    assumed fixed part. Each size weighs by 1/pages², so that small folios count as much as large ones."""
    medians = {int(name[6:-2]) // 4: made.median for name, made in by.items() if name.startswith("split_")}
    if not medians:
        return []
    sizes = ", ".join(f"{pages * 4} kB" for pages in sorted(medians))
    if len(medians) == 1:
        ((pages, median),) = medians.items()
        part = max(0, round((median - DEFAULTS["split_fixed"][0]) / pages))
        return [Cost("split_page", part, "measured", f"split of {sizes}, less the assumed fixed part")]
    x, y = np.array([*medians.keys()], float), np.array([*medians.values()], float)
    slope, fixed = np.polyfit(x, y, 1, w=1 / x)
    why = f"line through the medians of {sizes}"
    return [
        Cost("split_fixed", max(0, round(fixed)), "measured", why),
        Cost("split_page", max(0, round(slope)), "measured", why),
    ]


_MEASURES = {"import_call": "crypto", "export_call": "crypto", "fault": "fault", "drain_own": "drain",
             "drain_all": "drain", "drain_all_spread": "drain", "read": "direct_io", "write": "direct_io",
             "swap_read": "direct_io", "swap_write": "direct_io", "writeback": "writeback"}  # fmt: skip
"""Cost -> the measure that gives it; those of splits come from the measures of the folio sizes."""


def _reason(name: str, because: dict[str, str], *, one_size: bool) -> str:
    """Why a cost keeps its default."""
    if name in UNMEASURED:
        return UNMEASURED[name]
    if name in _MEASURES:
        return because.get(_MEASURES[name], "not measured")
    if one_size:
        return "two folio sizes tell it from the part per page, and one is offered: --folio-sizes, as root"
    return next((reason for lost, reason in because.items() if lost.startswith("folio")), "not measured")


def costs(made: Sequence[Cost]) -> Costs:
    """The costs in ns by name, for the simulator."""
    return {cost.name: cost.ns for cost in made}


def machine() -> str:
    """A description of the machine without its name: system, kernel, architecture, processors."""
    return f"{platform.system()} {platform.release()}, {platform.machine()}, {os.cpu_count()} CPUs"


def toml(made: Sequence[Cost], samples: Sequence[Sample], missing: Sequence[Missing], command: str) -> str:
    """The cost profile as TOML. The simulator reads [costs]; the other tables document the measurement."""
    lines = ["# What steps take on one machine. Use it with: ultrafolio run --costs THIS_FILE,",
             '# or costs = ["THIS_FILE"] in the [grid] of a plan.',
             f"command = {_quoted(command)}", f"machine = {_quoted(machine())}", "", "[costs]  # ns"]  # fmt: skip
    lines += [f"{cost.name} = {cost.ns:_}  # {cost.source}: {' '.join(cost.why.split())}" for cost in made]
    for sample in samples:
        lines += ["", f"[measured.{sample.name}]  # ns", f"what = {_quoted(sample.what)}"]
        lines += [f"{name} = {getattr(sample, name):_}" for name in ("median", "q1", "q3", "mean", "n")]
    if missing:
        lines += ["", "[missing]"] + [f"{lost.name} = {_quoted(lost.reason)}" for lost in missing]
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """The text as a TOML string; JSON strings are a subset of these."""
    return json.dumps(text)
