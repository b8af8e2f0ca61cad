"""Calmer stories: among the shortest counterexamples one with the fewest context switches, since each switch is one
more thing to hold in mind. Exact over an explored graph; by trial with the interpreter where there is none."""

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
_FAR = np.int32(2**30)


def switches(path: Sequence[int]) -> int:
    """How often the actor changes along a path (actor << 16 | choice)."""
    return sum(a >> 16 != b >> 16 for a, b in itertools.pairwise(path))


# ------------------------------------------------------------------------------------ over a graph, exactly
@dataclass(frozen=True, slots=True)
class _Layer:
    """The states of one depth that lie on a shortest path to the target: their numbers, ascending.

    source, goal, by   the edges into the next layer, in edge order: positions in both layers, and the edge's by
    left               per state and actor: the fewest switches still to come if that actor made the last step
    """

    numbers: Array
    source: Array
    goal: Array
    by: Array
    left: Array


def calmest_path(graph: Graph, target: int, then: int | None = None) -> list[int]:
    """A shortest way from state 0 to state `target` with the fewest context switches; the same one every time.

    then  the actor of the step that follows the path, whose switch then counts too; None where nothing follows.

    Exact: dynamic programming, backwards from the target, over (state, last actor). Needs the graph's edges up to the
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
    """(first, end) of the states of every depth before the target's: breadth-first order keeps a depth together."""
    parent = graph.space.parent[1 : graph.states]
    bounds, first, end = [], 0, 1
    while end <= target:
        bounds.append((first, end))
        # parents ascend with their children, so the children of a depth are a range as well
        first, end = end, 1 + int(np.searchsorted(parent, end, "left"))
    return bounds


def _before(graph: Graph, first: int, end: int, goals: Array, left: Array) -> _Layer:
    """The layer among the states [first, end) that leads to `goals`, a layer whose costs are `left`."""
    space = graph.space
    starts = space.first[first : end + 1]
    low, high = int(starts[0]), int(starts[-1])
    wanted = np.flatnonzero(np.isin(space.to[low:high], goals)) + low
    states = first + np.searchsorted(starts, wanted, "right") - 1
    numbers, source = np.unique(states, return_inverse=True)
    goal, by = np.searchsorted(goals, space.to[wanted]), space.via[wanted].astype(np.int64)
    own = np.full((len(numbers), left.shape[1]), _FAR, np.int32)
    np.minimum.at(own, (source, by >> 16), left[goal, by >> 16])
    return _Layer(numbers, source, goal, by, np.minimum(own, own.min(axis=1, keepdims=True) + 1))


def _forwards(layers: list[_Layer], costs: Array) -> list[int]:
    """Follow the cheapest edges from state 0, the first of several equal ones; `costs`: the target's own `left`."""
    path: list[int] = []
    at, last = 0, -1
    for layer, left in zip(layers, [*(layer.left for layer in layers), costs][1:], strict=True):
        edges = np.flatnonzero(layer.source == at)
        actors = layer.by[edges] >> 16
        best = int(edges[np.argmin(left[layer.goal[edges], actors] + ((actors != last) & (last >= 0)))])
        path.append(int(layer.by[best]))
        at, last = int(layer.goal[best]), path[-1] >> 16
    return path


# ---------------------------------------------------------------------------------- by trial, where no graph is
def minimise(system: System, path: Sequence[int], still_bad: Judge) -> list[int]:
    """A path that is still bad, with fewer steps where some can be left out, then with fewer context switches.

    still_bad  judges a replayed path: its steps, and the state after them as lists. It must hold for `path` itself.

    Never longer than `path`, and of two equally long ones never the one with more switches. A local minimum: no
    single step can be left out, and no two turns of an actor can be joined by moving one. For an exact answer explore
    the system and take `calmest_path`.
    """

    def is_bad(candidate: list[int]) -> bool:
        try:
            return still_bad(*replay(system, candidate))
        except NotCertified:
            return False

    return _joined(_shortened(list(path), is_bad), is_bad)


def _shortened(path: list[int], is_bad: Callable[[list[int]], bool]) -> list[int]:
    """Leave out ever smaller runs of steps, of everyone or of one actor, until no single step can be spared."""
    size = len(path)
    while size:
        shorter = next((c for c in _without(path, size) if is_bad(c)), None)
        if shorter is None:
            size //= 2
        else:
            path, size = shorter, min(size, len(shorter))
    return path


def _without(path: list[int], size: int) -> Iterator[list[int]]:
    """The path without `size` steps that follow each other, in the path or among one actor's steps."""
    for actor in [None, *sorted({by >> 16 for by in path})]:
        mine = [i for i, by in enumerate(path) if actor in (None, by >> 16)]
        for at in range(len(mine) - size + 1):
            gone = set(mine[at : at + size])
            yield [by for i, by in enumerate(path) if i not in gone]


def _joined(path: list[int], is_bad: Callable[[list[int]], bool]) -> list[int]:
    """Move turns next to another turn of the same actor, until no move saves a switch."""
    while True:
        calmer = (c for c in _moves(path) if switches(c) < switches(path) and is_bad(c))
        better = next(calmer, None)
        if better is None:
            return path
        path = better


def _moves(path: list[int]) -> Iterator[list[int]]:
    """Every way to move one turn of an actor to the end of its previous turn, or to the start of its next one."""
    turns = [list(group) for _, group in itertools.groupby(path, lambda by: by >> 16)]
    for i, turn in enumerate(turns):
        for j, other in enumerate(turns):
            if i != j and turn[0] >> 16 == other[0] >> 16:
                rest = [*turns[:i], *turns[i + 1 :]]
                at = j if i > j else j - 1
                rest[at] = [*other, *turn] if j < i else [*turn, *other]
                yield [by for group in rest for by in group]
