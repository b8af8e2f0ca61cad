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


_OF_PAGES = ("head", "end", "pair", "block")


class Translator:
    """Terms as z3 expressions, each built once."""

    def __init__(self) -> None:
        self._made: dict[Term, Any] = {}
        self._fields: dict[str, Any] = {}
        self.head, self.end, self.pair, self.block = (
            z3.Function(name, z3.IntSort(), z3.IntSort()) for name in _OF_PAGES
        )
        self.bit = z3.Function("bit", z3.IntSort(), z3.IntSort(), z3.BoolSort())

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
            case "first" | "last" | "count" | "bits" | "set" | "clear" | "xor":
                return z3.Int(f"{op}!{term.uid}")
            case "bit":
                # a number with a bit set is not 0
                return z3.If(z3.And(made(args[0]) != 0, self.bit(made(args[0]), made(args[1]))), 1, 0)  # type: ignore
            case "pair":
                return self.pair(made(args[0]))  # type: ignore[arg-type]
            case "block":
                return self.block(made(args[0]))  # type: ignore[arg-type]
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
    return [fact for loop in loops for fact in _LOOPS[loop.op](loop, pages)]


def _of_count(loop: Any, pages: Iterable[Value]) -> list[Value]:
    return [terms.at_most(0, loop)]


def _of_first(loop: Any, pages: Iterable[Value]) -> list[Value]:
    low, high, body = loop.args
    return [
        terms.at_most(low, loop),
        terms.any_of((terms.at_most(loop, high), terms.equal(loop, low))),
        terms.implies(terms.below(loop, high), terms.bodies_at(body, loop)),
        *(terms.implies(terms.within(low, page, loop), terms.negate(terms.bodies_at(body, page))) for page in pages),
    ]


def _of_last(loop: Any, pages: Iterable[Value]) -> list[Value]:
    low, high, body = loop.args
    behind = terms.plus(loop, 1)
    return [
        terms.at_most(low, behind),
        terms.any_of((terms.below(loop, high), terms.equal(behind, low))),
        terms.implies(terms.at_most(low, loop), terms.bodies_at(body, loop)),
        *(terms.implies(terms.within(behind, page, high), terms.negate(terms.bodies_at(body, page))) for page in pages),
    ]


def _of_bits(loop: Any, pages: Iterable[Value]) -> list[Value]:
    low, high, body, index, _ = loop.args
    return [
        terms.implies(
            terms.both(terms.within(low, page, high), terms.bodies_at(body, page)),
            terms.equal(terms.bit(loop, terms.bodies_at(index, page)), 1),
        )
        for page in pages
    ]


def impossible(formulas: Iterable[Value], pages: Iterable[Value]) -> bool:
    """Whether formulas of loops over huge pages cannot hold together, whatever the state; not where the solver has no
    answer. pages: those at which loops in them are looked at."""
    formulas = list(formulas)
    solver, translate = z3.SolverFor("QF_UFLIA"), Translator()
    solver.set("timeout", TIMEOUT_MS)
    loops = terms.leaves(terms.all_of(formulas), frozenset(terms.LOOPS))
    named = list(dict.fromkeys([*pages, *(loop for loop in loops if loop.op in ("first", "last"))]))
    named = list(dict.fromkeys([*named, *map(terms.block, named)]))
    for formula in (*formulas, *in_blocks(named), *loop_facts(loops, named)):
        assume(solver, translate(formula))
    return bool(solver.check() == z3.unsat)


def in_blocks(pages: Iterable[Value]) -> list[Value]:
    """What is true of the huge pages of pages: each is in one, of which any two are one or apart."""
    pages = list(pages)
    firsts = list(dict.fromkeys(map(terms.block, pages)))
    ends = [terms.plus(first, terms.SIZE) for first in firsts]
    made = [terms.at_most(2, terms.SIZE)]
    made += [terms.within(terms.block(page), page, terms.plus(terms.block(page), terms.SIZE)) for page in pages]
    for n, first in enumerate(firsts):
        for m in range(n):
            apart = (terms.equal(first, firsts[m]), terms.at_most(ends[n], firsts[m]), terms.at_most(ends[m], first))
            made.append(terms.any_of(apart))
    return made


_LOOPS = {"count": _of_count, "first": _of_first, "last": _of_last, "bits": _of_bits}
