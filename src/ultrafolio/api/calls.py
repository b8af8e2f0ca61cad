"""The calls: check, run, sweep, explore, policies, scenarios. Each takes names or objects; misuse raises InputError."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ultrafolio import shipped
from ultrafolio.check.search.graph import Watch, unwatched
from ultrafolio.check.verdicts.verdict import MAX_MIB, MAX_STATES, Extent, Result
from ultrafolio.check.verdicts.verdict import check as check_story
from ultrafolio.errors import InputError, one_of
from ultrafolio.model import policies as model_policies
from ultrafolio.model import scenario as scenarios_of
from ultrafolio.names.find import simulated
from ultrafolio.sim import config, once

from .explorer import Explorer
from .named import Policy, Scenario, no_such_type
from .results import Policies, Run, Sweep

if TYPE_CHECKING:
    from ultrafolio.sweep.local.processes import Executor
    from ultrafolio.sweep.plan import Plan
    from ultrafolio.sweep.progress import Display
    from ultrafolio.sweep.run import Rerun

AXES = ("order", "workload", "placement", "costs", "seed", "duration_us")


def scenarios() -> list[str]:
    """The names of the shipped scenarios.

    >>> "03-virtio" in uf.scenarios()
    True
    """
    return [file.stem for file in shipped.shipped("scenarios")]


def policies(*names: str) -> Policies:
    """The policies of these names; without names, all presets and kernels. Raises InputError for an unknown name.

    >>> [policy.name for policy in uf.policies("per-page", "linux-7.0")]
    ['per-page', 'linux-7.0']
    """
    return Policies(Policy.find(name) for name in names or model_policies.names())


def check(
    scenario: str | Path | Scenario,
    *,
    policy: str | Policy,
    safety: bool = False,
    symmetry: bool = False,
    max_states: int = MAX_STATES,
    memory_mib: int = MAX_MIB,
    threads: int = 1,
    machine: str = "",
    watch: Watch | None = None,
) -> Result:
    """Check every interleaving of a scenario under a policy, as `ultrafolio check`.

    safety      check only the always-properties
    symmetry    as safety, but visit one canonical state for all permutations of interchangeable pages and guests
    max_states, memory_mib  limits at which the exploration stops with the verdict unknown
    machine     another machine of its design than the scenario names
    watch       a context manager over the exploration, given its counts as they grow
    InputError  for an unknown name, or a limit out of range

    >>> result = uf.check("03-virtio", policy="whole-folio")
    >>> result.verdict, result.worst.kind
    ('violated', 'permanent')
    """
    story = _scenario(scenario)
    chosen = _policy(policy, story)
    for name, value, most in (
        ("max_states", max_states, 2**31 - 2),
        ("memory_mib", memory_mib, 2**20),
        ("threads", threads, 64),
    ):
        if not isinstance(value, int) or not 1 <= value <= most:
            raise InputError(f"check: {name}", value=value, allowed=f"1 to {most}")
    on = scenarios_of.on_machine(story.story, machine, story.name) if machine else story.story
    extent = Extent(max_states, memory_mib, safety, symmetry, threads, machine)
    result = check_story(on, story.name, chosen.choices, chosen.name, extent, watch or unwatched)
    return result if story.source and chosen.source else replace(result, command="")


def run(
    source: str | Path | Scenario | None = None, *, policy: str | Policy = "", check: bool = True, **given: Any
) -> Run:
    """Run one simulation, as `ultrafolio run`.

    source  a scenario (a name, a path, an object), a plan with a workload, or None for the default workload
    policy  "": the first preset of the design
    check   whether the properties are checked after every step
    given   order, workload, placement, costs, seed, duration_us, and workload fields such as rings

    >>> uf.run("03-virtio", policy="whole-folio").hung
    True
    """
    for name in given:
        if name not in AXES and name not in config.WORKLOAD:
            raise one_of("run: unknown axis or workload field", name, [*AXES, *config.WORKLOAD])
    wanted = {**given, "check": check}
    story, where, document = _source(source)
    design = story.story.design if story else "s390"
    chosen = _policy(policy or model_policies.presets_of(design)[0], story, document.get("policy"))
    if story:
        made = once.of_scenario(story.story, where, chosen.choices, wanted)
    else:
        tables = dict(document.get("policy") or {})
        if not chosen.source:
            tables = {chosen.name: {"base": "split", **chosen.as_dict()}}
        wanted |= {"policy": chosen.name, "tables": {"policy": tables}}
        made = once.of_plan(document, where, wanted, Path(where).parent)
    measures, hangs = made.simulate()
    return Run(chosen.name, measures, hangs)


def sweep(
    plan: str | Path | Plan,
    store: str | Path | None = None,
    *,
    workers: int | None = None,
    limit: int | None = None,
    rerun: Rerun | None = None,
    executor: Executor | None = None,
    display: Display | None = None,
) -> Sweep:
    """Run the cells of a plan that its store lacks, as `ultrafolio sweep`. The store's folder is out/PLAN unless given.

    workers   number of processes; None is one for each core, 0 computes in this process
    limit     compute only the plan's first cells, and write no results.parquet
    rerun     "failed" or "all": compute stored cells that failed, or all cells, again
    executor  what computes the cells, instead of `workers` processes of this machine
    display   what shows the progress; none unless given
    """
    from ultrafolio.sweep import cells
    from ultrafolio.sweep.local.processes import executor_of
    from ultrafolio.sweep.plan import Plan
    from ultrafolio.sweep.planfile import load
    from ultrafolio.sweep.progress import Silent
    from ultrafolio.sweep.run import sweep as run_sweep

    if not isinstance(plan, (str, Path, Plan)):
        raise no_such_type("plan", plan, "a path, or the name of a shipped plan such as seed")
    if limit is not None and (not isinstance(limit, int) or limit < 1):
        raise InputError("sweep: limit", value=limit, allowed="1 or more, or None for all cells")
    if rerun not in (None, "failed", "all"):
        raise InputError("sweep: rerun", value=rerun, allowed="failed, all, or None")
    loaded = plan if isinstance(plan, Plan) else load(shipped.found(Path(plan), "sweeps"))
    if loaded.asks != cells.RUNS:
        raise InputError("sweep: the store of a search", value=str(loaded.path), allowed="a plan of simulations",
                         then="repeat the search: it resumes")  # fmt: skip
    folder = Path(store) if store else Path("out") / Path(loaded.path).stem
    processes = executor or executor_of(workers)
    return Sweep(
        run_sweep(loaded, folder, cells.of(loaded.design), processes, display or Silent(), rerun=rerun, limit=limit)
    )


def explore(scenario: str | Path | Scenario, *, policy: str | Policy, path: str = "") -> Explorer:
    """A walk through the state graph, at the initial state or at an index path, as `ultrafolio explore`.

    >>> uf.explore("03-virtio", policy="whole-folio").goto("counterexample").path != ""
    True
    """
    story = _scenario(scenario)
    return Explorer.at(story, _policy(policy, story), path)


def _scenario(given: str | Path | Scenario) -> Scenario:
    """Returns the scenario; one of this name or path if a text is given."""
    return given if isinstance(given, Scenario) else Scenario.find(given)


def _policy(given: str | Policy, story: Scenario | None, tables: object = None) -> Policy:
    """Returns the policy; the one of this name, among `tables` or those of the story, if a text is given."""
    if isinstance(given, Policy):
        return given
    if isinstance(given, str) and isinstance(tables, dict):
        return Policy(given, given, model_policies.find(given, tables))
    return Policy.find(given, story)


def _source(given: str | Path | Scenario | None) -> tuple[Scenario | None, str, dict[str, Any]]:
    """(scenario or None, name for errors, plan's document or {})."""
    if given is None or isinstance(given, Scenario):
        return given, given.name if given else "", {}
    if not isinstance(given, (str, Path)):
        raise no_such_type("run", given, "a scenario, a plan, or None")
    story, path, document = simulated(Path(given))
    return Scenario(str(given), str(given), story) if story else None, str(path), document
