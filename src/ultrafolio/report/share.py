"""Percentages as every table, sentence and figure shows them: with an interval, and of how many runs."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ultrafolio.nouns import plural

from .aggregate import Z95, wilson
from .store import Array


def percent(share: float) -> str:
    """A share (0 to 1) in percent: two digits; below 10 and above 99 as many behind the point as it takes to tell it
    from 0 and from all."""
    value = 100 * share
    if value in (0, 100) or 9.95 <= value < 99:
        return f"{value:.0f}"
    digits = 1
    while float(f"{value:.{digits}f}") in (0, 100):
        digits += 1
    return f"{value:.{digits}f}".removesuffix(".0")


@dataclass(frozen=True)
class Share:
    """`count` of `runs` runs, `runs` being one or more."""

    count: int
    runs: int

    @property
    def percent(self) -> str:
        """The share in percent, as text."""
        return percent(self.count / self.runs)

    @property
    def bounds(self) -> str:
        """The 95 % Wilson interval in percent, as text."""
        low, high = wilson(self.count, self.runs)
        return f"{percent(low)}–{percent(high)}"

    def __str__(self) -> str:
        return f"{self.count}/{self.runs} ({self.bounds} %)"


def runs_of_each(runs: Array) -> str:
    """How many runs the cells of a cube have, those without any left out: "1 run", "12 runs", "3 to 12 runs"."""
    counts = runs[runs > 0]
    ends = sorted({int(counts.min()), int(counts.max())}) if len(counts) else [0]
    return plural(ends[0], "run") if len(ends) == 1 else f"{ends[0]} to {plural(ends[1], 'run')}"


@dataclass(frozen=True)
class Mean:
    """A mean in percent over `runs` runs, and half of its 95 % interval; NaN where there is none."""

    value: float
    half: float
    runs: int

    @property
    def percent(self) -> str:
        """The mean as text; "–" for none."""
        return f"{self.value:.1f}" if math.isfinite(self.value) else "–"

    @property
    def bounds(self) -> str:
        """The interval as text; "–" for none."""
        if not math.isfinite(self.half):
            return "–"
        return f"{max(0.0, self.value - self.half):.1f}–{self.value + self.half:.1f}"

    def __str__(self) -> str:
        """The mean with what is known of its interval: "98.3 % (97.1–99.5 %)"."""
        interval = f"{self.bounds} %" if math.isfinite(self.half) else "no interval: one run an order"
        return f"{self.percent} % ({interval})" if math.isfinite(self.value) else "–"


def mean_of_best(relative: Array, runs: Array, total: Array, squares: Array, best: Array) -> Mean:
    """The mean over the orders of a policy's throughput in percent of the best policy's, each order's runs a sample.

    relative, runs  the percentage and the number of runs at each order; NaN at an order takes no part
    total, squares  at each order, the sums of the runs' rates and of their squares
    best            at each order, the best policy's rate
    """
    known = [at for at, value in enumerate(relative.tolist()) if math.isfinite(value)]
    if not known:
        return Mean(math.nan, math.nan, int(runs.sum()))
    half = half_width(runs[known], total[known], squares[known], best[known])
    return Mean(float(relative[known].mean()), half, int(runs.sum()))


def half_width(runs: Array, total: Array, squares: Array, best: Array) -> float:
    """Half of the 95 % interval of the mean over the orders of 100 x rate / best, each order's runs a sample.

    `total` and `squares` are the sums of the runs' rates and of their squares. NaN where an order has one run only.
    """
    if not len(runs) or (runs < 2).any():
        return math.nan
    spread = ((squares - total * total / runs) / (runs - 1)).clip(0)
    return float(100 * Z95 * math.sqrt(float((spread / runs / (best * best)).sum())) / len(runs))
