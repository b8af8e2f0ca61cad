"""A second opinion on stalls of the design guest_memfd, over the explicit graph of plain_graph.py.

It has the rules in common with the checker and nothing else: who holds what is read from what each thread is at, not
from the counts and locks of the state.
"""

from typing import Any, NamedTuple

from plain_graph import LIMIT, Graph, explored, waits
from ultrafolio.model.guest_memfd import layout as at
from ultrafolio.model.scenario import System

CLASSES = ("safety", "permanent", "livelock", "vmm-bound", "transient")
FAULT, REQUEST, PIN = LEADS_TO = (
    "fault leads to mapped or exit",
    "request leads to converted or told no",
    "pin leads to granted or refused",
)
REFUSED_BY = {at.E_AGAIN: "references", at.W_REFS: "references", at.W_LOCK: "lock", at.W_MUTEX: "mutex"}
"""The obstacle behind an outcome of the waiter's step."""
DEVICES = (at.DISK, at.PIN, at.SPLICE)
ORDER = ("mutex", "lock", "references")
MAPPING = "KVM's mapping of page"
ALONE = {*range(at.CONVERT_TEST, at.CONVERT_END + 1), at.HOLE_PUNCH, at.HOLE_END}
SHARED = {at.FAULT_LOOKUP, at.FAULT_UNLOCK, at.USER_LOOKUP, at.FRESH_UNLOCK, at.FRESH_SPLIT}
"""Rules at which a thread holds the invalidate lock, alone or shared."""


def about(s: Any, t: int) -> str:
    """Returns the leads-to property of actor `t`."""
    kind = s.who[t].kind
    if kind in DEVICES:
        return PIN
    return REQUEST if kind == at.VMM or (kind == at.VCPU and s.actor[t].op in (at.SHARE, at.UNSHARE)) else FAULT


