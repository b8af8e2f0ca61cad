"""A report of many cells: the calls do not grow with the cells, and the memory grows by some numbers a cell."""

from __future__ import annotations

import gc
import json
import sys
import tracemalloc
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from test_report import make, noisy
from ultrafolio.checksums import piece
from ultrafolio.report import charts, matrix
from ultrafolio.report.aggregate import records
from ultrafolio.report.compare import comparison
from ultrafolio.report.findings import answer
from ultrafolio.report.first import first_screen
from ultrafolio.report.page import all_plots, render, sections
from ultrafolio.report.store import Results
from ultrafolio.report.terminal import matrix as terminal_matrix

PLAN = """
[grid]
policy = ["whole-folio", "per-page", "split"]
order = "0-2"
[workload.default]
touches = "b.gz"
"""
FEW, MANY = 10_000, 100_000


def large(folder: Path, cells: int) -> Path:
    """A store of so many cells: those of `noisy`, again and again, with other seeds and keys."""
    base = pq.read_table(make(folder, noisy(500), PLAN) / "results.parquet")
    times = cells // len(base)
    table = pa.concat_tables([base] * times)
    names = {"seed": np.arange(cells), "key": [f"{number:032x}" for number in range(cells)]}
    for name, values in names.items():
        table = table.set_column(table.schema.get_field_index(name), name, pa.array(values))
    pq.write_table(table, folder / "results.parquet")
    configs = [json.dumps({"seed": seed, "workload": {"touches": ["b.gz", f"d{seed % 2}"]}}, separators=(",", ":"))
               for seed in range(cells)]  # fmt: skip
    (folder / "segments").mkdir()
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, pa.schema([("config", pa.string())])) as stream:
        stream.write_table(pa.table({"config": configs}), max_chunksize=cells)
    (folder / "segments" / "0-0001.arrows").write_bytes(piece(sink.getvalue().to_pybytes()))
    return folder


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    made = tmp_path_factory.mktemp("large")
    few, many = (large(made / str(cells), cells) for cells in (FEW, MANY))
    return few, many


def work(store: Path) -> None:
    """All that a report does but painting."""
    results = Results(store)
    terminal_matrix(results)
    plots = all_plots(results)
    render(results, answer(results), first_screen(results), sections(results, plots))
    assert sum(1 for _ in records(results)) == 18
    assert comparison(results, results).endswith("9 of 9 points")
    assert [one.digest for one in results.recordings()] == ["d0, d1"]


@pytest.fixture(autouse=True)
def no_painting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are empty: painting them takes seconds, whatever the number of cells."""
    painted = '<svg viewBox="0 0 10 10"></svg>', b""
    monkeypatch.setattr(charts, "pictures", lambda figure, note: painted)
    monkeypatch.setattr(charts, "panels", lambda *given: painted)
    monkeypatch.setattr(matrix, "pictures", lambda figure, note: painted)


def calls(function: Callable[[], Any]) -> int:
    """The number of calls, of functions in Python and in C."""
    counted: Counter[str] = Counter()
    sys.setprofile(lambda frame, event, about: counted.update([event]))
    try:
        function()
    finally:
        sys.setprofile(None)
    return counted["call"] + counted["c_call"]


def peak(function: Callable[[], Any]) -> int:
    """The most bytes that Python and NumPy held beyond those before."""
    gc.collect()
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_calls_do_not_grow_with_the_cells(stores: tuple[Path, Path]) -> None:
    few, many = stores
    work(few)
    counts = [calls(lambda store=store: work(store)) for store in (few, many)]  # type: ignore[misc]
    assert counts[1] < 1.1 * counts[0]


def test_memory_grows_by_some_numbers_a_cell(stores: tuple[Path, Path]) -> None:
    few, many = stores
    work(few)
    peaks = [peak(lambda store=store: work(store)) for store in (few, many)]  # type: ignore[misc]
    assert (peaks[1] - peaks[0]) / (MANY - FEW) < 500
