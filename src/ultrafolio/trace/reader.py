"""Opening a recording: plain or gzip, and the one way to say that a line of it is wrong."""

from __future__ import annotations

import gzip
import io
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

from ultrafolio.errors import InputError

Path = str | os.PathLike[str]

GZIP_MAGIC = b"\x1f\x8b"
MAX_LINE = 4096
"""No tool read here prints a longer line; the bound keeps a file without line ends out of memory."""

CLIP = 120
BUFFER = 1 << 18


def bad_line(path: Path, lineno: int, text: str | bytes, expected: str) -> InputError:
    """The error for a line that its format does not have; ``lineno`` counts from 1.

    The message carries file, line number, the text (clipped to 120 characters, control characters
    escaped) and what was expected. It is returned, not raised.
    """
    shown = text.decode("ascii", "backslashreplace") if isinstance(text, bytes) else text
    shown = shown.rstrip("\n")
    if len(shown) > CLIP:
        shown = shown[:CLIP] + "…"
    if not shown.isprintable():
        shown = repr(shown)[1:-1]
    what = f"{os.fspath(path)}: line {lineno} is malformed"
    return InputError(what, value=shown, allowed=expected)


def _unreadable(path: Path, error: Exception) -> InputError:
    name = os.fspath(path)
    if isinstance(error, (EOFError, zlib.error, gzip.BadGzipFile)):
        return InputError(
            f"{name}: the gzip data is damaged or cut short",
            cause=str(error),
            then=f"gzip -t {name}",
        )
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return InputError(f"{name}: cannot be read", cause=reason, then=f"ls -l {name}")


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


def lines(path: Path, stream: io.BufferedReader, *, start: int = 1) -> Iterator[tuple[int, bytes]]:
    """(line number, line without its line end) for each line of ``stream``, the first being ``start``.

    A last line without a line end is an error: every tool read here ends its lines, so the file was
    cut, and a number cut in the middle would otherwise be taken for a smaller one.
    """
    for lineno, line in enumerate(iter(lambda: stream.readline(MAX_LINE), b""), start):
        if not line.endswith(b"\n"):
            expected = f"a line end within {MAX_LINE} bytes; none at the end means the file was cut short"
            raise bad_line(path, lineno, line, expected)
        yield lineno, line[:-1]


def decimal(text: bytes, bits: int = 64) -> int | None:
    """The unsigned number ``text`` spells in decimal digits, or None if it does not fit ``bits``."""
    if not text.isdigit() or len(text) > 20:
        return None
    value = int(text)
    return value if value < 1 << bits else None
