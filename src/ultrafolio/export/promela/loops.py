"""Translates the loops of a rule: to loops, or unrolled where a turn may end the function."""

from __future__ import annotations

import ast
from abc import abstractmethod
from collections.abc import Callable, Sequence

from ultrafolio.export.promela import terms
from ultrafolio.export.promela.cells import Cells
from ultrafolio.export.promela.joins import union
from ultrafolio.export.promela.nodes import Break, End, For, Node, Set
from ultrafolio.export.promela.source import Source
from ultrafolio.export.promela.terms import Term, constant
from ultrafolio.export.promela.values import Env, Value, Values, bounds_of, number, wrong
from ultrafolio.model import layout
from ultrafolio.model.layout import State

Then = Callable[[Env], list[Node]]
Given = Callable[[Value, Env], list[Node]]


class _Leaving:
    """A loop whose turns may end the function: such a turn keeps the result, and breaks the loop."""

    def __init__(self, temporary: Callable[[str], str]) -> None:
        self._left, self._result = temporary("left"), temporary("result")
        self._returned: list[Term] = []

    def begin(self) -> list[Node]:
        """Returns the statements before the loop."""
        return [Set(self._left, terms.FALSE)]

    def leave(self, value: Value, env: Env) -> list[Node]:
        """Returns the statements of a return."""
        self._returned.append(number(value))
        return [Set(self._left, terms.TRUE), Set(self._result, number(value)), Break()]

    @property
    def left(self) -> Term:
        """Whether a turn has ended the function."""
        return Term(self._left, values=frozenset((0, 1)))

    @property
    def value(self) -> Term:
        """The result then."""
        return Term(self._result, values=union(self._returned))


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
        """A bounded loop over range(). Where it writes nothing it is terms; a guard needs its first write alone."""
        written = self.source.writes_of(node.body)
        leaves = self.source.leaves(node, loops=False)
        if not written and (leaves or self.guard):
            return self._pure(node, env, ret, after)
        if self.guard:
            # nothing before the first write can depend on a loop that writes
            return self._unrolled(node, env, ret, after) if leaves else [End(constant(layout.OK))]
        first, end = bounds_of(node)
        emitted: list[Node] = []
        start, kept = self.term(first, env), self.keep("end", self.term(end, env), emitted)
        assert isinstance(kept, Term) and isinstance(node.target, ast.Name)
        if start.const is not None and kept.const is not None and start.const >= kept.const:
            return after(env)
        known = {c: v for c, v in env.known.items() if c[1] not in written}
        inside = Env(env.local, known).without(self.source.assigned(node.body))
        name = node.target.id
        variable, leaving = self.temporary(name), _Leaving(self.temporary) if leaves else None
        last = terms.binary("-", kept, constant(1))
        leave = leaving.leave if leaving else ret
        body, over = self._carried(node.body, env, inside.bound(name, Term(variable)), leave, emitted)
        gone_on = Env({**inside.local, **over}, inside.known)
        made = For(variable, start, last, body)
        if leaving is None:
            return [*emitted, made, *after(gone_on)]
        left = self.fork(leaving.left, lambda: ret(leaving.value, inside), lambda: after(gone_on))
        return [*emitted, *leaving.begin(), made, *left]

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
