"""Drawing: a matplotlib figure as SVG and PNG with fixed bytes, and panels of lines that carry their own labels."""

from __future__ import annotations

import io
import re
import textwrap
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from .store import Array, Scalar
from .style import RC, duration, ink, label, line_style

PANEL, INSIDE = 2.6, 1.65
"""Inches: the height of a panel, and of its axes."""
LINE_SPACE = 11.0
"""Points between the base lines of neighbouring labels."""


@dataclass(frozen=True)
class Plot:
    """A drawn figure: file name, title, caption, description for screen readers, and pictures."""

    name: str
    title: str
    caption: str
    alt: str
    svg: str
    png: bytes
    row: int | None = None
    """The row whose single run is an example of it."""

    @property
    def inline(self) -> str:
        """The SVG for a page: ids are unique in the page, and the page sets the size."""
        body = self.svg[self.svg.index("<svg") :]
        body = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{self.name}-", body)
        return re.sub(r'^(<svg[^>]*?) height="[^"]*"', r"\1", re.sub(r'^(<svg[^>]*?) width="[^"]*"', r"\1", body))


@contextmanager
def drawing(width: float, height: float) -> Iterator[Any]:
    """A matplotlib figure of this size in inches, under the report's style."""
    import matplotlib
    from matplotlib.figure import Figure

    style: Any = RC  # matplotlib's own type for this is a literal of every name
    with matplotlib.rc_context(style), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        yield Figure(figsize=(width, height))


def pictures(figure: Any, note: str) -> tuple[str, bytes]:
    """(SVG, PNG) of a figure with `note` above it, the same bytes for the same figure and note."""
    from matplotlib.transforms import Bbox

    svg, png = io.StringIO(), io.BytesIO()
    width, height = figure.get_size_inches()
    rows = textwrap.wrap(note, int(width * 15))
    figure.text(0.012, 1 + 0.05 / height, "\n".join(rows), fontsize=8, color="#444444", va="bottom")
    whole = Bbox([[0, 0], [width, height + 0.15 + 0.15 * len(rows)]])
    figure.savefig(svg, format="svg", bbox_inches=whole)
    figure.savefig(png, format="png", dpi=144, metadata={"Software": None}, bbox_inches=whole)
    # the metadata hold the date and URLs
    text = re.sub(r"\s*<metadata>.*?</metadata>", "", svg.getvalue(), flags=re.DOTALL)
    return text, png.getvalue()


@dataclass(frozen=True)
class Panel:
    """One panel of lines over the folio orders: a line per policy; NaN leaves a gap.

    spread   lower and upper end of a bar at each point, per policy
    scale    "linear", "log", or "symlog"
    """

    title: str
    unit: str
    lines: Mapping[str, Array]
    scale: str = "linear"
    spread: Mapping[str, tuple[Array, Array]] | None = None
    steps: Mapping[str, Array] | None = None
    """Policy -> x values, if these are not the orders."""
    xlabel: str = "folio order"


def panels(
    drawn: Sequence[Panel], ticks: Sequence[str], policies: Sequence[Scalar], broken: int, note: str
) -> tuple[str, bytes]:
    """The pictures of panels below each other, under `note`.

    `broken`: lines are not drawn to ticks from this one on."""
    total = PANEL * len(drawn) + 0.1
    with drawing(10.4, total) as figure:
        for number, panel in enumerate(drawn):
            bottom = (PANEL * (len(drawn) - number - 1) + 0.62) / total
            axes = figure.add_axes((0.085, bottom, 0.615, INSIDE / total))
            axes.set_title(panel.title)
            axes.set_ylabel(panel.unit)
            ends = _lines(axes, panel, policies, broken)
            if panel.steps is None:
                axes.set_xticks(range(len(ticks)), ticks)
                axes.set_xlim(-0.3, len(ticks) - 0.7)
            axes.set_xlabel(panel.xlabel)
            axes.margins(x=0.02)
            _scale(axes, panel)
            _labels(axes, ends, INSIDE * 72)
        return pictures(figure, note)


class End(NamedTuple):
    """The end of a line, with its label; `early`: well before the ends of the others."""

    text: str
    colour: str
    x: float
    y: float
    early: bool


def coincident(lines: Mapping[str, Array]) -> list[list[str]]:
    """The names of the lines, those that coincide (to a thousandth) together; empty lines are left out."""
    groups: list[list[str]] = []
    for name, values in lines.items():
        if not np.isfinite(values).any():
            continue
        for group in groups:
            other = lines[group[0]]
            if len(other) == len(values) and np.allclose(other, values, rtol=1e-3, atol=1e-12, equal_nan=True):
                group.append(name)
                break
        else:
            groups.append([name])
    return groups


