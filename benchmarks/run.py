"""The benchmarks: the same workload with the same random numbers in four implementations, and a few further cases.

    python benchmarks/run.py [--quick] [--json] [--rounds N]

Times are CPU time of the event loop alone, rounds are interleaved, figures are medians, ratios are taken within a
round. Exit 1 when two implementations end with different counters, histograms, page states or random number states.
--quick runs few events in one round as a test; its ratios mean little.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from cases import CASES, Row
from ours import interpreted, jitted
from peer_c import PeerC, compiler
from peer_simpy import simpy_model
from workloads import POLICIES, SIZES, End, Fresh, Implementation, Size, config, differing

GOAL_SIMPY = {"S": 200, "M": 150, "L": 80}
GOAL_C = {"S": 1.1, "M": 1.1, "L": 1.05}
"""How many times as fast as each, by size."""


def rounds_of(
    implementations: dict[str, Implementation], fresh: Fresh, events: int, rounds: int
) -> dict[str, list[End]]:
    """The ends of each implementation, interleaved. Raises AssertionError naming arrays that differ from the first."""
    ends: dict[str, list[End]] = {name: [] for name in implementations}
    for _ in range(rounds):
        for name, run in implementations.items():
            ends[name].append(run(fresh, events))
    first, reference = next((name, ends[name][0]) for name in implementations)
    for name, made in ends.items():
        for end in made:
            wrong = differing(reference, end)
            if wrong:
                raise AssertionError(f"{name} and {first} end with different {', '.join(wrong)}")
    return ends


def ratio(ends: dict[str, list[End]], ours: str, peer: str) -> float:
    """The speed of `ours` over that of `peer`: the median over rounds."""
    return median(b.ns / a.ns for a, b in zip(ends[ours], ends[peer], strict=True))


def rate(ends: list[End], events: int) -> float:
    """Millions of events per second."""
    return events * 1e3 / median(end.ns for end in ends)


def compare(name: str, size: Size, policy: str, peer_c: Implementation | None, rounds: int, slow_rounds: int) -> Row:
    """One row: all four at `few` events, for the ratios to SimPy, then jitted and C at `events`, for the ratio to C."""
    few = Fresh.of(config(size, policy, size.few))
    slow: dict[str, Implementation] = {"jitted": jitted, "SimPy": simpy_model, "interpreted": interpreted}
    fast: dict[str, Implementation] = {"jitted": jitted}
    if peer_c:
        slow["C"] = fast["C"] = peer_c
    ends = rounds_of(slow, few, size.few, slow_rounds)
    row = {
        "size": name, "policy": policy, "pages": len(few.state.mm), "actors": len(few.state.who),
        "SimPy M/s": rate(ends["SimPy"], size.few), "interpreted M/s": rate(ends["interpreted"], size.few),
        "jitted/SimPy": ratio(ends, "jitted", "SimPy"), "goal": f">= {GOAL_SIMPY[name]}",
        "interpreted/SimPy": ratio(ends, "interpreted", "SimPy"),
    }  # fmt: skip
    del few
    many = Fresh.of(config(size, policy, size.events))
    ends = rounds_of(fast, many, size.events, rounds)
    row["jitted M/s"] = rate(ends["jitted"], size.events)
    if peer_c:
        row["C M/s"] = rate(ends["C"], size.events)
        row["jitted/C"], row["its goal"] = ratio(ends, "jitted", "C"), f">= {GOAL_C[name]}"
    row["met"] = row["jitted/SimPy"] >= GOAL_SIMPY[name] and row.get("jitted/C", GOAL_C[name]) >= GOAL_C[name]
    return row


def implementations(rounds: int, *, quick: bool) -> list[Row]:
    """The table of implementations: every size under every policy."""
    sizes = {name: replace(SIZES[name], events=100_000, few=20_000) for name in ("S", "M")} if quick else SIZES
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        warm = Fresh.of(config(SIZES["S"], POLICIES[0], 1000))
        jitted(warm, 1000)
        peer_c = PeerC(Path(folder), warm) if compiler() else None
        for name, size in sizes.items():
            for policy in POLICIES:
                rows.append(compare(name, size, policy, peer_c, rounds, 1 if quick or name == "L" else 2))
                print(f"{name} {policy}: equal", file=sys.stderr, flush=True)
    return rows


def table(rows: list[Row]) -> str:
    """Rows as a Markdown table."""
    columns = list(rows[0])
    lines = [columns, ["---"] * len(columns), *([_word(row[column]) for column in columns] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "NO"
    if isinstance(value, float):
        return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def main() -> int:
    parser = argparse.ArgumentParser(description="Benchmarks of ultrafolio; see benchmarks/README.md.")
    parser.add_argument("--quick", action="store_true", help="few events, one round: for tests")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    parser.add_argument("--rounds", type=int, default=7, help="interleaved rounds [default: 7]")
    options = parser.parse_args()
    rounds = 1 if options.quick else options.rounds
    if compiler() is None:
        print("no C compiler: neither $CC, cc nor gcc; the C column is left out", file=sys.stderr)
    made = {}
    try:
        for title, case in {"four implementations": implementations, **CASES}.items():
            made[title] = case(rounds, quick=options.quick)
            if not options.json:
                print(f"\n## {title}\n\n{table(made[title])}", flush=True)
    except AssertionError as error:
        print(f"not equal: {error}", file=sys.stderr)
        return 1
    if options.json:
        print(json.dumps(made))
    return 0


if __name__ == "__main__":
    sys.exit(main())
