"""Read a sweep's store for the report: rows as columns of numbers, axes in the plan's order, and their sources.

The store's layout is a file format, read here without the code of sweep/, on which report/ does not depend.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ultrafolio.checksums import Pieces
from ultrafolio.errors import InputError
from ultrafolio.fields import toml_tables
from ultrafolio.sim.config import AXES, RECORDINGS

Array = np.ndarray[Any, Any]
P = ParamSpec("P")
T = TypeVar("T")
Scalar = str | int | float | bool
BATCH = 65_536
"""Rows whose lists are in memory at a time."""
MIX = "mix"
"""The folio order of cells whose folios have the sizes of a recording."""
NEEDED = (
    "key", "status", "error", "touches", "stalls", "stall_ns", "stall_lock", "stall_refs", "stall_writeback",
    "stall_dirty", "stall_mutex", "stall_busy", "open_stalls", "open_stall_ns", "dropped_stalls", "dropped_stall_ns",
    "hang_permanent", "hang_livelock", "hang_fatal", "hang_expected", "first_hang_ns", "exports",
    "exports_collateral", "imports",
    "imports_collateral", "import_ns", "uv_calls", "uv_ns", "io_done", "io_ns", "late_failures", "splits_tried",
    "splits_done", "split_ns", "over_page_ns", "violations", "sim_ns", "throughput", "pages_total", "tracking_bytes",
    "broken", "stall_hist", "latency_hist",
)  # fmt: skip
"""The columns that a report reads; a store may have more."""


@dataclass(frozen=True)
class Axis:
    """One axis of the plan: its values in the plan's order, and for every row the position of its value."""

    name: str
    values: tuple[Scalar, ...]
    codes: Array


@dataclass(frozen=True)
class Recording:
    """A recorded input; the digest is that of the file the cells ran on, "" if the store lacks it."""

    path: str
    kind: str
    digest: str


