"""A state that records its reads and writes, and the events of a step made from them, which compare C and rules.

The record is made in the same way for a primitive of the kernel and for a step of a rule.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from ..model.layout import MAPPED, NO_WRITEBACK, PAGE_STATES, SECTIONS, State

WATCHED = ("uv", "mm", "pt", "io")
UNSEEN = {"granted", "marked", "walked", "cleaned"}
"""Fields that the kernel lacks: they serve properties, or stand for the page-table lock."""


@dataclass(frozen=True, slots=True)
class Look:
    """One read or write of a field; for a read `old` and `new` are the same."""

    section: str
    at: int
    field: str
    old: int
    new: int
    wrote: bool


class Record:
    """A record with integer fields; appends its reads and writes to a list while one is set."""

    __slots__ = ("_at", "_section", "_values", "_watch")
    _at: int
    _section: str
    _values: dict[str, int]
    _watch: list[list[Look] | None]

    def __init__(self, section: str, at: int, values: dict[str, int], watch: list[list[Look] | None]) -> None:
        object.__setattr__(self, "_section", section)
        object.__setattr__(self, "_at", at)
        object.__setattr__(self, "_values", values)
        object.__setattr__(self, "_watch", watch)

    def __getattr__(self, name: str) -> int:
        value = self._values[name]
        looks = self._watch[0]
        if looks is not None:
            looks.append(Look(self._section, self._at, name, value, value, False))
        return int(value)

    def __setattr__(self, name: str, value: int) -> None:
        old = self._values[name]
        self._values[name] = int(value)
        looks = self._watch[0]
        if looks is not None:
            looks.append(Look(self._section, self._at, name, int(old), int(value), True))


class Watched:
    """A state of records, copied from arrays; `copy` is cheap, and `key` is equal for equal states. It is of the design
    whose records and state a class names: here s390."""

    sections: Mapping[str, Any] = SECTIONS
    of: type[State] = State

    def __init__(self, arrays: State | None) -> None:
        self._watch: list[list[Look] | None] = [None]
        if arrays is not None:
            self.values = {
                name: [
                    dict(zip(self.sections[name].names or (), map(int, row.tolist()), strict=True))
                    for row in getattr(arrays, name)
                ]
                for name in self.sections
            }
            self._wrap()

    def _wrap(self) -> None:
        """Make the state from the values, as records that note each look."""
        self.state = self.of(
            **{
                name: [Record(name, at, row, self._watch) for at, row in enumerate(rows)]
                for name, rows in self.values.items()
            }
        )

    def copy(self) -> Self:
        """An independent copy; the constants of the system are shared."""
        other = type(self)(None)
        other.values = {
            name: rows if name in ("cfg", "who") else [dict(row) for row in rows] for name, rows in self.values.items()
        }
        other._wrap()
        return other

    def start(self) -> None:
        """Start to record reads and writes."""
        self._watch[0] = []

    def stop(self) -> list[Look]:
        """Stop, and return the reads and writes since start()."""
        looks = self._watch[0] or []
        self._watch[0] = None
        return looks

    def key(self, *sections: str) -> tuple[tuple[int, ...], ...]:
        """The values of these sections without UNSEEN fields. Plain references are summed over the folio, as in the
        kernel."""
        plain: dict[int, int] = {}
        for page, row in enumerate(self.values["mm"]):
            head = page >> row["order"] << row["order"]
            plain[head] = plain.get(head, 0) + row["spec"]
        return tuple(
            tuple(plain.get(at, 0) if name == "spec" else value for name, value in row.items() if name not in UNSEEN)
            for section in sections
            for at, row in enumerate(self.values[section])
        )


_INSIDE = ("? no", "? yes", "? set", "? clear", "of order 0", "references", "is dirty")


def without(key: tuple[tuple[int, ...], ...], *fields: str) -> tuple[tuple[int, ...], ...]:
    """A key() of all shared sections with these fields as 0: fields of `mm` and `pt`, "flying" of `io`, or "uv" for all
    of that section."""
    pages = len(key) // len(WATCHED)
    cut = []
    for at, row in enumerate(key):
        section = WATCHED[at // pages]
        names = [name for name in SECTIONS[section].names or () if name not in UNSEEN]
        cut.append(
            tuple(0 if name in fields or section in fields else value for name, value in zip(names, row, strict=True))
        )
    return tuple(cut)


def differences(one: tuple[tuple[int, ...], ...], other: tuple[tuple[int, ...], ...]) -> list[str]:
    """The fields in which two keys of all shared sections differ, in words: the first's value, then the other's."""
    pages = len(one) // len(WATCHED)
    found = []
    for at, (left, right) in enumerate(zip(one, other, strict=True)):
        section, page = WATCHED[at // pages], at % pages
        names = [name for name in SECTIONS[section].names or () if name not in UNSEEN]
        found += [
            f"{name} of page {page} is {a}, in the C {b}"
            for name, a, b in zip(names, left, right, strict=True)
            if a != b
        ]
    return found


def events(looks: list[Look]) -> list[str]:
    """The events of one step, in order: each change of shared state, and each test that decides the step.

    A step is atomic: no other thread sees the order of its writes. An unlock comes last."""
    written = {(k.section, k.at, k.field) for k in looks if k.wrote}
    found: list[str] = []
    last: list[str] = []
    calls = [k for k in looks if k.section == "uv"]
    for at, look in enumerate(looks):
        if look.section == "uv":
            if look is calls[0]:
                found.append(_call(calls))
            continue
        if look.section not in WATCHED:
            continue
        text = _change(look) if look.wrote else "" if _adds(looks, at) else _test(look, written)
        if last and not text.endswith(_INSIDE) and text:
            found += last
            last = []
        if text.startswith("unlock"):
            last.append(text)
        elif text and (not found or found[-1] != text):
            found.append(text)
    return found + last


def _adds(looks: list[Look], at: int) -> bool:
    """Whether a read is the first half of an addition: the next look writes the same field."""
    look, after = looks[at], looks[at + 1] if at + 1 < len(looks) else None
    return (
        after is not None
        and after.wrote
        and (look.section, look.at, look.field) == (after.section, after.at, after.field)
    )


def joined(found: list[str]) -> tuple[str, ...]:
    """The events of a whole run: a test that is repeated at once counts once, and a freeze that is undone in the next
    step is left out, since other threads cannot see it."""
    kept: list[str] = []
    for event in found:
        if kept and kept[-1] == event:
            continue
        if kept and event.startswith("thaw") and kept[-1] == event.replace("thaw", "freeze"):
            kept.pop()
            continue
        kept.append(event)
    return tuple(kept)


def _call(looks: list[Look]) -> str:
    """Returns in words what an ultravisor call did to its page."""
    page = looks[0].at
    before = next((k.old for k in looks if k.field == "state"), None)
    after = next((k.new for k in reversed(looks) if k.field == "state" and k.wrote), before)
    if before is None:
        return f"call for page {page}: refused"
    return f"call for page {page}: {PAGE_STATES[before]} -> {PAGE_STATES[after if after is not None else before]}"


def _change(look: Look) -> str:
    """Returns in words what a write changed; "" if it is told otherwise."""
    at, new, old = look.at, look.new, look.old
    words = {
        "locked": f"lock folio {at}" if new else f"unlock folio {at}",
        "frozen": f"freeze folio {at}" if new else f"thaw folio {at}",
        "writeback": ["starts", "", "ends"][(new == NO_WRITEBACK) * 2 or new - 1]
        and (f"writeback of folio {at} {'ends' if new == NO_WRITEBACK else 'starts'}"),
        "arch": f"set the bit of page {at}" if new else f"clear the bit of page {at}",
        "dirty": f"folio {at} is {'dirty' if new else 'clean'}",
        "batch": f"drain page {at}",
        "order": f"page {at} is a folio of order {new}",
        "pins": f"pin page {at}" if new > old else f"unpin page {at}",
        "longs": f"pin page {at}" if new > old else f"unpin page {at}",
        "spec": "take a reference" if new > old else "drop a reference",
        "flying": f"I/O of page {at} {'starts' if new > old else 'ends'}",
        "present": f"map page {at}" if new == MAPPED else f"unmap page {at}",
    }
    return words.get(look.field, "") if new != old or look.field not in ("dirty", "present") else ""


def _test(look: Look, written: set[tuple[str, int, str]]) -> str:
    """Returns in words what a read tested; "" for a read that tests nothing."""
    if look.field == "refs" and not any(field == "frozen" for _, _, field in written):
        return f"folio {look.at} has {look.old} other references"
    if (look.section, look.at, look.field) in written:
        return ""
    if look.field == "locked" and look.old:
        return f"folio {look.at} is locked"
    if look.field == "writeback":
        return f"folio {look.at} in writeback? {'no' if look.old == NO_WRITEBACK else 'yes'}"
    if look.field == "arch":
        return f"bit of page {look.at}? {'set' if look.old else 'clear'}"
    return ""
