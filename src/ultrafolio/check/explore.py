"""Exploring every interleaving of a small system: the graph, its counts, and what breaks on the way."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ultrafolio.engine import load as rules
from ultrafolio.errors import InputError
from ultrafolio.model import layout as model
from ultrafolio.model.layout import OWNERS, State
from ultrafolio.model.rule import RULES
from ultrafolio.model.scenario import System

from . import kernel, layout
from .layout import (
    COUNT,
    FOUND,
    FULL,
    LIMIT,
    MAX_ACTORS,
    MAX_COMPONENTS,
    OVERFLOW,
    RUNNING,
    Space,
    raw_words,
    spans,
    views,
)

Array = np.ndarray[Any, Any]
FAIR = tuple(RULES[pc].fair if pc in RULES else False for pc in range(model.DEAD + 1))


@dataclass(frozen=True, slots=True)
class Graph:
    """The reachable part of a system's state graph, in breadth-first order from state 0.

    complete  False when a limit stopped the exploration; then nothing can be concluded from what is absent
    depth     steps to the farthest state reached
    words, state  raw buffer and its views, to unpack a state with `unpack`
    """

    system: System
    space: Space
    complete: bool
    reason: str
    depth: int
    words: Array
    state: State

    @property
    def states(self) -> int:
        return int(self.space.count[0]["states"])

    @property
    def edges(self) -> int:
        return int(self.space.count[0]["edges"])

    def unpack(self, number: int) -> State:
        """State `number`, as independent arrays."""
        for (first, n), kept in zip(self.space.spans, self.space.node[number], strict=True):
            self.words[first : first + n] = self.space.kept[kept, :n]
        return State(self.state.cfg, self.state.who, *(np.array(getattr(self.state, name)) for name in OWNERS))

    def path(self, number: int) -> list[int]:
        """The edges (actor << 16 | choice) of a shortest way from state 0 to `number`."""
        steps = []
        while number:
            steps.append(int(self.space.by[number]))
            number = int(self.space.parent[number])
        return steps[::-1]

    def depth_of(self, number: int) -> int:
        return len(self.path(number))


_ENTRIES = ("begin", "explore", "rehash")


def _loaded(
    decorate: Callable[[Any], Any], entry: Callable[[Any], Any], *, unsigned: bool
) -> dict[str, Any]:
    space = rules.functions(decorate, unsigned=unsigned)
    space.update(rules.constants(layout))
    space["FAIR"] = FAIR
    rules.add_functions(space, kernel, lambda f: (entry if f.__name__ in _ENTRIES else decorate)(f))
    return space


class _Row:
    """One record of an array, read and written in place as Python integers."""

    __slots__ = ("_array", "_at")
    _array: Any
    _at: int

    def __init__(self, array: Array, at: int) -> None:
        object.__setattr__(self, "_array", array)
        object.__setattr__(self, "_at", at)

    def __getattr__(self, name: str) -> int:
        return int(self._array[name][self._at])

    def __setattr__(self, name: str, value: int) -> None:
        self._array[name][self._at] = value


def _over_arrays(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a plain exploring function with rows in the place of the records of its arrays."""

    def rows(arrays: Any) -> Any:
        if not hasattr(arrays, "_fields"):
            return arrays
        return type(arrays)(*([_Row(a, i) for i in range(len(a))] if a.dtype.names else a for a in arrays))

    return function(*(rows(argument) for argument in arguments))


@functools.cache
def plain_functions() -> dict[str, Any]:
    """The kernel's functions as plain Python, for use over lists."""
    return _loaded(lambda f: f, lambda f: f, unsigned=False)


@functools.cache
def compiled() -> dict[str, Any]:
    """The exploring functions, compiled; with NUMBA_DISABLE_JIT=1 plain Python over the same arrays."""
    if os.environ.get("NUMBA_DISABLE_JIT", "0") != "0":
        plain = plain_functions()
        return {name: functools.partial(_over_arrays, plain[name]) for name in _ENTRIES}
    inner, entry = rules.inner_flags(), rules.numba_flags()
    import numba

    njit: Any = numba.njit
    return _loaded(njit(**inner), njit(nogil=True, cache=True, **entry), unsigned=True)


