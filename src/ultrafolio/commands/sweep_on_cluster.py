"""`ultrafolio sweep PLAN --engine cluster`: run a small plan's cells on the live services, and print differences."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ultrafolio.errors import InputError, install
from ultrafolio.export.observation import NO_FACTS, hash_of_cell, observation_line
from ultrafolio.export.observed_run import of_run
from ultrafolio.nouns import plural
from ultrafolio.sim.build import build
from ultrafolio.sim.config import AXES
from ultrafolio.sim.once import Once
from ultrafolio.sweep import cells
from ultrafolio.sweep.cells import Scalar
from ultrafolio.sweep.plan import Plan
from ultrafolio.sweep.run import first_cells
from ultrafolio.sweep.work import Work

if TYPE_CHECKING:
    from ultrafolio.rpc.follow import Followed

MOST_CELLS = 64


def run(plan: Plan, where: Path | None, *, limit: int | None, most: int, as_json: bool, brief: bool) -> int:
    """Replay the plan's cells on the cluster that the file `where` names. Returns 0 if none differs, else 1."""
    _, count = first_cells(plan, limit)
    if count > MOST_CELLS:
        raise InputError(
            "--engine cluster: too many cells",
            value=count,
            allowed=f"at most {MOST_CELLS}",
            cause="every step is a call there",
            then=f"repeat with --limit {MOST_CELLS}",
        )
    work, wrong = Work(plan, cells.simulator(), {}), 0
    for cell, done in _followed(work, where, count, most):
        name = ", ".join(f"{axis.name}={cell[axis.name]}" for axis in plan.axes if len(axis.values) > 1)
        wrong += bool(done.differs)
        if brief:
            click.echo(_line(work, cell, sure=done.whole and not done.differs))
        elif as_json:
            click.echo(json.dumps({"cell": cell, "steps": done.steps, "differs": done.differs}))
        else:
            click.echo(f"{name or plan.title}: {plural(done.steps, 'step')}, " + (done.differs or "no difference"))
    return 1 if wrong else 0


def _line(work: Work, cell: Mapping[str, Scalar], *, sure: bool) -> str:
    """The line that decides, of a cell: that of its simulation, if the cluster took every one of its steps; else
    Unknown."""
    _, settings, _ = work.key(cell)
    workload, policy = (str(cell.get(name, AXES[name].default)) for name in ("workload", "policy"))
    hashed = hash_of_cell(settings)
    if not sure:
        return observation_line(workload, policy, "Unknown", 1, 1, NO_FACTS, hashed, "cluster")
    made = Once(settings, *build(settings, work.plan.base))
    return of_run(made, made.simulate()[0], workload, policy, hashed, "cluster")


def _followed(work: Work, where: Path | None, count: int, most: int) -> Iterator[tuple[dict[str, Scalar], Followed]]:
    try:
        from ultrafolio.rpc.cluster import Cluster
        from ultrafolio.rpc.follow import follow
    except ImportError as error:
        raise InputError(
            "--engine cluster needs gRPC and redis",
            value=str(error),
            allowed="the extra `cluster`",
            then=install("cluster"),
        ) from None
    with Cluster.at(_where(where)) as cluster:
        for (_, cell), _ in zip(work.plan.cells(), range(count), strict=False):
            _, config, _ = work.key(cell)
            yield dict(cell), follow(cluster, config, work.plan.base, most=most)


def _where(file: Path | None) -> dict[str, object]:
    try:
        if file is None:
            raise InputError(
                "--engine cluster: where is it?",
                allowed="--cluster FILE",
                then="python -m services --json > where.json",
            )
        found: dict[str, object] = json.loads(file.read_text(encoding="utf-8"))
        return found
    except (OSError, ValueError) as error:
        raise InputError(
            f"--cluster {file}: cannot be read",
            value=str(error),
            allowed="the line of JSON that the cluster prints",
            then="python -m services --json > where.json",
        ) from None
