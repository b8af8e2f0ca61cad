"""What the tables of all scenarios say together: what no policy avoids, which policies satisfy the rest, and which
choices cannot."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ultrafolio.model import policies
from ultrafolio.search.asking.ask import FAILS, NOT_ASKED, UNKNOWN
from ultrafolio.search.space import Array, Space, Values
from ultrafolio.search.table import Table

LARGEST_CORE = 5
"""The most choices of an unsafe core that is looked for."""
MOST_CHANGED = 4
"""The most choices of a cure that is looked for."""


@dataclass(frozen=True, slots=True)
class Fails:
    """That policies fail a scenario: how many; one of them, a preset if there is one."""

    scenario: str
    policies: int
    example: Values


@dataclass(frozen=True, slots=True)
class Core:
    """Choices that no policy with them survives, though with fewer of them one does: their box; how many policies have
    them; scenarios that each of these policies fails one of."""

    box: int
    policies: int
    fails: tuple[Fails, ...]


@dataclass(frozen=True, slots=True)
class Cure:
    """A smallest set of changes: the policy that they make, and the scenarios that it fails and the first did not."""

    values: Values
    worse: tuple[str, ...]


class Found:
    """The tables of scenarios, in order, over the policies that were searched.

    wanted     true for each distinct policy that was searched
    within     the box of the search
    set_aside  names of scenarios that are not asked of survivors, beside those that nobody passes
    """

    def __init__(
        self, space: Space, names: Sequence[str], tables: Sequence[Table], wanted: Array, within: int,
        set_aside: Sequence[str] = (),
    ) -> None:  # fmt: skip
        self.space, self.names, self.tables, self.within = space, list(names), list(tables), within
        self.wanted = wanted
        for axis in space.axes:
            for value in axis.values_in(within):
                if not wanted[space.where(space.full & ~axis.mask | axis.bit(value))].any() and not _is_merged(
                    space, axis.name, value
                ):
                    self.within &= ~axis.bit(value)
        self._at = np.flatnonzero(wanted)
        self.matrix = np.array([made.verdicts.reshape(-1)[self._at] for made in tables])
        some = (self.matrix != NOT_ASKED).any(axis=1)
        nobody = some & ((self.matrix == FAILS) | (self.matrix == NOT_ASKED)).all(axis=1)
        self.unavoidable = [n for n in range(len(names)) if nobody[n]]
        self.rest = [n for n in range(len(names)) if not nobody[n] and names[n] not in set_aside]

    @property
    def searched(self) -> int:
        """How many policies were searched."""
        return len(self._at)

    @property
    def pairs(self) -> int:
        """How many verdicts there are: pairs of a policy and a scenario that can have it."""
        return int((self.matrix != NOT_ASKED).sum())

    @functools.cached_property
    def failing(self) -> Array:
        """Per scenario of the rest and searched policy: whether it fails."""
        made: Array = self.matrix[self.rest] == FAILS
        return made

    @functools.cached_property
    def undecided(self) -> int:
        """How many policies fail nothing of the rest, and met a limit in one of it."""
        some = (self.matrix[self.rest] == UNKNOWN).any(axis=0)
        return int((some & ~self.failing.any(axis=0)).sum())

    @functools.cached_property
    def surviving(self) -> Array:
        """Per searched policy: whether it passes all of the rest that it is asked."""
        made: Array = ~(self.failing | (self.matrix[self.rest] == UNKNOWN)).any(axis=0)
        return made

    @functools.cached_property
    def _presets(self) -> list[int]:
        """The numbers of the presets that were searched."""
        found = []
        for name in policies.presets_of(self.space.design):
            policy = policies.find_any(name)
            if not policy.variants:
                values = self.space.counted[self.space.values_of(policy, name)]
                found += np.flatnonzero(self._at == values).tolist()
        return found

    def table_of(self, chosen: Array) -> Array:
        """Some of the searched policies as an array of the space's shape, the same for combinations that are one
        policy."""
        made = np.zeros(self.space.size, bool)
        made[self._at[chosen]] = True
        return self.space.spread(made.reshape(self.space.shape))

    def values(self, number: int) -> Values:
        """The searched policy of this number."""
        return tuple(int(n) for n in np.unravel_index(int(self._at[number]), self.space.shape))

    def fails(self, scenario: int, among: Array, like: Values | None = None) -> Fails:
        """That some of the searched policies fail a scenario. among: true for those that count; like: the policy that
        is the example if it fails."""
        fail = (self.matrix[scenario] == FAILS) & among
        found = np.flatnonzero(fail)
        liked = [] if like is None else [self._number(like)]
        first = self.values(next((n for n in [*liked, *self._presets] if fail[n]), int(found[0])))
        return Fails(self.names[scenario], len(found), first)

    def nobody_passes(self) -> list[Fails]:
        """The scenarios that every policy fails which is asked."""
        return [self.fails(n, np.ones(self.searched, bool)) for n in self.unavoidable]

    # ------------------------------------------------------------------------------------------------- fronts
    def front(self) -> list[tuple[list[int], Array]]:
        """The least sets of scenarios of the rest that a policy fails, the smallest first, each with the policies that
        fail exactly these: one, the empty set, where there are survivors."""
        packed = np.packbits(self.failing, axis=0)
        patterns, inverse = np.unique(packed, axis=1, return_inverse=True)
        sets = [frozenset(np.flatnonzero(np.unpackbits(column)).tolist()) for column in patterns.T]
        least: list[int] = []
        for number in sorted(range(len(sets)), key=lambda n: (len(sets[n]), sorted(sets[n]))):
            if not any(sets[other] <= sets[number] for other in least):
                least.append(number)
        return [([self.rest[n] for n in sorted(sets[number])], inverse.reshape(-1) == number) for number in least]

    # ------------------------------------------------------------------------------------------------- cores
    def cores(self, start: Values | None = None) -> list[Core]:
        """The smallest partial assignments, one value for each of up to LARGEST_CORE choices, that no survivor has.
        start: a policy; it with the values of a core is the example of a failure, if it fails."""
        alive = self.table_of(self.surviving)[self.space.where(self.within)]
        if not alive.any():
            return []
        found: list[dict[int, int]] = []
        projections = dict(_projections(alive))
        for some in sorted(projections, key=lambda some: (len(some), some)):
            smaller = [core for core in found if set(core) <= set(some)]
            for at in np.argwhere(~projections[some]).tolist():
                core = dict(zip(some, at, strict=True))
                if not any(one.items() <= core.items() for one in smaller):
                    found.append(core)
        made = [self._core(core, start) for core in found]
        return [core for core in made if core.policies]

    def _core(self, core: dict[int, int], start: Values | None) -> Core:
        box, counted = self.within, self.space.full
        names = [axis.name for axis in self.space.axes]
        like = list(start or ())
        for n, at in core.items():
            axis = self.space.axes[n]
            value = axis.values_in(self.within)[at]
            box = box & ~axis.mask | axis.bit(value)
            if like:
                like[n] = value
            other, words = self.space.only_where.get(axis.name, ("", ()))
            if other in names:
                # only where the choice has a meaning
                counted &= self.space.box([(other, words)])
        inside = np.zeros(self.space.shape, bool)
        inside[self.space.where(box & counted)] = True
        among = self.space.gathered(inside).reshape(-1)[self._at]
        left, fails = among.copy(), []
        while left.any():
            counts = (self.failing & left).sum(axis=1)
            if not counts.any():
                break
            worst = int(counts.argmax())
            fails.append(self.fails(self.rest[worst], left, tuple(like) or None))
            left &= ~self.failing[worst]
        return Core(box, int(among.sum()), tuple(fails))

    # ------------------------------------------------------------------------------------------------- cures
    def failed_by(self, values: Values) -> list[int]:
        """The scenarios that a policy fails."""
        at = self._number(values)
        return [n for n in range(len(self.names)) if self.matrix[n, at] == FAILS]

    def cures(self, values: Values, scenario: int | None) -> list[Cure]:
        """The smallest sets of changed choices, MOST_CHANGED at most, after which the policy passes the scenario, or
        survives (None): the fewest changes first."""
        good = self.table_of(self.surviving if scenario is None else self._passes(scenario))
        before = set(self.failed_by(values))
        found: list[tuple[dict[int, int], Cure]] = []
        axes = [n for n, axis in enumerate(self.space.axes) if len(axis.values_in(self.within)) > 1]
        for size in range(1, MOST_CHANGED + 1):
            for some in itertools.combinations(axes, size):
                others = [[v for v in self.space.axes[n].values_in(self.within) if v != values[n]] for n in some]
                for chosen in itertools.product(*others):
                    change = dict(zip(some, chosen, strict=True))
                    made = tuple(change.get(n, v) for n, v in enumerate(values))
                    if good[made] and not any(one.items() <= change.items() for one, _ in found):
                        worse = [n for n in self.failed_by(made) if n not in before]
                        found.append((change, Cure(made, tuple(self.names[n] for n in worse))))
        return [cure for _, cure in found]

    def _passes(self, scenario: int) -> Array:
        made: Array = (self.matrix[scenario] != FAILS) & (self.matrix[scenario] != UNKNOWN)
        return made

    def _number(self, values: Values) -> int:
        """The number of the searched policy that a combination is."""
        return int(np.searchsorted(self._at, self.space.counted[values]))


def _is_merged(space: Space, name: str, value: int) -> bool:
    """Whether a value other than the first may be counted with the first one (Space.distinct)."""
    return value > 0 and name in space.only_where


def _projections(alive: Array) -> Iterator[tuple[tuple[int, ...], Array]]:
    """Each set of at most LARGEST_CORE choices that survivors depend on, with the combinations of their values that a
    survivor has."""
    free = [n for n in range(alive.ndim) if (alive == alive.take([0], n)).all()]
    axes = tuple(n for n in range(alive.ndim) if n not in free)
    left: list[tuple[tuple[int, ...], int, Array]] = [(axes, 0, np.asarray(alive.any(axis=tuple(free))))]
    while left:
        some, kept, table = left.pop()
        if len(some) <= LARGEST_CORE:
            yield some, table
        left += [((*some[:n], *some[n + 1 :]), n, np.asarray(table.any(axis=n))) for n in range(kept, len(some))]
