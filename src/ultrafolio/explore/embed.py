"""The part of a state graph that a file holds: the whole graph if it is small, else the counterexample and its
surroundings."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from ultrafolio.check.verdicts.replay import frozen
from ultrafolio.model.layout import State
from ultrafolio.nouns import plural

from .goto import Guide
from .node import node
from .page import meta
from .shapes import Node

MAX_BYTES = 2_500_000
"""The most bytes of embedded states of all policies, without page, style and script."""


class Pool:
    """Values kept once and named by number; `size` in bytes of JSON."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self.size = 0
        self._numbers: dict[str, int] = {}

    def __call__(self, value: Any) -> int:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        if text not in self._numbers:
            self._numbers[text] = len(self.values)
            self.values.append(value)
            self.size += len(text.encode()) + 1
        return self._numbers[text]


def data(guides: Sequence[Guide], command: str, *, max_bytes: int = MAX_BYTES) -> dict[str, Any]:
    """Everything a page without a server needs: {meta, pool, sizes, graphs: one a policy}.

    A node is [state rows, flags, folio, actors, [[move, target]], refused, broken, pending, stalls], with numbers into
    the pool; target -1 lies outside the file. `sizes`: rows of each section. Nodes are numbered from 0, the initial
    state.
    """
    walks, pool = [guide.walk for guide in guides], Pool()
    state = walks[0].system.state
    graphs: dict[int, dict[str, Any]] = {}
    # the smallest first: the others get the unused part of its share
    for number in sorted(range(len(guides)), key=lambda n: guides[n].result.states):
        left = max_bytes - pool.size - sum(len(json.dumps(graph)) for graph in graphs.values())
        graphs[number] = _graph(guides[number], pool, left // (len(guides) - len(graphs)))
    sizes = {name: len(getattr(state, name)) for name in meta(walks, command)["sections"]}
    in_order = [graphs[number] for number in range(len(guides))]
    return {"meta": meta(walks, command), "pool": pool.values, "sizes": sizes, "graphs": in_order}


def _graph(guide: Guide, pool: Pool, most: int) -> dict[str, Any]:
    """One policy's states up to `most` bytes: those of the counterexample first, then the nearest to it."""
    walk, story = guide.walk, guide.story
    numbers: dict[Any, int] = {}
    queue: deque[tuple[State, int]] = deque()

    def number(state: State, level: int) -> int:
        key = frozen(state)
        if key not in numbers:
            numbers[key] = len(numbers)
            queue.append((state, level))
        return numbers[key]

    for state in walk.follow([*story.path, *story.loop]).states:
        number(state, 0)
    nodes: list[Any] = []
    size, level, before = 0, 0, pool.size
    while queue and (queue[0][1] == 0 or pool.size - before + size < most):
        state, level = queue.popleft()
        moves = walk.moves(state)
        targets = [number(move.after, level + 1) for move in moves if move.after]
        nodes.append(_compact(node(walk, state, moves), targets, pool))
        size += len(json.dumps(nodes[-1], separators=(",", ":"))) + 1
    for made in nodes:
        for edge in made[4]:
            edge[1] = edge[1] if edge[1] < len(nodes) else -1
    return {"story": asdict(story), "coverage": _coverage(guide, len(nodes), queue), "nodes": nodes}


def _coverage(guide: Guide, held: int, left: deque[tuple[State, int]]) -> str:
    """A sentence about the part in the file. `left`: states that were reached and left out, the nearest first."""
    if not left:
        return f"all {plural(held, 'state')} of the graph"
    around = "the story" if guide.story.exists else "the initial state"
    whole = left[0][1] - 1
    near = "and some next to it"
    if whole:
        near = f"everything within {plural(whole, 'step')} of it, and some beyond"
    of = (
        f"{held} of {plural(guide.result.states, 'state')}"
        if guide.result.complete
        else f"{plural(held, 'state')} of a larger graph"
    )
    return f"{of}: {around}, {near}"


def _compact(made: Node, targets: Sequence[int], pool: Pool) -> list[Any]:
    """Returns a node as a list, its parts as numbers of the pool; `targets`: the node behind each enabled move."""
    rows = [pool(row) for section in made["state"].values() for row in section]
    moves = [[pool(move), target] for move, target in zip(made["enabled"], targets, strict=True)]
    refused = [pool(move) for move in made["refused"]]
    actors = [pool(doing) for doing in made["actors"]]
    stalls = [pool(some) for some in made["stalls"]]
    return [
        rows,
        pool(made["flags"]),
        pool(made["folio"]),
        actors,
        moves,
        refused,
        made["broken"],
        made["pending"],
        stalls,
    ]
