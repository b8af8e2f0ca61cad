"""What a proof about a design needs beside its rules, as data: templates of facts, counts, initial states."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from ultrafolio.model.design import Design

from . import terms
from .counts import Count, Sum
from .facts import Page, Range, Template, Tried, View
from .paths import Place
from .terms import Value

Pair = Callable[[str, View, View, Place, Value], Value]


@dataclass(frozen=True, slots=True)
class Parts:
    """Ranges of pages of which any two are one, or have no page in common: the first page of that of a page, and the
    page behind its last one, before the step."""

    head: Callable[[Value], Value]
    end: Callable[[Value], Value]
    more: Callable[[Value], Value] = lambda page: True

    def around(self, page: Value) -> Value:
        """A page is in its part; and what `more` says of it."""
        return terms.both(terms.within(self.head(page), page, self.end(page)), self.more(page))

    def same_or_apart(self, page: Value, other: Value) -> Value:
        """Two pages are in one part, or in two that have no page in common."""
        heads, ends = (self.head(page), self.head(other)), (self.end(page), self.end(other))
        same = terms.both(terms.equal(*heads), terms.equal(*ends))
        return terms.any_of((same, terms.at_most(ends[0], heads[1]), terms.at_most(ends[1], heads[0])))


@dataclass(frozen=True, eq=False)
class Subject:
    """A design as a subject of proofs.

    folios      the parts that pages are in: folios of any order, or huge pages of one; None: single pages
    thread, ranges, pages, pairs  templates of facts by name; pair: what a fact of two threads says; of_pages: those of
                                  them that are about a page
    counts, sums                  what numbers add up to
    of_thread, of_machine, of_page  initial states
    always      what is true of the numbers of any two threads that no rule writes, by the names of their variables
    compared    the choices of a policy that facts and verdicts read; None: all
    where       per count that has a witness, the page on which it stands
    witnesses   per property the counts of which W holds something, the first that anybody else holds
    own         the counts that a step keeps because of who else would hold something of them
    implied     a fact, and one that it says already, which is not told beside it
    of_range    a fact of a range in words
    """

    design: Design
    folios: Parts | None
    thread: Mapping[str, Template]
    ranges: Mapping[str, Range]
    pages: Mapping[str, Page]
    pairs: Mapping[str, Tried]
    pair: Pair
    of_pages: tuple[str, ...]
    counts: tuple[Count, ...]
    sums: tuple[Sum, ...]
    of_thread: Callable[[View, Place], list[Value]]
    of_machine: Callable[[View], list[Value]]
    of_page: Callable[[View, Value], list[Value]]
    always: Callable[[View, View], Iterable[Value]]
    compared: tuple[str, ...] | None = None
    where: Callable[[View, Value], Mapping[str, Value]] = lambda view, page: {}
    witnesses: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    own: tuple[str, ...] = ()
    implied: tuple[tuple[str, str], ...] = ()
    of_range: str = "{}"

    @property
    def by_name(self) -> dict[str, Count]:
        return {count.name: count for count in self.counts}

    @property
    def of_threads(self) -> tuple[tuple[str, Iterable[str]], ...]:
        """The classes of facts that are about a thread at a place, and their names."""
        return ("thread", self.thread), ("range", self.ranges), ("pair", self.pairs)
