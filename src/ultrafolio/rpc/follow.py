"""Replays a cell of the simulator on the live cluster, and reports the first difference.

The simulator decides the order of steps; a cluster has no simulated time. So the plain interpreter simulates the cell
and records every step; the services take the same steps in the same order. Outcomes and final state must be equal.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ultrafolio.engine.interp import to_lists, write_back
from ultrafolio.engine.load import interpreted as rules
from ultrafolio.errors import InputError
from ultrafolio.model.layout import OUTCOMES, OWNERS, WAITS, State, copy
from ultrafolio.model.rule import RULES
from ultrafolio.rpc.cluster import Cluster
from ultrafolio.sim import build, load
from ultrafolio.state.sections import LARGEST_GROUP

_CHUNK = 1 << 40


class Step(NamedTuple):
    """One step of the simulator: thread `actor` ran its present rule, with its choice."""

    actor: int
    op: int
    page: int
    outcome: int


class Followed(NamedTuple):
    """steps: number of equal steps;  differs: the first difference in words, or ""."""

    steps: int
    differs: str


def follow(cluster: Cluster, settings: Mapping[str, Any], base: Path, *, most: int) -> Followed:
    """Replay a configuration of sim.config on the cluster, up to `most` steps. InputError: too large for a group."""
    start, steps = recorded(settings, base)
    if len(start.mm) > LARGEST_GROUP:
        raise InputError(
            "a cell with too many pages for the cluster",
            value=len(start.mm),
            allowed=f"at most {LARGEST_GROUP}",
            cause="a folio group is one unit there",
            then="give the workload fewer pages",
        )
    group = f"cell-{secrets.token_hex(4)}"
    cluster.lay_out_state(group, start, [[] for _ in start.who], "a cell")
    lists, run = to_lists(start), rules()
    for number, step in enumerate(steps[:most]):
        pc = lists.task[step.actor].pc
        done = cluster.step(group, pc, step.actor, step.op, step.page)
        if done.outcome != step.outcome:
            what = f"step {number}, {RULES[pc].name} of actor {step.actor}, page {step.page}"
            says = f"the simulator says {_word(step.outcome)}, the cluster {_word(done.outcome)}"
            return Followed(number, f"{what}: {says}")
        run.step(lists, *step[:3])
    return Followed(len(steps[:most]), _difference(write_back(lists, copy(start)), cluster.state(group)))


def recorded(settings: Mapping[str, Any], base: Path) -> tuple[State, list[Step]]:
    """Returns the initial state of a configuration and every step of the simulator, run by the plain interpreter."""
    state, around = build.build(dict(settings), base)
    start, steps = copy(state), []
    simulate: Any = load.interpreted()
    space = simulate.__globals__
    step = space["step"]

    def noting(s: State, t: int, op: int, page: int) -> int:
        outcome = int(step(s, t, op, page))
        if outcome > 0:
            steps.append(Step(t, op, page, outcome))
        return outcome

    space["step"] = noting
    simulate(to_lists(state), to_lists(around), _CHUNK)
    return start, steps


def _difference(simulated: State, seen: State) -> str:
    """Returns the first difference of two states, or ""."""
    for name in OWNERS:
        left, right = getattr(simulated, name), getattr(seen, name)
        wrong = np.flatnonzero(left != right)
        if len(wrong):
            at = int(wrong[0])
            return f"in the end, section {name}, record {at}: the simulator has {left[at]}, the cluster {right[at]}"
    return ""


def _word(outcome: int) -> str:
    """Returns an outcome of a step, or what the step waits for."""
    return OUTCOMES[outcome] if outcome > 0 else f"waits for {WAITS[-outcome]}"
