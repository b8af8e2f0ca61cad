"""Plans: a TOML file that names the cells of a sweep without listing them.

``[fixed]`` and ``[grid]`` give the axes, ``[[skip]]`` drops cells, every other table is a definition that is
passed to the cells unchanged. The points of the product have indices in the order written, last axis fastest.
Cells are computed from their index, so a plan of a million cells needs no more memory than a plan of ten.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from .cells import RUNS, S390, Scalar


@dataclass(frozen=True)
class Axis:
    """A name and its values; a fixed axis has one value, a range stays a ``range``."""

    name: str
    values: Sequence[Scalar]


Filter = Mapping[int, Collection[int]]
"""Axis number -> positions on that axis; a cell whose positions all match is dropped."""


@dataclass(frozen=True)
class Plan:
    """A validated plan; :func:`ultrafolio.sweep.planfile.load` makes one from a file."""

    path: Path
    text: str
    title: str
    axes: tuple[Axis, ...]
    skips: tuple[Filter, ...]
    tables: Mapping[str, Any]
    digest: str
    """The digest of the file's values; comments and layout do not change it."""
    design: str = S390
    """The design whose rules its cells run."""
    asks: str = RUNS
    """What a cell is, one of cells.ASKS."""

    @property
    def base(self) -> Path:
        """The folder that relative paths in the plan start from."""
        return self.path.parent

    @cached_property
    def size(self) -> int:
        """The number of points in the product, dropped ones included; indices run from 0 to size - 1."""
        return math.prod(len(axis.values) for axis in self.axes)

    @cached_property
    def count(self) -> int:
        """The number of cells, dropped ones excluded; computed without enumerating them."""
        return count_cells(self.axes, self.skips)

    def positions(self, index: int) -> list[int]:
        """The position on each axis of the point ``index``."""
        found = [0] * len(self.axes)
        for number in range(len(self.axes) - 1, -1, -1):
            index, found[number] = divmod(index, len(self.axes[number].values))
        return found

    def cell(self, index: int) -> dict[str, Scalar] | None:
        """The axes' values at the point ``index``, or None where a filter drops it."""
        at = self.positions(index)
        for skip in self.skips:
            if all(at[number] in dropped for number, dropped in skip.items()):
                return None
        return {axis.name: axis.values[position] for axis, position in zip(self.axes, at, strict=True)}

    def cells(self, span: range | None = None) -> Iterator[tuple[int, dict[str, Scalar]]]:
        """The cells of a span of indices (by default: all), each with its index, one at a time."""
        for index in range(self.size) if span is None else span:
            cell = self.cell(index)
            if cell is not None:
                yield index, cell

    def handed(self, cell: Mapping[str, Scalar]) -> dict[str, Any]:
        """The argument of ``resolve`` for a cell: its axes and the plan's definitions."""
        return {**cell, "tables": self.tables}


class CountLimit(Exception):
    """Counting the cells exceeded the limit."""


class Work:
    """The number of counting steps that are left. ``take`` raises CountLimit when it is used up."""

    def __init__(self, most: int = 4_000_000) -> None:
        self.left = most

    def take(self, amount: int) -> None:
        """Use ``amount`` steps. Raises CountLimit if fewer are left."""
        self.left -= amount
        if self.left < 0:
            raise CountLimit


def count_cells(axes: Sequence[Axis], skips: Sequence[Filter], work: Work | None = None) -> int:
    """The number of points of the product that no filter drops.

    Axis by axis, prefixes of cells are counted by the set of filters that still match them, so the cost
    grows with the length of the filtered axes and not with their product. Raises CountLimit beyond ``work`` steps.
    """
    work = work or Work()
    prefixes: Counter[frozenset[int]] = Counter({frozenset(range(len(skips))): 1})
    for number, axis in enumerate(axes):
        longer: Counter[frozenset[int]] = Counter()
        for matching, how_many in prefixes.items():
            tests = [skip for skip in matching if number in skips[skip]]
            if not tests:
                longer[matching] += how_many * len(axis.values)
                continue
            work.take(len(axis.values) * len(tests))
            for position in range(len(axis.values)):
                failing = {skip for skip in tests if position not in skips[skip][number]}
                longer[matching - failing] += how_many
        prefixes = longer
    return prefixes[frozenset()]
