"""The effect of each axis on hangs: least and most hung runs over its values, and the explained variance."""

from __future__ import annotations

import numpy as np

from ultrafolio.nouns import plural

from .aggregate import CLASSES, axis_of, worst_class
from .share import Share
from .store import Array, Results
from .tables import Table


def explained_variance(codes: Array, values: Array) -> float:
    """The part (0 to 1) of the variance of `values` that lies between the groups of `codes`; NaN without variance."""
    mean = values.mean()
    whole = float(((values - mean) ** 2).sum())
    counts = np.bincount(codes)
    means = np.bincount(codes, weights=values) / np.maximum(counts, 1)
    between = float((counts * (means - mean) ** 2)[counts > 0].sum())
    return between / whole if whole > 0 else float("nan")


def importance_table(results: Results) -> Table:
    """The axes with several values, the most decisive for hangs first."""
    hung = (worst_class(results) < len(CLASSES)).astype(np.float64)
    rate = results.column("touches") / np.maximum(results.column("sim_ns"), 1)
    found = []
    for name in dict.fromkeys(["policy", "order", *results.axes]):
        axis = axis_of(results, name)
        codes = axis.codes[results.good]
        counts = np.bincount(codes, minlength=len(axis.values))
        swept = np.flatnonzero(counts)
        if len(swept) < 2:
            continue
        sums = np.bincount(codes, weights=hung, minlength=len(axis.values))
        shares = sums[swept] / counts[swept]
        ends = [
            f"{axis.values[n]}: {Share(int(sums[n]), int(counts[n]))}"
            for n in (swept[shares.argmin()], swept[shares.argmax()])
        ]
        parts = explained_variance(codes, hung), explained_variance(codes, rate)
        found.append((-np.nan_to_num(parts[0]), [name, str(len(swept)), *ends, *map(_part, parts)]))
    rows = [row for _, row in sorted(found, key=lambda item: item[0])]
    caption = (
        f"How much each axis decides, over {plural(len(hung), 'run')}. The fewest and the most hung runs over the "
        "axis's values, with the 95 % Wilson interval; and the part, 0 to 1, of the variance between runs that the "
        "axis alone explains. Axes that act together explain more than the sum of their parts."
    )
    columns = ["axis", "values", "fewest hung", "most hung", "part of hangs", "part of throughput"]
    return Table("importance-table", caption, columns, rows)


def _part(value: float) -> str:
    """Returns a share with two digits, "–" if it is not a number."""
    return f"{value:.2f}" if np.isfinite(value) else "–"
