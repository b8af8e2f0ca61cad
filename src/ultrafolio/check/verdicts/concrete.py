"""Ways of the system itself that a folded graph stands for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ultrafolio.check.search.allocation import Shape, resize, size_of
from ultrafolio.check.search.graph import Graph, compiled, over_arrays, refilled, unpacked
from ultrafolio.check.search.packing import RUNNING, Space
from ultrafolio.check.search.workers import Team
from ultrafolio.check.verdicts.replay import copied
from ultrafolio.engine.interp import to_lists
from ultrafolio.engine.load import interpreted
from ultrafolio.model.layout import IDLE_PC, OWNERS
from ultrafolio.model.scenario import System

_WRITTEN = ("count", "kept", "index", "owned", "many", "busy", "turned", "image")
"""What a Finder writes, besides the arrays that it makes anew."""


class Finder:
    """Finds states of a folded graph."""

    def __init__(self, graph: Graph) -> None:
        self._functions = over_arrays() if graph.interpreted else compiled()
        self._words, self._state = unpacked(graph.system)
        self._arrays = graph.space._asdict()
        self._arrays |= {name: self._arrays[name].copy() for name in _WRITTEN}
        self._arrays["count"]["numbers"] = 1
        self._shape = Shape.of(graph.system, 1, edges=False, numbers=True)
        self._widen()

    def _widen(self) -> None:
        """Make room for what a state has that stands for no other, memories and own numbers."""
        size = size_of(self._arrays)
        size = replace(size, memories=2 * size.memories, own=tuple(2 * room for room in size.own))
        with Team(1) as team:
            refilled(self._functions, self._arrays, resize(self._arrays, self._shape, size), team)

    def number(self, lists: Any) -> int:
        """The number of the state that stands for this one (as lists), or -1."""
        for name in OWNERS:
            _write(getattr(self._state, name), getattr(lists, name))
        count = self._arrays["count"]
        while True:
            if len(self._arrays["memory"]) - count["memories"][0] <= 2:
                self._widen()
            found = int(self._functions["locate"](self._state, Space(**self._arrays), self._words))
            if count["stop"][0] == RUNNING:
                return found
            count["stop"] = RUNNING
            self._widen()


def way(graph: Graph, number: int, breaks: int = 0) -> list[int]:
    """A way (actor << 16 | choice) of the system itself, from its initial state, to a state that `number` of a folded
    graph stands for; with `breaks`, and one step on that breaks this property. As short as the way in the graph."""
    chain = [number]
    while chain[-1]:
        chain.append(int(graph.space.parent[chain[-1]]))
    finder, run, path = Finder(graph), interpreted(), []
    state = to_lists(graph.system.state)
    for wanted in [*chain[-2::-1], *([None] if breaks else [])]:
        for by, after, broke in _steps(graph.system, state, run):
            if broke == breaks if wanted is None else finder.number(after) == wanted:
                path.append(by)
                state = after
                break
        else:
            raise AssertionError("a folded way that is no way of the system")
    return path


def _steps(system: System, state: Any, run: Any) -> Any:
    """Every step of a state as lists: (by, state after it, property broken)."""
    for t, choices in enumerate(system.choices):
        pc = state.task[t].pc
        idle = pc == IDLE_PC[state.who[t].kind]
        for choice, (op, page) in enumerate(choices if idle else [(0, 0)]):
            after = copied(state)
            p = run.focus(after, t, page)
            was = after.uv[p].state
            outcome = run.step(after, t, op, page)
            if outcome >= 0:
                yield t << 16 | choice, after, run.broken(after, t, pc, p, was, outcome)


def _write(array: Any, lists: Any) -> None:
    """Write a section's records, as lists, into the first of `array`."""
    names = array.dtype.names
    array[: len(lists)] = np.array([tuple(getattr(row, name) for name in names) for row in lists], array.dtype)