def _lines(axes: Any, panel: Panel, policies: Sequence[Scalar], broken: int) -> list[End]:
    """Draw the lines; returns the end of each."""
    ends = []
    for group in coincident(panel.lines):
        name = group[0]
        values, style = panel.lines[name], line_style(name, policies)
        if panel.steps is not None:
            x = panel.steps[name]
            axes.step(x, values, where="post", **{**style, "markevery": max(1, len(x) // 8)})
        else:
            x = np.arange(len(values))
            axes.plot(x[:broken], values[:broken], **style)
            axes.plot(x[broken:], values[broken:], **{**style, "linestyle": "none"})
            if panel.spread:
                low, high = panel.spread[name]
                axes.vlines(x, low, high, color=style["color"], linewidth=1, alpha=0.6)
        last = _end(values, None if panel.steps is not None else broken)
        names = ", ".join(label(member, 24) for member in group)
        early = panel.steps is None and last < 0.6 * (min(broken, len(values)) - 1)
        ends.append(End(names, style["color"], float(x[last]), float(values[last]), early))
    return ends


def _end(values: Array, broken: int | None) -> int:
    """The position of a line's label: its last point; for steps that end in zero the last point above zero."""
    shown = np.flatnonzero(np.isfinite(values) & (values > 0)) if broken is None else np.zeros(0)
    if not len(shown):
        shown = np.flatnonzero(np.isfinite(values[:broken]))
    return int(shown[-1]) if len(shown) else int(np.flatnonzero(np.isfinite(values))[-1])


def _scale(axes: Any, panel: Panel) -> None:
    """The axes' scales; a logarithmic one must have something above zero."""
    from matplotlib.ticker import FuncFormatter

    if panel.steps is not None:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: duration(value)))
    every = [*panel.lines.values(), *(end for ends in (panel.spread or {}).values() for end in ends)]
    above = np.concatenate([values[np.isfinite(values) & (values > 0)] for values in every])
    if panel.scale == "linear" or not len(above):
        axes.set_ylim(bottom=0)
    else:
        logarithmic(axes, float(above.min()), float(above.max()), zero=panel.scale == "symlog")


def logarithmic(axes: Any, least: float, most: float, *, zero: bool) -> None:
    """A logarithmic y axis over these values, with a linear foot down to zero if asked, and plain numbers."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    if zero:
        axes.set_yscale("symlog", linthresh=10.0 ** np.floor(np.log10(least)), linscale=0.4)
        axes.set_ylim(0, most * 1.6)
    else:
        axes.set_yscale("log")
        axes.set_ylim(least / 1.6, most * 1.6)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: plain(value)))
    narrow = most < 10 * least and not zero
    axes.yaxis.set_minor_formatter(FuncFormatter(lambda value, _: plain(value)) if narrow else NullFormatter())


def plain(value: float) -> str:
    """A tick's value as plain text, without mathematical notation."""
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        return f"{value:g}"
    exponent = f"{round(np.log10(abs(value)))}".translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"10{exponent}"


def _labels(axes: Any, ends: Sequence[End], height: float) -> None:
    """The lines' names right of the axes, each near its line's end, none over another."""
    axes.get_xlim(), axes.get_ylim()  # settles automatic limits, which transData does not
    _, low, _, high = axes.get_window_extent().extents
    placed = []
    for text, colour, x, y, early in ends:
        pixel = axes.transData.transform((x, y))[1]
        rows = textwrap.wrap(f"{text} (ends early)" if early else text, 44, break_on_hyphens=False)
        placed.append(((min(max(pixel, low), high) - low) / (high - low) * height, rows, colour, x, y, early))
    placed.sort(key=lambda item: (item[0], item[1]))
    centres = spread([item[0] for item in placed], [LINE_SPACE * len(item[1]) for item in placed], height)
    for centre, (_, rows, colour, x, y, early) in zip(centres, placed, strict=True):
        leader = {"arrowstyle": "-", "color": colour, "linewidth": 0.6, "alpha": 0.45, "shrinkA": 1, "shrinkB": 3}
        axes.annotate(
            "\n".join(rows),
            xy=(x, y),
            xycoords="data",
            xytext=(1.035, centre / height),
            textcoords="axes fraction",
            color=ink(colour),
            fontsize=8,
            va="center",
            ha="left",
            annotation_clip=False,
            linespacing=1.05,
            arrowprops=None if early else leader,
        )


def spread(centres: Sequence[float], sizes: Sequence[float], height: float) -> list[float]:
    """The centres, ascending, moved by the least distance so that boxes of these sizes do not overlap.

    They stay below `height` if there is space, and may be below zero otherwise.
    """
    placed: list[float] = []
    for centre, room in zip(centres, sizes, strict=True):
        least = placed[-1] + (sizes[len(placed) - 1] + room) / 2 if placed else centre
        placed.append(max(centre, least))
    top = height + LINE_SPACE / 2
    for index in reversed(range(len(placed))):
        placed[index] = min(placed[index], top - sizes[index] / 2)
        top = placed[index] - sizes[index] / 2
    return placed
