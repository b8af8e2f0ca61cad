"""The line above every figure: the plan's title, the number of runs, and the axes that the figure merges."""

from __future__ import annotations

from ultrafolio.nouns import plural

from .store import Results
from .style import label


def merged_axes(results: Results, *shown: str) -> list[str]:
    """The axes with several values that a figure which shows `shown` merges, each with its number of values."""
    return [
        f"{name} ({len(axis.values)})"
        for name, axis in results.axes.items()
        if len(axis.values) > 1 and name not in shown
    ]


def plot_note(results: Results, *shown: str) -> str:
    """The line above a figure that shows these axes."""
    merged = ", ".join(merged_axes(results, *shown)) or "none"
    return f"{label(results.title, 80)}: {plural(int(results.good.sum()), 'run')}; axes merged: {merged}"
