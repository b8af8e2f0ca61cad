"""Computes figures of README.md from nothing and says which differ:  ./uf figures [--quick] [--store FOLDER]

--quick    only the counts: of scenarios, runs of the plan, conformance cases
--store    keep the sweeps in this folder, and go on where they stopped (default: a temporary folder)

Exit codes: 0 all agree, 1 some differ, 2 bad input or a sweep that failed. Each sweep takes some minutes of two cores.
The section "Speed" is measured by benchmarks/ and not compared here: another machine measures other figures.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ultrafolio.report.costs import Cost, costs
from ultrafolio.report.share import Share

ROOT = Path(__file__).resolve().parent.parent
PLAN = ROOT / "sweeps" / "seed.toml"
CONVERSION = ROOT / "sweeps" / "conversion.toml"
PICTURES = ROOT / "docs" / "images"


@dataclass(frozen=True)
class Sweep:
    """What the swept figures are computed from: the rows of the table, and the costs of each policy."""

    rows: list[dict[str, Any]]
    costs: list[Cost]


@dataclass(frozen=True)
class Conversions:
    """The same of the sweep of conversions: the rows of its table."""

    rows: list[dict[str, Any]]


@dataclass(frozen=True)
class Figure:
    """One sentence of the README. pattern: a regular expression with a group for each figure; value: what these are
    now, as text."""

    name: str
    pattern: str
    value: Callable[[Any], tuple[str, ...]]


def _scenarios(_: Any) -> tuple[str, ...]:
    return (str(len(list((ROOT / "scenarios").glob("*.toml")))),)


def _conversions(_: Any) -> tuple[str, ...]:
    return (str(len(list((ROOT / "scenarios" / "guest_memfd").glob("*.toml")))),)


def _cells(_: Any) -> tuple[str, ...]:
    from ultrafolio.sweep import planfile

    return (f"{planfile.load(PLAN).size:,}",)


def _conversion_cells(_: Any) -> tuple[str, ...]:
    from ultrafolio.sweep import planfile

    return (f"{planfile.load(CONVERSION).count:,}",)


def _cases(_: Any) -> tuple[str, ...]:
    page = (ROOT / "docs" / "conformance.md").read_text(encoding="utf-8")
    return (str(len(re.findall(r"^\| \d+ \|", page, re.MULTILINE))),)


def _virtio(sweep: Any) -> tuple[str, ...]:
    ring = {"policy": "whole-folio", "workload": "virtio"}
    shares = [hung(sweep.rows, **ring, order=order) for order in (1, 9)]
    return tuple(text for share in shares for text in (share.percent, str(share.runs), share.bounds))


def _touches(sweep: Any) -> tuple[str, ...]:
    disk = {"workload": "disk", "order": 9}
    found = []
    for where in (disk, disk | {"placement": "scattered"}):
        ours, theirs = (some(sweep.rows, where | {"policy": policy}) for policy in ("whole-folio", "per-page"))
        share = sum(row["touches"] for row in ours) / sum(row["touches"] for row in theirs)
        found += [f"{100 * share:.0f}", str(sum(row["runs"] for row in ours))]
    return tuple(found)


def _per_page(sweep: Any) -> tuple[str, ...]:
    cost = next(cost for cost in sweep.costs if cost.policy == "per-page")
    return f"{cost.uv_ratio:.2g}", f"{cost.stall:.0f}"


def _told_no(sweep: Any) -> tuple[str, ...]:
    found = some(sweep.rows, {"policy": "gmem-7.4", "holder": "vfio", "patience": "four-tries"})
    return f"{100 * total(found, 'told_no') / total(found, 'requests'):.0f}", str(total(found, "runs"))


def _behind_a_drain(sweep: Any) -> tuple[str, ...]:
    found = some(sweep.rows, {"policy": "gmem-7.4", "holder": "lru"})
    return (f"{total(found, 'drain_wait_ns') / total(found, 'drain_waits') / 1000:.0f}",)


def _stuck_faults(sweep: Any) -> tuple[str, ...]:
    found = some(sweep.rows, {"policy": "gmem-hugetlb-2025-12", "holder": "none"})
    return (f"{100 * total(found, 'hung_stuck_faults') / total(found, 'runs'):.0f}",)


def _loses(sweep: Any) -> tuple[str, ...]:
    found = some(sweep.rows, {"policy": "gmem-hugetlb-2025-05"})
    return (", ".join(sorted({row["machine"].upper() for row in found if row["pages_lost"]})),)


QUICK = (
    Figure("scenarios", r"`ultrafolio check --all`, (\d+) scenarios", _scenarios),
    Figure("scenarios of guest_memfd", r"--design guest_memfd`, (\d+) scenarios", _conversions),
    Figure("runs of the plan", r"\(([\d,]+) runs on recordings", _cells),
    Figure("runs of the plan of conversions", r"\(([\d,]+) runs, `sweeps/conversion.toml`", _conversion_cells),
    Figure("conformance cases", r"(\d+) conformance cases", _cases),
)
SWEPT = (
    Figure("whole-folio, virtio: runs that hung, order 1 and 9",
           r"in ([\d.]+) % of the runs at order 1 \((\d+) runs, ([\d.–]+) %\) and ([\d.]+) % at order 9 "
           r"\((\d+) runs, ([\d.–]+) %;", _virtio),
    Figure("whole-folio, disk, order 9: touches done, over how many runs",
           r"guest gets (\d+) % of the touches done \((\d+) runs\), (\d+) % \((\d+) runs\)", _touches),
    Figure("per-page: ultravisor time as a multiple of the least, ns of waiting a touch",
           r"([\d.]+) times the least ultravisor time, and (\d+) ns of waiting a touch", _per_page),
)  # fmt: skip


CONVERTED = (
    Figure("gmem-7.4, VFIO, four tries: requests told no, runs",
           r"tells the guest no in (\d+) % of the requests \((\d+) runs, VFIO\)", _told_no),
    Figure("gmem-7.4, batches: wait of a fault behind a drain, µs",
           r"a fault behind a drain waits (\d+) µs", _behind_a_drain),
    Figure("December 2025, no holder: runs with a fault without end",
           r"in (\d+) % of the runs with no holder a vCPU then faults for ever", _stuck_faults),
    Figure("May 2025: machines on which content is lost", r"loses content on (\w+) only", _loses),
)  # fmt: skip


def total(rows: list[dict[str, Any]], name: str) -> int:
    return sum(row[name] for row in rows)


def some(rows: Any, where: dict[str, Any]) -> list[dict[str, Any]]:
    return [row for row in rows if all(row[name] == value for name, value in where.items())]


def hung(rows: Any, **where: Any) -> Share:
    """The share of the runs that hung."""
    found = some(rows, where)
    return Share(round(sum(row["hang_probability"] * row["runs"] for row in found)), sum(row["runs"] for row in found))


def compared(readme: str, figures: tuple[Figure, ...], sweep: Sweep | None = None) -> Iterator[tuple[bool, str]]:
    """For each figure whether the README says what is computed, and a line about it. A sentence that is not found
    differs."""
    readme = " ".join(readme.split())
    for figure in figures:
        said, now = re.search(figure.pattern, readme), figure.value(sweep)
        same = said is not None and said.groups() == now
        there = ", ".join(said.groups()) if said else "no such sentence"
        yield same, f"{'same' if same else 'DIFFERS'}  {figure.name}: README {there}; now {', '.join(now)}"


def computed(plan: Path, store: Path) -> None:
    """Compute the sweep of a plan in `store`. Ends the program where it fails."""
    done = subprocess.run([sys.executable, "-m", "ultrafolio", "sweep", str(plan), "-o", str(store)], check=False)
    if done.returncode not in (0, 1):
        raise SystemExit(2)


def swept(store: Path) -> tuple[Sweep, bytes]:
    """The plan's sweep, computed in `store`, and its picture of hangs."""
    from ultrafolio.report.aggregate import records
    from ultrafolio.report.matrix import hang_matrix
    from ultrafolio.report.store import Results

    computed(PLAN, store)
    results = Results(store)
    picture = hang_matrix(results, "hangs", "workload", "Who hangs, by policy and folio order").png
    return Sweep(records(results), costs(results)), picture


