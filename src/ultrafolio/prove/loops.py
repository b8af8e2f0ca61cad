"""The loops of rules, by four patterns; any other is refused.

few      of a known number of turns, or of few at most: one after the other
threads  over all threads, returns one value for some condition on a thread, and writes nothing
search   over pages: a turn leaves the loop, or goes on and writes nothing but a field of the thread's own
spread   over pages: a turn writes its own page, or pages of its huge page, and may leave the loop (spreads.py)
map      over pages: a turn writes fields of its own page; it lowers, raises or sets numbers elsewhere by constants; and
         it sets a field or a local name by what its page alone says, or sets a bit of it
"""

from __future__ import annotations

import ast
import itertools
from collections.abc import Sequence
from typing import Any

from . import spreads, terms
from .oracle import Impossible, Oracle, every_way
from .state import ORDER, WHERE, Gather, Point, Refused, Span, Symbolic
from .terms import Term, Value, var
from .turns import OTHER, PAGE, Reader, Turn, Way, condition_of, from_no_log, loop_term, one_turn
from .values import Ended, Env, Thread

ANY = "A"
"""The thread that a loop over threads is at."""
FEW = 2
"""Turns of a loop at most that are run one after the other."""


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
    most = next((n for n in range(FEW + 1) if _is_least(high, terms.plus(low, n))), None)
    turns = reader.settled(terms.minus(high, low)) if most is None else most
    if isinstance(turns, int) and turns <= FEW:
        return _one_by_one(reader, node.body, name, env, low, high, turns)
    if reader.huge and reader.reads is None:
        first = from_no_log(reader, node.body, name, env)
        if _spreads(first):
            return _spread(reader, first, node.body, name, env, low, high)
    turn = one_turn(reader, node.body, name, env)
    if any(ended for _, (ended, *_) in turn.ways):
        return _search(reader, turn, node.body, env, name, low, high)
    _map(reader, turn, env, low, high)
    return None


def _is_least(value: Value, one: Value) -> bool:
    """Whether a value is min(one, another)."""
    if not isinstance(value, Term) or value.op != "ite":
        return False
    return any(value in (terms.least(one, arm), terms.least(arm, one)) for arm in value.args[1:])  # type: ignore[arg-type]


def _one_by_one(
    reader: Reader, body: Sequence[ast.stmt], name: str, env: Env, low: Value, high: Value, turns: int
) -> Ended | None:
    """A loop of few turns at most, one after the other."""
    for n in range(turns):
        env[name] = terms.plus(low, n)
        if not reader.oracle.decide(terms.below(env[name], high)):
            return None
        ended: Ended | None = reader.block(body, env)
        if ended:
            return ended if ended.how == "return" else None
    return None


# ------------------------------------------------------------------------------------------------- spread
def _spreads(turn: Turn) -> bool:
    """Whether turns write pages of their huge page; or write pages, or change local names, and may leave the loop."""
    new = [entry for _, (_, state, _) in turn.ways for entry in state.log]
    leaves = any(ended for _, (ended, *_) in turn.ways)
    stays = any(
        state.log or any(value is not turn.before[local] for local, value in after.items())
        for _, (ended, state, after) in turn.ways
        if not ended
    )
    return any(isinstance(entry, Span) for entry in new) or (leaves and stays)


def _spread(
    reader: Reader, turn: Turn, body: Sequence[ast.stmt], name: str, env: Env, low: Value, high: Value
) -> Ended | None:
    """Turns that write pages of their huge pages, up to the first that leaves."""
    before = reader.state.copy()
    leaving = [way for way in turn.ways if way[1][0]]
    staying = [way for way in turn.ways if not way[1][0]]
    if any(
        value is not turn.before.get(field, before.own.get(field))
        for _, (_, s, _) in staying
        for field, value in s.own.items()
    ):
        raise Refused("a loop over huge pages changes the thread in each turn")
    leaves = condition_of(leaving)
    found = loop_term("first", low, high, spreads.begun_with(leaves, before)) if leaving else high
    span = spreads.after(spreads.turns_of(staying), leaves, low, found, before)

    def exists(condition: Value) -> Value:
        return terms.below(loop_term("first", low, found, spreads.begun_with(condition, before)), found)

    env.update(spreads.found_by(staying, turn.before, env, exists))
    if span:
        reader.state.log.append(span)
    if not leaving or not reader.oracle.decide(terms.below(found, high)):
        return None
    env[name] = found
    return _leave(reader, terms.bodies_at(spreads.begun_with(leaves, before), found), body, env)


