"""I/O requests from fio's ``write_iolog`` files, version 2 and 3.

Source of the format: "Trace file format" in fio's HOWTO and read_iolog() in its iolog.c. After the line
``fio version N iolog`` each line is ``[time] file action [offset length]``; version 3 adds the time.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from ultrafolio.errors import InputError
from ultrafolio.trace.reader import Path, bad_line, decimal, lines, open_stream

REQUEST = np.dtype([("time_us", "<u8"), ("write", "u1"), ("offset", "<u8"), ("length", "<u4")])
BATCH = 65536

HEADERS = {b"fio version 2 iolog": 2, b"fio version 3 iolog": 3}
HEADER_EXPECTED = "'fio version 2 iolog' or 'fio version 3 iolog'"
FILE_ACTIONS = (b"add", b"open", b"close")
NO_DATA = (b"sync", b"datasync", b"sync_file_range", b"trim")
U64 = 1 << 64

Row = tuple[int, int, int, int]


class _Log:
    """What a line may depend on: the version, the clock, and the files added so far."""

    def __init__(self, path: Path, version: int) -> None:
        self.path, self.version = path, version
        self.now = 0
        self.files: set[bytes] = set()
        time = "time " if version == 3 else ""
        wait = "" if version == 3 else ", wait (offset = microseconds)"
        self.form = (
            f"'{time}file add|open|close' or '{time}file action offset length' with action one of "
            f"read, write, sync, datasync, sync_file_range, trim{wait}; numbers in decimal"
        )

    def row(self, lineno: int, text: bytes) -> Row | None:
        """The request on this line, or None for an action that moves no data."""
        fields = text.split(b" ")
        if self.version == 3:
            self._clock(lineno, text, fields.pop(0))
        if len(fields) == 2 and fields[0] and fields[1] in FILE_ACTIONS:
            self._file(lineno, text, fields[0], fields[1])
            return None
        if len(fields) != 4 or not fields[0]:
            raise bad_line(self.path, lineno, text, self.form)
        name, action, offset, length = fields[0], fields[1], decimal(fields[2]), decimal(fields[3])
        if offset is None or length is None:
            raise bad_line(self.path, lineno, text, f"offset and length below 2^64: {self.form}")
        if action == b"wait" and self.version == 2:
            self.now += offset
            if self.now >= U64:
                raise bad_line(self.path, lineno, text, "waits that add up to less than 2^64 microseconds")
            return None
        self._known(lineno, text, name)
        if action in NO_DATA:
            return None
        if action not in (b"read", b"write"):
            raise bad_line(self.path, lineno, text, self.form)
        if not 1 <= length < 1 << 32 or offset + length > U64:
            raise bad_line(self.path, lineno, text, "a length of 1 to 2^32-1 that ends within 2^64 bytes")
        return self.now, int(action == b"write"), offset, length

    def _clock(self, lineno: int, text: bytes, field: bytes) -> None:
        time = decimal(field)
        if time is None:
            raise bad_line(self.path, lineno, text, self.form)
        if time < self.now:
            raise bad_line(self.path, lineno, text, f"a time of at least {self.now}, that of the line before")
        self.now = time

    def _file(self, lineno: int, text: bytes, name: bytes, action: bytes) -> None:
        if action == b"add":
            self.files.add(name)
        else:
            self._known(lineno, text, name)

    def _known(self, lineno: int, text: bytes, name: bytes) -> None:
        if name not in self.files:
            raise bad_line(self.path, lineno, text, "a file that an earlier 'add' line names")


def requests(path: Path) -> Iterator[npt.NDArray[np.void]]:
    """The reads and writes of a fio iolog, in order, as batches of 1 to 65536 rows of ``REQUEST``.

    time_us  version 3: microseconds since the start of the job, never decreasing; version 2: the sum
             of the ``wait`` entries so far (0 without any)
    write    1 for a write, 0 for a read
    offset   bytes from the start of the file; requests of several files are not told apart
    length   bytes, at least 1

    ``add``, ``open``, ``close``, ``sync``, ``datasync``, ``sync_file_range`` and ``trim`` are checked
    and yield nothing. Memory: one batch. Raises InputError for a malformed line, a time that goes back,
    a file used before it is added, a file cut in a line, and a log without any read or write; batches
    before that line have been yielded by then (``load_requests`` is all-or-nothing).
    """
    batch: list[Row] = []
    empty = True
    with open_stream(path) as stream:
        numbered = lines(path, stream)
        lineno, header = next(numbered)
        if header not in HEADERS:
            raise bad_line(path, lineno, header, HEADER_EXPECTED)
        log = _Log(path, HEADERS[header])
        for lineno, text in numbered:
            row = log.row(lineno, text)
            if row is None:
                continue
            batch.append(row)
            if len(batch) == BATCH:
                yield np.array(batch, REQUEST)
                batch, empty = [], False
    if batch:
        yield np.array(batch, REQUEST)
    elif empty:
        raise InputError(f"{path}: the log holds no read and no write", allowed=log.form)
