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
from ultrafolio.search.asking.system import Setting
from ultrafolio.search.space import Values

Array = np.ndarray[Any, Any]


def box_of(setting: Setting, graph: Graph, values: Values, box: int) -> int:
    """The box of the policies that have this graph, of a policy that has it, within the setting's box."""
    policy, parts = setting.live.space.bits(values), _Parts(setting, graph)
    for key, t, number in parts.pairs():
        ways = setting.pairs.get(key)
        if ways is None:
            setting.live.load(parts.sections(number))
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


class _Parts:
    """A graph's states, taken apart: pages, machines and actors. The content of a part has a number in its setting, and
    so have the contents of all pages and machines, or of all actors, together."""

    def __init__(self, setting: Setting, graph: Graph) -> None:
        space, n = graph.space, graph.states
        self._setting, self._graph, self._numbers = setting, graph, dict[int, int]()
        values = [(space.node[:n, f["word"]] >> f["shift"]) & f["mask"] for f in space.fields]
        self._widths: list[int] = space.region_width.tolist()
        self._regions, self._short = values[: len(self._widths)], values[len(self._widths) :]
        self._shared = np.zeros(n, np.int64)
        for mine in self._regions:
            self._shared = _together(self._shared, mine)[1]
        firsts = np.unique(self._shared, return_index=True)[1].tolist()
        self._vectors = [self._memory(number) for number in firsts]
        ids = [self._ids(t, int(mine.max())) for t, mine in enumerate(self._short)]
        self._actors = np.array([known[mine] for known, mine in zip(ids, self._short, strict=True)], np.int64).T

    def _ids(self, t: int, most: int) -> Array:
        """The content of each part that actor `t` has, by its short id."""
        return np.array(
            [self._content(part) for part in self._graph.space.short_parts[t, : most + 1].tolist()], np.int64
        )

    def _content(self, part: int) -> int:
        """The number of a part's content."""
        if part not in self._numbers:
            known = self._setting.parts
            self._numbers[part] = known.setdefault(self._graph.space.part_words[part].tobytes(), len(known))
        return self._numbers[part]

    def _memory(self, number: int) -> tuple[int, ...]:
        """The contents of the pages, then of the machines, of a state."""
        space, parts = self._graph.space, np.zeros(sum(self._widths), np.int64)
        for r, wide in enumerate(self._widths):
            parts[space.region_places[r, :wide]] = space.memories[r, self._regions[r][number], :wide]
        return tuple(map(self._content, parts.tolist()))

    def sections(self, number: int) -> Any:
        """A state's sections as replay.frozen() has them, from the rows of parts that were unpacked before."""
        rows, vector = self._setting.rows, self._vectors[int(self._shared[number])]
        pages = len(self._graph.system.state.mm)
        parts = {"page": vector[:pages], "machine": vector[pages:], "actor": self._actors[number].tolist()}
        kinds = [_KINDS.get(name, "page") for name in self._graph.system.state._fields[2:]]
        keys = [[(at, part) for part in parts[kind]] for at, kind in enumerate(kinds)]
        try:
            return tuple([tuple([rows[key] for key in some]) for some in keys])
        except KeyError:
            whole = tuple(tuple(section.tolist()) for section in self._graph.unpack(number)[2:])
            for some, section in zip(keys, whole, strict=True):
                rows.update(zip(some, section, strict=True))
            return whole

    def pairs(self) -> Iterator[tuple[Any, int, int]]:
        """Each pair of the memory and one actor: a key for what it consists of, the actor, and the number of a state
        that has it."""
        setting, shared = self._setting, self._shared.tolist()
        local, after = local_rules(setting.design), self._graph.system.state.who["after"]
        vectors = [setting.vectors.setdefault(vector, len(setting.vectors)) for vector in self._vectors]
        for t, mine in enumerate(self._short):
            first, inverse = _together(self._shared, mine)
            far = []
            for at, (number, part) in enumerate(zip(first.tolist(), self._actors[first, t].tolist(), strict=True)):
                key = t, vectors[shared[number]], part
                if key not in setting.pairs and (after[t] or not local[setting.pc_of(self.sections(number), t)]):
                    far.append(at)
                else:
                    yield key, t, number
            for number in np.flatnonzero(np.isin(inverse, far)).tolist() if far else ():
                yield (t, vectors[shared[number]], *self._actors[number].tolist()), t, number


_KINDS = {"vm": "machine", "task": "actor", "actor": "actor"}
"""Section -> whose records it has, where they are not those of pages."""


def _together(one: Array, other: Array) -> tuple[Array, Array]:
    """Number the pairs that two arrays make. Returns the first place of each pair, and the pair of each place."""
    _, first, inverse = np.unique(one * (int(other.max()) + 1) + other, return_index=True, return_inverse=True)
    return first, inverse.reshape(-1)
