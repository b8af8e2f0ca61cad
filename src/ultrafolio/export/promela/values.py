"""Translates the expressions of a rule that write nothing: each to one term, calls inlined."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ultrafolio.export.promela import terms
from ultrafolio.export.promela.cells import Cells
from ultrafolio.export.promela.source import Source, Untranslatable
from ultrafolio.export.promela.terms import Cell, Term, constant
from ultrafolio.model.layout import State

_OPERATORS = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.LShift: "<<", ast.RShift: ">>", ast.BitOr: "|",
           ast.BitAnd: "&", ast.Eq: "==", ast.NotEq: "!=", ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">",
           ast.GtE: ">="}  # fmt: skip


def wrong(node: ast.AST) -> Untranslatable:
    """Returns the error for an expression that the translation does not know."""
    return Untranslatable(f"no Promela for: {ast.unparse(node)}")


class Effect(Untranslatable):
    """An expression writes, or branches in a way that only statements can express."""


@dataclass(frozen=True, slots=True)
class Record:
    """A record of a section, as in `m = s.mm[p]`."""

    section: str
    index: Term


class Whole:
    """The state itself, the parameter `s`."""


Value = Term | Record | Whole | tuple[Term, ...] | None


@dataclass(frozen=True, slots=True)
class Env:
    """What is known at a point of the translation: the values of local names, and of cells."""

    local: Mapping[str, Value]
    known: Mapping[Cell, Term]

    def bound(self, name: str, value: Value) -> Env:
        """Returns the environment with this local name, too."""
        return Env({**self.local, name: value}, self.known)


class Values:
    """Translates expressions, specialised by the scenario, the policy and the path to here."""

    def __init__(self, source: Source, state: State, cells: Cells) -> None:
        self.source, self.state, self.cells = source, state, cells

    def expression(self, name: str, arguments: Sequence[Term], known: Mapping[Cell, Term]) -> Term:
        """Returns the term of a call of a rule function that writes nothing, on the state and `arguments`."""
        function = self.source.functions[name]
        values: list[Value] = [Whole(), *arguments]
        inner = {p.arg: value for p, value in zip(function.args.args, values, strict=True)}
        return number(self.result(function.body, Env(inner, known)))

    def truth(self, node: ast.expr, env: Env) -> Term:
        return number(self.pure(node, env))

    def pure(self, node: ast.expr, env: Env) -> Value:
        """Returns the term of an expression that writes nothing. Raises Effect if it may write."""
        match node:
            case ast.Constant(value=bool() as value):
                return terms.TRUE if value else terms.FALSE
            case ast.Constant(value=int() as number):
                return constant(number)
            case ast.Name(id=name) if name in env.local:
                return env.local[name]
            case ast.Name(id=name) if name in self.source.constants:
                value = self.source.constants[name]
                return tuple(map(constant, value)) if isinstance(value, tuple) else constant(value, name)
            case ast.Tuple(elts=elements):
                return tuple(self.truth(e, env) for e in elements)
            case ast.Attribute() | ast.Subscript():
                return self._field(node, env)
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return terms.negate(self.truth(operand, env))
            case ast.BoolOp(op=op, values=values):
                return self._logic(isinstance(op, ast.And), values, env)
            case ast.IfExp(test=test, body=body, orelse=orelse):
                condition = self.truth(test, env)
                if condition.truth is not None:
                    return self.pure(body if condition.truth else orelse, env)
                return terms.chosen(condition, self.truth(body, env), self.truth(orelse, env))
            case ast.Compare(left=left, ops=[ast.In() | ast.NotIn() as op], comparators=[right]):
                options = self.pure(right, env)
                if not isinstance(options, tuple):
                    raise wrong(node)
                found = terms.member(self.truth(left, env), options)
                return found if isinstance(op, ast.In) else terms.negate(found)
            case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in _OPERATORS:
                return terms.binary(_OPERATORS[type(op)], self.truth(left, env), self.truth(right, env))
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
                return terms.binary(_OPERATORS[type(op)], self.truth(left, env), self.truth(right, env))
            case ast.Call(func=ast.Name(id=name), args=arguments) if name in self.source.functions:
                function = self.source.functions[name]
                inner = {p.arg: self.pure(a, env) for p, a in zip(function.args.args, arguments, strict=True)}
                return self.result(function.body, Env(inner, env.known))
        raise wrong(node)

    def _logic(self, all_of: bool, values: Sequence[ast.expr], env: Env) -> Term:
        """`and` or `or`; an operand after a decided one is not translated."""
        found = terms.TRUE if all_of else terms.FALSE
        for value in values:
            found = (terms.both if all_of else terms.either)(found, self.truth(value, env))
            if found.truth is not None and found.truth is not all_of:
                break
        return found

    def _field(self, node: ast.expr, env: Env) -> Value:
        """`s.mm[p]`, a record, `m.order`, a number, or an entry of a constant table."""
        match node:
            case ast.Subscript(value=ast.Attribute(value=whole, attr=section), slice=index):
                if isinstance(self.pure(whole, env), Whole):
                    return Record(section, self.truth(index, env))
            case ast.Subscript(value=ast.Name() as table, slice=index):
                options, at = self.pure(table, env), self.truth(index, env).const
                if isinstance(options, tuple) and at is not None:
                    return options[at]
            case ast.Attribute(value=owner, attr=name):
                record = self.pure(owner, env)
                if isinstance(record, Record):
                    return self._read(record, name, env)
        raise wrong(node)

    def _read(self, record: Record, name: str, env: Env) -> Term:
        section, at = record.section, record.index.const
        if section in ("cfg", "who"):
            if at is None:
                raise Untranslatable(f"{section}.{name} at a place that is not known before the run")
            return constant(int(getattr(self.state, section)[at][name]))
        if at is not None and (section, name, at) in env.known:
            return env.known[section, name, at]
        return self.cells.read(section, name, record.index)

    def result(self, body: Sequence[ast.stmt], env: Env) -> Value:
        """Returns the result of a function that writes nothing, as one term. Raises Effect for any other."""
        first, rest = body[0] if body else ast.Return(None), body[1:]
        match first:
            case ast.Expr(value=ast.Constant()):
                return self.result(rest, env)
            case ast.Return(value=ast.expr() as value):
                return self.pure(value, env)
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                return self.result(rest, env.bound(name, self.pure(value, env)))
            case ast.If(test=test, body=yes, orelse=no):
                condition = self.truth(test, env)
                if condition.truth is not None:
                    return self.result([*(yes if condition.truth else no), *rest], env)
                taken, other = self.result([*yes, *rest], env), self.result([*no, *rest], env)
                return terms.chosen(condition, number(taken), number(other))
        raise Effect(f"no Promela expression for: {ast.unparse(first)}")


def number(value: Value) -> Term:
    """Returns the value, which must be a term. Raises Untranslatable."""
    if not isinstance(value, Term):
        raise Untranslatable(f"a number is expected, not {value}")
    return value
