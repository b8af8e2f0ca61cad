"""Which facts induction keeps: all that hold at the start and that no step of any thread breaks, given all of them.

Candidates are dropped until none is broken. What is left is one invariant of the system, of every size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path as File
from typing import Any, TypeVar

import z3

from ultrafolio.nouns import plural

from . import terms
from .before import OTHER, PAGE, WHERE, Fact, Key, Problem, is_in
from .earlier import NOTHING, Earlier, first_tried, shared
from .facts import View
from .paths import Path, Place, at, idle
from .solver import TIMEOUT_MS, Translator, assume, translator
from .state import Symbolic
from .terms import Value
from .window import Goal, Window, pages_of

Told = Callable[[str], None]
T = TypeVar("T")
OF_TWO = ("pair", "count")
"""The classes of facts that speak of another thread."""


@dataclass
class Tally:
    """What a proof asked: questions, those without an answer, rounds, what dropped each fact; and how many steps an
    earlier proof had shown."""

    questions: int = 0
    unanswered: int = 0
    rounds: int = 0
    shared: int = 0
    dropped: dict[Fact, str] = field(default_factory=dict)
    smt2: File | None = None


class Given:
    """A solver with all facts that are tried about a thread at one place, and about the pages that were named so far.

    Without a place it has no facts.

    Each fact has a flag; a question sets the flags of those that are kept.
    """

    def __init__(self, problem: Problem, place: Place | None, translate: Translator, tally: Tally) -> None:
        self.problem, self.translate, self.tally = problem, translate, tally
        self.solver = z3.SolverFor("QF_UFLIA")
        self.solver.set("timeout", TIMEOUT_MS)
        self.flags: dict[Key, Any] = {}
        self._place, self._pages, self._added = place, list[Value](), set[tuple[Key | None, Value]]()
        if place:
            self._add(problem.of_threads(place))

    def at(self, pages: Iterable[Value]) -> None:
        """These pages are named."""
        for page in pages:
            if page not in self._pages:
                assert self._place
                self._add(self.problem.of_page(self._place, page))
                for other in self._pages:
                    self._add(self.problem.of_two_pages(page, other))
                self._pages.append(page)

    def kept(self) -> dict[Key, Any]:
        """The flags of the facts that are kept."""
        return {key: flag for key, flag in self.flags.items() if self.problem.is_kept(key)}

    def _add(self, given: Iterable[tuple[Key | None, Value]]) -> None:
        for key, formula in given:
            if formula is True or (key, formula) in self._added:
                continue
            self._added.add((key, formula))
            if key is None:
                assume(self.solver, self.translate(formula))
                continue
            if key not in self.flags:
                self.flags[key] = z3.Bool(f"given!{len(self.flags)}")
            assume(self.solver, self.translate(formula), self.flags[key])


class Question:
    """Asks whether goals can be broken where a path's conditions hold, and all facts that are kept.

    name: that of its file, if questions are kept; a later question of the same name takes its place.
    used: the facts by which the last question was answered with no; None where there was another answer.
    """

    def __init__(self, given: Given, always: Iterable[Value], name: str) -> None:
        self.tally, self.name, self._translate, self._solver = given.tally, name, given.translate, given.solver
        self.used: frozenset[Key] | None = None
        self._flags = given.kept()
        self._here = [self._translate(f) for f in dict.fromkeys([*always, *given.problem.flags()]) if f is not True]

    def drop(self, goals: list[Goal], dropped: Callable[[Goal, int], None]) -> int:
        """Drop each goal that can be broken, of W's with the place that W has then (-1: all); how many."""
        left = {goal: self._translate(goal.broken) for goal in goals}
        place, total = z3.Int(str(WHERE.args[0])), 0
        while left:
            model = self._ask(list(left.values()))
            if model is None:
                return total
            where = _number(model, place) if model else -1
            for goal in [goal for goal, broken in left.items() if not model or _true(model, broken)]:
                total += 1
                dropped(goal, where)
                if goal.of_other and model:
                    left[goal] = z3.And(left[goal], place != where)
                else:
                    del left[goal]
        self.used = frozenset()
        return total

    def excludes(self, formulas: Iterable[Value]) -> bool:
        """Whether none of these formulas can hold; not where the solver has no answer."""
        return self._ask([self._translate(formula) for formula in formulas]) is None

    def possible(self, formulas: Mapping[T, Value]) -> list[T]:
        """Those of these formulas that hold in one state where one of them does, all where the solver has no answer;
        none where none can hold."""
        asked = {name: self._translate(formula) for name, formula in formulas.items()}
        model = self._ask(list(asked.values()))
        if model is None:
            return []
        return [name for name, formula in asked.items() if not model or _true(model, formula)]

    def _ask(self, broken: list[Any]) -> Any:
        """A model in which one of these formulas holds; None where there is none, False where there is no answer."""
        self.tally.questions += 1
        self._solver.push()
        for formula in (*self._here, z3.Or(broken)):
            assume(self._solver, formula)
        flags = list(self._flags.values())
        answer = self._solver.check(*flags)
        found: Any = self._solver.model() if answer == z3.sat else None if answer == z3.unsat else False
        if found is False:
            self.tally.unanswered += 1
        if found is None:
            core = {flag.get_id() for flag in self._solver.unsat_core()}
            self.used = frozenset(key for key, flag in self._flags.items() if flag.get_id() in core)
            self._write(flags)
        self._solver.pop()
        return found

    def _write(self, flags: list[Any]) -> None:
        """Keep the question for another solver, if that is asked for."""
        if self.tally.smt2:
            file = self.tally.smt2 / f"{self.name}.smt2"
            given = "".join(f"(assert {flag})\n" for flag in flags)
            text = f"(set-logic QF_UFLIA)\n{self._solver.sexpr()}{given}(check-sat)\n"
            file.write_text(text, encoding="utf-8")


