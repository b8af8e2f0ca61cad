"""Reports: numbers against naive recomputation, and pages that are whole, safe, reproducible and accessible."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import itertools
import json
import math
import random
import re
import shlex
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from rich.console import Console

import ultrafolio.report
from ultrafolio.commands.run import run as run_command
from ultrafolio.errors import InputError
from ultrafolio.model.policies import PRESETS
from ultrafolio.report import aggregate, costs, draw, findings, reproduce, style, tables
from ultrafolio.report.command import report as report_command
from ultrafolio.report.page import all_plots, write_report
from ultrafolio.report.store import MIX, Results
from ultrafolio.report.terminal import terminal_table
from ultrafolio.sim.cell import COLUMNS, bucket_edges
from ultrafolio.sweep.command import report_writer

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
    quiet |= {"broken": [0] * 9, "first_hang_ns": -1, "sim_ns": 1_000_000, "touches": 1000, "pages_total": 64,
              "tracking_bytes": 8, "throughput": 10**6}  # fmt: skip
    return {**quiet, "seed": seed, "status": "ok", "error": None, **given}


def failed(error: str, **axes: Any) -> Row:
    return {**dict.fromkeys(COLUMNS), **axes, "status": "failed", "error": error}


def make(folder: Path, rows: Sequence[Row], plan: str = PLAN, title: str = "a title") -> Path:
    """A store of these rows, as a sweep leaves it: sorted by key, failed rows without results."""
    folder.mkdir(parents=True)
    (folder / "plan.toml").write_text(plan)
    (folder / "store.json").write_text(json.dumps({
        "format": 1, "title": title, "plan": str(folder / "origin.toml"), "digest": "d1", "created_by": "0.1.0",
        "columns": COLUMNS,
    }))  # fmt: skip
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
        place = {"policy": dice.choice(["per-page", "split", "whole-folio"]), "order": dice.randrange(3),
                 "placement": dice.choice(["aligned", "scattered"])}  # fmt: skip
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
        made["broken"] = [int(dice.random() < 0.05) for _ in range(9)]
        rows.append(made)
    return rows


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Row]]:
    rows = noisy()
    return make(tmp_path_factory.mktemp("noise") / "store", rows), [r for r in rows if r["status"] == "ok"]


@pytest.fixture(scope="module")
def page(noise: tuple[Path, list[Row]]) -> str:
    return write_report(noise[0]).read_text()


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
    rows = [row(policy=policy, order=order, stall_ns=1000 * ns, split_ns=2000 * (policy == "split"))
            for policy, each in stall.items() for order, ns in enumerate(each)]  # fmt: skip
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


# ------------------------------------------------------------------------------------------- answer
def test_the_answer_says_who_hung_where_and_who_did_not(tmp_path: Path) -> None:
    axes = {"workload": "rings"}
    rows = [row(s, policy=p, order=o, **axes) for p in ("per-page", "split") for o in range(3) for s in (1, 2)]
    rows += [row(s, policy="whole-folio", order=o, **axes, hang_permanent=int(o > 0), first_hang_ns=2000 if o else -1)
             for o in range(3) for s in (1, 2)]  # fmt: skip
    rows[0]["hang_expected"] = 3
    rows[-1]["broken"] = [0, 0, 4, 0, 0, 0, 0, 0, 0]
    found = findings.answer(Results(make(tmp_path / "s", rows)))
    assert found.headline.startswith("1 of 3 policies hung in at least one of 18 runs; 2 never hung")
    texts = {(f.kind, f.subject): f.text for f in found.findings}
    assert texts["hung", "whole-folio"] == (
        "hung permanently in 4 of 6 runs: folio orders 1 to 2 (8 KiB to 16 KiB), workload rings; the first after 2 µs."
    )
    assert texts["violated", "whole-folio"].startswith("violated property 3 (a page that is shared")
    assert ("held", "per-page and split") in texts
    assert any("In 1 runs an unshare waited" in f.text for f in found.findings if f.kind == "note")


def test_order_spans_and_lists() -> None:
    assert findings.order_span([9]) == "folio order 9 (2 MiB)"
    assert findings.order_span([0, 2]) == "folio orders 0 and 2"
    assert findings.order_span([3, 4, MIX]) == "folio orders 3 to 4 (32 KiB to 64 KiB) and the recorded folio sizes"
    assert findings.listed(["a", "b", "c"]) == "a, b and c" and findings.listed([]) == ""


def test_unchecked_runs_and_failures_are_told(tmp_path: Path) -> None:
    rows = [row(1, check=False), row(2, check=True), failed("Boom: x", seed=3, check=True)]
    texts = [f.text for f in findings.notes(Results(make(tmp_path / "s", rows, plan="")))]
    assert "In 1 runs the properties were not checked (check = false)." in texts
    assert "1 of 3 cells failed and take no part in any number." in texts


def test_policies_stand_in_the_plans_order_and_tables_count_as_told(tmp_path: Path) -> None:
    rows = [row(s, policy=p, order=o, hang_fatal=int(p == "split" and s < 3), hang_livelock=int(p == "split"))
            for p in ("per-page", "split", "whole-folio") for o in range(2) for s in range(9)]  # fmt: skip
    results = Results(make(tmp_path / "s", rows))
    assert results.policy.values == ("whole-folio", "per-page", "split")
    table = tables.hang_table(results)
    assert table.rows[2] == ["split", "FL 9/9 (70–100)", "FL 9/9 (70–100)"]
    assert table.rows[1] == ["per-page", "0/9 (0–30)", "0/9 (0–30)"]


def test_violations_are_counted_by_property(noise: tuple[Path, list[Row]]) -> None:
    table = tables.property_table(Results(noise[0]))
    for number, cells in enumerate(table.rows):
        mine = [r["broken"][number] for r in noise[1] if r["policy"] == table.columns[2]]
        assert cells[2] == (f"{sum(mine)} in {sum(n > 0 for n in mine)} runs" if any(mine) else "0")


# ------------------------------------------------------------------------------------------- page
class Reader(HTMLParser):
    """What a page is made of: tags with their attributes, in order, and the text inside each `pre`."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, Mapping[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def values(self, *names: str) -> Iterator[str]:
        for _, attributes in self.tags:
            for name in names:
                if name in attributes:
                    yield attributes[name] or ""


