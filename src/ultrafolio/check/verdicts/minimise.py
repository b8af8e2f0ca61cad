"""Shortest counterexamples with the fewest context switches: each switch is more work for the reader.

Exact over an explored graph (fewest_switches); by trial with the interpreter without one (minimise).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ultrafolio.check.search.graph import Graph
from ultrafolio.check.verdicts.replay import NotCertified, Step, replay
from ultrafolio.model.layout import State
from ultrafolio.model.scenario import System

Array = np.ndarray[Any, Any]
Judge = Callable[[list[Step], State], bool]
_INFINITE = np.int32(2**30)


def switches(path: Sequence[int]) -> int:
    """Returns the number of changes of the actor along a path (actor << 16 | choice)."""
    return sum(a >> 16 != b >> 16 for a, b in itertools.pairwise(path))


# ------------------------------------------------------------------------------------ over a graph, exactly
@dataclass(frozen=True, slots=True)
class _Layer:
    """The states of one depth that lie on a shortest path to the target.

    numbers            their numbers, ascending
    source, goal, by   the edges into the next layer, in edge order: positions in both layers, and the edge's by
    left               per state and actor: the fewest switches to the target if that actor made the last step
    """

    numbers: Array
    source: Array
    goal: Array
    by: Array
    left: Array


def fewest_switches(graph: Graph, target: int, then: int | None = None) -> list[int]:
    """Returns, of the shortest paths from state 0 to state `target`, one with the fewest context switches;
    deterministic.

    then  the actor of the step that follows the path, whose switch counts too; None if none follows

    Dynamic programming, backwards from the target, over (state, last actor). It needs the graph's edges up to the
    target only, so it also works on an incomplete graph.
    """
    costs = np.zeros((1, len(graph.system.choices)), np.int32)
    if then is not None:
        costs[0] = np.arange(costs.shape[1]) != then
    numbers, left, layers = np.array([target], np.int64), costs, []
    for first, end in reversed(_bounds(graph, target)):
        layers.append(_before(graph, first, end, numbers, left))
        numbers, left = layers[-1].numbers, layers[-1].left
    return _forwards(layers[::-1], costs)


def _bounds(graph: Graph, target: int) -> list[tuple[int, int]]:
    """Returns (first, end) of the states of every depth below the target's: they are contiguous in breadth-first
    order."""
    parent = graph.space.parent[1 : graph.states]
    bounds, first, end = [], 0, 1
    while end <= target:
        bounds.append((first, end))
        # parents ascend with their children, so the children of a depth are contiguous too
        first, end = end, 1 + int(np.searchsorted(parent, end, "left"))
    return bounds


def _before(graph: Graph, first: int, end: int, goals: Array, left: Array) -> _Layer:
    """Returns the layer among the states [first, end) that leads to the states `goals`, whose costs are `left`."""
    space = graph.space
    starts = space.first[first : end + 1]
    low, high = int(starts[0]), int(starts[-1])
    wanted = np.flatnonzero(np.isin(space.to[low:high], goals)) + low
    states = first + np.searchsorted(starts, wanted, "right") - 1
    numbers, source = np.unique(states, return_inverse=True)
    goal, by = np.searchsorted(goals, space.to[wanted]), space.via[wanted].astype(np.int64)
    own = np.full((len(numbers), left.shape[1]), _INFINITE, np.int32)
    np.minimum.at(own, (source, by >> 16), left[goal, by >> 16])
    return _Layer(numbers, source, goal, by, np.minimum(own, own.min(axis=1, keepdims=True) + 1))


def _forwards(layers: list[_Layer], costs: Array) -> list[int]:
    """Returns the path of the cheapest edges from state 0, of equal ones the first. costs: the `left` of the target."""
    path: list[int] = []
    at, last = 0, -1
    for layer, left in zip(layers, [*(layer.left for layer in layers), costs][1:], strict=True):
        edges = np.flatnonzero(layer.source == at)
        actors = layer.by[edges] >> 16
        best = int(edges[np.argmin(left[layer.goal[edges], actors] + ((actors != last) & (last >= 0)))])
        path.append(int(layer.by[best]))
        at, last = int(layer.goal[best]), path[-1] >> 16
    return path


# ---------------------------------------------------------------------------------- by trial, without a graph
def minimise(system: System, path: Sequence[int], still_bad: Judge) -> list[int]:
    """Returns a path that is still bad, without steps that can be left out, then with fewer context switches.

    still_bad  judges a replayed path: its steps, and the state after them as lists. It must hold for `path` itself.

    The result is not longer than `path`, and if equally long has no more switches. It is a local minimum: no single
    step can be left out, and moving one run of an actor's steps joins no two of its runs. fewest_switches() is exact.
    """

    def is_bad(candidate: list[int]) -> bool:
        try:
            return still_bad(*replay(system, candidate))
        except NotCertified:
            return False

    return _joined(_shortened(list(path), is_bad), is_bad)


def _shortened(path: list[int], is_bad: Callable[[list[int]], bool]) -> list[int]:
    """Remove runs of steps, of all actors or of one, halving their length until no single step can be removed."""
    size = len(path)
    while size:
        shorter = next((c for c in _without(path, size) if is_bad(c)), None)
        if shorter is None:
            size //= 2
        else:
            path, size = shorter, min(size, len(shorter))
    return path


def _without(path: list[int], size: int) -> Iterator[list[int]]:
    """Yields the path without each run of `size` consecutive steps, of all actors or of one."""
    for actor in [None, *sorted({by >> 16 for by in path})]:
        mine = [i for i, by in enumerate(path) if actor in (None, by >> 16)]
        for at in range(len(mine) - size + 1):
            gone = set(mine[at : at + size])
            yield [by for i, by in enumerate(path) if i not in gone]


def _joined(path: list[int], is_bad: Callable[[list[int]], bool]) -> list[int]:
    """Move a run of an actor's steps next to another of its runs, until no move saves a switch."""
    while True:
        fewer = (c for c in _moves(path) if switches(c) < switches(path) and is_bad(c))
        better = next(fewer, None)
        if better is None:
            return path
        path = better


def _moves(path: list[int]) -> Iterator[list[int]]:
    """Yields the path with one run of an actor moved to the end of its earlier run, or to the start of its later
    run."""
    runs = [list(group) for _, group in itertools.groupby(path, lambda by: by >> 16)]
    for i, run in enumerate(runs):
        for j, other in enumerate(runs):
            if i != j and run[0] >> 16 == other[0] >> 16:
                rest = [*runs[:i], *runs[i + 1 :]]
                at = j if i > j else j - 1
                rest[at] = [*other, *run] if j < i else [*run, *other]
                yield [by for group in rest for by in group]
