"""Where a thread can be, with what is known of its own small fields there: a graph of its steps, and of its waits.

A node is finer than a place: `splits` counts up, `drained` is set once, so ways that no thread goes are not in it. What
is known of a node only its own thread can change: rules write no field of another thread, and no folio grows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

from ultrafolio.model.layout import OK
from ultrafolio.prove import terms
from ultrafolio.prove.before import Problem
from ultrafolio.prove.houdini import Houdini
from ultrafolio.prove.paths import STEPS, Path, Place, at, idle, paths_of
from ultrafolio.prove.state import Point
from ultrafolio.prove.terms import Term, Value, var
from ultrafolio.prove.window import Window

from .waits import WHOLE, Part, Waits

MOST = 8
"""A larger number in a field that nodes tell apart is not told apart."""
OWN_PAGE = var(f"{STEPS}.task.page")
SINGLE = terms.equal(terms.minus(terms.end(OWN_PAGE), terms.head(OWN_PAGE)), 1)
"""The page of the thread is a folio of its own."""
COMPLETES: dict[Term, Value] = {var(f"{STEPS}.who.stuck"): 0, var("cfg.stuck"): 0}
"""What is assumed of every thread: its I/O completes."""


_VARIABLE = frozenset(("var",))


@dataclass(frozen=True, slots=True)
class Node:
    """A place, the values of Waits.fields there (None: not known), whether the thread walks the table of its page
    (None: not known), and whether its page is known to be a folio of its own."""

    place: Place
    values: tuple[int | None, ...]
    walks: int | None = 0
    single: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Edge:
    """One way through the rule of a node; `to` is the node itself where the step waits."""

    node: Node
    path: Path
    to: Node

    @property
    def waits(self) -> bool:
        """Whether the step is refused: the thread waits at its node."""
        return self.path.outcome < 0


@dataclass
class Graph:
    """The nodes of a policy that a thread can come to in a part of the systems; `run` has the facts that are kept."""

    problem: Problem
    run: Houdini
    waits: Waits
    part: Part = WHOLE
    answers: dict[tuple[object, ...], bool] = field(default_factory=dict)
    """What was answered, which graphs of one policy may share."""
    edges: dict[Node, list[Edge]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._paths: dict[Place, list[Path]] = {}
        self._single: dict[int, bool] = {}
        self._of_facts = {var(f"{STEPS}.{name}") for name in self.waits.in_facts}
        self.assumed = COMPLETES | {var(f"{STEPS}.{name}"): value for name, value in self.part.given.items()}
        first = (0,) * len(self.waits.fields)
        places = idle(self.problem.rules.design, self.part.without)
        left = [Node(place, first) for place in places if place in self.problem.paths]
        while left:
            node = left.pop()
            if node not in self.edges:
                self.edges[node] = list(self._from(node))
                left += [edge.to for edge in self.edges[node]]

    @cached_property
    def every(self) -> list[Edge]:
        """Every edge."""
        return [edge for edges in self.edges.values() for edge in edges]

    def known(self, node: Node) -> dict[Term, Value]:
        """What is known of a thread's fields at a node."""
        pairs = zip(self.waits.fields, node.values, strict=True)
        return {var(f"{STEPS}.{name}"): value for name, value in pairs if value is not None}

    def given(self, node: Node) -> dict[Term, Value]:
        """What is known at a node and assumed, for terms.replaced()."""
        return self.known(node) | self.assumed | ({SINGLE: True} if node.single and isinstance(SINGLE, Term) else {})

    def at(self, node: Node, value: Value) -> Value:
        """A formula of the state before a step, with what is known at a node."""
        return terms.replaced(value, self.given(node))

    def still(self, node: Node) -> Edge:
        """Returns an edge without a step, for questions about a node."""
        return Edge(node, Path(node.place, (), at(node.place), OK), node)

    def never(self, edge: Edge, formula: Value) -> bool:
        """Whether a formula is false in every state from which the step of an edge is taken."""
        formula = self.at(edge.node, formula)
        if formula is False:
            return True
        single = SINGLE if edge.node.single else True
        relevant = self._relevant(edge, formula)
        here = (edge.node.place, edge.path.conditions, formula, single, relevant)
        if here not in self.answers:
            known = [terms.equal(name, value) for name, value in relevant]
            asked = terms.all_of([formula, *known, terms.at_most(0, var(f"{STEPS}.id")), single])
            name = f"hang-{len(self.answers):04}"
            question = self.run.given(edge.path, Window(self.problem, edge.path), [asked], name)
            self.answers[here] = question.excludes([asked])
        return self.answers[here]

    def _relevant(self, edge: Edge, formula: Value) -> tuple[tuple[Term, Value], ...]:
        """What is known and assumed of those fields that a question is about, or that facts are about."""
        known = {**self.known(edge.node), **self.assumed}
        found: dict[Term, None] = {}
        for each in (formula, *edge.path.conditions):
            terms.leaves(each, _VARIABLE, found)
        return tuple((name, value) for name, value in known.items() if name in found or name in self._of_facts)

    # ------------------------------------------------------------------------------------------------ building
    def _from(self, node: Node) -> Iterator[Edge]:
        place = node.place
        if not self.problem.paths[place]:
            return
        if place not in self._paths:
            self._paths[place] = paths_of(self.problem.rules, self.problem.cfg, place)
        for path in self._paths[place]:
            if all(self.at(node, condition) is not False for condition in path.conditions):
                yield Edge(node, path, node if path.outcome < 0 else self._after(node, path))

    def _after(self, node: Node, path: Path) -> Node:
        values = [self.at(node, path.after.mine(name)) for name in self.waits.fields]
        stays = path.after.mine("task.page") is OWN_PAGE
        return Node(
            path.to,
            tuple(v if isinstance(v, int) and abs(v) <= MOST else None for v in values),
            self._walks(node, path),
            stays and (node.single or self._makes_single(path)),
        )

    def _walks(self, node: Node, path: Path) -> int | None:
        """Whether the thread walks the table of its page after a step: what it wrote there last."""
        found = node.walks
        for entry in path.after.log:
            if isinstance(entry, Point):
                if entry.field == "mm.walked":
                    value = self.at(node, entry.value)
                    found = value if entry.index is OWN_PAGE and value in (0, 1) else None
            elif "mm.walked" in entry.fields:
                return None
        return found

    def _makes_single(self, path: Path) -> bool:
        if id(path) not in self._single:
            self._single[id(path)] = SINGLE in path.conditions or (bool(path.after.splits()) and self._splits(path))
        return self._single[id(path)]

    def _splits(self, path: Path) -> bool:
        """Whether the thread's page is a folio of its own after a step that splits."""
        after = path.after
        single = terms.equal(terms.minus(after.end(OWN_PAGE), after.head(OWN_PAGE)), 1)
        asked = terms.negate(single)
        question = self.run.given(path, Window(self.problem, path), [asked], f"single-{len(self._single):04}")
        return question.excludes([asked])
