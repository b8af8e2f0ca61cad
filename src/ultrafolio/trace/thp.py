"""The distribution of folio orders, from thpmaps or from the mTHP counters in sysfs.

thpmaps: the kernel's tools/mm/thpmaps, for one process, a cgroup or all (``--rollup`` or a list of
mappings), a line ``anon-thp-pte-aligned-64kB:   131072 kB ( 4%)`` a kind; with ``--periodic`` an empty line between
snapshots. mTHP counters: what ``grep -r .
/sys/kernel/mm/transparent_hugepage`` prints, a line ``path:value`` or ``path value`` a file. A page is 4 kB.
"""

from __future__ import annotations

import os
import re
from collections import Counter

from ultrafolio.errors import InputError
from ultrafolio.trace.importer import EVERYTHING, Format, Head, Kind, Only
from ultrafolio.trace.reader import Lines, Path, open_stream

PAGE_KB = 4

MAPPINGS_HEAD = re.compile(rb" +PID +START +END PROT +OFFSET +DEV +INODE OBJECT")
MAPPING = re.compile(
    rb"([0-9]{10,}): [0-9a-f]{16}-[0-9a-f]{16} [r-][w-][x-][ps] [0-9a-f]{8,} "
    rb"[0-9a-f]{2,}:[0-9a-f]{2,} [0-9a-f]{8,} .*"
)
STAT = re.compile(rb"([A-Za-z0-9_-]+): +([0-9]{1,18}) kB(?: \( *[0-9]+%\))?")
THP = re.compile(rb"(?:anon|file)-thp-(?:pte-aligned|pte-unaligned|pmd-aligned)-([0-9]{1,9})kB")
# Separate counts of the tool: blocks overlap the folios above, and a partly mapped folio has no size.
CONT_OR_PARTIAL = re.compile(rb"(?:anon|file)-(?:cont-(?:pte|pmd)-aligned-[0-9]{1,9}kB|thp-pte-partial)")
SMAPS = re.compile(
    rb"Size|Rss|Pss|Pss_Dirty|(?:Shared|Private)_(?:Clean|Dirty|Hugetlb)|Referenced|Anonymous|KSM|LazyFree|"
    rb"AnonHugePages|ShmemPmdMapped|FilePmdMapped|Swap|SwapPss|Locked"
)
THPMAPS_EXPECTED = (
    "a line of thpmaps: 'anon|file-thp-pte|pmd-aligned|unaligned-<size>kB: <n> kB ( <p>%)', a cont or "
    "partial or smaps line of that form, or a mapping"
)

COUNTER = re.compile(rb"(?:.*/)?hugepages-([0-9]{1,9})kB/stats/([a-z_]+)(?::|[ \t]+)([0-9]{1,18})")
SETTING = re.compile(
    rb"(?:.*/)?(?:hugepages-[0-9]{1,9}kB/(?:shmem_)?enabled|"
    rb"transparent_hugepage/(?:khugepaged/)?[a-z_]+)(?::|[ \t]+)[A-Za-z0-9_\[\]][A-Za-z0-9_\[\] ]*"
)
MTHP_EXPECTED = "'…hugepages-<size>kB/stats/<name>:<number>', or a setting under transparent_hugepage"


def thpmaps(path: Path, only: Only = EVERYTHING, notes: list[str] | None = None) -> dict[int, int]:
    """Order → number of large folios, for the orders that occur, ascending; order 0 is never among them.

    Fully mapped THPs, anonymous and file, aligned or not, mapped by PTE or PMD: their kB over their size, summed over
    all mappings (so a folio mapped twice counts twice), or over those of process ``only.pid``. Partly mapped THPs and
    the ``cont`` blocks are left out. Of several snapshots the last one counts.

    Raises InputError for a malformed line, a size that is no power of two of pages, kB that are no multiple of the
    size, a line given twice, a file cut in a line, and a recording without any large folio.
    """
    notes = [] if notes is None else notes
    with open_stream(path) as stream:
        maps = _Thpmaps(Lines(path, stream, notes), only.pid)
        counts = maps.counts()
    if maps.snapshots > 1:
        notes.append(f"the file has {maps.snapshots} snapshots (--periodic): the last one counts")
    if only.pid is not None and only.pid not in maps.pids:
        raise InputError(
            f"{os.fspath(path)}: no mapping of process {only.pid}",
            value=str(only.pid),
            allowed=", ".join(map(str, sorted(maps.pids))) or "thpmaps without --rollup",
        )
    return _found(path, counts, "a fully mapped THP")


