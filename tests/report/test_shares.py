"""Percentages: one function makes them, with an interval and the number of runs, wherever a user sees one."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from test_report import make, row
from ultrafolio.commands.report import report as report_command
from ultrafolio.report import share
from ultrafolio.report.page import write_report
from ultrafolio.report.share import Mean, Share, mean_of_best, percent, runs_of_each

REPORT = Path(share.__file__).parent
PERCENT = re.compile(r"(?<![\d.–])\d+(?:\.\d+)? %")


@pytest.mark.parametrize(
    ("part", "says"),
    [
        (0, "0"),
        (1, "100"),
        (0.5, "50"),
        (0.125, "12"),
        (0.07, "7"),
        (0.0723, "7.2"),
        (0.001, "0.1"),
        (0.00042, "0.04"),
        (0.989, "99"),
        (0.996, "99.6"),
        (0.99996, "99.996"),
        (0.0996, "10"),
        (0.0994, "9.9"),
    ],
)
def test_a_percentage_is_short_and_only_none_is_0_and_only_all_is_100(part, says):
    assert percent(part) == says


def test_a_share_and_a_mean_say_their_interval_and_their_runs():
    assert str(Share(2, 4)) == "2/4 (15–85 %)" and Share(0, 900).bounds == "0–0.4"
    assert str(Mean(98.34, 1.2, 9)) == "98.3 % (97.1–99.5 %)" and Mean(1.0, 3.0, 9).bounds == "0.0–4.0"
    assert Mean(98.34, math.nan, 1).bounds == "–" and "one run an order" in str(Mean(98.34, math.nan, 1))
    assert str(Mean(math.nan, math.nan, 0)) == "–"


def test_how_many_runs_cells_have_in_words():
    assert [runs_of_each(np.array(runs)) for runs in ([], [0, 1], [3, 3], [0, 1, 12])] == [
        "0 runs",
        "1 run",
        "3 runs",
        "1 to 12 runs",
    ]


def test_the_mean_leaves_out_an_order_without_touches_and_counts_all_runs():
    one = np.array([1.0, 1.0])
    mean = mean_of_best(np.array([80.0, math.nan]), np.array([2, 3]), 2 * one, 2 * one, np.array([1.0, 1.0]))
    assert (mean.value, mean.half, mean.runs) == (80.0, 0.0, 5)


def test_no_other_module_of_reports_makes_a_percentage():
    for file in REPORT.glob("*.py"):
        assert file.name == "share.py" or not re.search(r"\{[^{}]*\b100 \*", file.read_text()), file.name


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Two policies, one of which hangs, over orders with one run, and with several."""
    plan = '[grid]\npolicy = ["per-page", "whole-folio"]\norder = "0-2"\n'
    rows = [
        row(
            seed,
            policy=policy,
            order=order,
            touches=1000 + seed,
            hang_permanent=int(policy == "whole-folio" and order > 0 and seed < 2),
            first_hang_ns=5,
        )
        for policy in ("per-page", "whole-folio")
        for order in range(3)
        for seed in range(1 + 3 * order)
    ]
    made = make(tmp_path_factory.mktemp("shares") / "store", rows, plan)
    write_report(made)
    return made


def test_the_terminal_has_an_interval_and_the_runs_beside_each_percentage(store):
    shown = CliRunner().invoke(report_command, [str(store)], env={"NO_COLOR": "1"}).output
    assert "P 50" in shown and "15–85 of 4" in shown and "0–79 of 1" in shown and "1 to 7 runs a cell" in shown
    cost = shown[shown.index("cost") :]
    assert re.search(r"per-page +100\.0 % +– +12 ", cost), "an order with one run has no interval"
    assert " 1 runs" not in shown


def test_every_percentage_of_the_answer_stands_beside_an_interval_and_its_runs(store):
    text = (store / "report.html").read_text()
    best = text[text.index('class="best"') :].split("</p>")[0]
    assert "(0 of 12 runs hung, at 95 % under" in best
    findings = text[text.index('id="answer"') : text.index('id="again"')]
    for sentence in re.findall(r"<li>.*?</li>", findings):
        if PERCENT.search(sentence):
            assert "–" in sentence or "at 95 %" in sentence or "no interval" in sentence, sentence
    table = text[text.index('id="cost-table"') :].split("</table>")[0]
    assert '<th scope="col">runs</th>' in table and "100.0 % (no interval: one run an order)" in table
    assert " 1 runs" not in text


def test_a_comparison_has_the_runs_and_the_interval(store):
    shown = CliRunner().invoke(report_command, ["--compare", str(store), str(store)]).output
    assert shown.count("24 runs") == 2 and "the same in both: 6 of 6 points" in shown
