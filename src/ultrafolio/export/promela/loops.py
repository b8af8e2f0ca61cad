"""Translates the loops of a rule: to loops, or unrolled where a turn may end the function."""

from __future__ import annotations

import ast
from abc import abstractmethod
from collections.abc import Callable, Sequence

from ultrafolio.export.promela import terms
from ultrafolio.export.promela.cells import Cells
from ultrafolio.export.promela.joins import union
from ultrafolio.export.promela.nodes import End, For, If, Node, Set
from ultrafolio.export.promela.source import Source
from ultrafolio.export.promela.terms import Term, constant
from ultrafolio.export.promela.values import Env, Value, Values, bounds_of, number, wrong
from ultrafolio.model import layout
from ultrafolio.model.layout import State

Then = Callable[[Env], list[Node]]
Given = Callable[[Value, Env], list[Node]]


class Loops(Values):
    """Loops, as the reader of a rule translates them. guard: see Reader."""

    def __init__(self, source: Source, state: State, cells: Cells, guard: bool) -> None:
        super().__init__(source, state, cells)
        self.guard = guard

    @abstractmethod
    def block(self, body: Sequence[ast.stmt], env: Env, ret: Given, fall: Then) -> list[Node]:
        """Translate statements in order; `ret` goes on at a return, `fall` after the last."""

    @abstractmethod
    def fork(self, test: Term, yes: Callable[[], list[Node]], no: Callable[[], list[Node]]) -> list[Node]:
        """Returns one branch, if the test's value is known, else both in an If."""

    @abstractmethod
    def keep(self, name: str, value: Value, emitted: list[Node]) -> Value:
        """Returns the value for a local name: a temporary if the step may change what it reads."""

    @abstractmethod
    def temporary(self, name: str) -> str:
        """Returns an unused name for a temporary of this step."""

    def loop(self, node: ast.For, env: Env, ret: Given, after: Then) -> list[Node]:
        """A bounded loop over range(); if its body returns, it is unrolled over all values of its variable."""
        written = self.source.writes_of(node.body)
        if self.source.leaves(node, loops=False) or (self.guard and not written):
            if not written:
                return self._pure(node, env, ret, after)
            *others, (_, e) = self.cases(bounds_of(node), env)
            nodes = self._unrolled(node, e, ret, after)
            for test, e in reversed(others):
                nodes = [If(test, self._unrolled(node, e, ret, after), nodes)]
            return nodes
        if self.guard:
            # nothing before the first write can depend on a loop that writes
            return [End(constant(layout.OK))]
        emitted: list[Node] = []
        first, end = bounds_of(node)
        start, kept = self.term(first, env), self.keep("end", self.term(end, env), emitted)
        assert isinstance(kept, Term)
        if start.const is not None and kept.const is not None and start.const >= kept.const:
            return after(env)
        known = {c: v for c, v in env.known.items() if c[1] not in written}
        inside = Env(env.local, known).without(self.source.assigned(node.body))
        assert isinstance(node.target, ast.Name)
        name = node.target.id
        variable = self.temporary(name)
        last = terms.binary("-", kept, constant(1))
        body, over = self._carried(node.body, env, inside.bound(name, Term(variable)), ret, emitted)
        return [*emitted, For(variable, start, last, body), *after(Env({**inside.local, **over}, inside.known))]

    def _carried(
        self, body: Sequence[ast.stmt], env: Env, inside: Env, ret: Given, emitted: list[Node]
    ) -> tuple[list[Node], dict[str, Value]]:
        """Returns the statements of a loop's body, and the local names of `env` that it assigns, as they are after the
        loop: each in a temporary, whose values are those that any turn gives it."""
        names = sorted(self.source.assigned(body))
        before = {name: value for name in names if isinstance(value := env.local.get(name), Term)}
        if before and any(isinstance(node, ast.Break) for statement in body for node in ast.walk(statement)):
            raise wrong(body[0])
        kept = {name: self.temporary(name) for name in before}
        emitted += [Set(kept[name], value) for name, value in before.items()]
        values = {name: value.values for name, value in before.items()}
        while True:
            starts = {name: self.temporary(name) for name in before}
            began: list[Node] = [Set(starts[name], Term(kept[name])) for name in before]
            local = {name: Term(starts[name], values=values[name]) for name in before}
            ended: list[Env] = []

            def last(e: Env, ended: list[Env] = ended) -> list[Node]:
                ended.append(e)
                return [Set(kept[name], number(e.local[name])) for name in before]

            nodes = self.block(body, Env({**inside.local, **local}, inside.known), ret, last)
            grown = {name: union([local[name], *(number(e.local[name]) for e in ended)]) for name in before}
            if grown == values:
                return [*began, *nodes], {name: Term(kept[name], values=values[name]) for name in before}
            values = grown

    def _pure(self, node: ast.For, env: Env, ret: Given, after: Then) -> list[Node]:
        """A loop that writes nothing: what it does, in terms, so that what follows is read once."""
        made = self.folded([node], env)
        emitted: list[Node] = []
        local = {
            name: value if env.local.get(name) == value else self.keep(name, value, emitted)
            for name, value in made.env.local.items()
        }
        over = Env(local, env.known)
        return [*emitted, *self.fork(made.ended, lambda: ret(made.value, over), lambda: after(over))]

    def _unrolled(self, node: ast.For, env: Env, ret: Given, after: Then) -> list[Node]:
        """The unrolled loop: what follows a turn is read once for a number in the range, and once for one that is
        not."""
        assert isinstance(node.target, ast.Name)
        name, new = node.target.id, self.source.assigned([node]) - set(env.local)
        numbers, within = self.turns(node, env)

        def turn(n: int, e: Env) -> list[Node]:
            if n == len(numbers):
                return after(e.without(new))
            at, inside = constant(numbers[n]), e.bound(name, constant(numbers[n]))
            return self.fork(
                within(at),
                lambda: self.block(node.body, inside, ret, lambda e2: turn(n + 1, e2)),
                lambda: turn(n + 1, e),
            )

        return turn(0, env)
