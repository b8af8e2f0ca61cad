"""One role's view of a folio group: the sections it may read, as records for the rules, and the undo log."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ultrafolio.engine.records import Change, Rows
from ultrafolio.model.layout import State, copy

from .sections import DTYPES, MAY_READ, MAY_WRITE, Array, Meta, is_guest, join
from .store import Answer, Patch


class Live(State):
    """A state of Rows, with the function that answers calls to other roles."""

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
    """A role's view of a group at the revisions that it last read.

    arrays     the state, zero where the role may not read;  seal: the ultravisor's section, which no rule reads
    live       the same as rows, for the rules
    log        undo log: changes since the last commit or rollback
    revisions  per readable section; -1 before it was first read
    """

    def __init__(self, meta: Meta, role: str) -> None:
        self.meta, self.role = meta, role
        self.arrays, self.seal = join(meta, {}), meta.blank("seal")
        self.log: list[Change] = []
        self.live = Live(*(Rows(a, name, self.log) for name, a in zip(State._fields, self.arrays, strict=True)))
        self.revisions = dict.fromkeys(MAY_READ[role], -1)

    def update(self, revisions: dict[str, int], sections: dict[str, bytes]) -> None:
        """Enter the store's answer. The log must be empty."""
        for name, data in sections.items():
            self._write(name, np.frombuffer(data, DTYPES[name]))
        for name in self.revisions:
            if name in revisions:
                self.revisions[name] = revisions[name]

    def _write(self, section: str, data: Array) -> None:
        """Set a section of the view to stored data."""
        if section == "seal":
            self.seal[:] = data
        else:
            _enter(self.arrays, self.meta, section, data)

    def seen(self, beside: Mapping[str, bytes]) -> State:
        """Returns a copy of the arrays, with the sections `beside` replaced by these bytes."""
        made = copy(self.arrays)
        for name, data in beside.items():
            _enter(made, self.meta, name, np.frombuffer(data, DTYPES[name]))
        return made

    def section(self, name: str) -> bytes:
        """Returns a section's data in the view."""
        data: Array = self.arrays.task["pc"] if name == "pc" else getattr(self.arrays, name)
        return data.tobytes()

    def rollback(self, mark: int = 0) -> None:
        """Undo the changes after the first `mark` entries of the log."""
        while len(self.log) > mark:
            name, at, field, before = self.log.pop()
            getattr(self.arrays, name)[field][at] = before

    def pending(self) -> set[str]:
        """The stored sections that were changed since the last commit or rollback."""
        return {self._section(name, at, field) for name, at, field, _ in self.log}

    def patches(self) -> list[Patch]:
        """Returns the changed records per stored section. PermissionError for a section that the role may not write."""
        changed = {(self._section(name, at, field), at) for name, at, field, _ in self.log}
        return [self._patch(section, at) for section, at in sorted(changed)]

    def _section(self, name: str, at: int, field: str) -> str:
        """Returns the stored section of a record's field. Raises PermissionError if the role may not write it."""
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
        """Returns the patch that stores record `at` of a section."""
        size = DTYPES[section].itemsize
        if section == "pc":
            return Patch(section, at, self.arrays.task["pc"][at].tobytes())
        record = getattr(self.arrays, "actor" if section == "work" else section)[at : at + 1]
        if section == "task":
            record = record.copy()
            record["pc"] = 0
        return Patch(section, at * size, record.tobytes())

    def committed(self, answer: Answer) -> None:
        """Empty the log, which the store now has, and enter the other changes in the answer."""
        self.log.clear()
        self.update(answer.revisions, answer.sections)
