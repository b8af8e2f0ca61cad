"""The tables of several scenarios, by local processes, stored as they are made. The result does not depend on how many
processes there are, nor on what was stored before."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ultrafolio.check.search import graph as exploring
from ultrafolio.check.verdicts.verdict import MAX_STATES
from ultrafolio.model import designs, policies
from ultrafolio.model.scenario import Scenario
from ultrafolio.search import files, space, table
from ultrafolio.search.space import Array, Space
from ultrafolio.search.table import Table

COMPILED_FROM = 5
"""Scenarios from which on the checker is compiled before the first graph; plain Python makes small ones of fewer."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a search asks.

    stories     the scenarios with their names, all of one design
    within      the box of the policies that are searched
    out         folder of the stored tables, or None
    max_states  limit of one exploration
    """

    design: str
    stories: Sequence[tuple[str, Scenario]]
    within: int
    out: Path | None = None
    max_states: int = MAX_STATES

    @property
    def space(self) -> Space:
        return space.of(self.design)


def wanted(asked: Asked) -> Array:
    """Which policies are searched: those of the box that every scenario's machine can enforce, each counted once."""
    made = np.zeros(asked.space.shape, bool)
    made[asked.space.where(asked.within)] = True
    machines = {story.machine for _, story in asked.stories}
    for axis in asked.space.axes:
        for value in range(len(axis.values)):
            only = asked.space.full & ~axis.mask | axis.bit(value)
            if not all(policies.fits_machine(asked.space.policy(asked.space.first_in(only)), m) for m in machines):
                made[asked.space.where(only)] = False
    made &= asked.space.distinct
    return made


def path_of(asked: Asked, name: str) -> Path | None:
    """The file of a scenario's table."""
    return asked.out / f"{Path(name).stem}{files.SUFFIX}" if asked.out else None


def _one(asked: Asked, number: int) -> files.Answers:
    """Make, or complete, the table of a scenario, and store it."""
    name, story = asked.stories[number]
    path, key = path_of(asked, name), files.key_of(asked.space, story, asked.max_states)
    made = table.new(asked.space, files.read(path, key) if path else ())
    before = len(made.answers)
    if len(asked.stories) >= COMPILED_FROM:
        exploring.compiled(designs.DESIGNS[asked.design])
    table.fill(made, story, wanted(asked), asked.max_states)
    if path and len(made.answers) > before:
        files.write(path, key, name, made.answers)
    return made.answers


def tables(asked: Asked, workers: int = 1, told: Callable[[str, Table], None] = lambda name, made: None) -> list[Table]:
    """The table of each scenario, in their order. told: called with each as soon as it is there."""
    made: dict[int, Table] = {}

    def enter(number: int, answers: files.Answers) -> None:
        made[number] = table.new(asked.space, answers)
        told(asked.stories[number][0], made[number])

    if asked.out:
        asked.out.mkdir(parents=True, exist_ok=True)
    if workers == 1:
        for number in range(len(asked.stories)):
            enter(number, _one(asked, number))
    else:
        with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
            futures: dict[Future[files.Answers], int] = {
                pool.submit(_one, asked, number): number for number in range(len(asked.stories))
            }
            try:
                for future in as_completed(futures):
                    enter(futures[future], future.result())
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
    return [made[number] for number in range(len(asked.stories))]
