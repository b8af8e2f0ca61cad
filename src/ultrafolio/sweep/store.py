"""A store: the folder in which a sweep keeps every result once, whatever happens to the sweep.

::

    store.json         what the store is for: the plan's digest and path, the result columns
    plan.toml          the plan's text
    segments/*.arrows  finished cells, appended in batches by one writer each, never changed afterwards
    results.parquet    the merge of a finished sweep (see ``results``)
    timings.parquet    how long the cells took on this machine
    lock               held while a sweep writes

A segment is an Arrow IPC stream. A writer that is killed leaves at worst half a batch at its end, which readers
take as the end of the stream; nothing before it can be damaged, because nothing is ever rewritten in place.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import BufferedWriter
from pathlib import Path
from typing import Any, Self

import msgspec
import pyarrow as pa

from ultrafolio.errors import InputError

from .plan import Plan

FORMAT = 1
OK, FAILED = "ok", "failed"
ARROW = {"int": pa.int64(), "str": pa.string(), "ints": pa.list_(pa.int64())}
_OWN_FILES = {"lock", "plan.toml", "segments", "store.json.tmp", "plan.toml.tmp"}


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What store.json says."""

    format: int
    title: str
    plan: str
    digest: str
    columns: dict[str, str]
    created_by: str


@dataclass(frozen=True)
class Row:
    """One finished cell as a segment holds it; ``result`` is empty when the cell failed."""

    index: int
    key: str
    status: str
    error: str | None
    config: str
    ns: int
    result: Mapping[str, Any]


def segment_schema(columns: Mapping[str, str], writer: str, engine: str) -> pa.Schema:
    """The schema of one writer's segment; it carries who wrote it and under which engine digest."""
    fields = [
        ("index", pa.int64()), ("key", pa.string()), ("status", pa.string()), ("error", pa.string()),
        ("config", pa.string()), ("ns", pa.int64()),
        *((f"={name}", ARROW[kind]) for name, kind in columns.items()),  # "=" keeps the names apart
    ]  # fmt: skip
    return pa.schema(fields, metadata={"writer": writer, "engine": engine})


class Segment:
    """An append-only file of finished cells with one writer; a context manager that ends the file.

    The file appears with the first batch.
    """

    def __init__(self, folder: Path, run: int, writer: str, columns: Mapping[str, str], engine: str) -> None:
        self.path = folder / "segments" / f"{writer}-{run:04}.arrows"
        self._columns = columns
        self._schema = segment_schema(columns, writer, engine)
        self._file: BufferedWriter | None = None
        self._stream: pa.RecordBatchStreamWriter = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            try:
                self._stream.close()
                self._file.close()
            except OSError as error:
                raise self._lost(error) from None

    def append(self, rows: Sequence[Row]) -> None:
        """Store the rows as one batch; on return they survive a power cut. Raises InputError if they cannot."""
        batch = self._batch(rows)
        try:
            if self._file is None:
                self._file = open(self.path, "xb")  # noqa: SIM115 (open until the segment ends)
                options = pa.ipc.IpcWriteOptions(compression="zstd", use_threads=False)
                self._stream = pa.ipc.new_stream(self._file, self._schema, options=options)
                sync_folder(self.path.parent)
            self._stream.write_batch(batch)
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise self._lost(error) from None

    def _lost(self, error: OSError) -> InputError:
        """Give the file up as it is: its whole batches count, and nothing is written behind a broken one."""
        if self._file is not None:
            with suppress(OSError):
                self._file.close()
            self._file = None
        return unwritable(self.path, error)

    def _batch(self, rows: Sequence[Row]) -> pa.RecordBatch:
        own = [[getattr(row, name) for row in rows] for name in self._schema.names[: -len(self._columns) or None]]
        results = [[row.result.get(name) for row in rows] for name in self._columns]
        return pa.RecordBatch.from_arrays(
            [pa.array(values, field.type) for values, field in zip([*own, *results], self._schema, strict=True)],
            schema=self._schema,
        )


