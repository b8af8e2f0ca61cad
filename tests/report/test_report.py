"""Reports: the numbers computed from a store equal a naive computation; and the rows for these tests."""

from __future__ import annotations

import hashlib
import html
import io
import itertools
import json
import math
import random
import re
import tomllib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from ultrafolio.model.policies import PRESETS
from ultrafolio.model.properties import PROPERTIES
from ultrafolio.nouns import plural
from ultrafolio.report import aggregate, costs, draw, findings, style, tables
from ultrafolio.report.page import write_report
from ultrafolio.report.store import MIX, Results
from ultrafolio.report.terminal import terminal_table
from ultrafolio.sim.cell import COLUMNS, bucket_edges
from ultrafolio.sim.measures import shown_livelock

ARROW = {"int": pa.int64(), "str": pa.string(), "ints": pa.list_(pa.int64())}
PLAN = """
[grid]
policy = ["whole-folio", "per-page", "split"]
order = "0-2"
"""
Row = dict[str, Any]


def row(seed: int = 0, **given: Any) -> Row:
    """A cell's axes and measures; what is not given is nothing, or what a quiet run would have."""
    quiet = {name: [] if kind == "ints" else "" if kind == "str" else 0 for name, kind in COLUMNS.items()}
    quiet |= {
        "broken": [0] * (len(PROPERTIES) - 1),
        "first_hang_ns": -1,
        "sim_ns": 1_000_000,
        "touches": 1000,
        "pages_total": 64,
        "tracking_bytes": 8,
        "throughput": 10**6,
    }
    return {**quiet, "seed": seed, "status": "ok", "error": None, **given}


def failed(error: str, **axes: Any) -> Row:
    return {**dict.fromkeys(COLUMNS), **axes, "status": "failed", "error": error}


def make(folder: Path, rows: Sequence[Row], plan: str = PLAN, title: str = "a title") -> Path:
    """A store of these rows, as a sweep leaves it: sorted by key, failed rows without results."""
    folder.mkdir(parents=True)
    (folder / "plan.toml").write_text(plan)
    (folder / "store.json").write_text(
        json.dumps(
            {
                "format": 1,
                "title": title,
                "plan": str(folder / "origin.toml"),
                "digest": "d1",
                "created_by": "0.1.0",
                "columns": COLUMNS,
            }
        )
    )
    axes = [name for name in rows[0] if name not in COLUMNS and name not in ("status", "error")]
    for each in rows:
        each["key"] = hashlib.md5(repr([each[name] for name in axes]).encode()).hexdigest()
    ordered = sorted(rows, key=lambda each: str(each["key"]))
    columns = {name: pa.array([each[name] for each in ordered]) for name in [*axes, "key", "status"]}
    columns["error"] = pa.array([each["error"] for each in ordered], pa.string())
    columns |= {name: pa.array([each[name] for each in ordered], ARROW[kind]) for name, kind in COLUMNS.items()}
    table = pa.table(columns).replace_schema_metadata({"ultrafolio.engine": "e1"})
    pq.write_table(table, folder / "results.parquet")
    return folder


def noisy(count: int = 200) -> list[Row]:
    """Rows with something in every measure, hangs of every class, histograms, violations, and failures."""
    dice = random.Random(5)
    rows = []
    for seed in range(count):
        place = {
            "policy": dice.choice(["per-page", "split", "whole-folio"]),
            "order": dice.randrange(3),
            "placement": dice.choice(["aligned", "scattered"]),
        }
        if dice.random() < 0.1:
            rows.append(failed("boom", **place, seed=seed))
            continue
        made = row(seed, **place, **{name: dice.randrange(1, 10**6) for name, kind in COLUMNS.items() if kind == "int"})
        made |= {f"hang_{name}": int(dice.random() < 0.2) for name in aggregate.CLASSES}
        made["hang_expected"] = int(dice.random() < 0.2)
        hung = any(made[f"hang_{name}"] for name in aggregate.CLASSES)
        made["first_hang_ns"] = dice.randrange(10**6) if hung else -1
        for name in ("stall_hist", "latency_hist"):
            made[name] = [n for bucket in sorted(dice.sample(range(600), 5)) for n in (bucket, dice.randrange(1, 50))]
        made["broken"] = [int(dice.random() < 0.05) for _ in PROPERTIES[1:]]
        rows.append(made)
    return rows


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Row]]:
    rows = noisy()
    return make(tmp_path_factory.mktemp("noise") / "store", rows), [r for r in rows if r["status"] == "ok"]


