"""The state graph of a system: explore every interleaving, unpack states, find a shortest path to each."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np

from ultrafolio.check import kinds
from ultrafolio.check.search import atomics, bfs, canonical, folding, judging, memo, packing, sharing, thread_local
from ultrafolio.check.search.allocation import Capacity, Params, bytes_of, new_arrays, next_capacity, resize
from ultrafolio.check.search.packing import (
    FULL,
    LIMIT,
    MAX_ACTORS,
    MAX_CHOICES,
    MAX_MEMORIES,
    MAX_PARTS,
    OVERFLOW,
    RUNNING,
    Space,
    raw_words,
    views,
)
from ultrafolio.check.search.reach import Regions, regions_of, together
from ultrafolio.check.search.turns import Search, Turns
from ultrafolio.check.search.workers import ThreadTeam
from ultrafolio.check.symmetry import like_pages
from ultrafolio.engine import load as rules
from ultrafolio.engine.interp import to_lists
from ultrafolio.engine.records import Row
from ultrafolio.errors import InputError
from ultrafolio.model import designs
from ultrafolio.model.design import Design
from ultrafolio.model.designs import S390, PerDesign
from ultrafolio.model.layout import OWNERS, State
from ultrafolio.model.scenario import System
from ultrafolio.nouns import plural
from ultrafolio.waits import load as waits

Array = np.ndarray[Any, Any]
MOST_THREADS = 2
"""A round has two halves."""
Watch = Callable[[Array], AbstractContextManager[None]]


@dataclass(frozen=True)
class Graph:
    """The reachable states of a system, numbered in breadth-first order from state 0.

    space         the arrays: states, edges, findings
    complete      False if a limit stopped the exploration; then absence of a finding proves nothing
    reason        which limit, or ""
    depth         steps to the farthest state reached
    words, state  raw buffer and its views, which `unpack` overwrites
    folded        reduced by symmetry: each state is the canonical one of its permutations
    edged         False: explored without edges; then `to`, `via`, `first`, `pending` and `enabled` are empty
    interpreted   explored by the plain functions; the contents are the same
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
        """Returns state `number` as independent arrays."""
        made = type(self.state)
        return made(self.state.cfg, self.state.who, *(np.array(section) for section in self._sections(number)))

    def lists(self, number: int) -> State:
        """Returns state `number` as lists. cfg and who, which no rule changes, are those of every state."""
        make: Any = type(self.state)
        made: State = to_lists(make(None, None, *self._sections(number)), self._fixed)
        return made

    @functools.cached_property
    def _fixed(self) -> tuple[Any, Any]:
        """cfg and who as lists."""
        state = to_lists(self.system.state)
        return state.cfg, state.who

    def _sections(self, number: int) -> list[Array]:
        """Returns the other sections of state `number`, as views into the raw buffer."""
        space = self.space
        row, regions = space.node[number].tolist(), len(space.region_width)
        values = [row[word] >> shift & mask for word, shift, mask, _ in space.fields.tolist()]
        parts = np.zeros(len(space.spans), np.int64)
        for r, wide in enumerate(space.region_width.tolist()):
            parts[space.region_places[r, :wide]] = space.memories[r, values[r], :wide]
        actors = [int(space.short_parts[t, n]) for t, n in enumerate(values[regions:])]
        parts[len(parts) - len(actors) :] = actors
        for (first, n), part in zip(space.spans.tolist(), parts.tolist(), strict=True):
            self.words[first : first + n] = space.part_words[part, :n]
        return [getattr(self.state, name)[: len(getattr(self.system.state, name))] for name in OWNERS]

    def path(self, number: int) -> list[int]:
        """Returns a shortest path (actor << 16 | choice) from state 0 to `number`. For a folded graph use
        concrete.concrete_path()."""
        edges = []
        while number:
            edges.append(int(self.space.by[number]))
            number = int(self.space.parent[number])
        return edges[::-1]

    def depth_of(self, number: int) -> int:
        """Returns the steps of a shortest path to state `number`."""
        depth = 0
        while number:
            number, depth = int(self.space.parent[number]), depth + 1
        return depth


