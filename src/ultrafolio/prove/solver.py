"""Formulas for z3, and what it is told of folios, of loops and of threads that a formula speaks of.

Everything here only weakens: a fresh number stands for what a loop finds, with what is true of it at the pages that
the question names.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

import z3

from . import terms
from .terms import Term, Value

TIMEOUT_MS = 60_000
"""For one question; a question without an answer counts as one that could not be proved."""


class Translator:
    """Terms as z3 expressions, each built once."""

    def __init__(self) -> None:
        self._made: dict[Term, Any] = {}
        self._fields: dict[str, Any] = {}
        self.head, self.end = (z3.Function(name, z3.IntSort(), z3.IntSort()) for name in ("head", "end"))

    def field(self, name: str) -> Any:
        if name not in self._fields:
            self._fields[name] = z3.Function(name, z3.IntSort(), z3.IntSort())
        return self._fields[name]

    def __call__(self, value: Value) -> Any:
        if isinstance(value, bool):
            return z3.BoolVal(value)
        if isinstance(value, int):
            return z3.IntVal(value)
        found = self._made.get(value)
        if found is None:
            found = self._made[value] = self._new(value)
        return found

    def _new(self, term: Term) -> Any:
        op, args = term.op, term.args
        made: Any = self
        match op:
            case "var":
                return z3.Int(args[0])
            case "flag":
                return z3.Bool(args[0])
            case "read":
                return self.field(args[0])(made(args[1]))  # type: ignore[arg-type]
            case "head":
                return self.head(made(args[0]))
            case "end":
                return self.end(made(args[0]))
            case "lin":
                parts = [made(part) if factor == 1 else factor * made(part) for part, factor in args[1]]  # type: ignore
                return z3.Sum([*parts, z3.IntVal(args[0])]) if args[0] or len(parts) > 1 else parts[0]
            case "eq0":
                return _against_zero(self, args[0], lambda a, b: a == b)
            case "le0":
                return _against_zero(self, args[0], lambda a, b: a <= b)
            case "ite" | "bite":
                return z3.If(made(args[0]), made(args[1]), made(args[2]))
            case "and":
                return z3.And([made(part) for part in args])
            case "or":
                return z3.Or([made(part) for part in args])
            case "not":
                return z3.Not(made(args[0]))
            case "first" | "count":
                return z3.Int(f"{op}!{term.uid}")
            case "thread":
                return z3.Bool(f"{op}!{term.uid}")
        raise ValueError(f"unknown operation {op}")


def assume(solver: Any, formula: Any, where: Any = None) -> None:
    """Add a formula, where the flag `where` is set. The solver's own add() looks at the sorts of all again, which takes
    as long as the rest."""
    context = solver.ctx.ref()
    made = formula.as_ast()
    if where is not None:
        made = z3.Z3_mk_implies(context, where.as_ast(), made)
    z3.Z3_solver_assert(context, solver.solver, made)


@functools.cache
def translator() -> Translator:
    """The one of this process: formulas that policies have in common are translated once."""
    return Translator()


def _against_zero(translate: Any, value: Any, compare: Any) -> Any:
    """lin OP 0, with what is subtracted on the other side."""
    constant, parts = terms.parts(value)
    left = [translate(t) if c == 1 else c * translate(t) for t, c in parts.items() if c > 0]
    right = [translate(t) if c == -1 else -c * translate(t) for t, c in parts.items() if c < 0]
    (left if constant > 0 else right).append(z3.IntVal(abs(constant)))
    return compare(_sum(left), _sum(right))


def _sum(parts: list[Any]) -> Any:
    return parts[0] if len(parts) == 1 else z3.Sum(parts) if parts else z3.IntVal(0)


def loop_facts(loops: Iterable[Term], pages: Iterable[Value]) -> list[Value]:
    """What is true of what loops find, at these pages."""
    made: list[Value] = []
    for loop in loops:
        low, high, body = loop.args
        if loop.op == "count":
            made.append(terms.at_most(0, loop))
            continue
        made.append(terms.at_most(low, loop))  # type: ignore[arg-type]
        made.append(terms.any_of((terms.at_most(loop, high), terms.equal(loop, low))))  # type: ignore[arg-type]
        made.append(terms.implies(terms.below(loop, high), terms.bodies_at(body, loop)))  # type: ignore[arg-type]
        for page in pages:
            made.append(
                terms.implies(
                    terms.within(low, page, loop),  # type: ignore[arg-type]
                    terms.negate(terms.bodies_at(body, page)),  # type: ignore[arg-type]
                )
            )
    return made
