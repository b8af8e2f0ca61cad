"""Leads-to under fairness: the components in which a wait never ends, and a fair cycle through each.

What an actor has begun (an access, an unshare, a pin, a writeback) must end. It can fail to end if the states in which
it is pending contain a fair cycle, or a state in which no fair step is enabled (a run may rest there). A thread that
takes no step in a cycle stays at one rule. The cycle is fair to it if its step is disabled in one state of the cycle
(weakly fair rule) or in all (strongly fair rule). Fairness is tested on the cycle itself, not on its component.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np

from ultrafolio.check.search.graph import Graph
from ultrafolio.check.verdicts.components import Component
from ultrafolio.engine import load as rules
from ultrafolio.model import designs
from ultrafolio.model.rule import STRONG, fn

Array = np.ndarray[Any, Any]


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
    """Write per component: bit sets of the threads whose fair step is enabled in all its states (`always`), in one
    (`ever`), and that take a step within it (`taken`); and the number of edges within it (`inner`)."""
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
    """Returns components() and fairness(), compiled."""
    flags = rules.entry_flags()
    import numba

    njit: Any = numba.njit
    return njit(**flags)(components), njit(**flags)(fairness)


def _functions(graph: Graph) -> tuple[Any, Any]:
    """Returns `components` and `fairness`: compiled, or plain for a graph that plain functions explored."""
    if graph.interpreted or not rules.can_compile():
        return functools.partial(_over_lists, components), functools.partial(_over_lists, fairness)
    return _compiled()


def _over_lists(function: Any, *arguments: Any) -> Any:
    """Call a plain function with lists instead of arrays (faster), and write them back."""
    lists = [a.tolist() if isinstance(a, np.ndarray) else a for a in arguments]
    result = function(*lists)
    for array, values in zip(arguments, lists, strict=True):
        if isinstance(array, np.ndarray):
            array[:] = values
    return result


def components_of(graph: Graph) -> list[Component]:
    """Returns every component in which an actor waits and a fair run can stay for ever, by entry, then by actor.

    Exact for a complete graph. A thread's own unfair steps never count as its fair ones, since a thread at an unfair
    rule has nothing fair enabled.
    """
    made = [
        Component(actor, members)
        for actor in range(len(graph.system.choices))
        for members in _fair_components(graph, actor)
    ]
    return sorted(made, key=lambda component: (component.entry, component.waiter))


def _fair_components(graph: Graph, actor: int) -> list[Array]:
    """Returns the states of each component in which `actor` waits and a fair cycle, or a state to rest in, exists.

    Streett's condition, by decomposition: if a strongly fair step is enabled in a component and never taken in it, no
    fair cycle passes the states that enable it; they are removed, and the rest is decomposed again.
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
    """Returns the components of the states `inside` that are fair to weakly fair steps, each with the threads whose
    strongly fair step it starves. Clears `inside`."""
    space, n = graph.space, graph.states
    find, judge = _functions(graph)
    scc = np.full(n, -1, np.int32)
    scratch = [np.zeros(n + 1, np.int64) for _ in range(6)]
    found = find(space.first, space.to, inside, n, *scratch, scc)
    inside[:] = 0
    always, (ever, taken, inner) = np.full(found, -1, np.int64), np.zeros((3, found), np.int64)
    judge(space.first, space.to, space.via, scc, space.enabled, n, always, ever, taken, inner)
    fair = ((inner > 0) & ((always & ~taken) == 0)) | ((inner == 0) & (always == 0))
    if not fair.any():
        return []
    order = np.flatnonzero(scc >= 0)
    order = order[np.argsort(scc[order], kind="stable")]
    bounds = np.searchsorted(scc[order], np.arange(found + 1))
    made = []
    for c in np.flatnonzero(fair):
        members, idle = order[bounds[c] : bounds[c + 1]], int(ever[c] & ~taken[c])
        made.append((members, idle & sleepers(graph, int(members[0])) if idle else 0))
    return made


def can_end(graph: Graph, component: Component) -> bool:
    """Whether the wait of a component can end: fair steps alone lead from it to a state in which the waiter does not
    wait. Then only an adverse schedule sustains it."""
    space, rest = graph.space, component.members.tolist()
    seen = np.zeros(graph.states, bool)
    seen[component.members] = True
    while rest:
        v = rest.pop()
        for e in _edges(graph, v):
            to = int(space.to[e])
            fair = int(space.enabled[v]) >> (int(space.via[e]) >> 16) & 1
            if fair and not seen[to]:
                if not int(space.pending[to]) >> component.waiter & 1:
                    return True
                seen[to] = True
                rest.append(to)
    return False


