"""The text that tools/mm/page-types prints: pages with their flags, then perhaps a summary."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from io import BufferedReader

import numpy as np
import numpy.typing as npt

from ultrafolio.errors import InputError
from ultrafolio.trace.reader import Lines, Path
from ultrafolio.trace.words import MAX_WORDS

BATCH = 65536

MADE_BY = "page-types --raw --list (or --list-each)"

# One letter a flag the tool knows, by bit, unset shown as "_". Which bits have a letter changed with the tool's
# version. The length of the flags leaves at most two layouts; a letter that only one of them has decides.
_LOW = "LERUDlASWIBMasbHTGuXnxtozig"
_BITS_LOW = range(27)
LAYOUTS: list[tuple[str, list[int]]] = [
    # 6.12
    (_LOW + "rmdPpOhfHdIAEFw1", [*_BITS_LOW, *range(32, 39), 40, 41, 47, 48, 50, 51, 61, 62, 63]),
    # 6.4 to 6.11
    (_LOW + "rmdPpOhcfHdIAEFw1", [*_BITS_LOW, *range(32, 42), 47, 48, 50, 51, 61, 62, 63]),
    # 5.19 to 6.3
    (_LOW + "rmdPpOhcfHdIPAEFw1", [*_BITS_LOW, *range(32, 42), 47, 48, 49, 50, 51, 61, 62, 63]),
    # a tool just before 5.19, with arch_2 and without anon_exclusive
    (_LOW + "rmdPpOhcfHIPAEFw1", [*_BITS_LOW, *range(32, 42), 48, 49, 50, 51, 61, 62, 63]),
    # 4.18 to 5.18
    (_LOW + "rmdPpOhcfIPAEFw1", [*_BITS_LOW, *range(32, 41), 48, 49, 50, 51, 61, 62, 63]),
    # 4.5 to 4.17: no letter for page tables
    (_LOW[:-1] + "rmdPpOhcfIPAEFw1", [*_BITS_LOW[:-1], *range(32, 41), 48, 49, 50, 51, 61, 62, 63]),
]
HEAD, TAIL, THP, SWAP = 1 << 15, 1 << 16, 1 << 22, 1 << 62

_COLUMN = {
    "voffset": re.compile(rb"[0-9a-f]{1,16}"),
    "foffset": re.compile(rb"[0-9a-f]{1,16}"),
    "cgroup": re.compile(rb"@[0-9]{1,20}"),
    "map-cnt": re.compile(rb"[0-9]{1,20}"),
    "offset": re.compile(rb"[0-9a-f]{1,14}"),
    "len": re.compile(rb"[0-9a-f]{1,14}"),
    "flags": re.compile(rb"\S+"),
}
HEADER_EXPECTED = "the columns of 'page-types --raw --list' (or --list-each): [voffset] offset [len] flags"
_SUMMARY_HEAD = re.compile(rb" *flags\tpage-count +MB +symbolic-flags\t+long-symbolic-flags")
_SUMMARY_LINE = re.compile(rb"0x[0-9a-f]{16}\t *[0-9]+ +[0-9]+  \S+\t\S*|")
_FILE_LINE = re.compile(rb".*\tInode: [0-9]+\tSize: [0-9]+ \([0-9]+ pages\)|Modify: .*|Access: .*")
_TOTAL = re.compile(rb" *total\t *([0-9]+) +[0-9]+")

Words = npt.NDArray[np.uint64]


def is_listing(line: bytes) -> bool:
    """Whether ``line`` is the first of what page-types prints: a listing's header, or a summary's."""
    names = line.split(b"\t")
    return _SUMMARY_HEAD.fullmatch(line) is not None or (b"offset" in names and names[-1] == b"flags")


def pages(path: Path, stream: BufferedReader, notes: list[str] | None = None) -> Iterator[tuple[Words, Words]]:
    """(page frames, flags) of a listing, batches of 1 to 65536 pages in the order listed.

    Lines of swapped-out pages (flag ``w``) have no frame and are skipped. A summary after the list must
    count as many pages as were listed. Raises InputError as ``ultrafolio.trace.pageflags.folios``.
    """
    numbered = Lines(path, stream, notes)
    lineno, header = next(numbered)
    if _SUMMARY_HEAD.fullmatch(header):
        raise InputError(
            f"{os.fspath(path)}: this is page-types' summary table, not a listing: it has no page frames",
            allowed=HEADER_EXPECTED,
            then="page-types --raw --list",
        )
    line = _Line(numbered, lineno, header)
    listed, held = 0, 0
    ranges: list[tuple[int, int, int]] = []
    for lineno, text in numbered:
        if not text:
            _check_rest(numbered, listed)
            break
        first, count, flags = line.range(lineno, text)
        listed += count
        if listed > MAX_WORDS:
            raise numbered.bad(lineno, text, f"up to {MAX_WORDS} pages in one listing")
        if flags & SWAP:
            continue
        while count:
            part = min(count, BATCH - held)
            ranges.append((first, part, flags))
            first, count, held = first + part, count - part, held + part
            if held == BATCH:
                yield _expand(ranges)
                ranges, held = [], 0
    if ranges:
        yield _expand(ranges)


def _expand(ranges: list[tuple[int, int, int]]) -> tuple[Words, Words]:
    """Returns the page numbers in ranges of (first, count, flags), and each one's flags."""
    first, count, flags = (np.array(column, np.uint64) for column in zip(*ranges, strict=True))
    n = count.astype(np.int64)
    within = np.arange(int(n.sum()), dtype=np.uint64) - np.repeat(np.cumsum(count) - count, n)
    return np.repeat(first, n) + within, np.repeat(flags, n)


