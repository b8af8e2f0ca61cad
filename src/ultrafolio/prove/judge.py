"""The verdict on each property: whether a step that breaks it is possible where all kept facts hold."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ultrafolio.model.policies import Policy
from ultrafolio.model.properties import PROPERTIES

from . import terms
from .before import OTHER, Key, Problem
from .counts import FLYING, WRITEBACK_COUNT
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
        if _possible(run, path, conditions, page, f"property-{number}-{run.tally.questions:05}") is None:
            yield _missing(run, path, conditions, page)


def _possible(run: Houdini, path: Path, conditions: list[Value], page: Value, name: str) -> frozenset[Key] | None:
    """The facts that exclude this way; None where it is possible."""
    window = Window(run.problem, path)
    extra = [*conditions, *_witness(window, page)]
    question = run.given(path, window, extra, name)
    return None if question.can_be(terms.all_of(extra)) else question.used


def _missing(run: Houdini, path: Path, conditions: list[Value], page: Value) -> str:
    """The fact that would exclude this way, and which step breaks it."""
    kept, tally = run.problem.kept, run.tally
    near = {fact for fact in tally.dropped if fact[1] in (None, path.place)}
    for more in (near, set(tally.dropped)):
        run.problem.kept = kept | more
        used = _possible(run, path, conditions, page, "missing")
        run.problem.kept = kept
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


def _witness(window: Window, page: Value) -> list[Value]:
    """W is whoever has I/O in flight on the page, if that is not S; else whoever writes its folio back, if not S."""
    first = terms.head(page)
    def others(count: Any, at_page: Value) -> tuple[Value, Value]:
        mine = window.problem.share(count, window.path.place, at_page)
        more = terms.below(mine, count.value(window.before, at_page))
        return more, terms.equal(window.problem.other_share(count, at_page), 1)

    made, none = [], True
    for count, where in ((FLYING, page), (WRITEBACK_COUNT, first)):
        if window.problem.has("count", count.name):
            more, it = others(count, where)
            made.append(terms.implies(terms.both(none, more), it))
            none = terms.both(none, terms.negate(more))
    return made
