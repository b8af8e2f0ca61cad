"""Records of arrays as interpreted rules see them: read and written in place, with an undo log where asked for."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Change = tuple[str, int, str, int]
"""A field that was written: name of the array, record, field, value before."""


class Row:
    """One record of an array: its fields are plain integers. With a log, each write that changes a value enters the
    value before."""

    # The checker's and the store's records are of this class. engine.undo keeps copies of records instead, whose fields
    # are attributes: a read takes 35 ns there, and 1,050 ns here.
    __slots__ = ("_array", "_at", "_log", "_name")
    _array: Array
    _at: int
    _log: list[Change] | None
    _name: str

    def __init__(self, array: Array, at: int, name: str = "", log: list[Change] | None = None) -> None:
        put = object.__setattr__
        put(self, "_array", array)
        put(self, "_at", at)
        put(self, "_log", log)
        put(self, "_name", name)

    def __getattr__(self, field: str) -> int:
        return int(self._array[field][self._at])

    def __setattr__(self, field: str, value: int) -> None:
        column = self._array[field]
        if self._log is not None:
            before = int(column[self._at])
            if before == value:
                return
            self._log.append((self._name, self._at, field, before))
        column[self._at] = value


class Rows:
    """An array of records as rules see it; a Row is made when it is asked for."""

    __slots__ = ("_array", "_log", "_name", "_rows")

    def __init__(self, array: Array, name: str = "", log: list[Change] | None = None) -> None:
        self._array, self._name, self._log = array, name, log
        self._rows: dict[int, Row] = {}

    def __getitem__(self, at: int) -> Row:
        row = self._rows.get(at)
        if row is None:
            row = self._rows[at] = Row(self._array, at, self._name, self._log)
        return row

    def __len__(self) -> int:
        return len(self._array)