def sleepers(graph: Graph, number: int) -> int:
    """Returns the bit set of the threads that are at a strongly fair rule in state `number`."""
    rules, places = designs.of(graph.system.state).rules, enumerate(graph.unpack(number).task["pc"].tolist())
    return sum(1 << t for t, pc in places if pc in rules and rules[pc].fairness == STRONG)


def cycle_through(graph: Graph, component: Component, wanted: Sequence[Array] = ()) -> list[int]:
    """Returns a fair cycle (actor << 16 | choice) from the component's entry within it; empty to rest there.

    The shortest one; then, for each set of edges in `wanted` of which it passes none, a round trip through one; then a
    round trip for each strongly fair step that it starves.
    """
    members = set(component.members.tolist())
    way = _cycle(graph, component.entry, members)
    if not way:
        return []
    passed = set(_edges_of(graph, component.entry, way))
    for edges in wanted:
        some = set(edges.tolist())
        if some and not some & passed:
            way += _round_trip(graph, component.entry, members, some)
            passed = set(_edges_of(graph, component.entry, way))
    return _with_strong_steps(graph, component, members, way)


def _with_strong_steps(graph: Graph, component: Component, members: set[int], way: list[int]) -> list[int]:
    """Returns the cycle with a round trip added for each strongly fair step that is enabled on it and never taken."""
    space, asleep = graph.space, sleepers(graph, component.entry)
    while True:
        edges = _edges_of(graph, component.entry, way)
        states = [component.entry, *(int(space.to[e]) for e in edges)]
        stepped = {int(space.via[e]) >> 16 for e in edges}
        enabled = functools.reduce(lambda a, b: a | b, (int(space.enabled[v]) for v in states))
        starved = [t for t in range(len(graph.system.choices)) if asleep & enabled & 1 << t and t not in stepped]
        if not starved:
            return way
        steps = {
            e
            for v in members
            for e in _edges(graph, v)
            if int(space.via[e]) >> 16 == starved[0] and int(space.to[e]) in members
        }
        way = way + _round_trip(graph, component.entry, members, steps)


def _edges_of(graph: Graph, entry: int, way: Sequence[int]) -> list[int]:
    """Returns the edge numbers of a path."""
    here, found = entry, []
    for by in way:
        edge = next(e for e in _edges(graph, here) if int(graph.space.via[e]) == by)
        found.append(edge)
        here = int(graph.space.to[edge])
    return found


def _round_trip(graph: Graph, entry: int, members: set[int], wanted: set[int]) -> list[int]:
    """Returns a cycle from `entry` within `members` through one of the wanted edges."""
    out, at = _shortest(graph, entry, members, wanted, entry)
    back, _ = _shortest(graph, at, members, None, entry)
    return out + back


def _shortest(graph: Graph, start: int, members: set[int], wanted: set[int] | None, end: int) -> tuple[list[int], int]:
    """Returns the shortest path within `members` that ends with a wanted edge (None: at state `end`), and its last
    state."""
    if wanted is None and start == end:
        return [], start
    came: dict[int, tuple[int, int]] = {start: (-1, 0)}
    queue = deque([start])
    while queue:
        here = queue.popleft()
        for e in _edges(graph, here):
            to, by = int(graph.space.to[e]), int(graph.space.via[e])
            if to not in members:
                continue
            if e in wanted if wanted is not None else to == end:
                steps = [by]
                while came[here][0] >= 0:
                    here, by = came[here]
                    steps.append(by)
                return steps[::-1], to
            if to not in came:
                came[to] = (here, by)
                queue.append(to)
    raise AssertionError("the component is not strongly connected")


def _cycle(graph: Graph, entry: int, members: set[int]) -> list[int]:
    """Returns the shortest fair cycle from `entry` within `members`; empty to rest there.

    Breadth-first over (state, threads still owed a step, strongly fair threads that stepped). A thread that stepped is
    owed nothing. Until then a weakly fair step is owed while it was enabled in all states, a strongly fair one once it
    was enabled in one.
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
    raise AssertionError("the fair component has no fair cycle")


def _edges(graph: Graph, state: int) -> range:
    """Returns the edge numbers of a state."""
    return range(int(graph.space.first[state]), int(graph.space.first[state + 1]))


def _back(came: dict[tuple[int, int, int], tuple[tuple[int, int, int], int]], start: Any, here: Any) -> list[int]:
    """Returns the path from `start` to `here` along the predecessors `came`."""
    steps = []
    while here != start:
        here, by = came[here]
        steps.append(by)
    return steps[::-1]
