"""Aggregate rows: sums, hang probabilities with intervals, merged histograms, ratios.

A `Cube` groups the good rows by the product of some axes. Sums are of integers, hence exact.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ultrafolio.sim.cell import bucket_edges
from ultrafolio.sim.records import HIST_SIZE

from .store import Array, Axis, Results, Scalar, remembered

CLASSES = ("fatal", "permanent", "livelock")
"""The classes of a hang, worst first; a run that has several counts as the worst."""
Z95 = 1.959963984540054


@dataclass(frozen=True)
class Cube:
    """Good rows by the values of `axes`; `place` is each row's flat position in an array of `shape`."""

    results: Results
    axes: tuple[Axis, ...]
    place: Array
    known: dict[Any, Array] = field(default_factory=dict, compare=False, repr=False)
    """The sums and histograms of measures that were asked for."""

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(len(axis.values) for axis in self.axes)

    def total(self, values: Array) -> Array:
        """The sum of `values`, one per good row, in every cell of the cube."""
        sums = np.zeros(math.prod(self.shape), np.int64)
        np.add.at(sums, self.place, values)
        return sums.reshape(self.shape)

    def sum(self, measure: str) -> Array:
        """The sum of a measure in every cell of the cube."""
        if measure not in self.known:
            self.known[measure] = self.total(self.results.column(measure))
        return self.known[measure]

    def runs(self) -> Array:
        """The number of runs in every cell of the cube."""
        return self.total(np.ones(len(self.place), np.int64))

    def each(self, measure: Array) -> list[Array]:
        """The values of a measure in every cell of the cube, sorted, cells in flat order."""
        order = np.lexsort((measure, self.place))
        ends = np.cumsum(np.bincount(self.place, minlength=math.prod(self.shape)))
        return np.split(measure[order], ends[:-1]) if len(ends) else []

    def histogram(self, measure: str) -> Array:
        """The merged histogram of every cell: shape of the cube, then HIST_SIZE buckets."""
        if measure in self.known:
            return self.known[measure]
        merged = np.zeros(math.prod(self.shape) * HIST_SIZE, np.int64)
        for rows, lengths, flat in self.results.lists(measure):
            np.add.at(merged, np.repeat(self.place[rows], lengths // 2) * HIST_SIZE + flat[::2], flat[1::2])
        return self.known.setdefault(measure, merged.reshape(*self.shape, HIST_SIZE))


@remembered
def cube(results: Results, *names: str, where: tuple[str, Scalar] | None = None) -> Cube:
    """The cube over these axes. An axis that the plan lacks has one value: policy and order the default, others "all".

    `where` keeps only the rows with one value of one axis; `results` of the cube then has only these rows.
    """
    source = results if where is None else Slice(results, *where)
    axes = tuple(axis_of(results, name) for name in names)
    place = np.zeros(int(source.good.sum()), np.int64)
    for axis in axes:
        place = place * len(axis.values) + axis.codes[source.good]
    return Cube(source, axes, place)


def axis_of(results: Results, name: str) -> Axis:
    """The axis with this name; if the plan lacks it, one with a single value (see `cube`)."""
    if name == "policy":
        return results.policy
    if name == "order":
        return results.order
    return results.axes.get(name) or Axis(name, ("all",), np.zeros(len(results.good), np.int64))


class Slice(Results):
    """The rows of `results` with one value of one axis, as Results."""

    def __init__(self, results: Results, name: str, value: Scalar) -> None:
        self.__dict__.update(results.__dict__)
        axis = axis_of(results, name)
        self._whole, self.known = results, {}
        self._inside = axis.codes[results.good] == axis.values.index(value)
        self.good = results.good & (axis.codes == axis.values.index(value))

    def column(self, name: str) -> Array:
        values: Array = self._whole.column(name)[self._inside]
        return values


@remembered
def worst_class(results: Results) -> Array:
    """For each good row the class of its hang as an index into CLASSES; len(CLASSES) without a hang.

    An expected wait (an unshare of a page that a device pins for its lifetime) is no hang.
    """
    worst = np.full(int(results.good.sum()), len(CLASSES), np.int64)
    for index in reversed(range(len(CLASSES))):
        worst[results.column(f"hang_{CLASSES[index]}") > 0] = index
    return worst


def hangs(cells: Cube) -> Array:
    """Runs by class of their hang: shape of the cube, then CLASSES."""
    worst = worst_class(cells.results)
    return np.stack([cells.total((worst == index).astype(np.int64)) for index in range(len(CLASSES))], axis=-1)


def stalled_runs(cells: Cube) -> Array:
    """Runs in which a guest waited: a stall, finished or open, of whatever class."""
    waited = (cells.results.column("stalls") > 0) | (cells.results.column("open_stalls") > 0)
    return cells.total(waited.astype(np.int64))


def wilson(successes: int, runs: int) -> tuple[float, float]:
    """The 95 % Wilson score interval of the probability, from `successes` in `runs`; (0, 1) without runs."""
    if runs == 0:
        return 0.0, 1.0
    share, z2 = successes / runs, Z95 * Z95
    middle = (share + z2 / (2 * runs)) / (1 + z2 / runs)
    half = Z95 / (1 + z2 / runs) * math.sqrt(share * (1 - share) / runs + z2 / (4 * runs * runs))
    low = 0.0 if successes == 0 else max(0.0, middle - half)
    return low, 1.0 if successes == runs else min(1.0, middle + half)


def rates(cells: Cube) -> tuple[Array, Array]:
    """The sums of the runs' rates, in touches per ns, and of the squares of these, in every cell of the cube."""
    rate = cells.results.column("touches") / np.maximum(cells.results.column("sim_ns"), 1)
    size = math.prod(cells.shape)
    total, squares = (
        np.bincount(cells.place, weights=values, minlength=size).reshape(cells.shape) for values in (rate, rate * rate)
    )
    return total, squares


def ratio(above: Array, below: Array) -> Array:
    """above / below; NaN where `below` is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        quotient: Array = np.where(below > 0, above / np.where(below > 0, below, 1), np.nan)
    return quotient


def survival(histogram: Array) -> tuple[Array, Array]:
    """(t, share of the values that are at least t) at the lower edges of non-empty buckets, and past the last one."""
    filled = np.flatnonzero(histogram)
    if not len(filled):
        return np.zeros(0), np.zeros(0)
    edges = np.append(bucket_edges()[filled], bucket_edges()[min(filled[-1] + 1, HIST_SIZE - 1)])
    left = np.append(histogram[filled][::-1].cumsum()[::-1], 0)
    return edges, left / left[0]


def quantile(histogram: Array, share: float) -> float:
    """The middle of the bucket in which the value of this rank lies, at most 1/64 off; NaN of an empty histogram."""
    total = int(histogram.sum())
    if total == 0:
        return math.nan
    bucket = int(np.searchsorted(histogram.cumsum(), max(1, math.ceil(share * total))))
    edges = bucket_edges()
    return float((edges[bucket] + edges[min(bucket + 1, HIST_SIZE - 1)] - 1) / 2)


@dataclass(frozen=True)
class Overhead:
    """Overhead of guests per touch, by policy and order, in ns; NaN if no touch finished."""

    split: Array
    imports: Array
    stall: Array

    @property
    def work(self) -> Array:
        """Split and import time: the cost of fine tracking."""
        sums: Array = self.split + self.imports
        return sums


def overhead(cells: Cube) -> Overhead:
    """Split, import and stall time per touch. Stalls that the end or a reboot cut are included."""
    touches = cells.sum("touches")
    waited = cells.sum("stall_ns") + cells.sum("open_stall_ns") + cells.sum("dropped_stall_ns")
    return Overhead(
        ratio(cells.sum("split_ns"), touches), ratio(cells.sum("import_ns"), touches), ratio(waited, touches)
    )


def records(results: Results) -> Iterator[dict[str, Any]]:
    """The aggregated table: a record for every point of the plan's axes but the seed, in the plan's order."""
    names = [name for name in results.axes if name not in ("seed", "policy", "order")]
    axes = [name for name in ("policy", "order") if name in results.axes] + names
    cells = cube(results, *(axes or ["policy"]))
    sums = {name: cells.sum(name).ravel() for name in SUMMED}
    runs, by_class = cells.runs().ravel(), hangs(cells).reshape(-1, len(CLASSES))
    first = median_first_hang(cells)
    for flat in np.flatnonzero(runs).tolist():
        point = np.unravel_index(flat, cells.shape)
        row: dict[str, Any] = {axis.name: axis.values[int(at)] for axis, at in zip(cells.axes, point, strict=True)}
        row |= hang_record(int(runs[flat]), by_class[flat].tolist())
        row["first_hang_ns_median"] = None if math.isnan(first[flat]) else float(first[flat])
        row |= {name: int(values[flat]) for name, values in sums.items()}
        yield row


SUMMED = (
    "sim_ns", "touches", "stalls", "stall_ns", "open_stalls", "open_stall_ns", "dropped_stalls", "dropped_stall_ns",
    "hang_expected", "exports", "exports_collateral", "imports", "imports_collateral", "import_ns", "split_ns",
    "splits_done", "uv_calls", "uv_ns", "io_done", "io_ns", "late_failures", "violations",
)  # fmt: skip


def hang_record(runs: int, by_class: Sequence[int]) -> dict[str, Any]:
    """Hang probability with its interval and the runs by class."""
    low, high = wilson(sum(by_class), runs)
    return {
        "runs": runs,
        "hang_probability": sum(by_class) / runs,
        "low": low,
        "high": high,
        **{f"hung_{name}": count for name, count in zip(CLASSES, by_class, strict=True)},
    }


def first_hangs(cells: Cube) -> list[Array]:
    """The times of the first hang, in ns, of the runs that hung: sorted, for every cell of the cube in flat order."""
    hung, first = _hung(cells)
    return hung.each(first)


def median_first_hang(cells: Cube) -> Array:
    """The median of the times of the first hang, in ns, of the runs that hung, for every cell of the cube in flat
    order; NaN where none hung."""
    hung, first = _hung(cells)
    found = np.full(math.prod(cells.shape), np.nan)
    order = np.lexsort((first, hung.place))
    places, starts, counts = np.unique(hung.place[order], return_index=True, return_counts=True)
    low, high = (first[order][starts + middle] for middle in ((counts - 1) // 2, counts // 2))
    found[places] = (low + high) / 2
    return found


def _hung(cells: Cube) -> tuple[Cube, Array]:
    """The rows of a cube that hung, and the times of their first hang."""
    first = cells.results.column("first_hang_ns")
    hung = first >= 0
    return Cube(cells.results, cells.axes, cells.place[hung]), first[hung]