def mthp(path: Path, notes: list[str] | None = None) -> dict[int, int]:
    """Order → number of large anonymous folios of the whole system: ``nr_anon`` of every size.

    Other files of that folder are checked and left out. InputError as ``thpmaps``, and for counters without nr_anon.
    """
    counts: Counter[int] = Counter()
    counted = False
    with open_stream(path) as stream:
        source = Lines(path, stream, notes)
        for lineno, text in source:
            match = COUNTER.fullmatch(text)
            if match is None:
                if SETTING.fullmatch(text) is None:
                    raise source.bad(lineno, text, MTHP_EXPECTED)
                continue
            order = _order(source, lineno, text, int(match[1]))
            if match[2] != b"nr_anon":
                continue
            if order in counts:
                raise source.bad(lineno, text, "nr_anon once a size: one snapshot")
            counts[order], counted = int(match[3]), True
    if not counted:
        raise InputError(
            f"{os.fspath(path)}: the counters have no nr_anon, the number of large folios",
            allowed="…hugepages-<size>kB/stats/nr_anon:<number>",
            cause="the kernel is older than Linux 6.12, which brought nr_anon; what it counts are events, not folios",
            then="on such a kernel: dd if=/proc/kpageflags of=mine.kpageflags bs=1M",
        )
    return _found(path, counts, "a stats/nr_anon above 0")


def order_distribution(path: Path) -> dict[int, int]:
    """``thpmaps`` or ``mthp``, by the first line."""
    with open_stream(path) as stream:
        _, first = next(Lines(path, stream))
    return thpmaps(path) if is_thpmaps(first) else mthp(path)


def _found(path: Path, counts: Counter[int], needed: str) -> dict[int, int]:
    """Returns the counts above 0 by order. Raises InputError if there is none; `needed`: what it must hold."""
    found = {order: n for order, n in sorted(counts.items()) if n}
    if not found:
        raise InputError(
            f"{os.fspath(path)}: no large folio is counted",
            allowed=needed,
            then="record while a program uses large folios",
        )
    return found


def is_thpmaps(line: bytes) -> bool:
    """Whether ``line`` can be a line of thpmaps (and so none of an mTHP dump)."""
    match = STAT.fullmatch(line)
    known = match is not None and any(form.fullmatch(match[1]) for form in (THP, CONT_OR_PARTIAL, SMAPS))
    return known or any(form.fullmatch(line) is not None for form in (MAPPINGS_HEAD, MAPPING))


def is_mthp(line: bytes) -> bool:
    """Whether ``line`` can be a line of a dump of the mTHP counters."""
    return COUNTER.fullmatch(line) is not None or SETTING.fullmatch(line) is not None


def _order(source: Lines, lineno: int, text: bytes, size_kb: int) -> int:
    """Returns the order of a folio of `size_kb` kB. Raises InputError if it is no order above 0."""
    pages, rest = divmod(size_kb, PAGE_KB)
    if rest or pages < 2 or pages & (pages - 1):
        raise source.bad(lineno, text, "a size that is a power of two of 4 kB pages, at least 8 kB")
    return pages.bit_length() - 1


class _Thpmaps:
    """One pass over the file: the counts of the current snapshot."""

    def __init__(self, source: Lines, pid: int | None) -> None:
        self.source, self.pid = source, pid
        self.now: Counter[int] = Counter()
        self.lines = self.snapshots = 0
        self.seen: set[bytes] = set()  # labels since the last mapping
        self.wanted = pid is None
        self.pids: set[int] = set()

    def counts(self) -> Counter[int]:
        """Of the last snapshot that has a line."""
        last = self.now
        for lineno, text in self.source:
            if not text:
                if self.lines:
                    last = self.now
                self.now, self.lines, self.seen, self.wanted = Counter(), 0, set(), self.pid is None
                continue
            if not self.lines:
                self.snapshots += 1
            self.lines += 1
            self._line(lineno, text)
        return self.now if self.lines else last

    def _line(self, lineno: int, text: bytes) -> None:
        """Read one line: a mapping, or a counter of the mapping before it."""
        if self.lines == 1 and MAPPINGS_HEAD.fullmatch(text):
            return
        if mapping := MAPPING.fullmatch(text):
            self.seen.clear()
            self.pids.add(int(mapping[1]))
            self.wanted = self.pid in (None, int(mapping[1]))
            return
        match = STAT.fullmatch(text)
        if match is None or not is_thpmaps(text):
            raise self.source.bad(lineno, text, THPMAPS_EXPECTED)
        label, kb = match[1], int(match[2])
        if label in self.seen:
            raise self.source.bad(lineno, text, "each line once a mapping, once with --rollup")
        self.seen.add(label)
        thp = THP.fullmatch(label)
        if thp is None:
            return
        size = int(thp[1])
        order = _order(self.source, lineno, text, size)
        if kb % size:
            raise self.source.bad(lineno, text, f"a multiple of {size} kB")
        if self.wanted:
            self.now[order] += kb // size


def _sniff_maps(head: Head) -> bool:
    return is_thpmaps(next((line for line in head.lines if line), b""))


def _sniff_mthp(head: Head) -> bool:
    return is_mthp(head.lines[0])


def _read_maps(path: Path, kind: Kind, only: Only, notes: list[str]) -> dict[int, int]:
    return thpmaps(path, only, notes)


def _read_mthp(path: Path, kind: Kind, only: Only, notes: list[str]) -> dict[int, int]:
    return mthp(path, notes)


THPMAPS = Format("thpmaps", "thpmaps --pid PID --rollup", ("orders",), _sniff_maps, _read_maps, parts=("pid",))
MTHP = Format(
    "mthp", "grep -r . /sys/kernel/mm/transparent_hugepage/hugepages-*/stats", ("orders",), _sniff_mthp, _read_mthp
)
