"""The loops of rules, by three patterns; any other is refused.

threads  over all threads, returns one value for some condition on a thread, and writes nothing
search   over pages: a turn leaves the loop, or goes on and writes nothing but a field of the thread's own
map      over pages: a turn writes fields of its own page, and lowers or raises numbers elsewhere by constants
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from typing import Any

from . import terms
from .oracle import Oracle, every_way
from .state import ORDER, OWN, WHERE, Point, Refused, Span, Symbolic
from .terms import BOUND, Value, var
from .values import Ended, Env, Thread

PAGE = var(BOUND)
ANY = "A"
"""The thread that a loop over threads is at."""
Reader = Any
"""A reader.Reader: that module uses this one."""
Way = tuple[list[Value], tuple[Ended | None, Symbolic]]


def run(reader: Reader, node: ast.For, env: Env) -> Ended | None:
    """Run a loop as a whole; how it left the function, or None where what follows it is next."""
    match node:
        case ast.For(target=ast.Name(id=name), iter=ast.Call(func=ast.Name(id="range"), args=arguments), orelse=[]):
            bounds = [reader.value(argument, env) for argument in arguments]
        case _:
            raise Refused(f"no pattern for the loop: {ast.unparse(node.iter)}")
    low, high = bounds if len(bounds) == 2 else (0, bounds[0])
    if high is var("cfg.actors"):
        return _threads(reader, node.body, name, env)
    ways, reads = _turn(reader, node.body, name, env)
    if any(ended for _, (ended, _) in ways):
        return _search(reader, ways, low, high)
    _map(reader, ways, reads, low, high)
    return None


def _turn(reader: Reader, body: Sequence[ast.stmt], name: str, env: Env) -> tuple[list[Way], list[tuple[str, Value]]]:
    """One turn at the page BOUND, each way through it, from a state in which the loop wrote nothing yet."""
    start, oracle, reads = reader.state, reader.oracle, list[tuple[str, Value]]()
    if reader.reads is not None:
        raise Refused("a loop in a loop")

    def once(inner: Oracle) -> tuple[Ended | None, Symbolic]:
        reader.state, reader.oracle = start.copy(), inner
        return reader.block(body, {**env, name: PAGE}), reader.state

    reader.reads = reads
    try:
        # what is known outside holds inside; nothing is known of BOUND there
        return every_way(once, oracle.conditions), reads
    finally:
        reader.state, reader.oracle, reader.reads = start, oracle, None


def _condition(ways: Sequence[Way]) -> Value:
    return terms.any_of(terms.all_of(conditions) for conditions, _ in ways)


# ------------------------------------------------------------------------------------------------- threads
def _threads(reader: Reader, body: Sequence[ast.stmt], name: str, env: Env) -> Ended | None:
    """Some thread makes the loop return, or none does."""
    start, oracle = reader.state, reader.oracle

    def once(inner: Oracle) -> tuple[Ended | None, Symbolic]:
        reader.state, reader.oracle = start.copy(), inner
        return reader.block(body, {**env, name: Thread(ANY)}), reader.state

    try:
        ways = every_way(once)
    finally:
        reader.state, reader.oracle = start, oracle
    leaving = [way for way in ways if way[1][0]]
    ends = [ended for _, (ended, _) in leaving if ended]
    if start.log or set(start.own) - set(WHERE) or any(_changed(start, state) for _, (_, state) in ways):
        raise Refused("a loop over threads in a step that writes before it, or in it")
    if not ends or any(ended != ends[0] for ended in ends):
        raise Refused("a loop over threads that returns different values")
    return ends[0] if reader.oracle.decide(terms.make("thread", _condition(leaving))) else None


# ------------------------------------------------------------------------------------------------- search
def _search(reader: Reader, ways: Sequence[Way], low: Value, high: Value) -> Ended | None:
    """The first page at which a turn leaves; the turns before it."""
    leaving = [way for way in ways if way[1][0]]
    staying = [way for way in ways if not way[1][0]]
    if any(_changed(reader.state, state) for _, (_, state) in leaving):
        raise Refused("a turn writes and leaves the loop")
    if any(len(state.log) > len(reader.state.log) for _, (_, state) in staying):
        raise Refused("a loop that may be left writes pages")
    found = terms.make("first", low, high, _condition(leaving))
    _last_turn(reader, staying, low, found)
    if not reader.oracle.decide(terms.below(found, high)):
        return None
    ends = list(dict.fromkeys(ended for _, (ended, _) in leaving if ended))
    for ended in ends[:-1]:
        here = _condition([way for way in leaving if way[1][0] == ended])
        if reader.oracle.decide(terms.bodies_at(here, found)):
            return ended if ended.how == "return" else None
    return ends[-1] if ends[-1].how == "return" else None


def _changed(old: Symbolic, new: Symbolic) -> bool:
    return len(new.log) > len(old.log) or new.own != old.own


def _last_turn(reader: Reader, staying: Sequence[Way], low: Value, found: Value) -> None:
    """What the turns before `found` left in the thread's fields: each turn writes what depends on its page alone."""
    if not any(_changed(reader.state, state) for _, (_, state) in staying):
        return
    if len(staying) != 1:
        raise Refused("a loop that may be left writes in different ways")
    own = staying[0][1][1].own
    for name, value in own.items():
        if value is reader.state.own.get(name):
            continue
        last = terms.bodies_at(value, terms.minus(found, 1))
        if last is found and reader.state.mine(name) is low:
            reader.state.own[name] = found
        else:
            reader.state.own[name] = terms.ite(terms.below(low, found), last, reader.state.mine(name))


