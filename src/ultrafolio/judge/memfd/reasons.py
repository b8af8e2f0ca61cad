"""Why the kernel's C and the rules differ where one operation runs alone, each with its source.

A difference that the rules mean to have is explained; a finding is one that they do not mean, and the rule differs. A
reason changes only what it names, so that any other difference stays.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from ultrafolio.model.guest_memfd.layout import HOLE_PUNCH

from .sequential import Compared, RunResult
from .watch import without

Change = Callable[[Compared, Callable[[Compared], Compared]], Compared]


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


def _waits_for_references(pair: Compared, again: Callable[[Compared], Compared]) -> Compared:
    """The rules wait where a page has a reference; without it they do what the C does, which drops the page."""
    if not pair.start.reference or pair.in_rules.end != "waits" or pair.in_c.end != "done":
        return pair
    other = again(replace(pair, start=replace(pair.start, reference=0)))
    in_c = _kept(pair.in_c, lambda event: event != "a reference of page 0 is dropped")
    return replace(pair, in_c=in_c, in_rules=other.in_rules)


def _leaves_processes_alone(pair: Compared, again: Callable[[Compared], Compared]) -> Compared:
    """Of a page that a process maps: that the rules unmap it there is left out."""
    if not pair.start.users:
        return pair
    in_rules = _kept(pair.in_rules, lambda event: event != "a process loses page 0", "users")
    return replace(pair, in_c=replace(pair.in_c, final=without(pair.in_c.final, "users")), in_rules=in_rules)


REASONS: tuple[Reason, ...] = (
    Reason("a-hole-waits", "a folio that is still referenced lives on outside the file; a state of the rules has no "
           "place for it, so their hole waits for the reference", "punch-hole", ("hole",), (HOLE_PUNCH,),
           _waits_for_references),
    Reason("a-hole-leaves-processes-alone", "with two backings a process maps the shared frame, which is not of the "
           "file: a hole does not touch it; the rules unmap it, and the process faults again", "punch-hole", ("hole",),
           (HOLE_PUNCH,), _leaves_processes_alone, finding=True),
)  # fmt: skip


def reasons(pair: Compared, again: Callable[[Compared], Compared]) -> tuple[Reason, ...] | None:
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
