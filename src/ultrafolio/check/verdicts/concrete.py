"""Paths of the system for paths of its folded graph."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ultrafolio.check.search.allocation import Params, next_capacity, resize
from ultrafolio.check.search.graph import Graph, compiled, over_arrays, refilled, unpacked
from ultrafolio.check.search.packing import RUNNING, Space
from ultrafolio.check.verdicts.replay import copied
from ultrafolio.engine.interp import to_lists
from ultrafolio.engine.load import interpreted
from ultrafolio.model.layout import IDLE_PC, OWNERS
from ultrafolio.model.scenario import System

_WRITTEN = (
    "count", "part_words", "part_table", "short_parts", "short_ids", "short_count", "short_limit",
    "memory_count", "loaded", "home", "beside", "index_at", "index_step",
    "busy_pages", "retargeted", "image",
)  # fmt: skip
"""Arrays that a look-up writes, besides those that _widen() reallocates: each Representatives has a copy."""


class Representatives:
    """Looks up states of the system in a folded graph."""

    def __init__(self, graph: Graph) -> None:
        self._functions = over_arrays() if graph.interpreted else compiled()
        self._words, self._state = unpacked(graph.system)
        self._arrays = graph.space._asdict()
        self._arrays |= {name: self._arrays[name].copy() for name in _WRITTEN}
        self._arrays["count"]["keeps_numbers"] = 1
        self._params = Params.of(graph.system, 1, edges=False, numbers=True)
        self._widen()

    def _widen(self) -> None:
        """Double the capacity of memories, to which a look-up of a non-canonical state adds; also that of ids that do
        not suffice."""
        capacity = next_capacity(self._arrays, self._params)
        capacity = replace(capacity, memories=2 * self._arrays["memories"].shape[1])
        refilled(self._functions, self._arrays, resize(self._arrays, self._params, capacity))

    def number(self, lists: Any) -> int:
        """Returns the number of the canonical state of this one (as lists), or -1."""
        count = self._arrays["count"]
        while True:
            for name in OWNERS:  # a look-up overwrites them
                _write(getattr(self._state, name), getattr(lists, name))
            if self._arrays["memories"].shape[1] - self._arrays["memory_count"].max() <= 2:
                self._widen()
            found = int(self._functions["locate"](self._state, Space(**self._arrays), self._words))
            if count["stop"][0] == RUNNING:
                return found
            count["stop"] = RUNNING
            self._widen()


def concrete_path(graph: Graph, number: int, breaks: int = 0) -> list[int]:
    """Returns a path (actor << 16 | choice) of the system from its initial state to a state whose canonical state is
    `number` of a folded graph; with `breaks`, plus a step that breaks this property. As long as the graph's path."""
    chain = [number]
    while chain[-1]:
        chain.append(int(graph.space.parent[chain[-1]]))
    representatives, run, path = Representatives(graph), interpreted(), []
    state = to_lists(graph.system.state)
    for wanted in [*chain[-2::-1], *([None] if breaks else [])]:
        for by, after, broke in _steps(graph.system, state, run):
            if broke == breaks if wanted is None else representatives.number(after) == wanted:
                path.append(by)
                state = after
                break
        else:
            raise AssertionError("a path of the folded graph has no path of the system")
    return path


def _steps(system: System, state: Any, run: Any) -> Any:
    """Yields every step of a state (as lists): by, the state after it, the number of the broken property."""
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
    """Write the records of a section (as lists) to the start of `array`."""
    names = array.dtype.names
    array[: len(lists)] = np.array([tuple(getattr(row, name) for name in names) for row in lists], array.dtype)
