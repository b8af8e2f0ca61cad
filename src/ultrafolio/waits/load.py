"""Loads the functions of waits of a design with its rules."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from ultrafolio.engine import load
from ultrafolio.model import designs
from ultrafolio.model.design import Design
from ultrafolio.model.designs import GUEST_MEMFD, S390, PerDesign

from . import memfd, rules, tables

MODULES: dict[str, tuple[ModuleType, ...]] = {S390.name: (tables, rules), GUEST_MEMFD.name: (tables, memfd)}
"""Per design: the modules with the tables of waits, the last one with its functions."""


def add(space: dict[str, Any], decorate: Callable[[Any], Any], design: Design = S390) -> None:
    """Add the functions of waits of a design and their tables to a namespace that has its rules."""
    modules = MODULES[design.name]
    for module in modules if design is not S390 else (tables,):
        space.update(load.constants(module))
    load.add_functions(space, modules[-1], decorate)


@PerDesign
def interpreted(design: Design) -> Any:
    """Returns the rules and the functions of waits of a design as plain Python."""
    return with_rules(None, design)


def of(state: Any) -> Any:
    """Returns interpreted() of the state's design."""
    return interpreted(designs.of(state))


def with_rules(changed: Mapping[str, str] | None, design: Design = S390) -> Any:
    """Returns interpreted() with some source text of the rules replaced, as engine.load.mutant.

    batches_of, batch_has  the batches that hold what waiter `t` waits for: how many, and whether that of a CPU does
    holding                the obstacles that a thread is to those who wait for its pages and locks, as bits
    drains                 whether the waiter itself drains them in a call that an actor refuses no more
    """
    space = load.functions(lambda function: function, changed, design=design)
    add(space, lambda function: function, design)
    run = load.rules(space)
    if design is S390:
        run.batches_of = lambda s, t, page, whole: run.batches(s, page, whole)
        run.batch_has = lambda s, t, page, whole, cpu: run.batched(s, page, whole, cpu)
        run.drains = lambda s: False
        run.holding = lambda s, a: run.contributes(s, a, a, s.task[a].page, True)
    else:
        run.batches_of = lambda s, t, page, whole: run.in_batches(s, t)
        run.batch_has = lambda s, t, page, whole, cpu: run.in_batch_of(s, t, cpu)
    return run
