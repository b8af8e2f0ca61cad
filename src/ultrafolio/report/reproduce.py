"""The commands that make a report's figures, tables and single points again."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path

from ultrafolio import shipped
from ultrafolio.sim.config import AXES
from ultrafolio.sim.memfd_config import SETTABLE

from .store import Array, Results, Scalar


def near(path: Path | str) -> str:
    """A path for a command: relative if it is under the current folder."""
    absolute, here = os.path.abspath(path), os.getcwd()
    return os.path.relpath(absolute, here) if os.path.commonpath([absolute, here]) == here else absolute


def plan_of(results: Results) -> str:
    """The plan for a command: a shipped one by its name, which is the same on every machine, another by its path."""
    name = shipped.name_of(Path(results.plan), "sweeps")
    return near(name) if os.sep in name else name


def both(results: Results) -> str:
    """The commands that repeat the sweep, and its report."""
    plan, store = shlex.quote(plan_of(results)), shlex.quote(near(results.folder))
    return f"ultrafolio sweep {plan} -o {store}\nultrafolio report {store}"


def single(results: Results, row: int) -> str:
    """The command that runs one row's cell again, with the plan's own workloads, policies and costs."""
    words = ["ultrafolio", "run", plan_of(results)]
    for name, value in results.cell(row).items():
        words += option(name, value)
    return shlex.join(words)


def option(name: str, value: Scalar) -> list[str]:
    """One axis as an option of `run`: an axis of its own, or a workload field."""
    if name in SETTABLE:
        text = value if SETTABLE[name].kind in ("text", "choice") else json.dumps(value)
        return ["--set", f"{name}={text}"]
    dashed = name.replace("_", "-")
    if name in AXES and AXES[name].kind == "bool":
        return [f"--{dashed}" if value else f"--no-{dashed}"]
    return [f"--{dashed}", str(value)]


def pick(results: Results, weight: Array) -> int | None:
    """The row number of the good row with the largest weight; among equals that of the lowest key; None without one."""
    if not len(weight):
        return None
    return int(results.good.nonzero()[0][int(weight.argmax())])
