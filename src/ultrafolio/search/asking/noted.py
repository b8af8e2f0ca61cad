"""A configuration record that notes what is asked of it: for each choice the values for which every test so far has the
result that it had.

The rules are plain functions that compare `s.cfg[0].CHOICE` with numbers, so every policy whose values are within what
was noted takes the same way through them.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any


class Noted:
    """The value of one choice. Each test of it narrows the box of its record; any other use, to the value itself."""

    __slots__ = ("_at", "_codes", "_known", "_record", "_value")

    def __init__(self, record: Record, at: int, codes: Sequence[int], value: int) -> None:
        self._record, self._at, self._codes, self._value = record, at, codes, codes[value]
        self._known: dict[tuple[Callable[[Any, Any], Any], Any], tuple[bool, int]] = {}

    def _tested(self, test: Callable[[Any, Any], Any], other: Any) -> bool:
        made = self._known.get((test, other))
        if made is None:
            result = bool(test(self._value, other))
            gone = sum(1 << v for v, code in enumerate(self._codes) if bool(test(code, other)) != result)
            made = self._known[test, other] = result, ~(gone << self._at)
        self._record.box &= made[1]
        return made[0]

    def __eq__(self, other: object) -> bool:
        return self._tested(operator.eq, other)

    def __ne__(self, other: object) -> bool:
        return self._tested(operator.ne, other)

    def __lt__(self, other: Any) -> bool:
        return self._tested(operator.lt, other)

    def __le__(self, other: Any) -> bool:
        return self._tested(operator.le, other)

    def __gt__(self, other: Any) -> bool:
        return self._tested(operator.gt, other)

    def __ge__(self, other: Any) -> bool:
        return self._tested(operator.ge, other)

    def __bool__(self) -> bool:
        return self._tested(operator.ne, 0)

    def __index__(self) -> int:
        self._tested(operator.eq, self._value)
        return self._value

    __int__ = __index__
    __hash__ = None  # type: ignore[assignment]


class Record:
    """Stands for `cfg[0]`: a Noted for each choice, a plain number for each other field.

    box  what was noted since begin(): a bit for each value of each choice, as a box of space.py
    """

    def __init__(
        self, fixed: Mapping[str, int], choices: Sequence[tuple[str, int, Sequence[int]]], values: Sequence[int]
    ) -> None:
        """choices: per choice its name, the position of its values in a box, and their numbers in the configuration;
        values: the number of one of them for each."""
        self.box = 0
        for name, value in fixed.items():
            setattr(self, name, value)
        for (name, at, codes), value in zip(choices, values, strict=True):
            setattr(self, name, Noted(self, at, codes, value))

    def begin(self) -> None:
        """Forget what was noted."""
        self.box = -1