def _new_space(system: System, capacity: int) -> Space:
    state, choices = system.state, system.choices
    pages, actors, vms = len(state.mm), len(state.task), len(state.vm)
    width = pages + actors + vms
    listed = [choice for some in choices for choice in some] or [(0, 0)]
    ranges, at = [], 0
    for some in choices:
        ranges.append((at, len(some)))
        at += len(some)
    space = Space(
        count=np.zeros(1, COUNT), fired=np.zeros(model.DEAD + 1, np.int64),
        kept=np.zeros((MAX_COMPONENTS, layout.ACTOR_WORDS + 1), np.int64), index=np.zeros(1 << 17, np.int32),
        spans=spans(pages, actors, vms), node=np.zeros((capacity, width), np.int16),
        copy=np.zeros(raw_words(pages, actors, vms), np.int64), table=np.zeros(4 * capacity, np.int64),
        parent=np.zeros(capacity, np.int32), by=np.zeros(capacity, np.int32),
        pending=np.zeros(capacity, np.int64), enabled=np.zeros(capacity, np.int64),
        first=np.zeros(capacity, np.int64), to=np.zeros(4 * capacity, np.int32), via=np.zeros(4 * capacity, np.int32),
        found=np.zeros(10, FOUND), met=np.zeros(32, FOUND), choices=np.array(ranges, np.int64),
        ops=np.array([op for op, _ in listed], np.int64), pages=np.array([page for _, page in listed], np.int64),
    )  # fmt: skip
    space.found["state"] = space.met["state"] = -1
    return space


def _grown(space: Space, functions: Mapping[str, Any]) -> Space:
    """The same exploration with arrays four times as long; what is not used yet takes no memory."""

    def longer(a: Array) -> Array:
        made = np.zeros((4 * len(a), *a.shape[1:]), a.dtype)
        made[: len(a)] = a
        return made

    names = ("node", "parent", "by", "pending", "enabled", "first", "to", "via")
    table = np.zeros(4 * len(space.table), np.int64)
    larger = space._replace(**{name: longer(getattr(space, name)) for name in names}, table=table)
    larger.count["stop"] = RUNNING
    functions["rehash"](larger)
    return larger


def explore(system: System, *, max_states: int = 20_000_000, max_mib: int = 8192,
            functions: Mapping[str, Any] | None = None) -> Graph:  # fmt: skip
    """Explore all interleavings of the system's steps. InputError for more than MAX_ACTORS actors.

    Stops, with `complete` False and the reason, at `max_states` states, before its arrays would outgrow `max_mib`
    MiB, or when components run out.
    """
    if len(system.choices) > MAX_ACTORS:
        raise InputError("too many actors to check", value=len(system.choices), allowed=f"at most {MAX_ACTORS}")
    functions = functions or compiled()
    size = raw_words(len(system.state.mm), len(system.state.task), len(system.state.vm))
    words = np.zeros(size, np.int64)
    state = views(words, system.state)
    for name in OWNERS:
        getattr(state, name)[:] = getattr(system.state, name)
    widest = sum(max(1, len(some)) for some in system.choices)
    space = _new_space(system, 1 << 12)
    space.count["limit"] = max_states
    functions["begin"](space, words)
    reason = ""
    while True:
        functions["explore"](state, space, words, widest)
        stop = int(space.count["stop"][0])
        if stop == OVERFLOW:
            reason = f"more than {MAX_COMPONENTS} different pages and actors"
        if stop == LIMIT:
            reason = f"limit of {max_states} states reached"
        if stop != FULL or reason:
            break
        if 4 * sum(array.nbytes for array in space) > max_mib << 20:
            reason = f"limit of {max_mib} MiB reached with {int(space.count['states'][0])} states"
            break
        space = _grown(space, functions)
    depth = _depth(space)
    return Graph(system, space, not reason, reason, depth, words, state)


def _depth(space: Space) -> int:
    """Steps to the last state reached: breadth-first order makes it the farthest."""
    number, depth = int(space.count["states"][0]) - 1, 0
    while number:
        number, depth = int(space.parent[number]), depth + 1
    return depth
