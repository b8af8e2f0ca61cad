"""A state while a rule runs on it: the thread's own fields, and a log of what was written to pages and machines.

Reading a field at an index looks through the log from its end; what nobody wrote is the field before the step.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field

from . import terms
from .terms import Value, var

OWN = ("task", "actor")
ORDER = "mm.order"
WHERE = ("task.pc", "task.then", "task.back")
"""Which rule a thread runs, and where it goes on: always known."""


@dataclass(frozen=True, slots=True)
class Point:
    """One field at one index has a new value."""

    field: str
    index: Value
    value: Value


@dataclass(frozen=True, slots=True)
class Span:
    """Every page q in [low, high) has new values: field -> (condition on q, value for q), with q = terms.BOUND.

    Without bounds: every page there is. splits: each of these pages is a folio of its own from here on.
    """

    low: Value | None
    high: Value | None
    fields: Mapping[str, tuple[Value, Value]]
    splits: bool = False

    def covers(self, page: Value) -> Value:
        """Whether a page is in the range."""
        return True if self.low is None or self.high is None else terms.within(self.low, page, self.high)


@dataclass(frozen=True, slots=True)
class Gather:
    """For each page q in [low, high) with a condition, a field at an index changes by a constant; the index and the
    condition speak of q = terms.BOUND."""

    field: str
    low: Value
    high: Value
    index: Value
    condition: Value
    change: int
    splits = False

    @property
    def fields(self) -> tuple[str]:
        return (self.field,)

    def turns(self, index: Value) -> Value:
        """How often the field at `index` changes."""
        if var(terms.BOUND) in terms.leaves(index, frozenset(("var",))):
            raise Refused(f"a loop reads {self.field} of a folio, which another loop changes")
        body = terms.both(self.condition, terms.equal(self.index, index))
        some = terms.below(terms.make("first", self.low, self.high, body), self.high)
        return terms.ite(some, terms.make("count", self.low, self.high, body), 0)


class Refused(ValueError):
    """A rule has a form that cannot be proved about; says which rule, and what."""


@dataclass(slots=True)
class Symbolic:
    """The state that thread `thread` changes: `own` are its fields, SECTION.NAME, that it wrote."""

    thread: str
    own: dict[str, Value] = field(default_factory=dict)
    log: list[Point | Span | Gather] = field(default_factory=list)

    def copy(self) -> Symbolic:
        return Symbolic(self.thread, dict(self.own), list(self.log))

    def meet(self, condition: Value, yes: Symbolic, no: Symbolic) -> bool:
        """Become what two states after this one are, `yes` where the condition holds and else `no`.

        False, and nothing is changed, where they differ in where the thread is or in more than fields of single pages.
        """
        if any(yes.own.get(name) != no.own.get(name) for name in WHERE):
            return False
        new = [entry for end in (yes, no) for entry in end.log[len(self.log) :]]
        if not all(isinstance(entry, Point) for entry in new):
            return False
        for name in {**yes.own, **no.own}:
            value = terms.ite(condition, yes.mine(name), no.mine(name))
            if name in self.own or value is not self.mine(name):
                self.own[name] = value
        places = dict.fromkeys((entry.field, entry.index) for entry in new if isinstance(entry, Point))
        made = [
            Point(field, index, terms.ite(condition, yes.read(field, index), no.read(field, index)))
            for field, index in places
        ]
        self.log += made
        return True

    def mine(self, name: str) -> Value:
        """A field of the thread's own, such as task.page."""
        return self.own[name] if name in self.own else var(f"{self.thread}.{name}")

    def read(self, name: str, index: Value, upto: int | None = None) -> Value:
        """A field at an index, after the first `upto` entries of the log (default: all)."""
        value: Value = terms.read(name, index)
        for entry in self.log[:upto]:
            if isinstance(entry, Point):
                if entry.field == name:
                    value = terms.ite(terms.equal(index, entry.index), entry.value, value)
            elif isinstance(entry, Gather):
                if entry.field == name:
                    value = terms.plus(value, entry.turns(index), entry.change)
            elif name in entry.fields:
                condition, new = entry.fields[name]
                there = terms.both(entry.covers(index), terms.bodies_at(condition, index))
                value = terms.ite(there, terms.bodies_at(new, index), value)
        return value

    def head(self, page: Value, upto: int | None = None) -> Value:
        """First page of the folio of `page`."""
        return self._bound(page, terms.head(page), page, upto)

    def end(self, page: Value, upto: int | None = None) -> Value:
        """The page behind the folio of `page`."""
        return self._bound(page, terms.end(page), terms.plus(page, 1), upto)

    def _bound(self, page: Value, before: Value, alone: Value, upto: int | None) -> Value:
        for entry in self.log[:upto]:
            if isinstance(entry, Span) and entry.splits:
                before = terms.ite(entry.covers(page), alone, before)
        return before

    def written(self) -> list[str]:
        """The fields of pages and machines that the log has, in its order."""
        names = ((entry.field,) if isinstance(entry, Point) else entry.fields for entry in self.log)
        return list(dict.fromkeys(itertools.chain.from_iterable(names)))

    def splits(self) -> list[Span]:
        return [entry for entry in self.log if isinstance(entry, Span) and entry.splits]
