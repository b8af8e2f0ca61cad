"""Keys and stores: the key of a result, and the rows that can be read after kills, cuts and damage."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from fake_cells import PLAN, FakeCells, make_plan, run
from ultrafolio.errors import InputError
from ultrafolio.sweep import segment as segment_module
from ultrafolio.sweep.distributed.job import Record
from ultrafolio.sweep.distributed.worker import pack, tallies_of
from ultrafolio.sweep.key import canonical, cell_key
from ultrafolio.sweep.local import schedule
from ultrafolio.sweep.local.processes import Executor, InProcess, Processes
from ultrafolio.sweep.planfile import load
from ultrafolio.sweep.store import Store, make_store, open_store
from ultrafolio.sweep.work import Tally, check

CONFIG = {"seed": 1, "policy": {"track": "page", "drain": "none"}, "rate": 0.5, "name": "é"}


def test_keys_are_stable() -> None:
    assert canonical(CONFIG) == '{"name":"é","policy":{"drain":"none","track":"page"},"rate":0.5,"seed":1}'
    assert cell_key(canonical(CONFIG), "engine-1") == "00d8884c32f70178eee9cf30d9b3bfb7"
    shuffled = dict(reversed(CONFIG.items()))
    assert cell_key(canonical(shuffled), "engine-1") == "00d8884c32f70178eee9cf30d9b3bfb7"


def test_keys_are_sensitive() -> None:
    changed: list[dict[str, Any]] = [
        CONFIG, CONFIG | {"seed": 2}, CONFIG | {"seed": "1"}, CONFIG | {"policy": {"track": "page"}},
        CONFIG | {"extra": None}, {name: value for name, value in CONFIG.items() if name != "rate"},
    ]  # fmt: skip
    keys = [cell_key(canonical(config), engine) for config in changed for engine in ("engine-1", "engine-2")]
    assert len(set(keys)) == len(keys)
    with pytest.raises(ValueError):
        canonical({"rate": float("nan")})


def test_results_hold_the_plans_cells_sorted_by_key(tmp_path: Path) -> None:
    path, store = make_plan(tmp_path), tmp_path / "store"
    summary = run(path, store)
    table = pq.read_table(store / "results.parquet")
    assert table.column_names == [
        "fail",
        "policy",
        "order",
        "seed",
        "key",
        "status",
        "error",
        "stalls",
        "verdict",
        "histogram",
    ]
    rows = table.to_pylist()
    assert [row["key"] for row in rows] == sorted(row["key"] for row in rows)
    assert {(row["policy"], row["order"], row["seed"]) for row in rows} == {
        (cell["policy"], cell["order"], cell["seed"]) for _, cell in load(path).cells()
    }
    cells = FakeCells()
    for row in rows:
        cell = {name: row[name] for name in ("fail", "policy", "order", "seed")}
        config = cells.resolve(cell | {"tables": {}}, tmp_path)
        assert row["key"] == cell_key(canonical(config), "engine-1")
        if row["seed"] == 3:
            assert row["status"] == "failed" and row["error"] == "ValueError: the guest stopped"
            assert row["stalls"] is row["verdict"] is row["histogram"] is None
        else:
            assert row["status"] == "ok" and row["error"] is None
            result = cells.run(config, tmp_path)
            assert {name: row[name] for name in result} == result
    assert summary.failed == 5 and summary.cut_segments == []
    timings = pq.read_table(store / "timings.parquet")
    assert timings["key"].to_pylist() == [row["key"] for row in rows]
    assert min(timings["host_ns"].to_pylist()) > 0


def test_cells_that_share_a_configuration_share_a_result(tmp_path: Path) -> None:
    path = make_plan(tmp_path, '[grid]\npolicy = ["per-page"]\nseed = "1-4"\nignored = [1, "two", 0.5]')
    summary = run(path, tmp_path / "store")
    assert (summary.cells, summary.computed, summary.stored) == (12, 4, 8)
    rows = pq.read_table(tmp_path / "store/results.parquet").to_pylist()
    assert len(rows) == 12 and len({row["key"] for row in rows}) == 4
    assert [row["ignored"] for row in rows[:3]] == ["1", "two", "0.5"]


def test_a_truncated_segment_costs_its_last_batch_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule, "FIRST_SPAN", 4)
    path, store = make_plan(tmp_path), tmp_path / "store"
    run(path, store)
    whole = (store / "results.parquet").read_bytes()
    (segment,) = (store / "segments").iterdir()
    content = segment.read_bytes()
    uncut: list[Path] = []
    total = len(open_store(store).keys(uncut))
    assert total == 25 and not uncut
    counts = set()
    for length in [*range(0, len(content), 97), len(content)]:
        segment.write_bytes(content[:length])
        counts.add(len(open_store(store).keys([])))
    assert counts >= {0, total} and len(counts) > 3, "batches before the cut are read"
    segment.write_bytes(content[: len(content) * 2 // 3])
    cut: list[Path] = []
    left = len(open_store(store).keys(cut))
    assert cut == [segment] and 0 < left < total
    summary = run(path, store)
    assert (summary.stored, summary.computed) == (left, total - left)
    assert summary.cut_segments == [str(segment)]
    assert (store / "results.parquet").read_bytes() == whole


def test_a_flipped_bit_is_refused_and_only_that_segment_is_computed_again(tmp_path: Path) -> None:
    path, store = make_plan(tmp_path), tmp_path / "store"
    run(path, store, limit=10)
    run(path, store)
    whole = (store / "results.parquet").read_bytes()
    first, second = sorted((store / "segments").iterdir(), key=lambda file: int(file.stem.rpartition("-")[2]))
    content = first.read_bytes()
    for place in [*range(40), *range(40, len(content), 61), len(content) - 1]:
        first.write_bytes(content[:place] + bytes([content[place] ^ 1 << place % 8]) + content[place + 1 :])
        with pytest.raises(InputError, match="damaged") as caught:
            open_store(store).keys([])
        assert str(first) in caught.value.what and f"delete only {first}" in caught.value.then
    with pytest.raises(InputError, match="damaged"):
        run(path, store)
    first.unlink()
    again = run(path, store)
    assert (again.stored, again.computed) == (15, 10) and second.exists()
    assert (store / "results.parquet").read_bytes() == whole


def test_a_part_that_changed_under_way_is_no_part(tmp_path: Path) -> None:
    record = Record("p", "", "engine-1", FakeCells.COLUMNS, 1, 1, "redis:", {}, None, None)
    tally = Tally(range(1), bytes(16), 1, 0, 0, 0.5)
    part = pack([], "w", record, [tally])
    assert tallies_of(part) == [tally]
    for place in range(0, len(part), 7):
        with pytest.raises(ValueError, match="not a part"):
            tallies_of(part[:place] + bytes([part[place] ^ 4]) + part[place + 1 :])
    with pytest.raises(ValueError, match="not a part"):
        tallies_of(part[:-1])


def test_the_store_of_another_plan_is_refused(tmp_path: Path) -> None:
    store = tmp_path / "store"
    run(make_plan(tmp_path), store)
    with pytest.raises(InputError, match="the store of another plan") as caught:
        run(make_plan(tmp_path, PLAN.replace("1-5", "1-6")), store)
    assert "diff" in str(caught.value) and "the plan was changed since" in str(caught.value)


def test_a_store_with_other_columns_is_refused(tmp_path: Path) -> None:
    class Wider(FakeCells):
        COLUMNS = FakeCells.COLUMNS | {"splits": "int"}

    path, store = make_plan(tmp_path), tmp_path / "store"
    run(path, store)
    with pytest.raises(InputError, match="other result columns") as caught:
        run(path, store, cells=Wider())
    assert caught.value.value == "splits"


@pytest.mark.parametrize(
    ("content", "expected"),
    [("{", "damaged"), ('{"format": 1}', "damaged"), (None, "not a store"), ("FORMAT", "another format")],
)
def test_a_damaged_manifest_is_told(tmp_path: Path, content: str | None, expected: str) -> None:
    path, store = make_plan(tmp_path), tmp_path / "store"
    run(path, store)
    manifest = store / "store.json"
    if content is None:
        manifest.unlink()
    elif content == "FORMAT":
        manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"format": 99}))
    else:
        manifest.write_text(content)
    with pytest.raises(InputError, match=expected):
        open_store(store)


def test_a_store_without_its_manifest_finds_its_segments_again(tmp_path: Path) -> None:
    path, store = make_plan(tmp_path), tmp_path / "store"
    run(path, store)
    (store / "store.json").unlink()
    assert run(path, store).stored == 25


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "home"
    folder.mkdir()
    (folder / "thesis.tex").write_text("x")
    with pytest.raises(InputError, match="it holds other files"):
        run(make_plan(tmp_path), folder)
    assert [entry.name for entry in folder.iterdir()] == ["thesis.tex"]
    with pytest.raises(InputError, match="not a store"):
        run(make_plan(tmp_path), folder / "thesis.tex")


def test_an_axis_may_not_be_a_result(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a result column"):
        run(make_plan(tmp_path, '[grid]\npolicy = ["per-page"]\nstalls = [1]'), tmp_path / "store")
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    "result",
    [
        {},
        {"a": 1, "b": "x"},
        {"a": 1, "b": "x", "c": [1], "d": 1},
        {"a": "1", "b": "x", "c": [1]},
        {"a": True, "b": "x", "c": [1]},
        {"a": 1.0, "b": "x", "c": [1]},
        {"a": 1, "b": 2, "c": [1]},
        {"a": 1, "b": "x", "c": 1},
        {"a": [1], "b": "x", "c": [1]},
        {"a": 1, "b": ["x"], "c": [1]},
        {"a": 1, "b": "x", "c": ["1"]},
        {"a": 2**63, "b": "x", "c": []},
    ],
)
def test_results_of_another_shape_are_failures(result: dict[str, Any]) -> None:
    columns = {"a": "int", "b": "str", "c": "ints"}
    check({"a": 1, "b": "x", "c": []}, columns)
    with pytest.raises(TypeError):
        check(result, columns)


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A file system of 128 KB; skips the test where it cannot be had."""
    folder.mkdir()
    mounted = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if not mounted or mounted.returncode:
        pytest.skip("needs the right to mount a tmpfs")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


