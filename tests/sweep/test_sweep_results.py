"""The merge of segments, whatever the size of its parts: each cell once, with its newest row."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from fake_cells import FakeCells, make_plan, run
from services.lab.partial import _newest, results_so_far
from ultrafolio.sweep import results as results_module
from ultrafolio.sweep.local import schedule
from ultrafolio.sweep.results import parts
from ultrafolio.sweep.store import open_store


class Numbered(FakeCells):
    """Each run of a cell gives the next number."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = itertools.count()

    def run(self, config: dict[str, Any], base: Path) -> dict[str, Any]:
        return super().run(config, base) | {"stalls": next(self.numbers)}


@pytest.fixture
def twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A plan and its store, in batches of few cells; the first ten cells ran twice, from number 25 on."""
    monkeypatch.setattr(schedule, "FIRST_SPAN", 4)
    path, store, cells = make_plan(tmp_path), tmp_path / "store", Numbered()
    run(path, store, cells=cells)
    run(path, store, cells=cells, rerun="all", limit=10)
    return path, store


@pytest.mark.parametrize("size", [1, 7, 25, 1000])
def test_results_do_not_depend_on_the_size_of_a_part(
    twice: tuple[Path, Path], size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, store = twice
    monkeypatch.setattr(results_module, "ROW_GROUP", size)
    assert run(path, store, cells=Numbered()).stored == 25
    rows = pq.read_table(store / "results.parquet").to_pylist()
    assert pq.ParquetFile(store / "results.parquet").num_row_groups == -(-25 // size)
    assert [row["key"] for row in rows] == sorted({row["key"] for row in rows}) and len(rows) == 25
    stalls = sorted(row["stalls"] for row in rows if row["status"] == "ok")
    assert len(stalls) == 20 and sum(number >= 20 for number in stalls) == 8, "eight of the ten did not fail"
    times = pq.read_table(store / "timings.parquet")["key"].to_pylist()
    assert times == [row["key"] for row in rows]


def test_a_part_is_hardly_larger_than_a_row_group(twice: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results_module, "ROW_GROUP", 6)
    store = open_store(twice[1])
    largest = max(len(batch) for batch in store.batches(["key"], cut=[]))
    sizes = [len(part) for part in parts(store, ["key", "status"])]
    assert sum(sizes) == 35 and len(sizes) > 2 and max(sizes) < 6 + largest


@pytest.mark.parametrize("size", [3, 1000])
def test_the_results_so_far_have_each_cell_once(
    twice: tuple[Path, Path], tmp_path: Path, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, store = twice
    monkeypatch.setattr(results_module, "ROW_GROUP", size)
    assert results_so_far(path, store, tmp_path / "shown") == 25
    rows = pq.read_table(tmp_path / "shown" / "results.parquet").to_pylist()
    assert len({row["key"] for row in rows}) == len(rows) == 25
    assert sum(row["stalls"] is not None and row["stalls"] >= 20 for row in rows) == 8


def test_rows_that_come_while_the_results_are_read_are_passed_over() -> None:
    cells, left = np.array([2, 5, 9]), np.array([1, 2, 1])
    assert _newest(np.array([5, 7, 2, 2]), cells, left).tolist() == [3]
    assert _newest(np.array([9, 5, 11, 2]), cells, left).tolist() == [0, 1]
    assert _newest(np.array([9, 5, 2]), cells, left).tolist() == []
