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
    assert all(re.search(figure.pattern, text) for figure in (*figures.SWEPT, *figures.CONVERTED))


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


def test_figures_of_conversions_are_computed_from_the_rows():
    """Of each sentence the rows that it is about: another policy, holder or patience changes nothing."""
    row = {
        "policy": "gmem-7.4", "machine": "snp", "holder": "vfio", "patience": "four-tries", "runs": 4, "requests": 100,
        "told_no": 25, "drain_waits": 2, "drain_wait_ns": 30_000, "hung_stuck_faults": 0, "pages_lost": 0,
    }  # fmt: skip
    rows = [
        row,
        row | {"holder": "gup", "told_no": 90, "drain_waits": 4},
        row | {"holder": "lru", "drain_waits": 4, "drain_wait_ns": 60_000},
        row | {"patience": "for-ever", "told_no": 0},
        row | {"policy": "gmem-hugetlb-2025-12", "holder": "none", "hung_stuck_faults": 1},
        row | {"policy": "gmem-hugetlb-2025-05", "machine": "tdx", "pages_lost": 1},
        row | {"policy": "gmem-hugetlb-2025-05", "machine": "cca"},
    ]
    made = [figure.value(figures.Conversions(rows)) for figure in figures.CONVERTED]
    assert made == [("25", "4"), ("15",), ("25",), ("TDX",)]
    wrong = [row | {"told_no": 50, "hung_stuck_faults": 2, "pages_lost": 1} for row in rows]
    assert not any(same for same, _ in figures.compared(README, figures.CONVERTED, figures.Conversions(wrong)))
