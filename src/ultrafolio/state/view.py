"""One role's view of a folio group: the sections it may read, as records that rules run on, and what a step changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ultrafolio.model.layout import State, copy

from .sections import DTYPES, MAY_READ, MAY_WRITE, Array, Meta, is_guest, join
from .store import Answer, Patch

Change = tuple[str, int, str, int]
"""A field that was written: array of the state, record, field, value before."""


class Row:
    """One record of an array: fields read and written as plain integers; every write is noted with the old value."""

    __slots__ = ("_at", "_log", "_name", "_record")
    _record: Any
    _name: str
    _at: int
    _log: list[Change]

    def __init__(self, array: Array, name: str, at: int, log: list[Change]) -> None:
        put = object.__setattr__
        put(self, "_record", array[at : at + 1])
        put(self, "_name", name)
        put(self, "_at", at)
        put(self, "_log", log)

    def __getattr__(self, field: str) -> int:
        return int(self._record[field][0])

    def __setattr__(self, field: str, value: int) -> None:
        before = int(self._record[field][0])
        if before != value:
            self._log.append((self._name, self._at, field, before))
            self._record[field] = value


class Rows:
    """An array of records as rules see it."""

    __slots__ = ("_array", "_log", "_name", "_rows")

    def __init__(self, array: Array, name: str, log: list[Change]) -> None:
        self._array, self._name, self._log = array, name, log
        self._rows: dict[int, Row] = {}

    def __getitem__(self, at: int) -> Row:
        row = self._rows.get(at)
        if row is None:
            row = self._rows[at] = Row(self._array, self._name, at, self._log)
        return row

    def __len__(self) -> int:
        return len(self._array)


class Live(State):
    """A state of Rows, and beside it whoever answers calls across a wall."""

    crossing: Any


def _enter(arrays: State, meta: Meta, section: str, data: Array) -> None:
    """Write the data of a section into the arrays of a state."""
    if section == "pc":
        arrays.task["pc"] = data["pc"]
    elif section == "task":
        for field in data.dtype.names or ():
            if field != "pc":
                arrays.task[field] = data[field]
    elif section in ("actor", "work"):
        mine = np.array([is_guest(kind) == (section == "actor") for kind in meta.who["kind"]])
        arrays.actor[mine] = data[mine]
    else:
        getattr(arrays, section)[:] = data


class View:
    """What a role sees of a group, as of the revisions it last read.

    arrays     the state, zero where the role may not look;  seal: the ultravisor's own section, which no rule reads
    live       the same as rows, for rules to run on
    log        what was changed since the last commit or rollback
    revisions  per readable section; -1 before it was first read
    """

    def __init__(self, meta: Meta, role: str) -> None:
        self.meta, self.role = meta, role
        self.arrays, self.seal = join(meta, {}), meta.blank("seal")
        self.log: list[Change] = []
        self.live = Live(*(Rows(a, name, self.log) for name, a in zip(State._fields, self.arrays, strict=True)))
        self.revisions = dict.fromkeys(MAY_READ[role], -1)

    def update(self, revisions: dict[str, int], sections: dict[str, bytes]) -> None:
        """Take over what the store answered; nothing may be uncommitted."""
        for name, data in sections.items():
            self._write(name, np.frombuffer(data, DTYPES[name]))
        for name in self.revisions:
            if name in revisions:
                self.revisions[name] = revisions[name]

    def _write(self, section: str, data: Array) -> None:
        if section == "seal":
            self.seal[:] = data
        else:
            _enter(self.arrays, self.meta, section, data)

    def seen(self, beside: Mapping[str, bytes]) -> State:
        """A copy of the arrays, in which the sections `beside` are as these bytes say."""
        made = copy(self.arrays)
        for name, data in beside.items():
            _enter(made, self.meta, name, np.frombuffer(data, DTYPES[name]))
        return made

    def section(self, name: str) -> bytes:
        """A section's data as the view has it."""
        data: Array = self.arrays.task["pc"] if name == "pc" else getattr(self.arrays, name)
        return data.tobytes()

    def rollback(self, mark: int = 0) -> None:
        """Undo what was changed since the log had `mark` entries."""
        while len(self.log) > mark:
            name, at, field, before = self.log.pop()
            getattr(self.arrays, name)[field][at] = before

    def patches(self) -> list[Patch]:
        """The changed records, per stored section. PermissionError for a section that is not the role's to write."""
        changed = {(self._section(name, at, field), at) for name, at, field, _ in self.log}
        return [self._patch(section, at) for section, at in sorted(changed)]

    def _section(self, name: str, at: int, field: str) -> str:
        if name == "task" and field == "pc":
            section = "pc"
        elif name == "actor":
            section = "actor" if is_guest(int(self.meta.who["kind"][at])) else "work"
        else:
            section = name
        if section not in MAY_WRITE[self.role]:
            raise PermissionError(f"{self.role} may not write {section}")
        return section

    def _patch(self, section: str, at: int) -> Patch:
        size = DTYPES[section].itemsize
        if section == "pc":
            return Patch(section, at, self.arrays.task["pc"][at].tobytes())
        record = getattr(self.arrays, "actor" if section == "work" else section)[at : at + 1]
        if section == "task":
            record = record.copy()
            record["pc"] = 0
        return Patch(section, at * size, record.tobytes())

    def committed(self, answer: Answer) -> None:
        """Everything in the log stands in the store now, and perhaps more: then the answer has it."""
        self.log.clear()
        self.update(answer.revisions, answer.sections)