class Results:
    """An opened store. Rows are cells; `good` are those that ran, and measures are only of these.

    known: what functions found of these rows; see `remembered`.
    """

    needed: tuple[str, ...] = NEEDED

    def __init__(self, folder: Path) -> None:
        """Raises InputError for a folder that is no store, holds no results, or is damaged."""
        self.folder = folder
        self.known: dict[Any, Any] = {}
        self.manifest = manifest(folder)
        self._file = folder / "results.parquet"
        schema = self._schema()
        self.axis_names = [name for name in schema.names[: schema.get_field_index("key")]]
        origin = schema.metadata or {}
        self.engine = origin.get(b"ultrafolio.engine", b"").decode()
        self.title = str(self.manifest.get("title") or folder.name)
        self.plan = str(self.manifest.get("plan") or folder / "plan.toml")
        self.document = _document(folder / "plan.toml")
        status = self._read("status")
        self.good = status.to_numpy(zero_copy_only=False) == "ok" if len(status) else np.zeros(0, bool)

    def _schema(self) -> pa.Schema:
        try:
            schema = pq.read_schema(self._file)
        except FileNotFoundError:
            raise InputError(
                f"{self.folder}: no results yet",
                value="results.parquet is missing",
                allowed="a finished sweep",
                cause="the sweep was interrupted",
                then=self._again(self.folder),
            ) from None
        except (pa.ArrowException, OSError) as error:
            raise self._damaged(error) from None
        missing = [name for name in self.needed if name not in schema.names]
        if missing:
            raise InputError(
                f"{self._file}: result columns are missing",
                value=", ".join(missing)[:200],
                allowed="the columns that a report needs",
                cause="the store was made by another version",
                then=self._again("NEW_FOLDER"),
            )
        return schema

    def _damaged(self, error: Exception) -> InputError:
        return InputError(
            f"{self._file}: damaged",
            value=" ".join(str(error).split())[:200],
            allowed="the file as the sweep wrote it",
            cause="it was edited or cut short",
            then=self._again(self.folder),
        )

    def _again(self, folder: Path | str) -> str:
        """Returns the command that makes this store."""
        return f"ultrafolio sweep {self.manifest.get('plan', 'PLAN.toml')} -o {folder}"

    def _read(self, name: str) -> pa.Array:
        """A column of all rows."""
        try:
            column = pq.read_table(self._file, columns=[name], page_checksum_verification=True)[name].combine_chunks()
        except (pa.ArrowException, OSError) as error:
            raise self._damaged(error) from None
        return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column

    def column(self, name: str) -> Array:
        """An integer measure, one value per good row."""
        if name not in self._columns:
            values = self._read(name).filter(pa.array(self.good))
            self._columns[name] = _narrowed(values.cast(pa.int64()).to_numpy(zero_copy_only=False))
        return self._columns[name].astype(np.int64)

    @cached_property
    def _columns(self) -> dict[str, Array]:
        """The columns that were read, each in the narrowest type that holds its values."""
        return {}

    def lists(self, name: str) -> Iterator[tuple[slice, Array, Array]]:
        """A list column in parts of (good rows, length of each row's list, concatenated lists)."""
        seen = done = 0
        try:
            with pq.ParquetFile(self._file, page_checksum_verification=True) as file:
                for batch in file.iter_batches(BATCH, columns=[name]):
                    values = batch[0].filter(pa.array(self.good[seen : seen + len(batch)]))
                    lengths = pc.fill_null(pc.list_value_length(values), 0).to_numpy(zero_copy_only=False)
                    flat = values.flatten().to_numpy(zero_copy_only=False)
                    parts = (part.astype(np.int64, copy=False) for part in (lengths, flat))
                    yield slice(done, done + len(values)), *parts
                    seen, done = seen + len(batch), done + len(values)
        except (pa.ArrowException, OSError) as error:
            raise self._damaged(error) from None

    @cached_property
    def axes(self) -> dict[str, Axis]:
        """The plan's axes over all rows, by name."""
        return {name: self._axis(name) for name in self.axis_names}

    def _axis(self, name: str) -> Axis:
        """Returns an axis of the plan as it is in the rows: numbers ascending, texts in the plan's order."""
        coded = self._read(name).dictionary_encode()
        if pa.types.is_string(coded.type.value_type):
            written = self.document.get("grid", {}).get(name)
            texts = [value for value in written if isinstance(value, str)] if isinstance(written, list) else []
            place = {value: number for number, value in reversed(list(enumerate(texts)))}
            found = coded.dictionary.to_pylist()
            order = np.array(sorted(range(len(found)), key=lambda at: (place.get(found[at], len(texts)), found[at])))
            order = order.astype(np.int64)
        else:
            order = np.argsort(coded.dictionary.to_numpy(zero_copy_only=False), kind="stable")
        renumber = np.empty(len(order), np.int64)
        renumber[order] = np.arange(len(order))
        codes = coded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
        return Axis(name, tuple(coded.dictionary.take(pa.array(order)).to_pylist()), renumber[codes])

    @cached_property
    def policy(self) -> Axis:
        """The axis of policies; a plan without one ran the default."""
        return self.axes.get("policy") or self._constant("policy", AXES["policy"].default)

    @cached_property
    def order(self) -> Axis:
        """The axis of folio orders. Cells whose folio sizes come from a recording are of order MIX, the last."""
        axis = self.axes.get("order") or self._constant("order", AXES["order"].default)
        mixed = self._mixed()
        if not mixed.any():
            return axis
        kept = np.unique(axis.codes[~mixed])
        codes = np.full(len(axis.codes), len(kept), np.int64)
        codes[~mixed] = np.searchsorted(kept, axis.codes[~mixed])
        return Axis("order", (*(axis.values[code] for code in kept), MIX), codes)

    def _constant(self, name: str, value: Scalar) -> Axis:
        """Returns an axis with one value for every row."""
        return Axis(name, (value,), np.zeros(len(self.good), np.int64))

    def _mixed(self) -> Array:
        """Which rows draw their folio sizes from a recording."""
        if "orders" in self.axes:
            axis = self.axes["orders"]
            return np.array([bool(value) for value in axis.values], bool)[axis.codes]
        if "workload" not in self.axes:
            return np.zeros(len(self.good), bool)
        axis = self.axes["workload"]
        mixed = [bool(self.workload(str(value)).get("orders")) for value in axis.values]
        return np.array(mixed, bool)[axis.codes] if mixed else np.zeros(0, bool)

    def workload(self, name: str) -> Mapping[str, Any]:
        """The plan's [workload.NAME] table; empty for the default one."""
        table = self.document.get("workload", {})
        found = table.get(name, {}) if isinstance(table, dict) else {}
        return found if isinstance(found, dict) else {}

    def cell(self, row: int) -> dict[str, Scalar]:
        """The axes' values of a row."""
        return {name: axis.values[int(axis.codes[row])] for name, axis in self.axes.items()}

    def failures(self, limit: int) -> list[tuple[dict[str, Scalar], str, str]]:
        """The first failed cells: axes, key and error."""
        rows = np.flatnonzero(~self.good)[:limit]
        errors = self._read("error").take(pa.array(rows)).to_pylist()
        keys = self._read("key").take(pa.array(rows)).to_pylist()
        return [(self.cell(int(row)), key, error or "") for row, key, error in zip(rows, keys, errors, strict=True)]

    def recordings(self) -> list[Recording]:
        """The recordings the cells ran on, by path; digests where the store's segments tell them."""
        found: dict[tuple[str, str], set[str]] = {}
        axes = [self.document.get(name, {}) for name in ("fixed", "grid")]
        sources = [*self.document.get("workload", {}).values(), *axes]
        for kind in RECORDINGS:
            for source in sources:
                given = source.get(kind, ()) if isinstance(source, dict) else ()
                for path in [given] if isinstance(given, str) else given:
                    if isinstance(path, str) and path:
                        found.setdefault((path, kind), set())
        if found:
            for kind, (path, digest) in _recorded(self.folder):
                found.setdefault((path, kind), set()).add(digest)
        return [Recording(*name, ", ".join(sorted(digests))) for name, digests in sorted(found.items())]