# ------------------------------------------------------------------------------------------------- map
def _map(reader: Reader, ways: Sequence[Way], reads: Sequence[tuple[str, Value]], low: Value, high: Value) -> None:
    """Every page in the range at once, and the numbers that turns lower or raise."""
    old = len(reader.state.log)
    fields: dict[str, list[tuple[Value, Value]]] = {}
    sums: dict[tuple[str, Value], list[tuple[Value, int]]] = {}
    for conditions, (_, state) in ways:
        if state.own != reader.state.own:
            raise Refused("a loop over pages writes a field of its thread in each turn")
        here = terms.all_of(conditions)
        for name in state.written():
            for index in dict.fromkeys(entry.index for entry in _points(state, old) if entry.field == name):
                if index is PAGE:
                    fields.setdefault(name, []).append((here, state.read(name, PAGE)))
                else:
                    change = _constant(terms.minus(state.read(name, index), reader.state.read(name, index)), name)
                    sums.setdefault((name, index), []).append((here, change))
    _apart(fields, sums, reads)
    made = {name: _value(name, each, low, high) for name, each in fields.items()}
    if made:
        everywhere = low == 0 and high is var("cfg.pages")
        reader.state.log.append(Span(None, None, made) if everywhere else Span(low, high, made))
    for (name, index), each in sums.items():
        value = reader.state.read(name, index)
        for condition, change in each:
            value = terms.plus(value, terms.make("count", low, high, condition), change)
        reader.state.log.append(Point(name, index, value))


def _points(state: Symbolic, old: int) -> list[Point]:
    new = state.log[old:]
    if any(isinstance(entry, Span) for entry in new):
        raise Refused("a loop in a loop")
    return new  # type: ignore[return-value]


def _constant(value: Any, name: str) -> int:
    if not isinstance(value, int):
        raise Refused(f"a loop changes {name} of one page by what is not the same in each turn")
    return value


def _value(name: str, each: Sequence[tuple[Value, Value]], low: Value, high: Value) -> tuple[Value, Value]:
    """(condition, value) of a field that turns write, in which a turn is at BOUND."""
    value = each[-1][1]
    for condition, other in each[:-1]:
        value = terms.ite(condition, other, value)
    if name == ORDER and not (value == 0 and each[0][0] is True and _is_folio(low, high)):
        raise Refused("an order is set to something else than 0 on all pages of a folio")
    return terms.any_of(condition for condition, _ in each), value


def _is_folio(low: Value, high: Value) -> bool:
    return isinstance(low, terms.Term) and low.op == "head" and terms.end(low) is high


def _apart(fields: dict[str, Any], sums: dict[tuple[str, Value], Any], reads: Sequence[tuple[str, Value]]) -> None:
    """Refused unless no turn reads what another turn writes, so that all may happen at once."""
    total = {name for name, _ in sums}
    if total & set(fields):
        raise Refused(f"a loop writes {', '.join(sorted(total & set(fields)))} in two ways")
    for name, index in reads:
        if name in fields and index is not PAGE:
            raise Refused(f"a turn of a loop reads {name} of another page, which another turn writes")
        if name in total and index is PAGE:
            raise Refused(f"a turn of a loop reads {name}, which another turn changes")
    if any(name.split(".")[0] in OWN for name in fields):
        raise Refused("a loop writes threads")
