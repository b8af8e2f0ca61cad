"""What a proof leaves to the next one: facts to try first, and steps that need not be asked about again.

A step that was shown under one policy is shown under another one where it is the same step, all facts by which it was
shown are kept, and no other thread is at a place that the earlier policy does not have. Where one may be at such a
place, only that is asked.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass

from .before import OTHER, PAGE, Fact, Key, Problem
from .paths import Path, Place
from .rules import Rules

JUDGES = ("broken", "focus")
"""The functions of the rules that decide whether a step breaks a property."""


@dataclass(frozen=True)
class Earlier:
    """A proof that is done: by which facts each of its steps was shown, and by which each is excluded that would break
    one of the properties `numbers`; steps by their numbers in the problem."""

    problem: Problem
    shown: Mapping[int, frozenset[Key]]
    excluded: Mapping[int, frozenset[Key]]
    numbers: tuple[int, ...]


@dataclass(frozen=True)
class Shared:
    """What of an earlier proof stands: the facts by which steps are shown, or excluded, by their number here; and the
    places of another thread that must be asked about all the same."""

    shown: dict[int, frozenset[Key]]
    excluded: dict[int, frozenset[Key]]
    new: frozenset[int]


NOTHING = Shared({}, {}, frozenset())


def first_tried(problem: Problem, earlier: Earlier) -> set[Fact]:
    """The candidates that an earlier proof kept, and those that it did not try."""
    tried, kept = earlier.problem.tried, earlier.problem.kept
    return {fact for fact in problem.tried if fact in kept or fact not in tried}


def shared(problem: Problem, earlier: Earlier, numbers: tuple[int, ...]) -> Shared:
    """What stands of an earlier proof under a problem that keeps first_tried(), or less."""
    old = earlier.problem
    if problem.read != old.read:
        return NOTHING
    same = _alike(problem, old)
    new = frozenset(n for n, place in enumerate(problem.places) if place not in same)
    judged = numbers == earlier.numbers and bodies(problem.rules, JUDGES) == bodies(old.rules, JUDGES)
    before: dict[Place, list[tuple[int, Path]]] = {}
    for m, path in enumerate(old.steps):
        before.setdefault(path.place, []).append((m, path))
    stands = _Stands(problem, old)
    made = Shared({}, {}, new)
    for n, path in enumerate(problem.steps):
        if path.place not in same or path.to not in same:
            continue
        for m in [m for m, other in before.get(path.place, []) if other == path]:
            for here, there in ((made.shown, earlier.shown), (made.excluded, earlier.excluded if judged else {})):
                if m in there and all(map(stands, there[m])):
                    here[n] = there[m]
    return made


def _alike(problem: Problem, old: Problem) -> set[Place]:
    """The places that both have, and at which both say the same of what a thread holds."""
    return {
        place
        for place in problem.places
        if place in old.paths
        and all(problem.share(count, place, PAGE) is old.share(count, place, PAGE) for count in problem.subject.counts)
    }


class _Stands:
    """Whether what gave a formula earlier is given here: of another thread, at each place where it was."""

    def __init__(self, problem: Problem, old: Problem) -> None:
        self.problem, self.old = problem, old
        self._known: dict[Key, bool] = {}

    def __call__(self, key: Key) -> bool:
        if key not in self._known:
            self._known[key] = self._of(key)
        return self._known[key]

    def _of(self, key: Key) -> bool:
        kind, place, name = key
        if not isinstance(place, str):
            return (kind, place, name) in self.problem.kept
        assert place == OTHER
        there = [self.old.places[n] for n in self.old.where(kind, name)]
        return all((kind, at, name) in self.problem.kept for at in there if at in self.problem.paths)


def bodies(rules: Rules, names: tuple[str, ...]) -> dict[str, str]:
    """These functions of the rules, and all that they call, as text."""
    found: dict[str, str] = {}
    left = list(names)
    while left:
        name = left.pop()
        if name in found:
            continue
        found[name] = ast.dump(rules.functions[name])
        left += [
            n.func.id
            for n in ast.walk(rules.functions[name])
            if isinstance(n, ast.Call) and isinstance(n.func, ast.Name) and n.func.id in rules.functions
        ]
    return found
