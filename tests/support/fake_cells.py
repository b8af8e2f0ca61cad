"""Cells without a simulator, for the tests of sweeps; as a program it is the command ``sweep`` with these cells.

A cell's numbers follow from its configuration. Axes like ``fail``, ``kill``, ``sleep_ms`` make it misbehave.
"""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from patience import NEVER
from ultrafolio.commands.sweep import sweep as command
from ultrafolio.errors import InputError, one_of
from ultrafolio.sweep import cells as cells_module
from ultrafolio.sweep.cells import Cells
from ultrafolio.sweep.local.processes import Executor, InProcess, Processes
from ultrafolio.sweep.planfile import load
from ultrafolio.sweep.progress import Silent
from ultrafolio.sweep.run import Summary, sweep

POLICIES = ("per-page", "whole-folio", "refuse-large")

PLAN = """
title = "a small plan"
[fixed]
fail = 3
[grid]
policy = ["per-page", "whole-folio"]
order = [0, 1, 2]
seed = "1-5"
[[skip]]
policy = "whole-folio"
order = [0]
"""


class FakeCells:
    """Deterministic numbers, and misbehaviour on request."""

    COLUMNS = {"stalls": "int", "verdict": "str", "histogram": "ints"}  # noqa: RUF012
    PLAIN = {"seed": ("seed",)}  # noqa: RUF012

    def __init__(self, engine: str = "engine-1") -> None:
        self.engine = os.environ.get("FAKE_ENGINE", engine)

    def resolve(self, cell: dict[str, Any], base: Path) -> dict[str, Any]:
        policy = cell["policy"]
        choices = (*POLICIES, *cell["tables"].get("policy", ()))
        if policy not in choices:
            raise one_of("policy", policy, choices)
        config = {name: value for name, value in cell.items() if name not in ("tables", "ignored")}
        config["policy"] = cell["tables"].get("policy", {}).get(policy, {"preset": policy})
        extra = base / "recording.txt"
        config["recording"] = extra.read_text() if extra.exists() else ""
        if "wrong" in config and config["seed"] == config["wrong"]:
            raise InputError(f"seed {config['seed']} is wrong", value=config["seed"], allowed="others")
        return config

    def run(self, config: dict[str, Any], base: Path) -> dict[str, Any]:
        time.sleep(config.get("sleep_ms", 0) / 1000)
        if "hang" in config and config["seed"] == config["hang"]:
            time.sleep(60)
        if config.get("seed") == 2 and "megabytes" in config:
            bytearray(config["megabytes"] << 20)
        if config.get("seed") == config.get("fail"):
            raise ValueError("the guest\nstopped")
        if config.get("seed") == config.get("kill"):
            os.kill(os.getpid(), signal.SIGKILL)
        if config.get("seed") == config.get("kill_once"):
            with suppress(FileNotFoundError):
                (base / "once").unlink()
                os.kill(os.getpid(), signal.SIGKILL)
        number = hashlib.sha256(repr(sorted(config.items())).encode()).digest()
        stalls, verdict = number[0] * number[1], f"v{number[2] % 3}"
        return {"stalls": stalls, "verdict": verdict, "histogram": list(number[:4])}

    def warm(self) -> None:
        pass

    def engine_digest(self) -> str:
        return self.engine


FAKE: Cells = FakeCells()


def make_plan(folder: Path, text: str = PLAN, name: str = "plan.toml") -> Path:
    """A plan file in ``folder``."""
    path = folder / name
    path.write_text(text)
    return path


def run(path: Path, store: Path, executor: Executor | None = None, cells: Cells = FAKE, **options: Any) -> Summary:
    """One sweep of a plan file over fake cells."""
    return sweep(load(path), store, cells, executor or InProcess(), Silent(), **options)


def start(*arguments: str | Path) -> subprocess.Popen[str]:
    """``ultrafolio sweep`` with these arguments over fake cells, as a process in a group of its own."""
    command = [sys.executable, __file__, *map(str, arguments)]
    path = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(
        command, env=path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def wait_for(condition: Any, seconds: float = NEVER) -> None:
    """Return once ``condition()`` is true; fail the test when that takes too long."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


def children(pid: int) -> list[int]:
    """The processes that ``pid`` has started."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def test_the_fake_is_what_sweeps_ask_for(tmp_path: Path) -> None:
    path = make_plan(tmp_path)
    assert run(path, tmp_path / "a").computed == run(path, tmp_path / "b", Processes(2)).computed == 25


def main() -> None:
    """The command line, as the package's own does it: bad input is printed and exits with 2."""
    cells_module.simulator = lambda: FAKE
    try:
        command(prog_name="ultrafolio sweep")
    except InputError as error:
        print(error, file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
