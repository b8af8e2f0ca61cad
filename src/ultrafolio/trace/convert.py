"""Recordings written in a form that every importer of the lab reads: touches as lackey text, requests as an iolog."""

from __future__ import annotations

import os
from collections.abc import Iterator

from ultrafolio.errors import InputError
from ultrafolio.model.layout import PAGE_SHIFT
from ultrafolio.trace.importer import KINDS, Recording
from ultrafolio.trace.reader import Path

FILE = b"device"
"""The name of the one file of an iolog that is written here."""


def converted(recording: Recording, path: Path) -> bytes:
    """The text of ``recording``, which was read from ``path``; reading it again gives equal rows.

    A touch is one line of lackey, an access to the first byte of its page. A request is one line of an iolog,
    version 3. InputError for a folio layout, which has no such form.
    """
    if recording.kind == "orders":
        raise InputError(
            f"{os.fspath(path)}: a {KINDS[recording.kind]} cannot be saved",
            allowed="touches or requests",
            then="use the recording itself: --set orders=FILE",
        )
    return b"".join(_touches(recording) if recording.kind == "touches" else _requests(recording))


def _touches(recording: Recording) -> Iterator[bytes]:
    """Yields the lines of a lackey recording."""
    for page, write in recording.rows.tolist():
        yield b" %s %08x,1\n" % (b"S" if write else b"L", page << PAGE_SHIFT)


def _requests(recording: Recording) -> Iterator[bytes]:
    """Yields the lines of a fio iolog, version 3."""
    yield b"fio version 3 iolog\n0 %s add\n0 %s open\n" % (FILE, FILE)
    for time, write, offset, length in recording.rows.tolist():
        yield b"%d %s %s %d %d\n" % (time, FILE, b"write" if write else b"read", offset, length)