def asked(s: Any, t: int) -> range:
    """The pages that actor `t` wants to be private; none for any other wait."""
    k, a = s.task[t], s.actor[t]
    if k.pc == at.FRESH_SPLIT:
        return range((k.page + k.at) // 2 * 2, (k.page + k.at) // 2 * 2 + 2)
    private, end = at.UNSHARE in (a.op, k.call), a.page + a.n
    asks = about(s, t) == REQUEST or k.call in (at.SHARE, at.UNSHARE)
    if s.cfg[0].split_refuses and s.cfg[0].block and asks:
        # of each end that is in the middle of a huge page, the page beside it
        beside = {p for p in (a.page - 1, end) if p // 2 in (a.page // 2, (end - 1) // 2)}
        merges = private and s.cfg[0].merge == at.MERGE_ON_PRIVATE
        out = {p for p in beside if (s.mm[p].order and private) or not (s.mm[p].order or (merges and s.mm[p].private))}
        pages = {a.page, end - 1} | beside - out
        return range(min(pages), max(pages) + 1)
    if k.pc == at.CONVERT_RESTRUCTURE:
        blocks = {k.start // 2 * 2, (k.end + 1) // 2 * 2}
        whole = {a.page, a.page + a.n} if k.call == at.UNSHARE else blocks
        return range(min(blocks | whole), max(blocks | whole))
    if k.call != at.UNSHARE and (about(s, t) != REQUEST or a.op != at.UNSHARE):
        return range(0)
    return range(s.actor[t].page, s.actor[t].page + s.actor[t].n)


def looks(s: Any, t: int) -> bool:
    """Whether thread `t` has allocated a huge page that it is to unlock, or sleeps for the lock of one."""
    k = s.task[t]
    return bool(k.pc == at.FRESH_UNLOCK or (k.pc in (at.FAULT_LOOKUP, at.USER_LOOKUP) and k.ref))


def uses(s: Any, t: int, page: int) -> bool:
    """Whether thread `t` has a reference on the page, by a pin, a fault, a walk, or an entry of its process."""
    k, kind = s.task[t], s.who[t].kind
    if kind in DEVICES:
        if k.page <= page < k.page + k.at or (k.pc == at.GUP_RECHECK and page == k.page + k.at):
            return True
        if (k.pc == at.USER_MAP or looks(s, t)) and page == k.page + k.at:
            return True
    if kind in (*DEVICES, at.USER) and s.mm[page].users & 1 << s.who[t].process:
        return True
    if kind == at.USER:
        return bool((k.pc == at.USER_MAP or looks(s, t)) and k.page == page)
    return bool((k.pc == at.PUT or (kind == at.VCPU and k.ref)) and k.page == page)


def holders(s: Any, t: int, word: str) -> set[int | str]:
    """Who makes the obstacle for waiter `t`."""
    others = [a for a in range(len(s.task)) if a != t]
    if word == "lock":
        alone = about(s, t) == REQUEST or s.task[t].call >= at.SHARE
        against = ALONE | SHARED if alone else ALONE
        return {a for a in others if s.task[a].pc in against}
    if word == "mutex":
        block = (s.task[t].page + s.task[t].at) // 2
        fresh = {a for a in others if s.task[a].pc in (at.FRESH_UNLOCK, at.FRESH_SPLIT)}
        return {a for a in fresh if (s.task[a].page + s.task[a].at) // 2 == block}
    pages = asked(s, t)
    found: set[int | str] = {a for a in others if any(uses(s, a, page) for page in pages)}
    if s.cfg[0].hold == at.HOLD_MAPPING:
        found |= {f"{MAPPING} {page}" for page in pages if s.pt[page].present}
    return found | {f"LRU batch of CPU {s.mm[page].batch - 1}" for page in pages if s.mm[page].batch}


def books(s: Any) -> Any:
    """What the state says of the lock and of references, and what its threads say."""
    for page, m in enumerate(s.mm):
        using = [a for a in range(len(s.task)) if uses(s, a, page)]
        folio = range(page, page + 2) if m.order and page % 2 == 0 else range(page, page + 1 - m.order)
        counted = sum(q.pins + q.longs + q.spec + bool(q.batch) for q in (s.mm[n] for n in folio))
        mapped = s.cfg[0].hold == at.HOLD_MAPPING and s.pt[page].present > 0
        yield "used", bool(m.pins or m.longs or m.spec or m.batch or m.users), bool(using or m.batch or mapped)
        yield "references", m.refs, counted
        yield (
            "KVM's",
            m.kvm - mapped,
            sum(s.who[a].kind == at.VCPU and s.task[a].ref and s.task[a].page == page for a in using),
        )
    alone, shared = (sum(k.pc in places for k in s.task) for places in (ALONE, SHARED))
    yield "lock", (s.vm[0].mutex > 0, -min(s.vm[0].mutex, 0)), (alone > 0, shared)


class Wait(NamedTuple):
    """A component of `actor`, judged; see second_opinion.Wait. adverse: a livelock whose wait fair steps can end."""

    property: str
    actor: int
    kind: str
    named: frozenset[str]
    holders: frozenset[int | str]
    adverse: bool
    entry: int
    members: frozenset[int]
    page: int

    @property
    def key(self) -> tuple[str, int, str]:
        return self.property, self.actor, self.kind


def can_end(graph: Graph, t: int, part: set[int]) -> bool:
    """Whether fair steps lead from the component to a state in which the actor does not wait."""
    todo, seen = list(part), set(part)
    while todo:
        for edge in graph.edges[todo.pop()]:
            if edge.fair and t not in graph.pending[edge.to]:
                return True
            if edge.fair and edge.to not in seen:
                seen.add(edge.to)
                todo.append(edge.to)
    return False


def waited(s: Any, t: int) -> int:
    """The page that a waiting actor is about."""
    k = s.task[t]
    return int(s.actor[t].page if s.who[t].kind in (at.VCPU, at.VMM) else k.page + min(k.at, max(k.n - 1, 0)))


def judged(graph: Graph, t: int, part: set[int]) -> Wait:
    """The class of a component, and what it is named after."""
    entry = min(part)
    first = graph.states[entry]
    met = {REFUSED_BY[out] for v in part for _, out in [graph.refused[v].get(t, (0, 0))] if out in REFUSED_BY}
    met |= {REFUSED_BY[e.outcome] for v in part for e in graph.edges[v] if e.actor == t and e.outcome in REFUSED_BY}
    reached = {edge.to for v in part for edge in graph.edges[v] if edge.fair}
    lasting = {word for word in met if all(holders(graph.states[v], t, word) for v in part | reached)}
    if not lasting:
        named = set(max(met, key=ORDER.index, default="").split())
        return Wait(about(first, t), t, "livelock", frozenset(named), frozenset(), can_end(graph, t, part), entry,
                    frozenset(part), waited(first, t))  # fmt: skip
    always = set().union(*(set.intersection(*(holders(graph.states[v], t, w) for v in part)) for w in lasting))
    always = {one for one in always if not str(one).startswith(MAPPING)}
    actors = {a for a in always if isinstance(a, int)}
    stand = all(graph.states[v].task[a].pc in (at.DMA_STANDS, at.PIPE_READ) for v in part for a in actors)
    drains = first.cfg[0].drain == at.DRAIN_ONCE
    kind = "vmm-bound" if actors and stand and (drains or actors == always) else "permanent"
    return Wait(about(first, t), t, kind, frozenset(lasting), frozenset(always), False, entry, frozenset(part),
                waited(first, t))  # fmt: skip


class Opinion(NamedTuple):
    """All verdicts on one system, as second_opinion.Opinion."""

    graph: Graph
    safety: dict[int, int]
    waits: list[Wait]
    transient: set[tuple[str, int]]

    @property
    def first(self) -> dict[tuple[str, int, str], Wait]:
        """Each kind of wait of an actor, in the component that is entered first."""
        return {wait.key: wait for wait in reversed(self.waits)}

    def worst(self) -> tuple[str, str | None]:
        """The verdict, and the worst class."""
        counted = {wait.kind for wait in self.waits} | ({"safety"} if self.safety else set())
        seen = counted or ({"transient"} if self.transient else set())
        return ("violated" if counted else "holds"), next((word for word in CLASSES if word in seen), None)


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
            outcomes = [e.outcome for e in graph.edges[v] if e.actor == t] + [graph.refused[v].get(t, (0, 0))[1]]
            if s.who[t].kind == at.VCPU and any(outcome in REFUSED_BY for outcome in outcomes):
                stalls.add((about(s, t), t, s.actor[t].page))
    found = [judged(graph, t, part) for t in range(len(made.choices)) for part in waits(graph, t)]
    found.sort(key=lambda wait: (wait.entry, wait.actor))
    stuck = {(wait.property, wait.actor, wait.page) for wait in found}
    return Opinion(graph, safety, found, {(name, t) for name, t, _ in stalls - stuck})
