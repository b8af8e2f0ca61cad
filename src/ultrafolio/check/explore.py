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

from . import folding, kernel, layout, local, steps, symmetry
from .layout import FULL, LIMIT, MAX_ACTORS, MAX_COMPONENTS, OVERFLOW, RUNNING, Space, raw_words, views
from .room import Shape, grow, new_arrays
from .team import Team

Array = np.ndarray[Any, Any]
FAIR = tuple(RULES[pc].fair if pc in RULES else False for pc in range(model.DEAD + 1))


@dataclass(frozen=True, slots=True)
class Graph:
    """The reachable part of a system's state graph, in breadth-first order from state 0.

    complete  False when a limit stopped the exploration; then nothing can be concluded from what is absent
    depth     steps to the farthest state reached
    words, state  raw buffer and its views, to unpack a state with `unpack`

    Explored without edges it has states, a shortest way to each, and what breaks, but no `to`, `via`, `first`,
    `pending` and `enabled`.
    """

    system: System
    space: Space
    complete: bool
    reason: str
    depth: int
    words: Array
    state: State
    folded: bool = False
    edged: bool = True

    @property
    def states(self) -> int:
        return int(self.space.count[0]["states"])

    @property
    def edges(self) -> int:
        return int(self.space.count[0]["edges"])

    def unpack(self, number: int) -> State:
        """State `number`, as independent arrays."""
        row = self.space.node[number : number + 1].view(np.uint16)[0]
        memory = self.space.memory[int(row[0]) | int(row[1]) << 16]
        actors = len(self.system.choices)
        for (first, n), kept in zip(self.space.spans, [*memory, *row[2 : 2 + actors]], strict=True):
            self.words[first : first + n] = self.space.kept[kept, :n]
        mine = {name: len(getattr(self.system.state, name)) for name in OWNERS}
        return State(self.state.cfg, self.state.who, *(np.array(getattr(self.state, n)[:k]) for n, k in mine.items()))

    def path(self, number: int) -> list[int]:
        """The edges (actor << 16 | choice) of a shortest way from state 0 to `number`; in a folded graph, of the system
        itself to one of the states that `number` stands for."""
        if self.folded:
            return symmetry.concrete(self, number)
        steps = []
        while number:
            steps.append(int(self.space.by[number]))
            number = int(self.space.parent[number])
        return steps[::-1]

    def depth_of(self, number: int) -> int:
        depth = 0
        while number:
            number, depth = int(self.space.parent[number]), depth + 1
        return depth


class Finder:
    """Finds states of a folded graph."""

    def __init__(self, graph: Graph) -> None:
        self._functions = compiled()
        self._words, self._state = _unpacked(graph.system)
        self._space = graph.space._replace(
            memory=np.concatenate([graph.space.memory, np.zeros_like(graph.space.memory)]),
            places=np.zeros(2 * len(graph.space.places), np.int32),
        )
        self._functions["enter_memories"](self._space)

    def number(self, lists: Any) -> int:
        """The number of the state that stands for this one (as lists), or -1."""
        for name in OWNERS:
            symmetry.rows(getattr(self._state, name), getattr(lists, name))
        count = self._space.count[0]
        memories = int(count["memories"])
        found = int(self._functions["locate"](self._state, self._space, self._words))
        assert len(self._space.memory) - memories > 2
        return found


_ENTRIES = ("begin", "explore", "enter_states", "enter_memories", "enter_recalled", "room", "plan", "look", "fill",
            "make", "fold_all", "insert", "settle", "link", "advance", "locate")  # fmt: skip


def _loaded(
    decorate: Callable[[Any], Any], entry: Callable[[Any], Any], prefetch: Any, *, unsigned: bool
) -> dict[str, Any]:
    space = rules.functions(decorate, unsigned=unsigned)
    space.update(rules.constants(layout))
    space.update(FAIR=FAIR, LOCAL=local.local_rules(), prefetch=prefetch, BATCH=kernel.BATCH)
    for module in (steps, folding, kernel):
        rules.add_functions(space, module, lambda f: (entry if f.__name__ in _ENTRIES else decorate)(f))
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
    return _loaded(lambda f: f, lambda f: f, lambda array, i: None, unsigned=False)


