"""Leads-to under fairness: which waits never end, and the shortest story of each.

What an actor has begun (an access, an unshare, a pin, a writeback) must end. It need not, where the states in which
it is pending contain a cycle, or a state to rest in, that is fair. A thread that takes no step in a cycle stands at one
rule all along, and the cycle is fair to it if its step is disabled somewhere (a weakly fair rule) or everywhere (a
strongly fair one). Resting counts only where no fair step is enabled. Fairness is tested on the cycle itself.
"""

from __future__ import annotations

import functools
from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np

from ultrafolio.engine import load as rules
from ultrafolio.model.rule import RULES, STRONG, fn

from .explore import Graph

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Lasso:
    """A way that never lets `waiter` end: from state 0 by `stem` to state `entry`, then `cycle` for ever.

    stem, cycle  edges (actor << 16 | choice); an empty cycle means that nothing fair is enabled at `entry`
    members      the states of the strongly connected component the cycle lies in; fair as a whole
    """

    waiter: int
    entry: int
    stem: list[int]
    cycle: list[int]
    members: Array


@fn
def components(first, to, inside, states, index, low, on, stack, call, at, scc):
    """Strongly connected components of the states `inside` (Tarjan 1972, without recursion).

    Writes each state's component into `scc` (-1: not inside) and returns how many there are.
    """
    count = 0
    found = 0
    top = 0
    for root in range(states):
        if inside[root] == 0 or index[root]:
            continue
        depth = 1
        call[0] = root
        at[0] = first[root]
        count += 1
        index[root] = count
        low[root] = count
        stack[top] = root
        top += 1
        on[root] = 1
        while depth:
            v = call[depth - 1]
            if at[depth - 1] < first[v + 1]:
                w = to[at[depth - 1]]
                at[depth - 1] += 1
                if inside[w] == 0:
                    continue
                if index[w] == 0:
                    count += 1
                    index[w] = count
                    low[w] = count
                    stack[top] = w
                    top += 1
                    on[w] = 1
                    call[depth] = w
                    at[depth] = first[w]
                    depth += 1
                elif on[w]:
                    low[v] = min(low[v], index[w])
                continue
            depth -= 1
            if depth:
                low[call[depth - 1]] = min(low[call[depth - 1]], low[v])
            if low[v] == index[v]:
                while True:
                    top -= 1
                    w = stack[top]
                    on[w] = 0
                    scc[w] = found
                    if w == v:
                        break
                found += 1
    return found


@fn
def fairness(first, to, via, scc, enabled, states, always, ever, taken, inner):
    """Per component: the threads whose fair step is enabled in all its states (`always`), or in one (`ever`), those
    that take a step within it (`taken`), and how many edges stay within it (`inner`)."""
    for v in range(states):
        c = scc[v]
        if c < 0:
            continue
        always[c] &= enabled[v]
        ever[c] |= enabled[v]
        for e in range(first[v], first[v + 1]):
            if scc[to[e]] == c:
                inner[c] += 1
                taken[c] |= 1 << (via[e] >> 16)


@functools.cache
def _compiled() -> tuple[Any, Any]:
    flags = rules.numba_flags()
    import numba

    njit: Any = numba.njit
    return njit(nogil=True, cache=True, **flags)(components), njit(nogil=True, cache=True, **flags)(fairness)


def lassos(graph: Graph) -> list[Lasso]:
    """One lasso for each actor and each fair component in which it waits; the earliest entry first.

    Exact for a complete graph. A thread's own unfair steps never count as its fair ones, since a thread at an unfair
    rule has nothing fair enabled.
    """
    made = []
    for actor in range(len(graph.system.choices)):
        for members in _fair_components(graph, actor):
            made.append(_lasso(graph, actor, members))
    return sorted(made, key=lambda lasso: (lasso.entry, lasso.waiter))


