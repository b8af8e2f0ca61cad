"""The verdict on each property: whether a step that breaks it is possible where all kept facts hold."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ultrafolio.model.policy import Policy
from ultrafolio.model.properties import PROPERTIES

from . import terms
from .before import OTHER, Key, Problem
from .counts import BY_NAME
from .houdini import Houdini, Tally, Told
from .oracle import Oracle, every_way
from .paths import STEPS, Path, Place, at, reached
from .reader import Reader, Thread
from .rules import Rules, only, unchanged
from .terms import Value
from .window import Window

NUMBERS = tuple(range(1, len(PROPERTIES)))


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


def prove(policy: Policy, *, without: frozenset[int], rules: Rules | None = None, numbers: tuple[int, ...] = NUMBERS,
          tally: Tally | None = None, told: Told = lambda line: None) -> Proof:  # fmt: skip
    """The proof of these properties under a policy, with no actor of the kinds `without`."""
    rules = rules or unchanged()
    problem = Problem(rules, policy.codes(), reached(rules, policy, without))
    run = Houdini(problem, tally or Tally(), told)
    run.run()
    made = Proof(problem, run.tally, {number: [] for number in numbers})
    for number in numbers:
        alone = only(rules, number)
        for place, paths in problem.paths.items():
            missing = [text for path in paths for text in _breaks(run, path, alone, number)]
            if missing:
                made.open[number].append(Open(place, missing[0]))
    return made


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


def _breaks(run: Houdini, path: Path, rules: Rules, number: int) -> Iterator[str]:
    """For each way in which the step may break the property as far as the facts tell: what would exclude it."""
    for conditions, page in breaking(path, rules, number, run.problem.cfg):
        witness = _witness(Window(run.problem, path), number, page)
        if _possible(run, path, [*conditions, *witness], f"property-{number}-{run.tally.questions:05}") is None:
            yield _missing(run, path, [*conditions, *witness])


def _possible(run: Houdini, path: Path, conditions: list[Value], name: str) -> frozenset[Key] | None:
    """The facts that exclude this way; None where it is possible."""
    question = run.given(path, Window(run.problem, path), conditions, name)
    return None if question.can_be(terms.all_of(conditions)) else question.used


def _missing(run: Houdini, path: Path, conditions: list[Value]) -> str:
    """The fact that would exclude this way, and which step breaks it."""
    kept, tally = run.problem.kept, run.tally
    near = {fact for fact in tally.dropped if fact[1] in (None, path.place)}
    for more in (near, set(tally.dropped)):
        run.problem.keep(kept | more)
        used = _possible(run, path, conditions, "missing")
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


WITNESSES = {5: ("frozen counts",)}
"""Per property: the counts of which W holds something, the first that anybody else holds; for the others IN_FLIGHT."""
IN_FLIGHT = ("I/O in flight", "writeback")


def _witness(window: Window, number: int, page: Value) -> list[Value]:
    """W is whoever else has what the property speaks of on the page: that it is there says that somebody has it."""
    places = {"I/O in flight": page, "writeback": terms.head(page), "frozen counts": window.before.counted(page)}
    made: list[Value] = []
    none: Value = True
    for name in WITNESSES.get(number, IN_FLIGHT):
        count, where = BY_NAME[name], places[name]
        if window.problem.has("count", name):
            more = terms.below(window.problem.share(count, window.path.place, where), count.value(window.before, where))
            it = terms.equal(window.problem.other_share(count, where), 1)
            made.append(terms.implies(terms.both(none, more), it))
            none = terms.both(none, terms.negate(more))
    return made