# ------------------------------------------------------------------------------------------- numbers
def test_sums_runs_and_hangs_are_those_of_a_plain_loop(noise: tuple[Path, list[Row]]) -> None:
    store, rows = noise
    cells = aggregate.cube(Results(store), "placement", "policy", "order")
    by_class, runs, waited = aggregate.hangs(cells), cells.runs(), aggregate.stalled_runs(cells)
    sums = {name: cells.sum(name) for name, kind in COLUMNS.items() if kind == "int"}
    points = itertools.product(*(enumerate(axis.values) for axis in cells.axes))
    for (i, placement), (j, policy), (k, order) in points:
        mine = [r for r in rows if (r["placement"], r["policy"], r["order"]) == (placement, policy, order)]
        assert runs[i, j, k] == len(mine) > 0
        for name, table in sums.items():
            assert table[i, j, k] == sum(r[name] for r in mine)
        worst = Counter(next((c for c in ("fatal", "permanent", "livelock") if r[f"hang_{c}"]), "") for r in mine)
        assert by_class[i, j, k].tolist() == [worst["fatal"], worst["permanent"], worst["livelock"]]
        assert waited[i, j, k] == sum(r["stalls"] > 0 or r["open_stalls"] > 0 for r in mine)


def test_histograms_merge_exactly_in_any_order_of_rows(noise: tuple[Path, list[Row]], tmp_path: Path) -> None:
    store, rows = noise
    merged = aggregate.cube(Results(store), "policy").histogram("stall_hist")
    for number, policy in enumerate(Results(store).policy.values):
        naive: Counter[int] = Counter()
        for each in rows:
            if each["policy"] == policy:
                naive.update(dict(zip(each["stall_hist"][::2], each["stall_hist"][1::2], strict=True)))
        assert {int(b): int(merged[number, b]) for b in np.flatnonzero(merged[number])} == dict(naive)
    table = pq.read_table(store / "results.parquet")
    other = make(tmp_path / "other", noisy())
    pq.write_table(table.take(pa.array(list(reversed(range(len(table)))))), other / "results.parquet")
    assert (aggregate.cube(Results(other), "policy").histogram("stall_hist") == merged).all()


def test_survival_and_quantiles_are_those_of_the_values() -> None:
    dice = random.Random(1)
    edges = bucket_edges()
    buckets = [dice.choice([3, 40, 41, 300, 777]) for _ in range(101)]
    histogram = np.bincount(buckets, minlength=len(edges))
    t, share = aggregate.survival(histogram)
    for at, value in zip(t.tolist(), share.tolist(), strict=True):
        assert value == sum(edges[b] >= at for b in buckets) / len(buckets)
    assert share[0] == 1 and share[-1] == 0
    for wanted in (0.01, 0.5, 0.9, 0.99, 1.0):
        exact = edges[sorted(buckets)[math.ceil(wanted * len(buckets)) - 1]]
        assert abs(aggregate.quantile(histogram, wanted) - exact) <= exact / 32
    assert math.isnan(aggregate.quantile(np.zeros_like(histogram), 0.5))
    assert [len(part) for part in aggregate.survival(np.zeros_like(histogram))] == [0, 0]


@pytest.mark.parametrize(("successes", "runs"), [(0, 9), (9, 9), (3, 9), (50, 180), (1, 1)])
def test_wilson_bounds_solve_its_equation(successes: int, runs: int) -> None:
    low, high = aggregate.wilson(successes, runs)
    seen = successes / runs
    assert 0 <= low <= seen <= high <= 1 and low < high
    for bound in {low, high} - {0.0, 1.0}:
        assert (seen - bound) ** 2 == pytest.approx(aggregate.Z95**2 * bound * (1 - bound) / runs)
    assert (low == 0) == (successes == 0) and (high == 1) == (successes == runs)
    assert aggregate.wilson(0, 0) == (0.0, 1.0)


