"""Large folios of one process from /proc/PID/smaps: what is mapped by a page-middle entry, as huge pages.

Smaller large folios do not show, and huge pages of hugetlb are another kind of memory. Source: fs/proc/task_mmu.c,
Documentation/filesystems/proc.rst.
"""

from __future__ import annotations

import os
import re

from ultrafolio.errors import InputError
from ultrafolio.trace.importer import U64, Format, Head, Kind, Only
from ultrafolio.trace.reader import Lines, Path, open_stream

MAPPING = re.compile(
    rb"([0-9a-f]{1,16})-([0-9a-f]{1,16}) [r-][w-][x-][ps] [0-9a-f]{8,16} [0-9a-f]{2,4}:[0-9a-f]{2,8} "
    rb"[0-9]{1,20}(?: +.*)?"
)
SIZE = re.compile(rb"([A-Z][A-Za-z_0-9]{1,30}): +([0-9]{1,15}) kB")
OTHER = re.compile(rb"(?:THPeligible|ProtectionKey): +[0-9]+|VmFlags:(?: [a-z0-9]{2})* ?")
HUGE = (b"AnonHugePages", b"ShmemPmdMapped", b"FilePmdMapped")
EXPECTED = "a mapping 'start-end perms offset device inode path', 'Name: <n> kB', THPeligible, ProtectionKey or VmFlags"
HUGE_KB = (2048, 1024)
"""What one page-middle entry maps: 2 MiB on x86-64 and arm64 with 4 KiB pages, 1 MiB on s390x."""
PAGE_KB = 4
RECORD = "cat /proc/PID/smaps > mine.smaps"


def huge_pages(path: Path, notes: list[str]) -> dict[int, int]:
    """Order → number of folios that are mapped as huge pages, anonymous, shared or of files; at most one order.

    It is 9 (2 MiB), or 8 where a size is no multiple of 2 MiB (then the machine is an s390x). Summed over mappings.
    InputError for a malformed line, mappings that go back (several processes in one file), pages of another size
    than 4 kB under a huge page, and where no huge page is mapped.
    """
    sizes: list[int] = []
    end, page_kb, name = 0, PAGE_KB, os.fspath(path)
    with open_stream(path) as stream:
        source = Lines(path, stream, notes)
        for lineno, text in source:
            if mapping := MAPPING.fullmatch(text):
                start, limit = int(mapping[1], 16), int(mapping[2], 16)
                if not end <= start < limit <= U64:
                    raise source.bad(
                        lineno,
                        text,
                        f"a mapping at or after {end:x}",
                        cause="several processes, or one several times, are in one file",
                        then=RECORD,
                    )
                end = limit
            elif size := SIZE.fullmatch(text):
                kb = int(size[2])
                page_kb = kb if size[1] == b"KernelPageSize" else page_kb
                if size[1] not in HUGE or not kb:
                    continue
                if kb % HUGE_KB[-1] or page_kb != PAGE_KB or not end:
                    raise source.bad(lineno, text, f"a multiple of {HUGE_KB[-1]} kB in a mapping of {PAGE_KB} kB pages")
                sizes.append(kb)
            elif not OTHER.fullmatch(text):
                raise source.bad(lineno, text, EXPECTED)
    if not sizes:
        raise InputError(
            f"{name}: no huge page is mapped",
            allowed=f"{', '.join(h.decode() for h in HUGE)} above 0",
            cause="smaps shows huge pages only, no smaller large folio",
            then="page-types --raw --list --pid PID > mine.page-types",
        )
    huge = HUGE_KB[0] if not any(kb % HUGE_KB[0] for kb in sizes) else HUGE_KB[1]
    notes.append(f"a huge page is taken as {huge} kB; smaps does not show smaller folios")
    return {(huge // PAGE_KB).bit_length() - 1: sum(sizes) // huge}


def _sniff(head: Head) -> bool:
    return MAPPING.fullmatch(head.lines[0]) is not None


def _read(path: Path, kind: Kind, only: Only, notes: list[str]) -> dict[int, int]:
    return huge_pages(path, notes)


IMPORTER = Format("smaps", RECORD, ("orders",), _sniff, _read)
