"""What induction may use: the facts that are kept, of the thread that steps, S, of any other, W, and of named pages.

Everybody else is in the counts. Formulas of the state before a step are the same for every path: each is built once.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from . import terms
from .counts import Count, Sum
from .facts import View
from .paths import STEPS, Path, Place, at
from .rules import Rules
from .state import Symbolic
from .subjects import subject_of
from .terms import Value, var

OTHER, PAGE, WHERE = "W", var("P"), var("W.place")
Fact = tuple[str, Place | None, str]
"""One candidate: its class (thread, range, page, pair, count, sum), the place that it is about, its name."""
Key = tuple[str, Place | str | None, str]
"""What a formula is given by: a fact, of S at its place, or of W (OTHER) at every place where it is kept."""
Given = tuple[Key | None, Value]
"""A formula with what gives it; None: it is always true, or a condition of the path."""
T = TypeVar("T")


@dataclass
class Problem:
    """A policy: its places and paths, and the facts that are still kept."""

    rules: Rules
    cfg: dict[str, int]
    paths: dict[Place, list[Path]]
    kept: set[Fact] = field(default_factory=set)
    _built: dict[tuple[object, ...], object] = field(default_factory=dict)
    _where: dict[tuple[str, str], frozenset[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.places = list(self.paths)
        self.steps = [path for paths in self.paths.values() for path in paths]
        """Every path. A step's number, wherever it has one, is its index here."""
        self.subject = subject_of(self.rules.design, self.cfg)
        compared = self.cfg if self.subject.compared is None else self.subject.compared
        self.read = {name: self.cfg[name] for name in compared}
        self.tried = frozenset(self._candidates())
        self.kept = set(self.tried)
        self.world = Symbolic(STEPS)
        self.other = View(Symbolic(OTHER), self.world, self.cfg)
        self.others = [View(at(place, OTHER), self.world, self.cfg) for place in self.places]
        self.stepping = {place: View(at(place), self.world, self.cfg) for place in self.places}

    def has(self, kind: str, name: str, place: Place | None = None) -> bool:
        return (kind, place, name) in self.kept

    def keep(self, facts: set[Fact]) -> None:
        """These facts are kept from here on, and no others."""
        self.kept = facts
        self._where.clear()

    def drop(self, fact: Fact) -> None:
        """A fact is not kept any more."""
        kind, _, name = fact
        self.kept.discard(fact)
        self._where.pop((kind, name), None)

    def where(self, kind: str, name: str) -> frozenset[int]:
        """The numbers of the places at which a fact is kept."""
        if (kind, name) not in self._where:
            self._where[kind, name] = frozenset(
                n for n, place in enumerate(self.places) if (kind, place, name) in self.kept
            )
        return self._where[kind, name]

    def is_kept(self, key: Key) -> bool:
        """Whether what gives a formula is kept; of W: somewhere."""
        kind, place, name = key
        return bool(self.where(kind, name)) if isinstance(place, str) else (kind, place, name) in self.kept

    def flags(self) -> list[Value]:
        """Where each fact about W is kept: at these places its flag is set."""
        return [self._flag(kind, name) for kind, names in self.subject.of_threads for name in names]

    def _flag(self, kind: str, name: str) -> Value:
        numbers = self.where(kind, name)
        return self.once(("flag", kind, name, numbers), lambda: terms.implies(is_in(numbers), of_other(kind, name)))

    def once(self, key: tuple[object, ...], build: Callable[[], T]) -> T:
        """What `build` makes, built once for a key."""
        if key not in self._built:
            self._built[key] = build()
        return self._built[key]  # type: ignore[return-value]

    # ------------------------------------------------------------------------------------------------ shares
    def share(self, count: Count, place: Place, page: Value) -> Value:
        """What S, at a place, has of a count on a page before its step: a number."""
        return self.once(
            ("share", count.name, place, page),
            lambda: terms.ite(count.share(self.rules, self.stepping[place], place, page), 1, 0),
        )

    def other_share(self, count: Count, page: Value, world: Symbolic | None = None) -> Value:
        """What W has of it: a number; before the step, or in `world`."""
        if world is None:
            return self.once(("W share", count.name, page), lambda: self.other_share(count, page, self.world))
        grouped: dict[Value, set[int]] = {}
        for n, place in enumerate(self.places):
            share = count.share(self.rules, View(self.others[n].own, world, self.cfg), place, page)
            grouped.setdefault(share, set()).add(n)
        return terms.ite(
            terms.any_of(terms.both(is_in(frozenset(numbers)), share) for share, numbers in grouped.items()), 1, 0
        )

    # ------------------------------------------------------------------------------------------------ given
    # every fact that is tried is given, with its key; a question uses those whose key is kept when it is asked
    def of_threads(self, place: Place) -> Iterator[Given]:
        """Facts about S at its place, and about W wherever it is."""
        for name, fact in self.subject.thread.items():
            if fact.tried(place):
                yield ("thread", place, name), fact.says(self.stepping[place])
            yield ("thread", OTHER, name), terms.implies(of_other("thread", name), fact.says(self.other))
        for name in self.subject.pairs:
            yield from self.of_pair(name, place, PAGE)
        yield None, terms.within(0, WHERE, len(self.places))
        for formula in self.subject.always(self.stepping[place], self.other):
            yield None, formula

    def of_pair(self, name: str, place: Place, page: Value) -> Iterator[Given]:
        """What a fact of two threads says of S and W, in both orders."""
        if ("pair", place, name) in self.tried:
            yield (
                ("pair", place, name),
                self.once(("second", name, page), lambda: self.second(name, self.stepping[place], page)),
            )
        back = self.subject.pair(name, self.other, self.stepping[place], place, page)
        yield ("pair", OTHER, name), terms.implies(of_other("pair", name), back)

    def second(self, name: str, first: View, page: Value) -> Value:
        """A fact of two threads, of which W is the second."""
        grouped: dict[Value, set[int]] = {}
        for n, place in enumerate(self.places):
            view = View(self.others[n].own, first.world, self.cfg)
            grouped.setdefault(self.subject.pair(name, first, view, place, page), set()).add(n)
        return terms.all_of(terms.implies(is_in(frozenset(n)), fact) for fact, n in grouped.items())

    def of_page(self, place: Place, page: Value) -> Iterator[Given]:
        """Facts and counts of one page, and what ranges and pairs say of it."""
        view = self.stepping[place]
        if self.subject.folios:
            yield None, self.subject.folios.around(page)
        for name, fact in self.subject.pages.items():
            yield ("page", None, name), self.once(("page", name, page), functools.partial(fact, view, page))
        for name, found in self.subject.ranges.items():
            if found.tried(place):
                yield ("range", place, name), terms.negate(found.broken(view, page))
            broken = self.once(("range", name, page), functools.partial(found.broken, self.other, page))
            yield ("range", OTHER, name), terms.implies(of_other("range", name), terms.negate(broken))
        for name in self.subject.of_pages:
            yield from self.of_pair(name, place, page)
        for count in self.subject.counts:
            shares = terms.plus(self.share(count, place, page), self.other_share(count, page))
            yield ("count", None, count.name), terms.at_most(shares, count.value(view, page))
        for total in self.subject.sums:
            if ("sum", None, total.name) in self.tried:
                yield (
                    ("sum", None, total.name),
                    self.once(("sum", total.name, page), functools.partial(self._at_most, total, page)),
                )

    def _at_most(self, total: Sum, page: Value) -> Value:
        view = View(self.world, self.world, self.cfg)
        return terms.at_most(total.of_page(view, page), view.read(total.total, total.head(view, page)))

    def of_two_pages(self, page: Value, other: Value) -> Iterator[Given]:
        """Two pages: their folios are one or apart; the numbers of one folio are at least the sum of theirs."""
        parts = self.subject.folios
        if not parts:
            return
        yield None, self.once(("apart", page, other), lambda: parts.same_or_apart(page, other))
        if parts.head(page) is page or parts.head(other) is other:
            return
        for total in self.subject.sums:
            if ("sum", None, total.name) in self.tried:
                yield (
                    ("sum", None, total.name),
                    self.once(("sum", total.name, page, other), functools.partial(self._at_least, total, page, other)),
                )

    def _at_least(self, total: Sum, page: Value, other: Value) -> Value:
        view = View(self.world, self.world, self.cfg)
        both = terms.plus(total.of_page(view, page), total.of_page(view, other))
        heads = total.head(view, page), total.head(view, other)
        same = terms.both(terms.equal(*heads), terms.negate(terms.equal(page, other)))
        return terms.implies(same, terms.at_most(both, view.read(total.total, heads[0])))

    def _candidates(self) -> Iterator[Fact]:
        """Every fact that is tried under the configuration."""
        subject = self.subject
        for place in self.places:
            yield from (("thread", place, name) for name, fact in subject.thread.items() if fact.tried(place))
            yield from (("range", place, name) for name, fact in subject.ranges.items() if fact.tried(place))
            yield from (("pair", place, name) for name, tried in subject.pairs.items() if tried(place))
        totals = [total.name for total in subject.sums if total.needed(self.cfg)]
        for kind, words in (("page", [*subject.pages]), ("count", [*subject.by_name]), ("sum", totals)):
            yield from ((kind, None, name) for name in words)


@functools.cache
def of_other(kind: str, name: str) -> Value:
    """The flag that says that a fact is kept at W's place."""
    return terms.make("flag", f"W {kind}: {name}")


@functools.cache
def is_in(numbers: frozenset[int]) -> Value:
    """Whether W is at one of these places."""
    runs: list[list[int]] = []
    for n in sorted(numbers):
        if runs and runs[-1][1] == n - 1:
            runs[-1][1] = n
        else:
            runs.append([n, n])
    return terms.any_of(terms.within(a, WHERE, b + 1) for a, b in runs)
