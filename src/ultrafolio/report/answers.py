"""A matrix of words: rows by policies, each cell with the letter and the fill of its word."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from .draw import drawing, pictures
from .style import CLASS_FILL, CLASS_HATCH, STALLED, label

ROW, COLUMN, LEFT, RIGHT, TOP = 0.19, 0.62, 1.9, 1.05, 1.05
"""Inches: a cell's height and width, and the room for the names of rows and columns, which are at an angle."""
FILL = {
    "Fatal": (CLASS_FILL["fatal"], CLASS_HATCH["fatal"]),
    "Hangs": (CLASS_FILL["permanent"], CLASS_HATCH["permanent"]),
    "Livelocks": (CLASS_FILL["livelock"], CLASS_HATCH["livelock"]),
    "Unsafe": ("#CC79A7", "xx"), "VmmBound": ("#E69F00", ""), "Waits": (STALLED, ""), "Expected": (STALLED, ""),
}  # fmt: skip
"""Fill and hatch by word; white for every other word."""


def matrix(
    words: Mapping[str, Sequence[str]], policies: Sequence[str], letters: Mapping[str, str], note: str
) -> tuple[str, bytes]:
    """(SVG, PNG) of the words of each row, one per policy, with the legend below. The same bytes for the same words."""
    from matplotlib.patches import Rectangle

    wide, high = len(policies) * COLUMN, len(words) * ROW
    width, height = LEFT + wide + RIGHT, TOP + high + 0.45
    with drawing(width, height) as figure:
        axes = figure.add_axes((LEFT / width, 0.45 / height, wide / width, high / height))
        axes.set_xlim(0, len(policies))
        axes.set_ylim(len(words), 0)
        axes.grid(False)
        axes.set_yticks(np.arange(len(words)) + 0.5, list(words), fontsize=8)
        axes.set_xticks(
            np.arange(len(policies)) + 0.5, [label(name, 22) for name in policies], fontsize=8, rotation=40, ha="left"
        )
        axes.tick_params(length=0, pad=2, top=True, labeltop=True, bottom=False, labelbottom=False)
        for spine in axes.spines.values():
            spine.set_visible(False)
        for row, found in enumerate(words.values()):
            for column, word in enumerate(found):
                fill, hatch = FILL.get(word, ("white", ""))
                axes.add_patch(
                    Rectangle(
                        (column, row),
                        1,
                        1,
                        facecolor=fill,
                        hatch=hatch,
                        edgecolor="#888888",
                        linewidth=0.5,
                        clip_on=False,
                    )
                )
                box = {"facecolor": "white", "edgecolor": "none", "pad": 0.8} if fill != "white" else None
                axes.text(column + 0.5, row + 0.54, letters[word], ha="center", va="center", fontsize=7, bbox=box)
        met = {word for found in words.values() for word in found}
        legend = "   ".join(f"{letter} {word}" for word, letter in letters.items() if word in met)
        figure.text(LEFT / width, 0.16 / height, legend, fontsize=8)
        return pictures(figure, note)
