"""Segments: append-only files of finished cells, one writer each, readable after the writer was killed.

A segment is an Arrow IPC stream in pieces, one a batch, each with a checksum (ultrafolio.checksums). A killed writer
leaves at most half a batch at the end of the file, which readers take as the end of the stream; earlier bytes are
never rewritten. Any other change fails the checksum before the piece is decoded.
"""

from __future__ import annotations

import io
import os
from collections.abc import Generator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from io import BufferedWriter
from pathlib import Path
from typing import Any, Final, Literal, Self

import pyarrow as pa

from ultrafolio.checksums import Pieces, piece
from ultrafolio.durable import sync_folder, unwritable
from ultrafolio.errors import InputError

Status = Literal["ok", "failed"]
OK: Final = "ok"
FAILED: Final = "failed"
ARROW = {"int": pa.int64(), "str": pa.string(), "ints": pa.list_(pa.int64())}


@dataclass(frozen=True)
class Row:
    """One finished cell as a segment holds it; ``result`` is empty when the cell failed."""

    index: int
    key: str
    status: Status
    error: str | None
    config: str
    ns: int
    result: Mapping[str, Any]


def segment_schema(columns: Mapping[str, str], writer: str, engine: str) -> pa.Schema:
    """The schema of one writer's segment; its metadata hold the writer and the engine digest."""
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
        self._sink = io.BytesIO()
        self._stream: pa.RecordBatchStreamWriter = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            try:
                self._file.close()
            except OSError as error:
                raise self._lost(error) from None

    def append(self, rows: Sequence[Row]) -> None:
        """Store the rows as one batch; on return they are on disk (fsync). Raises InputError if that fails."""
        batch = self.batch(rows)
        try:
            if self._file is None:
                self._file = open(self.path, "xb")  # noqa: SIM115 (open until the segment ends)
                options = pa.ipc.IpcWriteOptions(compression="zstd", use_threads=False)
                self._stream = pa.ipc.new_stream(self._sink, self._schema, options=options)
                sync_folder(self.path.parent)
            self._stream.write_batch(batch)
            self._file.write(piece(self._sink.getvalue()))
            self._file.flush()
            self._sink.seek(0)
            self._sink.truncate()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise self._lost(error) from None

    def _lost(self, error: OSError) -> InputError:
        """Close the file after a failed write: whole batches stay valid, nothing is written after a broken one.
        Returns the error to raise."""
        if self._file is not None:
            with suppress(OSError):
                self._file.close()
            self._file = None
        return unwritable(self.path, error)

    def batch(self, rows: Sequence[Row]) -> pa.RecordBatch:
        """The rows as one batch in the segment's schema."""
        own = self._schema.names[: -len(self._columns) or None]
        values = [
            *([getattr(row, name) for row in rows] for name in own),
            *([row.result.get(name) for row in rows] for name in self._columns),
        ]
        arrays = [pa.array(column, field.type) for column, field in zip(values, self._schema, strict=True)]
        return pa.RecordBatch.from_arrays(arrays, schema=self._schema)


def read_segment(path: Path, names: Sequence[str]) -> Generator[pa.RecordBatch, None, bool]:
    """The batches of a segment; the generator returns whether the file ends with a whole batch.

    Raises InputError for a segment that changed since it was written.
    """
    with path.open("rb") as file:
        pieces = Pieces(file, path)
        try:
            schema = pa.ipc.read_schema(pa.PythonFile(pieces))
        except (pa.ArrowInvalid, EOFError):
            # the only piece is cut
            return False
        fields = [schema.get_field_index(name) for name in names]
        options = pa.ipc.IpcReadOptions(included_fields=fields, use_threads=False)
        file.seek(0)
        pieces = Pieces(file, path)
        with pa.ipc.open_stream(pa.PythonFile(pieces), options=options) as stream:
            yield from stream
    return not pieces.cut
