"""What a worker does with a span of cells: resolve, key, skip what is stored, run and store the rest."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ultrafolio.errors import InputError

from .cells import Cells, Scalar
from .key import KEY_BYTES, canonical, cell_key
from .plan import Plan
from .segment import FAILED, OK, Row, Segment

CHUNK_SECONDS = 0.75
"""How long a worker computes before it stores: what a kill may cost, against what a stored batch costs."""

_DROPPED = bytes(KEY_BYTES)


@dataclass(frozen=True)
class Tally:
    """What became of a span; sent from worker to parent, and all that is sent."""

    span: range
    """The span as far as it was worked; a worker may hand back a shorter one than it was given."""
    keys: bytes
    """The key of each point of the span, zeros where a filter drops it."""
    computed: int
    stored: int
    """Cells that needed no computing."""
    failed: int
    """Failures among both."""
    seconds: float


NOTHING = Tally(range(0), b"", 0, 0, 0, 0.0)


@dataclass
class Work:
    """A plan, how to run its cells, and what is stored: all that a worker must know."""

    plan: Plan
    cells: Cells
    stored: dict[str, bool]
    """Keys that need no computing, and whether each is a failure."""
    engine: str = ""
    """The engine digest; by default that of the sources as they are now."""
    forgets: bool = False
    """Every span stands for itself: ``stored`` is emptied before each."""

    def __post_init__(self) -> None:
        self.engine = self.engine or self.cells.engine_digest()

    def key(self, cell: Mapping[str, Scalar]) -> tuple[str, dict[str, Any], str]:
        """A cell's key, its configuration and the canonical text of that. Raises InputError with the cell."""
        try:
            config = self.cells.resolve(self.plan.handed(cell), self.plan.base)
        except InputError as error:
            raise self.located(error, cell) from None
        text = canonical(config)
        return cell_key(text, self.engine), config, text

    def located(self, error: InputError, cell: Mapping[str, Scalar]) -> InputError:
        where = ", ".join(f"{name}={value}" for name, value in cell.items())
        what = f"{self.plan.path}: {error.what}\n  cell     {where}"
        then = error.then or f"correct the plan, then: ultrafolio sweep {self.plan.path}"
        return InputError(what, value=error.value, allowed=error.allowed, cause=error.cause, then=then)

    def do(self, span: range, segment: Segment, stopped: Callable[[], bool], enter: Callable[[int], None]) -> Tally:
        """Work the span until it ends, CHUNK_SECONDS have passed or ``stopped()``, and store one batch.

        ``enter`` is told each cell's index before it runs, and -1 when the span is over.
        """
        if self.forgets:
            self.stored.clear()
        began = time.monotonic()
        keys, rows, stored, failed = bytearray(), list[Row](), 0, 0
        for index in span:
            cell = self.plan.cell(index)
            if cell is None:
                keys += _DROPPED
            else:
                key, config, text = self.key(cell)
                keys += bytes.fromhex(key)
                if key in self.stored:
                    stored += 1
                else:
                    enter(index)
                    rows.append(self.row(index, key, config, text))
                    self.stored[key] = rows[-1].status == FAILED
                failed += self.stored[key]
            if time.monotonic() - began > CHUNK_SECONDS or stopped():
                break
        enter(-1)
        if rows:
            segment.append(rows)
        worked = span[: len(keys) // KEY_BYTES]
        return Tally(worked, bytes(keys), len(rows), stored, failed, time.monotonic() - began)

    def row(self, index: int, key: str, config: dict[str, Any], text: str) -> Row:
        """Run one cell; whatever it raises becomes a failed row."""
        began = time.perf_counter_ns()
        try:
            result = self.cells.run(config, self.plan.base)
            check(result, self.cells.COLUMNS)
        except Exception as error:
            ns = time.perf_counter_ns() - began
            return Row(index, key, FAILED, one_line(error), text, ns, {})
        return Row(index, key, OK, None, text, time.perf_counter_ns() - began, result)

    def condemn(self, index: int, reason: str, segment: Segment) -> Tally:
        """Store the cell as failed without running it: it has ended its workers."""
        cell = self.plan.cell(index)
        assert cell is not None, "only cells are entered"
        key, _, text = self.key(cell)
        segment.append([Row(index, key, FAILED, reason, text, 0, {})])
        self.stored[key] = True
        return Tally(range(index, index + 1), bytes.fromhex(key), 1, 0, 1, 0.0)


def check(result: Mapping[str, Any], columns: Mapping[str, str]) -> None:
    """Raise TypeError unless the result has exactly the columns, each of its kind."""
    if result.keys() != columns.keys():
        odd = sorted(result.keys() ^ columns.keys())
        raise TypeError(f"result columns differ: {', '.join(odd)}")
    for name, kind in columns.items():
        value = result[name]
        if kind == "str":
            good = type(value) is str
        elif kind == "int":
            good = _is_int64(value)
        else:
            good = isinstance(value, list) and all(map(_is_int64, value))
        if not good:
            raise TypeError(f"result column {name} is not of kind {kind}: {value!r:.80}")


def _is_int64(value: Any) -> bool:
    return type(value) is int and -(2**63) <= value < 2**63


def one_line(error: Exception) -> str:
    """An exception's type and message on one line of bounded length; nothing of a file that was read."""
    if isinstance(error, InputError):
        # a value may be a line of a recording, and rows go to whoever submitted the plan
        error = InputError(error.what, allowed=error.allowed, cause=error.cause, then=error.then)
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:500]
