"""Loops over pages, in turns of which whole huge pages change: a further pattern beside those of loops.py.

own     a turn changes fields of its own page, or leaves the loop
spread  a turn changes, beside them, fields of every page of its huge page, by what each page alone says

In each huge page at most one turn of the loop spreads: the first that meets the condition for it. That no other one
does is shown by the solver (solver.impossible), for any page and any huge page; a loop of which it is not shown is
Refused. What a turn reads of pages that other turns write is its own page alone.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from . import terms
from .state import OWN, Point, Refused, Span, Symbolic
from .terms import BOUND, SIZE, Term, Value, var

PAGE, OTHER, SPREADS = var(BOUND), var("#x"), var("#spreads")
"""The page of a turn, another one of its huge page, and the page of the turn that spreads there."""
Effect = Mapping[str, Value]
"""What fields of a page become, by what they are: of `read` at the page."""


@dataclass(frozen=True, slots=True)
class Turns:
    """The ways of a turn that go on: their conditions, what each does to its own page, and what to another one of its
    huge page; None where it does nothing there."""

    conditions: Sequence[Value]
    own: Sequence[Effect]
    other: Sequence[Effect | None]

    @property
    def fields(self) -> list[str]:
        return list(dict.fromkeys(name for effect in (*self.own, *self.other) for name in effect or ()))

    @property
    def spreading(self) -> list[tuple[Value, Effect]]:
        """Condition and effect of each way that spreads."""
        return [(c, other) for c, other in zip(self.conditions, self.other, strict=True) if other is not None]


def turns_of(ways: Sequence[Any]) -> Turns:
    """What the ways of a turn that go on do; each began with an empty log."""
    made = Turns(
        [terms.all_of(conditions) for conditions, _ in ways],
        [_own(state) for _, (_, state, _) in ways],
        [_other(state) for _, (_, state, _) in ways],
    )
    for formula in (
        *made.conditions,
        *(value for effect in (*made.own, *made.other) for value in (effect or {}).values()),
    ):
        _apart(formula, made.fields)
    return made


def _own(state: Symbolic) -> Effect:
    for entry in state.log:
        if not (isinstance(entry, Span) or (isinstance(entry, Point) and entry.index is PAGE)):
            raise Refused(f"a turn of a loop over huge pages changes {entry.field} of one page")
    return {name: state.read(name, PAGE) for name in state.written()}


def _other(state: Symbolic) -> Effect | None:
    """What a turn does to another page of its huge page."""
    spans = [entry for entry in state.log if isinstance(entry, Span)]
    if not spans:
        return None
    first = terms.block(PAGE)
    if any(span.low is not first or span.high is not terms.plus(first, SIZE) for span in spans):
        raise Refused("a loop in a loop, over other pages than those of a huge page")
    everywhere = Symbolic(state.thread, state.own, [Span(None, None, span.fields) for span in spans])
    same = terms.equal(OTHER, PAGE)
    assert isinstance(same, Term)
    made = {name: terms.replaced(everywhere.read(name, OTHER), {same: False}) for name in everywhere.written()}
    if any(terms.has(value, PAGE) for value in made.values()):
        raise Refused("a loop in a loop whose turns read what the other one is at")
    return made


def _apart(formula: Value, fields: Sequence[str]) -> None:
    """Refused where a formula reads one of these fields of another page than those that it is about."""
    for read in terms.reads(formula):
        if read.args[0] in fields and read.args[1] not in (PAGE, OTHER):
            raise Refused(f"a turn of a loop reads {read.args[0]} of another page, which another turn writes")


# ------------------------------------------------------------------------------------------------- all turns
def after(turns: Turns, leaving: Value, low: Value, high: Value, before: Symbolic) -> Span | None:
    """What the turns at the pages [low, high) make of every page, where the loop leaves at none of them.

    leaving: the condition of a turn that leaves; before: the state before the loop.
    """
    if not turns.fields:
        return None
    _alone(turns, leaving, low, high)
    begun = functools.partial(begun_with, before=before)
    own = _chosen(turns.conditions, turns.own, turns.fields, PAGE)
    mine = {name: begun(value) for name, value in own.items()}
    inside = terms.within(low, PAGE, high)
    old = {name: before.read(name, PAGE) for name in turns.fields}
    if not turns.spreading:
        return Span(low, high, {name: (True, value) for name, value in mine.items()})
    first, end = terms.block(PAGE), terms.plus(terms.block(PAGE), SIZE)
    upto = terms.least(high, end)
    spreads = terms.any_of(begun(condition) for condition, _ in turns.spreading)
    at = terms.make("first", terms.most(low, first), upto, spreads)
    here = [terms.bodies_at(condition, SPREADS) for condition, _ in turns.spreading]
    there = _chosen(here, [effect for _, effect in turns.spreading], turns.fields, OTHER)
    other = {name: _on(value, {}, OTHER) for name, value in there.items()}
    # of pages before it the own turn comes first, of those behind it last
    alone, early, late = (
        {name: terms.replaced(begun(value), {SPREADS: at}) for name, value in effect.items()}
        for effect in (
            other,
            {name: _on(value, own, OTHER) for name, value in there.items()},
            {name: _on(value, other, PAGE) for name, value in own.items()},
        )
    )
    fields = {}
    for name in turns.fields:
        hit = terms.ite(terms.equal(PAGE, at), mine[name], terms.ite(terms.below(PAGE, at), early[name], late[name]))
        hit = terms.ite(inside, hit, alone[name])
        missed = terms.ite(inside, mine[name], old[name])
        fields[name] = (True, terms.ite(terms.below(at, upto), hit, missed))
    return Span(None, None, fields)


def _chosen(conditions: Sequence[Value], effects: Sequence[Effect], fields: Sequence[str], page: Term) -> Effect:
    """What fields of a page become by the one way whose condition holds."""
    made = {}
    for name in fields:
        each = [effect.get(name, terms.read(name, page)) for effect in effects]
        value = each[-1]
        for condition, other in zip(conditions[:-1], each[:-1], strict=True):
            value = terms.ite(condition, other, value)
        made[name] = value
    return made


def _on(value: Value, fields: Effect, before: Term) -> Value:
    """An effect on the page `before`, at PAGE, where its fields are as another effect has left them there."""
    by: dict[Term, Value] = {
        read: fields.get(str(read.args[0]), terms.read(str(read.args[0]), PAGE))
        for read in terms.reads(value)
        if read.args[1] is before
    }
    return terms.replaced(terms.replaced(value, by), {before: PAGE})


def begun_with(formula: Value, before: Symbolic) -> Value:
    """A formula of a turn, of fields as they are when the loop begins."""
    if not before.log:
        return formula
    by: dict[Term, Value] = {
        read: before.read(str(read.args[0]), read.args[1])  # type: ignore[arg-type]
        for read in terms.reads(formula)
        if str(read.args[0]).split(".")[0] not in OWN
    }
    if any(value is not read for read, value in by.items()) and terms.leaves(formula, frozenset(terms.LOOPS)):
        raise Refused("a loop in a loop reads what was written before it")
    return terms.replaced(formula, by)


# ------------------------------------------------------------------------------------------------- at most one spreads
def _alone(turns: Turns, leaving: Value, low: Value, high: Value) -> None:
    """Refused unless after a turn that spreads no later one in the huge page does, and none leaves or stays otherwise
    than it would have."""
    if not turns.spreading:
        return
    from .solver import impossible  # the solver is asked only here

    first, later = var("#first"), var("#later")
    both = [
        terms.within(low, first, later), terms.below(later, high),
        terms.equal(terms.block(first), terms.block(later)),
    ]  # fmt: skip
    any_spreads = terms.any_of(condition for condition, _ in turns.spreading)
    for condition, effect in turns.spreading:
        changed = {terms.read(name, PAGE): _on(value, {}, OTHER) for name, value in effect.items()}
        spreads = terms.replaced(any_spreads, changed)
        leaves = terms.choose(leaving, terms.negate(terms.replaced(leaving, changed)), terms.replaced(leaving, changed))
        bad = terms.any_of((terms.bodies_at(spreads, later), terms.bodies_at(leaves, later)))
        if not impossible([*both, terms.bodies_at(condition, first), bad], [first, later, low]):
            raise Refused("a loop of which two turns may change the pages of one huge page")


def found_by(
    ways: Sequence[Any], before: Mapping[str, Value], env: Mapping[str, Any], exists: Callable[[Value], Value]
) -> dict[str, Value]:
    """Local names that turns change: one that becomes true where a condition holds in some turn.

    exists: whether some turn meets a condition.
    """
    made: dict[str, Value] = {}
    for name, old in before.items():
        conditions = []
        for condition, (_, state, after_turn) in ways:
            value = after_turn[name] if name in after_turn else state.own[name]
            if value is old:
                continue
            assert isinstance(old, Term)
            if not terms.is_truth(value) or terms.replaced(value, {old: 1}) is not True or "." in name:
                raise Refused(f"a loop over huge pages changes {name.split('.')[-1]} in each turn")
            conditions.append(terms.both(terms.all_of(condition), terms.replaced(value, {old: 0})))
        if conditions:
            made[name] = terms.any_of((terms.truth(env[name]), exists(terms.any_of(conditions))))
    return made
