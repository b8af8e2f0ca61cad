"""The differences between two stores: axes, runs that hung by policy and order, and throughput."""

from __future__ import annotations

import math
from typing import Any

from ultrafolio.nouns import plural

from .aggregate import cube, hangs, ratio, wilson
from .share import Share
from .store import Results


def compared(left: Results, right: Results) -> list[dict[str, Any]]:
    """A record for every policy and order of either store, in the order of `left`, then of `right`.

    hung, runs  the runs that hung, and all runs, of [left, right]; runs is 0 where a store lacks the point
    low, high   the 95 % Wilson intervals
    throughput  touches per µs of guest time; None without runs
    change      "only left", "only right", "same" (equal counts), "clear" (intervals apart), else "within chance"
    """
    tables = [_points(results) for results in (left, right)]
    made = []
    for point in dict.fromkeys([*tables[0], *tables[1]]):
        pair = [table.get(point, (0, 0, math.nan)) for table in tables]
        bounds = [wilson(hung, runs) for hung, runs, _ in pair]
        made.append(
            {
                "policy": point[0],
                "order": point[1],
                "runs": [runs for _, runs, _ in pair],
                "hung": [hung for hung, _, _ in pair],
                "low": [low for low, _ in bounds],
                "high": [high for _, high in bounds],
                "throughput": [None if math.isnan(rate) else rate for _, _, rate in pair],
                "change": change(pair[0][:2], pair[1][:2]),
            }
        )
    return made


def _points(results: Results) -> dict[tuple[Any, Any], tuple[int, int, float]]:
    """(hung, runs, touches per µs) by policy and order, of the points that ran."""
    cells = cube(results, "policy", "order")
    runs, hung = cells.runs(), hangs(cells).sum(axis=-1)
    rate = ratio(1000.0 * cells.sum("touches"), cells.sum("sim_ns"))
    return {
        (policy, order): (int(hung[i, j]), int(runs[i, j]), float(rate[i, j]))
        for i, policy in enumerate(cells.axes[0].values)
        for j, order in enumerate(cells.axes[1].values)
        if runs[i, j]
    }


def change(left: tuple[int, int], right: tuple[int, int]) -> str:
    """The `change` of two (hung, runs); see `compared`."""
    if not left[1] or not right[1]:
        return "only left" if left[1] else "only right"
    if left == right:
        return "same"
    a, b = wilson(*left), wilson(*right)
    return "clear" if a[1] < b[0] or b[1] < a[0] else "within chance"


def differing_axes(left: Results, right: Results) -> list[str]:
    """A line for every axis whose values differ between the stores."""
    lines = []
    for name in dict.fromkeys([*left.axes, *right.axes]):
        values = [
            set(map(str, results.axes[name].values)) if name in results.axes else None for results in (left, right)
        ]
        for mine, other, side in ((values[0], values[1], "left"), (values[1], values[0], "right")):
            if mine is not None and (other is None or mine - other):
                lines.append(f"axis {name}, only {side}: {', '.join(sorted(mine - (other or set())))}")
    return lines


def comparison(left: Results, right: Results) -> str:
    """The comparison as text: the points that differ, and the number of those that do not."""
    records = compared(left, right)
    lines = [
        f"{side:<6} {results.folder}: {plural(int(results.good.sum()), 'run')}"
        for side, results in (("left", left), ("right", right))
    ]
    if left.engine != right.engine:
        lines.append("the two were made by different rules or simulators")
    lines += differing_axes(left, right)
    for record in records:
        moved = _moved(record["throughput"])
        if record["change"] != "same" or moved:
            sides = " -> ".join(_side(record, n) for n in range(2))
            lines.append(f"{record['policy']}, order {record['order']}: hung {sides} [{record['change']}]{moved}")
    equal = sum(record["change"] == "same" and not _moved(record["throughput"]) for record in records)
    return "\n".join([*lines, f"the same in both: {equal} of {plural(len(records), 'point')}"])


def _side(record: dict[str, Any], n: int) -> str:
    """Returns one store's share of runs that hung as text, or "not swept"."""
    if not record["runs"][n]:
        return "not swept"
    return str(Share(record["hung"][n], record["runs"][n]))


def _moved(rates: list[float | None]) -> str:
    """The change of throughput if it is at least 1 %; else ""."""
    if rates[0] is None or rates[1] is None or abs(rates[1] - rates[0]) < 0.01 * abs(rates[0]) or rates == [0, 0]:
        return ""
    return f", throughput {rates[0]:.3g} -> {rates[1]:.3g} touches a µs"
