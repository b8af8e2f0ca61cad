"""Exploring every interleaving of a small system: the graph, its counts, and what breaks on the way."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np

from ultrafolio.check import kinds
from ultrafolio.check.search import allocation, atomics, bfs, canonical, memo, packing, thread_local
from ultrafolio.check.search.allocation import Shape, Size, bytes_of, grown, new_arrays, resize
from ultrafolio.check.search.packing import (
    FULL,
    LIMIT,
    MAX_ACTORS,
    MAX_CHOICES,
    MAX_COMPONENTS,
    MAX_MEMORIES,
    OVERFLOW,
    RUNNING,
    Space,
    raw_words,
    views,
)
from ultrafolio.check.search.workers import Team
from ultrafolio.check.symmetry import like_pages
from ultrafolio.engine import load as rules
from ultrafolio.errors import InputError
from ultrafolio.model import layout as model
from ultrafolio.model.layout import OWNERS, State
from ultrafolio.model.rule import RULES
from ultrafolio.model.scenario import System
from ultrafolio.waits import load as waits

Array = np.ndarray[Any, Any]
Watch = Callable[[Array], AbstractContextManager[None]]
NEVER = 1 << 62
"""So many states wait for no worker to share them with."""
FAIR = tuple(RULES[pc].fair if pc in RULES else False for pc in range(model.DEAD + 1))


@dataclass(frozen=True, slots=True)
class Graph:
    """The reachable part of a system's state graph, in breadth-first order from state 0.

    complete  False when a limit stopped the exploration; then nothing can be concluded from what is absent
    depth     steps to the farthest state reached
    words, state  raw buffer and its views, to unpack a state with `unpack`

    interpreted   explored by the plain functions; what is found is the same

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
    interpreted: bool = False

    @property
    def states(self) -> int:
        return int(self.space.count[0]["states"])

    @property
    def edges(self) -> int:
        return int(self.space.count[0]["edges"])

    def unpack(self, number: int) -> State:
        """State `number`, as independent arrays."""
        row = self.space.node[number]
        memory, *own = (int(row[f["word"]] >> f["shift"] & f["mask"]) for f in self.space.fields)
        actors = [int(self.space.own[t, n]) for t, n in enumerate(own)]
        for (first, n), kept in zip(self.space.spans, [*self.space.memory[memory], *actors], strict=True):
            self.words[first : first + n] = self.space.kept[kept, :n]
        mine = {name: len(getattr(self.system.state, name)) for name in OWNERS}
        return State(self.state.cfg, self.state.who, *(np.array(getattr(self.state, n)[:k]) for n, k in mine.items()))

    def path(self, number: int) -> list[int]:
        """The edges (actor << 16 | choice) of a shortest way from state 0 to `number`. Of a graph that is not folded:
        concrete.way() has the others."""
        edges = []
        while number:
            edges.append(int(self.space.by[number]))
            number = int(self.space.parent[number])
        return edges[::-1]

    def depth_of(self, number: int) -> int:
        depth = 0
        while number:
            number, depth = int(self.space.parent[number]), depth + 1
        return depth


_ENTRIES = ("begin", "explore", "enter_states", "enter_memories", "fill", "fold", "locate")
"""Functions that Python calls, or that are compiled once by themselves since they hold all the rules."""


def _loaded(
    decorate: Callable[[Any], Any], entry: Callable[[Any], Any], hardware: Any, *, unsigned: bool
) -> dict[str, Any]:
    space = rules.functions(decorate, unsigned=unsigned)
    space.update(rules.constants(packing) | rules.constants(kinds))
    space.update(FAIR=FAIR, LOCAL=thread_local.local_rules(), **vars(hardware))
    waits.add(space, decorate)
    for module in (memo, canonical, bfs):
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
    return _loaded(lambda f: f, lambda f: f, atomics.plain(), unsigned=False)


@functools.cache
def over_arrays() -> dict[str, Any]:
    """The exploring functions as plain Python over the same arrays."""
    plain = plain_functions()
    return {name: functools.partial(_over_arrays, plain[name]) for name in _ENTRIES}


@functools.cache
def compiled() -> dict[str, Any]:
    """The exploring functions, compiled; plain where that cannot be done (engine.load.can_compile)."""
    if not rules.can_compile():
        return over_arrays()
    rules.say_compiling("bfs.explore", "the checker for large systems", 20)
    inner, entry = rules.inner_flags(), rules.entry_flags()
    import numba

    njit: Any = numba.njit
    return _loaded(njit(**inner), njit(**entry), atomics.compiled(), unsigned=True)


def is_loaded() -> bool:
    """Whether this process has the compiled functions already."""
    return bool(compiled.cache_info().currsize)


