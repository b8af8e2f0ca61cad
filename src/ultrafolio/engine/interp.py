"""The plain interpreter's state: a list of objects per array of records, and the conversion from and to arrays."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from .records import Rows

T = TypeVar("T", bound=tuple[Any, ...])


@functools.cache
def _record(names: tuple[str, ...]) -> type:
    """Returns the class of records with these fields."""
    return type("Record", (), {"__slots__": names, "__doc__": "One record of an array, with the same field names."})


@functools.cache
def values_of(names: tuple[str, ...]) -> Callable[[Any], Any]:
    """Returns the function from a record to the tuple of these fields."""
    values = operator.attrgetter(*names)
    return values if len(names) > 1 else lambda record: (values(record),)


def _objects(array: np.ndarray[Any, Any]) -> list[Any]:
    """Returns an array as a list of records, or of integers."""
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


def to_lists(arrays: T, known: Sequence[Any] = ()) -> T:
    """Returns a copy of the named tuple with a list instead of each array: of objects, or of integers. known: the first
    lists, of sections that no rule changes.

    Interpreted rules work on it. It shares nothing with the arrays.
    """
    make: Any = type(arrays)
    return make(*known, *(_objects(array) for array in arrays[len(known) :]))  # type: ignore[no-any-return]


def write_back(lists: T, arrays: T) -> T:
    """Write the lists' values into arrays of the same shape, and return them. Raises OverflowError if one does not
    fit."""
    for array, rows in zip(arrays, lists, strict=True):
        names = array.dtype.names
        array[:] = list(map(values_of(names), rows)) if names else rows
    return arrays


def records(arrays: T) -> T:
    """Returns a read-only view of the named tuple for interpreted rules, without a copy: for a few records of large
    arrays."""
    make: Any = type(arrays)
    return make(*(Rows(array) for array in arrays))  # type: ignore[no-any-return]
