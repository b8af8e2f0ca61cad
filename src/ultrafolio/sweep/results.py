"""Merge the segments into one Parquet file with a row for each cell; its bytes depend on the plan and engine only."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
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

    def text(self, indices: Any) -> pa.Array:
        """The keys at these indices as texts."""
        digits = np.frombuffer(self._bytes, np.uint8).reshape(-1, KEY_BYTES)[indices].tobytes().hex().encode()
        ends = np.arange(len(indices) + 1, dtype=np.int64) * (2 * KEY_BYTES)
        found = pa.LargeStringArray.from_buffers(len(indices), pa.py_buffer(ends), pa.py_buffer(digits))
        return found.cast(pa.string())

    def sorted(self) -> Any:
        """The indices of the cells with a known key, sorted by key; equal keys in the plan's order."""
        halves = np.frombuffer(self._bytes, dtype=">u8").reshape(-1, 2)
        order = np.lexsort((halves[:, 1], halves[:, 0]))
        return order[halves[order].any(axis=1)]


def write_results(store: Store, plan: Plan, keys: Keys, engine: str) -> Path:
    """Write results.parquet and timings.parquet for a plan whose cells are all stored; returns the former.

    A row of results holds the axes, key, status, error and the result columns; no time, no worker. Cells with equal
    keys (two names for one configuration) share a result. The newest row of a key is used. In memory are the keys, the
    rows of a row group, and all others compressed.
    """
    indices = keys.sorted()
    groups = _row_groups(store, _newest(store, keys.text(indices)))
    origin = {"ultrafolio.plan": plan.digest, "ultrafolio.title": plan.title, "ultrafolio.engine": engine}
    path = store.folder / "results.parquet"
    with writing(store.folder / "timings.parquet") as add_times, writing(path) as add:
        for number, rows in enumerate(groups):
            columns: dict[str, Any] = axis_columns(plan, indices[number * ROW_GROUP :][:ROW_GROUP])
            columns |= {name: rows[name] for name in ("key", "status", "error")}
            columns |= {name: rows[f"={name}"] for name in store.manifest.columns}
            add(pa.table(columns).combine_chunks().replace_schema_metadata(origin))
            add_times(pa.table({"key": rows["key"], "worker": rows["writer"], "host_ns": rows["ns"]}).combine_chunks())
    return path


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


def _newest(store: Store, wanted: pa.Array) -> Any:
    """The number of the newest stored row of each wanted key."""
    stored = store.rows(("key",), cut=[])["key"]
    back = np.arange(len(stored))[::-1]  # index_in finds the first of equal keys: now the newest
    place = pc.index_in(wanted, value_set=stored.take(pa.array(back)))
    return back[place.to_numpy(zero_copy_only=False)]


def _row_groups(store: Store, numbers: Any) -> Iterator[pa.Table]:
    """The stored rows of these numbers, with their writers, in tables of ROW_GROUP rows; at least one table.

    The segments are read once, in their order. Each table waits in a compressed stream of its own.
    """
    names = ["key", "status", "error", "ns", *(f"={name}" for name in store.manifest.columns)]
    schema = pa.schema([*store.schema(names), pa.field("writer", pa.string()), pa.field("at", pa.int64())])
    options = pa.ipc.IpcWriteOptions(compression="zstd", use_threads=False)
    sinks = [pa.BufferOutputStream() for _ in range(0, max(len(numbers), 1), ROW_GROUP)]
    streams = [pa.ipc.new_stream(sink, schema, options=options) for sink in sinks]
    order = np.argsort(numbers, kind="stable")
    ranked, seen = numbers[order], 0
    for rows in parts(store, names):
        low, high = np.searchsorted(ranked, [seen, seen + len(rows)])
        by_place = np.argsort(order[low:high])
        places = order[low:high][by_place]
        taken = rows.take(pa.array(ranked[low:high][by_place] - seen)).append_column("at", pa.array(places))
        edges = np.searchsorted(places, np.arange(len(streams) + 1) * ROW_GROUP).tolist()
        for stream, start, end in zip(streams, edges, edges[1:], strict=False):
            if end > start:
                stream.write_table(taken.slice(start, end - start))
        seen += len(rows)
    for stream, sink in zip(streams, sinks, strict=True):
        stream.close()
        found = pa.ipc.open_stream(sink.getvalue()).read_all()
        yield found.take(pa.array(np.argsort(found["at"].to_numpy())))


def parts(store: Store, names: Sequence[str]) -> Iterator[pa.Table]:
    """All stored rows, oldest first, in tables of ROW_GROUP rows or somewhat more: the columns `names` (in schema
    order), and the writers of their segments."""
    batches: list[pa.RecordBatch] = []
    for batch in store.batches(names, cut=[]):
        writer = pa.array([batch.schema.metadata[b"writer"].decode()]).take(pa.array(np.zeros(len(batch), np.int64)))
        batches.append(batch.append_column("writer", writer).replace_schema_metadata(None))
        if sum(map(len, batches)) >= ROW_GROUP:
            yield pa.Table.from_batches(batches).combine_chunks()
            batches.clear()
    if batches:
        yield pa.Table.from_batches(batches).combine_chunks()


@contextmanager
def writing(path: Path) -> Iterator[Callable[[pa.Table], None]]:
    """A function that appends a row group to a Parquet file, which comes to `path` at the end of the block."""
    made: list[pq.ParquetWriter] = []

    def append(rows: pa.Table) -> None:
        if not made:
            made.append(pq.ParquetWriter(partial, rows.schema, compression="zstd", write_page_checksum=True))
        made[0].write_table(rows, row_group_size=ROW_GROUP)

    with replacing(path) as partial:
        try:
            yield append
        finally:
            for writer in made:
                writer.close()
