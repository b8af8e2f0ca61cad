"""The survivors of a search on recordings: those that no other survivor beats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ultrafolio import shipped
from ultrafolio.errors import InputError
from ultrafolio.search.answer import Found
from ultrafolio.search.rows import rows
from ultrafolio.search.space import policy_name
from ultrafolio.search.words import choices_of
from ultrafolio.sweep.key import canonical, digest
from ultrafolio.sweep.plan import Axis, Plan
from ultrafolio.sweep.planfile import load

from .calls import sweep
from .searching import Made

MEASURES = ("touches_per_ms", "uv_ns_per_touch", "wait_ns_per_touch", "tracking_bytes")
"""What is compared: throughput, for which more is better; time in calls of the ultravisor, time that a touch waits, and
memory of the tracking, for which less is."""
HUNG = ("hang_permanent", "hang_livelock", "hang_fatal")
SUMMED = ("touches", "sim_ns", "uv_ns", "stall_ns", "open_stall_ns", "tracking_bytes", "violations", *HUNG)


def plan_of(file: Path, names: Sequence[str]) -> Plan:
    """The plan in a file, or the shipped one of this name, with these policies in place of its own. InputError where
    cells are left out by their policy."""
    plan = load(shipped.found(file, "sweeps"))
    axes = [axis for axis in plan.axes if axis.name != "policy"]
    at = next((n for n, axis in enumerate(plan.axes) if axis.name == "policy"), None)
    if at is not None and any(at in skip for skip in plan.skips):
        raise InputError(f"{file}: [[skip]] names policies", value=str(file), allowed="a plan that drops none of them",
                         cause="a sweep of survivors has other policies", then="ultrafolio sweep --help")  # fmt: skip
    made = [*plan.axes[: at or 0], Axis("policy", list(names)), *plan.axes[(0 if at is None else at + 1) :]]
    skips = plan.skips if at is not None else tuple({n + 1: v for n, v in skip.items()} for skip in plan.skips)
    text = f"# policy: {len(names)} policies that a search found, in place of those below\n{plan.text}"
    assert len(made) == len(axes) + 1
    return replace(plan, axes=tuple(made), skips=skips, text=text, digest=digest(canonical([plan.digest, list(names)])))


def swept(found: Found, file: Path, out: Path, made_by: Made) -> dict[str, Any]:
    """Sweep the survivors, and keep the results in the folder `out`. made_by: what computes the cells.

    Returns what the answer has of it: the cells, the survivors that hung or broke a property in one, and those of the
    others that no other one beats, with their measures.
    """
    numbers = np.flatnonzero(found.surviving).tolist()
    names = [policy_name(found.space.policy(found.values(n))) for n in numbers]
    table = sweep(plan_of(file, names), out, executor=made_by(out)).table()
    failed = [name for name in table.column("status").unique().to_pylist() if name != "ok"]
    if failed:
        raise InputError(f"{file}: cells of the sweep failed", value=", ".join(failed), allowed="cells that run",
                         then=f"ultrafolio report {out}")  # fmt: skip
    sums = table.group_by("policy").aggregate([(name, "sum") for name in SUMMED]).to_pylist()
    by_name = {row["policy"]: row for row in sums}
    measured = {n: _measures(by_name[name]) for n, name in zip(numbers, names, strict=True)}
    bad = [n for n, name in zip(numbers, names, strict=True)
           if any(by_name[name][f"{one}_sum"] for one in (*HUNG, "violations"))]  # fmt: skip
    good = {n: values for n, values in measured.items() if n not in bad}
    best = sorted({values for values in good.values() if not any(_beats(other, values) for other in good.values())})
    return {
        "plan": str(file),
        "cells": table.num_rows,
        "failed_in_runs": [names[numbers.index(n)] for n in bad],
        "front": [_group(found, values, [n for n in good if good[n] == values]) for values in best],
    }


def _measures(sums: dict[str, Any]) -> tuple[float, ...]:
    """The measures of a policy; each as one for which less is better."""
    touches = max(sums["touches_sum"], 1)
    waited = sums["stall_ns_sum"] + sums["open_stall_ns_sum"]
    return (
        -round(1e6 * sums["touches_sum"] / max(sums["sim_ns_sum"], 1), 3),
        round(sums["uv_ns_sum"] / touches, 3),
        round(waited / touches, 3),
        float(sums["tracking_bytes_sum"]),
    )


def _beats(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    """Whether measures are nowhere worse than others, and somewhere better."""
    return one != other and all(mine <= its for mine, its in zip(one, other, strict=True))


def _group(found: Found, values: tuple[float, ...], some: Sequence[int]) -> dict[str, Any]:
    chosen = np.zeros(found.searched, bool)
    chosen[list(some)] = True
    covered = rows(found.space, found.table_of(chosen), found.within)
    return {
        "policies": len(some),
        "measures": dict(zip(MEASURES, (-values[0], *values[1:]), strict=True)),
        "rows": [{"policies": n, "choices": choices_of(found, box)} for box, n in covered],
    }