# ------------------------------------------------------------------------------------------------- threads
def _threads(reader: Reader, body: Sequence[ast.stmt], name: str, env: Env) -> Ended | None:
    """Some thread makes the loop return, or none does."""
    start, oracle = reader.state, reader.oracle

    def once(inner: Oracle) -> tuple[Ended | None, Symbolic, Env]:
        reader.state, reader.oracle = start.copy(), inner
        return reader.block(body, {**env, name: Thread(ANY)}), reader.state, {}

    try:
        ways = every_way(once)
    finally:
        reader.state, reader.oracle = start, oracle
    leaving = [way for way in ways if way[1][0]]
    ends = [ended for _, (ended, *_) in leaving if ended]
    if start.log or set(start.own) - set(WHERE) or any(_changed(start, state) for _, (_, state, _) in ways):
        raise Refused("a loop over threads in a step that writes before it, or in it")
    if not ends or any(ended != ends[0] for ended in ends):
        raise Refused("a loop over threads that returns different values")
    return ends[0] if reader.oracle.decide(terms.make("thread", condition_of(leaving))) else None


# ------------------------------------------------------------------------------------------------- search
def _search(
    reader: Reader, turn: Turn, body: Sequence[ast.stmt], env: Env, name: str, low: Value, high: Value
) -> Ended | None:
    """The first page at which a turn leaves; the turns before it."""
    leaving = [way for way in turn.ways if way[1][0]]
    staying = [way for way in turn.ways if not way[1][0]]
    if any(len(state.log) > len(reader.state.log) for _, (_, state, _) in staying):
        raise Refused("a loop that may be left writes pages")
    if any(value is not turn.before[local] for _, (*_, after) in staying for local, value in after.items()):
        raise Refused("a loop that may be left changes what the function goes on with")
    found = loop_term("first", low, high, condition_of(leaving))
    _last_turn(reader, staying, low, found)
    if not reader.oracle.decide(terms.below(found, high)):
        return None
    if any(_changed(reader.state, state) or _at_page(ended) for _, (ended, state, _) in leaving):
        env[name] = found
        return _leave(reader, terms.bodies_at(condition_of(leaving), found), body, env)
    ends = list(dict.fromkeys(ended for _, (ended, *_) in leaving if ended))
    for ended in ends[:-1]:
        here = condition_of([way for way in leaving if way[1][0] == ended])
        if reader.oracle.decide(terms.bodies_at(here, found)):
            return ended if ended.how == "return" else None
    return ends[-1] if ends[-1].how == "return" else None


def _at_page(ended: Ended | None) -> bool:
    """Whether what a turn returns may depend on its page."""
    return ended is not None and not (ended.value is None or isinstance(ended.value, int))


def _leave(reader: Reader, condition: Value, body: Sequence[ast.stmt], env: Env) -> Ended | None:
    """The last turn, at the page at which it leaves."""
    reader.oracle.note(condition, True)
    ended: Ended | None = reader.block(body, env)
    if ended is None:
        raise Impossible
    return ended if ended.how == "return" else None


def _changed(old: Symbolic, new: Symbolic) -> bool:
    return len(new.log) > len(old.log) or new.own != old.own


def _last_turn(reader: Reader, staying: Sequence[Way], low: Value, found: Value) -> None:
    """What the turns before `found` left in the thread's fields: each turn writes what depends on its page alone."""
    if not any(_changed(reader.state, state) for _, (_, state, _) in staying):
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
def _map(reader: Reader, turn: Turn, env: Env, low: Value, high: Value) -> None:
    """Every page in the range at once, and the numbers that turns lower or raise, set, or find."""
    old = len(reader.state.log)
    fields: dict[str, list[tuple[Value, Value]]] = {}
    gathers: list[Gather] = []
    sums: dict[tuple[str, Value], list[tuple[Value, int]]] = {}
    sets: dict[tuple[str, Value], list[tuple[Value, int]]] = {}
    for conditions, (_, state, _) in turn.ways:
        here = terms.all_of(conditions)
        for name in state.written():
            for index in dict.fromkeys(entry.index for entry in _points(state, old) if entry.field == name):
                if index is PAGE:
                    fields.setdefault(name, []).append((here, state.read(name, PAGE)))
                    continue
                if terms.has(index, PAGE):
                    gathers.append(_gather(reader.state, state, old, name, index, here, low, high))
                    continue
                new, change = state.read(name, index), _change(reader.state, state, name, index)
                kept, number = (sums, change) if change is not None else (sets, new)
                if not isinstance(number, int):
                    raise Refused(f"a loop changes {name} of one page by what is not the same in each turn")
                kept.setdefault((name, index), []).append((here, number))
    _apart(fields, {**sums, **sets, **{(entry.field, entry.index): [(entry.condition, 0)] for entry in gathers}}, turn)
    made = {name: _value(name, each, low, high, reader.huge) for name, each in fields.items()}
    found = _found(reader, turn, env, low, high)
    if made:
        everywhere = low == 0 and high is var("cfg.pages")
        splits = ORDER in made and not reader.huge
        reader.state.log.append(Span(None, None, made) if everywhere else Span(low, high, made, splits))
    for (name, index), each in sums.items():
        value = reader.state.read(name, index)
        for condition, change in each:
            value = terms.plus(value, loop_term("count", low, high, condition), change)
        reader.state.log.append(Point(name, index, value))
    for (name, index), each in sets.items():
        value = reader.state.read(name, index)
        reader.state.log.append(Point(name, index, _last(low, high, each, value)))
    reader.state.log += gathers
    for name, value in found.items():
        if name in env:
            env[name] = value
        else:
            reader.state.own[name] = value


