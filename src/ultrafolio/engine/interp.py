"""The plain interpreter's state: a list of small objects per array of records, and the way to and from arrays."""

from __future__ import annotations

import functools
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T", bound=tuple[Any, ...])


@functools.cache
def _record(names: tuple[str, ...]) -> type:
    return type("Record", (), {"__slots__": names, "__doc__": "One record of an array, with the same field names."})


def _objects(array: np.ndarray[Any, Any]) -> list[Any]:
    names = array.dtype.names
    if names is None:
        return list(array.tolist())
    kind, made = _record(names), []
    for row in array.tolist():
        record = kind()
        for name, value in zip(names, row, strict=True):
            setattr(record, name, value)
        made.append(record)
    return made


def to_lists(arrays: T) -> T:
    """The same named tuple with a list in the place of each array: of objects, or of plain integers.

    Interpreted rules work on it; it shares nothing with the arrays.
    """
    make: Any = type(arrays)
    return make(*(_objects(array) for array in arrays))  # type: ignore[no-any-return]


def write_back(lists: T, arrays: T) -> T:
    """Write the lists' values into arrays of the same shape, and return these. OverflowError if one does not fit."""
    for array, rows in zip(arrays, lists, strict=True):
        names = array.dtype.names
        array[:] = [tuple(getattr(row, name) for name in names) for row in rows] if names else rows
    return arrays


class _Record:
    """One record of an array, read in place: its fields are plain integers."""

    __slots__ = ("_row",)

    def __init__(self, row: Any) -> None:
        self._row = row

    def __getattr__(self, name: str) -> int:
        return int(self._row[name])


class _Records:
    """An array of records whose records are made when they are asked for."""

    def __init__(self, array: np.ndarray[Any, Any]) -> None:
        self._array = array

    def __len__(self) -> int:
        return len(self._array)

    def __getitem__(self, at: int) -> _Record:
        return _Record(self._array[at])


def records(arrays: T) -> T:
    """The same named tuple with records to read in the place of each array, without a copy of it: for a look at a few
    records of large arrays."""
    make: Any = type(arrays)
    return make(*(_Records(array) for array in arrays))  # type: ignore[no-any-return]
