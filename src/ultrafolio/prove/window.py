"""One step of a thread, S, beside any other thread, W, and any page, P: what is given, and what must hold after it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from . import terms
from .before import OTHER, PAGE, Fact, Problem, is_in
from .counts import Count, Sum
from .facts import View
from .loops import ANY
from .paths import Path, Place
from .solver import loop_facts
from .state import Point, Span, Symbolic
from .terms import Term, Value, var

_PAGE_SECTIONS = ("uv", "mm", "io", "pt")


@dataclass(frozen=True, slots=True)
class Goal:
    """A fact that must hold after the step, and the formula that says that it does not.

    of_other: it is about W, whose place the solver's answer tells.
    """

    fact: Fact
    broken: Value
    of_other: bool = False


class Window:
    """One path of S."""

    def __init__(self, problem: Problem, path: Path) -> None:
        self.problem, self.path = problem, path
        self.before = problem.stepping[path.place]
        self.after = View(path.after, path.after, problem.cfg)
        self.other_after = View(problem.other.own, path.after, problem.cfg)

    def given(self, extra: Iterable[Value]) -> tuple[list[Value], list[Value]]:
        """What holds on this path beside the facts, and the pages at which facts are needed: those that the path or a
        formula of `extra` names."""
        p, place = self.problem, self.path.place
        always = [*self.path.conditions, *self._stopped()]
        first, before = p.once(("named", place), lambda: pages_of(formula for _, formula in p.of_threads(place)))
        more, loops = pages_of([*always, *extra])
        if p.cfg.get("block"):
            found = [x for x in loops if x.op in ("first", "last")]
            within, _ = pages_of(terms.bodies_at(x.args[2], x) for x in found)  # type: ignore[arg-type]
            more += within
        named = list(dict.fromkeys([PAGE, *first, *more]))
        if p.subject.folios:
            named = list(dict.fromkeys([*named, *map(p.subject.folios.head, named)]))
        facts = loop_facts(dict.fromkeys([*before, *loops]), named)
        if p.cfg.get("block"):
            _, inner = pages_of(facts)
            facts += loop_facts([x for x in inner if x not in {*before, *loops}], [PAGE, terms.block(PAGE)])
        return [*always, *facts], named

    def _stopped(self) -> list[Value]:
        """What a loop over threads says of W where it met nobody."""
        made = []
        for condition in self.path.conditions:
            asked = condition.args[0] if isinstance(condition, Term) and condition.op == "not" else None
            if isinstance(asked, Term) and asked.op == "thread":
                body: Value = asked.args[0]  # type: ignore[assignment]
                for n, place in enumerate(self.problem.places):
                    made.append(terms.implies(is_in(frozenset((n,))), terms.negate(_of_other(body, place))))
        return made

    def witness(self, names: Iterable[str], page: Value) -> list[Value]:
        """That W is whoever else holds one of these counts on a page, the first that anybody else holds: a number above
        what S has of it says that there is somebody. Only where nothing else is said of W."""
        p, place = self.problem, self.path.place
        on = p.subject.where(self.before, page)
        made: list[Value] = []
        none: Value = True
        for name in names:
            count, where = p.subject.by_name[name], on[name]
            if p.has("count", name):
                more = terms.below(p.share(count, place, where), count.value(self.before, where))
                made.append(terms.implies(terms.both(none, more), terms.equal(p.other_share(count, where), 1)))
                none = terms.both(none, terms.negate(more))
        return made

    # ------------------------------------------------------------------------------------------------ goals
    def carried(self) -> frozenset[Fact]:
        """The facts about S that hold after the step because they held before it: no goal is made of them."""
        place = self.path.place
        found: set[Fact] = set()
        for name, fact in self.problem.subject.thread.items():
            if self._has_both("thread", name) and fact.says(self.after) is fact.says(self.before):
                found.add(("thread", place, name))
        for name, range_ in self.problem.subject.ranges.items():
            if self._has_both("range", name) and range_.broken(self.after, PAGE) is range_.broken(self.before, PAGE):
                found.add(("range", place, name))
        return frozenset(found)

    def _has_both(self, kind: str, name: str) -> bool:
        """Whether a fact is kept at both places of the thread that steps: before the step, and after it."""
        return all(self.problem.has(kind, name, place) for place in (self.path.place, self.path.to))

    def goals(self) -> list[Goal]:
        """Every kept fact that the step might break."""
        return [
            *self._mine(),
            *self._others(),
            *self._of_pages(),
            *self._of_pairs(),
            *self._of_counts(),
            *self._of_sums(),
        ]

    def _mine(self) -> Iterator[Goal]:
        p, to, place = self.problem, self.path.to, self.path.place
        carried = self.carried()
        for name, fact in self.problem.subject.thread.items():
            if p.has("thread", name, to) and ("thread", place, name) not in carried:
                yield Goal(("thread", to, name), terms.negate(fact.says(self.after)))
        for name, found in p.subject.ranges.items():
            if p.has("range", name, to) and ("range", place, name) not in carried:
                yield Goal(("range", to, name), found.broken(self.after, PAGE))

    def _others(self) -> Iterator[Goal]:
        for name, fact in self.problem.subject.thread.items():
            after, numbers = fact.says(self.other_after), self.problem.where("thread", name)
            if numbers and after is not fact.says(self.problem.other):
                yield Goal(("thread", None, name), terms.both(is_in(numbers), terms.negate(after)), True)
        for name, found in self.problem.subject.ranges.items():
            broken, numbers = found.broken(self.other_after, PAGE), self.problem.where("range", name)
            if numbers and broken is not found.broken(self.problem.other, PAGE):
                yield Goal(("range", None, name), terms.both(is_in(numbers), broken), True)

    def _of_pages(self) -> Iterator[Goal]:
        for name, fact in self.problem.subject.pages.items():
            if self.problem.has("page", name):
                after = fact(self.after, PAGE)
                if after is not fact(self.before, PAGE):
                    yield Goal(("page", None, name), terms.negate(after))

    def _of_pairs(self) -> Iterator[Goal]:
        p, to = self.problem, self.path.to
        for name in p.subject.pairs:
            if p.has("pair", name, to):
                yield Goal(("pair", to, name), terms.negate(p.second(name, self.after, PAGE)))
            numbers = p.where("pair", name)
            if numbers:
                after = p.subject.pair(name, self.other_after, self.after, to, PAGE)
                yield Goal(("pair", None, name), terms.both(is_in(numbers), terms.negate(after)), True)

    def _share_after(self, count: Count) -> Value:
        """What S has of a count on P after its step."""
        return terms.ite(count.share(self.problem.rules, self.after, self.path.to, PAGE), 1, 0)

    def _of_counts(self) -> Iterator[Goal]:
        """The count changes by what S gains, and what W has stays."""
        split = bool(self.path.after.splits())
        for count in self.problem.subject.counts:
            if not self.problem.has("count", count.name):
                continue
            grown = terms.minus(count.value(self.after, PAGE), count.value(self.before, PAGE))
            mine = terms.minus(self._share_after(count), self.problem.share(count, self.path.place, PAGE))
            kept = terms.equal(grown, mine) if count.exact else terms.at_most(mine, grown)
            if split:
                kept = terms.both(
                    kept,
                    terms.equal(
                        self.problem.other_share(count, PAGE, self.path.after), self.problem.other_share(count, PAGE)
                    ),
                )
            elif count.name in self.problem.subject.own:
                # that nobody else has frozen it follows from the lock, which whoever has would hold, too
                kept = terms.any_of((kept, terms.negate(terms.all_of(self.witness([count.name], self.before.page)))))
            if kept is not True:
                yield Goal(("count", None, count.name), terms.negate(kept))

    def _of_sums(self) -> Iterator[Goal]:
        for total in self.problem.subject.sums:
            if self.problem.has("sum", total.name):
                kept = (total.kept or sum_kept)(total, self.path.after, self.problem.cfg, PAGE)
                if kept is not True:
                    yield Goal(("sum", None, total.name), terms.negate(kept))


def _of_other(body: Value, place: Place) -> Value:
    """The condition of a loop over threads, for W at a place."""
    here: dict[Term, Value] = {
        var(f"{ANY}.task.pc"): place.pc, var(f"{ANY}.task.then"): place.then, var(f"{ANY}.task.back"): place.back,
        var(f"{ANY}.who.kind"): place.kind,
    }  # fmt: skip
    for leaf in terms.leaves(body, frozenset(("var",))):
        name = str(leaf.args[0])
        if name.startswith(f"{ANY}.") and leaf not in here:
            here[leaf] = var(OTHER + name[len(ANY) :])
    return terms.replaced(body, here)


def pages_of(formulas: Iterable[Value]) -> tuple[list[Value], list[Term]]:
    """The pages at which formulas read fields or ask for a folio, and the loops in them, those within loops first."""
    found: dict[Term, None] = {}
    for formula in formulas:
        terms.leaves(formula, frozenset(("read", "head", "end", "block", *terms.LOOPS)), found)
    named: dict[Value, None] = {}
    loops = [leaf for leaf in found if leaf.op in terms.LOOPS]
    for leaf in found:
        if leaf.op == "read" and str(leaf.args[0]).split(".")[0] in _PAGE_SECTIONS:
            named[leaf.args[1]] = None  # type: ignore[index]
        elif leaf.op in ("head", "end", "block"):
            named[leaf.args[0]] = None  # type: ignore[index]
    named.update(dict.fromkeys(loop for loop in loops if loop.op in ("first", "last")))
    return list(named), loops


# --------------------------------------------------------------------------------------------------- sums
def sum_kept(total: Sum, after: Symbolic, cfg: dict[str, int], page: Value) -> Value:
    """That the number on the folio of `page` is still the sum over its pages, if it was before.

    Each entry of the log changes the sum by what it changes of the numbers on pages. After a split the pages of that
    folio are folios of their own, each with its own number.
    """
    first = terms.head(page)
    change: Value = 0
    turns: list[Value] = []
    for n, entry in enumerate(after.log):
        if isinstance(entry, Point):
            if entry.field in total.fields:
                old, new = (total.of_page(View(after, _upto(after, k), cfg), entry.index) for k in (n, n + 1))
                here = terms.equal(after.head(entry.index, n), first)
                change = terms.plus(change, terms.ite(here, terms.minus(new, old), 0))
        elif isinstance(entry, Span) and set(entry.fields) & set(total.fields) and not entry.splits:
            lowered, turn = _turns(total, after, n, entry, cfg)
            change = terms.plus(change, lowered)
            turns.append(turn)
    view = View(after, after, cfg)
    grown = terms.minus(after.read(total.total, first), terms.read(total.total, first))
    kept = terms.equal(grown, change)
    for split in after.splits():
        own = terms.equal(after.read(total.total, page), total.of_page(view, page))
        kept = terms.choose(split.covers(page), own, kept)
    return terms.all_of([kept, *turns])


def _upto(after: Symbolic, entries: int) -> Symbolic:
    return Symbolic(after.thread, after.own, after.log[:entries])


def _turns(total: Sum, after: Symbolic, n: int, entry: Span, cfg: dict[str, int]) -> tuple[Value, Value]:
    """What a loop over a folio changes of the sum, and that each of its turns changes the page's number by as much.

    The loop's own count says how many turns did so; without one it must change nothing.
    """
    old, new = (total.of_page(View(after, _upto(after, k), cfg), PAGE) for k in (n, n + 1))
    following = after.log[n + 1] if n + 1 < len(after.log) else None
    counts = terms.leaves(following.value, frozenset(("count",))) if isinstance(following, Point) else {}
    if not counts or not isinstance(following, Point) or following.field != total.total:
        return 0, terms.equal(old, new)
    (count,) = counts
    low, high, body = count.args
    if low is not entry.low or high is not entry.high or terms.end(low) is not high:  # type: ignore[arg-type]
        return 0, False
    factor = terms.parts(following.value)[1].get(count, 0)
    turn = terms.ite(terms.both(entry.covers(PAGE), terms.bodies_at(body, PAGE)), factor, 0)  # type: ignore[arg-type]
    here = terms.equal(low, terms.head(PAGE))  # type: ignore[arg-type]
    return terms.ite(here, terms.plus(0, count, factor), 0), terms.equal(terms.minus(new, old), turn)
