"""The state as Promela variables: which cells can change, the values of each, and its declaration.

A page's fields are arrays, `mm_arch[p]`; a thread's, actor's or machine's are single variables, `task0_pc`, since who
acts is known when a rule is read. A cell that no reachable rule changes is a constant and has no variable, so equal
model states are equal Promela states and nothing else is stored.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ultrafolio.export.promela.terms import Cell, Term, constant
from ultrafolio.model.layout import OWNERS, State

SINGLE = ("vm", "task", "actor")
_SHARED_LOCK = "mutex"
"""Below 0, it says how many share the lock."""


@dataclass(slots=True)
class _Held:
    """The known values of a cell: its initial value, the values written to it, and whether other values are
    possible."""

    first: int
    written: set[int] = field(default_factory=set)
    any: bool = False


class Cells:
    """Every mutable integer of the state, and the values that the translated rules write to it.

    Translating all reachable rules until `grown` stays False makes `values` cover every value a cell ever has: each
    rule was then specialised under sets that its own writes, and everybody else's, stay within.
    """

    def __init__(self, state: State) -> None:
        self.grown = False
        self._held: dict[Cell, _Held] = {}
        self._size = {name: len(getattr(state, name)) for name in OWNERS}
        self._types = {name: getattr(state, name).dtype for name in OWNERS}
        for section in OWNERS:
            array = getattr(state, section)
            for name in array.dtype.names:
                for index, value in enumerate(array[name].tolist()):
                    self._held[section, name, index] = _Held(value)
        # a count goes up once for each page of each device, each other reference, and each page's LRU batch
        counts = sum(max(1, n) for n in state.actor["n"].tolist()) + len(state.mm)
        self._bound = {"u1": 255, "u2": (1 << len(state.actor)) - 1, "i2": counts,
                       "i4": max(len(state.mm), len(state.actor) + 1)}  # fmt: skip

    def _of(self, section: str, name: str, index: int | None) -> list[_Held]:
        """Returns the cell, or all cells of the field for index None; none for an index that no run has: a rule is read
        for each value of a number, and would fail there."""
        at = range(self._size[section]) if index is None else (index,) if index < self._size[section] else ()
        return [self._held[section, name, i] for i in at]

    def values(self, section: str, name: str, index: int | None) -> frozenset[int] | None:
        """Returns the values of this cell, or of all cells of the field; None if they cannot be listed."""
        held = self._of(section, name, index)
        if any(h.any for h in held):
            return None
        return frozenset({h.first for h in held}.union(*(h.written for h in held)))

    def targets(self, cell: Cell) -> frozenset[int] | None:
        """Returns the rules to which a jump through `cell` may lead; the initial value means none."""
        held = self._held[cell]
        return None if held.any else frozenset(held.written - {held.first})

    def write(self, section: str, name: str, index: int | None, values: frozenset[int] | None) -> None:
        """Record that a rule writes one of `values` (None: any value) to this cell, or for index None to all of the
        field."""
        for held in self._of(section, name, index):
            if values is None:
                self.grown |= not held.any
                held.any = True
            elif not values <= held.written:
                self.grown = True
                held.written |= values

    def declared(self, section: str, name: str, index: int | None) -> bool:
        """Whether the cell has a variable: a page's field has one if it differs between pages or can change."""
        values = self.values(section, name, None if section not in SINGLE else index)
        return values is None or len(values) > 1

    def read(self, section: str, name: str, index: Term) -> Term:
        """Returns the term that reads the cell."""
        at = index.const
        if at is not None and at >= self._size[section]:
            return constant(0)
        values = self.values(section, name, at)
        if values is not None and len(values) == 1:
            return constant(next(iter(values)))
        reads = frozenset((name,)) | index.reads
        return Term(
            self.variable(section, name, index),
            values=values,
            reads=reads,
            cell=None if at is None else (section, name, at),
        )

    def variable(self, section: str, name: str, index: Term) -> str:
        """Returns the Promela name of a cell."""
        if section not in SINGLE:
            return f"{section}_{name}[{index.text}]"
        if index.const is None:
            raise ValueError(f"{section}.{name} at a place that is not known before the run")
        return f"{section}{index.const}_{name}"

    def declarations(self) -> list[str]:
        """Returns the declarations of the state, in the order of layout.SECTIONS."""
        lines = []
        for section in OWNERS:
            for name in self._types[section].names:
                if section not in SINGLE:
                    if self.declared(section, name, None):
                        first = ", ".join(str(h.first) for h in self._of(section, name, None))
                        size = self._size[section]
                        lines.append(f"{self._type(section, name, None)} {section}_{name}[{size}] = {{ {first} }};")
                    continue
                for index in range(self._size[section]):
                    if self.declared(section, name, index):
                        first = str(self._held[section, name, index].first)
                        kind = self._type(section, name, index)
                        lines.append(f"{kind} {section}{index}_{name} = {first};")
        return lines

    def _type(self, section: str, name: str, index: int | None) -> str:
        """Returns the smallest Promela type for the cell's values, or, if unlisted, for the field's range."""
        held = self._of(section, name, index)
        most = max(max({h.first, *h.written}) for h in held)
        least = min(min({h.first, *h.written}) for h in held)
        if any(h.any for h in held):
            most = max(most, self._bound[self._types[section][name].str[1:]])
            least = -most if name == _SHARED_LOCK else least
        if least < 0:
            return "short"
        elif most <= 1 and index is not None:
            return "bit"
        return "byte" if most <= 255 else "short" if most <= 32767 else "int"
