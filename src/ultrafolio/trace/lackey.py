"""Page touches from ``valgrind --tool=lackey --trace-mem=yes``.

The tool prints one line an access: three characters (``I  `` instruction fetch, `` L `` load, `` S ``
store, `` M `` modify), the address in hex, a comma, the size in bytes. Source of the format:
lackey/lk_main.c in valgrind. Lines of valgrind itself start with ``==`` or ``--``.
"""

from __future__ import annotations

from collections.abc import Iterator
from io import BufferedReader

import numpy as np
import numpy.typing as npt

from ultrafolio.errors import InputError
from ultrafolio.trace.reader import MAX_LINE, Path, bad_line, open_stream

TOUCH = np.dtype([("page", "<u8"), ("write", "u1")])
BATCH = 65536
CHUNK = 1 << 20
PAGE_SHIFT = 12

EXPECTED = (
    "'I  addr,size', ' L addr,size', ' S addr,size' or ' M addr,size': addr 8 to 16 lower-case hex "
    "digits, size 1..4096; or a line of valgrind's own, starting with == or --"
)

Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]
Mask = npt.NDArray[np.bool_]

_NOT_A_DIGIT = 255
_HEX = np.full(256, _NOT_A_DIGIT, np.uint8)
_HEX[list(b"0123456789abcdef")] = range(16)
_DECIMAL = np.full(256, _NOT_A_DIGIT, np.uint8)
_DECIMAL[list(b"0123456789")] = range(10)
_OTHER, _OWN, _READ, _WRITE = range(4)


def touches(path: Path, *, limit: int | None = None) -> Iterator[npt.NDArray[np.void]]:
    """The page touches of a lackey recording, in order, as batches of 1 to 65536 rows of ``TOUCH``.

    page   address >> 12
    write  1 for a store or a modify, 0 for a load or an instruction fetch

    Consecutive accesses to one page with the same write-ness are one touch, across batches too. An
    access that straddles two pages touches the lower, then the upper one. ``limit`` (touches) ends
    the reading early; the rest of the file is then not checked. Memory: one chunk of 1 MiB and its
    index arrays. Raises InputError for a malformed line, a file cut in a line, and a recording without
    any access; batches before that line have been yielded by then (``load_touches`` is all-or-nothing).
    """
    left = limit
    if left is not None and left < 1:
        raise ValueError(f"limit is {limit}, must be at least 1")
    last: tuple[int, int] | None = None
    with open_stream(path) as stream:
        for lineno, chunk in _whole_lines(path, stream):
            runs = _runs(_parse(path, lineno, chunk), last)
            if len(runs) == 0:
                continue
            last = (int(runs["page"][-1]), int(runs["write"][-1]))
            runs = runs[:left]
            for at in range(0, len(runs), BATCH):
                yield runs[at : at + BATCH]
            if left is not None:
                left -= len(runs)
                if left == 0:
                    return
    if last is None:
        raise InputError(f"{path}: the recording holds no memory access", allowed=EXPECTED)


def _whole_lines(path: Path, stream: BufferedReader) -> Iterator[tuple[int, Bytes]]:
    """(number of its first line, bytes) for pieces of about CHUNK that end at a line end."""
    lineno, rest = 1, b""
    while data := stream.read(CHUNK):
        cut = data.rfind(b"\n") + 1
        if cut:
            piece = rest + data[:cut]
            rest = data[cut:]
            yield lineno, np.frombuffer(piece, np.uint8)
            lineno += piece.count(b"\n")
        else:
            rest += data
        if len(rest) > MAX_LINE:
            raise bad_line(path, lineno, rest, EXPECTED)
    if rest:
        raise bad_line(path, lineno, rest, f"a line end; the file was cut short. A line is {EXPECTED}")


