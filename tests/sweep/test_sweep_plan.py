"""Plans: the product and its order, filters, ranges, and an error for every mistake."""

from __future__ import annotations

import itertools
import random
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from fake_cells import PLAN, FakeCells, make_plan, run
from ultrafolio.errors import InputError
from ultrafolio.sweep.plan import Axis, Plan, count_cells
from ultrafolio.sweep.planfile import load, parse

HERE = Path("plans/p.toml")


def plan_of(text: str) -> Plan:
    return parse(text, HERE)


def test_the_last_axis_is_the_fastest_and_fixed_axes_are_in_every_cell() -> None:
    plan = plan_of('[fixed]\nms = 20\n[grid]\na = ["x", "y"]\nb = [2, 1]')
    assert [cell for _, cell in plan.cells()] == [
        {"ms": 20, "a": "x", "b": 2},
        {"ms": 20, "a": "x", "b": 1},
        {"ms": 20, "a": "y", "b": 2},
        {"ms": 20, "a": "y", "b": 1},
    ]
    assert [index for index, _ in plan.cells()] == [0, 1, 2, 3]


def test_ranges_include_both_ends() -> None:
    cells = [cell["seed"] for _, cell in plan_of('[grid]\nseed = "-2 - 3"').cells()]
    assert cells == [-2, -1, 0, 1, 2, 3]


def test_a_filter_drops_a_cell_when_all_its_axes_match() -> None:
    plan = plan_of(PLAN)
    cells = [cell for _, cell in plan.cells()]
    assert len(cells) == plan.count == 25
    assert all(cell["order"] != 0 for cell in cells if cell["policy"] == "whole-folio")
    assert sum(cell["order"] == 0 for cell in cells) == 5


def test_a_filter_takes_values_lists_ranges_and_fixed_axes() -> None:
    grid = '[fixed]\nms = 20\n[grid]\na = [1, 2, 3]\nseed = "1-9"\n'
    plan = plan_of(grid + '[[skip]]\nms = 20\na = [2]\nseed = "1-3"')
    kept = [(cell["a"], cell["seed"]) for _, cell in plan.cells()]
    assert len(kept) == 24 and not {(2, 1), (2, 2), (2, 3)} & set(kept)


def test_counting_agrees_with_enumerating() -> None:
    choose = random.Random(7)
    for _ in range(200):
        axes = [Axis(str(n), range(choose.randint(1, 4))) for n in range(choose.randint(1, 4))]

        def some(values: Sequence[Any]) -> list[Any]:
            return choose.sample(values, choose.randint(1, len(values)))

        def skip(axes: list[Axis] = axes) -> dict[int, frozenset[int]]:
            return {number: frozenset(some(axes[number].values)) for number in some(range(len(axes)))}

        skips = tuple(skip() for _ in range(choose.randint(0, 3)))
        plan = Plan(HERE, "", "", tuple(axes), skips, {}, "")
        assert count_cells(plan.axes, plan.skips) == len(list(plan.cells())) == plan.count


def test_definitions_reach_resolve_as_they_stand(tmp_path: Path) -> None:
    seen: list[dict[str, Any]] = []

    class Cells(FakeCells):
        def resolve(self, cell: dict[str, Any], base: Path) -> dict[str, Any]:
            seen.append(cell | {"base": base})
            return super().resolve(cell, base)

    path = make_plan(tmp_path, '[grid]\npolicy = ["mine"]\n[policy.mine]\ntrack = "page"\n[other.x]\ny = [1]')
    assert run(path, tmp_path / "store", cells=Cells()).computed == 1
    tables = {"policy": {"mine": {"track": "page"}}, "other": {"x": {"y": [1]}}}
    assert seen[-1] == {"policy": "mine", "tables": tables, "base": tmp_path}


def test_the_digest_is_of_the_meaning() -> None:
    plain = plan_of("[grid]\na = [1]\nb = [2]").digest
    assert plan_of("# a comment\n[grid]\na = [ 1 ]\nb = [2]").digest == plain
    assert plan_of("[grid]\na = [2]\nb = [2]").digest != plain
    assert plan_of("[grid]\nb = [2]\na = [1]").digest != plain, "the order of axes numbers the cells"
    assert plan_of("[grid]\na = [1]\nb = [2]\n[x.y]\nday = 2026-01-01").digest != plain


