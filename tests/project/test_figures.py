"""The README's figures: the counts are right, and a wrong or missing figure is found."""

import importlib.util
import re
import sys
import types
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
spec = importlib.util.spec_from_file_location("figures", ROOT / "tools" / "figures.py")
figures = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = figures
spec.loader.exec_module(figures)


def test_the_counts_agree():
    assert [line for same, line in figures.compared(README, figures.QUICK) if not same] == []


@pytest.mark.parametrize("figure", figures.QUICK, ids=lambda figure: figure.name)
def test_a_wrong_figure_and_a_missing_sentence_differ(figure):
    text = " ".join(README.split())
    found = re.search(figure.pattern, text)
    wrong = text[: found.start(1)] + "77" + text[found.end(1) :]
    for changed in (wrong, text.replace(found[0], "")):
        assert [same for same, _ in figures.compared(changed, (figure,))] == [False]


def test_each_swept_figure_has_its_sentence():
    text = " ".join(README.split())
    assert all(re.search(figure.pattern, text) for figure in figures.SWEPT)


def test_swept_figures_are_computed_from_the_rows():
    rows = [
        {
            "policy": policy,
            "workload": load,
            "order": order,
            "placement": place,
            "runs": 10,
            "hang_probability": 0.2 if order == 1 else 0.5,
            "touches": 30 if policy == "whole-folio" else 60,
        }
        for policy in ("whole-folio", "per-page")
        for load in ("virtio", "disk")
        for order in (1, 9)
        for place in ("scattered", "aligned")
    ]
    cost = types.SimpleNamespace(policy="per-page", uv_ratio=1.94, stall=30.4)
    assert [figure.value(figures.Sweep(rows, [cost])) for figure in figures.SWEPT] == [
        ("20", "20", "8.1–42", "50", "20", "30–70"),
        ("50", "20", "50", "10"),
        ("1.9", "30"),
    ]
