"""Atomic, durable writes of files, and the error for a failed write."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ultrafolio.errors import InputError


def unwritable(path: Path, error: OSError) -> InputError:
    """The error for a file or folder of a store that cannot be written, most often on a full disk."""
    return InputError(
        f"{path}: cannot be written",
        value=error.strerror or str(error),
        allowed="a folder with free space",
        cause="what is stored already is safe",
        then="make room, then repeat the same command: it resumes",
    )


def partial_of(path: Path) -> Path:
    """Where the new content of the file at `path` is written first: a hidden file beside it, which a user's NAME.tmp is
    not; what a killed process left there is written over."""
    return path.with_name(f".{path.name}.tmp")


def replace(path: Path, content: bytes) -> None:
    """Replace the file at ``path`` atomically and durably: readers and crashes see the old content or the new one."""
    with replacing(path) as partial:
        partial.write_bytes(content)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path to write to. On exit without an exception it replaces ``path`` atomically and durably."""
    partial = partial_of(path)
    try:
        yield partial
        with open(partial, "rb") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
        sync_folder(path.parent)
    except OSError as error:
        raise unwritable(path, error) from None
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable (fsync of the folder)."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
