"""The Celery executor beside the local one on the same cores, and the cost to submit and watch a million cells.

    python benchmarks/celery_path.py [--quick] [--json] [--rounds N]

Rounds are interleaved; figures are medians, and the overhead is taken within a round: of the CPU seconds that all
processes of a path use (client, workers, Redis), which other work on the machine disturbs less than the wall clock.
Exit 1 when the two give different bytes. --quick runs one short round as a test; its ratios mean nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from ultrafolio.redis_server import VARIABLE, Server, launch
from ultrafolio.sweep.cells import simulator
from ultrafolio.sweep.distributed.broker import connect
from ultrafolio.sweep.distributed.job import Job, Record
from ultrafolio.sweep.distributed.own_workers import checkout, worker_command
from ultrafolio.sweep.distributed.queue import Queue
from ultrafolio.sweep.local.processes import Executor, Processes
from ultrafolio.sweep.planfile import load
from ultrafolio.sweep.progress import Silent
from ultrafolio.sweep.run import sweep

PROCESSES = 2
PLAN = """
[fixed]
duration_us = {duration}
[grid]
policy = ["per-page", "whole-folio", "split"]
order = "0-9"
seed = "1-{seeds}"
"""
MILLION = """
[grid]
policy = ["per-page", "whole-folio", "split", "folio-bitmap"]
order = "0-4"
seed = "1-{seeds}"
"""
_SUBMIT = """
import json, sys, time
from pathlib import Path
def peak():  # not ru_maxrss: a child begins with its parent's
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024
from ultrafolio.sweep.cells import simulator
from ultrafolio.sweep.run import sweep
from ultrafolio.sweep.planfile import load
from ultrafolio.sweep.progress import Silent
from ultrafolio.sweep.distributed.queue import Queue
cells = simulator()
before = peak()
began = time.monotonic()
queued = []
queue = Queue(Path(sys.argv[2]), sys.argv[3], lambda text: queued.append(time.monotonic() - began))
inner = queue.run
queue.run = lambda work, span, segment, _: inner(work, span, segment, lambda: bool(queued))
sweep(load(Path(sys.argv[1])), Path(sys.argv[2]), cells, queue, Silent())
print(json.dumps({"seconds": queued[0], "megabytes": peak(), "megabytes_before": before}))
"""


def cpu(roots: Sequence[int]) -> float:
    """CPU seconds of this process, of its ended children, and of the process trees below ``roots``."""
    own, ticks, todo = os.times(), 0, list(roots)
    while todo:
        pid = todo.pop()
        ticks += sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:15]))
        todo += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    return own.user + own.system + own.children_user + own.children_system + ticks / os.sysconf("SC_CLK_TCK")


def timed(plan: Path, store: Path, executor: Executor, roots: Sequence[int] = ()) -> tuple[float, float]:
    """Wall and CPU seconds of one sweep, from the plan to the merged Parquet."""
    began, before = time.monotonic(), cpu(roots)
    sweep(load(plan), store, simulator(), executor, Silent())
    return time.monotonic() - began, cpu(roots) - before


def overhead(rounds: int, seeds: int, duration: int) -> list[dict[str, Any]]:
    """Wall and CPU time of one plan on two local processes and on two running Celery processes, interleaved."""
    simulator().warm()
    found = []
    with tempfile.TemporaryDirectory() as name, Server.start() as server:
        folder = Path(name)
        (folder / "plan.toml").write_text(PLAN.format(seeds=seeds, duration=duration))
        with open(folder / "log", "wb") as log:
            environment = {**os.environ, VARIABLE: server.url, "PYTHONPATH": str(checkout(server.url))}
            worker = launch(worker_command(PROCESSES), env=environment, stdout=log, stderr=log, start_new_session=True)
        try:
            ways: dict[str, Callable[[int], Executor]] = {
                "local": lambda _: Processes(PROCESSES),
                "celery": lambda number: Queue(folder / f"celery{number}", server.url, lambda _: None),
            }
            timed(folder / "plan.toml", folder / "celery0", ways["celery"](0))  # the workers are up after this
            for number in range(1, rounds + 1):
                order = list(ways) if number % 2 else list(reversed(ways))
                stores = {way: folder / f"{way}{number}" for way in ways}
                roots = [worker.pid, server.pid]
                taken = {way: timed(folder / "plan.toml", stores[way], ways[way](number), roots) for way in order}
                files = [(stores[way] / "results.parquet").read_bytes() for way in ways]
                if files[0] != files[1]:
                    raise AssertionError("the two paths give different bytes")
                row = {f"{way} {kind}": taken[way][place] for way in ways for place, kind in enumerate(("s", "cpu s"))}
                row["overhead"] = taken["celery"][1] / taken["local"][1] - 1
                found.append({**row, "load": os.getloadavg()[0]})
        finally:
            worker.terminate()
            worker.wait()
    return found


def submission(seeds: int) -> dict[str, Any]:
    """Seconds and memory of a new process that submits 20 x ``seeds`` cells, and the memory of Redis after it."""
    with tempfile.TemporaryDirectory() as name, Server.start() as server:
        plan = Path(name) / "plan.toml"
        plan.write_text(MILLION.format(seeds=seeds))
        command = [sys.executable, "-c", _SUBMIT, str(plan), str(Path(name) / "store"), server.url]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        client = connect(server.url)
        memory = client.info("memory")["used_memory"] / 2**20
        return {"cells": 20 * seeds, "chunks": client.llen("ultrafolio"), **json.loads(done.stdout), "redis_mb": memory}


def progress(calls: int) -> list[dict[str, Any]]:
    """Microseconds of a job's `progress`, by the number of its cells, ten a chunk. The jobs are interleaved, since a
    reply takes four times as long when the server wakes up on the other core."""
    jobs: dict[int, Job] = {}
    taken: dict[int, list[int]] = {}
    with Server.start() as server:
        client = connect(server.url)
        for cells in (100, 10_000, 1_000_000):
            job = jobs[cells] = Job(client, f"watched-{cells}")
            chunks = [[(start, start + 10)] for start in range(0, cells, 10)]
            job.submit(Record("p", "", "e", {}, cells, len(chunks), "redis:", {}), chunks)
            with client.pipeline() as pipe:
                for number in range(len(chunks)):
                    pipe.hset(job._key("done"), number, f"{number}-part")
                    pipe.rpush(job._key("log"), b"x" * 100)
                pipe.hset(job._key("count"), mapping={"chunks": len(chunks), "computed": cells, "failed": 0})
                pipe.execute()
        for cells in [*jobs] * calls:
            began = time.perf_counter_ns()
            jobs[cells].progress()
            taken.setdefault(cells, []).append(time.perf_counter_ns() - began)
    return [{"cells": cells, "microseconds": median(each) / 1000} for cells, each in taken.items()]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    rounds, seeds, duration = (1, 3, 2000) if given.quick else (given.rounds, 150, 20_000)
    rows = overhead(rounds, seeds, duration)
    found = {
        "overhead": rows, "median_overhead": median(row["overhead"] for row in rows),
        "submission": submission(1000 if given.quick else 50_000), "progress": progress(200 if given.quick else 2000),
    }  # fmt: skip
    if given.json:
        print(json.dumps(found))
        return 0
    print("### Celery beside local, two processes each\n\n| " + " | ".join(rows[0]) + " |")
    print(len(rows[0]) * "| --- " + "|")
    for row in rows:
        shown = (f"{value:+.1%}" if name == "overhead" else f"{value:.2f}" for name, value in row.items())
        print("| " + " | ".join(shown) + " |")
    print(f"\nMedian overhead: {found['median_overhead']:+.1%}\n\n### Submission\n")
    print(" ".join(f"{name} {value:,.1f}" for name, value in found["submission"].items()))
    print("\n### Progress\n")
    for row in found["progress"]:
        print(f"{row['cells']:>9,} cells: {row['microseconds']:.0f} us")
    return 0


if __name__ == "__main__":
    sys.exit(main())
