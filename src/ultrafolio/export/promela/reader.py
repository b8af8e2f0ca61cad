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
from ultrafolio.export.promela.nodes import Break, End, For, If, Node, Set
from ultrafolio.export.promela.source import Source
from ultrafolio.export.promela.terms import Cell, Term, constant
from ultrafolio.export.promela.values import Effect, Env, Record, Value, Values, Whole, number, wrong
from ultrafolio.model import layout
from ultrafolio.model.layout import State

Then = Callable[[Env], list[Node]]
Given = Callable[[Value, Env], list[Node]]


class Reader(Values):
    """Translates one rule. guard: stop at the first write, and yield the condition under which the rule is enabled."""

    def __init__(self, source: Source, state: State, cells: Cells, *, guard: bool = False) -> None:
        super().__init__(source, state, cells)
        self.guard = guard
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
            inner = inner.bound(parameter.arg, self._keep(parameter.arg, value, emitted))

        def returned(value: Value, e: Env) -> list[Node]:
            return then(value, Env(env.local, e.known))

        return emitted + self._block(function.body, inner, returned, lambda e: returned(None, e))

    def _keep(self, name: str, value: Value, emitted: list[Node]) -> Value:
        """Returns the value for a local name: a temporary if the step may change what it reads, or if its text is
        long."""
        if isinstance(value, Record):
            index = self._keep(name, value.index, emitted)
            assert isinstance(index, Term)
            return Record(value.section, index)
        if self.guard or not isinstance(value, Term) or not value.reads:
            return value
        if value.cell and not value.reads & self._root[-1]:
            return value
        made = self.temporary(name)
        emitted.append(Set(made, value))
        return terms.settled(value, made)

    def _block(self, body: Sequence[ast.stmt], env: Env, ret: Given, fall: Then) -> list[Node]:
        """Statements in order; `ret` goes on at a return, `fall` after the last."""
        if not body:
            return fall(env)
        first, rest = body[0], body[1:]

        def after(e: Env) -> list[Node]:
            return self._block(rest, e, ret, fall)

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
                return self._assign(target, ast.BinOp(read, op, value), env, after)
            case ast.If():
                return self._if(first, env, ret, after)
            case ast.For():
                return self._for(first, env, ret, after)
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
                env = env.bound(target.id, self._keep(target.id, value, emitted))
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
        test = self._quiet(node.test, env)
        if leaves or not isinstance(test, Term) or test.truth is not None:
            return self._test(
                node.test,
                env,
                lambda e: self._block(node.body, e, ret, after),
                lambda e: self._block(node.orelse, e, ret, after),
            )
        met: list[Env] = []

        def join(e: Env) -> list[Node]:
            met.append(e)
            return []

        made = If(test, self._block(node.body, env, ret, join), self._block(node.orelse, env, ret, join))
        return [made, *after(_forget(agreed(env, met), (*node.body, *node.orelse)))]

    def _for(self, node: ast.For, env: Env, ret: Given, after: Then) -> list[Node]:
        """A bounded loop over range(); if its body returns, it is unrolled over all values of its variable."""
        match node:
            case ast.For(target=ast.Name(id=name), iter=ast.Call(func=ast.Name(id="range"), args=arguments)):
                bounds = [self.pure(a, env) for a in arguments]
            case _:
                raise wrong(node)
        first, end = bounds if len(bounds) == 2 else (constant(0), bounds[0])
        if not isinstance(first, Term) or not isinstance(end, Term):
            raise wrong(node)
        if self.source.leaves(node, loops=False):
            return self._unrolled(node, name, first, end, env, ret, after)
        if self.guard:
            # nothing before the first write can depend on a loop that only writes
            return [End(constant(layout.OK))]
        emitted: list[Node] = []
        kept = self._keep("end", end, emitted)
        assert isinstance(kept, Term)
        written = self.source.writes_of(node.body)
        known = {c: v for c, v in env.known.items() if c[1] not in written}
        inside = _forget(Env(env.local, known), node.body)
        variable = self.temporary(name)
        last = terms.binary("-", kept, constant(1))
        body = self._block(node.body, inside.bound(name, Term(variable)), ret, lambda _: [])
        return [*emitted, For(variable, first, last, body), *after(inside)]

    def _unrolled(
        self, node: ast.For, name: str, first: Term, end: Term, env: Env, ret: Given, after: Then
    ) -> list[Node]:
        """The unrolled loop: one iteration for every page or actor that may be in the range."""
        if first.const is not None and end.const is not None:
            turns: Sequence[int] = range(first.const, end.const)
        else:
            turns = range(len(self.state.mm))

        def iteration(n: int, e: Env) -> list[Node]:
            if n == len(turns):
                return after(_forget(Env(env.local, e.known), node.body))
            at = constant(turns[n])
            within = terms.both(terms.binary("<=", first, at), terms.binary("<", at, end))
            return self._iteration(node.body, within, e.bound(name, at), ret, lambda e2: iteration(n + 1, e2))

        return iteration(0, env)

    def _iteration(self, body: Sequence[ast.stmt], within: Term, env: Env, ret: Given, after: Then) -> list[Node]:
        """One iteration: assignments of locals, and `if`s that return, which apply only `within` the range."""
        if not body:
            return after(env)
        match body[0]:
            case ast.If(test=test, body=inner, orelse=[]) if isinstance(inner[-1], ast.Return):
                taken = terms.both(within, self.truth(test, env))
                return self._fork(
                    taken,
                    lambda: self._block(inner, env, ret, after),
                    lambda: self._iteration(body[1:], within, env, ret, after),
                )
            case ast.Assign() as assign:
                targets = assign.targets[0].elts if isinstance(assign.targets[0], ast.Tuple) else assign.targets
                if all(isinstance(target, ast.Name) for target in targets):
                    return self._block([assign], env, ret, lambda e: self._iteration(body[1:], within, e, ret, after))
        raise wrong(body[0])

    # ----------------------------------------------------------------------------------------- expressions
    def _quiet(self, node: ast.expr, env: Env) -> Value:
        """Returns the value of an expression that writes nothing; None for one that may write."""
        try:
            return self.pure(node, env)
        except Effect:
            return None

    def _fork(self, test: Term, yes: Callable[[], list[Node]], no: Callable[[], list[Node]]) -> list[Node]:
        """Returns one branch, if the test's value is known, else both in an If."""
        if test.truth is not None:
            return yes() if test.truth else no()
        return [If(test, yes(), no())]

    def _test(self, node: ast.expr, env: Env, yes: Then, no: Then) -> list[Node]:
        """Translate a test, then `yes` or `no`; calls that write are evaluated in Python's order, with its short
        circuits."""
        test = self._quiet(node, env)
        if test is not None:
            return self._fork(number(test), lambda: yes(env), lambda: no(env))
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
                return self._value(node, env, lambda v, e: self._fork(number(v), lambda: yes(e), lambda: no(e)))
        raise wrong(node)

    def _value(self, node: ast.expr, env: Env, then: Given) -> list[Node]:
        """Translate an expression with its writes, then `then` with its value."""
        value = self._quiet(node, env)
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
                values = [self.pure(a, env) for a in arguments]
                return self._call(self.source.functions[name], values, env, then)
        raise wrong(node)


def _forget(env: Env, body: Sequence[ast.stmt]) -> Env:
    """Returns `env` without the local names that `body` assigns, which may not have run: a later read of one is
    refused."""
    names = {
        n.id
        for statement in body
        for n in ast.walk(statement)
        if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
    }
    return Env({name: value for name, value in env.local.items() if name not in names}, env.known)


def agreed(before: Env, ends: Sequence[Env]) -> Env:
    """Returns what is known after branches join."""
    known = {c: v for c, v in ends[0].known.items() if all(e.known.get(c) == v for e in ends)} if ends else {}
    return Env(before.local, known)
