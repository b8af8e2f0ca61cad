"""What the rules of a design wait for, and who holds it, as data: resources by name, and formulas about them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ultrafolio.model.design import Design
from ultrafolio.prove import terms
from ultrafolio.prove.facts import View
from ultrafolio.prove.terms import Value

Graph = Any
Edge = Any
Node = Any
"""Those of nodes.py: that module uses this one."""
MEASURES: dict[str, Callable[[View], Value]] = {
    "pages left to pin": lambda v: terms.minus(v.task("n"), v.task("at")),
    "pages left in its range": lambda v: terms.minus(v.task("end"), v.task("i")),
    "pages left to unpin": lambda v: v.task("at"),
}
"""Numbers of both designs that cannot fall for ever: of a thread's own fields, which only its own steps change."""


@dataclass(frozen=True, eq=False)
class Part:
    """Systems without actors of the kinds `without`, where these fields of each thread have these values. about: the
    kinds of actors for which it is a part of its own."""

    without: frozenset[int] = frozenset()
    about: frozenset[int] = frozenset()
    given: Mapping[str, int] = field(default_factory=dict)


WHOLE = Part()


@dataclass(frozen=True, eq=False)
class Waits:
    """The waits of a design.

    fields      fields of a thread that nodes tell apart, of this design; each is 0 at the start
    in_facts    those of them, and of other fields, that facts are about
    templates   names of the templates of facts that these proofs need: of threads, ranges, pages and pairs; None: all
    retrying    kinds of actors that repeat a step which was refused, so that a refusal is a wait
    apart       parts of the systems, as a scenario cannot have all together
    counted     resource -> the count that says how many hold it
    shares      resource -> the count that says whether a thread holds it, of those and of others
    once        resource -> the fact of a page that says that at most one thread holds it
    summed      resources whose counts are shown beside a sum, which must be kept
    shared      resources that several threads may hold at once
    removed     resources that no thread holds: who waits must remove them
    brought     resource that no thread holds -> fields of a page, each 0 at the start: it is nowhere while they are 0
    lasting     resource -> the exception where a holder's next step need not come
    pinning     exception -> the kinds of actors that hold so
    uncounted   what is waited for and is no resource -> why it is not shown
    awaited     what a step waits for, by its rule's name and its outcome; None for nothing
    parts       the resources that a wait at an edge is for; () where the step is never taken
    value       how many hold a resource of a page in a state, where no count is named
    share       whether a thread at a node has it, where no count is named; None: not known
    named       whether a step waits only where what it names is there
    absent      whether a step is only taken where a resource, that another step of the thread meets, is not there
    removes     whether a step leaves nothing of a resource that no thread holds
    whole       whether a wait is for references of all pages of a folio
    of_machine  counts that are of a machine, of whatever page they are asked
    missing     whether an entry that a thread makes, and others take away, is missing; None: there is none
    measures    numbers that cannot fall for ever
    """

    design: Design
    fields: tuple[str, ...]
    in_facts: tuple[str, ...]
    templates: frozenset[str] | None
    retrying: tuple[int, ...]
    apart: tuple[Part, ...]
    counted: Mapping[str, str]
    shares: Mapping[str, str]
    once: Mapping[str, str]
    summed: str
    shared: tuple[str, ...]
    removed: tuple[str, ...]
    brought: Mapping[str, tuple[str, ...]]
    lasting: Mapping[str, str]
    pinning: Mapping[str, tuple[int, ...]]
    uncounted: Mapping[str, str]
    awaited: Callable[[str, int], str | None]
    parts: Callable[[Graph, Edge, str], tuple[str, ...]]
    value: Callable[[str, View, Value], Value]
    share: Callable[[str, Node, View, Value], Value | None]
    named: Callable[[Graph, Edge, str], bool]
    absent: Callable[[Graph, Edge, str, bool], bool]
    removes: Callable[[Graph, str, Edge], bool]
    whole: Callable[[Graph, Edge], bool] = lambda graph, edge: False
    of_machine: tuple[str, ...] = ()
    missing: Callable[[View], Value] | None = None
    measures: Mapping[str, Callable[[View], Value]] = field(default_factory=lambda: MEASURES)

    def rule(self, pc: int) -> Any:
        """The rule at a place; None for that of the dead thread."""
        return self.design.rules.get(pc)
