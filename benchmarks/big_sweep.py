"""The commands over a large finished sweep: time, processor time and peak memory of each, in a process of its own.

    python benchmarks/big_sweep.py [STORE] [--cells 1000000] [--json]

STORE: one that big_store.py made, or a folder to make it in; without it a temporary one, which takes minutes for a
million cells. The goal of each command is 20 s on the clock of an idle machine and 1,000 MB.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from run import table

GOAL_S, GOAL_MB = 20, 1000
MERGE = """
import sys
from pathlib import Path
from ultrafolio.sim import cell
from ultrafolio.sweep.cell_keys import CellKeys
from ultrafolio.sweep.explain import plan_of
from ultrafolio.sweep.results import Keys, write_results
from ultrafolio.sweep.store import open_store
from ultrafolio.sweep.work import Tally, Work
store = open_store(Path(sys.argv[1]))
plan = plan_of(store)
engine = next(store.batches(["key"], [])).schema.metadata[b"engine"].decode()
work, keys = Work(plan, cell, {}, engine), Keys(plan.size)
for points, found in CellKeys(work).of(range(plan.size)):
    keys.add(Tally(range(int(points[0]), int(points[-1]) + 1), bytes.fromhex("".join(found)), 0, 0, 0, 0.0))
write_results(store, plan, keys, work.engine)
"""
"""The last part of a sweep, of a plan without filters: from the keys of its cells to results.parquet."""


def commands(store: Path) -> Iterator[tuple[str, list[str]]]:
    """(name, words of the command) of each row."""
    own = [sys.executable, "-m", "ultrafolio"]
    yield "sweep: merge of the segments", [sys.executable, "-c", MERGE, str(store)]
    yield "sweep status", [*own, "sweep", "status", str(store)]
    yield "report --json: the table", [*own, "report", str(store), "--json"]
    yield "report: table, plots, page", [*own, "report", str(store)]
    yield "report --compare, with itself", [*own, "report", "--compare", str(store), str(store)]


def measured(name: str, words: list[str]) -> dict[str, Any]:
    """The row of a command. Raises RuntimeError if it fails."""
    with tempfile.TemporaryFile() as said:
        began = time.monotonic()
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=said)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.monotonic() - began
        said.seek(0)
        if process.returncode:
            raise RuntimeError(f"{name}: exit {process.returncode}: {said.read().decode()[-500:]}")
    mb = used.ru_maxrss / 1000
    return {
        "command": name, "s": seconds, "CPU s": used.ru_utime + used.ru_stime, "peak MB": mb,
        "goal": f"< {GOAL_S} s, < {GOAL_MB:,} MB", "met": seconds < GOAL_S and mb < GOAL_MB,
    }  # fmt: skip


@contextmanager
def made(store: Path | None, cells: int) -> Iterator[Path]:
    """The store, made if it is not there; a temporary one goes at the end.

    Another process makes it: a measured command begins as a copy of this one, so its peak would be at least this
    one's memory.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = store or Path(name)
        if not (folder / "results.parquet").exists():
            words = [sys.executable, str(Path(__file__).with_name("big_store.py")), str(folder), "--cells", str(cells)]
            subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
        yield folder


def main() -> int:
    parser = argparse.ArgumentParser(description="The commands over a large sweep; see benchmarks/README.md.")
    parser.add_argument("store", type=Path, nargs="?")
    parser.add_argument("--cells", type=int, default=1_000_000, help="of a store to make [default: 1000000]")
    parser.add_argument("--json", action="store_true", help="one JSON list instead of a table")
    options = parser.parse_args()
    with made(options.store, options.cells) as store:
        rows = [measured(*command) for command in commands(store)]
        size = (store / "report.html").stat().st_size / 1e6
    rows.append({"command": "size of report.html", "MB": size})
    if options.json:
        print(json.dumps(rows))
    else:
        print(table(rows[:-1]), f"\nreport.html: {size:.2f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
