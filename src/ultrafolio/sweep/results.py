"""Merge the segments into one Parquet file with a row for each cell; its bytes depend on the plan and engine only."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ultrafolio.durable import replacing

from .cell_keys import positions
from .cells import Scalar
from .key import KEY_BYTES, canonical
from .plan import Plan
from .store import Store
from .work import Tally

ROW_GROUP = 65_536


class Keys:
    """The keys of a plan's points, 16 bytes each; zeros where a key is not known yet."""

    def __init__(self, size: int) -> None:
        self._bytes = bytearray(KEY_BYTES * size)

    def add(self, tally: Tally) -> None:
        """Add the keys of a computed span."""
        start = KEY_BYTES * tally.span.start
        self._bytes[start : start + len(tally.keys)] = tally.keys

    def __getitem__(self, index: int) -> str:
        return self._bytes[KEY_BYTES * index : KEY_BYTES * (index + 1)].hex()

    def sorted(self) -> Any:
        """The indices of the cells with a known key, sorted by key; equal keys in the plan's order."""
        halves = np.frombuffer(self._bytes, dtype=">u8").reshape(-1, 2)
        order = np.lexsort((halves[:, 1], halves[:, 0]))
        return order[halves[order].any(axis=1)]


def write_results(store: Store, plan: Plan, keys: Keys, engine: str) -> Path:
    """Write results.parquet and timings.parquet for a plan whose cells are all stored; returns the former.

    A row of results holds the axes, key, status, error and the result columns; no time, no worker. Cells with equal
    keys (two names for one configuration) share a result. The newest row of a key is used.
    """
    indices = keys.sorted()
    stored = _stored(store)
    rows = stored.take(pa.array(_newest(stored, [keys[index] for index in indices.tolist()])))
    columns: dict[str, Any] = axis_columns(plan, indices)
    columns |= {name: rows[name] for name in ("key", "status", "error")}
    columns |= {name: rows[f"={name}"] for name in store.manifest.columns}
    origin = {"ultrafolio.plan": plan.digest, "ultrafolio.title": plan.title, "ultrafolio.engine": engine}
    results = pa.table(columns).combine_chunks().replace_schema_metadata(origin)
    _write(results, store.folder / "results.parquet")
    timings = pa.table({"key": rows["key"], "worker": rows["writer"], "host_ns": rows["ns"]})
    _write(timings.combine_chunks(), store.folder / "timings.parquet")
    return store.folder / "results.parquet"


def axis_columns(plan: Plan, indices: Any) -> dict[str, pa.Array]:
    """The axes' values at the points ``indices``, fixed axes included."""
    at = positions(plan, indices)
    return {axis.name: axis_array(axis.values).take(pa.array(each)) for axis, each in zip(plan.axes, at, strict=True)}


def axis_array(values: Sequence[Scalar]) -> pa.Array:
    """The values in one Arrow type; an axis of mixed types becomes text, since a column has one type."""
    kinds = {type(value) for value in values}
    if kinds == {int, float}:
        return pa.array([float(value) for value in values])
    if len(kinds) > 1:
        return pa.array([value if isinstance(value, str) else canonical(value) for value in values])
    return pa.array(list(values))


def _stored(store: Store) -> pa.Table:
    """Returns all stored rows, with their segments' writers."""
    names = ["key", "status", "error", "ns", *(f"={name}" for name in store.manifest.columns)]
    batches = []
    for batch in store.batches(names, cut=[]):
        writer = pa.array([batch.schema.metadata[b"writer"].decode()] * batch.num_rows)
        batches.append(batch.append_column("writer", writer).replace_schema_metadata(None))
    return pa.Table.from_batches(batches)


def _newest(rows: pa.Table, wanted: list[str]) -> list[int]:
    """The row number of the newest row of each wanted key."""
    newest = {key: number for number, key in enumerate(rows["key"].to_pylist())}
    return [newest[key] for key in wanted]


def _write(table: pa.Table, path: Path) -> None:
    with replacing(path) as partial:
        pq.write_table(table, partial, compression="zstd", row_group_size=ROW_GROUP, write_page_checksum=True)
