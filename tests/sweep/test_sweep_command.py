"""The command ``sweep`` for a user: exit codes, messages, status, why, rerun, progress."""

from __future__ import annotations

import json
import os
import pty
import sys
import types
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from fake_cells import FAKE, PLAN, FakeCells, make_plan, start
from patience import NEVER
from ultrafolio.commands.sweep import sweep
from ultrafolio.errors import InputError
from ultrafolio.sweep import cells as cells_of_sweeps
from ultrafolio.sweep import progress
from ultrafolio.sweep.progress import Bar, Count, Lines, Silent
from ultrafolio.sweep.work import NOTHING

CLEAN = PLAN.replace("fail = 3", "fail = 99")


@pytest.fixture(autouse=True)
def cells(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeCells:
    """Fake cells behind the command, in a folder of its own, and no report."""
    fake = FakeCells()
    monkeypatch.setattr(cells_of_sweeps, "simulator", lambda: fake)
    monkeypatch.setitem(sys.modules, "ultrafolio.report", types.ModuleType("ultrafolio.report"))
    monkeypatch.chdir(tmp_path)
    return fake


def invoke(*arguments: object) -> Result:
    """The command's result; input errors propagate, as they do to the package's command line."""
    result = CliRunner().invoke(sweep, [str(argument) for argument in arguments])
    if isinstance(result.exception, InputError):
        raise result.exception
    return result


def keys(store: str = "out/plan") -> dict[tuple[str, int, int], str]:
    rows = pq.read_table(f"{store}/results.parquet").to_pylist()
    return {(row["policy"], row["order"], row["seed"]): row["key"] for row in rows}


def test_a_sweep_says_what_it_did_and_where(tmp_path: Path) -> None:
    result = invoke(make_plan(tmp_path, CLEAN).name, "--workers", 2)
    assert result.exit_code == 0
    assert "a small plan: 25 of 25 cells (25 computed, 0 stored before), 0 failed" in result.stdout
    assert "results  out/plan/results.parquet" in result.stdout
    assert invoke("run", "plan.toml").exit_code == 0
    assert "0 computed, 25 stored before" in invoke("--workers", 0, "plan.toml").stdout


def test_failed_cells_are_exit_code_1_and_can_be_run_again(tmp_path: Path, cells: FakeCells) -> None:
    make_plan(tmp_path)
    result = invoke("plan.toml", "--workers", 1)
    assert result.exit_code == 3 and "5 failed" in result.stdout
    assert "ultrafolio sweep plan.toml --rerun failed" in result.stdout
    summary = json.loads(invoke("plan.toml", "--json").stdout)
    assert (summary["computed"], summary["stored"], summary["failed"]) == (0, 25, 5), "failures are kept"
    summary = json.loads(invoke("plan.toml", "--rerun", "failed", "--json").stdout)
    assert (summary["computed"], summary["stored"], summary["failed"]) == (5, 20, 5)
    cells.run = lambda config, base: {"stalls": 1, "verdict": "v", "histogram": []}  # type: ignore[method-assign]
    summary = json.loads(invoke("plan.toml", "--rerun", "failed", "--workers", 0, "--json").stdout)
    assert (summary["computed"], summary["stored"], summary["failed"]) == (5, 20, 0)
    assert pq.read_table("out/plan/results.parquet")["status"].to_pylist() == ["ok"] * 25
    summary = json.loads(invoke("plan.toml", "--rerun", "all", "--json").stdout)
    assert (summary["computed"], summary["stored"]) == (25, 0)


def test_json_is_one_object_and_quiet_says_nothing(tmp_path: Path) -> None:
    make_plan(tmp_path, CLEAN)
    result = invoke("plan.toml", "-o", "s", "--json")
    summary = json.loads(result.stdout)
    assert summary["results"] == "s/results.parquet" and summary["report"] is None
    assert not summary["interrupted"] and summary["cells"] == 25 and not result.stderr
    assert invoke("plan.toml", "--quiet").output == ""


def test_a_limit_computes_the_first_cells_and_writes_no_results(tmp_path: Path) -> None:
    make_plan(tmp_path, CLEAN)
    result = invoke("plan.toml", "--limit", 7)
    assert result.exit_code == 0 and "7 of 7 cells" in result.stdout
    assert "To compute all: ultrafolio sweep plan.toml" in result.stdout
    assert not Path("out/plan/results.parquet").exists()
    assert "18 computed, 7 stored before" in invoke("plan.toml", "--limit", 1000).stdout
    assert Path("out/plan/results.parquet").exists()


def test_bad_input(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        invoke("absent.toml")
    with pytest.raises(InputError, match="did you mean 'status'"):
        invoke("statsu", "out/plan")
    with pytest.raises(InputError, match="not a store"):
        invoke("status", "out/plan")
    assert invoke("absent.toml", "--rerun", "some").exit_code == 2
    assert invoke("absent.toml", "--workers", "-1").exit_code == 2
    process = start(make_plan(tmp_path, "[grid]\nx = 1"))
    out, err = process.communicate(timeout=NEVER)
    assert process.returncode == 2 and not out and "[grid] x" in err and "Traceback" not in err


@pytest.mark.parametrize("where", ["warm", "engine_digest"])
def test_an_interrupt_outside_the_work_is_one_too(
    tmp_path: Path, cells: FakeCells, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    make_plan(tmp_path)
    monkeypatch.setattr(cells, where, interrupt)
    result = invoke("plan.toml")
    assert result.exit_code == 130 and "To resume: ultrafolio sweep plan.toml" in result.stdout + result.stderr


def test_help_names_all_three_forms() -> None:
    text = invoke("--help").stdout
    assert "PLAN.toml [OPTIONS]" in text and "status STORE" in text and "why STORE KEY" in text
    assert "--rerun" in invoke("run", "--help").stdout


def test_status(tmp_path: Path, cells: FakeCells) -> None:
    make_plan(tmp_path)
    invoke("plan.toml", "--limit", 12)
    text = invoke("status", "out/plan").stdout
    assert "25 cells: 10 ok, 2 failed, 13 to run" in text and "another engine" not in text
    cells.engine = "engine-2"
    found = json.loads(invoke("status", "out/plan", "--json").stdout)
    assert (found["ok"], found["failed"], found["to_run"], found["outdated"]) == (0, 0, 25, 12)


def why(key: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(invoke("why", "out/plan", key, "--json").stdout)
    return found


def test_why_a_cell_would_run_again(tmp_path: Path, cells: FakeCells) -> None:
    path = make_plan(tmp_path)
    invoke("plan.toml")
    all_keys = keys()
    good, bad = all_keys["per-page", 1, 2], all_keys["per-page", 1, 3]
    assert why(good[:12].upper()) == {
        "key": good,
        "key_now": good,
        "status": "ok",
        "error": None,
        "reasons": [],
        "axes": {"fail": 3, "policy": "per-page", "order": 1, "seed": 2},
    }
    assert "its result is stored: it would not run" in invoke("why", "out/plan", good).stdout
    assert why(bad)["status"] == "failed" and "--rerun failed" in why(bad)["reasons"][0]
    assert "ValueError: the guest stopped" in invoke("why", "out/plan", bad).stdout

    cells.engine = "engine-2"
    found = why(good)
    assert found["reasons"] == ["engine digest changed: engine-1 -> engine-2"] and found["key_now"] != good
    assert why(found["key_now"])["reasons"] == found["reasons"], "the new key leads to the old result"

    cells.engine = "engine-1"
    (tmp_path / "recording.txt").write_text("other input")
    assert why(good)["reasons"] == ['configuration changed: recording: "" -> "other input"']
    assert json.loads(invoke("plan.toml", "--json").stdout)["computed"] == 25
    assert why(good)["reasons"] == [], "its successor is stored"
    (tmp_path / "recording.txt").unlink()
    assert json.loads(invoke("plan.toml", "--json").stdout)["computed"] == 0, "old results are kept"
    assert keys() == all_keys
    path.unlink()
    assert why(good)["status"] == "ok", "the store keeps the plan's text"


def test_why_a_cell_never_ran_and_keys_that_name_no_cell(tmp_path: Path) -> None:
    make_plan(tmp_path)
    invoke("plan.toml", "-o", "elsewhere")
    invoke("plan.toml", "--limit", 1)
    found = why(keys("elsewhere")["whole-folio", 2, 5])
    assert found["status"] == "not stored" and found["reasons"] == ["it never ran"]
    with pytest.raises(InputError, match="no cell has this key"):
        why("xyz")
    with pytest.raises(InputError, match="25 keys begin so"):
        why("")


def test_the_report_is_written_when_it_can_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_plan(tmp_path, CLEAN)
    with pytest.raises(InputError, match="--report"):
        invoke("plan.toml", "--report")
    assert not Path("out").exists(), "known before anything runs"
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    report = types.ModuleType("ultrafolio.report")
    report.write_report = lambda store: store / "report.html"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ultrafolio.report", report)
    assert "report   out/plan/report.html" in invoke("plan.toml").stdout
    assert "report " not in invoke("plan.toml", "--no-report").stdout
    assert not opened
    invoke("plan.toml", "--open")
    assert opened == [(tmp_path / "out/plan/report.html").as_uri()]


def test_progress_off_a_terminal_is_plain_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    assert isinstance(progress.display(quiet=False), Lines)
    assert type(progress.display(quiet=True)) is Silent
    with progress.display(quiet=False) as display:
        display.show(Count(100))
        display.show(Count(100, computed=40, failed=2))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("0/100 cells, 0 failed") and lines[1].startswith("40/100 cells, 2 failed")
    assert all(line.isprintable() for line in lines)


def test_lines_come_every_few_seconds_at_most(capsys: pytest.CaptureFixture[str]) -> None:
    with Lines() as display:
        for _ in range(1000):
            display.show(Count(100, computed=1))
    assert capsys.readouterr().err == ""


def read_until_closed(leader: int) -> str:
    """What there is on a terminal; "" once its other side is closed and all is read."""
    try:
        return os.read(leader, 100_000).decode()
    except OSError:  # EIO
        return ""


def test_a_terminal_gets_a_bar(tmp_path: Path) -> None:
    leader, follower = pty.openpty()
    try:
        pid = os.fork()
        if pid == 0:  # a process whose stderr is a terminal
            os.dup2(follower, 2)
            sys.stderr = os.fdopen(2, "w", closefd=False)
            os.environ |= {"TERM": "xterm", "COLUMNS": "120"}
            with progress.display(quiet=False) as display:
                shown = Count(100, computed=40, failed=2)
                shown.add(NOTHING)
                display.show(shown)
                shown.stopping = True
                display.show(shown)
            os._exit(0 if isinstance(display, Bar) else 1)
        _, status = os.waitpid(pid, 0)
        os.close(follower)
        text = "".join(iter(lambda: read_until_closed(leader), ""))
    finally:
        os.close(leader)
    assert status == 0 and "40/100" in text and "2 failed" in text and "stopping" in text and "\x1b[" in text


def test_the_fake_stands_behind_the_command() -> None:
    assert FAKE.engine_digest() == "engine-1"
