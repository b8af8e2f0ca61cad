"""A store: the folder in which a sweep keeps each result once. A killed sweep leaves it readable.

::

    store.json         the manifest: the plan's digest and path, the result columns
    plan.toml          the plan's text
    segments/*.arrows  finished cells, appended in batches by one writer each, never changed afterwards
    results.parquet    the merge of a finished sweep (see ``results``)
    timings.parquet    the computing time of each cell, in ns of host time
    lock               held while a sweep writes
    job.json           the sweep's Celery job while it runs (see ``distributed.ticket``)
    workers.log        the output of workers that the sweep started
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pyarrow as pa

from ultrafolio.durable import replace, unwritable
from ultrafolio.errors import InputError

from .plan import Plan
from .segment import FAILED, read_segment, segment_schema

FORMAT = 2


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of store.json. ``format``: version of the store's layout."""

    format: int
    title: str
    plan: str
    digest: str
    columns: dict[str, str]
    created_by: str


@dataclass(frozen=True)
class Store:
    """An opened store. ``open_store`` opens one, ``make_store`` also creates it."""

    folder: Path
    manifest: Manifest

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Lock the store for writing. Raises InputError when another sweep holds the lock."""
        # A POSIX lock: forked workers do not inherit it, so the kernel releases it when the sweep's process ends.
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
                    value=f"process {os.read(handle, 20).decode()}",
                    allowed="one sweep per store at a time",
                    then=f"ultrafolio sweep status {self.folder}, or another store: -o FOLDER",
                ) from None
            with suppress(OSError):  # only for the message above; a full disk is reported when a batch is stored
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
        """The next unused run number."""
        return max((int(path.stem.rpartition("-")[2]) for path in self.segments()), default=0) + 1

    def batches(self, names: Sequence[str], cut: list[Path]) -> Iterator[pa.RecordBatch]:
        """The stored batches with the columns ``names`` (in schema order), oldest first.

        The schema's metadata hold ``writer`` and ``engine``. Segments that end in the middle of a batch
        are appended to ``cut`` after they are read. Raises InputError for a segment that changed since it was written.
        """
        for path in self.segments():
            if not (yield from read_segment(path, names)):
                cut.append(path)

    def rows(self, names: Sequence[str], cut: list[Path]) -> pa.Table:
        """All stored rows with the columns ``names`` (in schema order), oldest first. ``cut``: see ``batches``."""
        batches = [batch.replace_schema_metadata(None) for batch in self.batches(names, cut)]
        return pa.Table.from_batches(batches, self.schema(names))

    def schema(self, names: Sequence[str]) -> pa.Schema:
        """The schema of these columns of the segments, without metadata."""
        whole = segment_schema(self.manifest.columns, "", "")
        return pa.schema([whole.field(name) for name in names])

    def keys(self, cut: list[Path]) -> dict[str, bool]:
        """Each stored key -> whether its newest row is a failure. ``cut``: see ``batches``."""
        stored: dict[str, bool] = {}
        for batch in self.batches(("key", "status"), cut):
            failed = (status == FAILED for status in batch["status"].to_pylist())
            stored.update(zip(batch["key"].to_pylist(), failed, strict=True))
        return stored


def make_store(folder: Path, plan: Plan, columns: Mapping[str, str]) -> Store:
    """Open the plan's store in ``folder``, or create it there. Raises InputError when the folder is taken."""
    from ultrafolio.version import __version__

    manifest = Manifest(FORMAT, plan.title, str(plan.path.resolve()), plan.digest, dict(columns), __version__)
    if (folder / "store.json").exists():
        store = open_store(folder)
        _check_same(store, manifest)
        if store.manifest.plan == manifest.plan and store.manifest.title == manifest.title:
            return store
    elif folder.exists() and not _may_become_a_store(folder):
        raise InputError(
            f"{folder}: not a store",
            value="it holds other files",
            allowed="a store, or a folder to be made",
            then="choose another folder: -o FOLDER",
        )
    try:
        (folder / "segments").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(folder, error) from None
    replace(folder / "plan.toml", plan.text.encode())
    replace(folder / "store.json", msgspec.json.format(msgspec.json.encode(manifest)))
    return Store(folder, manifest)


def _may_become_a_store(folder: Path) -> bool:
    """Whether the folder is empty, or a store without a manifest."""
    return folder.is_dir() and ((folder / "segments").is_dir() or not any(folder.iterdir()))


def open_store(folder: Path) -> Store:
    """Open an existing store. Raises InputError when it is missing, damaged or of another format."""
    path = folder / "store.json"
    try:
        manifest = msgspec.json.decode(path.read_bytes(), type=Manifest)
    except OSError as error:
        raise InputError(
            f"{folder}: not a store",
            value=f"store.json: {error.strerror}",
            allowed="a folder that a sweep made",
            cause="default stores are out/<plan name>",
            then="ultrafolio sweep PLAN.toml",
        ) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path}: damaged",
            value=str(error),
            allowed="the file as the sweep wrote it",
            cause="it was edited, or comes from another version",
            then=f"delete only {path}, then repeat the sweep: it finds its segments again",
        ) from None
    if manifest.format != FORMAT:
        raise InputError(
            f"{path}: another format",
            value=manifest.format,
            allowed=str(FORMAT),
            cause=f"the store was made by version {manifest.created_by}",
            then="a new store: -o FOLDER",
        )
    return Store(folder, manifest)


def _check_same(store: Store, wanted: Manifest) -> None:
    """Raise InputError if a store has another plan or other columns than is wanted."""
    found = store.manifest
    if found.digest != wanted.digest:
        raise InputError(
            f"{store.folder}: the store of another plan",
            value=f"{found.title!r}, from {found.plan}",
            allowed=f"{wanted.title!r}, from {wanted.plan}",
            cause="the plan was changed since" if found.plan == wanted.plan else "",
            then=f"diff {store.folder}/plan.toml {wanted.plan}, or a new store: -o FOLDER",
        )
    if found.columns != wanted.columns:
        changed = sorted(set(found.columns.items()) ^ set(wanted.columns.items()))
        raise InputError(
            f"{store.folder}: the store has other result columns",
            value=", ".join(sorted({name for name, _ in changed})) or "in another order",
            allowed="the columns of this version",
            cause=f"it was made by version {found.created_by}",
            then="a new store: -o FOLDER",
        )
