"""The tables of the report: rows of text, made from the cubes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ultrafolio.model.properties import PROPERTIES
from ultrafolio.nouns import plural

from .aggregate import CLASSES, cube, first_hangs, hangs, quantile
from .charts import CAUSES
from .costs import break_even, costs
from .findings import violations
from .share import Share
from .store import Results, Scalar
from .style import CLASS_LETTER, duration, order_label

FAILURES = 50
"""Failed cells listed; the rest are counted."""


@dataclass(frozen=True)
class Table:
    """A table: its caption, a word for each column, and rows of text. The first `heads` columns name the row."""

    name: str
    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    heads: int = 1
    numeric: bool = True


def order_words(order: Scalar) -> str:
    """An order with its size on one line."""
    return order_label(order).replace("\n", ", ")


def hang_table(results: Results) -> Table:
    """Hang probability by policy and order, with class and interval."""
    cells = cube(results, "policy", "order")
    runs, by_class = cells.runs(), hangs(cells)
    rows = []
    for i, policy in enumerate(cells.axes[0].values):
        row = [str(policy)]
        for j in range(len(cells.axes[1].values)):
            row.append(probability(int(runs[i, j]), by_class[i, j].tolist()))
        rows.append(row)
    caption = (
        "Runs that hung, of all runs: class (F fatal, P permanent, L livelock), count, and the 95 % Wilson interval "
        "of the probability. Workloads, placements and seeds of the plan are pooled, so the interval is "
        "that of this mixture."
    )
    return Table("hang-table", caption, ["policy", *(f"order {order_words(o)}" for o in cells.axes[1].values)], rows)


def probability(runs: int, by_class: Sequence[int]) -> str:
    """One cell of the hang table."""
    if runs == 0:
        return ""
    letters = "".join(CLASS_LETTER[name] for name, count in zip(CLASSES, by_class, strict=True) if count)
    return f"{letters} {Share(sum(by_class), runs)}".strip()


def first_hang_table(results: Results) -> Table:
    """Fastest, median and slowest first hang by policy."""
    cells = cube(results, "policy")
    rows = []
    for policy, found, runs in zip(cells.axes[0].values, first_hangs(cells), cells.runs().tolist(), strict=True):
        times = [duration(float(pick(found))) for pick in (np.min, np.median, np.max)] if len(found) else ["–"] * 3
        rows.append([str(policy), str(runs), str(len(found)), *times])
    return Table(
        "first-hang-table",
        "Time to the first hang, over the runs that hung.",
        ["policy", "runs", "hung", "fastest", "median", "slowest"],
        rows,
    )


def stall_table(results: Results) -> Table:
    """Stalls by policy: finished ones by quantile, open and cut ones apart, causes."""
    cells = cube(results, "policy")
    merged = cube(results, "policy", "order").histogram("stall_hist").sum(axis=1)
    names = ("stalls", "open_stalls", "open_stall_ns", "dropped_stalls", "dropped_stall_ns")
    sums = {name: cells.sum(name).tolist() for name in names}
    causes = [cells.sum(name).tolist() for name, _, _ in CAUSES]
    rows = []
    for i, policy in enumerate(cells.axes[0].values):
        quantiles = [time(quantile(merged[i], share)) for share in (0.5, 0.9, 0.99, 1.0)]
        row = [str(policy), f"{int(merged[i].sum())}", *quantiles]
        row += [f"{sums['open_stalls'][i]}", time(sums["open_stall_ns"][i]) if sums["open_stalls"][i] else "–"]
        row += [f"{sums['dropped_stalls'][i]}", time(sums["dropped_stall_ns"][i]) if sums["dropped_stalls"][i] else "–"]
        rows.append([*row, *(str(cause[i]) for cause in causes)])
    caption = (
        "Finished stalls with their quantiles (at most 1/64 off); stalls still open at the end and stalls that a "
        "reboot cut short apart, with their summed time; and all stalls by the first obstacle met."
    )
    columns = [
        "policy",
        "finished",
        "median",
        "90 %",
        "99 %",
        "longest",
        "open",
        "open time",
        "cut by reboot",
        "cut time",
        *(name for _, name, _ in CAUSES),
    ]
    return Table("stall-table", caption, columns, rows)


def cost_table(results: Results) -> Table:
    """What every policy costs relative to the best."""
    late = cube(results, "policy").sum("late_failures").tolist()
    rows = []
    for cost, failures in zip(costs(results), late, strict=True):
        rows.append(
            [
                str(cost.policy),
                str(cost.throughput),
                str(cost.worst),
                order_words(cost.worst_order),
                str(cost.throughput.runs),
                time(cost.uv),
                number(cost.uv_ratio, "×"),
                time(cost.stall),
                *(time(value) for value in cost.io),
                number(cost.collateral, ""),
                str(failures),
            ]
        )
    caption = (
        "Costs per policy. Throughput is relative to the best policy at the same order, averaged over the orders, with "
        "its 95 % interval; at worst: at the order at which it is lowest; "
        "ultravisor and stall time are per guest touch; collateral exports per millisecond of guest time."
    )
    columns = [
        "policy",
        "throughput",
        "at worst",
        "at order",
        "runs",
        "ultravisor",
        "× least",
        "stall",
        "I/O mean",
        "I/O median",
        "I/O 99 %",
        "collateral",
        "late writeback failures",
    ]
    return Table("cost-table", caption, columns, rows)


def break_even_table(results: Results) -> Table:
    """Split and import time against stall time, per touch, by policy and order, and where they cross."""
    rows = []
    table = break_even(results)
    splitting = any(row.splits for row in table)
    for row in table:
        own = ", ".join(order_words(order) for order in row.own) or "no crossing in this sweep"
        pairs = [
            f"{time(work)} + {time(stall)}" if np.isfinite(work) else "–"
            for work, stall in zip(row.work, row.stall, strict=True)
        ]
        against = (
            "it splits"
            if row.splits
            else order_words(row.against) + " on"
            if row.against is not None
            else "none in this sweep"
            if splitting
            else "no policy here splits"
        )
        rows.append([str(row.policy), own, against, *pairs])
    caption = (
        "Per touch: split and import time + stall time (open and cut stalls included). Crossing: the orders from "
        "which on the larger of the two has changed. Break-even: from this order on, to the largest, the cheapest "
        "splitting policy costs less in sum. Hung vCPUs touch nothing, so a policy that hangs is shown too cheap "
        "where the hang came late. Folios of which a page was imported before the run began were split then, unpaid."
    )
    orders = [f"order {order_words(order)}" for order in results.order.values]
    return Table("break-even-table", caption, ["policy", "crossing", "break-even", *orders], rows)


def property_table(results: Results) -> Table:
    """Violations by policy and property: events and runs."""
    broken = violations(results)
    rows = []
    for index in range(1, len(PROPERTIES)):
        events, runs = (found[:, index - 1].tolist() for found in (broken.events, broken.runs))
        counts = [f"{n} in {plural(m, 'run')}" if n else "0" for n, m in zip(events, runs, strict=True)]
        rows.append([str(index), PROPERTIES[index], *counts])
    return Table(
        "property-table",
        "Violations of the model's properties.",
        ["no.", "property", *(str(policy) for policy in results.policy.values)],
        rows,
        heads=2,
    )


def number(value: float, unit: str) -> str:
    """A number with three digits; "–" for none."""
    return "–" if not np.isfinite(value) else f"{value:.3g} {unit}".strip()


def time(ns: float) -> str:
    """A time; "–" for none."""
    return "–" if not np.isfinite(ns) else duration(ns)


def axis_table(results: Results) -> Table:
    """The axes of the plan with their values."""
    rows = []
    for name, axis in results.axes.items():
        values = [str(value) for value in axis.values]
        shown = ", ".join(values[:24]) + (f", … ({len(values)} values)" if len(values) > 24 else "")
        rows.append([name, str(len(values)), shown])
    return Table("axis-table", "Axes of the plan with their values.", ["axis", "values", "which"], rows, numeric=False)


def failure_table(results: Results) -> Table:
    """The cells that failed, with their errors."""
    rows = [
        [", ".join(f"{name}={value}" for name, value in cell.items()), key, error]
        for cell, key, error in results.failures(FAILURES)
    ]
    total = int((~results.good).sum())
    more = f" The first {FAILURES} of {total}." if total > FAILURES else ""
    return Table("failure-table", f"Cells that failed.{more}", ["cell", "key", "error"], rows, numeric=False)


def input_table(results: Results) -> Table:
    """The recordings that the cells ran on."""
    rows = [[item.path, item.kind, item.digest or "not told by the store"] for item in results.recordings()]
    return Table(
        "input-table",
        "Recordings, as the plan names them, with the BLAKE2b digest of what was read.",
        ["recording", "used for", "digest"],
        rows,
        numeric=False,
    )


def version_table(results: Results) -> Table:
    """The versions and digests behind the numbers."""
    from ultrafolio.version import __version__

    rows = [
        ["plan", results.plan], ["plan digest", str(results.manifest.get("digest", ""))],
        ["engine digest", results.engine], ["swept by", f"ultrafolio {results.manifest.get('created_by', '')}"],
        ["reported by", f"ultrafolio {__version__}"],
    ]  # fmt: skip
    caption = "Plan, engine and versions. The engine digest covers all rules, both engines and the simulator."
    return Table("version-table", caption, ["what", "which"], rows, numeric=False)