@dataclass(frozen=True)
class Store:
    """An opened store. ``open_store`` opens one, ``make_store`` also creates it."""

    folder: Path
    manifest: Manifest

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the store for writing. Raises InputError when another sweep has it."""
        # A POSIX lock: forked workers do not inherit it, so it ends with the sweep however that dies.
        try:
            handle = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise unwritable(self.folder / "lock", error) from None
        try:
            try:
                fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise InputError(
                    f"{self.folder}: another sweep is writing this store",
                    value=f"process {os.read(handle, 20).decode()}", allowed="one sweep per store at a time",
                    then=f"ultrafolio sweep status {self.folder}, or another store: -o FOLDER",
                ) from None  # fmt: skip
            with suppress(OSError):  # the number is for the message above; a full disk is told where it hurts
                os.ftruncate(handle, 0)
                os.write(handle, str(os.getpid()).encode())
            yield
        finally:
            os.close(handle)

    def segments(self) -> list[Path]:
        """The segments, oldest run first."""
        found = (self.folder / "segments").glob("*.arrows")
        return sorted(found, key=lambda path: (int(path.stem.rpartition("-")[2]), path.stem))

    def next_run(self) -> int:
        """A run number that no segment has yet."""
        return max((int(path.stem.rpartition("-")[2]) for path in self.segments()), default=0) + 1

    def batches(self, names: Sequence[str], cut: list[Path]) -> Iterator[pa.RecordBatch]:
        """The stored batches with the columns ``names`` (in schema order), oldest first.

        The schema's metadata carry ``writer`` and ``engine``. Segments that end in the middle of a batch
        are added to ``cut`` once they are read.
        """
        for path in self.segments():
            if not (yield from _read(path, names)):
                cut.append(path)

    def keys(self, cut: list[Path]) -> dict[str, bool]:
        """Every stored key, and whether its newest row is a failure."""
        stored: dict[str, bool] = {}
        for batch in self.batches(("key", "status"), cut):
            failed = (status == FAILED for status in batch["status"].to_pylist())
            stored.update(zip(batch["key"].to_pylist(), failed, strict=True))
        return stored


def _read(path: Path, names: Sequence[str]) -> Generator[pa.RecordBatch, None, bool]:
    """The batches of a segment; the generator's value is whether the file ends as it should."""
    try:
        with pa.OSFile(str(path)) as file:
            schema = pa.ipc.read_schema(file)
            file.seek(0)
            fields = [schema.get_field_index(name) for name in names]
            options = pa.ipc.IpcReadOptions(included_fields=fields, use_threads=False)
            with pa.ipc.open_stream(file, options=options) as stream:
                for batch in stream:
                    batch.validate(full=True)
                    yield batch
    except (pa.ArrowInvalid, OSError, EOFError):
        return False
    return True


def make_store(folder: Path, plan: Plan, columns: Mapping[str, str]) -> Store:
    """Open the plan's store in ``folder``, or create it there. Raises InputError when the folder is taken."""
    from ultrafolio import __version__

    manifest = Manifest(FORMAT, plan.title, str(plan.path.resolve()), plan.digest, dict(columns), __version__)
    if (folder / "store.json").exists():
        store = open_store(folder)
        _check_same(store, manifest)
        if store.manifest.plan == manifest.plan and store.manifest.title == manifest.title:
            return store
    elif folder.exists() and not (folder.is_dir() and {path.name for path in folder.iterdir()} <= _OWN_FILES):
        raise InputError(
            f"{folder}: not a store", value="it holds other files", allowed="a store, or a folder to be made",
            then="choose another folder: -o FOLDER",
        )  # fmt: skip
    try:
        (folder / "segments").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(folder, error) from None
    replace(folder / "plan.toml", plan.text.encode())
    replace(folder / "store.json", msgspec.json.format(msgspec.json.encode(manifest)))
    return Store(folder, manifest)


def open_store(folder: Path) -> Store:
    """Open an existing store. Raises InputError when there is none, or none that can be read."""
    path = folder / "store.json"
    try:
        manifest = msgspec.json.decode(path.read_bytes(), type=Manifest)
    except OSError as error:
        raise InputError(
            f"{folder}: not a store", value=f"store.json: {error.strerror}", allowed="a folder that a sweep made",
            cause="default stores are out/<plan name>", then="ultrafolio sweep PLAN.toml",
        ) from None  # fmt: skip
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path}: damaged", value=str(error), allowed="the file as the sweep wrote it",
            cause="it was edited, or comes from another version",
            then=f"delete only {path}, then repeat the sweep: it finds its segments again",
        ) from None  # fmt: skip
    if manifest.format != FORMAT:
        raise InputError(
            f"{path}: another format", value=manifest.format, allowed=str(FORMAT),
            cause=f"the store was made by version {manifest.created_by}", then="a new store: -o FOLDER",
        )  # fmt: skip
    return Store(folder, manifest)


def _check_same(store: Store, wanted: Manifest) -> None:
    found = store.manifest
    if found.digest != wanted.digest:
        raise InputError(
            f"{store.folder}: the store of another plan", value=f"{found.title!r}, from {found.plan}",
            allowed=f"{wanted.title!r}, from {wanted.plan}",
            cause="the plan was changed since" if found.plan == wanted.plan else "",
            then=f"diff {store.folder}/plan.toml {wanted.plan}, or a new store: -o FOLDER",
        )  # fmt: skip
    if found.columns != wanted.columns:
        changed = sorted(set(found.columns.items()) ^ set(wanted.columns.items()))
        raise InputError(
            f"{store.folder}: the store has other result columns",
            value=", ".join(sorted({name for name, _ in changed})) or "in another order",
            allowed="the columns of this version", cause=f"it was made by version {found.created_by}",
            then="a new store: -o FOLDER",
        )  # fmt: skip


def unwritable(path: Path, error: OSError) -> InputError:
    """The error for a store that cannot be written to, a full disk above all."""
    return InputError(
        f"{path}: cannot be written", value=error.strerror or str(error), allowed="a folder with free space",
        cause="what is stored already is safe", then="make room, then repeat the same command: it resumes",
    )  # fmt: skip


def replace(path: Path, content: bytes) -> None:
    """Put ``content`` at ``path`` so that a reader, or a crash, sees the old file or the new one, whole."""
    with replacing(path) as partial:
        partial.write_bytes(content)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path to write to; on a clean exit it takes the place of ``path``, durably."""
    partial = path.with_name(path.name + ".tmp")
    try:
        yield partial
        with open(partial, "rb") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
        sync_folder(path.parent)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise unwritable(path, error) from None


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
