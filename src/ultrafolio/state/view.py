"""One role's view of a folio group: the sections it may read, as records for the rules, and the undo log."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ultrafolio.engine.records import Change, Rows
from ultrafolio.model.designs import GUEST_MEMFD, S390
from ultrafolio.model.guest_memfd.layout import MemfdState
from ultrafolio.model.layout import State, copy

from .sections import SEAL, Array, Meta
from .store import Answer, Patch


class Live(State):
    """A state of Rows, with the function that answers calls to other roles."""

    crossing: Any


class LiveMemfd(MemfdState):
    """As Live, of the design guest_memfd."""

    crossing: Any


LIVE: dict[str, type[Live] | type[LiveMemfd]] = {S390.name: Live, GUEST_MEMFD.name: LiveMemfd}
"""By design."""


class View:
    """A role's view of a group at the revisions that it last read.

    arrays     the state, zero where the role may not read;  seal: the ultravisor's section, which no rule reads
    live       the same as rows, for the rules
    log        undo log: changes since the last commit or rollback
    revisions  per readable section; -1 before it was first read
    """

    def __init__(self, meta: Meta, role: str) -> None:
        self.meta, self.role = meta, role
        self.sections, self.may = meta.sections, meta.sections.touched[role]
        self.arrays = meta.blank_state()
        self.seal: Array = meta.blank("seal") if "seal" in self.may.reads else np.zeros(0, SEAL)
        self.log: list[Change] = []
        self.live: Any = LIVE[meta.named](
            *(Rows(a, name, self.log) for name, a in zip(State._fields, self.arrays, strict=True))
        )
        self.revisions = dict.fromkeys(self.may.reads, -1)

    def update(self, revisions: dict[str, int], sections: dict[str, bytes]) -> None:
        """Enter the store's answer. The log must be empty."""
        for name, data in sections.items():
            self._write(name, np.frombuffer(data, self.sections.dtypes[name]))
        for name in self.revisions:
            if name in revisions:
                self.revisions[name] = revisions[name]

    def _write(self, section: str, data: Array) -> None:
        """Set a section of the view to stored data."""
        if section == "seal":
            self.seal[:] = data
        else:
            self.sections.enter(section, data, self.arrays, self.meta.who["kind"])

    def seen(self, beside: Mapping[str, bytes]) -> State:
        """Returns a copy of the arrays, with the sections `beside` replaced by these bytes."""
        made = copy(self.arrays)
        for name, data in beside.items():
            self.sections.enter(name, np.frombuffer(data, self.sections.dtypes[name]), made, self.meta.who["kind"])
        return made

    def section(self, name: str) -> bytes:
        """Returns a section's data in the view."""
        return self.sections.cut(name, self.arrays, self.meta.who["kind"]).tobytes()

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
        section = self.sections.section(name, field, int(self.meta.who["kind"][at]) if name == "actor" else 0)
        if section not in self.may.writes:
            raise PermissionError(f"{self.role} may not write {section}")
        return section

    def _patch(self, section: str, at: int) -> Patch:
        """Returns the patch that stores record `at` of a section."""
        record = self.sections.cut(section, self.arrays, self.meta.who["kind"], slice(at, at + 1))
        return Patch(section, at * record.itemsize, record.tobytes())

    def committed(self, answer: Answer) -> None:
        """Empty the log, which the store now has, and enter the other changes in the answer."""
        self.log.clear()
        self.update(answer.revisions, answer.sections)
