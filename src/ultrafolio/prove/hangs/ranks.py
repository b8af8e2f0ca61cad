"""Whether every hold of a resource ends, by rank: who holds it goes on, or waits for resources of a lower rank.

Exceptions are named, and go with the answer: long-term pins, which end only with their machine; and a thread that finds
what it waits for taken again and again, where its rule promises it no turn (a livelock, which is not asked about).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from ultrafolio.model.layout import DEAD, VCPU
from ultrafolio.model.rule import RULES, STRONG

from .ending import Holds, cyclic, endless, holds
from .nodes import Edge, Graph
from .resources import (
    LONG,
    QUIET,
    REMOVED,
    SHARED,
    absent,
    awaited,
    counts_whole,
    parts,
    removes,
    unaccounted,
    wrongly_named,
)

LONG_TERM = "long-term pins"


@dataclass(frozen=True, slots=True)
class Answer:
    """Whether each hold of a resource ends. rank: above that of all that its holders wait for; open: why it is not
    shown, nothing where it is; but: the exceptions."""

    rank: int = 0
    open: tuple[str, ...] = ()
    but: frozenset[str] = frozenset()


@dataclass
class Ranks:
    """The answers for the resources of a graph. told: waits that a step tells of which another step met."""

    graph: Graph
    told: set[tuple[str, str]] = field(default_factory=set)
    _done: dict[str, Answer] = field(default_factory=dict)
    _holds: dict[str, Holds] = field(default_factory=dict)
    _under_way: list[str] = field(default_factory=list)
    _named: dict[Edge, bool] = field(default_factory=dict)
    _left: dict[tuple[str, bool], list[Edge]] = field(default_factory=dict)

    # -------------------------------------------------------------------------------------------- one resource
    def ends(self, name: str) -> Answer:
        """Whether each hold of a resource that threads hold ends in every fair run."""
        if name in self._under_way:
            circle = [*self._under_way[self._under_way.index(name) :], name]
            return Answer(open=(f"held while it is waited for: {', '.join(circle)}",))
        if name not in self._done:
            self._under_way.append(name)
            self._done[name] = self._ends(name)
            self._under_way.pop()
        return self._done[name]

    def released(self, name: str) -> Answer:
        """Whether each hold ends, or can be ended by one fair step again and again: what excludes a permanent stall."""
        first = self.ends(name)
        return first if first.open else self._released(name, first)

    @property
    def known(self) -> dict[str, int]:
        """The ranks of the resources whose holds end, and that somebody holds."""
        return {
            name: answer.rank for name, answer in sorted(self._done.items())
            if not answer.open and self._holds[name].nodes
        }  # fmt: skip

    def _ends(self, name: str) -> Answer:
        why = unaccounted(self.graph, name)
        if why:
            return Answer(open=(f"{name}: {why}",))
        held = self._holds[name] = holds(self.graph, name)
        again = endless(self.graph, held.keeping)
        reasons = [f"{name}: its holder may go round by {_rules(again)} and keep it"] if again else []
        but: set[str] = set()
        for node in sorted(held.nodes, key=lambda node: node.place):
            rule = RULES.get(node.place.pc)
            if node.place.pc == DEAD or rule is None:
                reasons.append(f"{name}: held by a thread that is dead")
            elif not rule.fair:
                if name == LONG:
                    but.add(LONG_TERM)
                else:
                    reasons.append(f"{name}: held at {rule.name}, a step that need not come")
        return self._with_waits(name, held.waiting, but, reasons)

    def _with_waits(self, name: str, waiting: Iterable[Edge], but: set[str], reasons: list[str]) -> Answer:
        """The answer, with what its holders wait for."""
        rank = 0
        for edge in waiting:
            for part, below in self.wait(edge):
                rank = max(rank, below.rank + 1)
                but |= below.but
                reasons += below.open
                if not self._turn(edge):
                    but.add(again_and_again(edge, part))
        return Answer(rank, tuple(dict.fromkeys(reasons)), frozenset(but))

    def _released(self, name: str, first: Answer) -> Answer:
        """The same without the exceptions of holders whose next step, once it can be taken, is the release."""
        held = self._holds[name]
        keeping = {edge.node for edge in held.keeping}
        indirect = [edge for edge in held.waiting if edge.node in keeping]
        needed: set[str] = {LONG_TERM} & first.but
        for edge in held.waiting:
            for part, below in self.wait(edge):
                needed |= below.but
                if edge in indirect and not self._turn(edge):
                    needed.add(again_and_again(edge, part))
        return Answer(first.rank, first.open, frozenset(needed))

    def _turn(self, edge: Edge) -> bool:
        """Whether the rule at which a thread waits promises it a turn: it is strongly fair, and waits there for one
        resource, which one thread at a time holds."""
        names = {awaited(one.path.outcome) for one in self.graph.edges[edge.node] if one.waits}
        only = next(iter(names)) if len(names) == 1 else None
        alone = only is not None and len(parts(only)) == 1 and only not in SHARED
        return alone and RULES[edge.node.place.pc].fairness == STRONG

    # ------------------------------------------------------------------------------------------------ one wait
    def wait(self, edge: Edge) -> list[tuple[str, Answer]]:
        """For each resource that a thread waits for at an edge: whether every hold of it ends."""
        return [(part, self._part(edge, part, self.ends)) for part in self._parts(edge)]

    def permanent(self, edge: Edge) -> list[tuple[str, Answer]]:
        """The same, for a permanent stall of the waiter alone."""
        return [(part, self._part(edge, part, self.released)) for part in self._parts(edge)]

    def _parts(self, edge: Edge) -> tuple[str, ...]:
        name = awaited(edge.path.outcome)
        return parts(name) if name else ("nothing that is known",)

    def _part(self, edge: Edge, part: str, asked) -> Answer:  # type: ignore[no-untyped-def]
        name = awaited(edge.path.outcome)
        rule = RULES[edge.node.place.pc].name
        if name is None:
            return Answer(open=(f"{rule} waits for nothing that is known",))
        if name == QUIET:
            return Answer(open=("it is for other threads to be idle, which no count says",))
        if not self._is_named(edge, name):
            return Answer(open=(f"{rule} may wait for something else than {name}",))
        return self._removed(edge, part, name) if part in REMOVED else asked(part)

    def _removed(self, edge: Edge, part: str, name: str) -> Answer:
        """Whether the waiter removes by itself what no thread holds, before it meets it again."""
        if removes(self.graph, part, edge):
            return Answer()
        if edge.waits:
            return Answer(open=(f"{part}: {RULES[edge.node.place.pc].name} sleeps, and removes none",))
        left = self._around(part, name, counts_whole(self.graph, edge))
        if edge not in cyclic(left):
            return Answer()
        met = [one for one in left if awaited(one.path.outcome) not in (None, name)]
        again = cyclic([one for one in left if one not in met])
        if edge in again:
            return Answer(open=(f"{part}: the waiter may go round by {_rules(again)} and remove none",))
        others = sorted({str(awaited(one.path.outcome)) for one in cyclic(left) if one in met})
        return Answer(but=frozenset((f"a waiter that meets {' or '.join(others)} each time before it removes {part}",)))

    def _around(self, part: str, name: str, whole: bool) -> list[Edge]:
        """The steps of vCPUs that go on with an access, remove nothing of a part, and may be taken where it is met."""
        if (part, whole) not in self._left:
            steps = [
                one for one in self.graph.every if not one.waits and not _ends(one) and one.node.place.kind == VCPU
            ]
            self._left[part, whole] = [
                one for one in steps if not removes(self.graph, part, one) and not absent(self.graph, one, name, whole)
            ]
        return self._left[part, whole]

    def told_elsewhere(self, edge: Edge) -> bool:
        """Whether a step only tells of what a step before it met: it does not look itself, and each way round that has
        it has one that does."""
        name = awaited(edge.path.outcome)
        if edge.waits or name is None or self._is_named(edge, name):
            return False
        left = [one for one in self.graph.every if not one.waits and not _ends(one)]
        looked = [one for one in left if awaited(one.path.outcome) == name and self._is_named(one, name)]
        return edge not in cyclic([one for one in left if one not in looked])

    def _is_named(self, edge: Edge, name: str) -> bool:
        if edge not in self._named:
            self._named[edge] = not wrongly_named(self.graph, edge, name)
        return self._named[edge]


def _ends(edge: Edge) -> bool:
    """Whether a step ends what the thread has begun."""
    rule = RULES.get(edge.to.place.pc)
    return rule is None or rule.chooses


def again_and_again(edge: Edge, part: str) -> str:
    """The exception of a holder that finds what it waits for taken again and again."""
    return f"a holder that at {RULES[edge.node.place.pc].name} finds {part} taken again and again"


def _rules(edges: Iterable[Edge]) -> str:
    return ", ".join(dict.fromkeys(RULES[edge.node.place.pc].name for edge in edges))
