"""The explicit graph of a system, and where a fair run can wait for ever: written out slowly and plainly.

It has the rules in common with the checker, as plain Python, and nothing else.

    explored(system)     every state, with every step; TooLarge beyond a limit of states
    waits(graph, actor)  the sets of states in which a fair run leaves the actor waiting for ever
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from types import SimpleNamespace
from typing import Any, NamedTuple

from ultrafolio.engine.load import interpreted_of
from ultrafolio.model import designs
from ultrafolio.model import layout as at
from ultrafolio.model.guest_memfd import layout as memfd
from ultrafolio.model.rule import STRONG, UNFAIR
from ultrafolio.model.scenario import System

LIMIT = 20_000
DEVICES = {at.DISK, at.RING, at.PIN, at.INTERRUPT}
"""Kinds that ask for a pin."""
ACCESSIBLE = {at.ACC_TEST, at.ACC_PIN, at.ACC_EXPORT, at.ACC_CLEAR}
ASKING = {at.PIN_GET, *ACCESSIBLE}


class TooLarge(Exception):
    """A system has more states than were asked for."""


class Edge(NamedTuple):
    """One step. page: what it is about; broke: the number of a property, or 0; fair: whether its rule is."""

    actor: int
    choice: int
    pc: int
    page: int
    outcome: int
    broke: int
    fair: bool
    to: int


@dataclass
class Graph:
    """Every reachable state, numbered breadth-first, and what may be done in it.

    depth    steps to a state
    edges    its steps
    fair     (actor, pc) of each thread whose fair step is enabled
    refused  {actor: (pc, outcome)} of each thread that is under way and has no step now
    pending  the actors that have begun something and not ended it
    rules    the steps of the system's design, by place
    """

    states: list[at.State] = field(default_factory=list)
    depth: list[int] = field(default_factory=list)
    edges: list[list[Edge]] = field(default_factory=list)
    fair: list[set[tuple[int, int]]] = field(default_factory=list)
    refused: list[dict[int, tuple[int, int]]] = field(default_factory=list)
    pending: list[set[int]] = field(default_factory=list)
    rules: Any = field(default_factory=dict)


# ------------------------------------------------------------------------------------------------- the graph
@cache
def row(names: tuple[str, ...]) -> Any:
    """A record as a tuple with field names."""
    return NamedTuple("Row", [(word, int) for word in names])  # type: ignore[misc]


class Rows:
    """The records of a section, for rules to change: each is copied when it is first looked at."""

    def __init__(self, kind: Any, rows: tuple[Any, ...]) -> None:
        self.kind, self.rows, self.copies = kind, rows, dict[int, Any]()

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, n: int) -> Any:
        if n not in self.copies:
            self.copies[n] = SimpleNamespace(**self.rows[n]._asdict())
        return self.copies[n]

    def fixed(self) -> tuple[Any, ...]:
        changed = {n: self.kind(*vars(copy).values()) for n, copy in self.copies.items()}
        return tuple([changed.get(n, record) for n, record in enumerate(self.rows)])


def loose(state: at.State) -> at.State:
    """A copy that rules may change."""
    return type(state)(*(Rows(type(rows[0]), rows) for rows in state))


def explored(made: System, rules: Any = None, most: int = LIMIT) -> Graph:
    """All interleavings. TooLarge with more than `most` states."""
    run, design = rules or interpreted_of(made.state), designs.of(made.state)
    graph, kind = Graph(rules=design.rules), type(made.state)
    first = kind(*(tuple(row(rows.dtype.names)(*record) for record in rows.tolist()) for rows in made.state))
    number = {first: 0}
    queue = deque([(first, 0)])
    while queue:
        state, depth = queue.popleft()
        steps: list[Edge] = []
        fair, refused = set(), {}
        after = loose(state)
        for t, choices in enumerate(made.choices):
            pc = state.task[t].pc
            idle = pc == design.idle[state.who[t].kind]
            for choice, (op, page) in enumerate(choices if idle else [(at.NOTHING, 0)]):
                about = run.focus(state, t, page)
                outcome = run.step(after, t, op, page)
                if outcome < 0:  # nothing has changed
                    refused |= {} if idle else {t: (pc, outcome)}
                    continue
                broke = run.broken(after, t, pc, about, state.uv[about].state, outcome)
                is_fair = not idle and design.rules[pc].fairness != UNFAIR
                fair |= {(t, pc)} if is_fair else set()
                target = kind(*(rows.fixed() for rows in after))
                if target not in number:
                    number[target] = len(number)
                    queue.append((target, depth + 1))
                    if len(number) > most:
                        raise TooLarge(f"more than {most} states")
                steps.append(Edge(t, choice, pc, about, outcome, broke, is_fair, number[target]))
                after = loose(state)
        graph.states.append(state)
        graph.depth.append(depth)
        graph.edges.append(steps)
        graph.fair.append(fair)
        graph.refused.append(refused)
        begun = is_pending if design is designs.S390 else is_pending_memfd
        graph.pending.append({t for t in range(len(made.choices)) if begun(state, t)})
    return graph


def is_pending(s: at.State, t: int) -> bool:
    """Whether the actor has begun an access, a pin or a write-back, and not ended it; I/O that was made never to
    complete is owed no end."""
    kind, pc = s.who[t].kind, s.task[t].pc
    if kind == at.VCPU:
        return bool(s.actor[t].op != at.NOTHING)
    if kind in DEVICES:
        return pc in ASKING
    return bool(kind == at.WRITEBACK and pc != at.WB_IDLE and not (pc == at.WB_END and s.who[t].stuck))


def is_pending_memfd(s: at.State, t: int) -> bool:
    """The same in the design guest_memfd: a fault that has not exited to the VMM, a request, a pin."""
    kind, pc = s.who[t].kind, s.task[t].pc
    if kind == at.VCPU:
        return bool(s.actor[t].op != at.NOTHING and pc != memfd.EXITED)
    if kind in (at.DISK, at.PIN, memfd.SPLICE):
        return pc in (
            memfd.GUP_WALK,
            memfd.GUP_GET,
            memfd.GUP_RECHECK,
            memfd.USER_LOCK,
            memfd.USER_LOOKUP,
            memfd.USER_MAP,
            memfd.FRESH_UNLOCK,
            memfd.FRESH_SPLIT,
        )
    return kind in (memfd.USER, memfd.VMM) and pc != memfd.IDLE_PC[kind]


# -------------------------------------------------------------------------------------------- fair components
def strongly_connected(graph: Graph, inside: set[int]) -> Iterator[set[int]]:
    """Returns the strongly connected components of the states `inside`: Kosaraju, two searches."""
    back: dict[int, list[int]] = {v: [] for v in inside}
    for v in inside:
        for edge in graph.edges[v]:
            if edge.to in inside:
                back[edge.to].append(v)
    left, seen = [], set()
    for root in sorted(inside):
        if root in seen:
            continue
        seen.add(root)
        stack = [(root, iter(graph.edges[root]))]
        while stack:
            v, rest = stack[-1]
            to = next((edge.to for edge in rest if edge.to in inside and edge.to not in seen), None)
            if to is None:
                left.append(stack.pop()[0])
            else:
                seen.add(to)
                stack.append((to, iter(graph.edges[to])))
    while left:
        root = left.pop()
        if root not in seen:
            continue
        part, todo = set(), [root]
        seen.discard(root)
        while todo:
            v = todo.pop()
            part.add(v)
            new = [u for u in back[v] if u in seen]
            seen.difference_update(new)
            todo += new
        yield part


def waits(graph: Graph, t: int) -> list[set[int]]:
    """The components of actor `t`: largest strongly connected sets of states in which it waits and in which a fair run
    can stay for ever, and single states out of which no fair step leads.

    Fair: a thread whose fair step is enabled in every state of the set steps in it; a strongly fair step that is
    enabled in one of its states is taken in it. Where one is not, the states in which it is enabled cannot be part.
    """
    found = []
    todo = [{v for v, waiting in enumerate(graph.pending) if t in waiting}]
    while todo:
        for part in strongly_connected(graph, todo.pop()):
            inner = [edge for v in part for edge in graph.edges[v] if edge.to in part]
            enabled = set().union(*(graph.fair[v] for v in part))
            if not inner:
                found += [] if enabled else [part]
                continue
            always = set.intersection(*({a for a, _ in graph.fair[v]} for v in part))
            if always - {edge.actor for edge in inner}:
                continue
            strong = {(a, pc) for a, pc in enabled if graph.rules[pc].fairness == STRONG}
            starved = strong - {(edge.actor, edge.pc) for edge in inner}
            if starved:
                todo.append({v for v in part if not starved & graph.fair[v]})
            else:
                found.append(part)
    return sorted(found, key=min)
