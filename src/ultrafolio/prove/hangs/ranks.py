"""Whether every hold of a resource ends, by rank: who holds it goes on, or waits for resources of a lower rank.

Exceptions are named, and go with the answer: long-term pins, which end only with their machine; and a thread that finds
what it waits for taken again and again, where its rule promises it no turn (a livelock, which is not asked about).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from ultrafolio.model.layout import DEAD
from ultrafolio.model.rule import STRONG
from ultrafolio.prove import terms
from ultrafolio.prove.before import PAGE

from .ending import Holds, cyclic, endless, holds
from .nodes import Edge, Graph, Node
from .resources import awaited, share, unaccounted, value

NOTHING = "nothing that is known"
GONE = "a holder whose entry in a page table is gone again and again"


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
    _bars: dict[tuple[str, str], bool] = field(default_factory=dict)
    _absent: dict[str, bool] = field(default_factory=dict)
    _split: dict[Edge, tuple[str, ...]] = field(default_factory=dict)
    _left: dict[tuple[str, bool, int], list[Edge]] = field(default_factory=dict)
    _without: dict[str, frozenset[str]] = field(default_factory=dict)
    """Per resource: the exceptions that are not for what its holders wait for."""

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
        rounds = endless(self.graph, held.keeping)
        again, but = rounds.again, {GONE} if rounds.disturbed else set[str]()
        reasons = [f"{name}: its holder may go round by {self._rules(again)} and keep it"] if again else []
        for node in sorted(held.nodes, key=lambda node: node.place):
            rule = self._rule(node)
            if node.place.pc == DEAD or rule is None:
                reasons.append(f"{name}: held by a thread that is dead")
            elif not rule.fair:
                if name in self.graph.waits.lasting:
                    but.add(self.graph.waits.lasting[name])
                else:
                    reasons.append(f"{name}: held at {rule.name}, a step that need not come")
        self._without[name] = frozenset(but)
        return self._with_waits(name, held.waiting, but, reasons)

    def _with_waits(self, name: str, waiting: Iterable[Edge], but: set[str], reasons: list[str]) -> Answer:
        """The answer, with what its holders wait for."""
        rank = 0
        for edge in waiting:
            for part, below in self.wait(edge):
                rank = max(rank, below.rank + 1)
                but |= below.but
                reasons += below.open
                if not self._turn(edge) and not self._barred(name, part):
                    but.add(self._again(edge, part))
        return Answer(rank, tuple(dict.fromkeys(reasons)), frozenset(but))

    def _released(self, name: str, first: Answer) -> Answer:
        """The same without the exceptions of holders whose next step, once it can be taken, is the release."""
        held = self._holds[name]
        keeping = {edge.node for edge in held.keeping}
        indirect = [edge for edge in held.waiting if edge.node in keeping]
        needed = set(self._without[name])
        for edge in held.waiting:
            for part, below in self.wait(edge):
                needed |= below.but
                if edge in indirect and not self._turn(edge) and not self._barred(name, part):
                    needed.add(self._again(edge, part))
        return Answer(first.rank, first.open, frozenset(needed))

    def _barred(self, name: str, part: str) -> bool:
        """Whether no step takes a resource while another thread holds resource `name`, for which it waits: then what is
        held of it becomes less and less."""
        waits, key = self.graph.waits, (name, part)
        if part not in waits.counted or waits.counted.get(name) not in self.graph.waits.of_machine:
            return False
        if key not in self._bars:
            self._bars[key] = not any(self._takes(edge, name, part) for edge in self.graph.every if not edge.waits)
        return self._bars[key]

    def _takes(self, edge: Edge, name: str, part: str) -> bool:
        """Whether a thread may take a resource by a step while another holds `name`."""
        graph = self.graph
        before, after = share(graph, part, edge.node, PAGE), share(graph, part, edge.to, PAGE, edge)
        mine, view = share(graph, name, edge.node, PAGE), graph.problem.stepping[edge.node.place]
        held = terms.at_most(1, value(graph, name, view, PAGE))
        if before is None or after is None or mine is None:
            return True
        return not graph.never(edge, terms.all_of([terms.negate(before), after, terms.negate(mine), held]))

    def _turn(self, edge: Edge) -> bool:
        """Whether the rule at which a thread waits promises it a turn: it is strongly fair, and waits there for one
        resource, which one thread at a time holds."""
        names = {part for one in self.graph.edges[edge.node] if one.waits for part in self._parts(one)}
        alone = len(names) == 1 and not names & {*self.graph.waits.shared, *self.graph.waits.uncounted, NOTHING}
        return alone and bool(self._rule(edge.node).fairness == STRONG)

    # ------------------------------------------------------------------------------------------------ one wait
    def wait(self, edge: Edge) -> list[tuple[str, Answer]]:
        """For each resource that a thread waits for at an edge: whether every hold of it ends."""
        return [(part, self._part(edge, part, self.ends)) for part in self._parts(edge)]

    def permanent(self, edge: Edge) -> list[tuple[str, Answer]]:
        """The same, for a permanent stall of the waiter alone."""
        return [(part, self._part(edge, part, self.released)) for part in self._parts(edge)]

    def _parts(self, edge: Edge) -> tuple[str, ...]:
        if edge not in self._split:
            name = awaited(self.graph, edge)
            found = self.graph.waits.parts(self.graph, edge, name) if name else (NOTHING,)
            self._split[edge] = tuple(part for part in found if not self._nowhere(part))
        return self._split[edge]

    def _nowhere(self, part: str) -> bool:
        """Whether no thread of this part of the systems can come to hold a resource, or none brings it."""
        waits = self.graph.waits
        if part not in waits.counted and part not in waits.brought:
            return False
        if part not in self._absent:
            if part in waits.counted:
                found = not unaccounted(self.graph, part) and not holds(self.graph, part).nodes
            else:
                found = self._unbrought(part)
            self._absent[part] = found
        return self._absent[part]

    def _unbrought(self, part: str) -> bool:
        """Whether no step brings a resource where its fields are 0 on each page."""
        fields = self.graph.waits.brought[part]
        for edge in self.graph.every:
            if not edge.waits and {*fields} & {*edge.path.after.written()}:
                view = self.graph.problem.stepping[edge.node.place]
                was = [terms.equal(view.read(name, PAGE), 0) for name in fields]
                now = terms.any_of(terms.truth(edge.path.after.read(name, PAGE)) for name in fields)
                if not self.graph.never(edge, terms.all_of([*was, now])):
                    return False
        return True

    def _part(self, edge: Edge, part: str, asked) -> Answer:  # type: ignore[no-untyped-def]
        name, waits = awaited(self.graph, edge), self.graph.waits
        rule = self._rule(edge.node).name
        if name is None:
            return Answer(open=(f"{rule} waits for {NOTHING}",))
        if name in waits.uncounted:
            return Answer(open=(waits.uncounted[name],))
        if not self._is_named(edge, name):
            return Answer(open=(f"{rule} may wait for something else than {name}",))
        return self._removed(edge, part, name) if part in waits.removed else asked(part)

    def _removed(self, edge: Edge, part: str, name: str) -> Answer:
        """Whether the waiter removes by itself what no thread holds, before it meets it again."""
        if self.graph.waits.removes(self.graph, part, edge):
            return Answer()
        if edge.waits:
            return Answer(open=(f"{part}: {self._rule(edge.node).name} sleeps, and removes none",))
        left = self._around(edge, part, name)
        if edge not in cyclic(left):
            return Answer()
        met = [one for one in left if awaited(self.graph, one) not in (None, name)]
        again = cyclic([one for one in left if one not in met])
        if edge in again:
            return Answer(open=(f"{part}: the waiter may go round by {self._rules(again)} and remove none",))
        others = sorted({str(awaited(self.graph, one)) for one in cyclic(left) if one in met})
        return Answer(but=frozenset((f"a waiter that meets {' or '.join(others)} each time before it removes {part}",)))

    def _around(self, edge: Edge, part: str, name: str) -> list[Edge]:
        """The steps of such threads that go on with what they have begun, remove nothing of a part, and may be taken
        where it is met."""
        waits, kind = self.graph.waits, edge.node.place.kind
        key = part, waits.whole(self.graph, edge), kind
        if key not in self._left:
            steps = [
                one for one in self.graph.every
                if not one.waits and not self._ends_all(one) and one.node.place.kind == kind
            ]  # fmt: skip
            self._left[key] = [
                one for one in steps
                if not waits.removes(self.graph, part, one) and not waits.absent(self.graph, one, name, key[1])
            ]  # fmt: skip
        return self._left[key]

    def told_elsewhere(self, edge: Edge) -> bool:
        """Whether a step only tells of what a step before it met: it does not look itself, and each way round that has
        it has one that does."""
        name = awaited(self.graph, edge)
        if edge.waits or name is None or self._is_named(edge, name):
            return False
        left = [one for one in self.graph.every if not one.waits and not self._ends_all(one)]
        looked = [one for one in left if awaited(self.graph, one) == name and self._is_named(one, name)]
        return edge not in cyclic([one for one in left if one not in looked])

    def _is_named(self, edge: Edge, name: str) -> bool:
        if edge not in self._named:
            self._named[edge] = self.graph.waits.named(self.graph, edge, name)
        return self._named[edge]

    # -------------------------------------------------------------------------------------------- rules
    def _rule(self, node: Node) -> Any:
        return self.graph.waits.rule(node.place.pc)

    def _rules(self, edges: Iterable[Edge]) -> str:
        return ", ".join(dict.fromkeys(self._rule(edge.node).name for edge in edges))

    def _ends_all(self, edge: Edge) -> bool:
        """Whether a step ends what the thread has begun."""
        rule = self._rule(edge.to)
        return rule is None or bool(rule.chooses)

    def _again(self, edge: Edge, part: str) -> str:
        """The exception of a holder that finds what it waits for taken again and again."""
        return f"a holder that at {self._rule(edge.node).name} finds {part} taken again and again"
