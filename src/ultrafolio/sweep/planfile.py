"""Read a plan file. Each mistake raises an InputError with the place and the allowed values."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from ultrafolio import shipped
from ultrafolio.errors import InputError, one_of
from ultrafolio.fields import toml_tables, unversioned
from ultrafolio.sim.plan_parts import ASKED, STRUCTURE

from .cells import ASKS, RUNS, S390, Scalar
from .key import canonical, digest
from .plan import Axis, CountLimit, Filter, Plan, Work, count_cells

DESIGNS = (S390, "guest_memfd")
"""The designs that a plan may name."""
RESERVED = ("tables", "key", "status", "error")
LARGEST = 1 << 20
"""Bytes of a plan's text."""
MOST_POINTS = 10**12
"""Points in the product of the axes, dropped ones included."""
MOST_SKIPS = 64
"""[[skip]] entries."""
_RANGE = re.compile(r"\s*(-?\d{1,64})\s*-\s*(-?\d{1,64})\s*")


def load(path: Path) -> Plan:
    """The plan in a file. Raises InputError for a missing, unreadable or wrong file."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        absent = isinstance(error, FileNotFoundError)
        raise InputError(
            f"{path}: no such file" if absent else f"{path}: the plan cannot be read",
            value=None if absent else error.strerror,
            allowed="a TOML file with a [grid]",
            cause=shipped.why_absent(path) if absent else "",
            then="ultrafolio sweep seed (a shipped plan), or ultrafolio init my-lab, which copies all of them",
        ) from None
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: not a text file",
            value=f"byte {error.start}: {error.reason}",
            allowed="TOML in UTF-8",
            cause="a plan is a text file; a store or a recording is not one",
        ) from None
    return parse(text, path)


def parse(text: str, path: Path, asks: Collection[str] = (RUNS,)) -> Plan:
    """The plan in ``text``. ``path``: its file, for error messages and relative paths. ``asks``: what its cells may be.
    Raises InputError."""
    if len(text.encode()) > LARGEST:
        raise InputError(
            f"{path}: too long",
            value=f"{len(text.encode())} bytes",
            allowed=f"{LARGEST} bytes",
            cause='a range such as "0-9999" says what a long list says',
        )
    try:
        document = toml_tables(text)
    except ValueError as error:
        raise InputError(
            f"{path}: not valid TOML",
            value=str(error),
            allowed="TOML 1.0",
            cause="a missing quote, bracket or value, or a name given twice, on that line or the one before; "
            "a number of thousands of digits; or too many levels",
            then="ultrafolio init my-lab copies plans to begin with",
        ) from None
    plan = _Reader(path).plan(unversioned(document, str(path)), text)
    if plan.asks not in asks:
        raise InputError(
            f"{path}: a plan of another kind",
            value=plan.asks,
            allowed=", ".join(asks),
            cause="`ultrafolio search` writes such plans, for its workers",
            then="ultrafolio search --help",
        )
    return plan


class _Reader:
    """The checks of one document. It holds the file's name for error messages."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.then = f"correct it, then: ultrafolio sweep {path}"

    def plan(self, document: dict[str, Any], text: str) -> Plan:
        """Returns the plan of a parsed file."""
        title = document.get("title", self.path.stem)
        if not isinstance(title, str):
            raise self.wrong("title", title, "a text in quotes")
        design = document.get("design", DESIGNS[0])
        if design not in DESIGNS:
            raise self.unknown("design", design, DESIGNS)
        asks = document.get(ASKED, RUNS)
        if asks not in ASKS:
            raise self.unknown(ASKED, asks, ASKS)
        fixed = [
            Axis(name, (self.scalar("[fixed]", name, value),)) for name, value in self.table(document, "fixed").items()
        ]
        grid = [Axis(name, self.values(name, value)) for name, value in self.table(document, "grid").items()]
        if not grid:
            raise self.wrong(
                "[grid]",
                None,
                'at least one axis with its values, e.g. seed = "1-20"',
                cause="a plan without a grid has no cells",
            )
        axes = (*fixed, *grid)
        if (points := math.prod(len(axis.values) for axis in axes)) > MOST_POINTS:
            raise self.wrong("[grid]", points, f"at most {MOST_POINTS} points")
        self.check_names([axis.name for axis in fixed], [axis.name for axis in grid])
        self.check_tables(document, [axis.name for axis in axes])
        skips = self.skips(document.get("skip", []), axes)
        tables = {name: value for name, value in document.items() if name not in (*STRUCTURE, ASKED)}
        # The order of the axes gives the cells' indices, so it is part of the digest; canonical JSON sorts names.
        meaning = digest(canonical([_plain(document), [axis.name for axis in axes]]))
        return Plan(self.path, text, title, axes, skips, tables, meaning, design, asks)

    def wrong(self, where: str, value: object, allowed: str, *, cause: str = "") -> InputError:
        return InputError(f"{self.path}: {where}", value=value, allowed=allowed, cause=cause, then=self.then)

    def unknown(self, where: str, value: object, choices: Iterable[object]) -> InputError:
        return one_of(f"{self.path}: {where}", value, choices, then=self.then)

    def table(self, document: Mapping[str, Any], name: str) -> dict[str, Any]:
        """Returns a table of the document, {} if it is absent."""
        found = document.get(name, {})
        if not isinstance(found, dict):
            raise self.wrong(f"[{name}]", found, f"a table: [{name}] on a line of its own, then the axes")
        return found

    def check_names(self, fixed: Sequence[str], grid: Sequence[str]) -> None:
        """Raise InputError for an axis that is fixed and in the grid, or has a reserved name."""
        for name in fixed:
            if name in grid:
                raise self.wrong(f"axis {name}", None, "in [fixed] or in [grid]", cause="it is in both")
        for name in (*fixed, *grid):
            if name in RESERVED:
                raise self.wrong(
                    "axis", name, f"any name but {', '.join(RESERVED)}", cause="results use this name themselves"
                )

    def check_tables(self, document: Mapping[str, Any], axes: Sequence[str]) -> None:
        """Refuse a definition that is no table, or whose name is close to that of an axis or a part: a typing error."""
        for name, value in document.items():
            if name in (*STRUCTURE, ASKED) or (name in axes and isinstance(value, dict)):
                continue
            if not isinstance(value, dict) or difflib.get_close_matches(name, (*STRUCTURE, *axes), n=1):
                raise self.unknown("unknown name", name, (*STRUCTURE, *dict.fromkeys(axes)))

    def scalar(self, where: str, name: str, value: object) -> Scalar:
        """Returns a value of an axis: a text, a bool, an integer of 64 bits or a finite number."""
        # A cell's key is a digest of JSON, so values that JSON cannot hold are refused.
        if isinstance(value, str | bool | int) or (isinstance(value, float) and math.isfinite(value)):
            if isinstance(value, int) and not -(2**63) <= value < 2**63:
                raise self.wrong(f"{where} {name}", value, "integers of 64 bits")
            return value
        raise self.wrong(
            f"{where} {name}",
            value,
            "a text, an integer, a finite number, true or false",
            cause="one axis value per cell: a list goes into [grid]",
        )

    def values(self, name: str, given: object) -> Sequence[Scalar]:
        """Returns the values of an axis of the grid: a list, or a range in a text."""
        where = f"[grid] {name}"
        if isinstance(given, str):
            return self.integers(where, given)
        if not isinstance(given, list):
            raise self.wrong(
                where,
                given,
                'a list of values, or a range such as "0-9"',
                cause=f"one value for all cells goes into [fixed]: {name}",
            )
        if not given:
            raise self.wrong(where, given, "at least one value", cause="an empty axis leaves no cells")
        values = [self.scalar("[grid]", name, value) for value in given]
        for value, how_many in _counted(values):
            if how_many > 1:
                raise self.wrong(where, value, "each value once", cause=f"it is given {how_many} times")
        return tuple(values)

    def integers(self, where: str, given: str) -> range:
        """Returns the numbers of a range such as "0-9"."""
        match = _RANGE.fullmatch(given)
        if match is None:
            raise self.wrong(
                where,
                given,
                'a list of values, or an inclusive integer range such as "0-9"',
                cause="a text in place of a list is read as a range",
            )
        first, last = int(match[1]), int(match[2])
        if last < first:
            raise self.wrong(where, given, "the smaller number first", cause=f'did you mean "{last}-{first}"?')
        if not -(2**63) <= first <= last < 2**63:
            raise self.wrong(where, given, "integers of 64 bits")
        return range(first, last + 1)

    def skips(self, given: object, axes: Sequence[Axis]) -> tuple[Filter, ...]:
        """Returns the filters of [[skip]], which must leave cells, and each drop some."""
        if not isinstance(given, list) or not all(isinstance(entry, dict) for entry in given):
            raise self.wrong("[[skip]]", given, "[[skip]] in double brackets, then the axes it names")
        entries = enumerate(given, 1)
        if len(given) > MOST_SKIPS:
            raise self.wrong("[[skip]]", len(given), f"at most {MOST_SKIPS} of them")
        skips = tuple(self.skip(f"[[skip]] number {number}", entry, axes) for number, entry in entries)
        work = Work()
        try:
            left = [count_cells(axes, skips[:number], work) for number in range(len(skips) + 1)]
        except CountLimit:
            raise self.wrong(
                "[[skip]]",
                None,
                "filters whose cells can be counted",
                cause="too many of them overlap, or one is on an axis of millions",
            ) from None
        for number, (before, after) in enumerate(pairwise(left), 1):
            if before == after:
                raise self.wrong(
                    f"[[skip]] number {number}",
                    given[number - 1],
                    "a filter that drops a cell",
                    cause="the filters before it already drop all that it names",
                )
        if left[-1] == 0:
            raise self.wrong(
                "[[skip]]", None, "filters that leave at least one cell", cause="together the filters drop every cell"
            )
        return skips

    def skip(self, where: str, entry: Mapping[str, object], axes: Sequence[Axis]) -> Filter:
        """Returns one filter: position of the axis -> positions of the values that it drops."""
        if not entry:
            raise self.wrong(where, "{}", "at least one axis", cause="a filter without axes drops every cell")
        names = [axis.name for axis in axes]
        found: dict[int, Collection[int]] = {}
        for name, given in entry.items():
            if name not in names:
                raise self.unknown(f"{where}: no such axis", name, names)
            number = names.index(name)
            found[number] = self.dropped(f"{where}: {name}", given, axes[number])
        return found

    def dropped(self, where: str, given: object, axis: Axis) -> Collection[int]:
        """Returns the positions of the values that an entry of a filter names."""
        wanted: Sequence[object] = given if isinstance(given, list) else [given]
        if isinstance(given, str) and _at(axis.values, given) < 0 and _RANGE.fullmatch(given):
            wanted = self.integers(where, given)
            first, last = _at(axis.values, wanted[0]), _at(axis.values, wanted[-1])
            if isinstance(axis.values, range) and first >= 0 and last >= 0:
                return range(first, last + 1)
        if not wanted:
            raise self.wrong(where, given, "at least one value", cause="an empty list drops nothing")
        positions = []
        for value in wanted:
            if (at := _at(axis.values, value)) < 0:
                shown = [*axis.values[:20], *(["..."] if len(axis.values) > 20 else [])]
                raise self.unknown(f"{where}: no such value on this axis", value, shown)
            positions.append(at)
        return frozenset(positions)


def _at(values: Sequence[Scalar], value: object) -> int:
    """The position of a value on an axis, or -1. A range is not searched: Python does that for values that are no
    integers."""
    if isinstance(values, range):
        if not isinstance(value, int | float) or value != value // 1:
            return -1
        value = int(value)
    if isinstance(value, list | dict) or value not in values:
        return -1
    return values.index(value)  # type: ignore[arg-type]


def _counted(values: Sequence[Scalar]) -> Iterable[tuple[Scalar, int]]:
    """(value, number of equal values) for each value; 1, 1.0 and true are equal, as in a filter."""
    counts: dict[Scalar, int] = {}
    for value in values:
        counts[value] = counts.get(value, 0) + 1
    return counts.items()


def _plain(value: Any) -> Any:
    """``value`` with values that JSON lacks (dates, NaN) as text."""
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    if isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    return str(value)
