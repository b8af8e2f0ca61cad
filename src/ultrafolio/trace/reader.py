"""Open a recording, plain or gzip, and make the error for a bad line."""

from __future__ import annotations

import gzip
import io
import os
import shlex
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

from ultrafolio.errors import InputError

Path = str | os.PathLike[str]

GZIP_MAGIC = b"\x1f\x8b"
MAX_LINE = 4096
"""No tool read here prints a longer line; the bound keeps a file without line ends out of memory."""

NO_END = "the last line has no line end: if the recorder was stopped, its last number may be cut"

CLIP = 120
BUFFER = 1 << 18


def bad_line(
    path: Path, lineno: int, text: str | bytes, expected: str, *, cause: str = "", then: str = ""
) -> InputError:
    """The error for a malformed line; ``lineno`` counts from 1.

    The message carries file, line number, the text (clipped to 120 characters, control characters
    escaped) and what was expected. It is returned, not raised.
    """
    what = f"{os.fspath(path)}: line {lineno} is malformed"
    return InputError(what, value=shown(text), allowed=expected, cause=cause, then=then)


def shown(text: str | bytes) -> str:
    """``text`` for a message: one line, clipped to 120 characters, control characters escaped."""
    line = text.decode("ascii", "backslashreplace") if isinstance(text, bytes) else text
    line = line.rstrip("\n")
    if len(line) > CLIP:
        line = line[:CLIP] + "…"
    return line if line.isprintable() else repr(line)[1:-1]


def _unreadable(path: Path, error: Exception) -> InputError:
    """Returns the error for a file that cannot be read, or is damaged gzip."""
    name = os.fspath(path)
    if isinstance(error, (EOFError, zlib.error, gzip.BadGzipFile)):
        return InputError(
            f"{name}: the gzip data is damaged or cut short",
            cause=str(error),
            then=f"gzip -t {quoted(path)}",
        )
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return InputError(f"{name}: cannot be read", cause=reason, then=f"ls -l {quoted(path)}")


@contextmanager
def open_stream(path: Path) -> Iterator[io.BufferedReader]:
    """The bytes of the recording at ``path`` as a buffered binary stream, unpacked if it is gzip.

    gzip is known by its first two bytes, never by the name. Raises InputError for a file that is
    missing, a directory, not permitted or empty (also: a gzip of nothing), and for gzip data found
    damaged or cut short at any later read inside the ``with``.
    """
    try:
        with io.BufferedReader(io.FileIO(os.fspath(path)), BUFFER) as raw:
            packed = raw.peek(2)[:2] == GZIP_MAGIC
            # Both serve as the raw side of a buffer, though their types do not say so.
            unpacked = cast(Any, gzip.GzipFile(fileobj=raw) if packed else raw)
            stream = io.BufferedReader(unpacked, BUFFER)
            if not stream.peek(1):
                raise InputError(f"{os.fspath(path)}: the recording is empty", then="record it again")
            yield stream
    except (EOFError, zlib.error, OSError) as error:
        raise _unreadable(path, error) from error


class Lines:
    """The lines of a text recording, one after the other: ``for lineno, text in Lines(path, stream)``.

    A line ends with LF or CRLF; ``text`` is without either, ``lineno`` counts from 1. The last line may lack
    its end: ``cut`` is then true while it is the current line, and a note says so once it was accepted.
    """

    def __init__(self, path: Path, stream: io.BufferedReader, notes: list[str] | None = None) -> None:
        self.path, self._stream = path, stream
        self.notes: list[str] = [] if notes is None else notes
        self.lineno, self.cut = 0, False

    def __iter__(self) -> Lines:
        return self

    def __next__(self) -> tuple[int, bytes]:
        """InputError for a line of more than MAX_LINE bytes."""
        line = self._stream.readline(MAX_LINE)
        if not line:
            if self.cut:
                self.notes.append(NO_END)
            raise StopIteration
        self.lineno += 1
        if line.endswith(b"\n"):
            return self.lineno, line[:-2] if line.endswith(b"\r\n") else line[:-1]
        if len(line) == MAX_LINE:
            raise bad_line(self.path, self.lineno, line, f"a line end within {MAX_LINE} bytes")
        self.cut = True
        return self.lineno, line.removesuffix(b"\r")

    def bad(self, lineno: int, text: str | bytes, expected: str, *, cause: str = "", then: str = "") -> InputError:
        """``bad_line`` for a line of these; for one without its end, the cause is that the file was cut short."""
        if self.cut and lineno == self.lineno and not cause:
            return cut_line(self.path, lineno, text, expected)
        return bad_line(self.path, lineno, text, expected, cause=cause, then=then)


def cut_line(path: Path, lineno: int, text: str | bytes, expected: str) -> InputError:
    """The error for a malformed last line without a line end."""
    cause = "the file was cut short: its last line has no line end"
    return bad_line(path, lineno, text, expected, cause=cause, then=f"sed -i '$d' {quoted(path)}")


def quoted(path: Path) -> str:
    """``path`` quoted for a shell."""
    return shlex.quote(os.fspath(path))


def decimal(text: bytes, bits: int = 64) -> int | None:
    """The unsigned number ``text`` spells in decimal digits, or None if it does not fit ``bits``."""
    if not text.isdigit() or len(text) > 20:
        return None
    value = int(text)
    return value if value < 1 << bits else None
