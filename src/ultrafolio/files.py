"""Files that a plan names, and the folders to which a process is bound.

A user's command may open any file. A lab or a worker computes plans of other processes: it is bound to the folders in
ULTRAFOLIO_FILES (separated by colons; default: the shipped recordings and profiles), opens only regular files beneath
them, and its errors quote no content of a file.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from .errors import InputError

VARIABLE = "ULTRAFOLIO_FILES"
_CHECKOUT = Path(__file__).parent.parent.parent
SHIPPED = (_CHECKOUT / "traces", _CHECKOUT / "profiles")


def given(text: str) -> tuple[Path, ...]:
    """The folders that a value of VARIABLE names; SHIPPED for ""."""
    return tuple(Path(name) for name in text.split(":") if name) or SHIPPED


_here: ContextVar[tuple[Path, ...] | None] = ContextVar("folders of this thread", default=None)
_process: list[Path] = []
"""The folders to which this process is bound; empty: it is not bound."""


def bind(folders: Iterable[Path]) -> None:
    """Bind this process and its later forks to `folders`: they open files beneath these only."""
    _process[:] = _real(folders)


@contextmanager
def bound(folders: Iterable[Path]) -> Iterator[None]:
    """A context manager that binds this thread to `folders`."""
    before = _here.set(_real(folders))
    try:
        yield
    finally:
        _here.reset(before)


def _bound() -> tuple[Path, ...] | None:
    """Returns the folders to which this thread or this process is bound; None if it may read every file."""
    return _here.get() or tuple(_process) or None


def _real(folders: Iterable[Path]) -> tuple[Path, ...]:
    """Returns the folders' real paths (links resolved)."""
    return tuple(Path(os.path.realpath(folder)) for folder in folders)


def named(base: Path, name: str) -> Path:
    """The path of file `name`, relative to the folder `base`. In a bound process: its real path (links resolved).
    Raises InputError there for all but a regular file beneath a bound folder; the error does not tell whether the file
    exists.
    """
    path = base / name
    folders = _bound()
    if folders is None:
        return path
    try:
        real = Path(os.path.realpath(path))
        good = any(real.is_relative_to(folder) for folder in folders) and stat.S_ISREG(real.stat().st_mode)
    except (OSError, ValueError):
        good = False
    if not good:
        raise InputError(
            f"{name}: recording cannot be read",
            value="no regular file beneath the folders given",
            allowed="a file beneath those for recordings and profiles, relative to the plan's folder",
            cause="work for another process opens no other file",
            then=f"add its folder to {VARIABLE} at the lab and at the workers, or upload it",
        )
    return real


@contextmanager
def reading(path: Path, name: str) -> Iterator[None]:
    """A context manager for reading the file that `named` returned. In a bound process its InputErrors give the plan's
    name of the file and no content."""
    try:
        yield
    except InputError as error:
        if _bound() is None:
            raise
        told = (text.replace(str(path), name) for text in (error.what, error.allowed, error.cause))
        what, allowed, cause = told
        raise InputError(what, allowed=allowed, cause=cause) from None
    except (ValueError, OSError, EOFError) as error:
        if _bound() is None:
            raise
        raise InputError(f"{name}: recording cannot be read", cause=type(error).__name__) from None


if os.environ.get(VARIABLE):
    bind(given(os.environ[VARIABLE]))