@functools.cache
def compiled() -> dict[str, Any]:
    """The exploring functions, compiled; with NUMBA_DISABLE_JIT=1 plain Python over the same arrays."""
    if os.environ.get("NUMBA_DISABLE_JIT", "0") != "0":
        plain = plain_functions()
        return {name: functools.partial(_over_arrays, plain[name]) for name in _ENTRIES}
    inner, entry = rules.inner_flags(), rules.numba_flags()
    import numba

    njit: Any = numba.njit
    return _loaded(njit(**inner), njit(nogil=True, cache=True, **entry), local.prefetch(), unsigned=True)


def explore(system: System, *, max_states: int = 20_000_000, max_mib: int = 8192, edges: bool = True,
            threads: int = 1, fold: bool = False, functions: Mapping[str, Any] | None = None) -> Graph:  # fmt: skip
    """Explore all interleavings of the system's steps. InputError for more than MAX_ACTORS actors.

    Stops, with `complete` False and the reason, at `max_states` states, before its arrays would outgrow `max_mib`
    MiB, or when components run out. Without `edges` it takes a third of the memory, and tells nothing of leads-to. The
    result does not depend on `threads`. With `fold`, a state stands for all that differ in which of several like pages
    is which (symmetry.py), and one worker does all; InputError with edges, or where no pages are alike.
    """
    if fold and edges:
        raise InputError("symmetry reduction is for safety only", allowed="an exploration without edges",
                         cause="in a folded graph a wait may end for one page and go on for another")  # fmt: skip
    if len(system.choices) > MAX_ACTORS:
        raise InputError("too many actors to check", value=len(system.choices), allowed=f"at most {MAX_ACTORS}")
    functions = functions or compiled()
    words, state = _unpacked(system)
    threads = 1 if fold else threads
    shape = Shape.of(system, threads, edges=edges)
    arrays = new_arrays(system, shape, max_states, symmetry.required(system).alike if fold else ())
    functions["begin"](state, Space(**arrays), words)
    reason = ""
    with Team(functions, threads) as team:
        while True:
            team.explore(state, Space(**arrays), words)
            count = arrays["count"]
            stop = int(count["stop"][0])
            if stop == OVERFLOW:
                reason = f"more than {MAX_COMPONENTS} different pages and actors"
            if stop == LIMIT:
                reason = f"limit of {max_states} states reached"
            if stop != FULL or reason:
                break
            tables = grow(arrays, shape, max_mib)
            if tables is None:
                reason = f"limit of {max_mib} MiB reached with {int(count['states'][0])} states"
                break
            count["stop"] = RUNNING
            _entered(functions, Space(**arrays), tables)
    space = _merged(Space(**arrays))
    return Graph(system, space, not reason, reason, _depth(space), words, state, fold, edges)


def _entered(functions: Mapping[str, Any], space: Space, tables: Mapping[str, Array]) -> None:
    """Fill the hash tables that were made anew."""
    if "table" in tables:
        functions["enter_states"](space)
    if "places" in tables:
        functions["enter_memories"](space)
    if "recall" in tables:
        functions["enter_recalled"](space, tables["recall"])


def _unpacked(system: System) -> tuple[Array, State]:
    """The raw buffer with the system's initial state in it, and its views."""
    words = np.zeros(raw_words(len(system.state.mm), len(system.state.task), len(system.state.vm)), np.int64)
    state = views(words, system.state)
    for name in OWNERS:
        section = getattr(system.state, name)
        getattr(state, name)[: len(section)] = section
    return words, state


def _merged(space: Space) -> Space:
    """What the workers found, as of one: the sum of the steps, the first of each finding."""

    def first(found: Array, each: int) -> Array:
        rows = found.reshape(-1, each)
        order = np.where(rows["state"] < 0, np.iinfo(np.int64).max, rows["state"]).argmin(axis=0)
        chosen: Array = rows[order, np.arange(each)]
        return chosen

    return space._replace(fired=space.fired.sum(axis=0), found=first(space.found, layout.PROPERTIES_END),
                          met=first(space.met, layout.OBSTACLES_END))  # fmt: skip


def _depth(space: Space) -> int:
    """Steps to the last state reached: breadth-first order makes it the farthest."""
    number, depth = int(space.count["states"][0]) - 1, 0
    while number:
        number, depth = int(space.parent[number]), depth + 1
    return depth
