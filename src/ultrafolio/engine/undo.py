"""An undo log over a state of records: a step is undone, and its changes listed, at the cost of its writes."""

from __future__ import annotations

from typing import Any

_OF_A_PAGE = ("uv", "mm", "io", "pt")


class UndoLog:
    """The writes to a state (as lists) since the last `clear`. Replaces the state's records by records that log
    writes."""

    def __init__(self, live: Any) -> None:
        self._log: list[tuple[Any, str, int]] = []
        self._page: dict[int, int] = {}
        self._number: dict[int, int] = {}
        # the first two, cfg and who, never change
        for name in live._fields[2:]:
            section = getattr(live, name)
            kind = _logging_class(type(section[0]), self._log) if section else None
            section[:] = [_logging(kind, record) for record in section]
            if name in _OF_A_PAGE:
                self._page |= {id(record): at for at, record in enumerate(section)}
            self._number |= {id(record): len(self._number) + at for at, record in enumerate(section)}

    def pages(self) -> set[int]:
        """Returns the pages of which a uv, mm, io or pt record was written."""
        return {self._page[id(record)] for record, _, _ in self._log if id(record) in self._page}

    def clear(self) -> None:
        """Clear the log: the writes so far can no longer be undone."""
        self._log.clear()

    def mark(self) -> int:
        """Returns a mark for undo() and is_unchanged()."""
        return len(self._log)

    def is_unchanged(self, mark: int) -> bool:
        """Whether all values equal those at the mark."""
        first: dict[tuple[int, str], tuple[Any, int]] = {}
        for record, name, before in self._log[mark:]:
            first.setdefault((id(record), name), (record, before))
        return all(getattr(record, name) == before for (_, name), (record, before) in first.items())

    def changes(self, mark: int) -> tuple[tuple[int, str, int], ...]:
        """Returns what differs from the mark: number of the record, counted through the sections behind the first two;
        field; value now."""
        first: dict[tuple[int, str], tuple[Any, int]] = {}
        for record, name, before in self._log[mark:]:
            first.setdefault((self._number[id(record)], name), (record, before))
        return tuple(
            sorted(
                (number, name, now)
                for (number, name), (record, before) in first.items()
                if (now := getattr(record, name)) != before
            )
        )

    def undo(self, mark: int) -> None:
        """Undo the writes since the mark."""
        while len(self._log) > mark:
            record, name, before = self._log.pop()
            object.__setattr__(record, name, before)


def _logging(kind: Any, record: Any) -> Any:
    """Returns a copy of a record as an instance of a logging class."""
    made = kind()
    for name in record.__slots__:
        object.__setattr__(made, name, getattr(record, name))
    return made


def _logging_class(kind: Any, log: list[tuple[Any, str, int]]) -> type:
    """Returns a record class that appends every write to `log`; its slots are the fields."""

    def write(self: Any, name: str, value: int) -> None:
        log.append((self, name, getattr(self, name)))
        object.__setattr__(self, name, value)

    return type("Logging", (), {"__slots__": kind.__slots__, "__setattr__": write})
