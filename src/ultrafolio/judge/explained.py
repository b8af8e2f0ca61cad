"""The differences between the kernel's C and the rules that are meant, each with its reason and its source.

A difference is explained when both runs are equal once the reason's own change is made to each. A reason changes no
more than the events and ends that it speaks of, so any other difference beside it still shows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from .sequential import Compared, Told

Change = Callable[[Compared], Compared]
UNMAPS = ("reclaim", "unmap-lazy", "unmap-flush", "unmap-full")


@dataclass(frozen=True, slots=True)
class Reason:
    """Why C and rules differ. `piece`: the piece whose lines show it."""

    name: str
    about: str
    piece: str
    operations: tuple[str, ...]
    change: Change


def _events(told: Told, keep: Callable[[str], bool]) -> Told:
    return replace(told, events=tuple(e for e in told.events if keep(e)))


def _both(pair: Compared, change: Callable[[Told], Told]) -> Compared:
    return replace(pair, in_c=change(pair.in_c), in_rules=change(pair.in_rules))


def _unmap_reference(pair: Compared) -> Compared:
    return replace(pair, in_c=_events(pair.in_c, lambda e: e not in ("take a reference", "drop a reference")))


def _lock_before_test(pair: Compared) -> Compared:
    """Lock and test for writeback in either order; where the test says yes, the lock was not taken or is kept."""

    def change(told: Told) -> Told:
        kept = list(told.events)
        test = next((e for e in kept if "in writeback?" in e), "")
        lock = next((e for e in kept if e.startswith("lock folio")), "")
        if test.endswith("no") and lock and abs(kept.index(test) - kept.index(lock)) == 1:
            kept.remove(test)
            kept.insert(kept.index(lock), test)
        if test.endswith("yes"):
            kept = [test]
            return replace(told, events=tuple(kept), final=())
        if told.end == "kept" and len(kept) <= 3:
            kept = [e for e in kept if "lock folio" not in e]
        return replace(told, events=tuple(kept))

    return _both(pair, change)


def _large_has_no_bit(pair: Compared) -> Compared:
    if pair.start.order == 0:
        return pair
    return replace(
        pair, in_rules=_events(pair.in_rules, lambda e: not (e.startswith("bit of") and e.endswith("clear")))
    )


def _one_test_of_references(pair: Compared) -> Compared:
    if pair.in_c.end != "kept" or pair.in_rules.end != "kept":
        return pair
    return _both(pair, lambda told: _events(told, lambda e: "other references" not in e))


def _pin_maps_for_write(pair: Compared) -> Compared:
    if pair.start.writable and pair.start.present == 1:
        return pair
    return _both(pair, lambda told: replace(_events(told, lambda e: not e.endswith("dirty")), final=()))


def _late_is_told_later(pair: Compared) -> Compared:
    if not pair.start.refuses or pair.in_rules.end != "late":
        return pair
    return _both(pair, lambda told: Told((), "", ()))


def _skip_needs_two_tables(pair: Compared) -> Compared:
    if not pair.start.refuses or pair.in_rules.end != "done":
        return pair
    return _both(pair, lambda told: Told((), "", ()))


def _feature_unknown(pair: Compared) -> Compared:
    if not pair.start.misc:
        return pair
    return _both(pair, lambda told: Told((), "", ()))


REASONS: tuple[Reason, ...] = (
    Reason("feature-unknown", "a machine moves the ownership of a page, and this kernel does not ask for it but "
           "exports first", "export-first", ("import", "unshare"), _feature_unknown),
    Reason("unmap-reference", "an unmap holds a reference of its own over its export; it also holds the page-table "
           "lock then, so no import is between its walk and its freeze", "convert", UNMAPS, _unmap_reference),
    Reason("lock-before-test", "the kernel locks the folio and then looks whether it is in writeback, in writeback's "
           "case waiting for its end with the lock; the rules look and lock in one step", "start-writeback",
           ("writeback", "reclaim"), _lock_before_test),
    Reason("large-has-no-bit", "a page of a large folio is never secure here, so the kernel returns before it looks at "
           "the bit, and the rules find it clear", "accessible", ("pin", "pin-fast", "writeback"), _large_has_no_bit),
    Reason("one-test-of-references", "reclaim asks for pins, and later for any reference; in the rules one test keeps "
           "the page", "reclaim-pinned", ("reclaim",), _one_test_of_references),
    Reason("pin-maps-for-write", "a pin for writing faults the page in for write; the rules map it, and leave it to "
           "the next import to make it writable, as a pin of a page that is only read does", "pin", ("pin", "pin-fast"),
           _pin_maps_for_write),
    Reason("late-is-told-later", "an unmap ignores a refused export, and the write to swap finds it too late; the "
           "rules end at the export", "unmap", UNMAPS, _late_is_told_later),
    Reason("skip-needs-two-tables", "the bug that skips a page shows where a range crosses page tables; an operation "
           "here is about one page, and the walk with locks refuses it", "pin-fast", ("pin", "pin-fast"),
           _skip_needs_two_tables),
)  # fmt: skip


def explain(pair: Compared) -> tuple[str, ...] | None:
    """The reasons that make both sides equal, none if they are; None where the difference has no explanation."""
    used: list[str] = []
    for reason in REASONS:
        if pair.equal:
            break
        if pair.operation in reason.operations:
            changed = reason.change(pair)
            if changed != pair:
                used.append(reason.name)
                pair = changed
    return tuple(used) if pair.equal else None