def _parse(path: Path, lineno: int, data: Bytes) -> npt.NDArray[np.void]:
    """One row for each page an access in ``data`` touches, not yet collapsed into runs."""
    ends = np.flatnonzero(data == ord("\n"))
    starts = np.empty_like(ends)
    starts[0], starts[1:] = 0, ends[:-1] + 1
    # A comma past the end of its line stands for "none": the clip keeps the index valid, and the
    # width and size checks below then refuse the line.
    commas = np.append(np.flatnonzero(data == ord(",")), len(data))
    comma = np.minimum(commas[np.searchsorted(commas, starts)], ends)
    kind = _kinds(data, starts, ends)
    address, address_ok = _numbers(data, starts + 3, comma, range(8, 17), _HEX, 16)
    size, size_ok = _numbers(data, comma + 1, ends, range(1, 5), _DECIMAL, 10)
    top = address + (size - np.uint64(1))
    good = address_ok & size_ok & (size >= 1) & (size <= 4096) & (top >= address)
    good &= (kind == _READ) | (kind == _WRITE)
    bad = np.flatnonzero(~good & (kind != _OWN))
    if len(bad):
        at = int(bad[0])
        raise bad_line(path, lineno + at, data[starts[at] : ends[at]].tobytes(), EXPECTED)
    return _pages(address[good], top[good], kind[good] == _WRITE)


def _kinds(data: Bytes, starts: Ints, ends: Ints) -> Bytes:
    """What each line is by its first three characters; a line shorter than that is _OTHER."""
    inside = len(data) - 1
    one = data[starts]
    two = data[np.minimum(starts + 1, inside)]
    three = data[np.minimum(starts + 2, inside)]
    kind = np.full(len(starts), _OTHER, np.uint8)
    access = three == ord(" ")
    kind[access & (one == ord("I")) & (two == ord(" "))] = _READ
    kind[access & (one == ord(" ")) & (two == ord("L"))] = _READ
    kind[access & (one == ord(" ")) & ((two == ord("S")) | (two == ord("M")))] = _WRITE
    kind[(one == two) & ((one == ord("=")) | (one == ord("-")))] = _OWN
    return kind


def _numbers(
    data: Bytes, first: Ints, end: Ints, widths: range, digits: Bytes, base: int
) -> tuple[Words, Mask]:
    """The number in ``data[first:end]`` of each line, and whether it is one of an allowed width.

    Lines are grouped by width, since a recording has only a few: one table look-up a digit column.
    """
    value = np.zeros(len(first), np.uint64)
    ok = np.zeros(len(first), np.bool_)
    width = end - first
    for w in np.unique(width):
        if w not in widths:
            continue
        rows = np.flatnonzero(width == w)
        at = first[rows]
        number = np.zeros(len(at), np.uint64)
        fine = np.ones(len(at), np.bool_)
        for column in range(int(w)):
            digit = digits[data[at + column]]
            fine &= digit != _NOT_A_DIGIT
            number *= np.uint64(base)
            number += digit
        value[rows], ok[rows] = number, fine
    return value, ok


def _pages(address: Words, top: Words, write: Mask) -> npt.NDArray[np.void]:
    low, high = address >> np.uint64(PAGE_SHIFT), top >> np.uint64(PAGE_SHIFT)
    straddles = high != low
    rows = np.empty(len(low) + int(straddles.sum()), TOUCH)
    # A size of at most 4096 spans at most two pages, so an access has one row or two.
    at: Ints = np.arange(len(low)) + np.cumsum(straddles) - straddles
    rows["page"][at], rows["write"][at] = low, write
    upper = at[straddles] + 1
    rows["page"][upper], rows["write"][upper] = high[straddles], write[straddles]
    return rows


def _runs(rows: npt.NDArray[np.void], last: tuple[int, int] | None) -> npt.NDArray[np.void]:
    """``rows`` without those that repeat the row before them; ``last`` is the row before the first."""
    if len(rows) == 0:
        return rows
    keep = np.ones(len(rows), np.bool_)
    page, write = rows["page"], rows["write"]
    keep[1:] = (page[1:] != page[:-1]) | (write[1:] != write[:-1])
    keep[0] = last is None or last != (int(page[0]), int(write[0]))
    return rows[keep]
