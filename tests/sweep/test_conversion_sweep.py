"""A sweep of guest_memfd, from its plan to results and report: the same bytes with any workers, and sums that are those
of the cells."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from patience import HUNG
from ultrafolio.cli import cli
from ultrafolio.errors import InputError
from ultrafolio.model.designs import GUEST_MEMFD
from ultrafolio.report import conversion
from ultrafolio.report.conversion import Conversions, opened
from ultrafolio.report.page import write_report
from ultrafolio.report.reproduce import single
from ultrafolio.report.terminal import terminal_table
from ultrafolio.sim import memfd_cell, memfd_config
from ultrafolio.sim.designs import columns
from ultrafolio.sweep import cells
from ultrafolio.sweep.local.processes import executor_of
from ultrafolio.sweep.planfile import load, parse
from ultrafolio.sweep.progress import Silent
from ultrafolio.sweep.run import sweep

ROOT = Path(__file__).parents[2]
PLAN = f"""
title = "a small conversion"
design = "guest_memfd"
[fixed]
duration_us = 2_000
pool_pages = 8
convert_rate = 0.05
workload = "database"
[grid]
policy = ["gmem-7.4", "gmem-no-drain", "gmem-hugetlb-2025-05"]
machine = ["software", "tdx"]
order = [0, 2]
patience = ["for-ever", "four-tries"]
holder = ["none", "vfio", "lru"]
[[skip]]
policy = "gmem-hugetlb-2025-05"
holder = "lru"
[workload.database]
touches = "{ROOT}/traces/sqlite-update.lackey.gz"
"""


MOST = "".join(
    f"\n[[skip]]\n{axis}\n"
    for axis in (
        'machine = ["software", "tdx", "cca"]',
        'holder = ["user", "mlock", "gup", "vmsplice", "walker"]',
        'patience = ["four-tries", "four-paused", "unmap-first"]',
        'workload = "web"',
        'placement = "aligned"',
        "order = [3, 6, 12, 15, 18]",
    )
)
"""The cells of the shipped plan that a test leaves out."""


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A store with the results of the plan."""
    folder = tmp_path_factory.mktemp("conversion")
    (folder / "plan.toml").write_text(PLAN)
    run(folder, "store", 0)
    return folder


def run(folder, name, workers):
    plan = load(folder / "plan.toml")
    return sweep(plan, folder / name, cells.of(plan.design), executor_of(workers), Silent())


def rows(folder):
    return pq.read_table(folder / "results.parquet").to_pylist()


def test_the_same_bytes_whatever_the_workers(swept):
    summary = run(swept, "two", 2)
    assert (summary.cells, summary.failed) == (64, 0)
    assert (swept / "two/results.parquet").read_bytes() == (swept / "store/results.parquet").read_bytes()


def test_celery_gives_the_bytes_of_local_processes(tmp_path):
    """The shipped plan with shorter cells and without most of them, on workers and a Redis of their own."""
    text = (ROOT / "sweeps/conversion.toml").read_text()
    for old, new in (
        ("300_000", "3_000"),
        ("convert_rate = 0.02", "convert_rate = 0.2"),
        ("../traces", f"{ROOT}/traces"),
    ):
        text = text.replace(old, new)
    (tmp_path / "plan.toml").write_text(text + MOST)
    words = [sys.executable, "-m", "ultrafolio", "sweep", "plan.toml", "--no-report", "--workers", "2"]
    for store in (["local"], ["celery", "--executor", "celery"]):
        done = subprocess.run([*words, "-o", *store], cwd=tmp_path, capture_output=True, text=True, timeout=HUNG)
        assert done.returncode == 0 and "52 of 52 cells (52 computed, 0 stored before)" in done.stdout, done.stderr
    assert "queued are 52 cells" in done.stderr and "Traceback" not in (tmp_path / "celery/workers.log").read_text()
    assert (tmp_path / "celery/results.parquet").read_bytes() == (tmp_path / "local/results.parquet").read_bytes()
    found = rows(tmp_path / "celery")
    assert {row["order"] for row in found} == {0, 9} and {row["machine"] for row in found} == {"snp", "pkvm"}
    assert len({row["policy"] for row in found}) == 6 and any(row["refusals"] for row in found)


def test_a_row_is_its_cell(swept):
    plan = load(swept / "plan.toml")
    assert cells.of(plan.design) is memfd_cell and cells.of("s390") is cells.simulator()
    found = next(row for row in rows(swept / "store") if row["holder"] == "vfio" and row["policy"] == "gmem-7.4")
    axes = {axis.name: found[axis.name] for axis in plan.axes}
    config = memfd_cell.resolve(plan.handed(axes), plan.base)
    assert memfd_cell.run(config, plan.base) == {name: found[name] for name in columns(GUEST_MEMFD)}
    assert found["requests"] > 0


