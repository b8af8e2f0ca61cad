"""The places of `index`: where the steps of an actor with a home are, by the memory of its home, that of a narrow
region beside it, and the actor's short id.

A home is given as a pair: the region, and the narrow region beside it or -1; (-1, -1) for an actor without one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from ultrafolio.check.search.packing import NARROW

Array = np.ndarray[Any, Any]
Homes = Sequence[tuple[int, int]]


def home_of(uses: Sequence[bool], machines: frozenset[int]) -> tuple[int, int]:
    """Returns the home of an actor: the only region that it uses; or, of two, the one with pages, and beside it the one
    of a machine. uses: whether it uses each region; machines: the regions without a page."""
    mine = [r for r, one in enumerate(uses) if one]
    apart = [r for r in mine if r in machines]
    if len(mine) == 1:
        return mine[0], -1
    return (sum(mine) - apart[0], apart[0]) if len(mine) == 2 and len(apart) == 1 else (-1, -1)


def widths(homes: Homes, limits: Sequence[int]) -> list[int]:
    """Returns the places of each actor for one memory of its home. limits: the short_limit of each actor."""
    return [
        0 if home < 0 else limit if beside < 0 else limit << NARROW
        for (home, beside), limit in zip(homes, limits, strict=True)
    ]


def columns(homes: Homes, limits: Sequence[int], words: int) -> Iterator[tuple[int, int, int]]:
    """Yields for each actor with a home: the actor, its index_at and its index_step in an `index` of so many words.

    The places do not depend on how many memories there are, so `index` is not copied when these grow.
    """
    each = widths(homes, limits)
    rows = words // max(1, sum(each))
    at = 0
    for r in sorted({home for home, _ in homes if home >= 0}):
        mine = [t for t, (home, _) in enumerate(homes) if home == r]
        step = sum(each[t] for t in mine)
        column = at
        for t in mine:
            yield t, column, step
            column += each[t]
        at += step * rows


def copy_index(
    old: Array, memories: int, before: Sequence[int], new: Array, after: Sequence[int], homes: Homes
) -> None:
    """Copy the places of so many memories from an `index` to one for more of them, or for more short ids.

    before, after: the short_limit of each actor in the two.
    """
    was, now = columns(homes, before, len(old)), columns(homes, after, len(new))
    for (t, at, step), (_, to, wide) in zip(was, now, strict=True):
        shape = (memories, 1 if homes[t][1] < 0 else 1 << NARROW, before[t])
        places = as_strided(old[at:], shape, tuple(old.itemsize * n for n in (step, before[t], 1)))
        as_strided(new[to:], shape, tuple(new.itemsize * n for n in (wide, after[t], 1)))[:] = places
