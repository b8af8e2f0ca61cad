"""One simulation: of a scenario, of a plan's workload, or of the default workload."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ultrafolio.errors import InputError
from ultrafolio.model import scenario
from ultrafolio.model.designs import DESIGNS, GUEST_MEMFD
from ultrafolio.model.layout import State
from ultrafolio.model.policies import AnyPolicy
from ultrafolio.sim import build, cell, config, costs, memfd_build, memfd_config
from ultrafolio.sim.plan_parts import ASKED, STRUCTURE
from ultrafolio.sim.records import World

OF_A_PLAN = ("order", "workload", "placement")
"""Axes that a scenario refuses: it has its own memory and actors."""


@dataclass
class Once:
    """A simulation before its run: its configuration, state and world."""

    settings: dict[str, Any]
    state: State
    world: World

    def simulate(self) -> tuple[dict[str, Any], list[str]]:
        """Run to the end. Returns the measures, and the hangs in words."""
        hangs = cell.simulate_all(self.state, self.world)
        return cell.finish(self.settings, self.state, self.world, hangs), hangs


def of_plan(document: Mapping[str, Any], where: str, given: Mapping[str, Any], base: Path, *, trace: int = 0) -> Once:
    """The simulation that axes and workload fields describe, with a plan's [workload], [policy] and [costs] blocks.

    document  the plan, or {} for the default workload
    where     the plan's name in errors; "" for none
    base      the folder that recordings are relative to
    trace     the number of events that the trace buffer holds; 0 for none
    """
    axes = _with_workload(document, where, dict(given)) if where else dict(given)
    tables = {name: value for name, value in document.items() if name not in (*STRUCTURE, ASKED)}
    tables = {**tables, **axes.pop("tables", {})}
    if document.get("design") == GUEST_MEMFD.name:
        settings = memfd_config.resolve({**axes, "tables": tables}, base)
        return Once(settings, *memfd_build.build(settings, base, trace=trace))
    settings = config.resolve({**axes, "tables": tables}, base)
    return Once(settings, *build.build(settings, base, trace=trace))


def of_scenario(
    story: scenario.Scenario, where: str, policy: AnyPolicy, given: Mapping[str, Any], *, trace: int = 0
) -> Once:
    """The simulation of a scenario under a policy. `given`: costs, seed, duration_us, check; else InputError."""
    wrong = [name for name in given if name in OF_A_PLAN or name in config.WORKLOAD]
    if wrong:
        raise InputError(
            f"{where}: a scenario has its own memory and actors",
            value=wrong[0],
            allowed="--policy, --costs, --seed, --duration-us, --trace",
        )
    profile = costs.find(given.get("costs", "default"), {}, Path(), DESIGNS[story.design])
    duration = given.get("duration_us", config.AXES["duration_us"].default)
    made = build.from_system(
        scenario.system(story, policy),
        profile,
        seed=given.get("seed", 1),
        duration_us=duration,
        check=given.get("check", True),
        trace=trace,
    )
    return Once({"duration_us": duration, "policy": asdict(policy)}, *made)


def _with_workload(document: Mapping[str, Any], where: str, given: dict[str, Any]) -> dict[str, Any]:
    """`given`, with the plan's only workload if none is named. Raises InputError if the plan has none or several: the
    default workload would be a silent substitute."""
    workloads = document.get("workload")
    names = list(workloads) if isinstance(workloads, dict) else []
    if "workload" in given or (any(name in given for name in ("policy", "costs")) and not names):
        return given
    if len(names) == 1:
        return given | {"workload": names[0]}
    if not names:
        raise InputError(
            f"{where}: nothing in it to run",
            value=", ".join(document) or "an empty file",
            allowed="a scenario ([memory] and actors), or a plan with a [workload.NAME]",
            cause="a run without a workload of the file would be the default one",
            then="ultrafolio run, without the file, for the default workload",
        )
    raise InputError(
        f"{where}: which of its workloads?",
        value=f"{len(names)} workloads, none named",
        allowed="--workload " + ", ".join(names),
        then=f"ultrafolio run {where} --workload {names[0]}",
    )