def test_overhead_counts_open_and_cut_stalls_and_has_none_without_touches(tmp_path: Path) -> None:
    paid = {"stall_ns": 10, "open_stall_ns": 20, "dropped_stall_ns": 30, "split_ns": 7, "import_ns": 5}
    rows = [row(policy="split", touches=10, **paid), row(policy="refuse-large", touches=0, stall_ns=99)]
    cost = aggregate.overhead(aggregate.cube(Results(make(tmp_path / "s", rows, plan="")), "policy"))
    assert cost.stall[1] == 6 and cost.work[1] == pytest.approx(1.2) and math.isnan(cost.stall[0])


def test_crossings_and_tipping() -> None:
    nan = math.nan
    assert costs.crossings(np.array([1, 2, 3]), np.array([2, 2, 2])) == [2]
    assert costs.crossings(np.array([1, nan, 3, 1]), np.array([2, 2, 2, 2])) == [2, 3]
    assert costs.crossings(np.array([1, 1]), np.array([2, 1])) == []
    orders = [0, 1, 2, 3]
    assert costs.tipping(np.array([1, 1, 5, 6]), np.array([1, 2, 3, 4]), orders) == 2
    assert costs.tipping(np.array([1, 9, 5, 1]), np.array([1, 2, 3, 4]), orders) is None
    assert costs.tipping(np.array([1, 9, nan, 6]), np.array([1, 2, 3, 4]), orders) == 1
    assert costs.tipping(np.full(4, nan), np.array([1, 2, 3, 4]), orders) is None


def test_break_even_against_the_cheapest_splitting_policy(tmp_path: Path) -> None:
    stall = {"whole-folio": (1, 5, 90), "split": (1, 9, 9), "mine": (8, 8, 8)}
    plan = "[grid]\norder = '0-2'\n[policy.mine]\nbase = 'split'"
    rows = [
        row(policy=policy, order=order, stall_ns=1000 * ns, split_ns=2000 * (policy == "split"))
        for policy, each in stall.items()
        for order, ns in enumerate(each)
    ]
    table = {entry.policy: entry for entry in costs.break_even(Results(make(tmp_path / "s", rows, plan)))}
    assert table["whole-folio"].against == 2 and not table["whole-folio"].splits
    assert table["split"].splits and table["mine"].splits and table["split"].against is None
    assert table["split"].own == [1] and table["whole-folio"].own == []


def test_labels_keep_apart_and_stay_near() -> None:
    dice = random.Random(2)
    for _ in range(200):
        sizes = [dice.choice([11.0, 22.0]) for _ in range(dice.randrange(1, 7))]
        centres = sorted(dice.uniform(0, 120) for _ in sizes)
        placed = draw.spread(centres, sizes, 120)
        for (one, a), (two, b) in itertools.pairwise(zip(placed, sizes, strict=True)):
            assert two - one >= (a + b) / 2 - 1e-9
        if all(b - a >= 22 for a, b in itertools.pairwise(centres)) and centres[-1] < 110:
            assert placed == centres


def test_ten_policies_have_ten_styles_and_readable_names() -> None:
    names = [*PRESETS, "mine", "yours"]
    styles = [style.line_style(name, names) for name in names]
    assert len({(s["color"], s["marker"], str(s["linestyle"])) for s in styles}) == len(names)
    assert len({s["marker"] for s in styles[:10]}) == 10
    assert style.line_style("split", ["split"]) == style.line_style("split", names)
    for each in styles:
        dark = style.ink(each["color"])
        assert 1.05 / (style.luminance([int(dark[at : at + 2], 16) / 255 for at in (1, 3, 5)]) + 0.05) >= 4.45
    assert style.ink("#000000") == "#000000"


def test_lines_that_coincide_are_drawn_once() -> None:
    nan = math.nan
    lines = {"a": np.array([1.0, nan]), "b": np.array([1.0, nan]), "c": np.array([1.0, 2.0]), "d": np.array([nan, nan])}
    assert draw.coincident(lines) == [["a", "b"], ["c"]]
    close = {"a": np.array([1.0]), "b": np.array([1.01]), "c": np.array([1.0001])}
    assert draw.coincident(close) == [["a", "c"], ["b"]]


