"""The verdict on each property: whether a step that breaks it is possible where all kept facts hold."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ultrafolio.model.policy import Policy
from ultrafolio.model.properties import PROPERTIES

from . import terms
from .before import OTHER, Key, Problem
from .houdini import Houdini, Tally, Told
from .oracle import Oracle, every_way
from .paths import STEPS, Path, Place, at, reached
from .reader import Reader
from .rules import Rules, only, unchanged
from .terms import Value
from .values import Thread
from .window import Window

NUMBERS = tuple(range(1, len(PROPERTIES)))
WITNESSES = {5: ("frozen counts",)}
"""Per property: the counts of which W holds something, the first that anybody else holds; for the others IN_FLIGHT."""
IN_FLIGHT = ("I/O in flight", "writeback")


@dataclass(frozen=True, slots=True)
class Open:
    """A step that may break a property as far as the facts tell: where the thread is, and what would have to hold."""

    place: Place
    missing: str


@dataclass
class Proof:
    """What came out for one policy: where each property can be broken, as far as the facts tell."""

    problem: Problem
    tally: Tally
    open: dict[int, list[Open]] = field(default_factory=dict)


def prove(
    policy: Policy,
    *,
    without: frozenset[int],
    rules: Rules | None = None,
    numbers: tuple[int, ...] = NUMBERS,
    tally: Tally | None = None,
    told: Told = lambda line: None,
) -> Proof:
    """The proof of these properties under a policy, with no actor of the kinds `without`."""
    rules = rules or unchanged()
    problem = Problem(rules, policy.codes(), reached(rules, policy, without))
    run = Houdini(problem, tally or Tally(), told)
    run.run()
    made = Proof(problem, run.tally, {number: [] for number in numbers})
    alone = {number: only(rules, number) for number in numbers}
    for n, path in enumerate(path for paths in problem.paths.values() for path in paths):
        for number, missing in _judged(run, path, n, alone).items():
            if path.place not in [at.place for at in made.open[number]]:
                made.open[number].append(Open(path.place, missing))
    return made


def _judged(run: Houdini, path: Path, n: int, alone: dict[int, Rules]) -> dict[int, str]:
    """The properties that a path's step may break as far as the facts tell, and what would exclude it.

    All ways to break any of them are asked about at once; one by one only where the answer is not no.
    """
    window = Window(run.problem, path)
    ways = [
        (number, [*conditions, *window.witness(WITNESSES.get(number, IN_FLIGHT), page)])
        for number, rules in alone.items()
        for conditions, page in breaking(path, rules, number, run.problem.cfg)
    ]
    found: dict[int, str] = {}
    if not ways or _excluded(run, path, [way for _, way in ways], f"property-{n:04}") is not None:
        return found
    for which, (number, way) in enumerate(ways):
        if number not in found and _excluded(run, path, [way], f"property-{n:04}-{which}") is None:
            found[number] = _missing(run, path, way)
    return found


def breaking(path: Path, rules: Rules, number: int, cfg: dict[str, int]) -> Iterator[tuple[list[Value], Value]]:
    """Each way in which the path's step breaks a property: its conditions, and the page that it breaks it on."""

    def run(oracle: Oracle) -> tuple[Any, Value]:
        who = {"kind": path.place.kind}
        before = Reader(rules, cfg, who, at(path.place), oracle)
        page = before.call("focus", [Thread(STEPS), terms.var("choose.page")])
        was = before.state.read("uv.state", page)
        after = Reader(rules, cfg, who, path.after.copy(), oracle)
        return after.call("broken", [Thread(STEPS), path.place.pc, page, was, path.outcome]), page

    for conditions, (found, page) in every_way(run, path.conditions):
        if found is not False and found != 0:
            if not isinstance(found, int) or found != number:
                raise ValueError(f"broken() returns {found}")
            loops = [x for c in conditions for x in terms.leaves(c, frozenset(("first",))) if x.args[0] is not page]
            yield conditions, loops[-1] if loops else page


def _excluded(run: Houdini, path: Path, ways: list[list[Value]], name: str) -> frozenset[Key] | None:
    """The facts that exclude all these ways; None where one is possible."""
    asked = terms.any_of(terms.all_of(way) for way in ways)
    question = run.given(path, Window(run.problem, path), [asked], name)
    return None if question.can_be(asked) else question.used


def _missing(run: Houdini, path: Path, conditions: list[Value]) -> str:
    """The fact that would exclude this way, and which step breaks it."""
    kept, tally = run.problem.kept, run.tally
    near = {fact for fact in tally.dropped if fact[1] in (None, path.place)}
    for more in (near, set(tally.dropped)):
        run.problem.keep(kept | more)
        used = _excluded(run, path, [conditions], "missing")
        run.problem.keep(kept)
        if used is not None:
            named = [key for key in used if key in more or key[1] == OTHER]
            return "; ".join(sorted({_told(key, tally) for key in named})) or "a fact of another thread"
    return "no fact that is tried excludes it"


def _told(key: Key, tally: Tally) -> str:
    """A fact that is not kept, in words."""
    kind, place, name = key
    if isinstance(place, str):
        return f"of another thread: {name!r} is not kept everywhere"
    return f"{name!r} is not kept, broken by {tally.dropped[kind, place, name]}"