def test_the_page_needs_nothing_from_outside(page: str) -> None:
    reader = Reader(page)
    assert not {tag for tag, _ in reader.tags} & {"script", "link", "img", "iframe", "object", "base", "image"}
    links = list(reader.values("href", "src", "xlink:href"))
    assert links and all(link.startswith("#") for link in links)
    assert not re.search(r"url\((?!#)|@import", page)
    ids = list(reader.values("id"))
    assert len(ids) == len(set(ids))
    wanted = {link[1:] for link in links} | set(re.findall(r"url\(#([^)]+)\)", page))
    assert wanted <= set(ids)


def test_every_figure_and_table_is_described_and_says_how_to_make_it_again(page: str) -> None:
    figures = re.findall(r"<figure.*?</figure>", page, re.DOTALL)
    assert len(figures) == len(all_names(page)) == 11
    for figure in figures:
        reader = Reader(figure)
        described = [a for _, a in reader.tags if a.get("role") == "img"]
        assert len(described) == 1 and len(described[0]["aria-label"] or "") > 40
        assert re.search(r"<h3>[^<]+</h3>", figure) and re.search(r"<figcaption>[^<]{40,}</figcaption>", figure)
        assert_again(figure)
        assert "ultrafolio run " in figure
    shown = re.findall(r"<table.*?</table>.*?(?=<div class=\"box\"|</section>)", page, re.DOTALL)
    assert len(shown) == page.count("<table") == 9
    for table in shown:
        assert re.search(r"<caption>[^<]+</caption>", table) and 'scope="col"' in table and 'scope="row"' in table
        assert_again(table)
    assert "prefers-color-scheme: dark" in page and "@media print" in page


def all_names(page: str) -> list[str]:
    return re.findall(r'<figure id="figure-([a-z-]+)"', page)


def assert_again(part: str) -> None:
    commands = re.findall(r'<pre class="again"[^>]*>(.*?)</pre>', part, re.DOTALL)
    assert len(commands) == 1
    assert "ultrafolio sweep " in commands[0] and "ultrafolio report " in commands[0]


def test_the_same_store_gives_the_same_bytes(noise: tuple[Path, list[Row]], page: str) -> None:
    store = noise[0]
    before = {path.name: path.read_bytes() for path in (store / "plots").iterdir()}
    assert {path.rpartition(".")[2] for path in before} == {"svg", "png"} and len(before) == 2 * len(all_names(page))
    again = write_report(store, store / "again.html")
    assert again == store / "again.html" and again.read_text() == page
    assert {path.name: path.read_bytes() for path in (store / "plots").iterdir()} == before
    assert not list(store.rglob("*.tmp"))
    assert not re.search(r"\b20\d\d-\d\d-\d\d", page)


