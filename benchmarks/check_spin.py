"""The checker against SPIN: the same states of the same system, SPIN on the Promela that is exported from the rules.

    python benchmarks/check_spin.py [--quick] [--json] [--rounds N]

Rounds are interleaved; figures are medians, ratios are taken within a round. Every run is a process of its own. Exit 1
when the numbers of states, of edges or of violated properties differ. --quick: the smallest case, one round.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from ultrafolio.check.search import graph as checker
from ultrafolio.check.symmetry.like_pages import symmetry_of
from ultrafolio.errors import InputError
from ultrafolio.export.promela.program import export
from ultrafolio.model import designs, scenario
from ultrafolio.model.policies import find_any
from ultrafolio.model.scenario import System

ROOT = Path(__file__).parent.parent
CASES = {
    ("scenarios/39-busy-folio.toml", "whole-folio-literal"): 8,
    ("benchmarks/four-pages.toml", "whole-folio"): 8,
    ("benchmarks/two-folios.toml", "per-page"): 8,
    ("benchmarks/eight-pages.toml", "folio-bitmap"): 8,
    ("benchmarks/eight-pages.toml", "per-page"): 8,
    ("benchmarks/huge-page.toml", "gmem-hugetlb-2025-12"): 5,
    ("benchmarks/two-huge-pages.toml", "gmem-7.4"): 8,
}
"""File and policy, with the goal of its rate: times that of SPIN."""
SHARED_FROM, FASTER, NEVER_BELOW, MOST_BYTES = 3_000_000, 1.4, 0.95, 24
"""Goals of two threads, from so many states and at any size; of bytes a state."""
WAYS = {"1 thread": (1, False), "2 threads": (2, False), "folded": (1, True)}
LEAST_S = 0.5
"""A small system is explored repeatedly for this time, and the mean is taken."""
Row = dict[str, Any]


def missing() -> list[str]:
    return [tool for tool in ("spin", "gcc") if shutil.which(tool) is None]


def made(file: str, policy: str) -> System:
    story = scenario.read(ROOT / file)
    return scenario.system(story, find_any(policy, story.tables))


# ---------------------------------------------------------------------------------------------------- ours
def ours(file: str, policy: str, way: str) -> Row:
    """Explore in a new process, safety only. Returns counts, CPU s and wall s of one exploration, bytes per state."""
    command = [sys.executable, __file__, "--one", file, policy, way]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    made: Row = json.loads(done.stdout)
    return made


def explored(file: str, policy: str, way: str) -> Row:
    """The work of `ours` in its process. Memory: the growth of the peak after a small exploration."""
    system, (threads, fold) = made(file, policy), WAYS[way]
    options: Any = {"edges": False, "threads": threads, "fold": fold, "max_states": 200_000_000, "max_mib": 1 << 14}
    checker.explore(made("scenarios/39-busy-folio.toml", "whole-folio"), **options | {"fold": False})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    checker.explore(system, **options | {"max_states": 100_000})  # all is compiled before the clock starts
    cpu, wall, runs = time.process_time(), time.perf_counter(), 0
    while runs == 0 or time.perf_counter() - wall < LEAST_S:
        graph = checker.explore(system, **options)
        runs += 1
        if runs == 1:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    wrong = sum(1 for found in graph.space.found if found["state"] >= 0)
    return {
        "states": graph.states,
        "edges": graph.edges,
        "depth": graph.depth,
        "wrong": wrong,
        "cpu": cpu / runs,
        "wall": wall / runs,
        "bytes": (peak - before) * 1024 / graph.states,
        "table": graph.space.table.nbytes / graph.states,
    }


# ---------------------------------------------------------------------------------------------------- SPIN
def build(folder: Path, file: str, policy: str) -> None:
    """Build pan with -O2, safety, no reduction. The program asserts the properties, so that both do the same work."""
    (folder / "model.pml").write_text(export(made(file, policy), properties=True), encoding="utf-8")
    subprocess.run(["spin", "-a", "-o2", "model.pml"], cwd=folder, check=True, capture_output=True)
    flags = ["-O2", "-w", "-DSAFETY", "-DNOREDUCE", "-DMEMLIM=14000"]
    subprocess.run(["gcc", *flags, "-o", "pan", "pan.c"], cwd=folder, check=True)


def spin(folder: Path, slots: int) -> Row:
    """One run of pan with a hash table of 2^slots: states, edges, CPU s, bytes per state as pan reports them."""
    with (folder / "said").open("w+") as said:
        process = subprocess.Popen(["./pan", "-c0", "-m2000000", f"-w{slots}"], cwd=folder, stdout=said, stderr=said)
        _, _, used = os.wait4(process.pid, 0)
        process.returncode = 0
        said.seek(0)
        text = said.read()
    words = {
        line.split(None, 1)[1].split(" (")[0].strip(): line.split()[0]
        for line in text.splitlines()
        if line[:1] == " " and len(line.split(None, 1)) == 2
    }
    if "search depth too small" in text or "states, stored" not in words:
        raise AssertionError(f"pan did not finish: {text[-500:]}")
    states = int(words["states, stored"])
    kept = sum(float(words[name]) for name in words if name.startswith(("actual memory usage", "memory used for hash")))
    numbers = {line.split("my_broken!=")[1].split(")")[0] for line in text.splitlines() if "my_broken!=" in line}
    return {
        "states": states,
        "edges": int(words["transitions"]) - 1,
        "wrong": len(numbers),
        "cpu": used.ru_utime + used.ru_stime,
        "bytes": kept * 2**20 / states,
    }


# ------------------------------------------------------------------------------------------------- the table
def is_folded(system: System) -> bool:
    """Whether something is alike in a system of the design that has symmetry reduction."""
    if designs.of(system.state) is not designs.S390:
        return False
    like = symmetry_of(system)
    return any(like.page_class) or bool(like.permutations)


def compare(file: str, policy: str, rounds: int) -> Row:
    """One row. Raises AssertionError if the two differ."""
    ways = ["1 thread", "2 threads"]
    if is_folded(made(file, policy)):
        ways.append("folded")
    runs: dict[str, list[Row]] = {way: [] for way in [*ways, "SPIN"]}
    with tempfile.TemporaryDirectory() as name:
        build(Path(name), file, policy)
        for _ in range(rounds):
            for way in ways:
                runs[way].append(ours(file, policy, way))
            slots = max(18, runs["1 thread"][0]["states"].bit_length())
            runs["SPIN"].append(spin(Path(name), slots))
    reference = runs["1 thread"][0]
    for way in ("1 thread", "2 threads", "SPIN"):
        for run in runs[way]:
            for key in ("states", "edges", "wrong"):
                if run[key] != reference[key]:
                    raise AssertionError(f"{file}, {policy}: {key} {reference[key]}, but {run[key]} of {way}")

    def rate(way: str) -> float:
        return float(median(run["states"] / run["cpu"] for run in runs[way])) / 1e6

    def said(goal: str, met: bool) -> str:
        return goal if met else f"{goal}: NO"

    pairs = list(zip(runs["1 thread"], runs["2 threads"], runs["SPIN"], strict=True))
    times = median(theirs["cpu"] / one["cpu"] for one, _, theirs in pairs)
    shared = median(one["wall"] / two["wall"] for one, two, _ in pairs)
    kept, least = median(run["bytes"] for run in runs["1 thread"]), CASES[file, policy]
    gain = FASTER if reference["states"] >= SHARED_FROM else NEVER_BELOW
    return {
        "system": f"{Path(file).stem}, {policy}",
        "states": reference["states"],
        "edges": reference["edges"],
        "depth": reference["depth"],
        "SPIN M/s": rate("SPIN"),
        "ours M/s": rate("1 thread"),
        "ours/SPIN": times,
        "goal": said(f">= {least}", times >= least),
        "2 threads/1": shared,
        "its goal": said(f">= {gain}", shared >= gain),
        "SPIN B/state": median(run["bytes"] for run in runs["SPIN"]),
        "ours B/state": kept,
        "of them table": reference["table"],
        "goal of bytes": said(f"<= {MOST_BYTES}", kept <= MOST_BYTES),
        "folded states": runs["folded"][0]["states"] if "folded" in runs else "refused",
        "1/folded time": median(o["cpu"] / f["cpu"] for f, o in zip(runs["folded"], runs["1 thread"], strict=True))
        if "folded" in runs
        else "",
    }


def table(rows: list[Row]) -> str:
    """Rows as a Markdown table."""

    def word(value: Any) -> str:
        return f"{value:,}" if isinstance(value, int) else f"{value:.3g}" if isinstance(value, float) else str(value)

    lines = [list(rows[0]), ["---"] * len(rows[0]), *([word(value) for value in row.values()] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> int:
    parser = argparse.ArgumentParser(description="The checker against SPIN; see benchmarks/checker.md.")
    parser.add_argument("--quick", action="store_true", help="the smallest case, one round: for tests")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds [default: 5]")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(explored(*options.one)))
        return 0
    if missing():
        print(f"not installed: {', '.join(missing())}", file=sys.stderr)
        return 2
    rows = []
    try:
        for file, policy in list(CASES)[:1] if options.quick else CASES:
            rows.append(compare(file, policy, 1 if options.quick else options.rounds))
            print(f"{file} {policy}: equal", file=sys.stderr, flush=True)
    except AssertionError as error:
        print(f"not equal: {error}", file=sys.stderr)
        return 1
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    print(json.dumps({"the checker against SPIN": rows}) if options.json else table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
