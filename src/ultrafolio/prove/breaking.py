"""The ways in which a step breaks a property: `broken` of model/properties.py, run on the state after the step.

Each property is judged alone: `broken` looks past what breaks another one before it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeGuard

from . import terms
from .oracle import Oracle, every_way
from .paths import STEPS, Path, at
from .reader import Reader
from .rules import Rules, only
from .terms import Value
from .values import Ended, Env, Thread

JUDGING = {"s390": ("broken", "over_range"), "guest_memfd": ("broken", "broken_within", "on_page")}
"""The functions of a design that return the number of a property."""
OVER_PAGES = ("over_range", "over_request")
"""Those of them that ask of many pages."""
ANY = terms.var("P")
"""Any page: before.PAGE. What is asked of many pages of huge pages is asked of it."""


@dataclass(frozen=True, slots=True)
class Way:
    """A property, the conditions under which a step breaks it, and the page that it breaks it on."""

    number: int
    conditions: tuple[Value, ...]
    page: Value


class Judges:
    """The rules with the verdict on each property, and on each alone."""

    def __init__(self, rules: Rules, numbers: tuple[int, ...], read: dict[str, int]) -> None:
        self.rules, self.numbers, self.read = rules, numbers, read
        self._alone: dict[int, Rules] = {}

    def ways(self, path: Path) -> list[Way]:
        """Each way in which a path's step breaks one of the properties."""
        try:
            return [way for way in self._at_once(path) if way.number in self.numbers]
        except _Loop:
            return [way for number in self.numbers for way in self._one(path, number)]

    def _at_once(self, path: Path) -> list[Way]:
        """The same for all properties in one run; _Loop where one of them is about many pages."""
        found: dict[Way, None] = {}

        def run(oracle: Oracle) -> None:
            after, arguments = self._set(self.rules, path, oracle, _AllVerdicts)
            assert isinstance(after, _AllVerdicts)
            after.call("broken", arguments)
            found.update((Way(number, tuple(conditions), arguments[2]), None) for number, conditions in after.found)

        every_way(run, path.conditions)
        return list(found)

    def _one(self, path: Path, number: int) -> Iterator[Way]:
        """The same for one property."""
        if number not in self._alone:
            self._alone[number] = only(self.rules, number, JUDGING[self.rules.design.name])

        def run(oracle: Oracle) -> tuple[Any, Value]:
            after, arguments = self._set(self._alone[number], path, oracle, Reader)
            return after.settled(after.call("broken", arguments)), arguments[2]

        for conditions, (found, page) in every_way(run, path.conditions):
            if found is not False and found != 0:
                if not isinstance(found, int) or found != number:
                    raise ValueError(f"broken() returns {found}")
                loops = [x for c in conditions for x in terms.leaves(c, frozenset(("first",))) if x.args[0] is not page]
                yield Way(number, tuple(conditions), loops[-1] if loops else page)

    def _set(self, rules: Rules, path: Path, oracle: Oracle, kind: type[Reader]) -> tuple[Reader, list[Any]]:
        """A reader of the state after the step, and what `broken` is given."""
        who = path.place.who
        before = Reader(rules, self.read, who, at(path.place), oracle)
        page = before.call("focus", [Thread(STEPS), terms.var("choose.page")])
        was = before.state.read("uv.state", page)
        after = kind(rules, self.read, who, path.after.copy(), oracle)
        return after, [Thread(STEPS), path.place.pc, page, was, path.outcome]


class _Loop(Exception):
    """A verdict about many pages is met."""


class _AllVerdicts(Reader):
    """Reads a verdict on one property, notes the way to it, and goes on to the next one."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.found: list[tuple[int, tuple[Value, ...]]] = []

    def _statement(self, node: ast.stmt, env: Env) -> Ended | None:
        match node:
            case ast.Return(value=ast.IfExp(test=test, body=ast.Constant(value=number), orelse=other)) if _is(number):
                self._noted(number, test, env)
                return super()._statement(ast.Return(other), env)
            case ast.If(test=test, body=[ast.Return(value=ast.Constant(value=number))], orelse=[]) if _is(number):
                self._noted(number, test, env)
                return None
            case ast.Return(value=ast.Constant(value=number)) if _is(number):
                self.found.append((number, tuple(self.oracle.conditions)))
                return None
        return super()._statement(node, env)

    def _noted(self, number: Any, test: ast.expr, env: Env) -> None:
        """Note the way to a verdict that has a condition."""
        condition = terms.truth(self.value(test, env))
        if self.oracle.known(condition) is not False:
            self.found.append((number, (*self.oracle.conditions, condition)))

    def is_pure(self, name: str) -> bool:
        """A function that returns verdicts is run, to note them."""
        return name not in JUDGING[self.source.design.name] and super().is_pure(name)

    def call(self, name: str, arguments: Any) -> Any:
        if name == "over_request" and self.huge:
            first, end = arguments
            return super().call("on_page", [ANY]) if self.oracle.decide(terms.within(first, ANY, end)) else 0
        if name in OVER_PAGES:
            raise _Loop
        return super().call(name, arguments)


def _is(number: Any) -> TypeGuard[int]:
    """Whether a constant is the number of a property."""
    return isinstance(number, int) and not isinstance(number, bool) and number > 0
