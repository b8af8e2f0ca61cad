"""Two or three operations of guest_memfd at once: each end of the C must be an end of the rules, or have a reason.

The search is that of judge/concurrent.py. A thread of the C has for itself its answers so far, and whether it has
looked at the sequence.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from ultrafolio.model.designs import GUEST_MEMFD
from ultrafolio.model.guest_memfd.layout import MAPPED_PRIVATE

from ..build import Returned
from ..concurrent import Ends, Node, OfRules, Own, Side, Words, search
from .sequential import Sides, world
from .starts import Doing, Start, build
from .watch import Key, MemfdWatched, differences, without
from .ways import c_end, rule_end

OTHER_KIND, UNALLOCATED = (
    next(number for number, function in GUEST_MEMFD.in_state if function == name)
    for name in ("of_other_kind", "mapped_unallocated")
)
"""The properties that every state of the C is asked for, by their numbers in the design."""
Doings = tuple[Doing, ...]
End = tuple[Words, Key]


class _OfC(Side):
    """The kernel's functions. broken: the properties that a state of theirs breaks, by number."""

    mine = ("task", "actor")
    watched: MemfdWatched

    def __init__(self, sides: Sides, start: Start, doing: Doings) -> None:
        super().__init__(build(start, sides.policy, list(doing)), doing)
        self.program, self.world = sides.program, world(start, self.watched, sides.rules)
        self.broken: set[int] = set()

    def _shared(self) -> Own:
        """Returns what the threads share: the state, and what the world has beside it."""
        on = self.world
        sets = (frozenset(on.locked), frozenset(on.cleared), frozenset(on.orphans.items()), frozenset(on.holes.items()))
        return self.values(), on.now, on.mmu, on.slots, *sets

    def first(self) -> Node:
        return self._shared(), tuple(((), False, "") for _ in self.doing)

    def move(self, shared: Own, own: Own, thread: int) -> tuple[Own, Own] | None:
        """Take one step of an operation. Returns the shared and its own part after it; None if it must wait."""
        doing, on = self.doing[thread], self.world
        self.put(shared[0])
        on.now, on.mmu, on.slots = shared[1:4]
        on.locked, on.cleared, on.orphans, on.holes = set(shared[4]), set(shared[5]), dict(shared[6]), dict(shared[7])
        on.looked, on.said = {thread} if own[1] else set(), []
        asked = self.program.next(doing.operation, doing.subject, own[0])
        if isinstance(asked, Returned):
            self.watched.state.vm[0].fresh &= ~(1 << thread)
            return self._shared(), ((), False, c_end(doing.operation, asked.value))
        answer = on.answer(thread, asked)
        if answer is None:
            return None
        self._look()
        return self._shared(), ((*own[0], answer), thread in on.looked, "")

    def _look(self) -> None:
        """Note the properties that the state breaks. That KVM maps no page that the file lacks is asked of private
        pages, since a shared one is another frame."""
        s, rules = self.watched.state, self.world.rules
        for page in range(len(s.mm)):
            if rules.of_other_kind(s, page):
                self.broken.add(OTHER_KIND)
            if s.pt[page].present == MAPPED_PRIVATE and rules.mapped_unallocated(s, page):
                self.broken.add(UNALLOCATED)

    def seen(self, shared: Own) -> Key:
        self.put(shared[0])
        return self.watched.seen()


class _OfRules(OfRules):
    """The rules of guest_memfd."""

    watched: MemfdWatched

    def seen(self, shared: Own) -> Key:
        self.put(shared[0])
        return self.watched.seen()

    def ended(self, thread: int, outcome: int) -> str:
        return rule_end(self.watched.state, thread, self.doing[thread].operation, outcome)


class Ruled:
    """The ends of the rules, computed once for each start and operations."""

    def __init__(self, sides: Sides) -> None:
        self.sides = sides
        self.known: dict[Any, Ends] = {}

    def ends(self, start: Start, doing: Doings, ended: Words = ()) -> Ends:
        """All ends of these operations at once. ended: for each thread the word with which it ended before the first
        step, or ""."""
        key = start, doing, ended
        if key not in self.known:
            side = _OfRules(build(start, self.sides.policy, list(doing)), doing, self.sides.rules)
            self.known[key] = search(side, ended)
        return self.known[key]


