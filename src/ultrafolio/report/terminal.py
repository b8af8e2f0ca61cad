"""The table in the terminal: policies by orders, the class of the hangs and how many runs hung, and what each costs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ultrafolio import screen

from . import conversion
from .aggregate import cube, hangs, stalled_runs
from .conversion import Conversions, opened
from .costs import Cost, costs
from .findings import LIVELOCK, answer
from .first import matrix_cell
from .share import runs_of_each
from .store import Results
from .style import label
from .tables import number, time

STYLE = {"fatal": "bold red", "permanent": "bold yellow", "livelock": "bold cyan"}


def terminal_table(store: Path) -> RenderableType:
    """The results of a store for a terminal: the matrix of hangs, a line of costs for each policy, the headline."""
    return _table(opened(store))


def _table(results: Results) -> RenderableType:
    if isinstance(results, Conversions):
        return Group(Text(conversion.answer(results).headline, style="bold"), holders(results))
    found = answer(results)
    text = Text("\n".join(part for part in (found.best, found.headline) if part), style="bold")
    told = [Text(note.text) for note in found.findings if LIVELOCK in note.text]
    return Group(text, matrix(results), *told, cost_lines(costs(results)))


def show(results: Results) -> None:
    """Print the table of a store's results."""
    screen.show(_table(results))


def matrix(results: Results) -> Table:
    """Policies by folio orders: "P 56" is a permanent hang in 56 % of the runs, "t" a wait that ended."""
    cells = cube(results, "policy", "order")
    runs, by_class, waited = cells.runs(), hangs(cells), stalled_runs(cells)
    shown = Table(
        title=label(results.title, 80),
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        caption=(
            f"columns: folio order; numbers: percent of the runs that hung ({runs_of_each(runs)} a cell), below the "
            "95 % Wilson interval. F fatal, P permanent, L livelock; t: waits that ended; ·: no wait at all"
        ),
    )
    shown.add_column("policy", no_wrap=True)
    for order in cells.axes[1].values:
        shown.add_column(str(order), no_wrap=True)
    differ = len({int(n) for n in runs[runs > 0]}) > 1
    for i, policy in enumerate(cells.axes[0].values):
        row = [word(int(runs[i, j]), by_class[i, j].tolist(), int(waited[i, j]), differ) for j in range(cells.shape[1])]
        shown.add_row(Text(label(policy, 24)), *row)
    return shown


def holders(results: Conversions) -> Table:
    """Policies by holders: runs in which a request hung, and what the guest was told."""
    cells = cube(results, "policy", "holder")
    made = conversion.outcome(cells)
    caption = (
        "columns: who holds pages; P permanent, V vmm-bound: percent of the runs that hung "
        f"({runs_of_each(made.runs)} a cell); no: percent of the requests of which the guest was told no; r: refusals "
        "a request"
    )
    shown = Table(title=label(results.title, 80), box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), caption=caption)
    shown.add_column("policy", no_wrap=True)
    for holder in cells.axes[1].values:
        shown.add_column(str(holder), no_wrap=True)
    for i, policy in enumerate(cells.axes[0].values):
        shown.add_row(Text(label(policy, 24)), *("\n".join(made.words(i, j)) for j in range(cells.shape[1])))
    return shown


def word(runs: int, by_class: Sequence[int], waited: int, of: bool = False) -> Text:
    """One cell of the matrix, as the report has it."""
    cell = matrix_cell(runs, by_class, waited, of)
    return Text(f"{cell.text}\n{cell.bounds}".rstrip(), style=STYLE.get(cell.kind, "dim"))


def cost_lines(made: Sequence[Cost]) -> Table:
    """A line of costs for each policy."""
    shown = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    columns = ("throughput", "95 %", "runs", "uv/touch", "stall/touch", "I/O", "collateral/ms")
    shown.add_column("cost", no_wrap=True)
    for name in columns:
        shown.add_column(name, justify="right", no_wrap=True)
    for cost in made:
        shown.add_row(
            Text(label(cost.policy, 24)),
            f"{cost.throughput.percent} %",
            cost.throughput.bounds,
            str(cost.throughput.runs),
            time(cost.uv),
            time(cost.stall),
            time(cost.io[0]),
            number(cost.collateral, ""),
        )
    return shown
