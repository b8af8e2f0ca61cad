"""What rules speak of beside formulas: the state, a record, a thread, an order; and how a block ends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from .terms import Value


@dataclass(frozen=True, slots=True)
class Thread:
    """A thread as an index: `name` stands before its fields in variables."""

    name: str


@dataclass(frozen=True, slots=True)
class Whole:
    """The state itself, the parameter `s`."""


@dataclass(frozen=True, slots=True)
class Record:
    """A record of a section, as in `m = s.mm[p]`."""

    section: str
    index: Any


@dataclass(frozen=True, slots=True)
class Order:
    """The order of the folio of a page: what `p >> order << order` and `1 << order` are made of."""

    page: Value
    head: Value
    end: Value
    shifted: bool = False


@dataclass(frozen=True, slots=True)
class Level:
    """The order of a folio of a design whose folios are single pages (value 0) or huge pages (1), of any one order."""

    value: Value


@dataclass(frozen=True, slots=True)
class Blocks:
    """`page >> level`, and `more` behind it: what `<< level` makes a page of again."""

    page: Value
    level: Level
    more: int = 0


@dataclass(frozen=True, slots=True)
class OneBit:
    """`value << index` of a truth value: at most one bit. complement: all bits but this one."""

    value: Value
    index: Value
    complement: bool = False


@dataclass(frozen=True, slots=True)
class Shifted:
    """`value >> by`, of which the lowest bit may be asked."""

    value: Value
    by: Value


LATER = "later"
"""A value that is not looked at: what a turn of a loop returns that does more than return."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a block ended before its last statement: "return" with a value, or "break"."""

    how: Literal["return", "break"]
    value: Any = None


Env = dict[str, Any]
"""Local names and what they stand for."""