@dataclass(frozen=True, slots=True)
class Together:
    """Operations at once from one start: the ends of both sides, and the properties that a state of the C breaks."""

    doing: Doings
    start: Start
    in_c: Ends
    in_rules: Ends
    broken: frozenset[int]

    @property
    def missing(self) -> list[End]:
        """Ends of the C that the rules do not have."""
        return sorted(self.in_c.ends - self.in_rules.ends)

    @property
    def unreached(self) -> list[End]:
        """Ends of the rules that the C does not have."""
        return sorted(self.in_rules.ends - self.in_c.ends)

    def __str__(self) -> str:
        return f"{' and '.join(map(str, self.doing))} from {self.start}"

    def told(self, end: End) -> str:
        """An end that only one side has, in words: how the threads end, and how its state differs from the other side's
        nearest one."""
        of_c = end in self.in_c.ends
        words = ", ".join(f"{one.operation} {word}" for one, word in zip(self.doing, end[0], strict=True))
        others = [state for said, state in (self.in_rules if of_c else self.in_c).ends if said == end[0]]
        near = [differences(state, end[1]) if of_c else differences(end[1], state) for state in others]
        least = min(near, key=lambda found: (len(found), found), default=["the other side has no end in these words"])
        return f"{words}: {'; '.join(least)}"


@dataclass(frozen=True, slots=True)
class Reason:
    """`holds`: whether this reason explains an end of the C. The other fields are those of reasons.Reason."""

    name: str
    about: str
    piece: str
    holds: Callable[[Together, End, Ruled], bool]


def _choices(found: Together, told: Words, operation: str, *words: str) -> Iterator[Words]:
    """For every choice of threads that ran an operation and ended with one of `words`, or any word: their words, "" for
    the others. The first choice is none of them."""
    able = [
        at
        for at, one in enumerate(found.doing)
        if one.operation == operation and told[at] != "waits" and (not words or told[at] in words)
    ]
    for size in range(len(able) + 1):
        for chosen in itertools.combinations(able, size):
            yield tuple(told[at] if at in chosen else "" for at in range(len(told)))


def _asks_early(found: Together, end: End, ruled: Ruled) -> bool:
    """The end is one of the rules after private faults that had to start again, and left nothing, have ended."""
    return any(
        end in ruled.ends(found.start, found.doing, ended).ends
        for ended in _choices(found, end[0], "fault-private", "again")
    )


def _another_page(found: Together, end: End, ruled: Ruled) -> bool:
    """The rules have the end but for which pages the file has, and of these the end has what the rules have where no
    shared fault runs, and a private one that starts again may have left nothing."""
    if all(one.operation != "fault-shared" for one in found.doing):
        return False
    told, state = end
    if (told, without(state, "allocated")) not in {(w, without(s, "allocated")) for w, s in found.in_rules.ends}:
        return False
    shared = tuple(w if one.operation == "fault-shared" else "" for one, w in zip(found.doing, told, strict=True))
    for early in _choices(found, told, "fault-private", "again"):
        ended = tuple(one or other for one, other in zip(shared, early, strict=True))
        ends = ruled.ends(found.start, found.doing, ended).ends
        if any(words == told and _pages(state) == _pages(other) for words, other in ends):
            return True
    return False


def _pages(state: Key) -> Key:
    """Returns which pages the file has."""
    return tuple(entry for entry in state if entry[0].startswith("allocated"))


REASONS: tuple[Reason, ...] = (
    Reason("asks-early", "a fault asks before the look-up whether its page is under invalidation, and a hole may take "
           "out of the file what it has looked up; the fault of the rules keeps a hole away until it ends",
           "fault-frame", _asks_early),
    Reason("another-page", "a shared fault makes no page in the file, and keeps none; the rules have one page for both "
           "frames", "fault-kind", _another_page),
)  # fmt: skip


def explain(found: Together, end: End, ruled: Ruled) -> Reason | None:
    """The reason for an end that only the C has, or None."""
    return next((reason for reason in REASONS if reason.holds(found, end, ruled)), None)


def together(sides: Sides, ruled: Ruled, start: Start, doing: Doings) -> Together:
    """Run these operations at once on both sides."""
    sides.program.start = f"{start}, at once"
    side = _OfC(sides, start, doing)
    in_c = search(side)
    return Together(doing, start, in_c, ruled.ends(start, doing), frozenset(side.broken))