def test_names_cannot_become_markup_or_formulas(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>"
    names = [evil, "$x_1^{$", '"><img src=x>', "_hidden", "a" * 90]
    rows = [row(policy=name, order=o, workload=evil, stalls=1, stall_hist=[9, 1], stall_ns=5, uv_ns=o + 1,
                hang_permanent=1, first_hang_ns=3) for name in names for o in range(2)]  # fmt: skip
    rows.append(failed(f"{evil}: & worse", seed=9, policy=evil, order=0, workload=evil))
    rows = [{"policy": r["policy"], **r} for r in rows]
    store = make(tmp_path / "s", rows, title=f"{evil} & co")
    text = write_report(store).read_text()
    reader = Reader(text)
    assert not {"script", "img"} & {tag for tag, _ in reader.tags}
    assert evil in "".join(reader.text) and "$x_1^{$" in "".join(reader.text)
    for path in (store / "plots").glob("*.svg"):
        names_in = {element.tag.rpartition("}")[2] for element in ElementTree.parse(path).iter()}
        assert "svg" in names_in and "script" not in names_in


def test_svg_text_stays_text(noise: tuple[Path, list[Row]], page: str) -> None:
    assert page
    texts = {e.text for e in ElementTree.parse(noise[0] / "plots" / "hangs.svg").iter() if e.tag.endswith("text")}
    assert {"per-page", "split", "whole-folio"} <= texts


ODD: dict[str, tuple[list[Row], str]] = {
    "no order, no placement": ([row(s, policy=p) for p in ("per-page", "split") for s in (1, 2)], PLAN),
    "no policy": ([row(1, order=o, stalls=1, stall_hist=[o, 1]) for o in range(3)], ""),
    "one cell": ([row(1)], ""),
    "one policy that hangs at once": ([row(1, policy="refuse-large", order=9, hang_fatal=1, first_hang_ns=1, touches=0,
                                           throughput=0)], ""),
    "all failed": ([failed("Boom", policy="split", order=o, seed=1) for o in range(3)], PLAN),
    "a point without runs": ([row(1, policy="split", order=0), failed("x", policy="split", order=1, seed=1)], PLAN),
    "no plan": ([row(1, policy="split", order=2)], "= broken ="),
    "order is text": ([row(1, policy="split", order=o) for o in ("small", "large")], PLAN),
    "many workloads": ([row(1, policy="split", order=1, workload=f"w{n}") for n in range(12)], PLAN),
    "odd axes": ([row(1, policy="split", order=o, check=c, share_rate=0.5 * o) for o in (0, 1) for c in (True, False)],
                 PLAN),
}  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_odd_plans_have_a_report(name: str, tmp_path: Path) -> None:
    rows, plan = ODD[name]
    store = make(tmp_path / "s", [dict(each) for each in rows], plan)
    text = write_report(store).read_text()
    good = sum(each["status"] == "ok" for each in rows)
    assert ('id="figure-hangs"' in text) == (good > 0)
    assert ("None of the 3 cells ran" in text) == (good == 0)
    assert all(f'<th scope="row">{axis}</th>' in text for axis in Results(store).axes)
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(terminal_table(store))
    assert "policy" in console.export_text()


def test_folio_sizes_from_a_recording_are_an_order_of_their_own(tmp_path: Path) -> None:
    plan = "[workload.db]\norders = 'x.thpmaps'\ntouches = 'y.lackey'\n[workload.plain]\npages = 4"
    rows = [row(1, policy="split", order=o, workload="plain") for o in (0, 3)]
    rows.append(row(1, policy="split", order=0, workload="db", hang_fatal=1))
    results = Results(make(tmp_path / "s", rows, plan))
    assert results.order.values == (0, 3, MIX)
    assert aggregate.hangs(aggregate.cube(results, "order"))[:, 0].tolist() == [0, 0, 1]
    assert [(r.path, r.kind, r.digest) for r in results.recordings()] == [
        ("x.thpmaps", "orders", ""), ("y.lackey", "touches", "")]  # fmt: skip
    assert "hangs" in [plot.name for plot in all_plots(results)]


# ------------------------------------------------------------------------------------------- commands
def test_a_single_runs_command_means_the_cell(tmp_path: Path) -> None:
    rows = [row(7, policy="mine", order=4, placement="scattered", workload="a b", rings=2, share_rate=0.5,
                backing="iomap", check=False, duration_us=50, imported=False)]  # fmt: skip
    results = Results(make(tmp_path / "s", rows, ""))
    words = shlex.split(reproduce.single(results, 0))
    assert words[:3] == ["ultrafolio", "run", str(tmp_path / "s" / "origin.toml")]
    given = run_command.make_context("run", words[2:]).params
    axes = {name: given[name] for name in ("policy", "order", "placement", "workload", "seed", "check", "duration_us")}
    assert axes == {name: rows[0][name] for name in axes}
    assert set(given["fields"]) == {"rings=2", "share_rate=0.5", "backing=iomap", "imported=false"}


def test_paths_are_short_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert reproduce.near(tmp_path / "out" / "seed") == "out/seed"
    assert reproduce.near("/elsewhere/x") == "/elsewhere/x"


def test_json_is_the_aggregated_table_and_writes_nothing(noise: tuple[Path, list[Row]], tmp_path: Path) -> None:
    store = make(tmp_path / "s", noisy())
    answer = CliRunner().invoke(report_command, [str(store), "--json"])
    lines = [json.loads(line) for line in answer.stdout.splitlines()]
    assert answer.exit_code == 0 and len(lines) == 3 * 3 * 2 and not (store / "report.html").exists()
    for line in lines:
        mine = [r for r in noise[1] if all(r[name] == line[name] for name in ("policy", "order", "placement"))]
        hung = sum(any(r[f"hang_{c}"] for c in aggregate.CLASSES) for r in mine)
        assert line["runs"] == len(mine) and line["hang_probability"] == hung / len(mine)
        assert line["low"] < line["hang_probability"] < line["high"] or hung in (0, len(mine))
        assert line["touches"] == sum(r["touches"] for r in mine)
        times = [r["first_hang_ns"] for r in mine if r["first_hang_ns"] >= 0]
        assert line["first_hang_ns_median"] == (np.median(times) if times else None)


def test_the_command_shows_the_table_and_names_the_page(tmp_path: Path) -> None:
    rows = [row(s, policy="whole-folio", order=o, stalls=1, hang_permanent=o * s, first_hang_ns=5 if o * s else -1)
            for o in range(2) for s in range(2)]  # fmt: skip
    store = make(tmp_path / "s", rows)
    answer = CliRunner().invoke(report_command, [str(store), "-o", str(tmp_path / "sub" / "x.html")])
    assert answer.exit_code == 0 and "perm 50" in answer.stdout and "stall" in answer.stdout
    assert f"report   {tmp_path / 'sub' / 'x.html'}" in answer.stdout and (tmp_path / "sub" / "x.html").exists()


# ------------------------------------------------------------------------------------------- bad input
def spoil(store: Path, how: str) -> None:
    results = store / "results.parquet"
    if how == "no manifest":
        (store / "store.json").unlink()
    elif how == "manifest":
        (store / "store.json").write_text("[1, 2")
    elif how == "no results":
        results.unlink()
    elif how == "no parquet":
        results.write_bytes(b"PAR1 no such thing")
    elif how == "cut":
        results.write_bytes(results.read_bytes()[: results.stat().st_size // 2])
    elif how == "pages":
        body = bytearray(results.read_bytes())
        body[4 : len(body) // 2] = bytes(len(body) // 2 - 4)
        results.write_bytes(body)
    else:
        table = pq.read_table(results)
        pq.write_table(table.drop_columns(["stall_hist"]), results)


@pytest.mark.parametrize(("how", "says"), [
    ("no manifest", "not a store"), ("manifest", "damaged"), ("no results", "no results yet"),
    ("no parquet", "damaged"), ("cut", "damaged"), ("pages", "damaged"), ("columns", "result columns are missing"),
])  # fmt: skip
def test_what_is_no_store_is_said(how: str, says: str, tmp_path: Path) -> None:
    store = make(tmp_path / "s", noisy(60))
    spoil(store, how)
    for act in (write_report, terminal_table):
        with pytest.raises(InputError, match=says) as told:
            act(store)
        assert told.value.then and told.value.allowed
    assert not (store / "report.html").exists() and not (store / "plots").exists()


def test_a_page_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    store = make(tmp_path / "s", [row(1)])
    (tmp_path / "taken").mkdir()
    with pytest.raises(InputError, match="cannot be written"):
        write_report(store, tmp_path / "taken")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        write_report(store, tmp_path / "file" / "x.html")
    assert not list(tmp_path.rglob("*.tmp"))


def test_without_its_packages_a_report_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make(tmp_path / "s", [row(1)])
    assert report_writer(wanted=False) is not None
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *r: None if name == "jinja2" else find(name, *r))
    with pytest.raises(InputError, match=r"(?s)not installed: jinja2.*ultrafolio\[report\]"):
        write_report(store)
    with pytest.raises(ImportError):
        ultrafolio.report.write_report  # noqa: B018
    assert report_writer(wanted=False) is None
