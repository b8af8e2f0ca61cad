"""The first figure: policies by folio orders, with the class of the hangs and the share of hung runs in each cell."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from ultrafolio.nouns import plural

from .aggregate import CLASSES, cube, hangs, stalled_runs, worst_class
from .draw import Plot, drawing, pictures
from .note import plot_note
from .reproduce import pick
from .share import Share, runs_of_each
from .store import MIX, Array, Results, Scalar
from .style import CLASS_FILL, CLASS_HATCH, CLASS_LETTER, STALLED, label

MEANING = {
    "fatal": "F  fatal: the VMM is told, or killed",
    "permanent": "P  permanent: no step that is bound to come ends it",
    "livelock": "L  livelock: released and taken again for ever",
}
EXAMPLE = np.array([1, 3, 2, 0])
"""Which class, by its number, makes the best example of a run: a permanent hang."""
BOX = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}
"""Behind the text of a cell."""
ROW, COLUMN, LEFT = 0.30, 0.50, 1.75
"""Inches: a cell's height and width, and the room for the policies' names."""


def hang_matrix(results: Results, name: str, facet: str, title: str) -> Plot:
    """The matrix, a panel for each value of the axis `facet` (at most eight; more, or none, are pooled)."""
    cells = cube(results, facet, "policy", "order")
    if len(cells.axes[0].values) > 8:
        cells = cube(results, "", "policy", "order")
    count, by_class, waited = cells.runs(), hangs(cells), stalled_runs(cells)
    facets = [str(value) for value in cells.axes[0].values]
    policies, orders = cells.axes[1].values, cells.axes[2].values
    across = 1 if len(facets) == 1 else 2
    down = -(-len(facets) // across)
    panel = (max(len(orders), 3) * COLUMN, len(policies) * ROW)
    width, height = LEFT + across * (panel[0] + 0.3), down * (panel[1] + 0.85) + 0.75
    with drawing(max(width, 7.2), height) as figure:
        width = max(width, 7.2)
        for number, value in enumerate(facets):
            column, row = number % across, number // across
            left = LEFT + column * (panel[0] + 0.3)
            bottom = height - (row + 1) * (panel[1] + 0.85) + 0.5
            axes = figure.add_axes((left / width, bottom / height, panel[0] / width, panel[1] / height))
            axes.set_title(f"{facet} {label(value)}" if facet and value != "all" else "all runs")
            swept = np.flatnonzero(count[number].any(axis=0)).tolist()
            _frame(axes, policies, [orders[j] for j in swept], len(orders), named=column == 0)
            for i, (at, j) in itertools.product(range(len(policies)), enumerate(swept)):
                _cell(axes, i, at, int(count[number, i, j]), by_class[number, i, j], int(waited[number, i, j]))
        _legend(figure, height)
        svg, png = pictures(figure, plot_note(results, "policy", "order", *([facet] if len(facets) > 1 else [])))
    caption = (
        f"Letters: the class of the hangs; numbers: percent of the runs that hung ({runs_of_each(count)} a cell), and "
        "below them the 95 % Wilson interval. The dark part of a cell is as high as that share. A run counts once, "
        "under its worst class; the wait of an unshare for a device that pins its page is expected under every "
        "policy, not counted."
    )
    return Plot(
        name,
        title,
        caption,
        alt_text(policies, by_class.sum(axis=(0, 2)), count.sum(axis=(0, 2))),
        svg,
        png,
        pick(results, EXAMPLE[worst_class(results)]),
    )


def alt_text(policies: Sequence[Scalar], by_class: Array, runs: Array) -> str:
    """The matrix in words."""
    parts = []
    for policy, counts, n in zip(policies, by_class.tolist(), runs.tolist(), strict=True):
        hung = [f"{count} {name}" for name, count in zip(CLASSES, counts, strict=True) if count]
        of = plural(n, "run")
        parts.append(f"{policy}: {', '.join(hung)} of {of}" if hung else f"{policy}: none of {of} hung")
    return "Matrix of policies by folio orders. " + "; ".join(parts) + "."


def short_order(order: Scalar) -> str:
    """A folio order with its size, in two short lines."""
    if not isinstance(order, int):
        return f"{order}\n(rec.)" if order == MIX else str(order)
    kib = 4 << order
    return f"{order}\n{kib}K" if kib < 1024 else f"{order}\n{kib >> 10}M"


def _frame(axes: Any, policies: Sequence[Scalar], orders: Sequence[Scalar], columns: int, *, named: bool) -> None:
    """Set the axes of a matrix: orders below, policies at the left if `named`."""
    axes.grid(False)
    axes.set_xlim(0, max(columns, 3))
    axes.set_ylim(len(policies), 0)
    axes.set_xticks(np.arange(len(orders)) + 0.5, [short_order(order) for order in orders], fontsize=7)
    names = [label(policy, 22) for policy in policies] if named else [""] * len(policies)
    axes.set_yticks(np.arange(len(policies)) + 0.5, names, fontsize=9)
    axes.tick_params(length=0, pad=2)
    axes.set_xlabel("folio order, size", fontsize=7.5, labelpad=1, loc="left")
    for spine in axes.spines.values():
        spine.set_visible(False)


def _cell(axes: Any, i: int, j: int, runs: int, by_class: Array, waited: int) -> None:
    """One cell: a stacked bar with the shares of hung runs by class, and the text."""
    from matplotlib.patches import Rectangle

    hung = int(by_class.sum())
    ground = STALLED if waited and runs else "white"
    axes.add_patch(Rectangle((j, i), 1, 1, facecolor=ground, edgecolor="#b9b9b9", linewidth=0.6))
    base = i + 1.0
    for name, count in zip(CLASSES, by_class.tolist(), strict=True):
        if count:
            base -= count / runs
            axes.add_patch(
                Rectangle(
                    (j, base),
                    1,
                    count / runs,
                    facecolor=CLASS_FILL[name],
                    linewidth=0.6,
                    edgecolor="#333333",
                    hatch=CLASS_HATCH[name],
                )
            )
    letters = "".join(CLASS_LETTER[name] for name, count in zip(CLASSES, by_class.tolist(), strict=True) if count)
    if hung:
        share = Share(hung, runs)
        text, weight, box = f"{letters} {share.percent}", "bold", True
        axes.text(j + 0.5, i + 0.78, share.bounds, ha="center", va="center", fontsize=4.5, bbox=BOX)
    elif runs:
        text, weight, box = ("t" if waited else "·"), "normal", False
    else:
        text, weight, box = "", "normal", False
    axes.text(
        j + 0.5,
        i + (0.36 if box else 0.52),
        text,
        ha="center",
        va="center",
        fontsize=7.5,
        fontweight=weight,
        bbox=BOX if box else None,
        color="black" if box else "#555555",
    )


def _legend(figure: Any, height: float) -> None:
    """Draw the legend of the classes under the matrices."""
    from matplotlib.patches import Patch

    handles = [
        Patch(facecolor=CLASS_FILL[name], hatch=CLASS_HATCH[name], edgecolor="#333333", label=MEANING[name])
        for name in CLASSES
    ]
    for fill, text in ((STALLED, "t  no hang, but a vCPU had to wait for a while"), ("white", "·  nobody waited")):
        handles.append(Patch(facecolor=fill, edgecolor="#b9b9b9", label=text))
    figure.legend(
        handles=handles,
        loc="lower left",
        bbox_to_anchor=(0.012, 0.06 / height),
        ncols=2,
        frameon=False,
        fontsize=8,
        handleheight=1.1,
        handlelength=1.8,
        columnspacing=1.5,
    )
