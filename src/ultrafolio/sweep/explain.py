"""What a store holds, and why a cell would run again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ultrafolio.errors import InputError

from .cells import Cells, Scalar
from .plan import Plan
from .planfile import parse
from .segment import FAILED
from .store import Store
from .work import Work


@dataclass(frozen=True)
class Status:
    """A store against its plan as it would run now."""

    title: str
    plan: str
    cells: int
    ok: int
    failed: int
    to_run: int
    outdated: int
    """Of those to run: cells with a result under another engine or configuration."""
    cut_segments: list[str]
    keys: dict[str, list[str]]
    """Of each state, ok, failed and to_run, the keys of the first KEYS cells, in the plan's order."""


KEYS, STATES = 3, ("ok", "failed", "to_run")


@dataclass(frozen=True)
class Stored:
    """A stored row, without its results."""

    index: int
    key: str
    status: str
    error: str | None
    config: str
    engine: str


@dataclass(frozen=True)
class Why:
    """One cell: what it is, what is stored for it, and the reasons why it would run again, if any."""

    key: str
    key_now: str
    axes: dict[str, Scalar]
    status: str
    error: str | None
    reasons: list[str]


def plan_of(store: Store) -> Plan:
    """The plan that the store was made for, as it stood then."""
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
    """How many of the plan's cells are stored. Resolves every cell: changed inputs count as changes."""
    plan, cut = plan_of(store), list[Path]()
    stored, seen = store.keys(cut), set[int]()
    for batch in store.batches(["index"], cut=[]):
        seen.update(batch["index"].to_pylist())
    work = Work(plan, cells, stored)
    outdated, counted, keys = 0, dict.fromkeys(STATES, 0), {state: list[str]() for state in STATES}
    for index, cell in plan.cells():
        key, _, _ = work.key(cell)
        state = ("failed" if stored[key] else "ok") if key in stored else "to_run"
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
    """The cell whose key, stored or current, begins with ``prefix``; InputError for none or several."""
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
    """The value of a field that is not there."""


_ABSENT = _Absent()


def _shown(value: Any) -> str:
    return "absent" if value is _ABSENT else json.dumps(value)[:80]


def _rows(store: Store, index: int, keys: set[str]) -> Iterator[Stored]:
    """The rows of a cell, by its place in the plan or by one of its keys, oldest first."""
    for batch in store.batches(["index", "key", "status", "error", "config"], cut=[]):
        engine = batch.schema.metadata[b"engine"].decode()
        of_cell = pc.or_(pc.equal(batch["index"], index), pc.is_in(batch["key"], pa.array(sorted(keys))))
        for row in batch.filter(of_cell).to_pylist():
            yield Stored(**row, engine=engine)
