"""What Python's operators make of numbers, bits and orders. None where there is no formula."""

from __future__ import annotations

import ast
from typing import Any

from . import terms
from .terms import Value, var
from .values import Blocks, Level, OneBit, Order, Shifted, Thread

_OF_INTS = {
    ast.BitOr: int.__or__, ast.BitAnd: int.__and__, ast.BitXor: int.__xor__, ast.LShift: int.__lshift__,
    ast.RShift: int.__rshift__,
}  # fmt: skip


def compare(op: ast.cmpop, a: Any, b: Any) -> Value | None:
    """A comparison."""
    if isinstance(op, ast.In | ast.NotIn) and isinstance(b, tuple):
        found = terms.among(a, b)
        return found if isinstance(op, ast.In) else terms.negate(found)
    if isinstance(a, Order) and not a.shifted and b == 0:
        single = terms.equal(terms.minus(a.end, a.head), 1)
        match op:
            case ast.Eq():
                return single
            case ast.NotEq() | ast.Gt():
                return terms.negate(single)
    if isinstance(a, Order) or isinstance(b, Order):
        return None
    if isinstance(a, Level) or isinstance(b, Level):
        return _compare_levels(op, a, b)
    match op:
        case ast.Eq():
            return _same(a, b)
        case ast.NotEq():
            return terms.negate(_same(a, b))
        case ast.Lt():
            return terms.below(a, b)
        case ast.LtE():
            return terms.at_most(a, b)
        case ast.Gt():
            return terms.below(b, a)
        case ast.GtE():
            return terms.at_most(b, a)
    return None


def _compare_levels(op: ast.cmpop, a: Any, b: Any) -> Value | None:
    """Two orders, of which one may be 0, are equal or not; an order is above 0."""
    if not all(isinstance(x, Level) or x == 0 for x in (a, b)):
        return None
    first, second = (x.value if isinstance(x, Level) else 0 for x in (a, b))
    match op:
        case ast.Eq():
            return terms.equal(first, second)
        case ast.NotEq():
            return terms.negate(terms.equal(first, second))
        case ast.Gt() if b == 0:
            return terms.truth(first)
    return None


def _same(a: Value, b: Value) -> Value:
    if terms.is_truth(a) and terms.is_truth(b):
        return terms.choose(a, b, terms.negate(b))
    return terms.equal(a, b)


def binary(op: ast.operator, a: Any, b: Any) -> Any:
    """An operator between two values."""
    if isinstance(a, Order) or isinstance(b, Order):
        return _order(op, a, b)
    if any(isinstance(x, Level | Blocks) for x in (a, b)):
        return _level(op, a, b)
    a, b = (var(f"{x.name}.id") if isinstance(x, Thread) else x for x in (a, b))
    if type(op) in _OF_INTS and isinstance(a, int) and isinstance(b, int):
        return _OF_INTS[type(op)](int(a), int(b))
    match op:
        case ast.Add():
            return terms.plus(a, b)
        case ast.Sub():
            return terms.minus(a, b)
    return _bits(op, a, b)


def _level(op: ast.operator, a: Any, b: Any) -> Any:
    """Returns the formula of `page >> level << level`, `(page >> level) + 1 << level` or `1 << level`; None for another
    form."""
    match op:
        case ast.RShift() if isinstance(b, Level) and not isinstance(a, Level | Blocks):
            return Blocks(a, b)
        case ast.Add() if isinstance(a, Blocks) and b == 1:
            return Blocks(a.page, a.level, a.more + 1)
        case ast.LShift() if isinstance(b, Level) and isinstance(a, Blocks) and a.level == b:
            huge = terms.plus(terms.block(a.page), terms.SIZE, a.more)
            return terms.ite(terms.truth(b.value), huge, terms.plus(a.page, a.more))
        case ast.LShift() if isinstance(b, Level) and a == 1:
            return terms.ite(terms.truth(b.value), terms.SIZE, 1)
    return None


def invert(value: Any) -> Any:
    """~value."""
    if isinstance(value, OneBit):
        return OneBit(value.value, value.index, not value.complement)
    return ~value if isinstance(value, int) else None


def _bits(op: ast.operator, a: Any, b: Any) -> Any:
    """Single bits of numbers, and the even page of two neighbours."""
    match op, b:
        case ast.LShift() | ast.RShift(), 0:
            return a
        case ast.LShift(), 1 if isinstance(a, Shifted) and a.by == 1:
            return terms.pair(a.value)
        case ast.LShift(), _ if a in (0, 1) or terms.is_truth(a) or _is_bit(a):
            return OneBit(a, b)
        case ast.RShift(), _:
            return Shifted(a, b)
        case ast.BitAnd(), 1 if isinstance(a, Shifted):
            return terms.bit(a.value, a.by)
        case ast.BitAnd(), OneBit(value, index, True):
            return terms.ite(terms.truth(value), terms.without_bit(a, index), a)
        case ast.BitOr(), OneBit(value, index, False):
            return terms.ite(terms.truth(value), terms.with_bit(a, index), a)
        case ast.BitAnd(), -2:
            return terms.pair(a)
        case ast.BitOr(), 1:
            return terms.plus(terms.pair(a), 1)
        case ast.BitXor(), 1:
            return terms.neighbour(a)
        case ast.BitXor(), _:
            return terms.xor(a, b)
    return None


def _is_bit(value: Any) -> bool:
    """Whether a number is 0 or 1."""
    if isinstance(value, int):
        return value in (0, 1)
    if not isinstance(value, terms.Term):
        return False
    return value.op == "bit" or (value.op == "ite" and all(map(_is_bit, value.args[1:])))


def _order(op: ast.operator, a: Any, b: Any) -> Any:
    """`page >> order << order` and `1 << order`."""
    if not isinstance(b, Order):
        return None
    if isinstance(op, ast.RShift) and a is b.page and not b.shifted:
        return Order(b.page, b.head, b.end, shifted=True)
    if isinstance(op, ast.LShift) and isinstance(a, Order) and a.shifted and a.page is b.page:
        return b.head
    if isinstance(op, ast.LShift) and a == 1 and not b.shifted:
        return terms.minus(b.end, b.head)
    return None
