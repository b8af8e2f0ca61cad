"""The keys of many cells at once: cells that differ in plain axes only are resolved once.

An axis is plain where `Cells.PLAIN` names it. The text of a configuration, in which only the values of plain axes
change, is kept as a form to fill in, so that a key costs little more than its digest.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from itertools import repeat
from typing import Any

import numpy as np

from .key import canonical, digest, keyed_text
from .plan import Plan
from .work import Work

PART = 16_384
"""Points whose keys are in memory at a time."""
MOST_FORMS = 4096
"""Forms kept; a form is as long as the text of a configuration."""
Array = np.ndarray[Any, Any]


class CellKeys:
    """The keys of a plan's cells under a work's engine: those that `Work.key` gives one by one."""

    def __init__(self, work: Work) -> None:
        self._work, self._plan = work, work.plan
        numbers = {axis.name: number for number, axis in enumerate(self._plan.axes)}
        plain = sorted((place, numbers[name]) for name, place in work.cells.PLAIN.items() if name in numbers)
        self._places = {place: number for place, number in plain}  # sorted: as they follow each other in the text
        self._forms: dict[int, str] = {}

    def of(self, span: range) -> Iterator[tuple[Array, list[str]]]:
        """The cells of a span of indices in parts: (indices, keys). Raises InputError where `Work.key` does, but for
        the values of plain axes, which `probe` tries."""
        for start in range(span.start, span.stop, PART):
            points = np.arange(start, min(start + PART, span.stop))
            at = positions(self._plan, points)
            kept = ~dropped(self._plan, at)
            yield points[kept], self._keys(points[kept], [each[kept] for each in at])

    def _keys(self, points: Array, at: list[Array]) -> list[str]:
        """Returns the keys of cells, given their positions on each axis."""
        codes = np.zeros(len(points), np.int64)
        for number, axis in enumerate(self._plan.axes):
            if number not in self._places.values():
                codes = codes * len(axis.values) + at[number]
        texts = [self._texts(number, at[number]) for number in self._places.values()]
        filled = zip(*texts, strict=True) if texts else repeat(())
        keys = []
        for code, point, values in zip(codes.tolist(), points.tolist(), filled, strict=False):
            form = self._forms.get(code) or self._form(code, point)
            keys.append(digest(form % values))
        return keys

    def _texts(self, number: int, at: Array) -> list[str]:
        """Returns the JSON texts of an axis's values at these positions."""
        used, where = np.unique(at, return_inverse=True)
        texts = [canonical(self._plan.axes[number].values[position]) for position in used.tolist()]
        return [texts[one] for one in where.tolist()]

    def _form(self, code: int, point: int) -> str:
        """Make the form of the cells that share a point's values on the axes that are not plain, and keep it."""
        if len(self._forms) >= MOST_FORMS:
            self._forms.clear()
        cell = self._plan.cell(point)
        assert cell is not None, "only cells have keys"
        _, config, _ = self._work.key(cell)
        form = keyed_text(_blank(config, self._places.keys()), _escaped(self._work.engine))
        self._forms[code] = form
        return form


def positions(plan: Plan, indices: Array) -> list[Array]:
    """For each axis the positions of the points `indices`."""
    found, rest = [], indices
    for axis in reversed(plan.axes):
        rest, at = np.divmod(rest, len(axis.values))
        found.append(at)
    return found[::-1]


def dropped(plan: Plan, at: list[Array]) -> Array:
    """Whether a filter drops each point, given its positions on each axis."""
    found = np.zeros(len(at[0]), bool)
    for skip in plan.skips:
        hit = np.ones(len(found), bool)
        for number, values in skip.items():
            hit &= np.isin(at[number], np.fromiter(values, np.int64))
        found |= hit
    return found


def _blank(value: Any, places: Collection[tuple[str, ...]]) -> str:
    """The canonical text of a value as a form: %s at the places, each % of the text twice."""
    if () in places:
        return "%s"
    if not places:
        return _escaped(value)
    inner: Mapping[str, Any] = value
    parts = [
        f"{_escaped(name)}:{_blank(inner[name], [place[1:] for place in places if place[0] == name])}"
        for name in sorted(inner)
    ]
    return f"{{{','.join(parts)}}}"


def _escaped(value: Any) -> str:
    return canonical(value).replace("%", "%%")
