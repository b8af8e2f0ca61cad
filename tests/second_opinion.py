"""A second opinion on stalls: the definition written out over an explicit graph, slowly and plainly.

It has the rules in common with the checker, as plain Python, and nothing else: own graph, own components, own words.
What may grow is in tables: a new outcome, rule, kind of device or kind of reference is one line.

    opinion(system)           every verdict on a system; TooLarge beyond a limit of states
    explored(system)          its states, with every step
    waits(graph, actor)       the sets of states in which a fair run leaves the actor waiting for ever
    judged(graph, actor, w)   class, mark, obstacles and holders of one of them
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache, cached_property
from types import SimpleNamespace
from typing import Any, NamedTuple

from ultrafolio.engine.interp import to_lists
from ultrafolio.engine.load import interpreted
from ultrafolio.model import layout as at
from ultrafolio.model.rule import RULES, STRONG, UNFAIR
from ultrafolio.model.scenario import System

LIMIT = 20_000
CLASSES = ("safety", "fatal", "permanent", "livelock", "transient")
TOUCH, UNSHARE, PIN, WRITEBACK = ("touch leads to access", "unshare leads to secure",
                                  "pin leads to granted or refused", "writeback leads to ended")  # fmt: skip
ORDER = ("mapped", "mutex", "lock", "writeback", "references", "dirty", "frozen")
"""The obstacles; a livelock is named after the last of those it meets."""
REFUSED_BY = {
    at.E_NXIO: "mapped", at.SWAPPED_IN: "mapped", at.W_MUTEX: "mutex", at.E_LOCKED: "lock", at.W_LOCK: "lock",
    at.E_WRITEBACK: "writeback", at.W_WRITEBACK: "writeback", at.E_REFS: "references", at.W_REFS: "references",
    at.E_DIRTY: "dirty", at.W_FROZEN: "frozen",
}  # fmt: skip
"""The obstacle behind an outcome of the waiter's step."""
PINNERS = {n for n, word in enumerate(at.ACTOR_KINDS) if word in ("disk", "virtio", "pin", "access", "interrupt")}
"""Kinds that ask for a pin, or for a page to be made accessible."""
ACCESSIBLE = {at.ACC_TEST, at.ACC_PIN, at.ACC_EXPORT, at.ACC_CLEAR}
ASKING = {at.PIN_GET, *ACCESSIBLE}
FROZEN = {at.IMPORT_ARCH, at.IMPORT_EXPORT, at.IMPORT_CALL, at.IMPORT_END}
LOCKED = {at.IMPORT_WRITEBACK, at.IMPORT_FREEZE, *FROZEN, at.SPLIT, at.WB_START, at.WB_IO, at.RECLAIM_UNMAP,
          at.RECLAIM_EXPORT, at.RECLAIM_SWAP, at.RECLAIM_FREE}  # fmt: skip
