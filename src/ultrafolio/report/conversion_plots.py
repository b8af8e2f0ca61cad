"""The figure of a sweep of guest_memfd: what becomes of requests under each holder; what huge pages save and cost."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from ultrafolio.model.layout import PAGE_SIZE
from ultrafolio.nouns import plural

from .aggregate import cube
from .conversion import HANGS, WORDS, Conversions, Outcome, bill, known, outcome, where
from .draw import Plot, drawing, logarithmic, pictures
from .matrix import BOX
from .note import plot_note
from .reproduce import pick
from .store import Axis, Scalar
from .style import STALLED, label, line_style, size

FILL = {"permanent": "#D55E00", "vmm_bound": "#8cc7ec", "stuck_faults": "#666666"}
HATCH = {"permanent": "///", "vmm_bound": "..", "stuck_faults": ""}
TOLD = "#d9d9d9"
PATIENT = ("for-ever", "four-tries")
"""The kinds of patience that the first two panels show."""
REFERENCE = "gmem-7.4"
"""The policy without huge pages that the lines are drawn beside."""
ROW, COLUMN = 0.36, 0.52
"""Inches: a cell's height and width."""


def plots(results: Conversions) -> list[Plot]:
    """The figures, in order."""
    return [picture(results)]


def picture(results: Conversions) -> Plot:
    """Above: what becomes of requests, by policy and holder, for a VMM that asks for ever and one that gives up. Below:
    the guest's bill by folio order, for each placement of the pool."""
    policies = results.policy.values
    rows, width = len(policies) * ROW, 10.4
    height = rows + 4.75
    with drawing(width, height) as figure:
        for number, patience in enumerate(PATIENT):
            left = 1.75 + number * (8 * COLUMN + 0.2)
            axes = figure.add_axes((left / width, (height - rows - 0.3) / height, 8 * COLUMN / width, rows / height))
            cells = cube(where(results, patience=patience), "policy", "holder")
            axes.set_title(f"the VMM asks {'for ever' if number == 0 else 'four times'}", fontsize=9)
            refusals(axes, policies, known(results, "holder").values, outcome(cells), named=number == 0)
        _legend(figure, height - rows - 0.98, height)
        placements = known(results, "placement")
        for number, placement in enumerate(placements.values[:2]):
            at = ((0.75 + number * 4.95) / width, 1.05 / height, 4.25 / width, 2.4 / height)
            bills(figure.add_axes(at), results, placements, placement, named=number == 0)
        handles = figure.axes[-1].get_legend_handles_labels()
        figure.legend(*handles, loc="lower left", bbox_to_anchor=(0.055, 0), ncols=3, frameon=False, fontsize=7.5)
        svg, png = pictures(figure, plot_note(results, "policy", "holder", "patience", "order", "placement"))
    return Plot(
        "conversion",
        "Who refuses a conversion, and what huge pages save and cost",
        "Above: V, P, F: percent of the runs in which a request hung, vmm-bound or permanently, or a fault; no: part "
        "of requests told no (percent); r: refusals a request, all converted in the end. Below, with no holder: solid, "
        "what huge pages save (faults and TLB misses); dashed, what they cost (requests, with splits and merges).",
        alt_text(policies, outcome(cube(results, "policy"))),
        svg,
        png,
        pick(results, results.column("refusals")),
    )


def alt_text(policies: Sequence[Scalar], made: Outcome) -> str:
    """The upper part in words."""
    parts = []
    for policy, counts, runs in zip(policies, made.hung, made.runs, strict=True):
        told = ", ".join(f"{int(n)} {WORDS[name]}" for name, n in zip(HANGS, counts, strict=True))
        parts.append(f"{policy}: {told} of {plural(int(runs), 'run')}")
    return f"Matrix of policies by holders, and lines of the guest's bill by folio order. Hangs: {'; '.join(parts)}."


def refusals(axes: Any, policies: Sequence[Scalar], holders: Sequence[Scalar], made: Outcome, *, named: bool) -> None:
    """One matrix: policies by holders."""
    axes.grid(False)
    axes.set_xlim(0, len(holders))
    axes.set_ylim(len(policies), 0)
    axes.set_xticks(np.arange(len(holders)) + 0.5, [str(holder) for holder in holders], fontsize=7)
    names = [label(policy, 24) for policy in policies] if named else [""] * len(policies)
    axes.set_yticks(np.arange(len(policies)) + 0.5, names, fontsize=8)
    axes.tick_params(length=0, pad=2)
    for spine in axes.spines.values():
        spine.set_visible(False)
    for i, j in itertools.product(range(len(policies)), range(len(holders))):
        _cell(axes, i, j, made)


