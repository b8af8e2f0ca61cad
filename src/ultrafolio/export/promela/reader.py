"""Translates syntax trees of rules: one rule, for one actor and one choice, to a tree of Promela statements.

Calls are inlined and everything that is known beforehand is decided while reading: the policy, who the actor is, at
which rule it stands, what it chose. Where a function returns early, the caller's rest is translated once for each
return that is left, with what that return makes known, so no flag for "already returned" is needed.

The same reading in its `guard` form stops at the first write and yields the condition under which the rule is enabled:
a step that is not enabled leaves the state as it was, so whatever writes is enabled.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence

from ultrafolio.export.promela import terms
from ultrafolio.export.promela.cells import Cells
from ultrafolio.export.promela.joins import Meeting
from ultrafolio.export.promela.loops import Given, Loops, Then
from ultrafolio.export.promela.nodes import Break, End, If, Node, Set
from ultrafolio.export.promela.source import Source
from ultrafolio.export.promela.terms import Cell, Term, constant
from ultrafolio.export.promela.values import Effect, Env, Record, Value, Whole, number, wrong
from ultrafolio.model import layout
from ultrafolio.model.layout import State


class Reader(Loops):
    """Translates one rule. guard: stop at the first write, and yield the condition under which the rule is enabled."""

    def __init__(self, source: Source, state: State, cells: Cells, *, guard: bool = False) -> None:
        super().__init__(source, state, cells, guard)
        self.temporaries: list[str] = []
        self._root: list[frozenset[str]] = [frozenset()]

    def function(self, name: str, arguments: Sequence[Term], known: Mapping[Cell, Term], then: Given) -> list[Node]:
        """Returns the statements of a call of a rule function on the state and `arguments`; `then` translates a
        return."""
        self._root.append(self.source.writes(name))
        nodes = self._call(self.source.functions[name], [Whole(), *arguments], Env({}, known), then)
        self._root.pop()
        return nodes

    def kept(self, name: str, value: Term) -> tuple[list[Node], Term]:
        """Returns the statements that store `value` in a temporary, and the temporary's term."""
        if value.const is not None:
            return [], value
        made = self.temporary(name)
        return [Set(made, value)], terms.settled(value, made)

    def temporary(self, name: str) -> str:
        """Returns an unused name for a temporary of this step."""
        made, n = f"my_{name}", 2
        while made in self.temporaries:
            made, n = f"my_{name}{n}", n + 1
        self.temporaries.append(made)
        return made

    # ------------------------------------------------------------------------------------------ statements
    def _call(self, function: ast.FunctionDef, values: Sequence[Value], env: Env, then: Given) -> list[Node]:
        """Inline a call: bind the parameters, read the body, go on with `then` at each return."""
        emitted: list[Node] = []
        inner = Env({}, env.known)
        for parameter, value in zip(function.args.args, values, strict=True):
            inner = inner.bound(parameter.arg, self.keep(parameter.arg, value, emitted))

        def returned(value: Value, e: Env) -> list[Node]:
            return then(value, Env(env.local, e.known))

        return emitted + self.block(function.body, inner, returned, lambda e: returned(None, e))

    def keep(self, name: str, value: Value, emitted: list[Node]) -> Value:
        """Returns the value for a local name: a temporary if the step may change what it reads, or if its text is
        long."""
        if isinstance(value, Record):
            index = self.keep(name, value.index, emitted)
            assert isinstance(index, Term)
            return Record(value.section, index)
        if self.guard or not isinstance(value, Term) or not value.reads:
            return value
        if value.cell and not value.reads & self._root[-1]:
            return value
        made = self.temporary(name)
        emitted.append(Set(made, value))
        return terms.settled(value, made)

    def block(self, body: Sequence[ast.stmt], env: Env, ret: Given, fall: Then) -> list[Node]:
        """Statements in order; `ret` goes on at a return, `fall` after the last."""
        if not body:
            return fall(env)
        first, rest = body[0], body[1:]

        def after(e: Env) -> list[Node]:
            return self.block(rest, e, ret, fall)

        match first:
            case ast.Expr(value=ast.Constant()) | ast.Pass():
                return after(env)
            case ast.Return(value=None):
                return ret(None, env)
            case ast.Return(value=ast.expr() as expression):
                return self._value(expression, env, ret)
            case ast.Expr(value=ast.Call() as call):
                return self._value(call, env, lambda _, e: after(Env(env.local, e.known)))
            case ast.Assign(targets=[target], value=value):
                return self._assign(target, value, env, after)
            case ast.AugAssign(target=ast.Attribute() as target, op=op, value=value):
                read = ast.Attribute(target.value, target.attr, ast.Load())
                return self._value(
                    ast.BinOp(read, op, value), env, lambda v, e: self._stored([target], [_counted(v, op)], e, after)
                )
            case ast.If():
                return self._if(first, env, ret, after)
            case ast.For():
                return self.loop(first, env, ret, after)
            case ast.Break():
                return [Break()]
        raise wrong(first)

    def _assign(self, target: ast.expr, value: ast.expr, env: Env, after: Then) -> list[Node]:
        """Assign to one or several targets; all values are evaluated before the first write."""
        targets = target.elts if isinstance(target, ast.Tuple) else [target]
        sources = value.elts if isinstance(value, ast.Tuple) else [value]
        if len(targets) != len(sources):
            raise wrong(target)

        if len(sources) == 1:
            return self._value(sources[0], env, lambda v, e: self._stored(targets, [v], e, after))
        return self._stored(targets, [self.pure(source, env) for source in sources], env, after)

    def _stored(self, targets: list[ast.expr], values: list[Value], env: Env, after: Then) -> list[Node]:
        """Store values in targets, all values computed before any is stored; then `after`. Returns the statements."""
        emitted: list[Node] = []
        written: set[str] = set()
        for n, (target, value) in enumerate(zip(targets, values, strict=True)):
            if isinstance(value, Term) and value.reads & written and not self.guard:
                made = self.temporary("value")
                emitted.insert(0, Set(made, value))
                values[n] = terms.settled(value, made)
            if isinstance(target, ast.Attribute):
                written.add(target.attr)
        for target, value in zip(targets, values, strict=True):
            if isinstance(target, ast.Name):
                env = env.bound(target.id, self.keep(target.id, value, emitted))
                continue
            if not isinstance(target, ast.Attribute) or not isinstance(value, Term):
                raise wrong(target)
            if self.guard:
                return [End(constant(layout.OK))]
            record = self.pure(target.value, env)
            if not isinstance(record, Record):
                raise wrong(target)
            env = self._write(record, target.attr, value, env, emitted)
        return emitted + after(env)

    def _write(self, record: Record, name: str, value: Term, env: Env, emitted: list[Node]) -> Env:
        """Emit a write of the state, unless it cannot change anything, and record its values in the cells."""
        section, at = record.section, record.index.const
        values = value.values
        if (section, name) == ("task", "pc") and value.cell:
            # a jump back: the program asserts that the thread is at a rule that the translation found reachable
            values = self.cells.targets(value.cell)
        self.cells.write(section, name, at, values)
        if at is not None and at >= len(getattr(self.state, section)):
            return env
        if self.cells.declared(section, name, at):
            emitted.append(Set(self.cells.variable(section, name, record.index), value))
        known = {c: v for c, v in env.known.items() if c[:2] != (section, name) or (at is not None and c[2] != at)}
        if at is not None and value.const is not None:
            known[section, name, at] = value
        return Env(env.local, known)

    def _if(self, node: ast.If, env: Env, ret: Given, after: Then) -> list[Node]:
        """An `if`: a branch that may return is followed by a copy of the rest; other branches join, and the rest is
        read once."""
        leaves = self.source.leaves(node, loops=True)
        test, names = self._quiet(node.test, env, self.condition), self.source.assigned((*node.body, *node.orelse))
        if leaves or not isinstance(test, Term) or test.truth is not None or (self.guard and names):
            return self._test(
                node.test,
                env,
                lambda e: self.block(node.body, e, ret, after),
                lambda e: self.block(node.orelse, e, ret, after),
            )
        meeting = Meeting(self.temporary, names)
        yes, no = (self.block(body, env, ret, meeting.reach) for body in (node.body, node.orelse))
        return [If(test, yes, no), *after(meeting.env(env))]

    # ----------------------------------------------------------------------------------------- expressions
    def _quiet(self, node: ast.expr, env: Env, read: Callable[[ast.expr, Env], Value]) -> Value:
        """Returns what `read` makes of an expression that writes nothing; None for one that may write."""
        try:
            return read(node, env)
        except Effect:
            return None

    def fork(self, test: Term, yes: Callable[[], list[Node]], no: Callable[[], list[Node]]) -> list[Node]:
        """Returns one branch, if the test's value is known, else both in an If."""
        if test.truth is not None:
            return yes() if test.truth else no()
        return [If(test, yes(), no())]

    def _test(self, node: ast.expr, env: Env, yes: Then, no: Then) -> list[Node]:
        """Translate a test, then `yes` or `no`; calls that write are evaluated in Python's order, with its short
        circuits."""
        test = self._quiet(node, env, self.condition)
        if test is not None:
            return self.fork(number(test), lambda: yes(env), lambda: no(env))
        match node:
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return self._test(operand, env, no, yes)
            case ast.BoolOp(op=op, values=[first, *rest]):
                others = rest[0] if len(rest) == 1 else ast.BoolOp(op, rest)
                if isinstance(op, ast.And):
                    return self._test(first, env, lambda e: self._test(others, e, yes, no), no)
                return self._test(first, env, yes, lambda e: self._test(others, e, yes, no))
            case ast.Compare(left=ast.Call() as call, ops=ops, comparators=right):
                left = "<call>"

                def compared(value: Value, e: Env) -> list[Node]:
                    known = ast.Compare(ast.Name(left, ast.Load()), ops, right)
                    return self._test(known, e.bound(left, value), yes, no)

                return self._value(call, env, compared)
            case ast.Call():
                return self._value(node, env, lambda v, e: self.fork(number(v), lambda: yes(e), lambda: no(e)))
        raise wrong(node)

    def _value(self, node: ast.expr, env: Env, then: Given) -> list[Node]:
        """Translate an expression with its writes, then `then` with its value."""
        value = self._quiet(node, env, self.pure)
        if value is not None:
            return then(value, env)
        match node:
            case ast.IfExp(test=test, body=body, orelse=orelse):
                return self._test(
                    test,
                    env,
                    lambda e: self._value(body, e, then),
                    lambda e: self._value(orelse, e, then),
                )
            case ast.Call(func=ast.Name(id=name), args=arguments) if name in self.source.functions:
                function = self.source.functions[name]
                return self._arguments(arguments, env, [], lambda values, e: self._call(function, values, e, then))
        raise wrong(node)

    def _arguments(
        self, nodes: Sequence[ast.expr], env: Env, values: list[Value], then: Callable[[list[Value], Env], list[Node]]
    ) -> list[Node]:
        """Translate the arguments of a call after `values`, those before; then `then`. One that is a call itself may
        loop, but writes nothing."""
        if not nodes:
            return then(values, env)
        if self._quiet(nodes[0], env, self.pure) is None and self.source.writes_of([ast.Expr(nodes[0])]):
            raise wrong(nodes[0])
        return self._value(nodes[0], env, lambda v, e: self._arguments(nodes[1:], e, [*values, v], then))


def _counted(value: Value, op: ast.operator) -> Value:
    """Returns the value that a field gets by an assignment such as +=."""
    return terms.counted(value) if isinstance(value, Term) and isinstance(op, ast.Add | ast.Sub) else value
