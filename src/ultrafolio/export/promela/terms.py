"""Promela expressions with their known values, so that a rule is specialised during translation.

A term is a piece of Promela text together with the constant it stands for, where there is one, or the set of values
it can have. Operations on terms fold: what the policy, the actor or the scenario decides never reaches the text.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

Cell = tuple[str, str, int]
"""One integer of the state: section, field, index."""

# Promela binds as C does; a term remembers how strongly its outermost operator binds
_LEVELS = {
    "||": 1,
    "&&": 2,
    "|": 3,
    "^": 4,
    "&": 5,
    "==": 6,
    "!=": 6,
    "<": 7,
    "<=": 7,
    ">": 7,
    ">=": 7,
    "<<": 8,
    ">>": 8,
    "+": 9,
    "-": 9,
    "*": 10,
}
_ATOM = 12
_OPPOSITE = {"==": "!=", "!=": "==", "<": ">=", ">=": "<", ">": "<=", "<=": ">"}
_COMPARE = frozenset(_OPPOSITE)
_LISTED = frozenset(("&", "|", "^", "<<", ">>", "+", "-"))
_MOST_LISTED, _LARGEST_LISTED = 64, 1 << 16
"""As many results of an operation in _LISTED are listed, and none above the second."""
_TRUTH = frozenset((0, 1))


@dataclass(frozen=True, slots=True)
class Term:
    """An integer expression.

    values   the values it can have; None: not known. One value: a constant
    reads    names of the state's fields it depends on
    cell     the cell it reads, where it is nothing but that
    opposite the text of its negation, where that is shorter than !(...)
    """

    text: str
    level: int = _ATOM
    values: frozenset[int] | None = None
    reads: frozenset[str] = frozenset()
    cell: Cell | None = None
    opposite: str = ""

    @property
    def const(self) -> int | None:
        """The only value it can have, or None."""
        return next(iter(self.values)) if self.values is not None and len(self.values) == 1 else None

    @property
    def is_boolean(self) -> bool:
        """Whether it can be 0 and 1 only."""
        return self.values is not None and self.values <= _TRUTH

    @property
    def truth(self) -> bool | None:
        """Whether it is non-zero; None if unknown."""
        if self.values is None:
            return None
        return True if 0 not in self.values else False if len(self.values) == 1 else None

    def at(self, level: int) -> str:
        """Returns its text as an operand of an operator with precedence `level`."""
        return self.text if self.level > level else f"({self.text})"


def constant(value: int, name: str = "") -> Term:
    """Returns the term of a constant, printed by its name if it has one."""
    return Term(name or str(int(value)), values=frozenset((int(value),)))


TRUE, FALSE = constant(1, "true"), constant(0, "false")


def _boolean(value: bool) -> Term:
    return TRUE if value else FALSE


def binary(op: str, a: Term, b: Term) -> Term:
    """Returns `a op b`, a constant if the values decide it."""
    if a.const is not None and b.const is not None:
        return _fold(op, a.const, b.const)
    if op in ("+", "-", "<<", ">>") and b.const == 0:
        return a
    if op == "+" and a.const == 0:
        return b
    if op in _COMPARE:
        decided = _decide(op, a.values, b.values)
        if decided is not None:
            return _boolean(decided)
    level = _LEVELS[op]
    # brackets for the reader, though the grammar needs none: a comparison or shift as operand of another
    left = a.at(level if op not in ("+", "-", "*") else level - 1)
    text = f"{left} {op} {b.at(level)}"
    opposite = f"{left} {_OPPOSITE[op]} {b.at(level)}" if op in _COMPARE else ""
    values = _TRUTH if op in _COMPARE else _results(op, a.values, b.values)
    return Term(text, level, values, a.reads | b.reads, None, opposite)


def _results(op: str, a: frozenset[int] | None, b: frozenset[int] | None) -> frozenset[int] | None:
    """Returns the values of an operation, where both sides' are listed and the results are few and not below 0."""
    if op not in _LISTED or a is None or b is None or len(a) * len(b) > _MOST_LISTED or min(*a, *b) < 0:
        return None
    made = frozenset(n for x in a for y in b if (n := _fold(op, x, y).const) is not None)
    return made if min(made) >= 0 and max(made) <= _LARGEST_LISTED else None