class _Line:
    """The columns that the header names, and the flags seen so far (a listing has few kinds)."""

    def __init__(self, source: Lines, lineno: int, header: bytes) -> None:
        self.source = source
        self.names = header.decode("ascii", "replace").split("\t")
        fixed = [name for name in self.names if name not in ("voffset", "foffset", "cgroup", "map-cnt")]
        if fixed not in (["offset", "len", "flags"], ["offset", "flags"]) or self.names[-1] != "flags":
            raise source.bad(lineno, header, HEADER_EXPECTED)
        self.columns = [_COLUMN[name] for name in self.names]
        self.at = self.names.index("offset")
        self.ranged = "len" in self.names
        self.known: dict[bytes, int] = {}
        self.layouts = LAYOUTS
        self.expected = f"{len(self.names)} columns separated by tabs: {' '.join(self.names)}; numbers in hex"

    def range(self, lineno: int, text: bytes) -> tuple[int, int, int]:
        """(first frame, number of pages, flags) of one line."""
        fields = text.split(b"\t")
        if len(fields) != len(self.columns) or not all(
            column.fullmatch(field) for column, field in zip(self.columns, fields, strict=True)
        ):
            raise self.source.bad(lineno, text, self.expected)
        count = int(fields[self.at + 1], 16) if self.ranged else 1
        if count == 0:
            raise self.source.bad(lineno, text, "a len of at least 1")
        field = fields[-1]
        if field not in self.known:
            self.known[field] = self._flags(lineno, text, field)
        return int(fields[self.at], 16), count, self.known[field]

    def _flags(self, lineno: int, text: bytes, field: bytes) -> int:
        """Returns the bits of a line's letters. Raises InputError if no kernel's letters fit all lines so far."""
        shown = field.decode("ascii", "replace")
        fitting = [
            (letters, bits)
            for letters, bits in self.layouts
            if len(letters) == len(shown) and all(a in ("_", b) for a, b in zip(shown, letters, strict=True))
        ]
        if not fitting:
            known = " or ".join(f"{letters!r}" for letters, _ in self.layouts)
            raise self.source.bad(lineno, text, f"flags that are {known}, with '_' for each unset one")
        self.layouts = fitting
        flags: int = sum(1 << bit for bit, a in zip(fitting[0][1], shown, strict=True) if a != "_")
        if flags & HEAD and flags & TAIL:
            raise self.source.bad(lineno, text, "not both compound_head (H) and compound_tail (T)")
        if flags & THP and not flags & (HEAD | TAIL):
            cause = "a THP with H or T; a listing made without --raw hides them: page-types --raw --list"
            raise self.source.bad(lineno, text, cause)
        return flags


def _check_rest(source: Lines, listed: int) -> None:
    """What follows the blank line: file details, the summary, and a total that must be ``listed``."""
    expected = "the summary of page-types: 'flags page-count …', a line a combination of flags, 'total'"
    total: int | None = None
    for lineno, text in source:
        match = _TOTAL.fullmatch(text) if total is None else None
        if match:
            total = int(match[1])
            if total != listed:
                raise source.bad(lineno, text, f"a total of {listed}, the number of pages listed")
        elif not any(form.fullmatch(text) for form in (_SUMMARY_LINE, _SUMMARY_HEAD, _FILE_LINE)):
            raise source.bad(lineno, text, expected)
    if total is None:
        raise source.bad(source.lineno + 1, "", f"{expected}; the total is missing")
