"""Saved files are complete or absent, after a kill during a command and with a full disk."""

import os
import resource
import signal
import subprocess
import sys

import pytest

from test_validate import SCENARIOS, engine, walked_stream  # noqa: F401  (engine is a fixture)
from ultrafolio.cli import main
from ultrafolio.state import validate

COMMAND = [
    sys.executable,
    "-c",
    """
import os, signal, sys
from pathlib import Path
real, left = os.replace, int(sys.argv.pop(1))
def replace(*names):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*names)
os.replace = replace
Path.replace = lambda self, to: replace(self, to)
from ultrafolio.cli import main
main()
""",
]
"""The command line, killed just before its Nth file gets its name."""
SWEEP = ["sweep", "plan.toml", "-o", "s", "--workers", "0", "--no-report"]
PLAN = '[fixed]\nduration_us = 100\n[grid]\npolicy = ["split", "per-page"]\norder = "0-3"\n'


def killed(folder, at, *words):
    done = subprocess.run(
        [*COMMAND, str(at), *map(str, words)], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode in (-signal.SIGKILL, 0), done.stderr
    return done.returncode != 0


def ours(*words):
    with pytest.raises(SystemExit) as left:
        main([str(word) for word in words])
    return int(left.value.code or 0)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plan.toml").write_text(PLAN)
    return tmp_path


def test_a_sweep_that_is_killed_at_every_file_ends_with_the_same_bytes(here):
    assert ours("sweep", "plan.toml", "-o", "whole", "--workers", "0", "--no-report", "--quiet") == 0
    wanted, kills = (here / "whole" / "results.parquet").read_bytes(), 0
    for at in range(1, 20):
        store = here / f"killed{at}"
        if not killed(here, at, "sweep", "plan.toml", "-o", store, "--workers", "0", "--no-report", "--quiet"):
            break
        kills += 1
        assert not (store / "results.parquet").exists() or (store / "results.parquet").read_bytes() == wanted
        assert ours("sweep", "plan.toml", "-o", store, "--workers", "0", "--no-report", "--quiet") == 0
        assert (store / "results.parquet").read_bytes() == wanted
    assert kills >= 2


def test_a_report_that_is_killed_leaves_the_page_of_before(here):
    assert ours("sweep", "plan.toml", "-o", "s", "--workers", "0", "--quiet") == 0
    page = here / "s" / "report.html"
    before, kills = page.read_bytes(), 0
    for at in (1, 2, 3):
        kills += killed(here, at, "report", "s")
        assert page.read_bytes() == before
    assert kills == 3


@pytest.fixture
def stream(engine, here):  # noqa: F811
    events = walked_stream(engine, next(iter(SCENARIOS)), "per-page")
    (here / "run.stream").write_bytes(validate.saved([("g", events)]))
    return "run.stream"


SAVES = {
    "trace validate": ["trace", "validate", "{stream}", "--save", "{file}"],
    "check": ["check", "03-virtio", "--policy", "whole-folio", "--save", "{file}"],
    "run": ["run", "--duration-us", "50", "--trace", "{file}"],
    "calibrate": ["calibrate", "--seconds", "0.1", "--no-kernel", "-o", "{file}"],
}  # fmt: skip


@pytest.mark.parametrize("name", SAVES)
def test_a_file_that_is_saved_is_the_old_one_until_the_new_one_is_whole(name, here, stream):
    file = here / "saved"
    words = [word.format(stream=stream, file=file) for word in SAVES[name]]
    assert killed(here, 1, *words) and not file.exists()
    file.write_text("the old one")
    assert killed(here, 1, *words) and file.read_text() == "the old one"
    assert ours(*words) in (0, 1) and file.stat().st_size > 100


@pytest.mark.parametrize("name", ["check", "run"])
def test_a_file_of_the_user_beside_a_saved_one_stays(name, here):
    file, mine = here / "saved", [here / "saved.tmp", here / "saved.part"]
    for path in mine:
        path.write_text("mine")
    assert ours(*(word.format(file=file) for word in SAVES[name])) in (0, 1)
    assert file.exists() and [path.read_text() for path in mine] == ["mine", "mine"]
    assert {path.name for path in here.iterdir()} == {"plan.toml", "saved", "saved.tmp", "saved.part"}


@pytest.mark.parametrize("name", [*SAVES, "report", "sweep", "init"])
def test_a_disk_that_is_full_is_told_and_nothing_is_half_written(name, here, stream):
    """A process that may write no file longer than 512 bytes: EFBIG where a full disk says ENOSPC."""
    file, words = here / "saved", SAVES.get(name)
    if name == "report":
        assert ours("sweep", "plan.toml", "-o", "s", "--workers", "0", "--no-report", "--quiet") == 0
        words, file = ["report", "s"], here / "s" / "report.html"
    elif name == "sweep":
        words, file = SWEEP, here / "s" / "results.parquet"
    elif name == "init":
        words = ["init", "{file}"]
    words = [word.format(stream=stream, file=file) for word in words]

    def little():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (512, 512))

    code = "from ultrafolio.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-B", "-c", code, *words],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=little,
        env={**os.environ, "MPLCONFIGDIR": str(here)},
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr, (done.returncode, done.stderr)
    assert "written" in done.stderr and "next" in done.stderr
    assert not file.exists()
