"""The folio layout of physical memory, from /proc/kpageflags or a page-types listing.

Raw: one 64-bit word of flags a page frame, as read from /proc/kpageflags, in the byte order of the machine that wrote
them. Listing: what
``page-types --raw --list`` (or ``--list-each``) prints. Sources of the formats: the kernel's
include/uapi/linux/kernel-page-flags.h, fs/proc/page.c and tools/mm/page-types.c.

A folio is a page with COMPOUND_HEAD and the COMPOUND_TAIL pages right after it, or a page with
neither. A piece of a large folio (tails whose head is not in the recording, a head whose run is not
a power of two long, a run that reaches the end of a raw dump, which is a window with an arbitrary end)
is not a folio and is left out.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from ultrafolio.errors import InputError
from ultrafolio.nouns import plural
from ultrafolio.trace import words
from ultrafolio.trace.importer import Format, Head, Kind, Only
from ultrafolio.trace.listing import MADE_BY, is_listing
from ultrafolio.trace.listing import pages as listed_pages
from ultrafolio.trace.reader import Path, open_stream

FOLIO = np.dtype([("pfn", "<u8"), ("order", "u1"), ("flags", "<u8")])

LRU, SLAB, BUDDY, ANON, HEAD, TAIL = (1 << n for n in (5, 7, 10, 12, 15, 16))
HUGE, UNEVICTABLE, HWPOISON, NOPAGE, OFFLINE, ZERO_PAGE, PGTABLE = (1 << n for n in (17, 18, 19, 20, 23, 24, 26))
RESERVED = 1 << 32

NO_FOLIO = NOPAGE | BUDDY | OFFLINE
"""No memory behind the frame, or free memory: such a frame is in no folio."""
USER = LRU | UNEVICTABLE | ANON
NOT_USER = SLAB | HUGE | HWPOISON | ZERO_PAGE | PGTABLE | RESERVED
"""With SLAB set, the bits for ANON and KSM are other fields of the same word: noise."""

Words = npt.NDArray[np.uint64]
Pages = tuple[Words, Words]


def folios(path: Path, notes: list[str] | None = None) -> Iterator[npt.NDArray[np.void]]:
    """One row of ``FOLIO`` a folio, in the order of the recording, as batches of 1 to 65536 rows.

    pfn    the first page frame; in a raw dump counted from the start of the dump
    order  log2 of the folio's length in pages
    flags  KPF_* bits of its first page; from a listing also page-types' own bits from 47 on

    Raw or listing is told by the content: flag words have zero bytes, text has none. Free frames and
    frames without memory (BUDDY, NOPAGE, OFFLINE) and pieces of folios yield nothing. A listing of one
    process (``--pid``) names a page once a mapping, and so does this. Memory: one batch of pages, and
    the open folio as one row. Raises InputError for a malformed line or word, a summary table, a listing
    made without ``--raw`` (which hides the compound bits) and a recording without any folio.
    """
    notes = [] if notes is None else notes
    empty = True
    raw = Head(path).binary
    for batch in _fold(_raw_pages(path, notes) if raw else _listed(path, notes), cut_end=raw):
        empty = False
        yield batch
    if empty:
        raise InputError(f"{os.fspath(path)}: the recording holds no whole folio", then="record a larger window")


def _listed(path: Path, notes: list[str]) -> Iterator[Pages]:
    """Yields the pages of a page-types listing."""
    with open_stream(path) as stream:
        yield from listed_pages(path, stream, notes)


def order_distribution(path: Path, notes: list[str] | None = None) -> dict[int, int]:
    """Order → number of folios of user memory, for the orders that occur, ascending; empty where none is.

    User memory is a folio whose first page has LRU, UNEVICTABLE or ANON (anonymous and file pages on a
    list or on the way to one) and none of SLAB, HUGE (hugetlb), HWPOISON, ZERO_PAGE, PGTABLE and
    RESERVED. A note says how many folios are left out. Errors as ``folios``.
    """
    notes = [] if notes is None else notes
    counts = np.zeros(64, np.int64)
    others = 0
    for batch in folios(path, notes):
        flags = batch["flags"]
        user = ((flags & np.uint64(USER)) != 0) & ((flags & np.uint64(NOT_USER)) == 0)
        counts += np.bincount(batch["order"][user], minlength=64)
        others += len(batch) - int(user.sum())
    if others:
        left = plural(others, "folio")
        notes.append(f"left out: {left} of other than user memory (the kernel's own, hugetlb, reserved)")
    return {order: int(n) for order, n in enumerate(counts) if n}


def _raw_pages(path: Path, notes: list[str]) -> Iterator[Pages]:
    """(page frames, flags) from flag words; the first word is frame 0."""
    pfn = 0
    for flags in words.batches(path, words.KPAGEFLAGS, notes):
        yield np.arange(pfn, pfn + len(flags), dtype=np.uint64), flags
        pfn += len(flags)


def _fold(pages: Iterator[Pages], *, cut_end: bool) -> Iterator[npt.NDArray[np.void]]:
    """Folios of a stream of pages. The last run of a batch stays open, since it may go on in the next."""
    first: Pages | None = None  # first page of the open run
    length = 0  # its pages so far
    next_pfn = -1
    for pfn, flags in pages:
        tail = (flags & np.uint64(TAIL)) != 0
        # A page starts a run of its own unless it is a tail that follows the frame before it.
        follows = np.empty(len(pfn), np.bool_)
        follows[0] = tail[0] and int(pfn[0]) == next_pfn
        follows[1:] = tail[1:] & (pfn[1:] == pfn[:-1] + np.uint64(1))
        starts = np.flatnonzero(~follows)
        next_pfn = int(pfn[-1]) + 1
        if len(starts) == 0:
            length += len(pfn)
            continue
        if first is not None:
            yield from _rows(*first, np.array([length + starts[0]]))
        runs = np.diff(starts, append=len(pfn))
        yield from _rows(pfn[starts[:-1]], flags[starts[:-1]], runs[:-1])
        first, length = (pfn[starts[-1:]], flags[starts[-1:]]), int(runs[-1])
    if first is not None and not (cut_end and int(first[1][0]) & HEAD):
        yield from _rows(*first, np.array([length]))


def _rows(pfn: Words, flags: Words, length: npt.NDArray[np.int64]) -> Iterator[npt.NDArray[np.void]]:
    """At most one batch: the runs that are folios, given first page, its flags and length of each."""
    large = (flags & np.uint64(HEAD)) != 0
    keep = ~large | ((length > 1) & (length & (length - 1) == 0))
    keep &= (flags & np.uint64(TAIL | NO_FOLIO)) == 0
    if not keep.any():
        return
    rows = np.empty(int(keep.sum()), FOLIO)
    rows["pfn"], rows["flags"] = pfn[keep], flags[keep]
    rows["order"] = np.where(large, np.log2(length), 0)[keep]
    yield rows


def _sniff_raw(head: Head) -> bool:
    return head.binary and words.survey(head.path).source is words.KPAGEFLAGS


def _sniff_listing(head: Head) -> bool:
    return is_listing(head.lines[0])


def _read(path: Path, kind: Kind, only: Only, notes: list[str]) -> dict[int, int]:
    return order_distribution(path, notes)


RAW = Format("kpageflags", words.KPAGEFLAGS.again, ("orders",), _sniff_raw, _read, bounds={"words": words.MAX_WORDS})
LISTING = Format("page-types", MADE_BY, ("orders",), _sniff_listing, _read, bounds={"pages": words.MAX_WORDS})
