"""What stops the checker where it misses a goal: look-ups, the second core, the compiler.

    python benchmarks/limits.py [--quick] [--json] [--rounds N] [TABLE …]

Tables: look-ups, two-at-once, compiling; default: all. Times are CPU time, but in two-at-once; rounds are interleaved,
figures are medians, ratios are taken within a round; compiling is one run. --quick: the smallest system, one round.
"""

from __future__ import annotations

import argparse
import json
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

import numba
import numpy as np
from check_spin import CASES, LEAST_S, made, table
from check_starts import COMPILE

from ultrafolio.check.search import atomics
from ultrafolio.check.search import graph as checker
from ultrafolio.check.search.packing import BATCH
from ultrafolio.model.scenario import System

Array = np.ndarray[Any, Any]
Row = dict[str, Any]
FACTOR = np.int64(-7046029254386353131)
"""An odd number: its product with a word is the word's hash."""
prefetch = atomics.compiled().prefetch
OPTIONS: Any = {"max_states": 200_000_000, "max_mib": 1 << 14}


# ---------------------------------------------------------------------------------------------- the table alone
@numba.njit
def slot_for(word: int, slots: int) -> int:
    """Returns the slot at which the probe for a word starts."""
    return (((word * FACTOR) >> 32 & 0xFFFFFFFF) * slots) >> 32


@numba.njit
def look_up_alone(words: Array, origins: Array, table: Array, node: Array, parent: Array, by: Array) -> int:
    """Look each word up in a table of words, with prefetches, and store the new ones. Returns how many are new."""
    slots, states = len(table), 0
    for i in range(len(words)):
        if i + BATCH < len(words):
            prefetch(table, slot_for(words[i + BATCH], slots))
        word = words[i]
        slot = slot_for(word, slots)
        while table[slot] and table[slot] != word:
            slot = slot + 1 if slot + 1 < slots else 0
        if table[slot] == 0:
            node[states], parent[states], by[states] = word, origins[i], i
            table[slot] = word
            states += 1
    return states


def stream(file: str, policy: str) -> tuple[Array, Array, int]:
    """Returns the words that an exploration looks up, in its order, the state that each comes from, and the number of
    states. A step that changes nothing is not looked up."""
    graph = checker.explore(made(file, policy), edges=True, **OPTIONS)
    space, states = graph.space, graph.states
    if space.node.shape[1] != 1:
        raise AssertionError(f"{file}, {policy}: a state has {space.node.shape[1]} words, 1 is expected")
    origins = np.repeat(np.arange(states, dtype=np.uint32), np.diff(space.first[: states + 1]))
    to = space.to[: graph.edges]
    changes = to != origins
    node = space.node[:states, 0].copy()
    return np.concatenate([node[:1], node[to[changes]]]), np.concatenate([origins[:1], origins[changes]]), states


def called(file: str, policy: str) -> str:
    """Returns what a row is called."""
    return f"{Path(file).stem}, {policy}"


def explored(system: System) -> int:
    """Explores a system without edges. Returns how many states it has."""
    return checker.explore(system, edges=False, **OPTIONS).states


def cpu_of(call: Callable[[], object]) -> float:
    """Returns the CPU s of a call."""
    before = time.process_time()
    call()
    return time.process_time() - before


def look_ups(cases: list[tuple[str, str]], rounds: int) -> list[Row]:
    """The time of an exploration, and of its look-ups alone, in a table of the size that it ends with."""
    rows = []
    for file, policy in cases:
        words, origins, states = stream(file, policy)
        system = made(file, policy)
        slots = len(checker.explore(system, edges=False, **OPTIONS).space.table)
        pairs = []
        for _ in range(rounds + 1):  # the first round compiles
            runs = max(1, int(LEAST_S / (states * 3e-7)))
            whole = cpu_of(lambda: [explored(system) for _ in range(runs)]) / runs  # noqa: B023
            room = [np.ones(slots, np.int64), np.ones(states, np.int64), *(np.ones(states, np.uint32) for _ in "pb")]
            room[0][:] = 0  # every page of every array is there before the clock starts
            before = time.process_time()
            found = look_up_alone(words, origins, *room)
            pairs.append((whole, time.process_time() - before))
            if found != states:
                raise AssertionError(f"{file}, {policy}: {states} states, but {found} with the table alone")
        pairs = pairs[1:]
        rows.append(
            {
                "system": called(file, policy),
                "states": states,
                "look-ups": len(words),
                "ns a look-up": 1e9 * median(whole for whole, _ in pairs) / len(words),
                "table alone": 1e9 * median(alone for _, alone in pairs) / len(words),
                "share": median(alone / whole for whole, alone in pairs),
            }
        )
    return rows


