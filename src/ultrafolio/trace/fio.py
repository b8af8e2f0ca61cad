"""I/O requests from fio's ``write_iolog`` files, version 2 and 3.

Source of the format: "Trace file format" in fio's HOWTO and read_iolog() in its iolog.c. After the line
``fio version N iolog`` each line is ``[time] file action [offset length]``; version 3 adds the time.

Times are those of fio 3.33's own replay (read_iolog_get() in iolog.c, measured with a latency log), which differ
from the HOWTO: the offset of a ``wait`` is milliseconds since fio started, not microseconds since the last wait; a
time that goes back is no wait; a ``wait`` of version 3 is ignored, and the time on its line passes without waiting.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from ultrafolio.errors import InputError
from ultrafolio.nouns import plural
from ultrafolio.trace.importer import (
    MAX_ROWS,
    REQUEST,
    U64,
    Format,
    Head,
    Kind,
    Only,
    Rows,
    batched,
    gathered,
)
from ultrafolio.trace.reader import Lines, Path, decimal, open_stream, quoted

BATCH = 65536

HEADERS = {b"fio version 2 iolog": 2, b"fio version 3 iolog": 3}
HEADER_EXPECTED = "'fio version 2 iolog' or 'fio version 3 iolog'"
FILE_ACTIONS = (b"add", b"open", b"close")
NO_DATA = (b"sync", b"datasync", b"sync_file_range", b"trim")

Row = tuple[int, int, int, int]


class _Log:
    """The state of the reader: the version, the clock, and the files added so far."""

    def __init__(self, source: Lines, version: int) -> None:
        self.source, self.version = source, version
        self.now, self.last = 0, 0
        self.backwards = self.ignored = 0
        self.files: set[bytes] = set()
        time = "time " if version == 3 else ""
        wait = "" if version == 3 else ", wait (offset = milliseconds since the start)"
        self.form = (
            f"'{time}file add|open|close' or '{time}file action offset length' with action one of "
            f"read, write, sync, datasync, sync_file_range, trim{wait}; numbers in decimal"
        )

    def row(self, lineno: int, text: bytes) -> Row | None:
        """The request on this line, or None for an action that moves no data."""
        if text in HEADERS:
            raise self._second_job(lineno, text)
        fields = text.split(b" ")
        waits = len(fields) == 3 + (self.version == 3) + 1 and fields[-3] == b"wait"
        if self.version == 3:
            self._clock(lineno, text, fields.pop(0), waits)
        if len(fields) == 2 and fields[0] and fields[1] in FILE_ACTIONS:
            self._file(lineno, text, fields[0], fields[1])
            return None
        if len(fields) != 4 or not fields[0]:
            raise self.source.bad(lineno, text, self.form)
        name, action, offset, length = fields[0], fields[1], decimal(fields[2]), decimal(fields[3])
        if offset is None or length is None:
            raise self.source.bad(lineno, text, f"offset and length below 2^64: {self.form}")
        if waits:
            self._wait(lineno, text, offset)
            return None
        self._known(lineno, text, name)
        if action in NO_DATA:
            return None
        if action not in (b"read", b"write"):
            raise self.source.bad(lineno, text, self.form)
        if not 1 <= length < 1 << 32 or offset + length > U64:
            raise self.source.bad(lineno, text, "a length of 1 to 2^32-1 that ends within 2^64 bytes")
        return self.now, int(action == b"write"), offset, length

    def _clock(self, lineno: int, text: bytes, field: bytes, waits: bool) -> None:
        """Advance the clock to a line's time (version 3). A wait does not advance it; a time that goes back counts as
        0."""
        time = decimal(field)
        if time is None:
            raise self.source.bad(lineno, text, self.form)
        self.backwards += time < self.last
        if not waits:
            self.now += max(0, time - self.last)
        if self.now >= U64:
            raise self.source.bad(lineno, text, "times that add up to less than 2^64 microseconds")
        self.last = time

    def _wait(self, lineno: int, text: bytes, until_ms: int) -> None:
        """Advance the clock to the end of a wait (version 2). Version 3 has times of its own, and its waits are counted
        only."""
        if self.version == 3:
            self.ignored += 1
        elif until_ms * 1000 >= U64:
            raise self.source.bad(lineno, text, "a wait that ends within 2^64 microseconds")
        else:
            self.now = max(self.now, until_ms * 1000)

    def _file(self, lineno: int, text: bytes, name: bytes, action: bytes) -> None:
        """Note a file that is added. Raises InputError for another action on a file that was not."""
        if action == b"add":
            self.files.add(name)
        else:
            self._known(lineno, text, name)

    def _known(self, lineno: int, text: bytes, name: bytes) -> None:
        """Raise InputError for a file that no line added."""
        if name not in self.files:
            raise self.source.bad(lineno, text, "a file that an earlier 'add' line names")

    def _second_job(self, lineno: int, text: bytes) -> InputError:
        """Returns the error for a second header."""
        return self.source.bad(
            lineno,
            text,
            "one header, in line 1",
            cause="several jobs, or several runs, wrote this log: fio appends, and each clock starts at 0",
            then=f"split it at each header: csplit -z -f job. {quoted(self.source.path)} '/^fio version/' '{{*}}'; "
            "or record again with a write_iolog of its own in each job",
        )

    def notes(self) -> list[str]:
        """Notes on lines whose meaning differs from their text."""
        found = []
        if self.backwards:
            found.append(f"the time goes back {plural(self.backwards, 'time')}: no wait there, as in fio's own replay")
        if self.ignored:
            found.append(f"ignored, as fio does: {plural(self.ignored, 'wait line')}; version 3 has times instead")
        return found


def requests(path: Path, notes: list[str] | None = None) -> Iterator[Rows]:
    """The reads and writes of a fio iolog, in order, as batches of 1 to 65536 rows of ``REQUEST``.

    time_us  version 3: the recorded time less what it went back, since the start of the job; version 2: the
             latest ``wait`` so far (0 without any). Never decreasing.
    write    1 for a write, 0 for a read
    offset   bytes from the start of the file; requests of several files are not told apart
    length   bytes, at least 1

    ``add``, ``open``, ``close``, ``sync``, ``datasync``, ``sync_file_range`` and ``trim`` are checked
    and yield nothing. Memory: one batch. Raises InputError for a malformed line, a file used before it is added, a
    second header (several jobs in one file), a file cut in a line, and a log without any read or write; batches
    before that line have been yielded by then (``load_requests`` is all-or-nothing).
    """
    empty = True
    notes = [] if notes is None else notes
    with open_stream(path) as stream:
        source = Lines(path, stream, notes)
        lineno, header = next(source)
        if header not in HEADERS:
            raise source.bad(lineno, header, HEADER_EXPECTED)
        log = _Log(source, HEADERS[header])
        rows = (row for lineno, text in source if (row := log.row(lineno, text)) is not None)
        for batch in batched(rows, REQUEST, BATCH):
            empty = False
            yield batch
    if empty:
        raise InputError(f"{os.fspath(path)}: the log holds no read and no write", allowed=log.form)
    notes += log.notes()


def _sniff(head: Head) -> bool:
    """Whether the file begins like an iolog."""
    return head.data.startswith(b"fio version ")


def _read(path: Path, kind: Kind, only: Only, notes: list[str]) -> Rows:
    return gathered(path, requests(path, notes))


IMPORTER = Format(
    "fio", "fio --write_iolog=FILE, version 2 or 3", ("requests",), _sniff, _read, bounds={"rows": MAX_ROWS}
)