def test_status_and_why_know_the_design(swept):
    said = json.loads(CliRunner().invoke(cli, ["sweep", "status", str(swept / "store"), "--json"]).output)
    assert (said["cells"], said["ok"], said["to_run"]) == (64, 64, 0)
    key = said["keys"]["ok"][0]
    assert "it would not run" in CliRunner().invoke(cli, ["sweep", "why", str(swept / "store"), key]).output


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"guest_memfd"', '"tdx"', "s390, guest_memfd"),
        ('design = "guest_memfd"', "", "unknown field"),
        ('"gmem-no-drain"', '"split"', "another design"),
        ("order = [0, 2]", "order = [0, 19]", "0 to 18"),
    ],
)
def test_a_wrong_plan_is_refused_before_it_runs(tmp_path, old, new, said):
    with pytest.raises(InputError) as wrong:
        plan = parse(PLAN.replace(old, new), tmp_path / "plan.toml")
        sweep(plan, tmp_path / "store", cells.of(plan.design), executor_of(0), Silent())
    assert said in str(wrong.value) and not (tmp_path / "store").exists()


def test_the_shipped_plan_asks_every_preset_machine_and_holder():
    plan = load(ROOT / "sweeps/conversion.toml")
    asked = {axis.name: set(axis.values) for axis in plan.axes}
    assert asked["machine"] == set(GUEST_MEMFD.machines) and asked["order"] >= {0, 9, 18}
    assert asked["holder"] == set(memfd_config.HOLDERS)
    assert asked["policy"] == set(tomllib.loads(plan.text)["grid"]["policy"]) and len(asked["policy"]) == 6


# ----------------------------------------------------------------------------------------------------- the report
def test_records_are_sums_of_rows(swept):
    results, every = opened(swept / "store"), rows(swept / "store")
    assert isinstance(results, Conversions)
    made = conversion.records(results)
    assert len(made) == 64 and sum(one["conversions"] for one in made) == sum(row["conversions"] for row in every)
    one = next(row for row in made if row["hung_vmm_bound"])
    (row,) = [row for row in every if all(row[name] == one[name] for name in ("policy", "machine", "order", "patience",
                                                                                "holder"))]  # fmt: skip
    assert row["hang_vmm_bound"] > 0 and (one["refusals"], one["extra_bytes"]) == (row["refusals"], row["extra_bytes"])


def test_the_words_of_a_cell(swept):
    results = opened(swept / "store")
    kept = conversion.where(results, patience="for-ever")
    made = conversion.outcome(conversion.cube(kept, "policy", "holder"))
    names = [list(axis.values) for axis in (results.policy, results.axes["holder"])]

    def words(policy, holder):
        return made.words(names[0].index(policy), names[1].index(holder))

    assert words("gmem-7.4", "none") == ["·"] and words("gmem-hugetlb-2025-05", "lru") == [""]
    assert words("gmem-7.4", "vfio")[0].startswith("V ") and words("gmem-no-drain", "lru")[0].startswith("P ")
    tried = conversion.outcome(conversion.cube(conversion.where(results, patience="four-tries"), "policy", "holder"))
    assert tried.words(0, names[1].index("vfio"))[0].startswith("no ")
    runs = [row for row in rows(swept / "store") if row["patience"] == "four-tries" and row["holder"] == "vfio"]
    mine = [row for row in runs if row["policy"] == "gmem-7.4"]
    share = sum(row["told_no"] for row in mine) / sum(row["requests"] for row in mine)
    assert abs(tried.told[0, names[1].index("vfio")] - share) < 1e-12


def test_the_bill_is_of_guest_time(swept):
    results = opened(swept / "store")
    paid = conversion.bill(conversion.cube(results, "policy"))
    mine = [row for row in rows(swept / "store") if row["policy"] == "gmem-7.4"]
    spent = sum(row["fault_ns"] for row in mine) / sum(row["sim_ns"] for row in mine)
    assert abs(paid.faults[0] - 1000 * spent) < 1e-9 and paid.total[0] == paid.memory[0] + paid.requests[0]


def test_the_page_and_the_table_say_who_hangs(swept):
    page = write_report(swept / "store")
    text, first = page.read_text(), page.read_bytes()
    assert write_report(swept / "store").read_bytes() == first and (swept / "store/plots/conversion.png").exists()
    for words in ("who refuses a conversion", "vmm-bound", "lost the content of", "behind a drain", "machine_call"):
        assert words in text, words
    assert "Under 3 of 3 policies a request or a fault hung" in text
    from rich.console import Console

    console = Console(width=120, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(terminal_table(swept / "store"))
    assert "gmem-no-drain" in console.export_text()


def test_one_run_of_a_figure_is_the_command_run(swept):
    results = opened(swept / "store")
    row = next(i for i in range(64) if results.cell(i)["holder"] == "vfio")
    words = single(results, row).split()[1:]
    assert "--set" in words and "holder=vfio" in words
    outcome = CliRunner().invoke(cli, [*words, "--json"])
    made = json.loads(outcome.output)
    stored = next(one for one in rows(swept / "store") if one["key"] == results._read("key").to_pylist()[row])
    assert (made["events"], made["refusals"]) == (stored["events"], stored["refusals"])
