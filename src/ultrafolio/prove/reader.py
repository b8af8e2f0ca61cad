"""Running a rule on a symbolic state, from its own syntax tree: expressions, statements, calls.

The subset of Python is that of model/rule.py. What a policy or the actor's place decides is decided; a condition that
is left is asked of an Oracle. Loops are in loops.py. Anything else is Refused by name.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from typing import Any

from . import loops, operators, terms
from .oracle import Oracle, Settled, Undecided
from .rules import Rules
from .state import ORDER, OWN, WHERE, Point, Refused, Symbolic
from .terms import Term, Value, var
from .values import LATER, Blocks, Ended, Env, Level, Order, Record, Thread, Whole


class Reader:
    """Runs functions of the rules. cfg: the configuration's fields that are known; who: those of the thread's actor.

    Both may hold an int for a field; a field that they lack is a variable. cfg may hold SECTION.NAME, too: a field that
    has one value on every page, in every state; a rule that sets it to another one is refused.
    """

    def __init__(
        self, source: Rules, cfg: Mapping[str, int], who: Mapping[str, int], state: Symbolic, oracle: Oracle
    ) -> None:
        self.source, self.cfg, self.who, self.state, self.oracle = source, cfg, who, state, oracle
        self.reads: list[tuple[str, Value]] | None = None
        """Where a loop's body runs: the fields that it read, and where."""
        self.huge = bool(cfg.get("block"))
        """Whether folios are huge pages of one order, or single pages."""
        self.nested = False
        """Whether that loop is in a turn of another one."""
        self.in_turn = False
        """Whether the statement that runs is one of a loop's body itself, in no function that it calls."""

    def call(self, name: str, arguments: Sequence[Any]) -> Any:
        """What a function of the rules returns."""
        function = self.source.functions[name]
        env: Env = {p.arg: value for p, value in zip(function.args.args, [Whole(), *arguments], strict=True)}
        in_turn, self.in_turn = self.in_turn, False
        try:
            ended = self.block(function.body, env)
        finally:
            self.in_turn = in_turn
        return ended.value if ended else None

    def called(self, name: str, arguments: Sequence[Any]) -> Any:
        """The same for a function that writes nothing and has no loop, as one formula."""
        function = self.source.functions[name]
        return self._result(
            function.body, dict(zip((p.arg for p in function.args.args), [Whole(), *arguments], strict=True))
        )

    # ------------------------------------------------------------------------------------------ statements
    def block(self, body: Sequence[ast.stmt], env: Env) -> Ended | None:
        """Run statements in turn; None where the last one was reached."""
        for statement in body:
            ended = self._statement(statement, env)
            if ended:
                return ended
        return None

    def _statement(self, node: ast.stmt, env: Env) -> Ended | None:
        match node:
            case ast.Expr(value=ast.Constant()) | ast.Pass():
                return None
            case ast.Return(value=value):
                if self.in_turn and value is not None and not self._is_simple(value):
                    return Ended("return", LATER)
                return Ended("return", None if value is None else self.value(value, env))
            case ast.Expr(value=ast.Call() as call):
                self.value(call, env)
            case ast.Assign(targets=[target], value=value):
                self._assign(target, value, env)
            case ast.AugAssign(target=ast.Name() | ast.Attribute() as target, op=op, value=value):
                old = (
                    ast.Name(target.id, ast.Load())
                    if isinstance(target, ast.Name)
                    else ast.Attribute(target.value, target.attr, ast.Load())
                )
                self._store(target, self.value(ast.BinOp(old, op, value), env), env)
            case ast.If(test=test, body=body, orelse=orelse):
                if self._merged(node, env):
                    return None
                return self.block(body if self.holds(test, env) else orelse, env)
            case ast.For():
                return loops.run(self, node, env)
            case ast.Break():
                return Ended("break")
            case _:
                raise wrong(node)
        return None

    def _merged(self, node: ast.If, env: Env) -> bool:
        """Run both branches of an `if` that only writes, and whose branches meet again: each write is conditional.

        False where that cannot be: nothing was done then. It keeps the number of ways small, and changes no meaning.
        """
        if self.reads is not None or not self._only_writes(node) or not self._is_simple(node.test):
            return False
        condition = truth(self.value(node.test, env))
        if self.oracle.known(condition) is not None:
            return False
        state, oracle = self.state, self.oracle
        ends = []
        try:
            self.oracle = Settled(oracle)
            for body in (node.body, node.orelse):
                self.state = state.copy()
                self.block(body, dict(env))
                ends.append(self.state)
        except Undecided:
            return False
        finally:
            self.state, self.oracle = state, oracle
        return state.meet(condition, *ends)

    def _only_writes(self, node: ast.If) -> bool:
        """Whether both branches come to their ends, without a loop, and give no local name a value."""
        kept = self.source.simple
        if node not in kept:
            inside = [n for statement in (*node.body, *node.orelse) for n in ast.walk(statement)]
            leaves = any(isinstance(n, ast.Return | ast.Break | ast.For) for n in inside)
            kept[node] = not leaves and not any(
                isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store) for n in inside
            )
        return kept[node]

    def _assign(self, target: ast.expr, value: ast.expr, env: Env) -> None:
        targets = target.elts if isinstance(target, ast.Tuple) else [target]
        sources = value.elts if isinstance(value, ast.Tuple) and len(targets) > 1 else [value]
        if len(targets) != len(sources):
            raise wrong(target)
        read = [self.value if isinstance(one, ast.Name) else self._number for one in targets]
        values = [one(source, env) for one, source in zip(read, sources, strict=True)]
        for one, new in zip(targets, values, strict=True):
            self._store(one, new, env)

    def _store(self, target: ast.expr, value: Any, env: Env) -> None:
        if isinstance(target, ast.Name):
            env[target.id] = value
            return
        if not isinstance(target, ast.Attribute):
            raise wrong(target)
        record = self.value(target.value, env)
        if not isinstance(record, Record):
            raise wrong(target)
        self.write(record, target.attr, value)

    def write(self, record: Record, name: str, value: Any) -> None:
        """A field has a new value."""
        field = f"{record.section}.{name}"
        if field == ORDER and self.huge:
            value = _level(value)
        if isinstance(value, Thread | Order | Record | tuple | Level | Blocks) or value is None:
            raise Refused(f"{field} is set to {value}")
        value = terms.ite(value, 1, 0) if terms.is_truth(value) else value
        if record.section in OWN:
            if record.index != Thread(self.state.thread):
                raise Refused(f"{field} of another thread is written")
            self.state.own[field] = self.settled(value) if field in WHERE else value
        elif record.section in ("cfg", "who"):
            raise Refused(f"{field} is written")
        elif field in self.cfg:
            if not isinstance(value, int) or value != self.cfg[field]:
                raise Refused(f"{field} is set to something else than {self.cfg[field]}")
        elif field == ORDER and self.reads is None and not self.huge:
            raise Refused("the order of one page is written, and not that of all pages of its folio")
        else:
            self.state.log.append(Point(field, record.index, value))

    def settled(self, value: Any) -> Any:
        """A value that is one of several by a condition: the one that it is on this way."""
        while isinstance(value, Term) and value.op == "ite":
            value = value.args[1 if self.oracle.decide(value.args[0]) else 2]  # type: ignore[arg-type]
        return value

    # ----------------------------------------------------------------------------------------- expressions
    def holds(self, node: ast.expr, env: Env) -> bool:
        """Whether a condition holds on this way; calls that write happen in Python's order."""
        match node:
            case ast.BoolOp(op=op, values=values) if not all(self._is_simple(value) for value in values):
                wins = isinstance(op, ast.Or)
                return wins if any(self.holds(value, env) is wins for value in values) else not wins
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return not self.holds(operand, env)
        return self.oracle.decide(truth(self.value(node, env)))

    def value(self, node: ast.expr, env: Env) -> Any:
        """What an expression is, with whatever it does."""
        match node:
            case ast.Constant(value=bool() | int() as value):
                return value
            case ast.Name(id=name):
                if name in env:
                    return env[name]
                if name in self.source.constants:
                    return self.source.constants[name]
            case ast.Tuple(elts=elements):
                return tuple(self.value(element, env) for element in elements)
            case ast.Subscript(value=ast.Attribute(value=whole, attr=section), slice=index):
                if isinstance(self.value(whole, env), Whole):
                    return Record(section, self.value(index, env))
            case ast.Subscript(value=ast.Name() as table, slice=index):
                at = self.value(index, env)
                if isinstance(at, int):
                    return self.value(table, env)[at]
            case ast.Attribute(value=owner, attr=name):
                record = self.value(owner, env)
                if isinstance(record, Record):
                    return self._read(record, name)
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return terms.negate(truth(self.value(operand, env)))
            case ast.BoolOp(op=op, values=values):
                if not all(self._is_simple(value) for value in values):
                    return self.holds(node, env)
                return self._joined(isinstance(op, ast.And), values, env)
            case ast.IfExp(test=test, body=body, orelse=orelse):
                return self._either(test, body, orelse, env)
            case ast.Compare(left=left, ops=ops, comparators=right):
                each = [self._number(one, env) for one in (left, *right)]
                return terms.all_of(
                    _known(operators.compare(op, a, b), node) for op, a, b in zip(ops, each, each[1:], strict=False)
                )
            case ast.BinOp(left=left, op=op, right=right):
                return _known(operators.binary(op, self._number(left, env), self._number(right, env)), node)
            case ast.UnaryOp(op=ast.Invert(), operand=operand):
                return _known(operators.invert(self.value(operand, env)), node)
            case ast.Call(func=ast.Name(id=name), args=[left, right]) if name in _EXTREME:
                return _EXTREME[name](*(_plain(self.value(one, env), node) for one in (left, right)))
            case ast.Call(func=ast.Name(id=name), args=arguments) if name in self.source.functions:
                values = [self.value(argument, env) for argument in arguments]
                return self.called(name, values[1:]) if self.is_pure(name) else self.call(name, values[1:])
        raise wrong(node)

    def _number(self, node: ast.expr, env: Env) -> Any:
        """What an expression is whose value counts. Refused for numbers that are joined by `and` or `or`: Python's
        value is one of them then, and _joined() gives a truth."""
        if isinstance(node, ast.BoolOp):
            parts = (value for value in node.values if self._is_simple(value))
            if not all(terms.is_truth(self.value(part, env)) for part in parts):
                raise wrong(node)
        return self.value(node, env)

    def _joined(self, every: bool, values: Sequence[ast.expr], env: Env) -> Value:
        """All, or any, of these, which write nothing; those behind one that decides it are not looked at."""
        made = []
        for value in values:
            made.append(truth(self.value(value, env)))
            if made[-1] is (not every):
                break
        return terms.all_of(made) if every else terms.any_of(made)

    def _either(self, test: ast.expr, body: ast.expr, orelse: ast.expr, env: Env) -> Any:
        if not (self._is_simple(test) and self._is_simple(body) and self._is_simple(orelse)):
            return self.value(body if self.holds(test, env) else orelse, env)
        condition = truth(self.value(test, env))
        known = self.oracle.known(condition)
        if known is not None:
            return self.value(body if known else orelse, env)
        return _merged(condition, self.value(body, env), self.value(orelse, env))

    def _result(self, body: Sequence[ast.stmt], env: Env) -> Any:
        """What a function returns that writes nothing and has no loop, as one formula."""
        for at, node in enumerate(body):
            match node:
                case ast.Expr(value=ast.Constant()) | ast.Pass():
                    continue
                case ast.Return(value=value):
                    return None if value is None else self.value(value, env)
                case ast.Assign(targets=[target], value=value):
                    self._assign(target, value, env)
                case ast.If(test=test, body=yes, orelse=no):
                    condition = truth(self.value(test, env))
                    known = self.oracle.known(condition)
                    rest = body[at + 1 :]
                    if known is not None:
                        return self._result([*(yes if known else no), *rest], env)
                    a, b = self._result([*yes, *rest], dict(env)), self._result([*no, *rest], dict(env))
                    return _merged(condition, a, b)
                case _:
                    raise wrong(node)
        return None

    def _read(self, record: Record, name: str) -> Any:
        section, index, field = record.section, record.index, f"{record.section}.{name}"
        if section == "cfg" and name == "block" and self.huge:
            return Level(1)
        if section == "cfg":
            return self.cfg[name] if name in self.cfg else var(field)
        if isinstance(index, Thread):
            if index.name != self.state.thread:
                return var(f"{index.name}.{field}")
            if section == "who":
                return self.who[name] if name in self.who else var(f"{index.name}.{field}")
            return self.state.mine(field)
        if section in OWN or section == "who":
            if field != "task.done":
                raise Refused(f"{field} of a thread that a number names is read")
            return terms.read(field, index)
        if field in self.cfg:
            return self.cfg[field]
        if field == ORDER and not self.huge:
            return Order(index, self.state.head(index), self.state.end(index))
        if self.reads is not None:
            self.reads.append((field, index))
        read = self.state.read(field, index)
        return Level(read) if field == ORDER else read

    def _is_simple(self, node: ast.expr) -> bool:
        """Whether an expression writes nothing and has no loop, so that it may be asked where Python would not."""
        kept = self.source.simple
        if node not in kept:
            calls = [n.func for n in ast.walk(node) if isinstance(n, ast.Call)]
            kept[node] = all(self.is_pure(f.id) for f in calls if isinstance(f, ast.Name) and f.id not in _EXTREME)
        return kept[node]

    def is_pure(self, name: str) -> bool:
        """Whether a function writes nothing and has no loop."""
        kept = self.source.pure
        if name not in kept:
            body = [n for statement in self.source.functions[name].body for n in ast.walk(statement)]
            loop = any(isinstance(n, ast.For) for n in body)
            calls = [n.func.id for n in body if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)]
            kept[name] = not loop and not self.source.writes(name) and all(map(self.is_pure, {*calls} - {*_EXTREME}))
        return kept[name]


def truth(value: Any) -> Value:
    """Python's truth of a value: an order is true if it is not 0."""
    return terms.truth(value.value if isinstance(value, Level) else value)


def _level(value: Any) -> Any:
    """An order that is written: 0, or that of huge pages."""
    if isinstance(value, Level):
        return value.value
    if value != 0:
        raise Refused(f"an order is set to {value}")
    return 0


def _plain(value: Any, node: ast.expr) -> Value:
    if isinstance(value, Level | Blocks | Order):
        raise wrong(node)
    return value  # type: ignore[no-any-return]


def _merged(condition: Value, a: Any, b: Any) -> Any:
    if any(isinstance(x, Order | Record | Thread | tuple | Level | Blocks) for x in (a, b)):
        raise Refused(f"either {a} or {b}")
    if terms.is_truth(a) and terms.is_truth(b):
        return terms.choose(condition, a, b)
    return terms.ite(condition, a, b)


_EXTREME = {"min": terms.least, "max": terms.most}


def _known(value: Any, node: ast.expr) -> Any:
    """What an operator makes; Refused where there is no formula."""
    if value is None:
        raise wrong(node)
    return value


def wrong(node: ast.AST) -> Refused:
    return Refused(f"no formula for: {ast.unparse(node)}")
