"""What `check` takes before it explores: compiling from nothing, and every scenario under every preset.

    python benchmarks/check_starts.py [--json] [--quick]

Each run is a process of its own. Processor time is that of the process and of those that it starts. Python may keep the
bytecode of modules, as it does for a user. --quick: one scenario, and nothing is compiled.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

COMPILE = (
    "from pathlib import Path\n"
    "from ultrafolio.check.search.graph import explore\n"
    "from ultrafolio.model import scenario\n"
    "from ultrafolio.model.policies import find\n"
    "explore(scenario.system(scenario.read(Path('scenarios/01-direct-io.toml')), find('per-page')), edges=False)\n"
)
FIRST = 39
"""The goal is of so many scenarios."""
Row = dict[str, Any]


def timed(command: list[str], most: int = 0, **environment: str) -> tuple[float, float]:
    """Runs a command. Returns its wall s and its CPU s. CalledProcessError where its exit status is over `most`."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(command, check=False, capture_output=True, env=kept | environment)
    if done.returncode > most:
        raise subprocess.CalledProcessError(done.returncode, command, done.stdout, done.stderr)
    after, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter() - start
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measured(quick: bool) -> list[Row]:
    """Returns the rows."""
    check = [sys.executable, "-m", "ultrafolio", "check"]
    first = [f"scenarios/{path.name}" for path in sorted(Path("scenarios").glob("*.toml"))][:FIRST]
    rows = []
    if not quick:
        with tempfile.TemporaryDirectory() as empty:
            wall, cpu = timed([sys.executable, "-c", COMPILE], ULTRAFOLIO_CACHE=empty)
        goal = said(cpu, 15, "CPU s")
        rows.append({"what": "compiling the checker from nothing", "s": wall, "CPU s": cpu, "goal": goal})
    for what, names, most in (
        ("check 01-direct-io", ["01-direct-io"], None),
        (f"check of the first {FIRST} scenarios under ten policies", first, 1.5),
        ("check --all", ["--all"], None),
    )[: 1 if quick else None]:
        command = [*check, *names, "--brief"]
        timed(command, most=1)  # 1: a scenario under some preset breaks a property
        wall, cpu = timed(command, most=1)
        rows.append({"what": what, "s": wall, "CPU s": cpu, "goal": said(wall, most, "s") if most else ""})
    return rows


def said(value: float, most: float, unit: str) -> str:
    """A goal, and whether it is missed."""
    return f"<= {most} {unit}" if value <= most else f"<= {most} {unit}: NO"


def main() -> int:
    parser = argparse.ArgumentParser(description="What check takes before it explores; see benchmarks/checker.md.")
    parser.add_argument("--json", action="store_true", help="JSON instead of a table")
    parser.add_argument("--quick", action="store_true", help="one scenario, and nothing is compiled: for tests")
    options = parser.parse_args()
    rows = measured(options.quick)
    if options.json:
        print(json.dumps(rows))
        return 0
    print("| what | s | CPU s | goal |\n| --- | --- | --- | --- |")
    for row in rows:
        print(f"| {row['what']} | {row['s']:.3g} | {row['CPU s']:.3g} | {row['goal']} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
