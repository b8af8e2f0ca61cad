"""Translates the expressions of a rule that write nothing: each to one term, calls inlined."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as Names
from dataclasses import dataclass

from ultrafolio.export.promela import terms
from ultrafolio.export.promela.cells import Cells
from ultrafolio.export.promela.source import Source, Untranslatable
from ultrafolio.export.promela.terms import Cell, Term, constant
from ultrafolio.model.layout import State

_OPERATORS = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.LShift: "<<", ast.RShift: ">>", ast.BitOr: "|",
           ast.BitXor: "^", ast.BitAnd: "&", ast.Eq: "==", ast.NotEq: "!=", ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">",
           ast.GtE: ">="}  # fmt: skip
_FIRST_IF = {"min": "<=", "max": ">="}
"""Of two numbers the first, if it compares so with the second."""


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


MOST_CASES = 4
"""Of the bounds of a loop as many cases are read one by one; of others, each turn asks whether it is in the range."""
Value = Term | Record | Whole | tuple[Term, ...] | None
Reading = Callable[[ast.expr, "Env"], Term]


@dataclass(frozen=True, slots=True)
class Env:
    """What is known at a point of the translation: the values of local names, and of cells."""

    local: Mapping[str, Value]
    known: Mapping[Cell, Term]

    def bound(self, name: str, value: Value) -> Env:
        """Returns the environment with this local name, too."""
        return Env({**self.local, name: value}, self.known)

    def without(self, names: Names[str]) -> Env:
        """Returns the environment without local names whose assignment may not have run: a later read of one is
        refused."""
        return Env({name: value for name, value in self.local.items() if name not in names}, self.known)


@dataclass(frozen=True, slots=True)
class Folded:
    """What statements that write nothing do: whether they end the function, its result then, and what is known after
    them otherwise. value: None if they never end it."""

    ended: Term
    value: Term | None
    env: Env


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

    def term(self, node: ast.expr, env: Env) -> Term:
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
                return tuple(self.term(e, env) for e in elements)
            case ast.Attribute() | ast.Subscript():
                return self._field(node, env)
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return terms.negate(self.condition(operand, env))
            case ast.UnaryOp(op=ast.Invert(), operand=operand):
                return terms.inverted(self.term(operand, env))
            case ast.BoolOp(op=op, values=values):
                return self._logic(isinstance(op, ast.And), values, env, self.term)
            case ast.IfExp(test=test, body=body, orelse=orelse):
                condition = self.condition(test, env)
                if condition.truth is not None:
                    return self.pure(body if condition.truth else orelse, env)
                return terms.chosen(condition, self.term(body, env), self.term(orelse, env))
            case ast.Compare(left=left, ops=[ast.In() | ast.NotIn() as op], comparators=[right]):
                options = self.pure(right, env)
                if not isinstance(options, tuple):
                    raise wrong(node)
                found = terms.member(self.term(left, env), options)
                return found if isinstance(op, ast.In) else terms.negate(found)
            case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in _OPERATORS:
                return terms.binary(_OPERATORS[type(op)], self.term(left, env), self.term(right, env))
            case ast.Compare(left=left, ops=ops, comparators=others) if len(ops) > 1:
                pairs = zip([left, *others], ops, others, strict=False)
                return self._logic(True, [ast.Compare(a, [op], [b]) for a, op, b in pairs], env, self.term)
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
                return terms.binary(_OPERATORS[type(op)], self.term(left, env), self.term(right, env))
            case ast.Call(func=ast.Name(id=name), args=[left, right]) if name in _FIRST_IF:
                a, b = self.term(left, env), self.term(right, env)
                return terms.least_or_most(_FIRST_IF[name], a, b)
            case ast.Call(func=ast.Name(id=name), args=arguments) if name in self.source.functions:
                function = self.source.functions[name]
                inner = {p.arg: self.pure(a, env) for p, a in zip(function.args.args, arguments, strict=True)}
                return self.result(function.body, Env(inner, env.known))
        raise wrong(node)

    def condition(self, node: ast.expr, env: Env) -> Term:
        """Returns a term that is non-zero where the value of the expression is."""
        if isinstance(node, ast.BoolOp):
            return self._logic(isinstance(node.op, ast.And), node.values, env, self.condition)
        return self.term(node, env)

    def _logic(self, all_of: bool, values: Sequence[ast.expr], env: Env, read: Reading) -> Term:
        """`and` or `or` of what `read` makes of the operands; one after a decided one is not read."""
        first = read(values[0], env)
        if len(values) == 1 or (first.truth is not all_of and first.truth is not None):
            return first
        if first.truth is all_of:
            return self._logic(all_of, values[1:], env, read)
        rest = self._logic(all_of, values[1:], env, read)
        plain = read == self.condition or (rest.is_boolean and (all_of or first.is_boolean))
        if plain:
            return (terms.both if all_of else terms.either)(first, rest)
        return terms.chosen(first, rest, terms.FALSE) if all_of else terms.chosen(first, first, rest)

    def _field(self, node: ast.expr, env: Env) -> Value:
        """`s.mm[p]`, a record, `m.order`, a number, or an entry of a constant table."""
        match node:
            case ast.Subscript(value=ast.Attribute(value=whole, attr=section), slice=index):
                if isinstance(self.pure(whole, env), Whole):
                    return Record(section, self.term(index, env))
            case ast.Subscript(value=ast.Name() as table, slice=index):
                options, at = self.pure(table, env), self.term(index, env).const
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
            case ast.Assign(targets=[target], value=value):
                return self.result(rest, self._named(target, value, env))
            case ast.If(test=test, body=yes, orelse=no):
                condition = self.condition(test, env)
                if condition.truth is not None:
                    return self.result([*(yes if condition.truth else no), *rest], env)
                taken, other = self.result([*yes, *rest], env), self.result([*no, *rest], env)
                return terms.chosen(condition, number(taken), number(other))
            case ast.For():
                loop = self.folded([first], env)
                if loop.ended.truth is True:
                    return loop.value
                return _first(loop.ended, loop.value, number(self.result(rest, loop.env)))
        raise Effect(f"no Promela expression for: {ast.unparse(first)}")

    def folded(self, body: Sequence[ast.stmt], env: Env) -> Folded:
        """Returns what statements that write nothing do, in terms, with loops unrolled. Raises Effect for any other."""
        ended, result = terms.FALSE, None
        for n, statement in enumerate(body):
            match statement:
                case ast.Return(value=ast.expr() as value):
                    one = Folded(terms.TRUE, self.term(value, env), env)
                case ast.Assign(targets=[target], value=value):
                    one = Folded(terms.FALSE, None, self._named(target, value, env))
                case ast.If(test=test, body=yes, orelse=no):
                    one = self._either(self.condition(test, env), yes, no, env)
                case ast.For():
                    one = self._all_turns(statement, env)
                case _:
                    raise Effect(f"no Promela expression for: {ast.unparse(statement)}")
            ended, result, env = terms.either(ended, one.ended), _first(ended, result, one.value), one.env
            if ended.truth is True or n == len(body) - 1:
                break
        return Folded(ended, result, env)

    def _named(self, target: ast.expr, value: ast.expr, env: Env) -> Env:
        """Returns the environment after an assignment of local names. Raises Effect for one of anything else."""
        paired = isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple)
        targets, values = (target.elts, value.elts) if paired else ([target], [value])  # type: ignore[attr-defined]
        made = [self.pure(one, env) for one in values]
        for one, known in zip(targets, made, strict=True):
            if not isinstance(one, ast.Name):
                raise Effect(f"no Promela expression for: {ast.unparse(target)}")
            env = env.bound(one.id, known)
        return env

    def _either(self, test: Term, yes: Sequence[ast.stmt], no: Sequence[ast.stmt], env: Env) -> Folded:
        """What one of two branches does."""
        if test.truth is not None:
            return self.folded(yes if test.truth else no, env)
        return _merged(test, self.folded(yes, env), self.folded(no, env), env)

    def _all_turns(self, node: ast.For, env: Env) -> Folded:
        """What a loop does: each turn that is in its range, in order; for each case of its bounds."""
        *others, (_, e) = self.cases(bounds_of(node), env)
        made = self._turns_of(node, e)
        for test, e in reversed(others):
            made = _merged(test, self._turns_of(node, e), made, env)
        new = self.source.assigned([node]) - set(env.local)
        return Folded(made.ended, made.value, made.env.without(new))

    def _turns_of(self, node: ast.For, env: Env) -> Folded:
        """What a loop does in one case of its bounds."""
        assert isinstance(node.target, ast.Name)
        ended, result = terms.FALSE, None
        numbers, within = self.turns(node, env)
        for n in numbers:
            one = self._either(within(constant(n)), node.body, [], env.bound(node.target.id, constant(n)))
            ended, result, env = terms.either(ended, one.ended), _first(ended, result, one.value), one.env
            if ended.truth is True:
                break
        return Folded(ended, result, env)

    def turns(self, node: ast.For, env: Env) -> tuple[Sequence[int], Callable[[Term], Term]]:
        """Returns the values that a loop's variable may have, and for each the term of whether it is in the range."""
        first, end = (self.term(bound, env) for bound in bounds_of(node))
        known = first.const is not None and end.const is not None
        numbers = range(first.const or 0, end.const or 0) if known else range(len(self.state.mm))
        return numbers, lambda at: terms.both(terms.binary("<=", first, at), terms.binary("<", at, end))

    def cases(self, bounds: Sequence[ast.expr], env: Env) -> list[tuple[Term, Env]]:
        """Returns what the bounds of a loop may be: a test for each case, of which one is true, and what is known then.
        A bound whose values are not listed stays unknown, and so do those of more than MOST_CASES."""
        found = [(terms.TRUE, env)]
        for bound in bounds:
            for part in _parts(bound):
                found = [case for test, e in found for case in self._cases_of(part, test, e)]
        return found if len(found) <= MOST_CASES else [(terms.TRUE, env)]

    def _cases_of(self, part: ast.expr, test: Term, env: Env) -> list[tuple[Term, Env]]:
        """cases() of a local name or a field, where `test` is true."""
        term = self.term(part, env)
        if term.const is not None or term.values is None or (isinstance(part, ast.Attribute) and term.cell is None):
            return [(test, env)]
        made = []
        for value in sorted(term.values):
            told = constant(value)
            if isinstance(part, ast.Name):
                after = env.bound(part.id, told)
            else:
                assert term.cell is not None
                after = Env(env.local, {**env.known, term.cell: told})
            made.append((terms.both(test, terms.binary("==", term, told)), after))
        return made


