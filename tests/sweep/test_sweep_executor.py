"""Executors and schedules: the same results with any number of processes, and after any interruption."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from fake_cells import PLAN, FakeCells, children, make_plan, run, start, wait_for
from patience import NEVER
from ultrafolio.errors import InputError
from ultrafolio.sweep.local import processes
from ultrafolio.sweep.local.processes import MAX_DEATHS, Executor, InProcess, Processes
from ultrafolio.sweep.local.schedule import Schedule
from ultrafolio.sweep.store import open_store
from ultrafolio.sweep.work import BATCH_SECONDS, Tally

SLOW = """
[fixed]
sleep_ms = 10
fail = 7
[grid]
policy = ["per-page", "whole-folio"]
order = "0-2"
seed = "1-25"
[[skip]]
policy = "whole-folio"
order = 1
"""
CELLS = 125


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The results of SLOW, computed in one go in this process."""
    folder = tmp_path_factory.mktemp("reference")
    run(make_plan(folder, SLOW), folder / "store")
    return (folder / "store/results.parquet").read_bytes()


def results(store: Path) -> bytes:
    return (store / "results.parquet").read_bytes()


def stored(store: Path) -> int:
    return len(open_store(store).keys([]))


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_any_number_of_processes_gives_the_same_bytes(tmp_path: Path, reference: bytes, workers: int) -> None:
    path, store = make_plan(tmp_path, SLOW), tmp_path / "store"
    summary = run(path, store, Processes(workers))
    assert (summary.computed, summary.stored, summary.failed) == (CELLS, 0, 5)
    assert results(store) == reference
    again = run(path, store, Processes(workers))
    assert (again.computed, again.stored, again.failed) == (0, CELLS, 5)
    assert results(store) == reference


def test_the_bytes_tell_different_sweeps_apart(tmp_path: Path, reference: bytes) -> None:
    run(make_plan(tmp_path, SLOW), tmp_path / "store", Processes(4), FakeCells("engine-2"))
    assert results(tmp_path / "store") != reference


@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize("way", ["SIGINT", "SIGINT twice", "kill the parent", "kill a worker"])
def test_an_interrupted_sweep_resumes_to_the_same_bytes(
    tmp_path: Path, reference: bytes, workers: int, way: str
) -> None:
    chance = random.Random(f"{way} {workers}")
    path, store = make_plan(tmp_path, SLOW), tmp_path / "store"
    command = (path, "-o", store, "--workers", str(workers), "--no-report")
    process = start(*command)
    wait_for(lambda: len(children(process.pid)) == workers)
    workers_then = children(process.pid)
    time.sleep(chance.uniform(0.02, 0.5 / workers))  # a whole sweep takes 1.25 s / workers
    if way == "kill a worker":
        os.kill(chance.choice(workers_then), signal.SIGKILL)
    elif way == "kill the parent":
        process.kill()
    else:
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: workers get it too
        if way == "SIGINT twice":
            os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=NEVER)
    assert "Traceback" not in err
    if way == "kill a worker":
        assert process.returncode == 3 and results(store) == reference
        return
    if way == "kill the parent":
        assert process.returncode == -signal.SIGKILL
    else:
        assert process.returncode == 130, err
        assert f"To resume: ultrafolio sweep {path} -o {store}" in out
    wait_for(lambda: not any(Path(f"/proc/{pid}/exe").exists() for pid in workers_then))
    assert not (store / "results.parquet").exists()
    if way == "SIGINT":
        assert 0 < stored(store) < CELLS, "what was computed was stored"
    before = stored(store)
    summary = run(path, store, Processes(3 - workers % 2))
    assert (summary.stored, summary.computed) == (before, CELLS - before)
    assert results(store) == reference


def test_a_killed_parent_takes_a_worker_in_a_long_cell_with_it(tmp_path: Path) -> None:
    path = make_plan(tmp_path, '[fixed]\nsleep_ms = 60000\n[grid]\npolicy = ["per-page"]')
    process = start(path, "-o", tmp_path / "store", "--workers", "1")
    wait_for(lambda: children(process.pid))
    (worker,) = children(process.pid)
    process.kill()
    process.communicate()
    wait_for(lambda: not Path(f"/proc/{worker}/exe").exists(), 5)


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_a_cell_that_kills_its_workers_is_a_failed_row(tmp_path: Path, workers: int) -> None:
    path = make_plan(tmp_path, PLAN.replace("fail = 3", "fail = 3\nkill = 4"))
    summary = run(path, tmp_path / "store", Processes(workers))
    assert (summary.computed, summary.failed) == (25, 10)
    rows = pq.read_table(tmp_path / "store/results.parquet").to_pylist()
    errors = {row["error"] for row in rows if row["seed"] == 4}
    assert errors == {f"WorkerDied: signal 9 (SIGKILL) ended {MAX_DEATHS} workers in this cell"}
    assert all(row["status"] == "ok" for row in rows if row["seed"] not in (3, 4))