# ------------------------------------------------------------------------------------------- answer
def test_the_answer_says_who_hung_where_and_who_did_not(tmp_path: Path) -> None:
    axes = {"workload": "rings"}
    rows = [row(s, policy=p, order=o, **axes) for p in ("per-page", "split") for o in range(3) for s in (1, 2)]
    rows += [
        row(s, policy="whole-folio", order=o, **axes, hang_permanent=int(o > 0), first_hang_ns=2000 if o else -1)
        for o in range(3)
        for s in (1, 2)
    ]
    rows[0]["hang_expected"] = 3
    rows[-1]["broken"] = [0, 0, 4, 0, 0, 0, 0, 0, 0]
    found = findings.answer(Results(make(tmp_path / "s", rows)))
    assert found.headline.startswith("1 of 3 policies hung in at least one of 18 runs; 2 never hung")
    texts = {(f.kind, f.subject): f.text for f in found.findings}
    assert texts["hung", "whole-folio"] == (
        "hung permanently in 4 of 6 runs: folio orders 1 to 2 (8 KiB to 16 KiB), workload rings; the first after 2 µs."
    )
    told = texts["violated", "whole-folio"]
    assert told.startswith("violated property 3 (a page that is shared") and told.endswith("in 1 of 6 runs.")
    assert ("held", "per-page and split") in texts
    assert any("In 1 run an unshare waited" in f.text for f in found.findings if f.kind == "note")


def test_order_spans_and_lists() -> None:
    assert findings.order_span([9]) == "folio order 9 (2 MiB)"
    assert findings.order_span([0, 2]) == "folio orders 0 and 2"
    assert findings.order_span([3, 4, MIX]) == "folio orders 3 to 4 (32 KiB to 64 KiB) and the recorded folio sizes"
    assert findings.listed(["a", "b", "c"]) == "a, b and c" and findings.listed([]) == ""


def test_unchecked_runs_and_failures_are_told(tmp_path: Path) -> None:
    rows = [row(1, check=False), row(2, check=True), failed("Boom: x", seed=3, check=True)]
    texts = [f.text for f in findings.notes(Results(make(tmp_path / "s", rows, plan="")))]
    assert "In 1 run the properties were not checked (check = false)." in texts
    assert "1 of 3 cells failed; what failed takes no part in any number." in texts


def test_a_livelock_is_told_as_what_the_checker_has_shown(tmp_path: Path) -> None:
    rows = [row(s, policy=p, hang_livelock=int(p == "split")) for p in ("per-page", "split") for s in range(3)]
    results = Results(make(tmp_path / "some", rows))
    (told,) = [f.text for f in findings.answer(results).findings if "livelock." in f.text]
    assert told.startswith("In 3 runs a wait counts as a livelock. One state of a run cannot tell that class.")
    assert "The checker has shown it for that policy and kind of workload" in told
    (path,) = re.findall(r"scenarios/[\w-]+\.toml", told)
    shown = tomllib.loads((Path(__file__).parents[2] / path).read_text())
    assert shown["expect"]["split"]["kind"] == "livelock" and path in shown_livelock.__doc__
    assert told in html.unescape(write_report(tmp_path / "some").read_text())
    console = Console(width=400, record=True, file=io.StringIO())
    console.print(terminal_table(tmp_path / "some"))
    assert told in console.export_text()
    quiet = Results(make(tmp_path / "none", [row(s, policy="split") for s in range(3)]))
    assert not [f for f in findings.answer(quiet).findings if "livelock" in f.text]


def test_policies_stand_in_the_plans_order_and_tables_count_as_told(tmp_path: Path) -> None:
    rows = [
        row(s, policy=p, order=o, hang_fatal=int(p == "split" and s < 3), hang_livelock=int(p == "split"))
        for p in ("per-page", "split", "whole-folio")
        for o in range(2)
        for s in range(9)
    ]
    results = Results(make(tmp_path / "s", rows))
    assert results.policy.values == ("whole-folio", "per-page", "split")
    table = tables.hang_table(results)
    assert table.rows[2] == ["split", "FL 9/9 (70–100 %)", "FL 9/9 (70–100 %)"]
    assert table.rows[1] == ["per-page", "0/9 (0–30 %)", "0/9 (0–30 %)"]


def test_violations_are_counted_by_property(noise: tuple[Path, list[Row]]) -> None:
    table = tables.property_table(Results(noise[0]))
    for number, cells in enumerate(table.rows):
        mine = [r["broken"][number] for r in noise[1] if r["policy"] == table.columns[2]]
        assert cells[2] == (f"{sum(mine)} in {plural(sum(n > 0 for n in mine), 'run')}" if any(mine) else "0")
