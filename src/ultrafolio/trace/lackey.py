"""Page touches from ``valgrind --tool=lackey --trace-mem=yes``.

The tool prints one line an access: three characters (``I  `` instruction fetch, `` L `` load, `` S ``
store, `` M `` modify), the address in hex, a comma, the size in bytes; with --trace-superblocks also ``SB`` and an
address. Source of the format: lackey/lk_main.c in valgrind. Lines of valgrind itself have the process between
``==``, ``--`` or, printed by a client request, ``**``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from io import BufferedReader

import numpy as np
import numpy.typing as npt

from ultrafolio.errors import InputError
from ultrafolio.model.layout import PAGE_SHIFT
from ultrafolio.trace.importer import (
    MAX_ROWS,
    TOUCH,
    Format,
    Head,
    Kind,
    Only,
    Rows,
    gathered,
    runs,
)
from ultrafolio.trace.reader import MAX_LINE, NO_END, Path, bad_line, cut_line, open_stream

BATCH = 65536
CHUNK = 1 << 20

EXPECTED = (
    "'I  addr,size', ' L addr,size', ' S addr,size' or ' M addr,size': addr 8 to 16 lower-case hex "
    "digits, size 1..4096; or a line of valgrind's own, '==PID== …', '--PID-- …', '**PID** …' or 'SB addr'"
)
RECORD = "valgrind --tool=lackey --trace-mem=yes --log-file=mine.%p.lackey PROGRAM"
"""%p: a file for each process; --log-file keeps the program's own output out of it."""

OWN = re.compile(rb"(==|--|\*\*)(?:[0-9:.]+ )?([0-9]{1,10})\1(?: .*)?")
SUPERBLOCK = re.compile(rb"SB [0-9a-f]{8,16}")
COMMAND = re.compile(rb"==(?:[0-9:.]+ )?[0-9]+== Command: .*")
_ACCESS_INSIDE = re.compile(rb".+(?:I | [LSM]) [0-9a-f]{8,16},[0-9]{1,4}")

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


def touches(path: Path, *, limit: int | None = None, notes: list[str] | None = None) -> Iterator[Rows]:
    """The page touches of a lackey recording, in order, as batches of 1 to 65536 rows of ``TOUCH``.

    page   address >> 12
    write  1 for a store or a modify, 0 for a load or an instruction fetch

    Consecutive accesses to one page with the same write-ness are one touch, across batches too. An
    access that straddles two pages touches the lower, then the upper one. ``limit`` (touches) ends
    the reading early; the rest of the file is then not checked. Memory: one chunk of 1 MiB and its
    index arrays. Raises InputError for a malformed line, a file cut in a line, a recording of several processes,
    and one without any access; batches before that line have been yielded by then (``load_touches`` is
    all-or-nothing).
    """
    left = limit
    if left is not None and left < 1:
        raise ValueError(f"limit is {limit}, must be at least 1")
    last: tuple[int, int] | None = None
    own = _Own(path)
    with open_stream(path) as stream:
        for lineno, chunk, cut in _whole_lines(path, stream, [] if notes is None else notes):
            found = runs(_parse(path, lineno, chunk, cut, own), last)
            if len(found) == 0:
                continue
            last = (int(found["page"][-1]), int(found["write"][-1]))
            found = found[:left]
            for at in range(0, len(found), BATCH):
                yield found[at : at + BATCH]
            if left is not None:
                left -= len(found)
                if left == 0:
                    return
    if last is None:
        raise own.nothing()


def _whole_lines(path: Path, stream: BufferedReader, notes: list[str]) -> Iterator[tuple[int, Bytes, bool]]:
    """(number of its first line, bytes, whether the last line had no end) for pieces of about CHUNK.

    Every piece ends with LF, and no line of it with CRLF.
    """
    lineno, rest = 1, b""
    while data := stream.read(CHUNK):
        cut = data.rfind(b"\n") + 1
        if cut:
            piece = rest + data[:cut]
            rest = data[cut:]
            yield lineno, np.frombuffer(piece.replace(b"\r\n", b"\n"), np.uint8), False
            lineno += piece.count(b"\n")
        else:
            rest += data
        if len(rest) > MAX_LINE:
            raise bad_line(path, lineno, rest, EXPECTED)
    if rest:
        yield lineno, np.frombuffer(rest.removesuffix(b"\r") + b"\n", np.uint8), True
        notes.append(NO_END)


class _Own:
    """The processes and programs in valgrind's own lines so far."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.pids: list[int] = []
        self.commands = 0

    def see(self, lineno: int, text: bytes) -> bool:
        """Whether ``text`` is one of valgrind's own lines. Raises InputError for a second process or program."""
        if SUPERBLOCK.fullmatch(text):
            return True
        match = OWN.fullmatch(text)
        if match is None:
            return False
        pid = int(match[2])
        if pid not in self.pids:
            self.pids.append(pid)
        self.commands += COMMAND.fullmatch(text) is not None
        if len(self.pids) > 1:
            raise self._mixed(
                lineno,
                f"processes {' and '.join(map(str, self.pids))} wrote this file, and an access "
                "names no process, so it cannot be split",
            )
        if self.commands > 1:
            raise self._mixed(lineno, f"process {pid} ran two programs, or two runs were appended")
        return True

    def _mixed(self, lineno: int, cause: str) -> InputError:
        """Returns the error for a recording of two address spaces."""
        return InputError(
            f"{os.fspath(self.path)}: line {lineno}: two address spaces in one recording",
            value=", ".join(f"process {pid}" for pid in self.pids),
            allowed="one process and one program a file",
            cause=cause,
            then=RECORD,
        )

    def nothing(self) -> InputError:
        """Returns the error for a recording without any access."""
        cause = (
            "valgrind ran without --trace-mem=yes, or with another tool than lackey: it printed no access"
            if self.pids
            else ""
        )
        return InputError(
            f"{os.fspath(self.path)}: the recording holds no memory access", allowed=EXPECTED, cause=cause, then=RECORD
        )