def counted(a: Term) -> Term:
    """Returns the term of a count that goes up or down: its values are not listed, since they would be to its end."""
    return a if a.const is not None else replace(a, values=None)


def least_or_most(op: str, a: Term, b: Term) -> Term:
    """Returns the term of min(a, b) for the operator `<=`, of max(a, b) for `>=`."""
    made = chosen(binary(op, a, b), a, b)
    if made.const is not None or a.values is None or b.values is None:
        return made
    take = min if op == "<=" else max
    return replace(made, values=frozenset(take(x, y) for x in a.values for y in b.values))


def _fold(op: str, a: int, b: int) -> Term:
    """Returns the constant term of an operation on two known numbers."""
    if op in _COMPARE:
        return _boolean({"==": a == b, "!=": a != b, "<": a < b, "<=": a <= b, ">": a > b, ">=": a >= b}[op])
    return constant(
        {
            "+": a + b,
            "-": a - b,
            "*": a * b,
            "|": a | b,
            "^": a ^ b,
            "&": a & b,
            "<<": a << b if op == "<<" else 0,
            ">>": a >> b if op == ">>" else 0,
        }[op]
    )


def inverted(a: Term) -> Term:
    """Returns the term of `~a`."""
    return constant(~a.const) if a.const is not None else Term(f"~{a.at(11)}", 11, None, a.reads)


def _decide(op: str, a: frozenset[int] | None, b: frozenset[int] | None) -> bool | None:
    """Returns the result of a comparison if it is the same for all values of both sides; else None."""
    if a is None or b is None or len(a) * len(b) > 256:
        return None
    results = {_fold(op, x, y).const for x in a for y in b}
    return bool(results.pop()) if len(results) == 1 else None


def negate(a: Term) -> Term:
    """Returns the term of `not a`."""
    if a.truth is not None:
        return _boolean(not a.truth)
    if a.opposite:
        return Term(a.opposite, _LEVELS["=="], _TRUTH, a.reads, None, a.text)
    return Term(f"!{a.at(11)}", 11, _TRUTH, a.reads, None, a.text if a.level == _ATOM else f"({a.text})")


def both(a: Term, b: Term) -> Term:
    """Returns the term of `a and b`, as a truth value."""
    return _joined("&&", a, b, False)


def either(a: Term, b: Term) -> Term:
    """Returns the term of `a or b`, as a truth value."""
    return _joined("||", a, b, True)


def _joined(op: str, a: Term, b: Term, wins: bool) -> Term:
    """Returns the term of `and` or `or`; `wins`: the truth value of a side that decides it alone."""
    if a.truth is wins or b.truth is wins:
        return _boolean(wins)
    if a.truth is not None:
        return b
    if b.truth is not None:
        return a
    level = _LEVELS[op]
    return Term(f"{a.at(level - 1)} {op} {b.at(level - 1)}", level, _TRUTH, a.reads | b.reads)


def chosen(condition: Term, a: Term, b: Term) -> Term:
    """Returns the term of `a if condition else b`."""
    if condition.truth is not None:
        return a if condition.truth else b
    if a == b or (a.const is not None and a.const == b.const):
        return a
    if a.const == 1 and b.const == 0 and condition.values == _TRUTH:
        return condition
    if a.const == 0 and b.const == 1 and condition.values == _TRUTH:
        return negate(condition)
    values = None if a.values is None or b.values is None else a.values | b.values
    text = f"({condition.text} -> {a.text} : {b.text})"
    return Term(text, _ATOM, values, condition.reads | a.reads | b.reads)


def member(a: Term, options: Iterable[Term]) -> Term:
    """Returns the term of `a in options`."""
    found = FALSE
    for option in options:
        found = either(found, binary("==", a, option))
    return found


def settled(a: Term, name: str) -> Term:
    """Returns the term of the temporary `name` that holds `a`: the same values, but it reads no cell."""
    return replace(a, text=name, level=_ATOM, reads=frozenset(), cell=None, opposite="")