def test_a_cell_that_kills_one_worker_gets_a_second_chance(tmp_path: Path) -> None:
    path = make_plan(tmp_path, PLAN.replace("fail = 3", "fail = 3\nkill_once = 4"))
    (tmp_path / "once").touch()
    summary = run(path, tmp_path / "store", Processes(2))
    assert not (tmp_path / "once").exists() and summary.failed == 5


def test_workers_that_cannot_even_begin_end_the_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "die_with", lambda parent: os._exit(7))
    with pytest.raises(RuntimeError, match="exit status 7"):
        run(make_plan(tmp_path), tmp_path / "store", Processes(2))


@pytest.mark.parametrize("executor", [InProcess(), Processes(2)], ids=["in process", "processes"])
def test_a_cell_that_means_nothing_is_bad_input(tmp_path: Path, executor: Executor) -> None:
    class Cells(FakeCells):
        def resolve(self, cell: dict[str, object], base: Path) -> dict[str, object]:
            if cell["order"] == 1 and cell["seed"] == 2:  # no axis value is wrong by itself
                raise InputError("order 1 has no seed 2", allowed="others")
            return super().resolve(cell, base)

    with pytest.raises(InputError, match="order 1 has no seed 2") as caught:
        run(make_plan(tmp_path), tmp_path / "store", executor, Cells())
    assert "policy=per-page, order=1, seed=2" in str(caught.value)
    assert str(tmp_path / "plan.toml") in str(caught.value)


def test_a_bad_value_is_found_before_anything_runs(tmp_path: Path) -> None:
    text = PLAN.replace('"whole-folio"]', '"whole-foil"]').replace('policy = "whole-folio"', "seed = 1")
    with pytest.raises(InputError, match="did you mean 'whole-folio'"):
        run(make_plan(tmp_path, text), tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_two_sweeps_do_not_share_a_store(tmp_path: Path) -> None:
    path, store = make_plan(tmp_path, SLOW), tmp_path / "store"
    first = start(path, "-o", store, "--workers", "1", "--no-report")
    wait_for(lambda: children(first.pid))
    second = start(path, "-o", store, "--workers", "1", "--no-report")
    _, err = second.communicate(timeout=NEVER)
    assert second.returncode == 2 and "another sweep is writing" in err and f"process {first.pid}" in err
    first.communicate(timeout=NEVER)
    assert first.returncode == 3 and stored(store) == CELLS


def test_two_processes_share_the_work(tmp_path: Path) -> None:
    """Not a speed test: both workers are given about half of equal cells, whatever the machine does."""
    path = make_plan(tmp_path, SLOW)
    run(path, tmp_path / "store", Processes(2))
    workers = pq.read_table(tmp_path / "store/timings.parquet")["worker"].to_pylist()
    assert set(workers) == {"0", "1"} and min(workers.count("0"), workers.count("1")) > CELLS // 4


def tally(span: range, seconds: float) -> Tally:
    return Tally(span, b"", len(span), 0, 0, seconds)


def test_spans_follow_the_rate_and_shrink_at_the_end() -> None:
    schedule, sizes, done = Schedule([range(100_000)], 2), [], []
    while schedule:
        span = schedule.take()
        sizes.append(len(span))
        done += span
        schedule.done(span, tally(span, len(span) / 10_000))
    assert done == list(range(100_000))
    assert max(sizes) <= 10_000 * BATCH_SECONDS and max(sizes) > 5_000
    assert sizes[0] <= 64 and sizes[-2] < 1_000 and len(sizes) < 60


def test_what_a_worker_leaves_undone_comes_back() -> None:
    schedule = Schedule([range(64)], 1)
    span = schedule.take()
    schedule.done(span, tally(span[:1], 10.0))
    left = []
    while schedule:
        left += schedule.take()
    assert left == list(range(1, 64))


@pytest.mark.parametrize(("at", "again"), [(5, True), (0, True), (9, True), (5, False), (-1, True)])
def test_a_suspect_stands_alone(at: int, again: bool) -> None:
    schedule = Schedule([], 1)
    schedule.died(range(10), at, again=again)
    spans = []
    while schedule:
        spans.append(schedule.take())
    assert [index for span in spans for index in span] == [n for n in range(10) if again or n != at]
    if at >= 0 and again:
        assert range(at, at + 1) in spans


def test_no_process_is_left_over(tmp_path: Path) -> None:
    before = set(children(os.getpid()))
    run(make_plan(tmp_path), tmp_path / "store", Processes(3))
    assert set(children(os.getpid())) <= before
    listed = subprocess.run(["ls", "-l", "/proc/self/fd"], capture_output=True, text=True, check=True).stdout
    assert "segments" not in listed
