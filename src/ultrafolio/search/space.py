"""The product space of a design: every combination of the values of its choices, without bugs of kernels.

A policy is a tuple with the number of a value for each choice, in the order of Space.axes. A *box* is a set of policies
that is a product: for each choice a set of its values. It is a number, with a bit for each value of each choice.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ultrafolio.errors import InputError, one_of
from ultrafolio.model import policies
from ultrafolio.model import policy as s390
from ultrafolio.model.designs import S390
from ultrafolio.model.guest_memfd import policy as memfd
from ultrafolio.model.policies import AnyPolicy

Values = tuple[int, ...]
"""A policy: the number of a value for each choice."""
Array = np.ndarray[Any, Any]

NUMBERS = {"split_writeback": (0, 1, 2), "retries": (0, 1)}
"""The values that the search gives to a choice that is a number. One that is not here keeps its default."""


@dataclass(frozen=True, slots=True)
class Axis:
    """One choice: its name; its values as a policy has them, and as the rules' configuration has them; the position of
    its first value in a box; the bits of all its values."""

    name: str
    values: tuple[Any, ...]
    codes: tuple[int, ...]
    at: int
    mask: int

    def bit(self, value: int) -> int:
        """The bit of its value of this number."""
        return 1 << (self.at + value)

    def values_in(self, box: int) -> list[int]:
        """The numbers of its values in a box."""
        return [v for v in range(len(self.values)) if box >> (self.at + v) & 1]


class Space:
    """The policies of a design."""

    def __init__(self, design: str) -> None:
        self.design = design
        self.kind: Any = s390.Policy if design == S390.name else memfd.MemfdPolicy
        choices: Mapping[str, tuple[str, ...]] = s390.CHOICES if design == S390.name else memfd.CHOICES
        made: list[Axis] = []
        at = 0
        for name in self.kind.__dataclass_fields__:
            words: tuple[Any, ...] = choices.get(name) or NUMBERS.get(name, ())
            if words:
                codes = tuple(range(len(words))) if name in choices else words
                made.append(Axis(name, words, codes, at, ((1 << len(words)) - 1) << at))
                at += len(words)
        self.axes = tuple(made)
        self.full = (1 << at) - 1
        self._masks = tuple(axis.mask for axis in made)
        self.shape = tuple(len(axis.values) for axis in made)
        made_of = s390 if design == S390.name else memfd
        self.only_where: Mapping[str, tuple[str, tuple[str, ...]]] = made_of.ONLY_WHERE

    @property
    def size(self) -> int:
        """How many combinations there are; some are the same policy (distinct())."""
        return int(np.prod(self.shape))

    def policy(self, values: Sequence[int]) -> AnyPolicy:
        """The policy of these values."""
        made: AnyPolicy = self.kind(**{a.name: a.values[v] for a, v in zip(self.axes, values, strict=True)})
        return made

    def values_of(self, policy: AnyPolicy, name: str) -> Values:
        """The values of a policy; bugs of a kernel are left out. InputError where it has a value that the search does
        not try, or is one of another design."""
        if policies.design_of(policy) != self.design:
            raise InputError(f"{name}: a policy of another design", value=policies.design_of(policy),
                             allowed=f"a policy of {self.design}", then="ultrafolio policies")  # fmt: skip
        found = []
        for axis in self.axes:
            value = getattr(policy, axis.name)
            if value not in axis.values:
                raise one_of(f"{name}: {axis.name}, as the search varies it", str(value), map(str, axis.values),
                             then="ultrafolio policies")  # fmt: skip
            found.append(axis.values.index(value))
        for choice, value in policies.differences(self.policy(found), policy).items():
            other, words = self.only_where.get(choice, ("", ()))
            if choice != "variants" and not (other and getattr(policy, other) not in words):
                raise InputError(
                    f"{name}: {choice}, which the search does not vary",
                    value=value,
                    allowed=str(getattr(self.policy(found), choice)),
                    then="ultrafolio policies",
                )
        return tuple(found)

    def bits(self, values: Sequence[int]) -> int:
        """The box of one policy."""
        return sum(axis.bit(value) for axis, value in zip(self.axes, values, strict=True))

    def where(self, box: int) -> Any:
        """The index of a box into an array of the space's shape."""
        return np.ix_(*(axis.values_in(box) for axis in self.axes))

    def first_in(self, box: int) -> Values:
        """The first policy of a box."""
        of_axes = [(box & axis.mask, axis.at) for axis in self.axes]
        return tuple((bits & -bits).bit_length() - 1 - at for bits, at in of_axes)

    def are_apart(self, one: int, other: int) -> bool:
        """Whether two boxes have no policy in common."""
        both = one & other
        return not all(map(both.__and__, self._masks))

    def without(self, box: int, taken: int) -> Iterator[int]:
        """The rest of a box without another one that lies in it, as boxes that have no policy in common."""
        for axis in self.axes:
            left = box & axis.mask & ~taken
            if left:
                yield box & ~axis.mask | left
                box = box & ~axis.mask | taken & axis.mask

    def words(self, box: int) -> dict[str, tuple[Any, ...]]:
        """Returns a box in words: each choice that has not all its values in it, and those that it has."""
        return {
            axis.name: tuple(axis.values[v] for v in axis.values_in(box))
            for axis in self.axes
            if box & axis.mask != axis.mask
        }

    def box(self, said: Iterable[tuple[str, Sequence[str]]]) -> int:
        """The box in which each named choice has one of these values, as words. InputError for an unknown one."""
        box = self.full
        for name, words in said:
            axis = next((axis for axis in self.axes if axis.name == name), None)
            if axis is None:
                raise one_of(f"no choice that the search of {self.design} varies", name,
                             [axis.name for axis in self.axes], then="ultrafolio policies")  # fmt: skip
            known = [str(value) for value in axis.values]
            for word in words:
                if word not in known:
                    raise one_of(f"{name}: no value that the search tries", word, known, then="ultrafolio policies")
            box &= ~axis.mask | sum(axis.bit(known.index(word)) for word in words)
        return box

    @functools.cached_property
    def counted(self) -> Array:
        """Per combination the number of the one that is counted for it: the first of those that differ only in choices
        that have no meaning beside the others (model.policy.ONLY_WHERE)."""
        made = np.arange(self.size).reshape(self.shape)
        names = [axis.name for axis in self.axes]
        for name, (other, words) in self.only_where.items():
            if name not in names:
                continue
            here, there = names.index(name), names.index(other)
            for value in [v for v, known in enumerate(self.axes[there].values) if known not in words]:
                index: list[Any] = [slice(None)] * len(self.axes)
                index[there] = slice(value, value + 1)
                first = list(index)
                first[here] = slice(0, 1)
                made[tuple(index)] = made[tuple(first)]
        return made

    @functools.cached_property
    def distinct(self) -> Array:
        """Which combinations are counted."""
        made: Array = self.counted == np.arange(self.size).reshape(self.shape)
        return made

    def spread(self, table: Array) -> Array:
        """A table in which each combination has the entry of the one that is counted for it."""
        made: Array = table.reshape(-1)[self.counted]
        return made

    def gathered(self, table: Array) -> Array:
        """Returns the counted combinations that stand for at least one that is true in the table."""
        made = np.zeros(self.size, bool)
        made[self.counted[table]] = True
        return made.reshape(self.shape)


@functools.cache
def of(design: str) -> Space:
    """The space of a design."""
    return Space(design)


def policy_name(policy: AnyPolicy) -> str:
    """What --policy takes for a policy: the preset that differs in the fewest choices, and the choices that differ and
    have a meaning beside the others."""
    design = policies.design_of(policy)
    only_where = of(design).only_where
    made: list[tuple[int, int, str]] = []
    for number, name in enumerate(policies.presets_of(design)):
        changes = policies.differences(policies.find_any(name), policy)
        said = {
            choice: value
            for choice, value in changes.items()
            if choice not in only_where or getattr(policy, only_where[choice][0]) in only_where[choice][1]
        }
        if "variants" not in said:
            text = ",".join([name, *(f"{choice}={value}" for choice, value in said.items())])
            made.append((len(said), number, text))
    return min(made)[2]
