"""A second opinion on stalls: the definition written out over an explicit graph, slowly and plainly.

It has the rules in common with the checker, as plain Python, and nothing else: own graph, own components, own words.
What may grow is in tables: a new outcome, rule or kind of reference is one line.

    opinion(system)              every verdict on a system; TooLarge beyond a limit of states
    judged(graph, actor, part)   class, mark, obstacles and holders of one component
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from plain_graph import ACCESSIBLE, DEVICES, LIMIT, Graph, explored, waits
from ultrafolio.engine.load import interpreted
from ultrafolio.model import layout as at
from ultrafolio.model.scenario import System

CLASSES = ("safety", "fatal", "permanent", "livelock", "transient")
TOUCH, UNSHARE, PIN, WRITEBACK = LEADS_TO = (
    "touch leads to access",
    "unshare leads to secure",
    "pin leads to granted or refused",
    "writeback leads to ended",
)
ORDER = ("mapped", "mutex", "lock", "writeback", "references", "dirty", "frozen")
"""The obstacles; a livelock is named after the last of those it meets."""
REFUSED_BY = {
    at.E_NXIO: "mapped", at.SWAPPED_IN: "mapped", at.W_MUTEX: "mutex", at.E_LOCKED: "lock", at.W_LOCK: "lock",
    at.E_WRITEBACK: "writeback", at.W_WRITEBACK: "writeback", at.E_REFS: "references", at.W_REFS: "references",
    at.E_DIRTY: "dirty", at.W_FROZEN: "frozen",
}  # fmt: skip
"""The obstacle behind an outcome of the waiter's step."""
FROZEN = {at.IMPORT_ARCH, at.IMPORT_CALL, at.IMPORT_END}
LOCKED = {
    at.IMPORT_EXPORT,
    at.IMPORT_WRITEBACK,
    at.IMPORT_FREEZE,
    *FROZEN,
    at.SPLIT,
    at.WB_START,
    at.WB_IO,
    at.RECLAIM_UNMAP,
    at.RECLAIM_EXPORT,
    at.RECLAIM_SWAP,
    at.RECLAIM_FREE,
}
"""Rules at which a thread has the count frozen, or the folio locked; a write-back that makes accessible has it, too."""
REFERENCES = ("pins", "longs", "spec")
"""Fields that count references on a page. One of an LRU batch is beside them."""


# --------------------------------------------------------------------------------------------- who holds what
class Obstacle(NamedTuple):
    """An obstacle. whole: references are counted over the whole folio under every policy."""

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
    """References of thread `t` on the page: pins, that of an import on its own page, and plain ones."""
    k, kind = s.task[t], s.who[t].kind
    plain = k.pc in (at.PUT, at.ACCESS_PUT) or (kind == at.ACCESS and k.pc in ACCESSIBLE)
    return int(k.page <= page < k.page + k.at) + int((plain or k.ref > 0) and k.page == page)


def holds(s: at.State, t: int, page: int, what: Obstacle) -> bool:
    """Whether thread `t` makes the obstacle, the mutex apart, for an import, a pin or a write-back of `page`."""
    k, same = s.task[t], head(s, s.task[t].page) == head(s, page)
    if what.word == "lock":
        tests_late = k.pc == at.IMPORT_LARGE and s.cfg[0].large_at != at.LARGE_BEFORE_LOCK
        return same and (k.pc in LOCKED or tests_late or (writes_back(s, t) and k.pc != at.WB_END))
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
    """Whether the obstacle refuses waiter `t`; what it holds itself does not."""
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
        if m.order and s.cfg[0].large == at.LARGE_NEVER:
            return True
        return counted(s, pages) > sum(references(s, t, q) for q in pages)
    if what.word == "dirty":
        return bool(m.dirty and m.backing == at.IOMAP and m.order)
    return bool(s.mm[unit(s, page)[0]].frozen) and not holds(s, t, page, what)


def wanted(s: at.State, t: int) -> int:
    """The page that a waiting actor is about."""
    k = s.task[t]
    if s.who[t].kind == at.VCPU:
        return int(s.actor[t].page)
    return int(k.page + min(k.at, k.n - 1)) if s.who[t].kind in DEVICES and k.n else int(k.page)


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
    page: int

    @property
    def key(self) -> tuple[str, int, str, bool]:
        return self.property, self.actor, self.kind, self.expected


def about(s: at.State, t: int) -> str:
    """Returns the leads-to property of actor `t`."""
    if s.who[t].kind == at.VCPU:
        return UNSHARE if s.actor[t].op == at.UNSHARE else TOUCH
    return PIN if s.who[t].kind in DEVICES else WRITEBACK


def refusal(pc: int, outcome: int) -> set[Obstacle]:
    """Returns the obstacle behind an outcome of the waiter's step, or None."""
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


def held_by(s: at.State, t: int, page: int, what: Obstacle) -> set[int | str]:
    """Who holds the obstacle of waiter `t` in this state."""
    if what.word == "mutex":
        return {s.vm[s.who[t].vm].mutex - 1} - {-1, t}
    found: set[int | str] = {a for a in range(len(s.task)) if a != t and holds(s, a, page, what)}
    return found | (batches(s, page, what.whole) if what.word == "references" else set())


def judged(graph: Graph, t: int, part: set[int]) -> Wait:
    """The class of a component, its mark, and what it is named after."""
    entry = min(part)
    first = graph.states[entry]
    page, kind = wanted(first, t), first.who[t].kind
    reached = {edge.to for v in part for edge in graph.edges[v] if edge.fair}
    obstacles = met(graph, t, part)
    lasting = {what for what in obstacles if all(is_there(graph.states[v], t, page, what) for v in part | reached)}
    held: set[int | str] = set()
    if kind in (at.VCPU, *DEVICES) and (first.task[t].pc == at.DEAD or first.vm[first.who[t].vm].life == at.KILLED):
        word, named = "fatal", set()
    elif lasting:
        word, named = "permanent", {what.word for what in lasting}
        always = [[held_by(graph.states[v], t, page, what) for v in part] for what in lasting]
        held = set().union(*(set.intersection(*sets) for sets in always))
    else:
        word, named = "livelock", set(max(obstacles, key=lambda what: ORDER.index(what.word), default=())[:1])
        named = {"page"} if kind == at.VCPU and is_taken_away(graph, t, page, part) else named
    pinned = all(graph.states[v].mm[page].pins or graph.states[v].mm[page].longs for v in part)
    expected = word != "fatal" and kind == at.VCPU and first.actor[t].op == at.UNSHARE and pinned
    sets = frozenset(named), frozenset(held)
    return Wait(about(first, t), t, word, bool(expected), *sets, entry, frozenset(part), page)


@dataclass
class Opinion:
    """All verdicts on one system.

    safety     {number of a broken property: least steps to it}
    waits      every component of every actor, the one that is entered first first, then the lower actor
    transient  (property, vCPU) of each wait that always ends, and whose import was refused by more than a fault; beside
               a wait that may never end, those of other pages
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
    """Returns the Opinion on a system. Raises TooLarge for more than `most` states."""
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
                stalls.add((about(s, t), t, s.actor[t].page))
    found = [judged(graph, t, part) for t in range(len(made.choices)) for part in waits(graph, t)]
    found.sort(key=lambda wait: (wait.entry, wait.actor))
    stuck = {(wait.property, wait.actor, wait.page) for wait in found}
    return Opinion(graph, safety, found, {(name, t) for name, t, _ in stalls - stuck})
