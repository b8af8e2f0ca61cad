"""Binary files of 64-bit words: detect the file of /proc they were read from, and their byte order.

Such a file has no header. A byte order is right if it keeps every word within the bits that the kernel
defines; kpageflags and pagemap share no bit that is set in most words. Sources: fs/proc/page.c, fs/proc/task_mmu.c,
include/uapi/linux/kernel-page-flags.h, Documentation/admin-guide/mm/pagemap.rst.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ultrafolio.errors import InputError
from ultrafolio.nouns import plural
from ultrafolio.trace.reader import Path, open_stream, quoted

Words = npt.NDArray[np.uint64]
Mask = npt.NDArray[np.bool_]

BATCH = 65536
MAX_WORDS = 1 << 28
"""2 GiB of words: the page frames, or the addresses, of 1 TiB."""


def mask(*bits: int) -> np.uint64:
    """The word with these bits set."""
    return np.uint64(sum(1 << bit for bit in bits))


LOCKED, ERROR, UPTODATE, LRU, SLAB, BUDDY, MMAP, ANON, HEAD, TAIL, NOPAGE, THP = (
    mask(bit) for bit in (0, 1, 3, 5, 7, 10, 11, 12, 15, 16, 20, 22)
)
KPAGEFLAGS_BITS = mask(*range(27), *range(32, 43))
"""The bits that the kernel exports; 27 to 31 were never used."""
PRESENT, SWAPPED, FILE, SOFT_DIRTY = (mask(bit) for bit in (63, 62, 61, 55))
PFN = mask(*range(55))
PAGEMAP_BITS = PFN | mask(55, 56, 57, 58, 61, 62, 63)

ZERO = np.uint64(0)


@dataclass(frozen=True)
class Source:
    """A file of /proc: the words that it cannot hold, and those that it rarely holds."""

    name: str
    wrong: Callable[[Words], Mask]
    unlikely: Callable[[Words], Mask]
    allowed: str
    again: str


def _not_flags(words: Words) -> Mask:
    """Returns which words cannot be page flags."""
    both = HEAD | TAIL
    wrong: Mask = ((words & ~KPAGEFLAGS_BITS) != ZERO) | ((words & both) == both)
    return wrong


def _unlikely_flags(words: Words) -> Mask:
    """Words that are small numbers and not flags: a page only locked or in error, a free page that is in use."""
    few = (words < np.uint64(8)) & ((words & (LOCKED | ERROR)) != ZERO)
    used = ((words & BUDDY) != ZERO) & ((words & (LRU | SLAB | MMAP | ANON)) != ZERO)
    gone = ((words & NOPAGE) != ZERO) & (words != NOPAGE)
    thin = ((words & THP) != ZERO) & ((words & (HEAD | TAIL)) == ZERO)
    unlikely: Mask = few | used | gone | thin
    return unlikely


def _not_pagemap(words: Words) -> Mask:
    """Returns which words cannot be of a pagemap."""
    where = words & (PRESENT | SWAPPED)
    nowhere = (where == ZERO) & ((words & (PFN | FILE)) != ZERO)
    wrong: Mask = ((words & ~PAGEMAP_BITS) != ZERO) | (where == PRESENT | SWAPPED) | nowhere
    return wrong


def _never(words: Words) -> Mask:
    """Returns that no word is wrong."""
    return np.zeros(len(words), np.bool_)


KPAGEFLAGS = Source(
    "/proc/kpageflags", _not_flags, _unlikely_flags,
    "bits 0..26 and 32..42, and not both COMPOUND_HEAD and COMPOUND_TAIL",
    "dd if=/proc/kpageflags of=mine.kpageflags bs=1M",
)  # fmt: skip
PAGEMAP = Source(
    "/proc/PID/pagemap", _not_pagemap, _never,
    "bit 63 (present) or 62 (swapped) for a page that is somewhere, bits 55..58 and 61, a page frame in 0..54",
    "dd if=/proc/PID/pagemap of=mine.pagemap bs=8 skip=FIRST count=PAGES",
)  # fmt: skip
ORDERS = {"<u8": "little-endian", ">u8": "big-endian"}


@dataclass
class Reading:
    """The file read as one source in one byte order."""

    source: Source
    order: str
    wrong: int = 0
    first: tuple[int, int] | None = None  # of the wrong words: number, value
    set: int = 0  # words that are not 0
    somewhere: int = 0  # words that are present or swapped, if it is a pagemap
    unlikely: int = 0

    def add(self, number: int, words: Words) -> None:
        """Count the wrong, set, present and unlikely ones of these words; `number`: the number of the first in the
        file."""
        bad = self.source.wrong(words)
        self.wrong += int(bad.sum())
        if self.first is None and bad.any():
            at = int(np.flatnonzero(bad)[0])
            self.first = number + at, int(words[at])
        self.set += int(np.count_nonzero(words))
        self.somewhere += int(np.count_nonzero(words & (PRESENT | SWAPPED)))
        self.unlikely += int(self.source.unlikely(words).sum())

    def fits(self) -> bool:
        """Whether no word is wrong, and of a pagemap some page is somewhere."""
        return self.wrong == 0 and (self.source is KPAGEFLAGS or self.somewhere > 0)


def survey(path: Path) -> Reading:
    """The reading that fits every word of the file: little-endian before big-endian, kpageflags before pagemap.

    Where none fits, the one with the fewest wrong words. Several fit only where no word tells them apart.
    """
    readings = [Reading(source, order) for order in ORDERS for source in (KPAGEFLAGS, PAGEMAP)]
    number = 0
    for raw in _raw(path):
        for reading in readings:
            reading.add(number, np.frombuffer(raw, reading.order).astype(np.uint64))
        number += len(raw) // 8
    return next((r for r in readings if r.fits()), None) or min(readings, key=lambda r: r.wrong + (not r.somewhere))


def batches(path: Path, source: Source, notes: list[str]) -> Iterator[Words]:
    """The words of a file of ``source``, in batches of up to 65536.

    InputError for a file of another source, for a word that the source cannot hold in either byte order, for one
    whose words are unlikely as a whole, and for a file that ends inside a word.
    """
    name = os.fspath(path)
    found = survey(path)
    if found.source is not source:
        raise InputError(
            f"{name}: these are words of {found.source.name}", allowed=f"words of {source.name}", then=source.again
        )
    if found.first is not None:
        number, word = found.first
        raise InputError(
            f"{name}: word {number} (byte {8 * number}) is no word of {source.name}",
            value=f"{word:#018x} ({ORDERS[found.order]})",
            allowed=source.allowed,
            cause="the file is damaged, or comes from elsewhere; the other byte order fits no better",
            then=source.again,
        )
    if found.unlikely * 2 > found.set:
        raise InputError(
            f"{name}: {found.unlikely} of {plural(found.set, 'word')} implausible as page flags",
            value="pages that are locked and nothing else, or free and in use at once",
            allowed=f"words of {source.name}",
            cause="this looks like /proc/kpagecount or /proc/kpagecgroup: small numbers, not flags",
            then=source.again,
        )
    if found.order == ">u8":
        notes.append("the words are big-endian, as an s390x machine writes them")
    for raw in _raw(path):
        yield np.frombuffer(raw, found.order).astype(np.uint64)


def _raw(path: Path) -> Iterator[bytes]:
    """The bytes of whole words, in pieces. InputError for a rest at the end, and for too many words."""
    number, rest = 0, b""
    with open_stream(path) as stream:
        while data := stream.read(8 * BATCH):
            data = rest + data
            whole = len(data) // 8 * 8
            rest = data[whole:]
            if whole:
                yield data[:whole]
            number += whole // 8
            if number > MAX_WORDS:
                raise InputError(
                    f"{os.fspath(path)}: more than {MAX_WORDS} words",
                    allowed=f"up to {MAX_WORDS} words",
                    cause="a hole in an address space is kept as zeros",
                    then=f"dd if={quoted(path)} of=part bs=8 skip=FIRST count=PAGES",
                )
    if rest:
        raise InputError(
            f"{os.fspath(path)}: {plural(len(rest), 'byte')} after word {number}",
            allowed="a whole number of 8-byte words",
            cause="the dump was cut short",
            then=f"truncate -s {8 * number} {quoted(path)} leaves the whole words",
        )
