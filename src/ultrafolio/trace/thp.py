"""The distribution of folio orders, from thpmaps or from the mTHP counters in sysfs.

thpmaps: the kernel's tools/mm/thpmaps, for one process, a cgroup or all (``--rollup`` or a list of
mappings), a line ``anon-thp-pte-aligned-64kB:   131072 kB ( 4%)`` a kind. mTHP counters: what ``grep -r .
/sys/kernel/mm/transparent_hugepage`` prints, a line ``path:value`` or ``path value`` a file. A page is 4 kB.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from itertools import chain

from ultrafolio.errors import InputError
from ultrafolio.trace.reader import Path, bad_line, lines, open_stream

PAGE_KB = 4

MAPPINGS_HEAD = re.compile(rb" +PID +START +END PROT +OFFSET +DEV +INODE OBJECT")
MAPPING = re.compile(
    rb"[0-9]{10,}: [0-9a-f]{16}-[0-9a-f]{16} [r-][w-][x-][ps] [0-9a-f]{8,} "
    rb"[0-9a-f]{2,}:[0-9a-f]{2,} [0-9a-f]{8,} .*"
)
STAT = re.compile(rb"([A-Za-z0-9_-]+): +([0-9]{1,18}) kB(?: \( *[0-9]+%\))?")
THP = re.compile(rb"(?:anon|file)-thp-(?:pte-aligned|pte-unaligned|pmd-aligned)-([0-9]{1,9})kB")
# Counted apart by the tool: blocks overlap the folios above, and a partly mapped folio shows no size.
CONT_OR_PARTIAL = re.compile(
    rb"(?:anon|file)-(?:cont-(?:pte|pmd)-aligned-[0-9]{1,9}kB|thp-pte-partial)"
)
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
    rb"transparent_hugepage/(?:khugepaged/)?[a-z_]+)(?::|[ \t]+)\S.*"
)
MTHP_EXPECTED = "'…hugepages-<size>kB/stats/<name>:<number>', or a setting under transparent_hugepage"


def order_distribution(path: Path) -> dict[int, int]:
    """Order → number of large folios, for the orders that occur, ascending; order 0 is never among them.

    thpmaps: fully mapped THPs, anonymous and file, aligned or not, mapped by PTE or PMD: their kB over
    their size, summed over all mappings (so a folio mapped twice counts twice). Partly mapped THPs and
    the ``cont`` blocks are left out. mTHP counters: ``nr_anon`` of every size; other files are checked
    and left out.

    Raises InputError for a malformed line, a size that is no power of two of pages, kB that are no
    multiple of the size, a line given twice (several snapshots in one file), a file cut in a line, and a
    recording without any large folio.
    """
    with open_stream(path) as stream:
        numbered = lines(path, stream)
        first = next(numbered)
        thpmaps = is_thpmaps(first[1])
        read = _thpmaps if thpmaps else _mthp
        counts = read(path, chain([first], numbered))
    found = {order: n for order, n in sorted(counts.items()) if n}
    if not found:
        raise InputError(
            f"{path}: no large folio is counted",
            allowed="a fully mapped THP" if thpmaps else "a stats/nr_anon above 0",
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


def _order(path: Path, lineno: int, text: bytes, size_kb: int) -> int:
    pages, rest = divmod(size_kb, PAGE_KB)
    if rest or pages < 2 or pages & (pages - 1):
        raise bad_line(path, lineno, text, "a size that is a power of two of 4 kB pages, at least 8 kB")
    return pages.bit_length() - 1


def _thpmaps(path: Path, numbered: Iterable[tuple[int, bytes]]) -> Counter[int]:
    counts: Counter[int] = Counter()
    seen: set[bytes] = set()  # labels since the last mapping
    for lineno, text in numbered:
        if lineno == 1 and MAPPINGS_HEAD.fullmatch(text):
            continue
        if MAPPING.fullmatch(text):
            seen.clear()
            continue
        match = STAT.fullmatch(text)
        if match is None or not is_thpmaps(text):
            raise bad_line(path, lineno, text, THPMAPS_EXPECTED)
        label, kb = match[1], int(match[2])
        if label in seen:
            raise bad_line(path, lineno, text, "each line once a mapping, once with --rollup")
        seen.add(label)
        thp = THP.fullmatch(label)
        if thp is None:
            continue
        size = int(thp[1])
        order = _order(path, lineno, text, size)
        if kb % size:
            raise bad_line(path, lineno, text, f"a multiple of {size} kB")
        counts[order] += kb // size
    return counts


def _mthp(path: Path, numbered: Iterable[tuple[int, bytes]]) -> Counter[int]:
    counts: Counter[int] = Counter()
    for lineno, text in numbered:
        match = COUNTER.fullmatch(text)
        if match is None:
            if SETTING.fullmatch(text) is None:
                raise bad_line(path, lineno, text, MTHP_EXPECTED)
            continue
        order = _order(path, lineno, text, int(match[1]))
        if match[2] != b"nr_anon":
            continue
        if order in counts:
            raise bad_line(path, lineno, text, "nr_anon once a size: one snapshot")
        counts[order] = int(match[3])
    return counts
