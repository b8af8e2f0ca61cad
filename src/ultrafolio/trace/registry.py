"""The lab's importers, and the choice of one for a file."""

from __future__ import annotations

import os

from ultrafolio.errors import InputError
from ultrafolio.trace import blocks, damon, fio, lackey, pageflags, pagemap, smaps, texts, thp
from ultrafolio.trace.importer import Head, Importer
from ultrafolio.trace.reader import Path, quoted, shown

REGISTRY: list[Importer] = [
    lackey.IMPORTER,
    fio.IMPORTER,
    blocks.BLKPARSE,
    texts.PERF,
    texts.TRACE_CMD,
    damon.IMPORTER,
    pageflags.LISTING,
    pageflags.RAW,
    pagemap.IMPORTER,
    thp.THPMAPS,
    thp.MTHP,
    smaps.IMPORTER,
]

CONTAINERS = {
    b"PERFILE2": ("the binary file of perf record", "perf script -i {} -F +pid,+addr > mine.perf"),
    b"2ELIFREP": ("the binary file of perf record", "perf script -i {} -F +pid,+addr > mine.perf"),
    b"\x17\x08\x44tracing": ("the binary file of trace-cmd record", "trace-cmd report {} > mine.trace"),
    b"\x07\x74\x61\x65": ("the binary file of blktrace", "blkparse -i {} > mine.blkparse"),
    b"\x65\x61\x74\x07": ("the binary file of blktrace", "blkparse -i {} > mine.blkparse"),
    b"\xfd7zXZ\x00": ("packed with xz", "xz -dk {}"),
    b"\x28\xb5\x2f\xfd": ("packed with zstd", "zstd -dk {}"),
    b"BZh": ("packed with bzip2", "bzip2 -dk {}"),
    b"PK\x03\x04": ("a zip archive", "unzip {}"),
    b"\xff\xfe": ("text in UTF-16, as PowerShell writes it", "iconv -f UTF-16 -t UTF-8 {} > mine.txt"),
    b"\xfe\xff": ("text in UTF-16, as PowerShell writes it", "iconv -f UTF-16 -t UTF-8 {} > mine.txt"),
    b"\xef\xbb\xbf": ("text with a byte order mark", "tail -c +4 {} > mine.txt"),
}
"""First bytes of a file in an unsupported form -> (its form, the command that converts it)."""


def importer_of(path: Path) -> Importer:
    """The importer for the file's format, detected from its start.

    Only the start is read (of binary words the whole file), so the rest may be malformed. Raises InputError, with the
    formats, for an unknown format, and as ``reader.open_stream`` for an unreadable file.
    """
    name = os.fspath(path)
    head = Head(path)
    for magic, (what, command) in CONTAINERS.items():
        if head.data.startswith(magic):
            raise InputError(
                f"{name}: this is {what}",
                allowed="text or /proc words, plain or packed with gzip",
                then=command.format(quoted(path)),
            )
    for importer in REGISTRY:
        if importer.sniff(head):
            return importer
    first = next((line for line in head.lines if line.strip()), b"")
    known = "; ".join(f"{importer.name} ({importer.made_by})" for importer in REGISTRY)
    raise InputError(
        f"{name}: the format of this recording is not known",
        value=shown(first),
        allowed=known,
        cause="it begins like none of the formats",
        then="ultrafolio trace formats",
    )