def _gather(
    old: Symbolic, new: Symbolic, begun: int, name: str, index: Value, here: Value, low: Value, high: Value
) -> Gather:
    """A change of a field at an index that a turn's page tells."""
    change = _change(old, new, name, index)
    if change is None or any(entry.field == name and entry.index is not index for entry in _points(new, begun)):
        raise Refused(f"a loop changes {name} of folios by what is not the same in each turn")
    if terms.has(here, OTHER) or terms.has(index, OTHER):
        raise Refused("a loop in a loop")
    return Gather(name, low, high, index, here, change)


def _found(reader: Reader, turn: Turn, env: Env, low: Value, high: Value) -> dict[str, Value]:
    """The thread's fields and the local names that turns change: each is what the last turn that sets it says, or has a
    bit set by each turn."""
    made: dict[str, Value] = {}
    for name, before in turn.before.items():
        first = env[name] if name in env else reader.state.mine(name)
        each = [
            (terms.all_of(conditions), after[name] if name in after else state.own[name])
            for conditions, (_, state, after) in turn.ways
        ]
        changing = [(condition, value) for condition, value in each if value is not before]
        marks = [value.args for _, value in changing if isinstance(value, Term) and _is_mark(value, before)]
        if any(_names(before, value) for _, value in changing) and (len(marks) < len(changing) or len({*marks}) > 1):
            raise Refused(f"a loop changes {name.split('.')[-1]} in each turn")
        if not changing:
            continue
        if marks:
            condition = terms.any_of(condition for condition, _ in changing)
            made[name] = loop_term("bits", low, high, condition, marks[0][1], first)  # type: ignore[arg-type]
        else:
            made[name] = _last(low, high, changing, first)
    return made


def _is_mark(value: Term, before: Value) -> bool:
    """Whether a turn sets one bit of what it found."""
    return value.op == "set" and value.args[0] is before and not _names(before, value.args[1])  # type: ignore[arg-type]


def _names(before: Value, value: Value) -> bool:
    """Whether a formula has the variable of what a turn found."""
    return before in terms.leaves(value, frozenset(("var",)))


def _last(low: Value, high: Value, each: Sequence[tuple[Value, Any]], first: Value) -> Value:
    """What the last turn that sets a value sets: (condition, value), each at BOUND; `first` where none does."""
    value = each[-1][1]
    for condition, other in each[:-1]:
        value = terms.ite(condition, other, value)
    last = loop_term("last", low, high, terms.any_of(condition for condition, _ in each))
    return terms.ite(terms.at_most(low, last), terms.bodies_at(value, last), first)


def _change(old: Symbolic, new: Symbolic, name: str, index: Value) -> int | None:
    """By how much a turn changes a field of one page; None where the formula does not say."""
    change = terms.minus(new.read(name, index), old.read(name, index))
    return change if isinstance(change, int) else None


def _points(state: Symbolic, old: int) -> list[Point]:
    new = state.log[old:]
    if not all(isinstance(entry, Point) for entry in new):
        raise Refused("a loop in a loop")
    return new  # type: ignore[return-value]


def _value(name: str, each: Sequence[tuple[Value, Value]], low: Value, high: Value, huge: bool) -> tuple[Value, Value]:
    """(condition, value) of a field that turns write, in which a turn is at BOUND."""
    value = each[-1][1]
    for condition, other in each[:-1]:
        value = terms.ite(condition, other, value)
    if name == ORDER and not huge and not (value == 0 and each[0][0] is True and _is_folio(low, high)):
        raise Refused("an order is set to something else than 0 on all pages of a folio")
    return terms.any_of(condition for condition, _ in each), value


def _is_folio(low: Value, high: Value) -> bool:
    return isinstance(low, terms.Term) and low.op == "head" and terms.end(low) is high


def _apart(fields: dict[str, Any], others: dict[tuple[str, Value], Any], turn: Turn) -> None:
    """Refused unless no turn reads what another turn writes, so that all may happen at once."""
    total = {name for name, _ in others}
    if total & set(fields):
        raise Refused(f"a loop writes {', '.join(sorted(total & set(fields)))} in two ways")
    for name, index in turn.reads:
        if name in fields and index is not PAGE:
            raise Refused(f"a turn of a loop reads {name} of another page, which another turn writes")
        if name in total and index is PAGE:
            raise Refused(f"a turn of a loop reads {name}, which another turn changes")
    written = [value for each in fields.values() for pair in each for value in pair]
    conditions = [condition for each in others.values() for condition, _ in each]
    if any(read.args[0] in total for condition in conditions for read in terms.reads(condition)):
        raise Refused("a turn of a loop reads what another turn changes")
    for value, before in itertools.product([*written, *conditions], turn.before.values()):
        if _names(before, value):
            raise Refused("a turn of a loop reads what another turn changes")
