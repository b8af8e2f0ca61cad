"""Running a piece of a rule once for each way through it: a decision where a condition is not known."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from typing import TypeVar

from . import terms
from .terms import Term, Value

T = TypeVar("T")
MOST = 4096
"""Ways through one rule at most; more are a defect of a rule, or of its reading."""


class Oracle:
    """Decides conditions: those that follow from earlier ones, then as `decisions` says, then for "yes"."""

    def __init__(self, decisions: list[bool], given: Iterable[Value] = ()) -> None:
        self.decisions, self.trace = decisions, list[bool]()
        self.conditions: list[Value] = []
        self._known: dict[Term, bool] = {}
        self._equal: dict[Term, int] = {}
        self._different: dict[Term, set[int]] = {}
        for condition in given:
            self.note(condition, True)

    def decide(self, condition: Value) -> bool:
        """Whether to go on as if the condition held; what is decided is a condition of this way."""
        condition = terms.truth(condition)
        known = self.known(condition)
        if known is not None:
            return known
        at = len(self.trace)
        chosen = self.decisions[at] if at < len(self.decisions) else True
        self.trace.append(chosen)
        self.conditions.append(condition if chosen else terms.negate(condition))
        self.note(condition, chosen)
        return chosen

    def known(self, condition: Value) -> bool | None:
        """Whether the condition follows from the earlier ones, or is refuted by them."""
        if isinstance(condition, bool):
            return condition
        assert isinstance(condition, Term)
        if condition in self._known:
            return self._known[condition]
        opposite = terms.negate(condition)
        if isinstance(opposite, Term) and opposite in self._known:
            return not self._known[opposite]
        if condition.op == "not":
            found = self.known(opposite)
            return None if found is None else not found
        if condition.op in ("and", "or"):
            each = [self.known(part) for part in condition.args]  # type: ignore[arg-type]
            wins = condition.op == "or"
            if wins in each:
                return wins
            return (not wins) if all(x is not None for x in each) else None
        single = _single(condition)
        if single:
            term, value = single
            if term in self._equal:
                return self._equal[term] == value
            if value in self._different.get(term, ()):
                return False
        return None

    def note(self, condition: Value, holds: bool) -> None:
        """A condition that follows from those of this way holds, or not."""
        if isinstance(condition, bool):
            return
        assert isinstance(condition, Term)
        self._known[condition] = holds
        if condition.op == "not":
            self.note(condition.args[0], not holds)  # type: ignore[arg-type]
        elif condition.op == ("and" if holds else "or"):
            for part in condition.args:
                self.note(part, holds)  # type: ignore[arg-type]
        single = _single(condition)
        if single:
            term, value = single
            if holds:
                self._equal[term] = value
            else:
                self._different.setdefault(term, set()).add(value)


class Impossible(Exception):
    """The decisions of a way contradict each other: nothing goes it."""


def _single(condition: Term) -> tuple[Term, int] | None:
    """(term, number) of a condition that says that a term equals a number."""
    if condition.op != "eq0":
        return None
    constant, found = terms.parts(condition.args[0])  # type: ignore[arg-type]
    if len(found) != 1:
        return None
    ((term, factor),) = found.items()
    return (term, -constant) if factor == 1 else None


class Undecided(Exception):
    """A condition is met that must not be asked."""


class Settled(Oracle):
    """Knows what another oracle knows, and decides nothing more."""

    def __init__(self, other: Oracle) -> None:
        super().__init__([])
        self._known, self._equal, self._different = other._known, other._equal, other._different

    def decide(self, condition: Value) -> bool:
        known = self.known(terms.truth(condition))
        if known is None:
            raise Undecided
        return known


def every_way(run: Callable[[Oracle], T], given: Iterable[Value] = ()) -> list[tuple[list[Value], T]]:
    """Each way through `run`: the conditions under which it is gone, and what `run` returned."""
    given = list(given)
    pending: list[list[bool]] = [[]]
    made = []
    while pending:
        oracle = Oracle(pending.pop(), given)
        with contextlib.suppress(Impossible):
            result = run(oracle)
            made.append((oracle.conditions, result))
        for at in range(len(oracle.decisions), len(oracle.trace)):
            pending.append([*oracle.trace[:at], not oracle.trace[at]])
        if len(made) + len(pending) > MOST:
            raise ValueError(f"more than {MOST} ways")
    return made