def _fair_components(graph: Graph, actor: int) -> list[Array]:
    """The states of each component in which `actor` waits and a fair cycle, or rest, exists.

    Streett's condition, by decomposition: where a strongly fair step is enabled somewhere in a component and never
    taken, no fair cycle passes the states in which it is; they are left out, and the rest is looked at again.
    """
    space, n = graph.space, graph.states
    inside = ((space.pending[:n] >> actor) & 1).astype(np.uint8)
    fair: list[Array] = []
    while inside.any():
        for members, starved in _components(graph, inside):
            inside[members] = (space.enabled[members] & starved) == 0 if starved else 0
            if not starved:
                fair.append(members)
    return fair


def _components(graph: Graph, inside: Array) -> list[tuple[Array, int]]:
    """The components of the states `inside` that are fair to weakly fair steps, each with the threads whose strongly
    fair step it starves. `inside` is emptied."""
    space, n = graph.space, graph.states
    find, judge = _compiled()
    scc = np.full(n, -1, np.int32)
    scratch = [np.zeros(n + 1, np.int64) for _ in range(6)]
    found = find(space.first, space.to, inside, n, *scratch, scc)
    inside[:] = 0
    always, (ever, taken, inner) = np.full(found, -1, np.int64), np.zeros((3, found), np.int64)
    judge(space.first, space.to, space.via, scc, space.enabled, n, always, ever, taken, inner)
    order = np.argsort(scc, kind="stable")
    bounds = np.searchsorted(scc[order], np.arange(found + 1))
    fair = ((inner > 0) & ((always & ~taken) == 0)) | ((inner == 0) & (always == 0))
    made = []
    for c in np.flatnonzero(fair):
        members, idle = order[bounds[c] : bounds[c + 1]], int(ever[c] & ~taken[c])
        made.append((members, idle & sleepers(graph, int(members[0])) if idle else 0))
    return made


def sleepers(graph: Graph, number: int) -> int:
    """The threads that stand at a strongly fair rule in state `number`, a bit each."""
    places = enumerate(graph.unpack(number).task["pc"].tolist())
    return sum(1 << t for t, pc in places if pc in RULES and RULES[pc].fairness == STRONG)


def _lasso(graph: Graph, waiter: int, members: Array) -> Lasso:
    entry = int(members[0])
    return Lasso(waiter, entry, graph.path(entry), _cycle(graph, entry, set(members.tolist())), members)


def _cycle(graph: Graph, entry: int, members: set[int]) -> list[int]:
    """The shortest closed way from `entry` within `members` that is fair; empty to rest.

    Breadth-first over (state, threads still owed, sleepers that stepped). A thread is owed nothing once it stepped.
    Until then a weakly fair step is owed as long as it was enabled throughout, a strongly fair one once it was enabled.
    """
    space = graph.space
    asleep, owed = sleepers(graph, entry), int(space.enabled[entry])
    if owed == 0 and not any(int(space.to[e]) in members for e in _edges(graph, entry)):
        return []
    start = (entry, owed, 0)
    came: dict[tuple[int, int, int], tuple[tuple[int, int, int], int]] = {}
    queue = deque([start])
    while queue:
        here = queue.popleft()
        for e in _edges(graph, here[0]):
            to, by = int(space.to[e]), int(space.via[e])
            if to not in members:
                continue
            stepped, enabled = here[2] | asleep & 1 << (by >> 16), int(space.enabled[to])
            left = (here[1] & (enabled | asleep) | enabled & asleep) & ~stepped & ~(1 << (by >> 16))
            if to == entry and left == 0:
                return [*_back(came, start, here), by]
            after = (to, left, stepped)
            if after not in came and after != start:
                came[after] = (here, by)
                queue.append(after)
    raise AssertionError("a fair component without a fair cycle")


def _edges(graph: Graph, state: int) -> range:
    return range(int(graph.space.first[state]), int(graph.space.first[state + 1]))


def _back(came: dict[tuple[int, int, int], tuple[tuple[int, int, int], int]], start: Any, here: Any) -> list[int]:
    steps = []
    while here != start:
        here, by = came[here]
        steps.append(by)
    return steps[::-1]
