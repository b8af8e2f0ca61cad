"""The verdict on each property: whether a step that breaks it is possible where all kept facts hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ultrafolio.model.policy import Policy
from ultrafolio.model.properties import PROPERTIES

from . import terms
from .before import OTHER, Key, Problem
from .breaking import Judges, Way
from .earlier import Earlier
from .houdini import Houdini, Tally, Told
from .paths import Path, Place, reached
from .rules import Rules, unchanged
from .terms import Value
from .window import Window

NUMBERS = tuple(range(1, len(PROPERTIES)))


@dataclass(frozen=True, slots=True)
class Open:
    """A step that may break a property as far as the facts tell: where the thread is, and the way to break it."""

    place: Place
    path: Path
    way: tuple[Value, ...]

    @property
    def rule(self) -> str:
        return self.place.rule


@dataclass
class Proof:
    """What came out for one policy: where each property can be broken, as far as the facts tell.

    shown, excluded: per step, the facts by which it breaks no fact, and no property.
    """

    problem: Problem
    tally: Tally
    open: dict[int, list[Open]] = field(default_factory=dict)
    shown: dict[int, frozenset[Key]] = field(default_factory=dict)
    excluded: dict[int, frozenset[Key]] = field(default_factory=dict)

    @property
    def earlier(self) -> Earlier:
        """What it leaves to the next proof."""
        return Earlier(self.problem, self.shown, self.excluded, tuple(self.open))

    def missing(self, at: Open) -> str:
        """The facts that would exclude this step, and which step breaks each of them."""
        kept, dropped = self.problem.kept, self.tally.dropped
        run = Houdini(self.problem, Tally())
        near = {fact for fact in dropped if fact[1] in (None, at.place)}
        for more in (near, set(dropped)):
            self.problem.keep(kept | more)
            used = _excluded(run, at.path, [at.way], "missing")
            self.problem.keep(kept)
            if used is not None:
                named = [key for key in used if key in more or key[1] == OTHER]
                return "; ".join(sorted({_told(key, self.tally) for key in named})) or "a fact of another thread"
        return "no fact that is tried excludes it"


def prove(
    policy: Policy,
    *,
    without: frozenset[int],
    rules: Rules | None = None,
    numbers: tuple[int, ...] = NUMBERS,
    tally: Tally | None = None,
    told: Told = lambda line: None,
    earlier: Earlier | None = None,
) -> Proof:
    """prove_under() of a policy of s390."""
    return prove_under(
        policy.codes(), without=without, rules=rules or unchanged(), numbers=numbers, tally=tally, told=told,
        earlier=earlier,
    )  # fmt: skip


def prove_under(
    cfg: dict[str, int],
    *,
    without: frozenset[int],
    rules: Rules,
    numbers: tuple[int, ...],
    tally: Tally | None = None,
    told: Told = lambda line: None,
    earlier: Earlier | None = None,
) -> Proof:
    """The proof of these properties of a design under a configuration, with no actor of the kinds `without`.

    The facts of an `earlier` proof are tried first, and only they: what is open then may still be proved without it.
    """
    problem = Problem(rules, cfg, reached(rules, cfg, without))
    run = Houdini(problem, tally or Tally(), told, earlier, numbers)
    run.run()
    return verdicts(run, numbers)


def verdicts(run: Houdini, numbers: tuple[int, ...]) -> Proof:
    """The verdict on each of these properties, with the facts that are kept."""
    problem = run.problem
    made = Proof(problem, run.tally, {number: [] for number in numbers}, run.used)
    judges = Judges(problem.rules, numbers, problem.read)
    for n, path in enumerate(problem.steps):
        used, broken = _judged(run, path, n, judges)
        if used is not None:
            made.excluded[n] = used
        for number, way in broken.items():
            if path.place not in [at.place for at in made.open[number]]:
                made.open[number].append(Open(path.place, path, way))
    return made


def _judged(
    run: Houdini, path: Path, n: int, judges: Judges
) -> tuple[frozenset[Key] | None, dict[int, tuple[Value, ...]]]:
    """The facts that exclude that a path's step breaks a property; or else None, and for each property that it may
    break as far as the facts tell, a way to do so.

    All ways to break any of them are asked about at once; one by one only where the answer is not no.
    """
    before = run.shared.excluded.get(n)
    if before is not None and not run.shared.new:
        return before, {}
    window = Window(run.problem, path)
    ways = [(way.number, _with_witness(window, way)) for way in judges.ways(path)]
    asked = {way: (number, terms.all_of(way)) for number, way in ways}
    if not ways:
        return frozenset(), {}
    if before is not None:
        used = _excluded(run, path, list(asked), f"property-{n:04}-beside", run.shared.new)
        if used is not None:
            return used | before, {}
    question = run.given(path, window, [formula for _, formula in asked.values()], f"property-{n:04}")
    counts = frozenset(
        ("count", None, name) for number, _ in ways for name in run.problem.subject.witnesses.get(number, ())
    )
    found: dict[int, tuple[Value, ...]] = {}
    left = {way: formula for way, (_, formula) in asked.items()}
    while left and (possible := question.possible(left)):
        for way in possible:
            found.setdefault(asked[way][0], way)
        left = {way: formula for way, formula in left.items() if asked[way][0] not in found}
    # the counts that tell who W is are in the ways themselves
    return None if found or question.used is None else question.used | counts, found


def _with_witness(window: Window, way: Way) -> tuple[Value, ...]:
    return (*way.conditions, *window.witness(window.problem.subject.witnesses.get(way.number, ()), way.page))


def _excluded(
    run: Houdini, path: Path, ways: Sequence[Sequence[Value]], name: str, others: frozenset[int] | None = None
) -> frozenset[Key] | None:
    """The facts that exclude all these ways, where W is at one of the places `others`; None where one is possible."""
    asked = terms.any_of(terms.all_of(way) for way in ways)
    question = run.given(path, Window(run.problem, path), [asked], name, others)
    return question.used if question.excludes([asked]) else None


def _told(key: Key, tally: Tally) -> str:
    """A fact that is not kept, in words."""
    kind, place, name = key
    if isinstance(place, str):
        return f"of another thread: {name!r} is not kept everywhere"
    return f"{name!r} is not kept, broken by {tally.dropped[kind, place, name]}"
