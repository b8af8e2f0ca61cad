"""What was written to a state of records, so that a step can be taken back, and told, at the cost of what it wrote."""

from __future__ import annotations

from typing import Any

_OF_A_PAGE = ("uv", "mm", "io")


class Notes:
    """The writes to a state since the last `forget`, with the values before. Makes the state's records note them."""

    def __init__(self, live: Any) -> None:
        self._log: list[tuple[Any, str, int]] = []
        self._page: dict[int, int] = {}
        # the first two, cfg and who, never change
        for name in live._fields[2:]:
            section = getattr(live, name)
            kind = _noting_kind(type(section[0]), self._log) if section else None
            section[:] = [_noting(kind, record) for record in section]
            if name in _OF_A_PAGE:
                self._page |= {id(record): at for at, record in enumerate(section)}

    def pages(self) -> set[int]:
        """The pages of which a record was written."""
        return {self._page[id(record)] for record, _, _ in self._log if id(record) in self._page}

    def forget(self) -> None:
        """What was written so far stays."""
        self._log.clear()

    def mark(self) -> int:
        """A place to which `undo` goes back."""
        return len(self._log)

    def back(self, mark: int) -> bool:
        """Whether everything is as it was at the mark."""
        first: dict[tuple[int, str], tuple[Any, int]] = {}
        for record, name, before in self._log[mark:]:
            first.setdefault((id(record), name), (record, before))
        return all(getattr(record, name) == before for (_, name), (record, before) in first.items())

    def undo(self, mark: int) -> None:
        """Take back what was written since the mark."""
        while len(self._log) > mark:
            record, name, before = self._log.pop()
            object.__setattr__(record, name, before)


def _noting(kind: Any, record: Any) -> Any:
    made = kind()
    for name in record.__slots__:
        object.__setattr__(made, name, getattr(record, name))
    return made


def _noting_kind(kind: Any, log: list[tuple[Any, str, int]]) -> type:
    """The kind of record that enters every write in `log`; its slots are the fields."""

    def write(self: Any, name: str, value: int) -> None:
        log.append((self, name, getattr(self, name)))
        object.__setattr__(self, name, value)

    return type("Noting", (), {"__slots__": kind.__slots__, "__setattr__": write})