def _word(place: Place) -> str:
    """A place in a file name."""
    return place.name.replace(",", "").replace(" ", "-")


def _number(model: Any, term: Any) -> int:
    return int(model.eval(term, model_completion=True).as_long())


def _true(model: Any, formula: Any) -> bool:
    return bool(z3.is_true(model.eval(formula, model_completion=True)))


class Houdini:
    """Drops facts of a problem until induction keeps all that are left.

    used: per step, the facts by which it was shown that it breaks none. earlier: a proof whose facts are tried first,
    and whose steps are not asked about again; of this proof, the properties `numbers` will be judged.
    """

    def __init__(
        self,
        problem: Problem,
        tally: Tally,
        told: Told = lambda line: None,
        earlier: Earlier | None = None,
        numbers: tuple[int, ...] = (),
    ) -> None:
        self.problem, self.tally, self.told = problem, tally, told
        self.translate = translator()
        self.used: dict[int, frozenset[Key]] = {}
        self.shared = NOTHING
        self._earlier, self._numbers = earlier, numbers
        self._gone: set[Key] = set()
        self._given: dict[Place, Given] = {}
        if earlier:
            problem.keep(first_tried(problem, earlier))

    def run(self) -> None:
        """Drop what does not hold at the start, then what steps break, until no step breaks anything."""
        for place in idle(self.problem.rules.design):
            if place in self.problem.paths:
                self._start(place)
        if self._earlier:
            self.shared = shared(self.problem, self._earlier, self._numbers)
            self.used = {} if self.shared.new else dict(self.shared.shown)
            self.tally.shared = len(self.shared.shown)
        while len(self.used) < len(self.problem.steps):
            self.tally.rounds += 1
            left = [n for n in range(len(self.problem.steps)) if n not in self.used]
            if self.tally.rounds > 1:
                # steps with loops in loops take longest: they are asked about again when no other step breaks anything
                left = [n for n in left if not self.problem.steps[n].has_inner_loops] or left
            for n in left:
                self._step(n)
            self.told(
                f"round {self.tally.rounds}: {plural(len(left), 'step')}, {plural(len(self.problem.kept), 'fact')} left"
            )

    def _drop(self, fact: Fact, why: str) -> None:
        """A fact is gone; the steps that were shown with it are to be shown again."""
        kind, place, name = fact
        self.problem.drop(fact)
        self.tally.dropped.setdefault(fact, why)
        gone: set[Key] = {fact} if place is None else {fact, (kind, OTHER, name)}
        self._gone |= gone
        for known in (self.used, self.shared.shown, self.shared.excluded):
            for n in [n for n, used in known.items() if used & gone]:
                del known[n]

    def _start(self, place: Place) -> None:
        """At the start each thread is at an idle place, and no page was touched."""
        p, subject = self.problem, self.problem.subject
        view = View(at(place), Symbolic("S"), p.cfg)
        goals = [Goal(("thread", place, name), terms.negate(fact.says(view))) for name, fact in subject.thread.items()]
        goals += [Goal(("range", place, name), found.broken(view, PAGE)) for name, found in subject.ranges.items()]
        goals += [Goal(("page", None, name), terms.negate(fact(view, PAGE))) for name, fact in subject.pages.items()]
        for count in subject.counts:
            share = terms.ite(count.share(p.rules, view, place, PAGE), 1, 0)
            goals.append(Goal(("count", None, count.name), terms.negate(terms.equal(count.value(view, PAGE), share))))
        for name in subject.pairs:
            goals += [
                Goal(("pair", first, name), terms.negate(subject.pair(name, self._at(first), view, place, PAGE)))
                for first in idle(p.rules.design)
                if ("pair", first, name) in p.kept
            ]
        goals = [goal for goal in goals if goal.fact in p.kept]
        given = [*subject.of_thread(view, place), *subject.of_machine(view), *subject.of_thread(self._at(place), place)]
        pages, _ = pages_of([*given, *(goal.broken for goal in goals)])
        pages = list(dict.fromkeys([PAGE, *pages]))
        if subject.folios:
            parts = subject.folios
            pages = list(dict.fromkeys([*pages, *map(parts.head, pages)]))
            given += map(parts.around, pages)
            given += [parts.same_or_apart(p, q) for n, p in enumerate(pages) for q in pages[:n]]
        for page in pages:
            given += subject.of_page(view, page)
        Question(Given(p, None, self.translate, self.tally), given, f"start-{_word(place)}").drop(
            goals, lambda goal, _: self._drop(goal.fact, "an initial state")
        )

    def _at(self, place: Place) -> View:
        """Another thread that is idle."""
        return View(at(place, OTHER), Symbolic("S"), self.problem.cfg)

    def given(
        self, path: Path, window: Window, formulas: Iterable[Value], name: str, others: frozenset[int] | None = None
    ) -> Question:
        """A question about a path, at the pages that it and these formulas name; W is at one of the places `others`,
        if they are given."""
        always, pages = window.given(formulas)
        if others is not None:
            always.append(is_in(others))
        if path.place not in self._given:
            self._given[path.place] = Given(self.problem, path.place, self.translate, self.tally)
        given = self._given[path.place]
        given.at(pages)
        return Question(given, always, name)

    def _step(self, n: int) -> None:
        """Drop what a step breaks. It is shown, unless what was used to show the rest was dropped, too."""
        path = self.problem.steps[n]
        window = Window(self.problem, path)
        goals, carried = window.goals(), window.carried()
        before, others = self.shared.shown.get(n), None
        if before is not None:
            others = self.shared.new
            goals = [goal for goal in goals if self._beside(goal, others, before)]
        if not goals:
            self.used[n] = (before or frozenset()) | carried
            return
        name = f"step-{n:04}-{_word(path.place)}"
        question = self.given(path, window, (goal.broken for goal in goals), name, others)
        self._gone = set()
        question.drop(goals, lambda goal, where: self._broken(goal, where, path))
        if question.used is None:
            return
        used = question.used | (before or frozenset()) | carried
        if not used & self._gone:
            self.used[n] = used

    def _beside(self, goal: Goal, others: frozenset[int], before: frozenset[Key]) -> bool:
        """Whether a goal that was shown must be shown again for W at the places `others`: it is about W, or what it was
        shown by is."""
        kind, _, name = goal.fact
        if goal.of_other:
            return bool(self.problem.where(kind, name) & others)
        return kind in OF_TWO or any(key[1] == OTHER or key[0] in OF_TWO for key in before)

    def _broken(self, goal: Goal, where: int, path: Path) -> None:
        kind, place, name = goal.fact
        places = [place]
        if goal.of_other:
            numbers = [where] if where >= 0 else self.problem.where(kind, name)
            places = [self.problem.places[n] for n in numbers]
        for each in places:
            self._drop((kind, each, name), f"a step of {path.place.name}")