"""Rules at which a thread has the count frozen, or the folio locked; a write-back that makes accessible has it, too."""
REFERENCES = ("pins", "longs", "spec")
"""Fields that count references on a page. One of an LRU batch is beside them."""


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
    """

    states: list[at.State] = field(default_factory=list)
    depth: list[int] = field(default_factory=list)
    edges: list[list[Edge]] = field(default_factory=list)
    fair: list[set[tuple[int, int]]] = field(default_factory=list)
    refused: list[dict[int, tuple[int, int]]] = field(default_factory=list)
    pending: list[set[int]] = field(default_factory=list)


# ------------------------------------------------------------------------------------------------- the graph
@cache
def row(names: tuple[str, ...]) -> Any:
    return NamedTuple("Row", [(name, int) for name in names])


def fixed(state: Any) -> at.State:
    """A state as nested tuples whose records still have field names."""

    def rows(name: str, section: Any) -> Any:
        kind = row(at.SECTIONS[name].names)
        return tuple(kind(*(getattr(record, word) for word in kind._fields)) for record in section)

    return at.State(*(rows(name, section) for name, section in zip(at.State._fields, state, strict=True)))


def loose(state: at.State) -> Any:
    """A copy that rules may change; what nobody writes is shared."""
    sections = zip(at.State._fields, state, strict=True)
    return at.State(
        *(
            [SimpleNamespace(**record._asdict()) for record in section] if name in at.OWNERS else section
            for name, section in sections
        )
    )


def explored(made: System, rules: Any = None, most: int = LIMIT) -> Graph:
    """All interleavings. TooLarge with more than `most` states."""
    run, graph = rules or interpreted(), Graph()
    first = fixed(to_lists(made.state))
    number, queue = {first: 0}, deque([(first, 0)])
    while queue:
        state, depth = queue.popleft()
        graph.states.append(state)
        graph.depth.append(depth)
        steps: list[Edge] = []
        fair, refused = set(), {}
        for t, choices in enumerate(made.choices):
            pc = state.task[t].pc
            idle = pc == at.IDLE_PC[state.who[t].kind]
            for choice, (op, page) in enumerate(choices if idle else [(at.NOTHING, 0)]):
                after = loose(state)
                about = run.focus(after, t, page)
                outcome = run.step(after, t, op, page)
                if outcome < 0:
                    refused |= {} if idle else {t: (pc, outcome)}
                    continue
                broke = run.broken(after, t, pc, about, state.uv[about].state, outcome)
                is_fair = not idle and RULES[pc].fairness != UNFAIR
                fair |= {(t, pc)} if is_fair else set()
                target = fixed(after)
                if target not in number:
                    number[target] = len(number)
                    queue.append((target, depth + 1))
                    if len(number) > most:
                        raise TooLarge(f"more than {most} states")
                steps.append(Edge(t, choice, pc, about, outcome, broke, is_fair, number[target]))
        graph.edges.append(steps)
        graph.fair.append(fair)
        graph.refused.append(refused)
        graph.pending.append({t for t in range(len(made.choices)) if is_pending(state, t)})
    return graph


def is_pending(s: at.State, t: int) -> bool:
    """Whether the actor has begun an access, a pin or a write-back, and not ended it."""
    kind, pc = s.who[t].kind, s.task[t].pc
    if kind == at.VCPU:
        return bool(s.actor[t].op != at.NOTHING)
    if kind in PINNERS:
        return pc in ASKING
    return bool(kind == at.WRITEBACK and pc != at.WB_IDLE)


# -------------------------------------------------------------------------------------------- fair components
def strongly_connected(graph: Graph, inside: set[int]) -> Iterator[set[int]]:
    """The largest sets of states `inside` that lie on ways to each other: Kosaraju, two searches."""
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
            strong = {(a, pc) for a, pc in enabled if RULES[pc].fairness == STRONG}
            starved = strong - {(edge.actor, edge.pc) for edge in inner}
            if starved:
                todo.append({v for v in part if not starved & graph.fair[v]})
            else:
                found.append(part)
    return sorted(found, key=min)


# --------------------------------------------------------------------------------------------- who holds what
class Obstacle(NamedTuple):
    """What refused the waiter. whole: references counted over the whole folio whatever the policy says."""

    word: str
    whole: bool = False


def head(s: at.State, page: int) -> int:
    order = s.mm[page].order
    return int(page >> order << order)


def unit(s: at.State, page: int, whole: bool = False) -> range:
    """The pages whose references and freeze count for `page`."""
    if s.cfg[0].refs == at.REFS_PAGE and not whole:
        return range(page, page + 1)
    return range(head(s, page), head(s, page) + (1 << s.mm[page].order))


def writes_back(s: at.State, t: int) -> bool:
    """Whether the write-back under way is this thread's: a background one, or that of its split."""
    k = s.task[t]
    return k.pc in (at.WB_IO, at.WB_END) or (k.pc in ACCESSIBLE and k.then == at.WB_IO)


def references(s: at.State, t: int, page: int) -> int:
    """References of thread `t` on the page."""
    k = s.task[t]
    if s.who[t].kind in PINNERS:
        return int(k.page <= page < k.page + k.at)
    return int(k.pc == at.PUT and k.page == page)


def holds(s: at.State, t: int, page: int, what: Obstacle) -> bool:
    """Whether thread `t` makes the obstacle for an import, a pin or a write-back of `page`."""
    k, same = s.task[t], head(s, s.task[t].page) == head(s, page)
    if what.word == "mutex":
        return any(vm.mutex == t + 1 for vm in s.vm)
    if what.word == "lock":
        return same and (k.pc in LOCKED or (writes_back(s, t) and k.pc != at.WB_END))
    if what.word == "writeback":
        return same and writes_back(s, t)
    if what.word == "references":
        return any(references(s, t, q) for q in unit(s, page, what.whole))
    return what.word == "frozen" and k.pc in FROZEN and unit(s, k.page)[0] == unit(s, page)[0]


