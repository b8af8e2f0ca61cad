"""Keys of many cells: those that a sweep gives one by one, at the cost of few resolved cells."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fake_cells import FAKE, PLAN, FakeCells, make_plan, run
from ultrafolio.sim import cell as simulated
from ultrafolio.sweep import cell_keys
from ultrafolio.sweep.cell_keys import CellKeys
from ultrafolio.sweep.explain import status, why
from ultrafolio.sweep.plan import Plan
from ultrafolio.sweep.planfile import load
from ultrafolio.sweep.store import open_store
from ultrafolio.sweep.work import Work

PLANS = {
    "a filter and a range": PLAN,
    "no plain axis": '[grid]\npolicy = ["per-page", "mine"]\nname = ["%s", "100 %", "{}"]\n[policy.mine]\na = "5 %d"',
    "only plain axes": '[fixed]\npolicy = "per-page"\n[grid]\nseed = "7-90"',
    "the plain axis first": '[grid]\nseed = [3, 1]\npolicy = ["whole-folio", "per-page"]\nignored = [1, 2]',
}


class Counted(FakeCells):
    """Counts the cells that are resolved."""

    resolved = 0

    def resolve(self, cell: dict[str, Any], base: Path) -> dict[str, Any]:
        self.resolved += 1
        return super().resolve(cell, base)


def both(plan: Plan, cells: Any, span: range) -> tuple[dict[int, str], dict[int, str]]:
    """The keys of a span of cells: at once, and one by one."""
    work = Work(plan, cells, {})
    many = {
        index: key
        for indices, keys in CellKeys(work).of(span)
        for index, key in zip(indices.tolist(), keys, strict=True)
    }
    return many, {index: work.key(cell)[0] for index, cell in plan.cells(span)}


@pytest.mark.parametrize("text", PLANS.values(), ids=PLANS.keys())
@pytest.mark.parametrize("part", [1, 7, 16_384])
def test_many_keys_are_those_of_each_cell(
    tmp_path: Path, text: str, part: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cell_keys, "PART", part)
    monkeypatch.setattr(cell_keys, "MOST_FORMS", 3)
    plan = load(make_plan(tmp_path, text))
    for span in (range(plan.size), range(1, plan.size - 1), range(0)):
        many, each = both(plan, FAKE, span)
        assert many == each


def test_the_simulators_keys_are_those_of_each_cell(tmp_path: Path) -> None:
    text = '[grid]\ncheck = [true, false]\nrings = [0, 2]\nshare_rate = [0, 0.5, 1]\nworkload = ["default", "wide"]\n'
    plan = load(make_plan(tmp_path, f'{text}seed = "5-7"\n[workload.wide]\nrings = 3\nvcpus = 4\n'))
    many, each = both(plan, simulated, range(plan.size))
    assert many == each and len(set(many.values())) == len(many) == 72


@pytest.mark.parametrize("axis", simulated.PLAIN)
def test_a_plain_axis_of_the_simulator_changes_its_own_place_only(axis: str) -> None:
    *outer, name = simulated.PLAIN[axis]
    for rest in ({}, {"workload": "w", "tables": {"workload": {"w": {"vcpus": 3}}}, "policy": "split"}):
        plain = simulated.resolve(rest, Path())
        inner = plain[outer[0]] if outer else plain
        words = {"placement": "aligned", "backing": "shmem", "share_rate": 0.25}
        inner[name] = value = not inner[name] if isinstance(inner[name], bool) else words.get(axis, 7)
        assert simulated.resolve(rest | {axis: value}, Path()) == plain != simulated.resolve(rest, Path())


def test_cells_that_differ_in_plain_axes_are_resolved_once(tmp_path: Path) -> None:
    counts = []
    for seeds in (10, 1000):
        cells = Counted()
        path = make_plan(tmp_path, f'[grid]\npolicy = ["per-page", "whole-folio"]\nseed = "1-{seeds}"', f"{seeds}.toml")
        run(path, tmp_path / str(seeds), cells=cells)
        cells.resolved = 0
        found = status(open_store(tmp_path / str(seeds)), cells)
        assert (found.ok, found.to_run, found.outdated) == (2 * seeds, 0, 0)
        counts.append(cells.resolved)
    assert counts[0] == counts[1] <= 6


def test_the_status_of_a_store_of_which_some_is_new(tmp_path: Path) -> None:
    path, folder = make_plan(tmp_path), tmp_path / "store"
    run(path, folder, limit=10)
    run(path, folder, cells=FakeCells("engine-2"), limit=4)
    run(path, folder, limit=12, rerun="failed")
    store = open_store(folder)
    found, other = status(store, FAKE), status(store, FakeCells("engine-2"))
    assert (found.ok, found.failed, found.to_run, found.outdated, found.cells) == (10, 2, 13, 0, 25)
    assert (other.ok, other.failed, other.to_run, other.outdated) == (3, 1, 21, 8)
    assert {state: len(keys) for state, keys in found.keys.items()} == {"ok": 3, "failed": 2, "to_run": 3}
    assert why(store, FAKE, found.keys["failed"][0][:12]).status == "failed"
    empty = tmp_path / "empty"
    run(path, empty, limit=1)
    next((empty / "segments").iterdir()).unlink()
    assert status(open_store(empty), FAKE).to_run == 25
