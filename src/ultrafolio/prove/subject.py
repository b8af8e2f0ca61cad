"""What a proof about a design needs beside its rules, as data: templates of facts, counts, initial states."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from ultrafolio.model.design import Design

from .counts import Count, Sum
from .facts import Page, Range, Template, Tried, View
from .paths import Place
from .terms import Value

Pair = Callable[[str, View, View, Place, Value], Value]


@dataclass(frozen=True, eq=False)
class Subject:
    """A design as a subject of proofs.

    folios      whether pages are in folios of any order
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
    folios: bool
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
