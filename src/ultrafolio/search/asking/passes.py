"""The box of the policies that have one and the same state graph: what one verdict says of each of them.

A step depends on the pages and machines (a graph's shared vector) and on its actor's own part, so each such pair of the
graph is asked once, over the whole space, and remembered for the graphs of other policies. A rule that reads other
threads is asked in every state. What is asked of a pair is all that the graph has of it: each step, what it changes and
breaks; that it waits; and whether the actor has begun what a leads-to must end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ultrafolio.check.search.graph import Graph
from ultrafolio.check.search.thread_local import local_rules
from ultrafolio.check.verdicts.replay import frozen
from ultrafolio.engine.interp import to_lists
from ultrafolio.model.layout import State
from ultrafolio.search.asking.system import Setting
from ultrafolio.search.space import Values

Array = np.ndarray[Any, Any]


def box_of(setting: Setting, graph: Graph, values: Values, box: int) -> int:
    """The box of the policies that have this graph, of a policy that has it, within the setting's box."""
    policy = setting.live.space.bits(values)
    for key, t, number, state in _pairs(setting, graph):
        ways = setting.pairs.get(key)
        if ways is None:
            setting.live.load(frozen(to_lists(state) if state else graph.lists(number)))
            ways = setting.pairs[key] = setting.live.ways(_everything(setting, t), values)
        if len(ways.leaves) > 1:
            box &= ways.around(policy)[0]
    return box


def _everything(setting: Setting, t: int) -> Callable[[Any], Any]:
    """The question what actor `t` can do, as the search for states asks it (check/search/memo.py: run_steps)."""

    def asked(state: Any) -> Any:
        pc = state.task[t].pc
        idle = pc == setting.design.idle[state.who[t].kind]
        count = len(setting.choices[t]) if idle else 1
        moves = tuple(setting.one(state, t, choice) for choice in range(count))
        return moves, bool(setting.run.is_pending(state, t))

    return asked


def _pairs(setting: Setting, graph: Graph) -> Iterator[tuple[Any, int, int, State | None]]:
    """Each pair of the graph: a key for what it consists of, the actor, the number of a state that has it, and this
    state if it is unpacked."""
    space, n = graph.space, graph.states
    values = [(space.node[:n, f["word"]] >> f["shift"]) & f["mask"] for f in space.fields]
    widths = space.region_width.tolist()
    short, shared = values[len(widths) :], np.zeros(n, np.int64)
    for mine in values[: len(widths)]:
        shared = _together(shared, mine)[1]
    contents: dict[int, int] = {}

    def content(part: int) -> int:
        if part not in contents:
            contents[part] = setting.parts.setdefault(space.part_words[part].tobytes(), len(setting.parts))
        return contents[part]

    def whole(number: int) -> Any:
        return tuple(content(int(space.short_parts[t, mine[number]])) for t, mine in enumerate(short))

    def memory(number: int) -> tuple[int, ...]:
        parts = np.zeros(sum(widths), np.int64)
        for r, wide in enumerate(widths):
            parts[space.region_places[r, :wide]] = space.memories[r, values[r][number], :wide]
        return tuple(content(part) for part in parts.tolist())

    vectors = [memory(number) for number in np.unique(shared, return_index=True)[1].tolist()]
    local, after = local_rules(setting.design), graph.system.state.who["after"]
    for t, mine in enumerate(short):
        first, inverse = _together(shared, mine)
        far = []
        for at, number in enumerate(first.tolist()):
            vector, part = vectors[int(shared[number])], content(int(space.short_parts[t, mine[number]]))
            state = graph.unpack(number) if (t, vector, part) not in setting.pairs else None
            if state and (not local[int(state.task["pc"][t])] or after[t]):
                far.append(at)
            else:
                yield (t, vector, part), t, number, state
        for number in np.flatnonzero(np.isin(inverse, far)).tolist() if far else ():
            yield (t, vectors[int(shared[number])], whole(number)), t, number, None


def _together(one: Array, other: Array) -> tuple[Array, Array]:
    """Number the pairs that two arrays make. Returns the first place of each pair, and the pair of each place."""
    _, first, inverse = np.unique(one * (int(other.max()) + 1) + other, return_index=True, return_inverse=True)
    return first, inverse.reshape(-1)
