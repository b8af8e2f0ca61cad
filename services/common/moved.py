"""Files with what a part keeps of a folio group outside of the store, one per ownership: contents move with the group.

A lone process keeps all groups in one file. With several replicas, the file of a group's owner is
FOLDER/owned/EPOCH-GROUP, in a folder that all replicas reach. A new owner copies the range of the group from the file
of the ownership that last had it complete, says so in the store, and removes the older ones. A former owner still has
an older file open: what it writes late, nobody reads.
"""

from __future__ import annotations

import errno
import os
import resource
import sys
from collections.abc import Callable
from pathlib import Path

import grpc

from services.common.groups import Held
from ultrafolio.errors import InputError
from ultrafolio.rpc.errors import StatusError

PIECE = 1 << 23
"""Bytes that are copied at a time; then the lease is renewed."""


def file_of(folder: Path, lone: Path, group: str, held: Held, start: int, length: int) -> Path:
    """Returns the file of this ownership, with the bytes of `group` at `start`, in the same places as in `lone`.

    lone: the file of a lone process. Raises NotOwner if the ownership ended meanwhile, StatusError (DATA_LOSS) if the
    file that should have the contents is missing.
    """
    if not held.of.epoch:
        return lone
    mine = _named(folder, held.of.epoch, group)
    mine.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    source = _named(folder, held.of.home, group) if held.of.home else lone
    if not source.exists() and held.of.home:
        raise _missing(group, source)
    _copy(source, mine, start, start + length, lambda: held.settle(group, held.of.home))
    held.settle(group, held.of.epoch)
    for epoch in range(held.of.home, held.of.epoch) if held.of.home else ():
        _named(folder, epoch, group).unlink(missing_ok=True)
    return mine


def prepare(folder: Path, replica: str) -> None:
    """Let this process open as many files as it owns groups. Raises InputError if a process without replicas would work
    in the folder of several."""
    if replica:
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    elif (folder / "owned").exists():
        raise InputError(
            "ULTRAFOLIO_DATA: several replicas keep their files there",
            value=str(folder),
            allowed="a folder of a lone process, or ULTRAFOLIO_REPLICATED=1",
            cause="a lone process would not find what they wrote",
        )


def _named(folder: Path, epoch: int, group: str) -> Path:
    return folder / "owned" / f"{epoch}-{group}"


def _missing(group: str, source: Path) -> StatusError:
    """Returns the error for a file that should have a group's contents, and is not there."""
    return StatusError(
        grpc.StatusCode.DATA_LOSS,
        "CONTENTS_MISSING",
        f"contents of group {group}: {source.name} is not in {source.parent}",
        allowed="a folder that all replicas reach (ULTRAFOLIO_DATA)",
        cause="the former owner keeps its files elsewhere, or they were removed",
    )


def _copy(source: Path, target: Path, start: int, end: int, copied: Callable[[], None]) -> None:
    """Copy a range of bytes, without its holes, to a new file; `copied` is called after each piece. Without a source
    the new file is empty."""
    with open(target, "wb", buffering=0, opener=_private) as into:
        if not source.exists():
            return
        with source.open("rb", buffering=0) as of:
            while (start := _data_after(of.fileno(), start)) < end:
                piece = os.pread(of.fileno(), min(PIECE, end - start), start)
                os.pwrite(into.fileno(), piece, start)
                start += len(piece)
                copied()


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)


def _data_after(file: int, offset: int) -> int:
    """Returns the first offset at or after `offset` that is in no hole of a file, sys.maxsize if none is."""
    try:
        return max(offset, os.lseek(file, offset, os.SEEK_DATA))
    except OSError as error:
        if error.errno == errno.ENXIO:
            return sys.maxsize
        raise
