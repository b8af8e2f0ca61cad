"""The status of a store, and the reasons why a cell would run again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ultrafolio.errors import InputError

from . import segment
from .cell_keys import CellKeys
from .cells import ASKS, Cells, Scalar
from .plan import Plan
from .planfile import parse
from .run import probe
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
        return parse(path.read_text(encoding="utf-8"), Path(store.manifest.plan), ASKS)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read",
            value=error.strerror,
            allowed="the copy that the sweep made",
            then=f"ultrafolio sweep {store.manifest.plan} -o {store.folder}",
        ) from None


def status(store: Store, cells: Cells) -> Status:
    """Count the plan's cells by state. Reads every recording again, so that changed ones are seen.

    Raises InputError for a store that changed, and where `probe` does.
    """
    plan, cut = plan_of(store), list[Path]()
    work = Work(plan, cells, {})
    probe(work)
    rows = store.rows(("index", "key", "status"), cut)
    rows = rows.take(pa.array(np.arange(len(rows))[::-1]))  # index_in finds the first of equal keys: now the newest
    indices, keys = _keys_now(work)
    place = pc.index_in(keys, value_set=rows["key"])
    failed = pc.equal(rows["status"], FAILED).take(place)
    of_state = {"ok": pc.invert(failed), "failed": failed, "to_run": place.is_null()}
    lies = {state: np.flatnonzero(pc.fill_null(found, False).to_numpy()) for state, found in of_state.items()}
    to_run = pa.array(indices[lies["to_run"]])
    return Status(
        title=plan.title,
        plan=str(plan.path),
        cells=plan.count,
        **{state: len(found) for state, found in lies.items()},
        outdated=pc.sum(pc.is_in(to_run, value_set=rows["index"]), min_count=0).as_py(),
        cut_segments=[str(path) for path in cut],
        keys={state: keys.take(pa.array(lies[state][:KEYS])).to_pylist() for state in STATES},
    )


def _keys_now(work: Work) -> tuple[Any, pa.ChunkedArray]:
    """The indices of the plan's cells, and the keys that they have now."""
    indices, keys = [np.zeros(0, np.int64)], [pa.array([], pa.string())]
    for points, found in CellKeys(work).of(range(work.plan.size)):
        indices.append(points)
        keys.append(pa.array(found, pa.string()))
    return np.concatenate(indices), pa.chunked_array(keys)


def why(store: Store, cells: Cells, prefix: str) -> Why:
    """The cell whose key, stored or current, begins with ``prefix``. Raises InputError for none or several."""
    plan = plan_of(store)
    work, prefix = Work(plan, cells, {}), prefix.lower()
    found: dict[str, int] = {}
    rows = store.rows(("index", "key"), cut=[])
    now = pa.table(dict(zip(("index", "key"), _keys_now(work), strict=True)))
    for known in (rows, now):
        fits = known.filter(pc.starts_with(known["key"], prefix))
        found |= dict(zip(fits["key"].to_pylist(), fits["index"].to_pylist(), strict=True))
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
