"""Styles of figures: colour, marker and dash for each of ten policies; letter, hatch and grey level for each class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ultrafolio.model.layout import PAGE_SIZE
from ultrafolio.model.policies import PRESETS

from .store import MIX, Scalar

OKABE_ITO = ("#000000", "#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#666666")
_DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.4)), (0, (6, 2, 1, 2)), (0, (3, 1.5, 1, 1.5, 1, 1.5)))
_MARKERS = ("o", "s", "D", "^", "v", "P", "X", "<", ">", "*")

CLASS_LETTER = {"fatal": "F", "permanent": "P", "livelock": "L"}
CLASS_FILL = {"fatal": "#1a1a1a", "permanent": "#D55E00", "livelock": "#8cc7ec"}
CLASS_HATCH = {"fatal": "", "permanent": "///", "livelock": ".."}
STALLED = "#f3eccb"
"""The background of a cell whose runs stalled and did not hang."""

RC: dict[str, Any] = {
    "svg.fonttype": "none", "svg.hashsalt": "ultrafolio", "font.family": "sans-serif", "font.size": 9,
    "font.sans-serif": ["DejaVu Sans"], "text.parse_math": False, "axes.spines.top": False,
    "axes.spines.right": False, "axes.titlesize": 10, "axes.titleweight": "bold", "axes.titlelocation": "left",
    "axes.grid": True, "grid.color": "#e3e3e3", "grid.linewidth": 0.7, "axes.axisbelow": True,
    "axes.edgecolor": "#555555", "hatch.linewidth": 0.7, "figure.facecolor": "white", "savefig.facecolor": "white",
    "path.simplify": False, "figure.dpi": 96,
}  # fmt: skip


def line_style(policy: str, policies: Sequence[Scalar]) -> dict[str, Any]:
    """Colour, marker and dash of a policy: a preset's are always the same, the user's own come after them."""
    own = [name for name in policies if name not in PRESETS]
    number = list(PRESETS).index(policy) if policy in PRESETS else len(PRESETS) + own.index(policy)
    return {
        "color": OKABE_ITO[number % len(OKABE_ITO)],
        "marker": _MARKERS[number % len(_MARKERS)],
        "linestyle": _DASHES[number % len(_DASHES)],
        "markersize": 4.5,
        "linewidth": 1.6,
    }


def ink(colour: str) -> str:
    """A colour for small text: as it is if dark, else darker, so that it keeps a contrast of 4.5 to white."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    while luminance(parts) > 0.183:
        parts = [part * 0.95 for part in parts]
    return "#" + "".join(f"{round(part * 255):02x}" for part in parts)


def luminance(parts: Sequence[float]) -> float:
    """Relative luminance of an sRGB colour, as WCAG defines it."""
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def label(value: Scalar, limit: int = 36) -> str:
    """A name for a figure: printable, of bounded length."""
    text = "".join(char if char.isprintable() else "?" for char in str(value))
    return text if len(text) <= limit else text[: limit - 1] + "…"


def order_label(order: Scalar) -> str:
    """A folio order with its size, in two lines."""
    if order == MIX or not isinstance(order, int):
        return f"{order}\n(recorded)" if order == MIX else str(order)
    return f"{order}\n{size(PAGE_SIZE << order)}"


def size(value: int) -> str:
    """Bytes as KiB, MiB or GiB."""
    if value >= 1 << 30:
        return f"{value >> 30} GiB"
    return f"{value >> 20} MiB" if value >= 1 << 20 else f"{value >> 10} KiB"


def duration(ns: float) -> str:
    """A time with three digits and its unit."""
    for unit, scale in (("s", 1e9), ("ms", 1e6), ("µs", 1e3)):
        if abs(ns) >= scale:
            return f"{ns / scale:.3g} {unit}"
    return f"{ns:.3g} ns"
