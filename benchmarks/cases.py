"""Further cases: cost by number of actors, cost of the property check, memory, sweeps on two processes, first use.

Each function returns the rows, {column: value}, of a table; `goal` is the required value, `met` whether it holds.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from ours import jitted
from workloads import POLICIES, SIZES, Fresh, config

from ultrafolio.sim import cell
from ultrafolio.sim.build import build
from ultrafolio.sim.config import resolve
from ultrafolio.sim.load import compiled
from ultrafolio.sweep.local.processes import Processes
from ultrafolio.sweep.planfile import parse
from ultrafolio.sweep.progress import Silent
from ultrafolio.sweep.run import sweep

Row = dict[str, Any]
_ALL_PAGES = 1 << 18
_GUESTS = {10: (1, 5, 4), 100: (1, 60, 39), 1_000: (1, 600, 399), 10_000: (10, 600, 399), 100_000: (64, 1000, 562)}
_MEMORY_PAGES = 1_000_000
_PLAN = """
[fixed]
duration_us = 2000
check = false
[grid]
policy = ["per-page", "whole-folio", "split"]
order = "0-4"
seed = "1-{seeds}"
"""


def actors(rounds: int, *, quick: bool) -> list[Row]:
    """Cost per event from 10 to 100,000 actors on the same pages; it may grow as log2(actors).

    All pages are imported, so that the mix of events is the same; a first stretch of the run is not timed.
    """
    events = 20_000 if quick else 1_000_000
    simulate = compiled()
    ready = {count: build(_crowd(*_GUESTS[count]), Path()) for count in ([10, 100] if quick else _GUESTS)}
    for state, world in ready.values():
        simulate(state, world, events)
    took: dict[int, list[float]] = {count: [] for count in ready}
    for _ in range(rounds):
        for count, (state, world) in ready.items():
            start = time.thread_time_ns()
            assert simulate(state, world, events) == events
            took[count].append((time.thread_time_ns() - start) / events)
    first = took[10]
    rows = []
    for count, ns in took.items():
        grew, allowed = median(b / a for a, b in zip(first, ns, strict=True)), math.log2(count) / math.log2(10)
        rows.append(
            {
                "actors": count,
                "ns/event": median(ns),
                "cost/10 actors": grew,
                "log/log 10": allowed,
                "met": grew <= allowed * 1.02,
            }
        )
    return rows


def _crowd(guests: int, vcpus: int, disks: int) -> dict[str, Any]:
    pages = _ALL_PAGES // guests
    return resolve(
        {
            "guests": guests,
            "vcpus": vcpus,
            "disks": disks,
            "pages": pages - disks,
            "pool_pages": disks,
            "order": 4,
            "touch_ns": 20_000,
            "io_us": 50,
            "writeback_us": 5,
            "duration_us": 10**9,
            "check": False,
        },
        Path(),
    )


def checked(rounds: int, *, quick: bool) -> list[Row]:
    """The cost of checking the properties after every step: the time with it, over the time without."""
    rows = []
    for name in ("S",) if quick else SIZES:
        for policy in POLICIES:
            size = SIZES[name]
            events = 20_000 if quick else size.events
            off, on = (Fresh.of(config(size, policy, events, check=check)) for check in (False, True))
            jitted(off, 1000)
            pairs = [(jitted(off, events).ns, jitted(on, events).ns) for _ in range(rounds)]
            rows.append({"size": name, "policy": policy, "on/off": median(b / a for a, b in pairs)})
    return rows


def memory(rounds: int, *, quick: bool) -> list[Row]:
    """Peak memory of simulating a guest of 1,000,000 pages, over that of a process that only imports."""
    pages = 100_000 if quick else _MEMORY_PAGES
    imports = "from pathlib import Path\nfrom ultrafolio.sim import cell\n"
    # VmHWM, for the ru_maxrss of a child starts at its parent's
    peak = 'print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))'
    run = f'cell.run(cell.resolve({{"pages": {pages}, "order": 4, "duration_us": 5000}}, Path()), Path())\n'
    cell.warm()
    programs = imports + peak, imports + run + peak
    base, full = (median(int(_python(text)) for _ in range(rounds)) / 1024 for text in programs)
    state, world = build(resolve({"pages": pages, "order": 4}, Path()), Path())
    arrays = sum(a.nbytes for a in (*state, *world)) / 2**20
    return [
        {
            "pages": pages,
            "only imports MB": base,
            "peak MB": full,
            "above MB": full - base,
            "arrays MB": arrays,
            "goal": "< 200",
            "met": full - base < 200,
        }
    ]


def two_processes(rounds: int, *, quick: bool) -> list[Row]:
    """The speedup of a sweep of short cells on two processes, beside that of two processes of pure computing: a shared
    virtual machine may have less than two free cores."""
    seeds = 4 if quick else 200
    cell.warm()
    pairs, ceilings, rates = [], [], []
    for _ in range(rounds):
        one, two = (_sweep_rate(n, seeds) for n in (1, 2))
        pairs.append(two / one)
        rates.append(two)
        ceilings.append(2 * _seconds(lambda: _spin_on(1)) / _seconds(lambda: _spin_on(2)))
    return [
        {
            "cells": 15 * seeds,
            "cells/s on 2": median(rates),
            "2 against 1": median(pairs),
            "best": max(pairs),
            "pure computing": median(ceilings),
            "goal": ">= 1.8",
            "met": median(pairs) >= 1.8,
        }
    ]


def _sweep_rate(processes: int, seeds: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        plan = parse(_PLAN.format(seeds=seeds), Path(folder) / "plan.toml")
        made = sweep(plan, Path(folder) / "store", cell, Processes(processes), Silent())
        assert made.failed == 0
        return made.computed / made.seconds


def _spin() -> None:
    state, world = build(resolve({"duration_us": 60_000, "check": False}, Path()), Path())
    compiled()(state, world, 1 << 40)


def _spin_on(processes: int) -> None:
    fork = multiprocessing.get_context("fork")
    running = [fork.Process(target=_spin) for _ in range(processes)]
    for process in running:
        process.start()
    for process in running:
        process.join()


def first_use(rounds: int, *, quick: bool) -> list[Row]:
    """`ultrafolio run` with an empty cache, compiling, and again; wall and CPU seconds of the whole process.

    `quick` compiles nothing: it starts with the cache that is there.
    """
    with tempfile.TemporaryDirectory() as empty:
        if quick:
            return [_start("later", 2, "")]
        first = _start("first", 20, empty)
        later = sorted((_start("later", 2, empty) for _ in range(rounds)), key=lambda row: row["wall s"])
        return [first, later[rounds // 2]]


def _start(name: str, most: int, cache: str) -> Row:
    before = os.times()
    wall = _seconds(lambda: _python("from ultrafolio.cli import main; main()", "run", "--json", cache=cache))
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return {"start": name, "wall s": wall, "CPU s": cpu, "goal": f"< {most}", "met": wall < most}


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _python(text: str, *arguments: str, cache: str = "") -> str:
    """The output of this program in a new interpreter. Raises RuntimeError for an exit status other than 0 or 1: `run`
    exits with 1 for a workload that hangs."""
    environment = {k: v for k, v in os.environ.items() if k != "NUMBA_CACHE_DIR"}
    if cache:
        environment["ULTRAFOLIO_CACHE"] = cache
    command = [sys.executable, "-c", text, *arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    if done.returncode not in (0, 1):
        raise RuntimeError(f"python -c {text!r}: exit status {done.returncode}\n{done.stderr}")
    return done.stdout


CASES: dict[str, Callable[..., list[Row]]] = {
    "cost per event by number of actors": actors,
    "price of property checking": checked,
    "memory of a guest of 1,000,000 pages": memory,
    "a sweep of short cells on two processes": two_processes,
    "first use with compilation, and later start": first_use,
}
