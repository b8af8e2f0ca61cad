"""The intended differences between the kernel's C and the rules, each with its reason and its source.

A difference is explained if both runs are equal after the reason's change is applied to each. A reason changes only
the events and ends that it names, so any other difference remains visible.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from ..model.layout import MAPPED
from .sequential import Compared, RunResult
from .watch import without

Change = Callable[[Compared], Compared]
UNMAPS = ("reclaim", "unmap-lazy", "unmap-flush", "unmap-full")


@dataclass(frozen=True, slots=True)
class Reason:
    """A reason why C and rules differ. `piece`: the piece whose lines show it."""

    name: str
    about: str
    piece: str
    operations: tuple[str, ...]
    change: Change


def _events(told: RunResult, keep: Callable[[str], bool]) -> RunResult:
    """Returns the run with only those events for which `keep` is true."""
    return replace(told, events=tuple(e for e in told.events if keep(e)))


def _both(pair: Compared, change: Callable[[RunResult], RunResult]) -> Compared:
    """Returns the pair with both runs changed."""
    return replace(pair, in_c=change(pair.in_c), in_rules=change(pair.in_rules))


def _unmap_reference(pair: Compared) -> Compared:
    """The references that the kernel takes and drops itself are left out."""
    return replace(pair, in_c=_events(pair.in_c, lambda e: e not in ("take a reference", "drop a reference")))


def _lock_before_test(pair: Compared) -> Compared:
    """The rules test for writeback and take the lock in one step. If there is writeback, the kernel holds the lock: it
    waits with it, or drops it at once; the rules do not take it."""

    def change(told: RunResult) -> RunResult:
        kept = list(told.events)
        test = next((e for e in kept if "in writeback?" in e), "")
        lock = next((e for e in kept if e.startswith("lock folio")), "")
        if lock and test and kept.index(test) == kept.index(lock) + 1:
            kept.remove(test)
            kept.insert(kept.index(lock), test)
        idle = told.end == "kept" and all("lock folio" in e or "?" in e for e in kept)
        if test.endswith("yes") or idle:
            kept = [e for e in kept if "lock folio" not in e]
        if told.end == "waits for writeback":
            return replace(told, events=tuple(kept), final=without(told.final, "locked"))
        return replace(told, events=tuple(kept))

    return _both(pair, change)


def _large_has_no_bit(pair: Compared) -> Compared:
    """Of a large folio: the tests of the rules that find a bit clear are left out."""
    if pair.start.order == 0:
        return pair
    kept = _events(pair.in_rules, lambda e: not (e.startswith("bit of") and e.endswith("clear")))
    return replace(pair, in_rules=kept)


def _one_test_of_references(pair: Compared) -> Compared:
    """Of a folio that both keep: the tests of other references are left out, on both sides."""
    if pair.in_c.end != "kept" or pair.in_rules.end != "kept":
        return pair
    return _both(pair, lambda told: _events(told, lambda e: "other references" not in e))


def _pin_maps_for_write(pair: Compared) -> Compared:
    """Of a page that was not mapped writable: that its folio becomes writable and dirty is left out, on both sides."""
    if pair.start.writable and pair.start.present == MAPPED:
        return pair

    def change(told: RunResult) -> RunResult:
        kept = _events(told, lambda e: not e.endswith("is dirty"))
        return replace(kept, final=without(told.final, "writable", "dirty"))

    return _both(pair, change)


def _late_is_told_later(pair: Compared) -> Compared:
    """Both make the same refused call after the same events; the events after it may differ."""
    if not pair.start.refuses or pair.in_rules.end != "late":
        return pair

    def change(told: RunResult) -> RunResult:
        call = next((at for at, e in enumerate(told.events) if e.startswith("call")), len(told.events))
        return RunResult(told.events[: call + 1], "late", without(told.final, "locked", "flying"))

    return _both(pair, change)


def _skip_needs_two_tables(pair: Compared) -> Compared:
    """The kernel's fast walk drops the pin of a failed page and skips it, the rules keep the pin; the walk with locks,
    which is the same walk in the rules, refuses the page. A walk with the fix is not explained."""
    c, rules = pair.in_c, pair.in_rules
    meant = "skipped" if pair.operation == "pin-fast" else "refused"
    if not pair.start.refuses or (c.end, rules.end) != (meant, "done") or not c.events[-1:][0].startswith("unpin"):
        return pair
    return replace(
        pair,
        in_c=RunResult(c.events[:-1], "done", without(c.final, "pins", "refs")),
        in_rules=replace(rules, final=without(rules.final, "pins", "refs")),
    )


def _walks_twice(pair: Compared) -> Compared:
    """Both sides refuse a pin; the kernel's events are those of the rules twice."""
    c = pair.in_c
    half = len(c.events) // 2
    if (c.end, pair.in_rules.end) != ("refused", "refused") or c.events[:half] != c.events[half:]:
        return pair
    return replace(pair, in_c=replace(c, events=c.events[:half]))


_USELESS = ("take a reference", "folio 0 in writeback? no", "drop a reference")


def _busy_waits_for_nothing(pair: Compared) -> Compared:
    """Only after the call that found the ultravisor busy."""
    c = pair.in_c
    if not pair.start.busy or c.end != "again" or c.events[-3:] != _USELESS:
        return pair
    return replace(pair, in_c=replace(c, events=c.events[:-3]))


REASONS: tuple[Reason, ...] = (
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
    Reason("skip-needs-two-tables", "the bug that skips a page goes on with the next page table, and drops the pin of "
           "the page it skips; the rules skip one page and keep its pin, and do not tell the walk with locks apart, "
           "which refuses the page", "pin-fast", ("pin", "pin-fast"), _skip_needs_two_tables),
    Reason("walks-twice", "a page that the walk without locks gives up is tried again with locks; a pin is one walk in "
           "the rules", "pin-fast", ("pin-fast",), _walks_twice),
    Reason("busy-waits-for-nothing", "an import that found the ultravisor busy waits for a writeback that is not "
           "there, with a reference, as after every -EAGAIN; the rules end at once", "import-loop",
           ("import", "unshare"), _busy_waits_for_nothing),
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
