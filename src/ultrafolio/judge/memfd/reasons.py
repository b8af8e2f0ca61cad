"""Why the kernel's C and the rules differ where one operation runs alone, each with its source.

A difference that the rules mean to have is explained; a finding is one that they do not mean, and the rule differs. A
reason changes only what it names, so that any other difference stays.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from ultrafolio.model.guest_memfd.layout import (
    CONVERT_END,
    CONVERT_LOCK,
    CONVERT_STORE,
    CONVERT_TEST,
    FAULT_LOCK,
    FAULT_LOOKUP,
    FAULT_MAP,
    FAULT_UNLOCK,
    HOLE_PUNCH,
    HW_ASSIGNED,
    HW_HOST,
    HW_PRIVATE,
)

from .sequential import Compared, RunResult
from .watch import without

Again = Callable[[Compared], Compared]
Change = Callable[[Compared, Again], Compared]


@dataclass(frozen=True, slots=True)
class Reason:
    """A reason why C and rules differ. piece: the piece whose lines show it. rules: those that it is about. finding:
    the rules do not mean it."""

    name: str
    about: str
    piece: str
    operations: tuple[str, ...]
    rules: tuple[int, ...]
    change: Change
    finding: bool = False


def _kept(told: RunResult, keep: Callable[[str], bool], *fields: str) -> RunResult:
    """Returns the run with only those events for which `keep` is true, and without these fields."""
    return replace(told, events=tuple(e for e in told.events if keep(e)), final=without(told.final, *fields))


def _waits_for_references(pair: Compared, again: Again) -> Compared:
    """The rules wait where a page has a reference; without it they do what the C does, which drops the page."""
    if not pair.start.reference or pair.in_rules.end != "waits" or pair.in_c.end != "done":
        return pair
    other = again(replace(pair, start=replace(pair.start, reference=0)))
    in_c = _kept(pair.in_c, lambda event: event != "a reference of page 0 is dropped")
    return replace(pair, in_c=in_c, in_rules=other.in_rules)


def _without_the_lock(pair: Compared, again: Again) -> Compared:
    """The rules' invalidate lock is left out; where they wait for it, they do with a free lock what the C does."""
    if any("the invalidate lock" in event for event in pair.in_c.events):
        return pair
    rules = pair.in_rules
    if rules.end == "waits" and pair.start.lock != "free":
        rules = again(replace(pair, start=replace(pair.start, lock="free"))).in_rules
    kept = _kept(rules, lambda event: "the invalidate lock" not in event, "mutex")
    return replace(pair, in_c=replace(pair.in_c, final=without(pair.in_c.final, "mutex")), in_rules=kept)


def _another_lock(pair: Compared, again: Again) -> Compared:
    """The invalidate lock of the rules is read as the lock of the memory slots, which the C takes instead."""
    changed = _without_the_lock(pair, again)
    if changed == pair:
        return pair
    rules = (
        pair.in_rules
        if pair.start.lock == "free"
        else again(replace(pair, start=replace(pair.start, lock="free"))).in_rules
    )
    events = tuple(event.replace("the invalidate lock", "the lock of the memory slots") for event in rules.events)
    return replace(changed, in_rules=replace(changed.in_rules, events=events))


_LOOKUP = ("enters the file", "a reference of")


def _touches_no_file(pair: Compared, again: Again) -> Compared:
    """That the rules look the page up, and drop it again, is left out."""
    if any(word in event for event in pair.in_c.events for word in _LOOKUP):
        return pair
    in_rules = _kept(pair.in_rules, lambda event: not any(word in event for word in _LOOKUP), "allocated")
    return replace(pair, in_c=replace(pair.in_c, final=without(pair.in_c.final, "allocated")), in_rules=in_rules)


def _asks_early(pair: Compared, again: Again) -> Compared:
    """Of a fault that starts again on both sides, beside an invalidation: the look-up of the rules is left out."""
    both = (pair.in_c.end, pair.in_rules.end) == ("again", "again")
    return _touches_no_file(pair, again) if both and pair.start.invalidated else pair


def _keeps_the_frame(pair: Compared, again: Again) -> Compared:
    """Of a page that becomes shared: what the machine says of it is left out, if it is the host's for the rules, and
    for the C what it was."""
    held = {
        f"state of page {page}": _HELD[said]
        for page, said in enumerate(pair.start.pages[: pair.doing.pages])
        if said in _HELD
    }
    rules, c = dict(pair.in_rules.final), dict(pair.in_c.final)
    kept = all((rules[name], c[name]) == (HW_HOST, was) for name, was in held.items())
    if pair.start.machine == "software" or not kept:
        return pair
    return replace(
        pair,
        in_c=replace(pair.in_c, final=without(pair.in_c.final, *held)),
        in_rules=replace(pair.in_rules, final=without(pair.in_rules.final, *held)),
    )


_HELD = {"private": HW_ASSIGNED, "private mapped": HW_PRIVATE}
_CONVERT = ("to-private", "to-shared")
REASONS: tuple[Reason, ...] = (
    Reason("a-hole-waits", "a folio that is still referenced lives on outside the file; a state of the rules has no "
           "place for it, so their hole waits for the reference", "punch-hole", ("hole",), (HOLE_PUNCH,),
           _waits_for_references),
    Reason("another-lock", "attributes are of the virtual machine, under the lock of its memory slots; the rules have "
           "the attributes of the file, under its invalidate lock", "set-attributes", _CONVERT,
           (CONVERT_LOCK, CONVERT_TEST, CONVERT_END), _another_lock),
    Reason("no-lock-in-a-fault", "a fault takes no invalidate lock: what it finds while a hole is made is old by the "
           "sequence; the rules take it shared", "get-pfn", ("fault-private",), (FAULT_LOCK, FAULT_UNLOCK),
           _without_the_lock),
    Reason("another-frame", "a shared page is a frame of the process's own memory, with a lock and references of its "
           "own; the rules have one page for both frames", "fault-kind", ("fault-shared",), (FAULT_LOCK, FAULT_UNLOCK),
           _without_the_lock),
    Reason("another-page", "a shared fault makes no page in the file; the rules have one page for both frames",
           "fault-kind", ("fault-shared",), (FAULT_LOOKUP, FAULT_MAP), _touches_no_file),
    Reason("asks-early", "a fault asks before the look-up, too, whether its page is under invalidation; the rules ask "
           "once, as they map it", "fault-frame", ("fault-private",), (FAULT_LOOKUP,), _asks_early),
    Reason("keeps-the-frame", "with two backings the private frame stays in the file, and the machine's, after a "
           "conversion to shared, until a hole; the rules give it back to the host", "set-attributes", ("to-shared",),
           (CONVERT_STORE,), _keeps_the_frame, finding=True),
)  # fmt: skip


def reasons(pair: Compared, again: Again) -> tuple[Reason, ...] | None:
    """The reasons that make both sides equal, none if they are; None where the difference has no reason.

    again   runs the operation of a comparison on both sides once more
    """
    used: list[Reason] = []
    for reason in REASONS:
        if pair.equal:
            break
        if pair.doing.operation in reason.operations:
            changed = reason.change(pair, again)
            if changed != pair:
                used.append(reason)
                pair = changed
    return tuple(used) if pair.equal else None
