"""Compute a span of cells in one worker: resolve, compute the key, skip stored cells, run and store the rest."""

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

BATCH_SECONDS = 0.75
"""How long a worker computes before it stores a batch. Longer: a kill loses more. Shorter: more time for fsync."""

_DROPPED = bytes(KEY_BYTES)


@dataclass(frozen=True)
class Tally:
    """The counts of a computed span. It is the only message from a worker to its parent."""

    span: range
    """The computed part of the span; a worker may return a shorter span than it was given."""
    keys: bytes
    """The key of each point of the span, KEY_BYTES each; zeros where a filter drops the point."""
    computed: int
    stored: int
    """Cells whose result was stored before."""
    failed: int
    """Failures among computed and stored cells."""
    seconds: float


NOTHING = Tally(range(0), b"", 0, 0, 0, 0.0)


@dataclass
class Work:
    """The input of a worker: the plan, the cells' code, and the stored keys."""

    plan: Plan
    cells: Cells
    stored: dict[str, bool]
    """Key that is not computed again -> whether its row is a failure."""
    engine: str = ""
    """The engine digest; "" takes that of the current sources."""
    forgets: bool = False
    """Whether ``stored`` is emptied before each span, so that each span's rows are complete."""

    def __post_init__(self) -> None:
        self.engine = self.engine or self.cells.engine_digest()

    def key(self, cell: Mapping[str, Scalar]) -> tuple[str, dict[str, Any], str]:
        """(key, configuration, its canonical JSON) of a cell. Raises InputError that names the cell."""
        try:
            config = self.cells.resolve(self.plan.handed(cell), self.plan.base)
        except InputError as error:
            raise self.located(error, cell) from None
        text = canonical(config)
        return cell_key(text, self.engine), config, text

    def located(self, error: InputError, cell: Mapping[str, Scalar]) -> InputError:
        """Returns the error with the plan's file and the cell in its text."""
        where = ", ".join(f"{name}={value}" for name, value in cell.items())
        what = f"{self.plan.path}: {error.what}\n  cell     {where}"
        then = error.then or f"correct the plan, then: ultrafolio sweep {self.plan.path}"
        return InputError(what, value=error.value, allowed=error.allowed, cause=error.cause, then=then)

    def do(self, span: range, segment: Segment, stopped: Callable[[], bool], enter: Callable[[int], None]) -> Tally:
        """Compute cells of the span until it ends, BATCH_SECONDS have passed or ``stopped()``; store them as one batch.

        ``enter`` is called with each cell's index before it runs, and with -1 at the end. Returns the tally of the
        computed part.
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
            if time.monotonic() - began > BATCH_SECONDS or stopped():
                break
        enter(-1)
        if rows:
            segment.append(rows)
        worked = span[: len(keys) // KEY_BYTES]
        return Tally(worked, bytes(keys), len(rows), stored, failed, time.monotonic() - began)

    def row(self, index: int, key: str, config: dict[str, Any], text: str) -> Row:
        """Run one cell. Returns its row; an exception becomes a failed row."""
        began = time.perf_counter_ns()
        try:
            result = self.cells.run(config, self.plan.base)
            check(result, self.cells.COLUMNS)
        except Exception as error:
            ns = time.perf_counter_ns() - began
            return Row(index, key, FAILED, one_line(error), text, ns, {})
        return Row(index, key, OK, None, text, time.perf_counter_ns() - began, result)

    def store_failure(self, index: int, reason: str, segment: Segment) -> Tally:
        """Store the cell as failed without running it, because it killed its workers. Returns its tally."""
        cell = self.plan.cell(index)
        assert cell is not None, "only cells are entered"
        key, _, text = self.key(cell)
        segment.append([Row(index, key, FAILED, reason, text, 0, {})])
        self.stored[key] = True
        return Tally(range(index, index + 1), bytes.fromhex(key), 1, 0, 1, 0.0)


def check(result: Mapping[str, Any], columns: Mapping[str, str]) -> None:
    """Raise TypeError unless the result has exactly ``columns``, each of its type."""
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
    """An exception's type and message on one line of bounded length, without content of files."""
    if isinstance(error, InputError):
        # a value may be a line of a recording, and the client that submitted the plan reads the rows
        error = InputError(error.what, allowed=error.allowed, cause=error.cause, then=error.then)
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:500]
