"""One sweep, from a plan to results, with Ctrl-C handled."""

from __future__ import annotations

import signal
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass
from functools import partial
from itertools import chain, islice
from pathlib import Path
from types import FrameType
from typing import Any, Literal

from ultrafolio.errors import InputError
from ultrafolio.sweep.local.processes import Executor

from .cells import Cells
from .plan import Plan
from .progress import Count, Display
from .results import Keys, write_results
from .segment import Segment
from .store import Store, make_store
from .work import Tally, Work

Rerun = Literal["failed", "all"]
PROBED_POINTS = 10_000


@dataclass(frozen=True)
class Summary:
    """The counts of a sweep. ``cells``: of the plan, or its first ``limit``; ``failed`` includes stored failures."""

    title: str
    store: str
    cells: int
    computed: int
    stored: int
    failed: int
    seconds: float
    cells_per_second: float
    cut_segments: list[str]
    interrupted: bool
    results: str | None

    def record(self) -> dict[str, Any]:
        """The summary as a JSON object."""
        return asdict(self)


def sweep(
    plan: Plan,
    folder: Path,
    cells: Cells,
    executor: Executor,
    display: Display,
    *,
    rerun: Rerun | None = None,
    limit: int | None = None,
) -> Summary:
    """Compute the cells of ``plan`` that the store in ``folder`` lacks, and merge the results.

    A first SIGINT lets workers finish their cells and store them; a second one ends the sweep at once and loses the
    workers' current batches. ``rerun`` computes failed or all cells again; with ``limit`` only the plan's first cells
    are computed and no results are written. Raises InputError for a bad plan, a store of another plan or an
    unwritable disk; stored cells are kept.
    """
    going = steps(plan, folder, cells, executor, display, rerun=rerun, limit=limit)
    while True:
        try:
            next(going)
        except StopIteration as end:
            summary: Summary = end.value
            return summary


def steps(
    plan: Plan,
    folder: Path,
    cells: Cells,
    executor: Executor,
    display: Display,
    *,
    rerun: Rerun | None = None,
    limit: int | None = None,
    stop: threading.Event | None = None,
) -> Generator[Tally, None, Summary]:
    """As `sweep`, for who has more than one under way: yields each tally of the executor. ``stop`` ends it in order,
    instead of SIGINT."""
    work = Work(plan, cells, {})
    check_columns(plan, cells)
    probe(work)
    store = make_store(folder, plan, cells.COLUMNS)
    with store.lock():
        cut: list[Path] = []
        work.stored = {key: failed for key, failed in store.keys(cut).items() if not redo(rerun, failed)}
        span, total = first_cells(plan, limit)
        keys, count = Keys(plan.size), Count(total)
        segment = partial(segment_of, store, store.next_run(), work.engine)
        with suppress(KeyboardInterrupt), nullcontext(stop) if stop else stop_on_sigint() as asked, display:
            for tally in executor.run(work, span, segment, asked.is_set):
                keys.add(tally)
                count.add(tally)
                count.stopping = asked.is_set()
                display.show(count)
                yield tally
        seconds, rate = count.seconds, count.rate
        results = write_results(store, plan, keys, work.engine) if count.done == plan.count else None
    return Summary(
        title=plan.title,
        store=str(folder),
        cells=total,
        computed=count.computed,
        stored=count.stored,
        failed=count.failed,
        seconds=round(seconds, 3),
        cells_per_second=round(rate, 1),
        cut_segments=[str(path) for path in cut],
        interrupted=count.done < total,
        results=str(results) if results else None,
    )


def redo(rerun: Rerun | None, failed: bool) -> bool:
    """Whether a stored row is to be computed again."""
    return rerun == "all" or (rerun == "failed" and failed)


def first_cells(plan: Plan, limit: int | None) -> tuple[range, int]:
    """The span of indices that holds the plan's first ``limit`` cells, and their number."""
    if limit is None or limit >= plan.count:
        return range(plan.size), plan.count
    beyond, _ = next(islice(plan.cells(), limit, None))
    return range(beyond), limit


def check_columns(plan: Plan, cells: Cells) -> None:
    """Raise InputError for an axis that has the name of a result column."""
    for axis in plan.axes:
        if axis.name in cells.COLUMNS:
            raise InputError(
                f"{plan.path}: axis",
                value=axis.name,
                allowed="any name that is not a result column",
                then=f"rename the axis, then: ultrafolio sweep {plan.path}",
            )


def probe(work: Work) -> None:
    """Resolve one cell for each listed value of each axis, and for both ends of a range. Raises InputError.

    A bad value is so found before the first cell is computed. Cells that a filter drops are not tried.
    """
    plan, stride = work.plan, 1
    for axis in reversed(plan.axes):
        length = len(axis.values)
        block = stride * length
        for position in (0, length - 1) if isinstance(axis.values, range) else range(length):
            starts = range(position * stride, plan.size, block)
            points = chain.from_iterable(range(start, start + stride) for start in starts)
            kept = (cell for cell in map(plan.cell, islice(points, PROBED_POINTS)) if cell is not None)
            for cell in islice(kept, 1):
                work.key(cell)
        stride = block


@contextmanager
def stop_on_sigint() -> Iterator[threading.Event]:
    """An event that the first SIGINT sets; the second raises KeyboardInterrupt as usual."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def on_sigint(_number: int, _frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = signal.signal(signal.SIGINT, on_sigint)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)


def segment_of(store: Store, run: int, engine: str, writer: str) -> Segment:
    """The segment of a writer in a run."""
    return Segment(store.folder, run, writer, store.manifest.columns, engine)