# -------------------------------------------------------------------------------------------------- two at once
def _explore(file: str, policy: str, together: Any, took: Any) -> None:
    """Put into `took` the wall s of an exploration that begins when all are at the barrier `together`."""
    system = made(file, policy)
    checker.explore(system, edges=False, **OPTIONS)
    together.wait()
    start = time.perf_counter()
    checker.explore(system, edges=False, **OPTIONS)
    took.put(time.perf_counter() - start)


def _compute(file: str, policy: str, together: Any, took: Any) -> None:
    """The same of some seconds of integers, which need no memory."""
    together.wait()
    start = time.perf_counter()
    sum(i * i for i in range(5_000_000))
    took.put(time.perf_counter() - start)


def at_once(work: Callable[..., None], processes: int, file: str, policy: str) -> float:
    """Returns the wall s of the slowest of so many processes that do the same work, begun at once."""
    fork = multiprocessing.get_context("fork")
    together, took = fork.Barrier(processes), fork.SimpleQueue()
    running = [fork.Process(target=work, args=(file, policy, together, took)) for _ in range(processes)]
    for process in running:
        process.start()
    times = [took.get() for _ in running]
    for process in running:
        process.join()
    return max(times)


def two_at_once(cases: list[tuple[str, str]], rounds: int) -> list[Row]:
    """How much two explorations that share nothing do in the time of one: what a second thread can gain at most."""
    rows = []
    for file, policy in cases:
        gains = [
            [2 * at_once(work, 1, file, policy) / at_once(work, 2, file, policy) for work in (_explore, _compute)]
            for _ in range(rounds)
        ]
        rows.append(
            {
                "system": called(file, policy),
                "two explorations/one": median(gain[0] for gain in gains),
                "two of pure computing/one": median(gain[1] for gain in gains),
            }
        )
    return rows


# ---------------------------------------------------------------------------------------------------- compiling
LISTEN = """
import json, time
from collections import Counter
from numba.core import event
spent, opened, functions = Counter(), [], 0
class Passes(event.Listener):
    def on_start(self, e): opened.append([time.process_time(), 0.0])
    def on_end(self, e):
        global functions
        start, within = opened.pop()
        took = time.process_time() - start
        spent[e.data["name"].partition(" [")[0] if e.kind == "numba:run_pass" else e.kind] += took - within
        functions += e.kind == "numba:compile"
        if opened: opened[-1][1] += took
listener = Passes()
for kind in ("numba:compile", "numba:run_pass", "numba:llvm_lock"): event.register(kind, listener)
start = time.process_time()
"""
TELL = 'print(json.dumps({"all": time.process_time() - start, "functions": functions, "spent": spent}))'
"""Before and after a program: the CPU s of each part of Numba, without the parts within it."""


def compiling(cases: list[tuple[str, str]], rounds: int) -> list[Row]:
    """CPU s of compiling the checker from nothing, by the part of the compiler."""
    with tempfile.TemporaryDirectory() as empty:
        command = [sys.executable, "-c", LISTEN + COMPILE + TELL]
        done = subprocess.run(
            command, check=True, capture_output=True, text=True, env=os.environ | {"ULTRAFOLIO_CACHE": empty}
        )
    told = json.loads(done.stdout)
    rows = [{"part": name, "CPU s": s} for name, s in sorted(told["spent"].items(), key=lambda item: -item[1])[:8]]
    return [{"part": f"all, {told['functions']} functions", "CPU s": told["all"]}, *rows]


TABLES = {"look-ups": look_ups, "two-at-once": two_at_once, "compiling": compiling}


def main() -> int:
    parser = argparse.ArgumentParser(description="What stops the checker's goals; see benchmarks/checker.md.")
    parser.add_argument("tables", nargs="*", metavar="TABLE", help=f"{', '.join(TABLES)} [default: all]")
    parser.add_argument("--quick", action="store_true", help="the smallest system, one round: for tests")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds [default: 5]")
    options = parser.parse_args()
    for name in options.tables:
        if name not in TABLES:
            parser.error(f"table {name!r}: allowed are {', '.join(TABLES)}")
    cases = list(CASES)[:1] if options.quick else list(CASES)
    rows = {}
    for name in options.tables or TABLES:
        rows[name] = TABLES[name](cases, 1 if options.quick else options.rounds)
        if not options.json:
            print(f"\n## {name}\n\n{table(rows[name])}", flush=True)
    if options.json:
        print(json.dumps(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