GRID = "[grid]\npolicy = ['per-page', 'whole-folio']\nseed = '1-3'\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "at least one axis"),
        ("[fixed]\na = 1", "at least one axis"),
        ("[grid]", "at least one axis"),
        ("grid = 1", "a table: [grid]"),
        ("fixed = 1\n[grid]\na = [1]", "a table: [fixed]"),
        ("title = 1\n" + GRID, "title"),
        ("titel = 'x'\n" + GRID, "did you mean 'title'?"),
        ("answer = 42\n" + GRID, "title, design, fixed, grid, skip"),
        ("[fixd]\nx = 1\n" + GRID, "did you mean 'fixed'?"),
        (GRID + "[polcy.mine]\nx = 1", "did you mean 'policy'?"),
        ("[grid]\na = 5", "goes into [fixed]: a"),
        ("[grid]\na = []", "an empty axis leaves no cells"),
        ("[grid]\na = [1, 2, 1]", "given 2 times"),
        ("[grid]\na = [1, true]", "each value once"),
        ("[grid]\na = [[1]]", "one axis value per cell"),
        ("[grid]\na = [nan]", "a finite number"),
        ("[grid]\na = [2026-01-01]", "a finite number"),
        ("[grid]\na = [9223372036854775808]", "64 bits"),
        ("[grid]\na = '0-99999999999999999999'", "64 bits"),
        ("[fixed]\nb = [1]\n[grid]\na = [1]", "[fixed] b"),
        ("[grid]\na = '0..9'", "inclusive integer range"),
        ("[grid]\na = '9-0'", 'did you mean "0-9"?'),
        ("[fixed]\na = 1\n[grid]\na = [1]", "it is in both"),
        ("[grid]\nkey = [1]", "any name but"),
        ("skip = 1\n" + GRID, "double brackets"),
        (GRID + "[skip]\nseed = 1", "double brackets"),
        (GRID + "[[skip]]", "at least one axis"),
        (GRID + "[[skip]]\nsed = 1", "did you mean 'seed'?"),
        (GRID + "[[skip]]\nseed = 4", "no such value on this axis"),
        (GRID + "[[skip]]\nseed = '2-4'", "no such value on this axis"),
        (GRID + "[[skip]]\npolicy = 'perpage'", "did you mean 'per-page'?"),
        (GRID + "[[skip]]\nseed = []", "an empty list drops nothing"),
        (GRID + "[[skip]]\nseed = 1\n[[skip]]\nseed = 1\npolicy = 'per-page'", "number 2"),
        (GRID + "[[skip]]\nseed = '1-3'", "drop every cell"),
        ("title = 'x'\n[grid]\na = [1\nb = 2", "line 4"),
        ("[grid]\na = [1]\na = [2]", "not valid TOML"),
    ],
)
def test_every_mistake_is_told(text: str, expected: str) -> None:
    with pytest.raises(InputError) as caught:
        plan_of(text)
    message = str(caught.value)
    assert expected in message
    assert message.startswith(str(HERE)) and "allowed" in message
    assert "ultrafolio sweep" in message or "cause" in message


def test_files_that_are_no_plans(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        load(tmp_path / "absent.toml")
    with pytest.raises(InputError, match="cannot be read"):
        load(tmp_path)
    (tmp_path / "binary.toml").write_bytes(b"a = '\xff'")
    with pytest.raises(InputError, match="byte 5"):
        load(tmp_path / "binary.toml")


def test_a_million_cells_cost_no_memory() -> None:
    text = '[grid]\na = "1-100"\nb = "1-100"\nc = "1-100"\n[[skip]]\na = "1-50"\nc = 7'
    tracemalloc.start()
    try:
        plan = plan_of(text)
        assert plan.count == 1_000_000 - 5_000
        # Every cell is visited without the tracer's cost a few thousand times over: a stretch, not all.
        assert sum(1 for _ in plan.cells(range(490_000, 530_000))) == 40_000 - 100
        assert sum(1 for _ in itertools.islice(plan.cells(), 20_000)) == 20_000
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 500_000
    assert sum(1 for _ in plan.cells()) == plan.count
