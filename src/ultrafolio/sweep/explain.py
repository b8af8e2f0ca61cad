"""The status of a store, and the reasons why a cell would run again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import pyarrow as pa
import pyarrow.compute as pc

from ultrafolio.errors import InputError

from . import segment
from .cells import Cells, Scalar
from .plan import Plan
from .planfile import parse
from .segment import FAILED
from .store import Store
from .work import Work


@dataclass(frozen=True)
class Status:
    """The counts of a store, compared with its plan as it would run now."""

    title: str
    plan: str
    cells: int
    ok: int
    failed: int
    to_run: int
    outdated: int
    """Of those to run: cells with a result under another engine or configuration."""
    cut_segments: list[str]
    keys: dict[State, list[str]]
    """State (ok, failed, to_run) -> the keys of its first KEYS cells, in the plan's order."""


State = Literal["ok", "failed", "to_run"]
"""Of a cell against its store."""
KEYS = 3
STATES: tuple[State, ...] = get_args(State)


@dataclass(frozen=True)
class Stored:
    """A stored row, without its results."""

    index: int
    key: str
    status: segment.Status
    error: str | None
    config: str
    engine: str


@dataclass(frozen=True)
class Why:
    """One cell: its axes, its stored row, and the reasons why it would run again, if any."""

    key: str
    key_now: str
    axes: dict[str, Scalar]
    status: segment.Status | Literal["not stored"]
    error: str | None
    reasons: list[str]


def plan_of(store: Store) -> Plan:
    """The plan as it was when the store was made."""
    path = store.folder / "plan.toml"
    try:
        return parse(path.read_text(encoding="utf-8"), Path(store.manifest.plan))
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read",
            value=error.strerror,
            allowed="the copy that the sweep made",
            then=f"ultrafolio sweep {store.manifest.plan} -o {store.folder}",
        ) from None


def status(store: Store, cells: Cells) -> Status:
    """Count the plan's cells by state. Resolves every cell, so that changed recordings are seen."""
    plan, cut = plan_of(store), list[Path]()
    stored, seen = store.keys(cut), set[int]()
    for batch in store.batches(["index"], cut=[]):
        seen.update(batch["index"].to_pylist())
    work = Work(plan, cells, stored)
    outdated, counted, keys = 0, dict.fromkeys(STATES, 0), {state: list[str]() for state in STATES}
    for index, cell in plan.cells():
        key, _, _ = work.key(cell)
        state: State = ("failed" if stored[key] else "ok") if key in stored else "to_run"
        counted[state] += 1
        outdated += state == "to_run" and index in seen
        if len(keys[state]) < KEYS:
            keys[state].append(key)
    return Status(
        title=plan.title,
        plan=str(plan.path),
        cells=plan.count,
        **counted,
        outdated=outdated,
        cut_segments=[str(path) for path in cut],
        keys=keys,
    )


def why(store: Store, cells: Cells, prefix: str) -> Why:
    """The cell whose key, stored or current, begins with ``prefix``. Raises InputError for none or several."""
    plan = plan_of(store)
    work, prefix = Work(plan, cells, {}), prefix.lower()
    found: dict[str, int] = {}
    for batch in store.batches(["index", "key"], cut=[]):
        pairs = zip(batch["key"].to_pylist(), batch["index"].to_pylist(), strict=True)
        found |= {key: index for key, index in pairs if key.startswith(prefix)}
    for index, cell in plan.cells():
        key = work.key(cell)[0]
        if key.startswith(prefix):
            found[key] = index
    if len(found) != 1:
        shown = ", ".join(sorted(found)[:5]) + (", ..." if len(found) > 5 else "")
        what = f"{len(found)} keys begin so" if found else "no cell has this key"
        raise InputError(
            f"{store.folder}: {what}",
            value=prefix,
            allowed=shown or "a key of results.parquet, or its beginning",
            then=f"ultrafolio sweep status {store.folder}",
        )
    key, index = found.popitem()
    return _explain(work, store, key, index)


def _explain(work: Work, store: Store, asked: str, index: int) -> Why:
    """Returns why the cell at `index` would run again, or not; `asked`: the key of the row that was asked for."""
    cell = work.plan.cell(index)
    assert cell is not None, "rows are of cells"
    key, _, config = work.key(cell)
    rows = list(_rows(store, index, {asked, key}))
    current = [row for row in rows if row.key == key]
    last = next(reversed([row for row in rows if row.key == asked] or rows), None)
    reasons = []
    if current and current[-1].status == FAILED:
        reasons.append("it failed: --rerun failed computes it again")
    elif last is None:
        reasons.append("it never ran")
    elif not current:
        if last.engine != work.engine:
            reasons.append(f"engine digest changed: {last.engine} -> {work.engine}")
        changes = differences(json.loads(last.config), json.loads(config))
        reasons += [f"configuration changed: {text}" for text in changes]
    return Why(asked, key, cell, last.status if last else "not stored", last.error if last else None, reasons)


def differences(old: Any, new: Any, path: str = "") -> Iterator[str]:
    """The fields in which two JSON values differ, as ``field: old -> new``."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in sorted(old.keys() | new.keys()):
            inner = f"{path}.{name}" if path else name
            yield from differences(old.get(name, _ABSENT), new.get(name, _ABSENT), inner)
    elif old != new or type(old) is not type(new):
        yield f"{path}: {_shown(old)} -> {_shown(new)}"


class _Absent:
    """The value of a missing field."""


_ABSENT = _Absent()


def _shown(value: Any) -> str:
    return "absent" if value is _ABSENT else json.dumps(value)[:80]


def _rows(store: Store, index: int, keys: set[str]) -> Iterator[Stored]:
    """The rows of a cell, by its index in the plan or by one of its keys, oldest first."""
    for batch in store.batches(["index", "key", "status", "error", "config"], cut=[]):
        engine = batch.schema.metadata[b"engine"].decode()
        of_cell = pc.or_(pc.equal(batch["index"], index), pc.is_in(batch["key"], pa.array(sorted(keys))))
        for row in batch.filter(of_cell).to_pylist():
            yield Stored(**row, engine=engine)
