"""The HTML file: sections of figures and tables, each with an explanation and the command that makes it again."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ultrafolio.durable import partial_of
from ultrafolio.errors import InputError
from ultrafolio.nouns import plural

from . import conversion, conversion_plots, need_extra, tables
from .charts import charts
from .conversion import Conversions, opened
from .draw import Plot
from .findings import Answer, answer
from .first import COLUMNS, First, first_screen
from .glossary import explained
from .importance import importance_table
from .matrix import hang_matrix
from .reproduce import both, single
from .store import Results
from .tables import Table

TEMPLATE = "report.html.j2"
ABOUT = (
    "which folio policy hangs a secure guest, at which folio\nsizes, and what each costs. Throughput is in percent of "
    "the best policy at the same order, averaged over the orders;\nits interval is that of this mean over the runs.",
    "who refuses a conversion of guest_memfd, for how long, and what it costs by machine and folio order.",
)
"""What a report is about: of s390, of guest_memfd."""


@dataclass(frozen=True)
class Story:
    """What is told when a reader opens it: a line, paragraphs, and the command that prints it step by step, or ""."""

    title: str
    paragraphs: Sequence[str]
    command: str


@dataclass(frozen=True)
class Section:
    """A heading, a sentence on how to read what follows, figures, tables, then stories."""

    name: str
    title: str
    text: str
    plots: Sequence[Plot]
    tables: Sequence[Table]
    stories: Sequence[Story] = ()


def write_report(store: Path, out: Path | None = None) -> Path:
    """Write the report of a store to `out` (STORE/report.html) and its plots to STORE/plots; returns the former.

    The same store gives the same bytes. Files are replaced atomically. Raises InputError for a folder that is no store,
    a damaged store, a file that cannot be written, or a missing extra `report`.
    """
    need_extra()
    return write(opened(store), out)


def write(results: Results, out: Path | None = None) -> Path:
    """As `write_report`, of an opened store."""
    store = results.folder
    target = out or store / "report.html"
    if isinstance(results, Conversions):
        plots = conversion_plots.plots(results) if results.good.any() else []
        text = render(results, conversion.answer(results), None, of_conversions(results, plots))
    else:
        plots = all_plots(results)
        first = first_screen(results) if results.good.any() else None
        text = render(results, answer(results), first, sections(results, plots))
    for plot in plots:
        replace(store / "plots" / f"{plot.name}.svg", plot.svg.encode())
        replace(store / "plots" / f"{plot.name}.png", plot.png)
    replace(target, text.encode())
    return target


def all_plots(results: Results) -> list[Plot]:
    """The figures, in order; none where no cell ran."""
    if not results.good.any():
        return []
    facet = "workload" if "workload" in results.axes else ""
    plots = [hang_matrix(results, "hangs", facet, "Who hangs, by policy and folio order")]
    if len(results.axes["placement"].values if "placement" in results.axes else ()) > 1:
        plots.append(hang_matrix(results, "hangs-placement", "placement", "The same, by placement of the shared pages"))
    return [*plots, *charts(results)]


def of_conversions(results: Conversions, plots: Sequence[Plot]) -> list[Section]:
    """The sections of a sweep of guest_memfd after the answer."""
    made = [Section("words", "What the names mean", "", [], conversion.words_tables(results))]
    if results.good.any():
        made = [
            Section("requests", "What becomes of requests", "", plots, [conversion.refusal_table(results)]),
            Section("bill", "What they cost", "What huge pages save stands beside what they cost, in the same unit. "
                    "Times of the machine's calls, splits and TLB misses are assumed: read them as functions of these.",
                    [], [conversion.machine_table(results), conversion.drain_table(results)]),
            Section("properties", "Properties", "", [], [conversion.property_table(results)]),
            *made,
        ]  # fmt: skip
    return [*made, swept(results)]


def swept(results: Results) -> Section:
    """What was swept, and on what."""
    facts = [
        tables.axis_table(results),
        tables.failure_table(results),
        tables.input_table(results),
        tables.version_table(results),
    ]
    cells, failed = len(results.good), int((~results.good).sum())
    text = f"{plural(cells, 'cell')}, {failed} of them failed."
    return Section("swept", "What was swept, and on what", text, [], [table for table in facts if table.rows])


def sections(results: Results, plots: Sequence[Plot]) -> list[Section]:
    """The report's sections after the answer; the ones about runs only if a cell ran."""
    by_name = {plot.name: plot for plot in plots}

    def section(name: str, title: str, text: str, drawn: Sequence[str], *shown: Table) -> Section:
        return Section(name, title, text, [by_name[plot] for plot in drawn if plot in by_name], shown)

    words = section("words", "What the names mean", "", [], *explained(results))
    made = [words]
    if results.good.any():
        made = [
            section("importance", "Which axis decides", "", [], importance_table(results)), words,
            section("hangs-section", "Hangs", "A run hung if some vCPU met an obstacle that no step of the host, the "
                    "ultravisor or a device will ever remove.", ["hangs", "hangs-placement"],
                    tables.hang_table(results)),
            section("first", "Time to the first hang", "", ["first-hang"], tables.first_hang_table(results)),
            section("stalls", "Stalls", "A stall is a touch or an unshare whose import met an obstacle, of whatever "
                    "class.", ["stall-times", "stall-causes"], tables.stall_table(results)),
            section("cost", "What each policy costs", "", ["throughput", "ultravisor", "latency", "collateral"],
                    tables.cost_table(results)),
            section("balance", "Split cost against stall cost", "Tracking finely is paid in splits and imports, "
                    "tracking coarsely in waiting. Where the second bill overtakes the first is the break-even folio "
                    "size.", ["split-or-stall"], tables.break_even_table(results)),
            section("tracking-section", "Tracking state and properties", "", ["tracking"],
                    tables.property_table(results)),
        ]  # fmt: skip
    return [*made, swept(results)]


def render(results: Results, found: Answer, first: First | None, shown: Sequence[Section]) -> str:
    """The page of a sweep as text."""
    about = f"{plural(len(results.good), 'simulated cell')}: {ABOUT[isinstance(results, Conversions)]}"

    def command(plot: Plot) -> str:
        return single(results, plot.row) if plot.row is not None else ""

    return rendered(results.title, about, found, shown, both(results), first, command)


def rendered(
    title: str,
    about: str,
    found: Answer,
    shown: Sequence[Section],
    again: str,
    first: First | None = None,
    command: Callable[[Plot], str] = lambda plot: "",
) -> str:
    """A page as text. about: what the report is on; again: the commands that make it; command: that of a figure."""
    import jinja2

    environment = jinja2.Environment(
        autoescape=True,
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    return environment.get_template(TEMPLATE).render(
        title=title,
        about=about,
        answer=found,
        first=first,
        columns=COLUMNS,
        sections=shown,
        again=again,
        command=command,
        width=_pixels,
    )


def _pixels(svg: str) -> int:
    """The width of an SVG on a page, from its view box in points."""
    box: Any = re.search(r'viewBox="0 0 ([0-9.]+) ', svg)
    return round(float(box[1]) * 4 / 3)


def replace(path: Path, content: bytes) -> None:
    """Replace the file at `path` atomically."""
    partial = partial_of(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(content)
        os.replace(partial, path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise InputError(
            f"{path}: cannot be written",
            value=error.strerror or str(error),
            allowed="a file in a folder with free space",
            cause="the results are safe",
            then="make room, or another file: -o FILE",
        ) from None
