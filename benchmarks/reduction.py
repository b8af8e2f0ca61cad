"""How far a reduction of interleavings could go, for safety: an experiment on the graphs of the checker.

    python benchmarks/reduction.py [--quick] [--json] [--most STATES]

Two reduced searches go over the whole graph of a system, each with persistent sets: threads of which no step depends on
what the others can do before one of them steps.

    ceiling      dependence in the very state, and what the others can do is read off the graph. No dependence analysis
                 gives smaller sets.
    remembered   dependence and what the others can do by thread parts, over all memories: what a search could remember.

Two steps are independent in a state if neither changes what the other may choose or breaks, and both orders end in the
same state. Each search takes a smallest set with a step to a state that is not yet expanded; else all steps. Exit 1
when a search finds another set of violated properties, or of states that have no step, than the whole graph has.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from ultrafolio.check.search import graph as checker
from ultrafolio.check.verdicts.replay import copied
from ultrafolio.engine.load import interpreted_of
from ultrafolio.model import designs, scenario
from ultrafolio.model.layout import IDLE_PC
from ultrafolio.model.policies import PRESETS, find_any
from ultrafolio.model.scenario import System

ROOT = Path(__file__).parent.parent
LARGE = 1_000
"""States from which a system counts for the goals."""
QUICK, MOST = 300, 16_000
"""States beyond which a system is left out."""
GOALS = {"one folio": 1 / 3, "many folios": 1 / 10}
Array = np.ndarray[Any, Any]
Step = tuple[int, int, int]
"""Of an actor in a state: its choice, the number of the property that it breaks, the state after it."""
Row = dict[str, Any]


class Small:
    """The graph of a system as lists.

    steps   per state and actor: its Steps
    parts   per state and actor: the number of the actor's part
    """

    def __init__(self, system: System, most: int) -> None:
        """Explores the system. ValueError for more states."""
        graph = checker.explore(system, max_states=most)
        if not graph.complete:
            raise ValueError("too large")
        space, self.actors = graph.space, len(system.choices)
        broken = bool((space.found["state"] >= 0).any())
        to, via = space.to[: graph.edges].tolist(), space.via[: graph.edges].tolist()
        first = space.first[: graph.states + 1].tolist()
        self.steps: list[list[list[Step]]] = []
        for number in range(graph.states):
            mine: list[list[Step]] = [[] for _ in range(self.actors)]
            for edge in range(first[number], first[number + 1]):
                t, choice = via[edge] >> 16, via[edge] & 0xFFFF
                mine[t].append((choice, _broken(system, graph, number, t, choice) if broken else 0, to[edge]))
            self.steps.append(mine)
        fields = space.fields.tolist()[len(space.region_width) :]
        rows = space.node[: graph.states]
        self.parts = np.stack([rows[:, word] >> shift & mask for word, shift, mask, _ in fields], axis=1)

    def labels(self, number: int, t: int) -> list[tuple[int, int]]:
        """What an actor may choose in a state, and what each choice breaks."""
        return [step[:2] for step in self.steps[number][t]]

    def is_dependent(self, number: int, t: int, u: int) -> bool:
        """Whether a step of `u` changes what `t` may do, or one of `t` that of `u`, or their order matters."""
        steps, here = self.steps, self.steps[number]
        for _, _, after_u in here[u]:
            if self.labels(after_u, t) != self.labels(number, t):
                return True
        for i, (_, _, after_t) in enumerate(here[t]):
            if self.labels(after_t, u) != self.labels(number, u):
                return True
            for j, (_, _, after_u) in enumerate(here[u]):
                if steps[after_t][u][j][2] != steps[after_u][t][i][2]:
                    return True
        return False


def _broken(system: System, graph: checker.Graph, number: int, t: int, choice: int) -> int:
    """The number of the property that a step breaks, or 0."""
    run, state = interpreted_of(designs.of(system.state)), copied(graph.lists(number))
    pc = state.task[t].pc
    op, page = system.choices[t][choice] if pc == IDLE_PC[state.who[t].kind] else (0, 0)
    p = run.focus(state, t, page)
    was = state.uv[p].state
    return int(run.broken(state, t, pc, p, was, run.step(state, t, op, page)))


Sets = Callable[[int], Iterable[tuple[int, ...]]]
"""Returns the persistent sets of actors of a state that have a step, smallest first."""


def subsets(actors: int) -> Iterator[tuple[int, ...]]:
    """Yields every set of actors but the empty and the whole one, small ones first."""
    for size in range(1, actors):
        yield from combinations(range(actors), size)


def exact(small: Small) -> dict[tuple[int, ...], Array]:
    """Returns per set of actors: whether it is persistent, by state. A set is not where the others can lead to a state
    in which a step of theirs is dependent on one of the set."""
    states, actors = len(small.steps), small.actors
    depends = np.zeros((actors, actors, states), bool)
    for number in range(states):
        for t, u in combinations(range(actors), 2):
            depends[t, u, number] = depends[u, t, number] = small.is_dependent(number, t, u)
    able = np.array([[bool(some) for some in here] for here in small.steps])
    before: list[list[tuple[int, int]]] = [[] for _ in range(states)]
    for number, here in enumerate(small.steps):
        for t, some in enumerate(here):
            for _, _, after in some:
                before[after].append((t, number))
    made = {}
    for chosen in subsets(actors):
        others = [u for u in range(actors) if u not in chosen]
        bad = np.zeros(states, bool)
        for t in chosen:
            for u in others:
                bad |= depends[t, u] & able[:, u]
        left = np.flatnonzero(bad).tolist()
        while left:
            for u, source in before[left.pop()]:
                if not bad[source] and u not in chosen:
                    bad[source] = True
                    left.append(source)
        made[chosen] = ~bad & able[:, list(chosen)].any(axis=1)
    return made


def remembered(small: Small) -> dict[tuple[int, ...], Array]:
    """The same where a dependence of two thread parts in any state counts in all, and a thread can come to each part
    that steps of its own lead to in any state."""
    states, actors = len(small.steps), small.actors
    sizes = [int(small.parts[:, t].max()) + 1 for t in range(actors)]
    able = np.array([[bool(some) for some in here] for here in small.steps])
    comes_to = [np.eye(size, dtype=bool) for size in sizes]
    for number, here in enumerate(small.steps):
        for t, some in enumerate(here):
            for _, _, after in some:
                comes_to[t][small.parts[number, t], small.parts[after, t]] = True
    for reach in comes_to:
        for middle in range(len(reach)):
            reach |= reach[:, middle : middle + 1] & reach[middle]
    depends = np.zeros((actors, actors, states), bool)
    for t in range(actors):
        for u in range(actors):
            if t != u:
                found = np.zeros((sizes[t], sizes[u]), bool)
                for number in range(states):
                    a, b = small.parts[number, t], small.parts[number, u]
                    if not found[a, b] and able[number, u]:
                        found[a, b] = small.is_dependent(number, t, u)
                depends[t, u] = (found @ comes_to[u].T)[small.parts[:, t], small.parts[:, u]]
    made = {}
    for chosen in subsets(actors):
        bad = np.zeros(states, bool)
        for t in chosen:
            for u in range(actors):
                if u not in chosen:
                    bad |= depends[t, u]
        made[chosen] = ~bad & able[:, list(chosen)].any(axis=1)
    return made


def search(small: Small, persistent: dict[tuple[int, ...], Array]) -> tuple[int, set[int], set[int]]:
    """Search breadth-first with persistent sets. Returns the states reached, the properties broken, and the states
    without a step."""
    everyone = tuple(range(small.actors))
    reached, expanded, queue = {0}, set[int](), deque([0])
    wrong, stuck = set[int](), set[int]()
    while queue:
        number = queue.popleft()
        here = small.steps[number]
        expanded.add(number)
        chosen = everyone
        fewest = sum(map(len, here))
        for some, is_one in persistent.items():
            size = sum(len(here[t]) for t in some)
            if is_one[number] and size < fewest and any(step[2] not in expanded for t in some for step in here[t]):
                chosen, fewest = some, size
        if not any(here):
            stuck.add(number)
        for t in chosen:
            for _, broke, after in here[t]:
                wrong |= {broke} - {0}
                if after not in reached:
                    reached.add(after)
                    queue.append(after)
    return len(reached), wrong, stuck


# ------------------------------------------------------------------------------------------------- the table
TWO_FOLIOS = {
    "title": "two like guests, a folio of two pages each",
    "memory": {"folios": [1, 1], "state": ["shared", "exported"] * 2, "owner": [0, 0, 1, 1]},
    "vcpu": [{"guest": 0, "touch": [1]}, {"guest": 1, "touch": [3]}],
    "disk": [{"guest": 0, "page": 0}, {"guest": 1, "page": 2}],
}


def systems(quick: bool) -> Iterator[tuple[str, str, System]]:
    """Yields name, kind and system: every scenario of s390 under its policies, and two folios that share no actor."""
    for path in sorted((ROOT / "scenarios").glob("*.toml"))[: 6 if quick else None]:
        story = scenario.read(path)
        for policy in story.expect:
            yield f"{path.stem}, {policy}", "one folio", scenario.system(story, find_any(policy, story.tables))
    for policy in sorted(PRESETS)[: 1 if quick else None]:
        made = scenario.system(scenario.parse(TWO_FOLIOS, "two folios"), find_any(policy))
        yield f"two folios, {policy}", "many folios", made


def measured(name: str, kind: str, system: System, most: int) -> Row | None:
    """One row, or None for a system that is too large or has one actor. AssertionError where a search loses
    something."""
    if len(system.choices) < 2:
        return None
    try:
        small = Small(system, most)
    except ValueError:
        return None
    row: Row = {"system": name, "kind": kind, "states": len(small.steps)}
    whole = search(small, {})
    for way, sets in (("remembered", remembered), ("ceiling", exact)):
        states, *found = search(small, sets(small))
        if found != [*whole[1:]]:
            raise AssertionError(f"{name}: {way} finds {found}, not {whole[1:]}")
        row[way] = states
    return row


def summed(rows: list[Row]) -> list[Row]:
    """A row for each kind of system: geometric means of the parts of the states that are left."""
    made = []
    for kind, goal in GOALS.items():
        some = [row for row in rows if row["kind"] == kind and row["states"] >= LARGE]
        if some:
            left = {
                way: math.exp(sum(math.log(row[way] / row["states"]) for row in some) / len(some))
                for way in ("remembered", "ceiling")
            }
            share = math.log(left["remembered"]) / math.log(left["ceiling"])
            each = sum(row["remembered"] <= goal * row["states"] for row in some)
            met = "" if left["remembered"] <= goal else ": NO"
            made.append({"systems": kind, "how many": len(some), **left, "share of the ceiling": share,
                         "goal": f"<= {goal:.2g}{met}", "that reach it": each})  # fmt: skip
    return made


def main() -> int:
    parser = argparse.ArgumentParser(description="Reduction of interleavings; see benchmarks/checker.md.")
    parser.add_argument("--quick", action="store_true", help="few and small systems: for tests")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    parser.add_argument("--most", type=int, default=MOST, help=f"states of the largest system [default: {MOST}]")
    options = parser.parse_args()
    rows: list[Row] = []
    try:
        for name, kind, system in systems(options.quick):
            row = measured(name, kind, system, QUICK if options.quick else options.most)
            if row:
                rows.append(row)
                print(name, row, file=sys.stderr, flush=True)
    except AssertionError as error:
        print(f"not equal: {error}", file=sys.stderr)
        return 1
    print(json.dumps({"systems": rows, "goals": summed(rows)}) if options.json else table(rows))
    return 0


def table(rows: list[Row]) -> str:
    """The sums, and the systems that count, as Markdown."""
    large = [{k: v for k, v in row.items() if k != "kind"} for row in rows if row["states"] >= LARGE]
    return "\n\n".join(markdown(some) for some in (summed(rows), large) if some)


def markdown(rows: list[Row]) -> str:
    """Rows as a Markdown table."""

    def word(value: Any) -> str:
        return f"{value:,}" if isinstance(value, int) else f"{value:.2g}" if isinstance(value, float) else str(value)

    lines = [list(rows[0]), ["---"] * len(rows[0]), *([word(value) for value in row.values()] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    sys.exit(main())
