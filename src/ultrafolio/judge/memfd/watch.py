"""The watched state of guest_memfd, and the events of one atomic step: what it changes, and which attribute it reads.

A step is atomic, so its events have one order, whatever the order of its writes.
"""

from __future__ import annotations

from ultrafolio.model.guest_memfd.layout import HW_WORDS, MAPPED, MAPPED_PRIVATE, SECTIONS, UNMAPPED, MemfdState

from ..watch import Look, Watched

KEPT = {
    "uv": ("state",),
    "mm": ("private", "allocated", "users", "locking", "zapped", "batch", "spec", "kvm", "pins", "longs", "refs"),
    "pt": ("present",),
    "vm": ("life", "mutex"),
}
"""The fields that C and rules are compared by; vm.fresh is of the threads, and forgotten as a fault ends."""
Key = tuple[tuple[str, int], ...]
_KINDS = {UNMAPPED: "", MAPPED: " as shared", MAPPED_PRIVATE: " as private"}


class MemfdWatched(Watched):
    """A watched state of the design guest_memfd."""

    sections = SECTIONS
    of = MemfdState

    def seen(self) -> Key:
        """The values that C and rules are compared by, each with its name."""
        return tuple(
            (f"{name} of page {at}" if section != "vm" else name, row[name])
            for section, names in KEPT.items()
            for at, row in enumerate(self.values[section])
            for name in names
        )


def without(key: Key, *fields: str) -> Key:
    """A key without these fields: of every page, as "allocated", or of one, as "allocated of page 0"."""
    return tuple((name, value) for name, value in key if not {name, name.split()[0]} & set(fields))


def differences(one: Key, other: Key) -> list[str]:
    """The fields in which two keys of the same state differ, in words: the first's value, then the other's."""
    return [
        f"{name} is {_word(name, value)}, in the C {_word(name, instead)}"
        for (name, value), (_, instead) in zip(one, other, strict=True)
        if value != instead
    ]


def _word(name: str, value: int) -> str:
    """Returns a field's value; of what the machine says of a page, and of how KVM maps it, the word."""
    words = {"state": HW_WORDS, "present": ("not mapped", "mapped as shared", "mapped as private")}.get(name.split()[0])
    return words[value] if words else str(value)


def events(looks: list[Look]) -> list[str]:
    """The events of one atomic step, in the one order."""
    found = [_change(look) for look in looks if look.wrote and look.old != look.new]
    if not any(look.wrote and look.section == "mm" and look.field in KEPT["mm"] for look in looks):
        found += [_asked(look) for look in looks if look.section == "mm" and look.field == "private"]
    told = dict.fromkeys(event for event in found if event)
    return [text for _, text in sorted(told, key=lambda event: event[0])]


def _says(look: Look) -> bool:
    """Whether a write is an event, or stores the attribute that the page has."""
    return look.old != look.new or look.field == "private"


Event = tuple[int, str]
"""The place of an event in the order of its step, and its words."""


def _asked(look: Look) -> Event:
    """Returns what a read of an attribute tells."""
    return 2, f"page {look.at} is {'private' if look.old else 'shared'}"


def _change(look: Look) -> Event | None:
    """Returns what a write changed; None if nothing that counts."""
    at, new, more = look.at, look.new, look.new > look.old
    events: dict[str, Event] = {
        "mutex": (0 if abs(new) > abs(look.old) else 13, _lock(look.old, new)),
        "zapped": (3 if new else 12, f"an invalidation of page {at} {'begins' if new else 'ends'}"),
        "present": (10 if new else 4, f"KVM {'maps' if new else 'unmaps'} page {at}{_KINDS.get(new, '')}"),
        "allocated": (7 if new else 5, f"page {at} {'enters' if new else 'leaves'} the file"),
        "users": (6, f"a process {'maps' if more else 'loses'} page {at}"),
        "private": (9, f"page {at} becomes {'private' if new else 'shared'}"),
        "spec": (8 if more else 11, f"a reference of page {at} is {'taken' if more else 'dropped'}"),
    }
    if look.field == "fresh":
        return (1, "a snapshot of the sequence") if more else None
    return events.get(look.field)


def _lock(old: int, new: int) -> str:
    """Returns in words what became of the invalidate lock: t + 1 of who holds it, or minus those that share it."""
    if new > 0 or old > 0:
        return f"the invalidate lock is {'taken' if new else 'given back'}"
    return f"the invalidate lock is {'shared' if new < old else 'shared no more'}"
