"""The choice between the plain and the compiled functions of the search.

Most systems are small: the plain functions try first, the compiled ones explore what is larger. The choice depends on
counts of states only, and the graph is the same.
"""

from __future__ import annotations

from typing import Any

from ultrafolio.check.search import graph as exploring
from ultrafolio.check.search.graph import Graph
from ultrafolio.engine import load as rules
from ultrafolio.model import designs
from ultrafolio.model.scenario import System

SMALL, LARGE = 1_000, 20_000
"""States up to which the plain functions explore a system: SMALL if the compiled ones are in the cache (loading takes
0.5 s), LARGE if they must be compiled (30 s)."""


def explore(system: System, *, max_states: int, **limits: Any) -> Graph:
    """graph.explore() by the plain functions up to SMALL or LARGE states, then from the start by the compiled ones."""
    design = designs.of(system.state)
    if rules.can_compile() and exploring.is_loaded(design):
        return exploring.explore(system, max_states=max_states, **limits)
    few = SMALL if rules.can_compile() and rules.is_kept("bfs.explore", design) else LARGE
    few = min(few, max_states) if rules.can_compile() else max_states
    graph = exploring.explore(system, max_states=few, functions=exploring.over_arrays(design), **limits)
    if graph.complete or few == max_states or graph.states <= few:
        return graph
    return exploring.explore(system, max_states=max_states, **limits)