def _cell(axes: Any, i: int, j: int, made: Outcome) -> None:
    """One cell: bars for the runs that hung, by class, and the text."""
    from matplotlib.patches import Rectangle

    runs = int(made.runs[i, j])
    told, refused = (float(np.nan_to_num(values[i, j])) for values in (made.told, made.refused))
    ground = TOLD if told else STALLED if refused else "white"
    axes.add_patch(Rectangle((j, i), 1, 1, facecolor=ground if runs else "white", edgecolor="#b9b9b9", linewidth=0.6))
    base = i + 1.0
    for name, count in zip(HANGS, made.hung[i, j].tolist(), strict=True):
        if count:
            base -= count / runs
            axes.add_patch(Rectangle((j, base), 1, count / runs, facecolor=FILL[name], hatch=HATCH[name],
                                     edgecolor="#333333", linewidth=0.6))  # fmt: skip
    hung = bool(made.hung[i, j].any())
    style = {"ha": "center", "va": "center", "fontsize": 6.5, "linespacing": 1.0}
    text = "\n".join(made.words(i, j))
    axes.text(j + 0.5, i + 0.5, text, **style, fontweight="bold" if hung else "normal", bbox=BOX if hung else None)


def _legend(figure: Any, at: float, height: float) -> None:
    """What the colours and letters of the matrices mean."""
    from matplotlib.patches import Patch

    words = {
        "vmm_bound": "V  vmm-bound: only the VMM can end it (% of runs, as P, F)",
        "permanent": "P  permanent: no step ends it",
        "stuck_faults": "F  a fault without end",
    }
    handles = [Patch(facecolor=FILL[name], hatch=HATCH[name], edgecolor="#333333", label=words[name]) for name in words]
    others = ((TOLD, "no  the guest is told no (% of requests)"), (STALLED, "r  refusals a request, then converted"))
    handles += [Patch(facecolor=fill, edgecolor="#b9b9b9", label=text) for fill, text in others]
    figure.legend(handles=handles, loc="lower left", bbox_to_anchor=(0.012, at / height), ncols=3, frameon=False,
                  fontsize=7, handlelength=1.6, columnspacing=1.2)  # fmt: skip


def bills(axes: Any, results: Conversions, placements: Axis, placement: Scalar, *, named: bool) -> None:
    """One panel: what the guest pays, by order, with no holder."""
    kept = where(results, holder="none", placement=placement)
    cells = cube(kept, "policy", "order")
    paid, orders = bill(cells), cells.axes[1].values
    seen: list[float] = []
    parts = ((paid.memory, "-", "faults + TLB"), (paid.requests, (0, (4, 2)), "requests"))
    for (row, policy), (table, dash, part) in itertools.product(enumerate(cells.axes[0].values), parts):
        values, name = table[row], f"{policy}: {part}"
        swept = np.flatnonzero(np.isfinite(values))
        if len(swept) > 1:
            style = line_style(str(policy), cells.axes[0].values) | {"linestyle": dash, "markersize": 4}
            axes.plot(swept, values[swept], **style, label=name)
        elif len(swept) and policy == REFERENCE:
            axes.axhline(values[swept[0]], color="#777777", linestyle=dash, linewidth=1.1, label=name)
        else:
            continue
        seen += [value for value in values[swept].tolist() if value > 0]
    where_ = f", pool {label(placement)}" if len(placements.values) > 1 else ""
    axes.set_title(f"no holder{where_}", fontsize=9)
    axes.set_xticks(range(len(orders)), [f"{order}\n{size(PAGE_SIZE << int(order))}" for order in orders], fontsize=7)
    axes.set_xlim(-0.3, len(orders) - 0.7)
    axes.set_xlabel("folio order, size of a huge page", fontsize=7.5, labelpad=1, loc="left")
    if named:
        axes.set_ylabel("µs a ms of guest time")
    if seen:
        logarithmic(axes, min(seen), max(seen), zero=False)
