"""A set of policies as few rows: in each row every choice has a value, several values, or any."""

from __future__ import annotations

import numpy as np

from ultrafolio.search.space import Array, Space


def rows(space: Space, chosen: Array, within: int) -> list[tuple[int, int]]:
    """Boxes that cover exactly the chosen policies, in a fixed order: each with the number of distinct policies that
    it has.

    chosen  true for a policy that is to be covered; equal for combinations that are one policy
    within  the box that was searched, which holds all chosen policies; outside of it nothing is said

    Each box is as large as one choice after the other lets it be, around the first policy that is not covered yet.
    """
    made: list[tuple[int, int]] = []
    inside = np.zeros(space.shape, bool)
    inside[space.where(within)] = True
    left = chosen & inside & space.distinct
    while left.any():
        values = tuple(int(n) for n in np.unravel_index(int(left.argmax()), space.shape))
        box = space.bits(values)
        for axis in space.axes:
            for value in axis.values_in(within):
                line = box & ~axis.mask | axis.bit(value)
                if chosen[space.where(line)].all():
                    box |= line
        where = space.where(box)
        made.append((box, int((space.distinct & inside)[where].sum())))
        left[where] = False
    return made
