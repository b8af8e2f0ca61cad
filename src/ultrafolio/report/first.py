"""The first screen: who hangs and what each policy costs, for all runs and for every choice on the axes' filters.

All numbers come from one cube over the filtered axes, policies and orders; a view sums over the axes that are not
narrowed. A page without scripts shows one view at a time: its style sheet follows the radio buttons.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ultrafolio.nouns import plural

from .aggregate import CLASSES, Cube, cube, hangs, rates, ratio, stalled_runs
from .matrix import short_order
from .note import merged_axes
from .share import Share, mean_of_best, runs_of_each
from .store import Array, Axis, Results
from .style import CLASS_LETTER, duration

PANELS = 32
"""Views in a page at most; an axis that would need more has no filter, and is told as merged."""
COLUMNS = (
    "throughput, % of best",
    "95 % interval",
    "runs",
    "ultravisor a touch",
    "stall a touch",
    "I/O, mean",
    "collateral a ms",
)


@dataclass(frozen=True)
class Cell:
    """One cell of the matrix: letters and percent, the interval, the same in a sentence, and its style class."""

    text: str
    bounds: str
    told: str
    kind: str


@dataclass(frozen=True)
class View:
    """The matrix and the costs of the runs that one choice on every filter keeps."""

    place: tuple[int, ...]
    title: str
    runs: str
    matrix: Sequence[tuple[str, Sequence[Cell]]]
    costs: Sequence[Sequence[str]]

    @property
    def name(self) -> str:
        """The view's id in the page."""
        return "view-" + "-".join(map(str, self.place)) if self.place else "view"


@dataclass(frozen=True)
class First:
    """The filters (choice 0 of each is "all"), the orders over the matrix, the views, and the axes without a filter."""

    filters: Sequence[Axis]
    orders: Sequence[str]
    views: Sequence[View]
    merged: Sequence[str]


def filtered(results: Results) -> list[Axis]:
    """The axes with a filter: those with few enough values, in the plan's order."""
    kept: list[Axis] = []
    panels = 1
    for name, axis in results.axes.items():
        choices = len(axis.values) + 1
        if name not in ("policy", "order", "seed") and choices > 2 and panels * choices <= PANELS:
            kept.append(axis)
            panels *= choices
    return kept


def first_screen(results: Results) -> First:
    """The first screen of a store in which a cell ran."""
    filters = filtered(results)
    names = [axis.name for axis in filters]
    cells = cube(results, *names, "policy", "order")
    sums = _sums(cells)
    views = []
    for place in itertools.product(*(range(len(axis.values) + 1) for axis in filters)):
        chosen = {name: _narrow(values, place) for name, values in sums.items()}
        if chosen["runs"].any():
            views.append(_view(place, filters, cells, chosen))
    orders = [short_order(order) for order in cells.axes[-1].values]
    return First(filters, orders, views, merged_axes(results, "policy", "order", *names))


def _sums(cells: Cube) -> dict[str, Array]:
    """What the views are made of, by the cube's cells."""
    names = ("touches", "sim_ns", "uv_ns", "io_ns", "io_done", "exports_collateral")
    sums = {name: cells.sum(name) for name in names}
    sums["stall"] = cells.sum("stall_ns") + cells.sum("open_stall_ns") + cells.sum("dropped_stall_ns")
    by_class = hangs(cells)
    sums |= {name: by_class[..., number] for number, name in enumerate(CLASSES)}
    sums["rate"], sums["square"] = rates(cells)
    return sums | {"runs": cells.runs(), "waited": stalled_runs(cells)}


def _narrow(values: Array, place: Sequence[int]) -> Array:
    """An array over (filters, policy, order) for one choice a filter; choice 0 sums over the axis."""
    for choice in place:
        values = values.sum(axis=0) if choice == 0 else values[choice - 1]
    return values


def _view(place: tuple[int, ...], filters: Sequence[Axis], cells: Cube, sums: dict[str, Array]) -> View:
    """Returns the matrix and the costs of the runs at one place of the filters."""
    policies = [str(policy) for policy in cells.axes[-2].values]
    by_class = np.stack([sums[name] for name in CLASSES], axis=-1)
    counts = sums["runs"][sums["runs"] > 0]
    differ = bool(counts.min() != counts.max())
    rows = [
        (
            policy,
            [
                matrix_cell(int(sums["runs"][i, j]), by_class[i, j].tolist(), int(sums["waited"][i, j]), differ)
                for j in range(cells.shape[-1])
            ],
        )
        for i, policy in enumerate(policies)
    ]
    parts = [f"{axis.name} {axis.values[choice - 1]}" for axis, choice in zip(filters, place, strict=True) if choice]
    return View(place, ", ".join(parts) or "all runs", runs_of_each(sums["runs"]), rows, _costs(policies, sums))


def matrix_cell(runs: int, by_class: Sequence[int], waited: int, of: bool = False) -> Cell:
    """A cell of the matrix: "P 22" over "14–32" are permanent hangs in 22 %, with the 95 % Wilson interval; `of`: with
    the number of runs, which differs from cell to cell."""
    if runs == 0:
        return Cell("", "", "not swept", "empty")
    hung = Share(sum(by_class), runs)
    letters = "".join(CLASS_LETTER[name] for name, count in zip(CLASSES, by_class, strict=True) if count)
    kind = next((name for name, count in zip(CLASSES, by_class, strict=True) if count), "waited" if waited else "quiet")
    told = f"{hung.count} of {plural(runs, 'run')} hung; 95 % interval {hung.bounds} %"
    bounds = f"{hung.bounds} of {runs}" if of else hung.bounds
    return Cell(f"{letters or ('t' if waited else '·')} {hung.percent}", bounds, told, kind)


def _costs(policies: Sequence[str], sums: dict[str, Array]) -> list[list[str]]:
    """A row of costs for each policy that ran."""
    rate = ratio(sums["touches"], sums["sim_ns"])
    best = np.max(np.nan_to_num(rate), axis=0)
    relative = 100 * ratio(rate, np.broadcast_to(best, rate.shape))
    total = {name: values.sum(axis=1) for name, values in sums.items()}
    rows = []
    for i, policy in enumerate(policies):
        if not total["runs"][i]:
            continue
        mean = mean_of_best(relative[i], sums["runs"][i], sums["rate"][i], sums["square"][i], best)
        touches = int(total["touches"][i])
        rows.append(
            [
                policy,
                mean.percent,
                mean.bounds,
                str(mean.runs),
                _time(total["uv_ns"][i], touches),
                _time(total["stall"][i], touches),
                _time(total["io_ns"][i], total["io_done"][i]),
                f"{1e6 * total['exports_collateral'][i] / max(1, int(total['sim_ns'][i])):.3g}",
            ]
        )
    return rows


def _time(ns: Array, count: Array | int) -> str:
    """Returns the mean time of `count` things, "–" for none."""
    return duration(float(ns) / float(count)) if count else "–"
