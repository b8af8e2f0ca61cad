"""The benchmarks run, and their four implementations agree to the byte. Speed is compared only with much slack."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.append(str(BENCHMARKS))

from ours import jitted  # noqa: E402
from peer_c import PeerC, compiler  # noqa: E402
from workloads import POLICIES, SIZES, Fresh, config, differing  # noqa: E402

needs_c = pytest.mark.skipif(compiler() is None, reason="no C compiler: neither $CC, cc nor gcc")


@pytest.fixture(scope="module")
def tables() -> dict[str, list[dict[str, Any]]]:
    """What `run.py --quick --json` prints; it ends with 1 where two implementations differ."""
    command = [sys.executable, str(BENCHMARKS / "run.py"), "--quick", "--json"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    made: dict[str, list[dict[str, Any]]] = json.loads(done.stdout)
    return made


def test_all_implementations_end_equal_in_every_case(tables: dict[str, list[dict[str, Any]]]) -> None:
    rows = tables["four implementations"]
    assert [(row["size"], row["policy"]) for row in rows] == [(size, p) for size in ("S", "M") for p in POLICIES]


def test_jitted_is_far_from_simpy(tables: dict[str, list[dict[str, Any]]]) -> None:
    assert median(row["jitted/SimPy"] for row in tables["four implementations"]) > 20


@needs_c
def test_jitted_is_near_c(tables: dict[str, list[dict[str, Any]]]) -> None:
    assert median(row["jitted/C"] for row in tables["four implementations"]) > 0.3


def test_checking_properties_costs_less_than_the_simulation(tables: dict[str, list[dict[str, Any]]]) -> None:
    assert median(row["on/off"] for row in tables["price of property checking"]) < 2


def test_a_large_guest_fits(tables: dict[str, list[dict[str, Any]]]) -> None:
    (row,) = tables["memory of a guest of 1,000,000 pages"]
    assert 0 < row["above MB"] < 200


def test_every_case_has_rows(tables: dict[str, list[dict[str, Any]]]) -> None:
    assert len(tables) == 6
    assert all(tables.values())


@pytest.mark.skipif(not Path("/usr/bin/chromium").exists(), reason="Chromium is not installed")
def test_the_page_is_measured_and_finds_what_the_scenarios_expect() -> None:
    """page.py ends with 1 where a number of states or edges is another; it measures each of its figures."""
    pytest.importorskip("playwright", reason="playwright is not installed")
    command = [sys.executable, str(BENCHMARKS / "page.py"), "--quick", "--json"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    verdicts = {row["to the verdict"]: row for row in rows if "to the verdict" in row}
    assert len(verdicts) == 5 and all(row["pairs"] > 10 for row in verdicts.values())
    assert [row["in"] for row in rows if "system" in row] == ["node", "Chromium"]
    assert rows[-1]["stories played"] == 1 and rows[-1]["steps"] > 10 and rows[-1]["longest step, cpu ms"] > 0


@pytest.mark.parametrize(
    ("program", "options", "names"),
    [
        ("check_starts.py", [], {"s", "CPU s"}),
        ("limits.py", ["look-ups"], {"states", "look-ups", "ns a look-up", "table alone", "share"}),
        ("limits.py", ["two-at-once"], {"two explorations/one", "two of pure computing/one"}),
    ],
)
def test_what_the_checker_takes_is_measured(program: str, options: list[str], names: set[str]) -> None:
    command = [sys.executable, str(BENCHMARKS / program), *options, "--quick", "--json"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    (row,) = made if isinstance(made, list) else next(iter(made.values()))
    assert names <= set(row) and all(row[name] > 0 for name in names)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("program", "options", "rows"),
    [("big_sweep.py", ["--cells", "400"], 6), ("large_map.py", ["--order", "13"], 5)],
)
def test_what_grows_is_measured(program: str, options: list[str], rows: int) -> None:
    if program == "large_map.py":
        pytest.importorskip("playwright", reason="playwright is not installed")
    command = [sys.executable, str(BENCHMARKS / program), *options, "--json"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    assert len(made) == rows
    assert all(value > 0 for row in made for value in row.values() if isinstance(value, float))


def test_a_different_end_is_noticed() -> None:
    fresh = Fresh.of(config(SIZES["S"], "per-page", 1000))
    wrong = differing(jitted(fresh, 1000), jitted(fresh, 1001))
    assert {"clock", "metric", "fired", "tree"} <= set(wrong)
    assert differing(jitted(fresh, 1000), jitted(fresh, 1000)) == []


@needs_c
def test_the_c_program_refuses_what_is_not_in_its_subset(tmp_path: Path) -> None:
    peer = PeerC(tmp_path, Fresh.of(config(SIZES["S"], "per-page", 1000)))
    for policy in ("import-lock", "folio-bitmap", "whole-folio-literal", "refuse-large"):
        with pytest.raises(RuntimeError, match="not in the subset"):
            peer(Fresh.of(config(SIZES["S"], policy, 1000)), 1000)