def converted(store: Path) -> tuple[Conversions, bytes]:
    """The same of the plan of conversions."""
    from ultrafolio.report import conversion
    from ultrafolio.report.conversion_plots import picture

    computed(CONVERSION, store)
    results = conversion.Conversions(store)
    return Conversions(conversion.records(results)), picture(results).png


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="./uf figures", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="only the counts")
    parser.add_argument("--store", type=Path, help="keep the sweep in this folder")
    given = parser.parse_args(words)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    found = list(compared(readme, QUICK))
    if not given.quick:
        with tempfile.TemporaryDirectory() as folder:
            stores = given.store or Path(folder)
            sweep, hangs = swept(stores / "seed")
            conversions, picture = converted(stores / "conversion")
            found += [*compared(readme, SWEPT, sweep), *compared(readme, CONVERTED, conversions)]
        for file, made in ((PICTURES / "hangs.png", hangs), (PICTURES / "conversion.png", picture)):
            same = made == file.read_bytes()
            found.append((same, f"{'same' if same else 'DIFFERS'}  {file.relative_to(ROOT)}"))
    print("\n".join(line for _, line in found))
    print("not computed here: the section Speed (benchmarks/run.py, benchmarks/README.md)")
    return 0 if all(same for same, _ in found) else 1


if __name__ == "__main__":
    sys.exit(main())