def unwatched(count: Array) -> AbstractContextManager[None]:
    return nullcontext()


def explore(
    system: System,
    *,
    max_states: int = 20_000_000,
    max_mib: int = 8192,
    edges: bool = True,
    threads: int = 1,
    fold: bool = False,
    functions: Mapping[str, Any] | None = None,
    watch: Watch = unwatched,
) -> Graph:
    """Explore all interleavings of the system's steps. InputError for more than MAX_ACTORS actors, or more than
    MAX_CHOICES choices of one.

    Stops, with `complete` False and the reason, at `max_states` states, before its arrays would outgrow `max_mib`
    MiB, or when components run out. Without `edges` it takes a third of the memory, and tells nothing of leads-to. The
    result does not depend on `threads`. With `fold`, a state stands for all that differ in which of several like pages
    or like guests is which (check/symmetry), and one worker does all; InputError with edges, or where nothing is alike.
    `watch` may show the COUNT record while the exploration goes on.
    """
    if fold and edges:
        raise InputError(
            "symmetry reduction is for safety only",
            allowed="an exploration without edges",
            cause="in a folded graph a wait may end for one page and go on for another",
        )
    if len(system.choices) > MAX_ACTORS:
        raise InputError("too many actors to check", value=len(system.choices), allowed=f"at most {MAX_ACTORS}")
    for t, some in enumerate(system.choices):
        if len(some) > MAX_CHOICES:
            raise InputError(
                f"too many choices of actor {t} to check",
                value=len(some),
                allowed=f"at most {MAX_CHOICES}",
                cause="pages that are listed twice",
            )
    # plain Python keeps its lock: its threads would wait for each other's meetings, one switch at a time
    functions = functions or compiled()
    plain = functions is over_arrays() or not rules.can_compile()
    threads = 1 if plain or fold else threads
    words, state = unpacked(system)
    shape = Shape.of(system, threads, edges=edges, numbers=edges)
    arrays = new_arrays(system, shape, max_states, like_pages.required(system) if fold else None)
    count, run = arrays["count"], functions["explore"]
    functions["begin"](state, Space(**arrays), words)
    enough = allocation.ENOUGH * threads if threads > 1 else NEVER
    with Team(threads) as team, watch(count):
        while True:
            space = Space(**arrays)
            team.all(functools.partial(_explore, run, state, space, words, enough))
            reason = _stopped(count, max_states)
            if reason or count["stop"] != FULL:
                break
            size = grown(arrays, shape)
            if reason := _too_large(arrays, shape, size, max_mib):
                break
            count["stop"] = RUNNING
            refilled(functions, arrays, resize(arrays, shape, size), team)
    space = _merged(space)
    return Graph(system, space, not reason, reason, _depth(space), words, state, fold, edges, plain)


def _explore(run: Any, state: State, space: Space, words: Array, enough: int, worker: int) -> None:
    run(state, space, words, worker, allocation.SHARE, enough)


def _stopped(count: Array, max_states: int) -> str:
    """Why the exploration cannot go on, whatever room is made, or ""."""
    return {
        OVERFLOW: f"more than {MAX_COMPONENTS} different pages and actors",
        LIMIT: f"limit of {max_states} states reached",
    }.get(int(count["stop"][0]), "")


def _too_large(arrays: Mapping[str, Array], shape: Shape, size: Size, max_mib: int) -> str:
    """Why there cannot be so much room, or ""."""
    if size.memories > MAX_MEMORIES:
        return f"more than {MAX_MEMORIES} different states of all pages"
    if bytes_of(arrays, shape, size) > max_mib << 20:
        return f"limit of {max_mib} MiB reached with {int(arrays['count']['states'][0])} states"
    return ""


def refilled(functions: Mapping[str, Any], arrays: Mapping[str, Array], emptied: frozenset[str], team: Team) -> None:
    """Fill the hash tables that were made anew."""
    space = Space(**arrays)
    if "table" in emptied:
        team.all(lambda w: functions["enter_states"](space, w, team.workers))
    if "places" in emptied:
        functions["enter_memories"](space)


def unpacked(system: System) -> tuple[Array, State]:
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

    return space._replace(
        fired=space.fired[-1],
        found=first(space.found, packing.PROPERTIES_END),
        met=first(space.met, len(space.many) * packing.MET_END * len(space.seats)),
    )


def _depth(space: Space) -> int:
    """Steps to the last state reached: breadth-first order makes it the farthest."""
    number, depth = int(space.count["states"][0]) - 1, 0
    while number:
        number, depth = int(space.parent[number]), depth + 1
    return depth
