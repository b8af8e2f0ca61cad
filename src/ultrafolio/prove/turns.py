"""One turn of a loop over pages, each way through it, also where the loop is in a turn of another one."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from . import terms
from .oracle import Oracle, every_way
from .state import Gather, Point, Refused, Span, Symbolic
from .terms import BOUND, OUTER, Term, Value, var
from .values import Ended, Env

PAGE, OTHER, INNER = var(BOUND), var(OUTER), var(f"{BOUND}1")
"""The page that a loop is at; in a loop in a turn of another one, that of the other one; and its own, while it runs."""
Reader = Any
"""A reader.Reader: that module uses this one."""
Way = tuple[list[Value], tuple[Ended | None, Symbolic, Env]]
"""Conditions, and what a turn ends with: how, the state, and the local names that it may change."""


@dataclass(slots=True)
class Turn:
    """A turn at the page BOUND: each way through it, what it reads; and the variables that stand for what a turn finds
    in the thread's fields and the local names that turns change."""

    ways: list[Way]
    reads: list[tuple[str, Value]]
    before: dict[str, Value]


def one_turn(reader: Reader, body: Sequence[ast.stmt], name: str, env: Env) -> Turn:
    """One turn, each way through it, from a state in which the loop wrote nothing yet."""
    start, oracle, outer = reader.state, reader.oracle, reader.reads
    if outer is not None and (reader.nested or not reader.huge):
        raise Refused("a loop in a loop")
    page = PAGE if outer is None else INNER
    stored = {n.id for s in body for n in ast.walk(s) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    before: dict[str, Value] = {local: var(f"{page.args[0]}{local}") for local in sorted(stored & set(env))}
    fields: dict[str, Value] = {}

    def once(inner: Oracle) -> tuple[Ended | None, Symbolic, Env]:
        reader.state, reader.oracle = start.copy(), inner
        reader.state.own.update(fields)
        here, reader.in_turn = {**env, **before, name: page}, True
        ended = reader.block(body, here)
        reader.state.own.update({field: reader.settled(reader.state.own[field]) for field in fields})
        return ended, reader.state, {local: reader.settled(here[local]) for local in before}

    try:
        while True:
            reader.reads, reader.nested = [], outer is not None
            # what is known outside holds inside; nothing is known of BOUND there
            ways = every_way(once, oracle.conditions)
            changed = {f for _, (_, state, _) in ways for f in state.own if state.own[f] is not start.own.get(f)}
            if any(ended for _, (ended, *_) in ways) or changed <= set(fields):
                turn = Turn(ways, reader.reads, {**before, **fields})
                return turn if outer is None else _inner(turn, outer, len(start.log))
            fields |= {field: var(f"{page.args[0]}{field}") for field in changed}
    finally:
        reader.state, reader.oracle, reader.reads, reader.nested, reader.in_turn = start, oracle, outer, False, False


def _inner(turn: Turn, outer: list[tuple[str, Value]], old: int) -> Turn:
    """A turn of a loop in a turn of another one: its page is BOUND, and that of the other one is OUTER.

    outer: what the other turn reads, to which this one adds; old: entries of the log that the other turn had.
    """
    here: dict[Term, Value] = {INNER: PAGE, PAGE: OTHER}

    def named(value: Any) -> Any:
        return terms.replaced(value, here)

    def state_of(state: Symbolic) -> Symbolic:
        log: list[Point | Span | Gather] = []
        for n, entry in enumerate(state.log):
            if isinstance(entry, Point):
                log.append(Point(entry.field, named(entry.index), named(entry.value)))
            elif (
                isinstance(entry, Span)
                and n < old
                and all(isinstance(v, int) for pair in entry.fields.values() for v in pair)
            ):
                log.append(Span(named(entry.low), named(entry.high), entry.fields))
            else:
                raise Refused("a loop in a loop")
        return Symbolic(state.thread, {field: named(value) for field, value in state.own.items()}, log)

    outer += [(field, OTHER) for field, _ in turn.reads]
    ways = [
        (
            [named(condition) for condition in conditions],
            (ended, state_of(state), {n: named(v) for n, v in env.items()}),
        )
        for conditions, (ended, state, env) in turn.ways
    ]
    return Turn(ways, [(field, named(index)) for field, index in turn.reads], turn.before)


def loop_term(op: str, low: Value, high: Value, body: Value, *more: Value) -> Term:
    """What a loop finds."""
    if any(terms.has(part, OTHER) for part in (body, *more[:1])):
        raise Refused("a loop in a loop looks for what the other one is at")
    return terms.make(op, low, high, body, *more)


def from_no_log(reader: Reader, body: Sequence[ast.stmt], name: str, env: Env) -> Turn:
    """One turn, from a state in which nothing was written yet."""
    start = reader.state
    try:
        reader.state = Symbolic(start.thread, dict(start.own))
        return one_turn(reader, body, name, env)
    finally:
        reader.state = start


def condition_of(ways: Sequence[Way]) -> Value:
    return terms.any_of(terms.all_of(conditions) for conditions, _ in ways)
