"""Why a leads-to holds: short runs in which what it speaks of is begun and ends, each replayed by the interpreter."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ultrafolio.check.search.graph import Graph
from ultrafolio.check.verdicts.replay import NotCertified, Step, is_pending, replay
from ultrafolio.check.verdicts.verdict import Finding, Result
from ultrafolio.model import designs
from ultrafolio.model.scenario import System
from ultrafolio.waits import telling

MOST_RUNS = 3
"""Most runs for a property."""
MOST_EDGES, MOST_ENDS = 5_000_000, 2000
"""How many edges, of the nearest states, and how many ends among them are looked at."""


@dataclass(frozen=True, slots=True)
class Witness:
    """A run that begins with the initial state; its last step ends what actor `waiter` had begun.

    wait   what it waited for on the way, in words, or ""
    """

    name: str
    waiter: str
    steps: list[Step] = field(repr=False)
    wait: str = ""

    def record(self) -> dict[str, Any]:
        """Returns the run as a JSON object."""
        return {"waiter": self.waiter, "wait": self.wait or None, "trace": [step.record() for step in self.steps]}


def witnesses(graph: Graph, result: Result) -> dict[str, list[Witness]]:
    """Returns for each leads-to that holds, and not trivially, up to MOST_RUNS runs: first those that wait on the way,
    then the shortest, each of another actor or page. `graph` is the whole graph of `result`, with edges."""
    every = designs.of(graph.system.state).leads_to
    held = {
        name
        for name in every
        if all(one.verdict == "holds" and not one.trivial for one in result.findings if one.name == name)
    }
    made: dict[str, list[Witness]] = {name: [] for name in every if name in held}
    for finding in result.findings:
        if finding.name in made and finding.kind == "transient" and len(made[finding.name]) < MOST_RUNS:
            made[finding.name] += _after_a_wait(graph, finding)
    keys = set[tuple[str, int, int]]()
    for t, path in _ends(graph):
        if all(len(some) >= MOST_RUNS for some in made.values()):
            break
        run = _certified(graph.system, path, t)
        if run is None or run.name not in made or len(made[run.name]) >= MOST_RUNS:
            continue
        key = (run.name, t, run.steps[-1].page)
        if key not in keys:
            keys.add(key)
            made[run.name].append(run)
    return made


def _after_a_wait(graph: Graph, finding: Finding) -> Iterator[Witness]:
    """The run that goes on from a transient wait to its end; none if the nearest end is no access."""
    assert finding.actor is not None and finding.wait is not None
    onward = _onward(graph, finding.entry, finding.actor)
    path = [*(step.by for step in finding.steps), *onward]
    run = _certified(graph.system, path, finding.actor) if onward else None
    if run is not None and run.name == finding.name:
        yield Witness(run.name, run.waiter, run.steps, finding.wait.line())


def _onward(graph: Graph, start: int, t: int) -> list[int]:
    """Returns a shortest path from state `start` to the end of what actor `t` has begun; [] if there is none."""
    space, before = graph.space, {start: (-1, 0)}
    queue = deque([start])
    while queue:
        here = queue.popleft()
        for edge in range(int(space.first[here]), int(space.first[here + 1])):
            after, by = int(space.to[edge]), int(space.via[edge])
            if by >> 16 == t and not int(space.pending[after]) >> t & 1:
                path = [by]
                while here != start:
                    here, by = before[here]
                    path.append(by)
                return path[::-1]
            if after not in before:
                before[after] = (here, by)
                queue.append(after)
    return []


def _ends(graph: Graph) -> Iterator[tuple[int, list[int]]]:
    """Every actor's ends of what it had begun, the nearest first: (actor, a shortest path with the step that ends
    it)."""
    space, n = graph.space, graph.states
    edges = min(int(space.first[n]), MOST_EDGES)
    source = np.searchsorted(space.first[: n + 1], np.arange(edges), "right") - 1
    t = space.via[:edges].astype(np.int64) >> 16
    was, now = (space.pending[at].astype(np.int64) >> t & 1 for at in (source, space.to[:edges]))
    for edge in np.flatnonzero((was == 1) & (now == 0))[:MOST_ENDS].tolist():
        yield int(t[edge]), [*graph.path(int(source[edge])), int(space.via[edge])]


def _certified(system: System, path: Sequence[int], t: int) -> Witness | None:
    """Returns the run of a path, by the interpreter; None if its last step ends the wait of `t` in another way: the
    guest was stopped or killed. Raises NotCertified if it is not possible or ends no wait."""
    steps, state = replay(system, path)
    _, before = replay(system, path[:-1])
    if not is_pending(before, t) or is_pending(state, t) or steps[-1].actor != t:
        raise NotCertified(f"the last step ends nothing that actor {t} had begun")
    told = telling.of(before)
    if not told.is_met(before.who[t].kind, steps[-1].outcome):
        return None
    return Witness(told.owed(before, t), told.name(before, t), steps)
