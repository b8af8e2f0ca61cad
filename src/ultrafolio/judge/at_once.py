"""The reasons for ends of concurrent operations that the C has and the rules lack, each with its check.

A reason names the other runs of the rules that must have the end, so it explains no other end.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from ..model.layout import IOMAP, MAPPED, WRITING
from .concurrent import End, Ruled, Together, Words
from .starts import Start
from .watch import differences, without

IMPORTS = ("import", "unshare")
PINS = ("pin", "pin-fast")


@dataclass(frozen=True, slots=True)
class Reason:
    """`holds`: whether this reason explains an end of the C. `piece`: the piece whose lines show it."""

    name: str
    about: str
    piece: str
    holds: Callable[[Together, End, Ruled, Ruled], bool]


def explain(found: Together, end: End, ruled: Ruled, fixed: Ruled) -> str | None:
    """The name of the reason for an end that only the C has, or None. `fixed`: the rules without the bug that a fast
    pin skips one page."""
    return next((reason.name for reason in REASONS if reason.holds(found, end, ruled, fixed)), None)


def _some(found: Together, told: Words, operations: Words, word: str) -> Iterator[Words]:
    """For every choice of threads that ran these operations and ended with `word`: their words, "" for the others."""
    able = [at for at, name in enumerate(found.operations) if name in operations and told[at] == word]
    for size in range(len(able) + 1):
        for chosen in itertools.combinations(able, size):
            yield tuple(word if at in chosen else "" for at in range(len(told)))


def _fault_is_a_step(found: Together, end: End, ruled: Ruled, fixed: Ruled) -> bool:
    """The end is an end of the rules from the page mapped for writing, after imports that only faulted have ended."""
    start = found.start
    if start.present == MAPPED and start.writable:
        return False
    mapped = replace(start, present=MAPPED, writable=1, dirty=1 if start.backing == IOMAP else start.dirty)
    return any(
        end in ruled.ends(mapped, found.operations, ended).ends for ended in _some(found, end[0], IMPORTS, "again")
    )


def _lock_before_test(found: Together, end: End, ruled: Ruled, fixed: Ruled) -> bool:
    """The end is an end of the rules beside a writeback that holds the folio lock and waits, at the start or end."""
    if found.start.writeback != WRITING or "waits" not in end[0]:
        return False
    held = replace(found.start, locked=1)
    if any(
        any(ended) and end in ruled.ends(held, found.operations, ended).ends
        for ended in _some(found, end[0], ("writeback",), "waits")
    ):
        return True
    at_last = {(told, without(state, "locked")) for told, state in found.in_rules.ends if told == end[0]}
    return "writeback" in found.operations and (end[0], without(end[1], "locked")) in at_last


def _skip_needs_two_tables(found: Together, end: End, ruled: Ruled, fixed: Ruled) -> bool:
    """The rules have the bug, and the end is one of the rules without it, with a skipped page as a refused pin. A fast
    walk that skips no page has the fix, and is not explained."""
    if fixed.policy == ruled.policy:
        return False
    for at, name in enumerate(found.operations):
        skips = any(told[at] == "skipped" for told, _ in found.in_c.ends)
        if name == "pin-fast" and end[0][at] == "refused" and not skips:
            return False
    told = _skipped_is_refused(end)
    refused = any(name in PINS and word == "refused" for name, word in zip(found.operations, told[0], strict=True))
    return refused and told in fixed.ends(found.start, found.operations).ends


def _skipped_is_refused(end: End) -> End:
    """Returns an end in which a page that was skipped counts as refused."""
    return tuple("refused" if word == "skipped" else word for word in end[0]), end[1]


def _late_is_told_later(found: Together, end: End, ruled: Ruled, fixed: Ruled) -> bool:
    """The rules have the same end, except for a reclaim that ends when its export is refused; or they have it with an
    export that is not refused, and an unchanged page."""
    if not found.start.refuses or "reclaim" not in found.operations:
        return False
    end = _skipped_is_refused(end)

    def told(one: End) -> End:
        words = tuple(
            "late" if name == "reclaim" else word for name, word in zip(found.operations, one[0], strict=True)
        )
        return words, without(one[1], "locked", "flying", "present")

    def kept(one: End) -> End:
        return one[0], without(one[1], "arch", "uv")

    granted = replace(found.start, refuses=0)
    changed = {said.split()[0] for said in differences(end[1], before(found.start, ruled))}
    as_before = not changed & {"state", "owner", "shared", "arch"}
    return any(
        told(end) in {told(one) for one in some.ends(found.start, found.operations).ends}
        or (as_before and kept(end) in {kept(one) for one in some.ends(granted, found.operations).ends})
        for some in (ruled, fixed)
    )


def _put_after_unlock(found: Together, end: End, ruled: Ruled, fixed: Ruled) -> bool:
    """Two imports of a large folio both give up, and at most a drain happened."""
    if not found.start.order or any(name not in IMPORTS for name in found.operations) or set(end[0]) != {"again"}:
        return False
    return all(said.split()[0] in ("batch", "refs") for said in differences(end[1], before(found.start, ruled)))


def before(start: Start, ruled: Ruled) -> tuple[tuple[int, ...], ...]:
    """The shared state of a start."""
    (only,) = ruled.ends(start, ("import",), ("again",)).ends
    return only[1]


REASONS: tuple[Reason, ...] = (
    Reason("fault-is-a-step", "an access finds the entry missing or read-only, and later faults the page in; the rules "
           "do both in one step", "import-loop", _fault_is_a_step),
    Reason("lock-before-test", "writeback locks the folio and waits for an older writeback with the lock; the rules "
           "wait without it", "start-writeback", _lock_before_test),
    Reason("skip-needs-two-tables", "the bug that skips a page drops its pin; the rules keep the pin, and do not tell "
           "the walk with locks apart, which refuses the page", "pin-fast", _skip_needs_two_tables),
    Reason("late-is-told-later", "an unmap ignores a refused export and reclaim goes on; the rules end at the export",
           "unmap", _late_is_told_later),
    Reason("put-after-unlock", "an import whose split was refused unlocks the folio, then drops its reference, which "
           "refuses the split of the next one; the rules do both in one step", "import-loop", _put_after_unlock),
)  # fmt: skip