def manifest(folder: Path) -> dict[str, Any]:
    """Returns the content of store.json. Raises InputError for a folder that is no store, or a damaged one."""
    path = folder / "store.json"
    try:
        found = msgspec.json.decode(path.read_bytes())
    except OSError as error:
        raise InputError(
            f"{folder}: not a store",
            value=f"store.json: {error.strerror}",
            allowed="a folder that a sweep made",
            cause="default stores are out/<plan name>",
            then="ultrafolio sweep PLAN.toml",
        ) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        found = error
    if not isinstance(found, dict):
        raise InputError(
            f"{path}: damaged",
            value=str(found)[:200],
            allowed="the file as the sweep wrote it",
            then=f"delete only {path}, then repeat the sweep: it finds its segments again",
        )
    return found


def _document(path: Path) -> dict[str, Any]:
    """The plan as a document, without values that should be tables and are not. It only adds names to the data."""
    try:
        document = toml_tables(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    tables = ("fixed", "grid", "workload", "policy", "costs")
    return {name: value for name, value in document.items() if name not in tables or isinstance(value, dict)}


class _Load(msgspec.Struct):
    touches: list[str] | str = ""
    requests: list[str] | str = ""
    orders: list[str] | str = ""


class _Config(msgspec.Struct):
    workload: _Load


_BEFORE_LOAD = '"workload":'
"""The last name in the text of a configuration, whose names are sorted."""


def _recorded(folder: Path) -> Iterator[tuple[str, tuple[str, str]]]:
    """(kind, (path, digest)) of the recordings in the configurations in the segments; unreadable ones are left out.
    Of the configurations that have the same workload in a batch, one is decoded."""
    decoder = msgspec.json.Decoder(_Config)
    for path in sorted((folder / "segments").glob("*.arrows")):
        try:
            for batch in _configurations(path):
                parts = pc.split_pattern(batch, _BEFORE_LOAD, max_splits=1, reverse=True)
                parts = parts.filter(pc.equal(pc.list_value_length(parts), 2))
                for end in pc.unique(pc.list_element(parts, 1)).to_pylist():
                    load = decoder.decode(f"{{{_BEFORE_LOAD}{end}").workload
                    for kind in RECORDINGS:
                        given = getattr(load, kind)
                        if isinstance(given, list) and len(given) == 2:
                            yield kind, (given[0], given[1])
        except (pa.ArrowException, OSError, KeyError, msgspec.DecodeError):
            continue


def _configurations(path: Path) -> Iterator[pa.Array]:
    """The configurations in a segment, in batches. Raises KeyError for a file without them."""
    with path.open("rb") as file:
        field = pa.ipc.read_schema(pa.PythonFile(Pieces(file, path))).get_field_index("config")
        if field < 0:
            raise KeyError("config")
        file.seek(0)
        options = pa.ipc.IpcReadOptions(included_fields=[field])
        with pa.ipc.open_stream(pa.PythonFile(Pieces(file, path)), options=options) as stream:
            for batch in stream:
                yield batch["config"]


def _narrowed(values: Array) -> Array:
    """The integers in the narrowest type that holds them."""
    low, high = (int(values.min()), int(values.max())) if len(values) else (0, 0)
    kinds = (np.int8, np.int16, np.int32, np.int64)
    return values.astype(next(kind for kind in kinds if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max))


def remembered(function: Callable[P, T]) -> Callable[P, T]:
    """A function of the rows of Results, its first argument, that computes each value once; its other arguments are
    hashable."""

    @wraps(function)
    def once(*arguments: P.args, **named: P.kwargs) -> T:
        known: dict[Any, Any] = arguments[0].known  # type: ignore[attr-defined]
        name = function, arguments[1:], tuple(sorted(named.items()))
        if name not in known:
            known[name] = function(*arguments, **named)
        found: T = known[name]
        return found

    return once