_ENTRIES = (
    "begin", "explore", "explore_shared", "begin_folded", "explore_folded", "locate", "canonicalise", "run_missing",
    "rehash_states", "rehash_memories", "rehash_memo",
)  # fmt: skip
"""Functions that Python calls, or that are not inlined because they contain all rules. Numba compiles one at its first
call: folding, and what shares rounds, only where it is asked for."""


def _fair(design: Design) -> tuple[bool, ...]:
    """Returns per rule number of a design whether the rule is weakly or strongly fair."""
    return tuple(pc in design.rules and design.rules[pc].fair for pc in range(design.last_rule + 1))


def _loaded(
    decorate: Callable[[Any], Any], entry: Callable[[Any], Any], hardware: Any, design: Design, *, unsigned: bool
) -> dict[str, Any]:
    """Returns the functions of the search with the rules and constants of a design, each through `decorate`, those of
    _ENTRIES through `entry`."""
    space = rules.functions(decorate, unsigned=unsigned, one_type=unsigned, design=design)
    space.update(rules.constants(packing) | rules.constants(kinds))
    space.update(packing.header(design), FAIR=_fair(design), LOCAL=thread_local.local_rules(design))
    space.update(SECOND=design.second, **vars(hardware))
    waits.add(space, decorate, design)
    if design is not S390:
        space["canonicalise"] = entry(as_it_is)
    own = (judging, memo, canonical) if design is S390 else (memo,)
    for module in (*own, bfs, folding, sharing):
        rules.add_functions(space, module, lambda f: (entry if f.__name__ in _ENTRIES else decorate)(f))
    return space


def as_it_is(s, x, words, number):  # type: ignore[no-untyped-def]
    """Leave a state as it is: what canonicalise() does in a design without symmetry reduction, whose pages have no
    owner."""


