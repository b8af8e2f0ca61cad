"""Which functions explore: the plain ones first, since most systems are small; the compiled ones for what proves large.

The choice follows from counts of states alone, and the graph is the same whichever explored it.
"""

from __future__ import annotations

from typing import Any

from ultrafolio.check.search import graph as exploring
from ultrafolio.check.search.graph import Graph
from ultrafolio.engine import load as rules
from ultrafolio.model.scenario import System

SMALL, LARGE = 1_000, 20_000
"""States up to which a system is explored by the plain functions: where the compiled ones are kept and only loaded
(half a second), and where they must be compiled (half a minute)."""


def explore(system: System, *, max_states: int, **limits: Any) -> Graph:
    """explore.explore(), by the functions that answer soonest."""
    if rules.can_compile() and exploring.is_loaded():
        return exploring.explore(system, max_states=max_states, **limits)
    few = SMALL if rules.can_compile() and rules.is_kept("bfs.explore") else LARGE
    few = min(few, max_states) if rules.can_compile() else max_states
    graph = exploring.explore(system, max_states=few, functions=exploring.over_arrays(), **limits)
    if graph.complete or few == max_states or graph.states <= few:
        return graph
    return exploring.explore(system, max_states=max_states, **limits)
