"""Report pages: complete, safe, reproducible and accessible; errors for bad input."""

from __future__ import annotations

import importlib.util
import io
import json
import re
import shlex
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Iterator, Mapping
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from rich.console import Console

import ultrafolio.report
from test_report import PLAN, Row, failed, make, noisy, row
from ultrafolio import shipped
from ultrafolio.commands.report import report as report_command
from ultrafolio.commands.run import run as run_command
from ultrafolio.commands.sweep import report_writer
from ultrafolio.errors import InputError
from ultrafolio.report import aggregate, reproduce
from ultrafolio.report.page import all_plots, write_report
from ultrafolio.report.store import MIX, Results
from ultrafolio.report.terminal import terminal_table


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Row]]:
    rows = noisy()
    return make(tmp_path_factory.mktemp("noise") / "store", rows), [r for r in rows if r["status"] == "ok"]


@pytest.fixture(scope="module")
def page(noise: tuple[Path, list[Row]]) -> str:
    return write_report(noise[0]).read_text()


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


def test_every_figure_and_table_is_described_and_says_how_to_make_it_again(
    noise: tuple[Path, list[Row]], page: str
) -> None:
    figures = re.findall(r"<figure.*?</figure>", page, re.DOTALL)
    assert len(figures) == len(all_names(page)) == 11
    for figure in figures:
        reader = Reader(figure)
        described = [a for _, a in reader.tags if a.get("role") == "img"]
        assert len(described) == 1 and len(described[0]["aria-label"] or "") > 40
        assert re.search(r"<h3>[^<]+</h3>", figure) and re.search(r"<figcaption>[^<]{40,}</figcaption>", figure)
        assert len(re.findall(r"<details>.*?ultrafolio run .*?</details>", figure, re.DOTALL)) == 1
        assert "axes merged: " in figure and f"{int(Results(noise[0]).good.sum())} runs" in figure
    shown = re.findall(r"<table.*?</table>", page, re.DOTALL)
    assert len(shown) == page.count('class="hint"') > 15
    for table in shown:
        assert re.search(r"<caption>[^<]+</caption>", table) and 'scope="col"' in table and 'scope="row"' in table
    assert page.count("ultrafolio sweep ") == page.count("ultrafolio report ") == 1
    assert "prefers-color-scheme: dark" in page and "@media print" in page


def all_names(page: str) -> list[str]:
    return re.findall(r'<figure id="figure-([a-z-]+)"', page)


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
    rows = [
        row(
            policy=name,
            order=o,
            workload=evil,
            stalls=1,
            stall_hist=[9, 1],
            stall_ns=5,
            uv_ns=o + 1,
            hang_permanent=1,
            first_hang_ns=3,
        )
        for name in names
        for o in range(2)
    ]
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


def test_the_matrix_shows_each_workload_at_the_orders_it_was_swept_at(tmp_path: Path) -> None:
    rows = [row(s, policy="split", order=1, workload="a", hang_permanent=int(s == 0)) for s in range(4)]
    rows += [row(s, policy="split", order=5, workload="b", hang_livelock=1, stalls=1) for s in range(2)]
    rows += [row(s, policy="per-page", order=5, workload="b", stalls=1) for s in range(2)]
    plot, *others = all_plots(Results(make(tmp_path / "s", rows)))
    assert all("workload a" in other.svg for other in others if other.name == "throughput")
    texts = Counter(e.text for e in ElementTree.fromstring(plot.svg).iter() if e.tag.endswith("text"))
    assert {text: texts[text] for text in ("P 25", "L 100", "t", "workload a", "workload b", "8K", "128K")} == {
        "P 25": 1,
        "L 100": 1,
        "t": 1,
        "workload a": 1,
        "workload b": 1,
        "8K": 1,
        "128K": 1,
    }
    assert "split: 1 permanent, 2 livelock of 6 runs" in plot.alt and "per-page: none of 2 runs" in plot.alt


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
    assert ("None of 3 cells ran" in text) == (good == 0)
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
        ("x.thpmaps", "orders", ""),
        ("y.lackey", "touches", ""),
    ]
    assert "hangs" in [plot.name for plot in all_plots(results)]


# ------------------------------------------------------------------------------------------- commands
def test_a_single_runs_command_means_the_cell(tmp_path: Path) -> None:
    rows = [
        row(
            7,
            policy="mine",
            order=4,
            placement="scattered",
            workload="a b",
            rings=2,
            share_rate=0.5,
            backing="iomap",
            check=False,
            duration_us=50,
            imported=False,
        )
    ]
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


def test_a_shipped_plan_is_told_by_its_name_and_another_by_its_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    plans = shipped.root() / "sweeps"
    mine = tmp_path / "seed.toml"
    for path, says in ((plans / "seed.toml", "seed"), (mine, "seed.toml"), (tmp_path / "a/seed.toml", "a/seed.toml")):
        assert reproduce.plan_of(SimpleNamespace(plan=str(path))) == says  # type: ignore[arg-type]
    mine.write_text("")
    assert reproduce.plan_of(SimpleNamespace(plan="seed.toml")) == "seed.toml"  # type: ignore[arg-type]
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps/seed.toml").write_text("")
    for path in (plans / "seed.toml", tmp_path / "sweeps/seed.toml"):
        near = reproduce.near(path)
        assert reproduce.plan_of(SimpleNamespace(plan=str(path))) == near  # type: ignore[arg-type]


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
    rows = [
        row(s, policy="whole-folio", order=o, stalls=1, hang_permanent=o * s, first_hang_ns=5 if o * s else -1)
        for o in range(2)
        for s in range(2)
    ]
    store = make(tmp_path / "s", rows)
    answer = CliRunner().invoke(report_command, [str(store), "-o", str(tmp_path / "sub" / "x.html")])
    assert answer.exit_code == 0 and "P 50" in answer.stdout and "stall" in answer.stdout
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


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("no manifest", "not a store"),
        ("manifest", "damaged"),
        ("no results", "no results yet"),
        ("no parquet", "damaged"),
        ("cut", "damaged"),
        ("pages", "damaged"),
        ("columns", "result columns are missing"),
    ],
)
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