def _parse(path: Path, lineno: int, data: Bytes, cut: bool, own: _Own) -> Rows:
    """One row for each page an access in ``data`` touches, not yet collapsed into runs."""
    ends = np.flatnonzero(data == ord("\n"))
    starts = np.empty_like(ends)
    starts[0], starts[1:] = 0, ends[:-1] + 1
    # A comma past the end of its line means that the line has none: the clip keeps the index valid, and the
    # width and size checks below then refuse the line.
    commas = np.append(np.flatnonzero(data == ord(",")), len(data))
    comma = np.minimum(commas[np.searchsorted(commas, starts)], ends)
    kind = _kinds(data, starts)
    address, address_ok = _numbers(data, starts + 3, comma, range(8, 17), _HEX, 16)
    size, size_ok = _numbers(data, comma + 1, ends, range(1, 5), _DECIMAL, 10)
    top = address + (size - np.uint64(1))
    good = address_ok & size_ok & (size >= 1) & (size <= 4096) & (top >= address)
    good &= (kind == _READ) | (kind == _WRITE)
    for at in np.flatnonzero(~good).tolist():
        text = data[starts[at] : ends[at]].tobytes()
        if kind[at] != _OWN or not own.see(lineno + at, text):
            raise _malformed(path, lineno + at, text, cut and at == len(ends) - 1)
    return _pages(address[good], top[good], kind[good] == _WRITE)


def _malformed(path: Path, lineno: int, text: bytes, cut: bool) -> InputError:
    """The error for a line that is neither an access nor valgrind's own."""
    if _ACCESS_INSIDE.fullmatch(text):
        cause = "the program's own output stands on one line with an access: both went to one stream"
    elif cut:
        return cut_line(path, lineno, text, EXPECTED)
    else:
        cause = "the program's own output is in the file, or the line is damaged"
    return bad_line(path, lineno, text, EXPECTED, cause=cause, then=RECORD)


def _kinds(data: Bytes, starts: Ints) -> Bytes:
    """The kind of each line by its first three characters; a shorter line is _OTHER."""
    inside = len(data) - 1
    one = data[starts]
    two = data[np.minimum(starts + 1, inside)]
    three = data[np.minimum(starts + 2, inside)]
    kind = np.full(len(starts), _OTHER, np.uint8)
    access = three == ord(" ")
    kind[access & (one == ord("I")) & (two == ord(" "))] = _READ
    kind[access & (one == ord(" ")) & (two == ord("L"))] = _READ
    kind[access & (one == ord(" ")) & ((two == ord("S")) | (two == ord("M")))] = _WRITE
    kind[(one == two) & ((one == ord("=")) | (one == ord("-")) | (one == ord("*")))] = _OWN
    kind[access & (one == ord("S")) & (two == ord("B"))] = _OWN
    return kind


def _numbers(data: Bytes, first: Ints, end: Ints, widths: range, digits: Bytes, base: int) -> tuple[Words, Mask]:
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


def _pages(address: Words, top: Words, write: Mask) -> Rows:
    """Rows of TOUCH for accesses from ``address`` to ``top`` (its last byte), in order."""
    low, high = address >> np.uint64(PAGE_SHIFT), top >> np.uint64(PAGE_SHIFT)
    straddles = high != low
    rows = np.empty(len(low) + int(straddles.sum()), TOUCH)
    # A size of at most 4096 spans at most two pages, so an access has one row or two.
    at: Ints = np.arange(len(low)) + np.cumsum(straddles) - straddles
    rows["page"][at], rows["write"][at] = low, write
    upper = at[straddles] + 1
    rows["page"][upper], rows["write"][upper] = high[straddles], write[straddles]
    return rows


def _sniff(head: Head) -> bool:
    def known(line: bytes) -> bool:
        return OWN.fullmatch(line) is not None or SUPERBLOCK.fullmatch(line) is not None

    first = next((line for line in head.lines if not known(line)), b"")
    if first[:3] in (b"I  ", b" L ", b" S ", b" M ") or (known(head.lines[0]) and not head.binary):
        return True
    return any(OWN.fullmatch(line) and b"Lackey, an example Valgrind tool" in line for line in head.lines)


def _read(path: Path, kind: Kind, only: Only, notes: list[str]) -> Rows:
    return gathered(path, touches(path, notes=notes))


IMPORTER = Format("lackey", RECORD, ("touches",), _sniff, _read, bounds={"rows": MAX_ROWS})
