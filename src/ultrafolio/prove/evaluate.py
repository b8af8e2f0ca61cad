"""What formulas are on one state of the interpreter, exactly; and the step that a path makes there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .loops import ANY
from .paths import Path
from .state import ORDER, Gather, Point
from .terms import BOUND, SIZE, Term, Value

PER_THREAD = ("task", "actor", "who")


@dataclass(slots=True)
class Concrete:
    """A state as lists of objects, the number of each named thread, and the values of other variables."""

    state: Any
    threads: Mapping[str, int]
    values: Mapping[str, int] = field(default_factory=dict)
    _done: dict[Term, int] = field(default_factory=dict)

    def number(self, value: Value) -> int:
        """The value of a formula; truth values are 0 or 1."""
        if not isinstance(value, Term):
            return int(value)
        found = self._done.get(value)
        if found is None:
            found = self._done[value] = self._operation(value)
        return found

    def holds(self, value: Value) -> bool:
        return bool(self.number(value))

    def _operation(self, term: Term) -> int:
        op, args = term.op, term.args
        number: Any = self.number
        match op:
            case "var" | "flag":
                return self._variable(args[0])  # type: ignore[arg-type]
            case "read":
                section, name = args[0].split(".")  # type: ignore[attr-defined]
                rows, index = getattr(self.state, section), number(args[1])
                # a part of a formula that does not count may name a page that is not there
                found = int(getattr(rows[index], name)) if 0 <= index < len(rows) else 0
                return int(found > 0) if args[0] == ORDER and _block(self.state) else found
            case "head" | "end":
                page = number(args[0])
                order = self.state.mm[page].order
                return int((page >> order << order) + ((1 << order) if op == "end" else 0))
            case "lin":
                return int(args[0] + sum(factor * number(part) for part, factor in args[1]))  # type: ignore
            case "eq0":
                return int(number(args[0]) == 0)
            case "le0":
                return int(number(args[0]) <= 0)
            case "ite" | "bite":
                return number(args[1] if number(args[0]) else args[2])  # type: ignore[no-any-return]
            case "and":
                return int(all(number(part) for part in args))
            case "or":
                return int(any(number(part) for part in args))
            case "not":
                return 1 - number(args[0])  # type: ignore[no-any-return]
            case "first" | "last" | "count" | "bits":
                return self._loop(op, *args)
            case "bit":
                return number(args[0]) >> number(args[1]) & 1  # type: ignore[no-any-return]
            case "set":
                return number(args[0]) | 1 << number(args[1])  # type: ignore[no-any-return]
            case "clear":
                return number(args[0]) & ~(1 << number(args[1]))  # type: ignore[no-any-return]
            case "xor":
                return number(args[0]) ^ number(args[1])  # type: ignore[no-any-return]
            case "block":
                order = self.state.cfg[0].block
                return number(args[0]) >> order << order  # type: ignore[no-any-return]
            case "pair":
                return number(args[0]) & ~1  # type: ignore[no-any-return]
            case "thread":
                return int(any(self.of(a).number(args[0]) for a in range(len(self.state.task))))  # type: ignore
        raise ValueError(f"unknown operation {op}")

    def _loop(self, op: str, low: Any, high: Any, body: Any, index: Any = 0, before: Any = 0) -> int:
        first, end = self.number(low), self.number(high)
        hits = [q for q in range(first, end) if self.at(q).number(body)]
        if op == "bits":
            made = self.number(before)
            for q in hits:
                made |= 1 << self.at(q).number(index)
            return made
        if op == "count":
            return len(hits)
        return (hits[0] if hits else max(first, end)) if op == "first" else hits[-1] if hits else first - 1

    def at(self, page: int) -> Concrete:
        """The same, with a loop at this page."""
        return Concrete(self.state, self.threads, {**self.values, BOUND: page})

    def of(self, thread: int) -> Concrete:
        """The same, with a loop over threads at this one."""
        return Concrete(self.state, {**self.threads, ANY: thread}, self.values)

    def _variable(self, name: str) -> int:
        if name in self.values:
            return self.values[name]
        first, _, rest = name.partition(".")
        if name == SIZE.args[0]:
            return 1 << int(self.state.cfg[0].block)
        if first == "cfg":
            return int(getattr(self.state.cfg[0], rest))
        if rest == "id":
            return self.threads[first]
        section, _, word = rest.partition(".")
        return int(getattr(getattr(self.state, section)[self.threads[first]], word))


def _block(state: Any) -> int:
    """Returns the order of the huge pages of a state. Formulas write 1 for any order above 0."""
    return int(getattr(state.cfg[0], "block", 0))


def stepped(path: Path, here: Concrete) -> dict[tuple[str, str, int], int]:
    """Every field that differs after the path's step from before it: (section, field, index) -> value.

    An order that a split or a merge sets is among them.
    """
    made: dict[tuple[str, str, int], int] = {}
    after, t = path.after, here.threads[path.after.thread]
    for name, value in after.own.items():
        section, word = name.split(".")
        made[section, word, t] = here.number(value)
    for entry in after.log:
        if isinstance(entry, Point):
            section, word = entry.field.split(".")
            index = here.number(entry.index)
            made[section, word, index] = here.number(after.read(entry.field, index))
            continue
        if isinstance(entry, Gather):
            section, word = entry.field.split(".")
            for q in range(here.number(entry.low), here.number(entry.high)):
                index = here.at(q).number(entry.index)
                made[section, word, index] = here.number(after.read(entry.field, index))
            continue
        for page in range(len(here.state.mm)):
            if not here.holds(entry.covers(page)):
                continue
            for name in entry.fields:
                section, word = name.split(".")
                made[section, word, page] = here.number(after.read(name, page))
    if _block(here.state):
        made |= {key: value * _block(here.state) for key, value in made.items() if ".".join(key[:2]) == ORDER}
    return {
        key: value for key, value in made.items() if int(getattr(getattr(here.state, key[0])[key[2]], key[1])) != value
    }


def changes(old: Any, new: Any) -> dict[tuple[str, str, int], int]:
    """Every field of two states of the interpreter that differs: (section, field, index) -> its value in `new`."""
    return {
        (section, word, index): int(getattr(row, word))
        for section in type(new)._fields
        for index, row in enumerate(getattr(new, section))
        for word in type(row).__slots__
        if getattr(row, word) != getattr(getattr(old, section)[index], word)
    }