def counted(s: at.State, pages: range) -> int:
    """References on these pages beyond the expected ones."""
    batched = sum(bool(s.mm[q].batch) for q in pages)
    return batched + sum(getattr(s.mm[q], name) for q in pages for name in REFERENCES)


def batches(s: at.State, page: int, whole: bool) -> set[str]:
    return {f"LRU batch of CPU {s.mm[q].batch - 1}" for q in unit(s, page, whole) if s.mm[q].batch}


def is_there(s: at.State, t: int, page: int, what: Obstacle) -> bool:
    """Whether the obstacle stands in the way of waiter `t`; what it holds itself does not."""
    m = s.mm[head(s, page)]
    if what.word == "mapped":
        return bool(s.pt[page].present != at.MAPPED or not m.writable)
    if what.word == "mutex":
        return s.vm[s.who[t].vm].mutex not in (0, t + 1)
    if what.word == "lock":
        return bool(m.locked) and not holds(s, t, page, what)
    if what.word == "writeback":
        return m.writeback != at.NO_WRITEBACK and not holds(s, t, page, what)
    if what.word == "references":
        pages = unit(s, page, what.whole)
        return counted(s, pages) > sum(references(s, t, q) for q in pages)
    if what.word == "dirty":
        return bool(m.dirty and m.backing == at.IOMAP and m.order)
    return bool(s.mm[unit(s, page)[0]].frozen) and not holds(s, t, page, what)


def wanted(s: at.State, t: int) -> int:
    """The page that a waiting actor is about."""
    k = s.task[t]
    if s.who[t].kind == at.VCPU:
        return int(s.actor[t].page)
    return int(k.page + min(k.at, k.n - 1)) if s.who[t].kind in PINNERS and k.n else int(k.page)


# ------------------------------------------------------------------------------------------------- the classes
class Wait(NamedTuple):
    """A component of `actor`, judged. named: words of ORDER, or "page" where it is taken away; entry: its first state;
    holders: who holds a named obstacle of a permanent wait in all its states: actors, and LRU batches."""

    property: str
    actor: int
    kind: str
    expected: bool
    named: frozenset[str]
    holders: frozenset[int | str]
    entry: int
    members: frozenset[int]

    @property
    def key(self) -> tuple[str, int, str, bool]:
        return self.property, self.actor, self.kind, self.expected


def about(s: at.State, t: int) -> str:
    """The property that says the wait of actor `t` ends."""
    if s.who[t].kind == at.VCPU:
        return UNSHARE if s.actor[t].op == at.UNSHARE else TOUCH
    return PIN if s.who[t].kind in PINNERS else WRITEBACK


def refusal(pc: int, outcome: int) -> set[Obstacle]:
    """The obstacle that an outcome of the waiter's step tells of, if any."""
    return {Obstacle(REFUSED_BY[outcome], outcome == at.E_REFS and pc == at.SPLIT)} if outcome in REFUSED_BY else set()


def met(graph: Graph, t: int, part: set[int]) -> set[Obstacle]:
    """The obstacles that refuse the waiter somewhere in the component."""
    found = set()
    for v in part:
        found |= refusal(*graph.refused[v].get(t, (0, 0)))
        for edge in graph.edges[v]:
            if edge.actor == t and edge.to in part:
                found |= refusal(edge.pc, edge.outcome)
    return found


def is_taken_away(graph: Graph, t: int, page: int, part: set[int]) -> bool:
    """Whether the page is imported in the component, and lost to the waiter's guest in it."""
    run, vm = interpreted(), graph.states[0].who[t].vm

    def open_to_guest(v: int) -> bool:
        return bool(run.hw_guest(graph.states[v], vm, page) == at.ALLOWED)

    inner = [(v, edge) for v in part for edge in graph.edges[v] if edge.to in part]
    imported = any((e.pc, e.page, e.outcome) == (at.IMPORT_CALL, page, at.OK) for _, e in inner)
    return imported and any(open_to_guest(v) and not open_to_guest(edge.to) for v, edge in inner)