def _parts(node: ast.expr) -> list[ast.expr]:
    """Returns the local names and fields of which a number is computed."""
    if isinstance(node, ast.BinOp):
        return [*_parts(node.left), *_parts(node.right)]
    return [node] if isinstance(node, ast.Name | ast.Attribute) else []


def _merged(test: Term, a: Folded, b: Folded, env: Env) -> Folded:
    """What statements do that do `a` where the test is true, and else `b`."""
    local: dict[str, Value] = {}
    for name, one in a.env.local.items():
        other = b.env.local.get(name)
        if one == other:
            local[name] = one
        elif isinstance(one, Term) and isinstance(other, Term):
            local[name] = terms.chosen(test, one, other)
    return Folded(terms.chosen(test, a.ended, b.ended), _first(test, a.value, b.value), Env(local, env.known))


def bounds_of(node: ast.For) -> tuple[ast.expr, ast.expr]:
    """Returns the first value and the end of a loop over range(). Raises Untranslatable for any other loop."""
    match node:
        case ast.For(target=ast.Name(), iter=ast.Call(func=ast.Name(id="range"), args=[first, end])):
            return first, end
        case ast.For(target=ast.Name(), iter=ast.Call(func=ast.Name(id="range"), args=[end])):
            return ast.Constant(0), end
    raise wrong(node)


def _first(test: Term, a: Term | None, b: Term | None) -> Term | None:
    """Returns the term of `a if test else b`; one that is None is never asked for."""
    return b if a is None else a if b is None else terms.chosen(test, a, b)


def number(value: Value) -> Term:
    """Returns the value, which must be a term. Raises Untranslatable."""
    if not isinstance(value, Term):
        raise Untranslatable(f"a number is expected, not {value}")
    return value
