"""The first screen of a report, its filters and words in a browser, and the comparison of two stores."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from browser import NEEDED, chromium, tab  # noqa: F401
from test_report import make, row
from ultrafolio.commands.report import report as report_command
from ultrafolio.model.policies import PRESETS
from ultrafolio.report import compare, importance
from ultrafolio.report.first import first_screen, matrix_cell
from ultrafolio.report.page import write_report
from ultrafolio.report.share import half_width
from ultrafolio.report.store import Results

SHOWN = "(s) => [...document.querySelectorAll(s)].filter(e => e.checkVisibility()).map(e => e.getBoundingClientRect())"
PLAN = """
[grid]
policy = ["per-page", "whole-folio", "split"]
[workload.disk]
disks = 2
[workload.rings]
rings = 7
"""


def rows(hang: int = 1):
    """Every preset over ten orders and two workloads; whole-folio hangs under rings only."""
    return [
        row(
            s,
            policy=p,
            order=o,
            workload=w,
            touches=1000 - 100 * (p == "split"),
            stalls=1,
            hang_permanent=int(hang and p == "whole-folio" and w == "rings" and o > 0),
            first_hang_ns=5 if p == "whole-folio" and w == "rings" and o else -1,
        )
        for p in PRESETS
        for o in range(10)
        for w in ("disk", "rings")
        for s in range(2)
    ]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = make(tmp_path_factory.mktemp("first") / "store", rows(), PLAN)
    write_report(made)
    return made


@NEEDED
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (400, "light"), (1280, "dark")])
def test_best_matrix_and_costs_are_on_the_first_screen(store, tab, width, scheme):  # noqa: F811
    tab.set_viewport_size({"width": width, "height": 900})
    tab.emulate_media(color_scheme=scheme)
    tab.goto((store / "report.html").as_uri())
    best, matrix, cost = (tab.evaluate(SHOWN, name) for name in (".best", "table.matrix", "table.cost"))
    assert [len(found) for found in (best, matrix, cost)] == [1, 1, 1]
    assert best[0]["bottom"] <= matrix[0]["top"] and matrix[0]["bottom"] <= cost[0]["top"]
    assert cost[0]["bottom"] <= 900
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    hints = len(tab.evaluate(SHOWN, ".first .hint"))
    seen = tab.evaluate(
        "[...document.querySelectorAll('.first .box')].filter(e => e.checkVisibility())"
        ".map(e => [e.scrollWidth > e.clientWidth,"
        " getComputedStyle(e.querySelector('.hint')).visibility === 'visible'])"
    )
    assert hints == 2 and all(scrolls == told for scrolls, told in seen)
    assert any(told for _, told in seen) == (width == 400)
    ends = tab.evaluate("""[...document.querySelectorAll('.first caption')]
        .filter(e => e.checkVisibility()).map(e => { const text = document.createRange(); text.selectNodeContents(e);
        return text.getBoundingClientRect().right })""")
    assert ends and max(ends) <= width, "a caption is read without scrolling"


@NEEDED
def test_a_filter_works_by_keyboard_and_shows_the_runs_of_its_value_alone(store, tab):  # noqa: F811
    tab.goto((store / "report.html").as_uri())
    cell = "[...document.querySelectorAll('table.matrix')].filter(e => e.checkVisibility())[0].rows[2].cells[2].title"
    assert tab.evaluate(cell).startswith("2 of 4 runs hung")
    tab.keyboard.press("Tab")
    tab.keyboard.press("ArrowRight")
    assert tab.evaluate(cell).startswith("0 of 2 runs hung")
    tab.keyboard.press("ArrowRight")
    assert tab.evaluate(cell).startswith("2 of 2 runs hung")
    assert tab.evaluate("getComputedStyle(document.activeElement.closest('label').querySelector('input')).outlineStyle")
    tab.emulate_media(media="print")
    assert len(tab.evaluate(SHOWN, "table.matrix")) == 1


def test_the_page_explains_every_name_and_needs_no_script(store):
    text = (store / "report.html").read_text()
    for name in ("axis-words", "workload-words", "policy-words", "cost-words", "importance-table"):
        assert f'id="{name}"' in text
    assert "virtio rings of a guest" in text and "import of 4 KiB" in text and "<script" not in text
    assert all(f'<th scope="row">{policy}</th>' in text for policy in PRESETS)
    best = text[text.index('class="best"') :].split("</p>")[0]
    assert "per-page" in best and "(0 of 40 runs hung, at 95 % under 8.8 %" in best and "whole-folio," not in best


def test_the_views_count_the_runs_that_their_filters_keep(store):
    first = first_screen(Results(store))
    assert [axis.name for axis in first.filters] == ["workload"] and len(first.views) == 3
    told = {view.title: dict(view.matrix)["whole-folio"][1].told for view in first.views}
    assert {title: text[:6] for title, text in told.items()} == {
        "all runs": "2 of 4",
        "workload disk": "0 of 2",
        "workload rings": "2 of 2",
    }
    assert first.merged == ["seed (2)"]
    assert matrix_cell(0, [0, 0, 0], 0).text == "" and matrix_cell(10, [1, 0, 1], 0).text == "FL 20"


def test_the_interval_of_throughput_is_that_of_a_mean_of_samples():
    samples = np.array([2.0, 3.0, 7.0])
    sums = (np.array([3]), np.array([samples.sum()]), np.array([(samples**2).sum()]))
    assert half_width(*sums, np.array([7.0])) == pytest.approx(196 / 7 * samples.std(ddof=1) / math.sqrt(3), rel=1e-3)
    assert math.isnan(half_width(np.array([1]), np.array([1.0]), np.array([1.0]), np.array([1.0])))


def test_importance_is_one_for_the_axis_that_decides_and_zero_for_one_that_does_not():
    values = np.array([0.0, 0.0, 1.0, 1.0])
    assert importance.explained_variance(np.array([0, 0, 1, 1]), values) == 1
    assert importance.explained_variance(np.array([0, 1, 0, 1]), values) == 0
    assert math.isnan(importance.explained_variance(np.array([0, 1, 0, 1]), np.ones(4)))


def test_a_comparison_names_what_changed_and_writes_nothing(store, tmp_path):
    other = make(tmp_path / "other", rows(hang=0), PLAN)
    answer = CliRunner().invoke(report_command, ["--compare", str(store), str(other)])
    assert answer.exit_code == 0 and "whole-folio, order 1: hung 2/4 (15–85 %) -> 0/4 (0–49 %)" in answer.output
    assert "the same in both: 91 of 100 points" in answer.output and not (other / "report.html").exists()
    lines = CliRunner().invoke(report_command, ["--compare", "--json", str(store), str(other)]).output.splitlines()
    assert sum(json.loads(line)["change"] == "within chance" for line in lines) == 9
    assert compare.change((0, 90), (90, 90)) == "clear" and compare.change((0, 0), (1, 2)) == "only right"
    alone = CliRunner().invoke(report_command, ["--compare", str(store)])
    assert alone.exit_code == 1 and "--compare takes two stores" in str(alone.exception)


def test_the_terminal_cuts_no_heading_and_no_color_leaves_no_escape(store):
    shown = CliRunner().invoke(report_command, [str(store)], env={"NO_COLOR": "1", "COLUMNS": "80"}).output
    assert "…" not in shown and "\x1b" not in shown and "collateral/ms" in shown