def _over_arrays(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a plain function of the search with a _Row for each record of its arrays."""

    def rows(arrays: Any) -> Any:
        if not hasattr(arrays, "_fields"):
            return arrays
        return type(arrays)(*([Row(a, i) for i in range(len(a))] if a.dtype.names else a for a in arrays))

    return function(*(rows(argument) for argument in arguments))


@PerDesign
def plain_functions(design: Design) -> dict[str, Any]:
    """Returns the functions of the search as plain Python."""
    return _loaded(lambda f: f, lambda f: f, atomics.plain(), design, unsigned=False)


@PerDesign
def over_arrays(design: Design) -> dict[str, Any]:
    """Returns the entry functions of the search as plain Python over numpy arrays."""
    plain = plain_functions(design)
    return {name: functools.partial(_over_arrays, plain[name]) for name in _ENTRIES}


_LOADED: set[str] = set()
"""The designs of which this process has the compiled functions."""


@PerDesign
def compiled(design: Design) -> dict[str, Any]:
    """Returns the entry functions of the search, compiled; over_arrays() if engine.load.can_compile() is False."""
    if not rules.can_compile():
        return over_arrays(design)
    _LOADED.add(design.name)
    rules.say_compiling("bfs.explore", "the checker for large systems", 20, design)
    inner, entry = rules.inner_flags(), rules.entry_flags()
    import numba

    njit: Any = numba.njit
    return _loaded(njit(**inner), njit(**entry), atomics.compiled(), design, unsigned=True)


def is_loaded(design: Design = S390) -> bool:
    """Whether this process has the compiled functions of a design already."""
    return design.name in _LOADED


def unwatched(count: Array) -> AbstractContextManager[None]:
    """Returns a context manager that does nothing."""
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
    found: Regions | None = None,
) -> Graph:
    """Explore all interleavings of the system's steps. Returns the Graph; it does not depend on `threads`.

    max_states, max_mib  limits (states; MiB of arrays); at one of them `complete` is False and `reason` names it, as
                         for more than MAX_PARTS parts
    edges      keep the edges, which leads-to needs; without them it takes a third of the memory
    fold       symmetry reduction (check/symmetry), by one thread
    functions  compiled() or over_arrays() of the system's design; default: compiled()
    watch      context manager that may read the COUNT record during the exploration
    found      the regions of pages and machines; default: regions_of()

    In another design than s390 properties ask the pages of the actor. Until a step breaks one that is the same as all
    pages; where one does, the system is explored once more as one region.

    Raises InputError for more than MAX_ACTORS actors or MAX_CHOICES choices of one, for `fold` with `edges`, and for
    `fold` where nothing is interchangeable.
    """
    design = designs.of(system.state)
    _check_arguments(system, fold, edges)
    # plain Python holds the GIL: its threads would spin at each barrier
    functions = functions or compiled(design)
    plain = functions is over_arrays(design) or not rules.can_compile()
    threads = 1 if plain or fold else min(threads, MOST_THREADS)
    words, state = unpacked(system)
    found = found or regions_of(system)
    params = Params.of(system, threads, edges=edges, numbers=edges, found=found)
    arrays = new_arrays(system, params, max_states, like_pages.required_symmetry(system) if fold else None)
    count, search = arrays["count"], Search(functions, state, words, fold)
    search.begin(Space(**arrays))
    with ThreadTeam(threads) as team, watch(count):
        turns = Turns(count, team)
        while True:
            space = Space(**arrays)
            turns.take(search, space)
            reason = _stopped(count, max_states)
            if reason or count["stop"] != FULL:
                break
            capacity = next_capacity(arrays, params)
            if reason := _too_large(arrays, params, capacity, max_mib):
                break
            count["stop"] = RUNNING
            del space
            refilled(functions, arrays, resize(arrays, params, capacity))
    space = space._replace(fired=space.fired[-1])
    if design is not S390 and len(found.places) > 1 and (space.found["state"] >= 0).any():
        del arrays, space, search
        return explore(system, max_states=max_states, max_mib=max_mib, edges=edges, threads=threads,
                       functions=functions, watch=watch, found=together(system))  # fmt: skip
    return Graph(system, space, not reason, reason, _depth(space), words, state, fold, edges, plain)


def _check_arguments(system: System, fold: bool, edges: bool) -> None:
    """Raises InputError as explore() says, but for a system without symmetry."""
    if fold and designs.of(system.state) is not S390:
        raise InputError(
            "no symmetry reduction for this design",
            value=designs.of(system.state).name,
            allowed=f"a scenario of the design {S390.name}",
            cause="it finds like pages and guests by the rules of that design",
            then="the same command without --symmetry",
        )
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


def _stopped(count: Array, max_states: int) -> str:
    """Returns why the exploration stops for good, or "" if more capacity lets it go on."""
    return {
        OVERFLOW: f"more than {MAX_PARTS} different pages and actors",
        LIMIT: f"limit of {plural(max_states, 'state')} reached",
    }.get(int(count["stop"][0]), "")


def _too_large(arrays: Mapping[str, Array], params: Params, capacity: Capacity, max_mib: int) -> str:
    """Returns the limit that forbids this capacity, or ""."""
    if capacity.memories > MAX_MEMORIES:
        return f"more than {MAX_MEMORIES} different states of all pages"
    if bytes_of(arrays, params, capacity) > max_mib << 20:
        return f"limit of {max_mib} MiB reached with {plural(int(arrays['count']['states'][0]), 'state')}"
    return ""


def refilled(functions: Mapping[str, Any], arrays: Mapping[str, Array], emptied: frozenset[str]) -> None:
    """Refill the hash tables that resize() left empty."""
    space = Space(**arrays)
    if "table" in emptied:
        functions["rehash_states"](space)
    if "memory_table" in emptied:
        functions["rehash_memories"](space)
    if "memo_table" in emptied:
        functions["rehash_memo"](space)


def unpacked(system: System) -> tuple[Array, State]:
    """Returns the raw buffer with the system's initial state, and its views."""
    words = np.zeros(raw_words(len(system.state.mm), len(system.state.task), len(system.state.vm)), np.int64)
    state = views(words, system.state)
    for name in OWNERS:
        section = getattr(system.state, name)
        getattr(state, name)[: len(section)] = section
    return words, state


def _depth(space: Space) -> int:
    """Returns the steps to the last state: breadth-first order makes it the farthest."""
    number, depth = int(space.count["states"][0]) - 1, 0
    while number:
        number, depth = int(space.parent[number]), depth + 1
    return depth