def holders(graph: Graph, t: int, page: int, part: set[int], what: Obstacle) -> set[int | str]:
    """Who holds the obstacle in every state."""
    always: set[int | str] | None = None
    for v in part:
        s = graph.states[v]
        here: set[int | str] = {a for a in range(len(s.task)) if a != t and holds(s, a, page, what)}
        here |= batches(s, page, what.whole) if what.word == "references" else set()
        always = here if always is None else always & here
    return always or set()


def judged(graph: Graph, t: int, part: set[int]) -> Wait:
    """The class of a component, its mark, and what it is named after."""
    entry = min(part)
    first = graph.states[entry]
    page, kind = wanted(first, t), first.who[t].kind
    reached = {edge.to for v in part for edge in graph.edges[v] if edge.fair}
    obstacles = met(graph, t, part)
    lasting = {
        what for what in obstacles
        if all(is_there(graph.states[v], t, page, what) for v in part | reached)
    }  # fmt: skip
    held: set[int | str] = set()
    if kind != at.WRITEBACK and (first.task[t].pc == at.DEAD or first.vm[first.who[t].vm].life == at.KILLED):
        word, named = "fatal", set()
    elif lasting:
        word, named = "permanent", {what.word for what in lasting}
        held = set().union(*(holders(graph, t, page, part, what) for what in lasting))
    else:
        word, named = "livelock", set(max(obstacles, key=lambda what: ORDER.index(what.word), default=())[:1])
        named = {"page"} if kind == at.VCPU and is_taken_away(graph, t, page, part) else named
    pinned = all(graph.states[v].mm[page].pins or graph.states[v].mm[page].longs for v in part)
    expected = word != "fatal" and kind == at.VCPU and first.actor[t].op == at.UNSHARE and pinned
    return Wait(about(first, t), t, word, bool(expected), frozenset(named), frozenset(held), entry, frozenset(part))


@dataclass
class Opinion:
    """All verdicts on one system.

    safety     {number of a broken property: least steps to it}
    waits      every component of every actor, the one that is entered first first, then the lower actor
    transient  (property, vCPU) of each wait that always ends, and whose import was refused by more than a fault
    """

    graph: Graph
    safety: dict[int, int]
    waits: list[Wait]
    transient: set[tuple[str, int]]

    @cached_property
    def leads_to(self) -> set[tuple[str, int, str, bool]]:
        return {wait.key for wait in self.waits}

    @cached_property
    def named(self) -> dict[tuple[str, int, str, bool], frozenset[str]]:
        """What each is named after, in the component that is entered first."""
        return {wait.key: wait.named for wait in reversed(self.waits)}

    @cached_property
    def holders(self) -> dict[tuple[str, int, str, bool], frozenset[int | str]]:
        return {wait.key: wait.holders for wait in reversed(self.waits)}

    def worst(self) -> tuple[str, str | None]:
        """The verdict, and the worst class of what is not expected; of the rest, where nothing is violated."""
        counted = {wait.kind for wait in self.waits if not wait.expected} | ({"safety"} if self.safety else set())
        rest = {wait.kind for wait in self.waits} | ({"transient"} if self.transient else set())
        kind = next((word for word in CLASSES if word in (counted or rest)), None)
        return ("violated" if counted else "holds"), kind


def opinion(made: System, rules: Any = None, most: int = LIMIT) -> Opinion:
    """What is to be said of a system. TooLarge with more than `most` states."""
    graph = explored(made, rules, most)
    safety: dict[int, int] = {}
    stalls = set()
    for v, s in enumerate(graph.states):
        for edge in graph.edges[v]:
            if edge.broke:
                safety.setdefault(edge.broke, graph.depth[v] + 1)
        for t in graph.pending[v]:
            outcomes = [(e.pc, e.outcome) for e in graph.edges[v] if e.actor == t] + [graph.refused[v].get(t, (0, 0))]
            if s.who[t].kind == at.VCPU and any(what.word != "mapped" for o in outcomes for what in refusal(*o)):
                stalls.add((about(s, t), t))
    found = [judged(graph, t, part) for t in range(len(made.choices)) for part in waits(graph, t)]
    found.sort(key=lambda wait: (wait.entry, wait.actor))
    return Opinion(graph, safety, found, stalls - {(wait.property, wait.actor) for wait in found})