LONG = '[fixed]\nsleep_ms = 1\npad = "' + "x" * 200 + '"\n[grid]\npolicy = ["per-page"]\nseed = "1-300"'


def test_a_full_disk_keeps_what_is_stored(tmp_path: Path) -> None:
    path = make_plan(tmp_path, LONG)
    with small_disk(tmp_path / "disk") as disk:
        store, filler = disk / "store", disk / "filler"
        make_store(store, load(path), FakeCells.COLUMNS)
        run(path, store, limit=100)
        before = open_store(store).keys([])
        with open(filler, "wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
            while True:
                file.write(bytes(1024))
        for executor in (InProcess(), Processes(2)):
            with pytest.raises(InputError, match="No space left on device"):
                run(path, store, executor)
        assert open_store(store).keys([]).items() >= before.items() and len(before) == 100
        filler.unlink()
        assert run(path, store).stored >= 100
        after = (store / "results.parquet").read_bytes()
    run(path, tmp_path / "store")
    assert after == (tmp_path / "store/results.parquet").read_bytes()


@pytest.mark.parametrize("executor", [InProcess(), Processes(2)], ids=["in process", "processes"])
def test_a_segment_that_cannot_be_written_ends_the_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, executor: Executor
) -> None:
    path, store = make_plan(tmp_path), tmp_path / "store"
    run(path, store, limit=10)
    with monkeypatch.context() as patch:
        patch.setattr(
            segment_module, "open", lambda *_: os.fdopen(os.open("/dev/full", os.O_WRONLY), "wb"), raising=False
        )
        with pytest.raises(InputError, match="No space left on device") as caught:
            run(path, store, executor)
    assert caught.value.then and len(open_store(store).keys([])) == 10
    assert run(path, store).stored == 10


def test_results_that_cannot_be_written_leave_the_old_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, store = make_plan(tmp_path), tmp_path / "store"
    run(path, store)
    before = (store / "results.parquet").read_bytes()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(InputError, match="No space left"):
            run(path, store, rerun="all")
    assert (store / "results.parquet").read_bytes() == before
    assert not list(store.glob("*.tmp"))


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    store: Store = make_store(tmp_path / "store", load(make_plan(tmp_path)), FakeCells.COLUMNS)
    code = (
        "import sys; from pathlib import Path; from ultrafolio.sweep.store import open_store\n"
        "with open_store(Path(sys.argv[1])).lock(): pass"
    )
    command = [sys.executable, "-c", code, str(store.folder)]
    with store.lock():
        refused = subprocess.run(command, capture_output=True, text=True, check=False)
        assert refused.returncode == 1 and "another sweep is writing" in refused.stderr
        assert f"process {os.getpid()}" in refused.stderr
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
