"""Two or three concurrent operations, interleaved at every primitive: each end of the C must be an end of the rules.

A node of the search is the shared state and the private state of each thread: for the C its operation and the answers
so far, for the rules its own records. Schedules that reach the same node are merged, so the search is over a graph. A
step is computed once for each shared and private state.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from ultrafolio.model.policy import Policy

from ..model.layout import DISK
from .build import Program, Returned
from .runs import WAYS, c_end, rule_end
from .starts import Doing, Start, build
from .watch import WATCHED, Watched, differences, without
from .world import World

MOST_NODES = 200_000
"""The most nodes of one system, on either side."""
Values = tuple[int, ...]
Words = tuple[str, ...]
Own = tuple[Any, ...]
"""The private state of a thread; the last item is the word with which it ended, "" before."""
Node = tuple[Own, tuple[Own, ...]]
Shared = tuple[Any, ...]
End = tuple[Words, Shared]
"""(the word with which each thread ended, the shared state)."""


@dataclass(frozen=True, slots=True)
class Ends:
    """All ends of a system, and the number of nodes of its graph."""

    ends: frozenset[End]
    nodes: int


@dataclass(frozen=True, slots=True)
class Together:
    """Concurrent operations from one start: the ends of both sides."""

    operations: Words
    start: Start
    in_c: Ends
    in_rules: Ends

    @property
    def missing(self) -> frozenset[End]:
        """Ends of the C that the rules do not have."""
        return self.in_c.ends - self.in_rules.ends

    @property
    def unreached(self) -> frozenset[End]:
        """Ends of the rules that the C does not have."""
        return self.in_rules.ends - self.in_c.ends

    def named(self) -> Iterator[str]:
        """Each unreached end in words: how the threads end, and how its state differs from the C's nearest one."""
        for told, state in sorted(self.unreached):
            said = ", ".join(f"{operation} {word}" for operation, word in zip(self.operations, told, strict=True))
            near = [differences(state, other) for words, other in self.in_c.ends if words == told]
            least = min(near, key=lambda found: (len(found), found), default=["no end of the C has these results"])
            yield f"{said}: {'; '.join(least)}"


class TooMany(Exception):
    """A system has more nodes than MOST_NODES."""


class Side(ABC):
    """One side's threads over one start. `first` is its node, `step` moves a thread."""

    mine: tuple[str, ...] = ()
    """Sections whose row at a thread's number is private to that thread."""

    def __init__(self, watched: Watched, doing: Sequence[Any]) -> None:
        self.doing, self.watched = doing, watched
        self.memory: dict[Any, tuple[Own, Own] | None] = {}
        self.common = [
            row for name, rows in self.watched.values.items() if name not in ("cfg", "who", *self.mine) for row in rows
        ]

    def values(self) -> Values:
        return tuple(value for row in self.common for value in row.values())

    def put(self, values: Values) -> None:
        """Set the shared sections of the state to a result of values()."""
        at = 0
        for row in self.common:
            for name in row:
                row[name] = values[at]
                at += 1

    @abstractmethod
    def first(self) -> Node:
        """The node before any step."""

    @abstractmethod
    def move(self, shared: Own, own: Own, thread: int) -> tuple[Own, Own] | None:
        """Take one step of a thread. Returns (shared state, private state) after it, or None if the thread waits."""

    def step(self, shared: Own, own: Own, thread: int) -> tuple[Own, Own] | None:
        """`move`, memoised."""
        key = (thread, shared, own)
        if key not in self.memory:
            self.memory[key] = self.move(shared, own, thread)
        return self.memory[key]

    @abstractmethod
    def seen(self, shared: Own) -> Any:
        """The shared state of an end, as both sides are compared by it."""


def _seen(side: Side, shared: Own) -> Shared:
    """The shared state of an end of s390. If a thread pins, without whether a page is mapped for writing, since the
    write fault of a pin is explained (pin-maps-for-write)."""
    side.put(shared[0])
    key = side.watched.key(*WATCHED)
    pins = any(WAYS[one.operation].kind == DISK for one in side.doing)
    return without(key, "writable", "dirty") if pins else key


class OfC(Side):
    """The kernel's functions. Shared: the state, the page-table lock, folios that a split has unmapped. Private: the
    answers so far, whether the operation found an export too late, whether its unpin was granted."""

    mine = ("task", "actor")

    def __init__(
        self, start: Start, policy: Policy, doing: tuple[Doing, ...], program: Program, rules: SimpleNamespace
    ) -> None:
        super().__init__(build(start, policy, list(doing)), doing)
        self.program, self.rules = program, rules

    def seen(self, shared: Own) -> Shared:
        return _seen(self, shared)

    def first(self) -> Node:
        """Returns the initial node: what is shared, and what each operation has for itself."""
        return (self.values(), -1, frozenset()), tuple(((), False, False, "") for _ in self.doing)

    def move(self, shared: Own, own: Own, thread: int) -> tuple[Own, Own] | None:
        """Take one step of an operation. Returns the shared and its own part after it; None if it must wait."""
        one, answers = self.doing[thread], own[0]
        self.put(shared[0])
        late, granted = ({thread} if flag else set() for flag in own[1:3])
        world = World(self.watched.state, self.rules, shared[1], set(shared[2]), late, granted)
        asked = self.program.next(one.operation, one.page, answers)
        if isinstance(asked, Returned):
            return shared, ((), False, False, c_end(world, thread, one.operation, asked.value))
        answer = world.answer(thread, asked)
        if answer is None:
            return None
        after = (self.values(), world.table, frozenset(world.parted))
        return after, ((*answers, answer), thread in world.was_late, thread in world.unpinned, "")


class OfRules(Side):
    """The rules of a design. Shared: the state without the threads' own records. Private: those records."""

    mine = ("task", "actor")

    def __init__(self, watched: Watched, doing: Sequence[Any], rules: SimpleNamespace) -> None:
        super().__init__(watched, doing)
        self.rules = rules

    def seen(self, shared: Own) -> Any:
        return _seen(self, shared)

    def ended(self, thread: int, outcome: int) -> str:
        """The word with which a thread ended; "" before its end."""
        return rule_end(self.watched.state, thread, self.doing[thread].operation, outcome)

    def _records(self, thread: int) -> list[dict[str, int]]:
        """Returns the thread's own records, which no other thread looks at."""
        return [self.watched.values[name][thread] for name in self.mine]

    def _own(self, thread: int) -> Own:
        """Returns the values of the thread's own records."""
        return tuple(tuple(row.values()) for row in self._records(thread))

    def first(self) -> Node:
        """Returns the initial node: what is shared, and what each operation has for itself."""
        return (self.values(),), tuple((*self._own(thread), "") for thread in range(len(self.doing)))

    def move(self, shared: Own, own: Own, thread: int) -> tuple[Own, Own] | None:
        """Take one step of an operation. Returns the shared and its own part after it; None if it must wait."""
        self.put(shared[0])
        for row, values in zip(self._records(thread), own, strict=False):
            row.update(zip(row, values, strict=True))
        self.watched.start()
        outcome = int(self.rules.step(self.watched.state, thread, 0, 0))
        looks = self.watched.stop()
        assert not any(look.section in self.mine and look.at != thread for look in looks), "a rule looks at a thread"
        if outcome < 0:
            return None
        end = self.ended(thread, outcome)
        if end:
            _forget(self.watched.values["task"][thread])
        return (self.values(),), (*self._own(thread), end)


def search(side: Side, ended: Words = ()) -> Ends:
    """All ends that a side reaches from its first node. `ended`: for each thread the word with which it ended before
    the first step, or "". Raises TooMany beyond MOST_NODES nodes."""
    shared, owns = side.first()
    first = shared, tuple((*own[:-1], word) for own, word in zip(owns, ended or [""] * len(owns), strict=True))
    seen, stack, last = {first}, [first], set()
    threads = range(len(side.doing))
    while stack:
        shared, owns = stack.pop()
        moved = False
        for thread in threads:
            own = owns[thread]
            found = None if own[-1] else side.step(shared, own, thread)
            if found is None:
                continue
            moved = True
            after = (found[0], (*owns[:thread], found[1], *owns[thread + 1 :]))
            if after not in seen:
                seen.add(after)
                stack.append(after)
                if len(seen) > MOST_NODES:
                    raise TooMany
        if not moved:
            last.add((tuple(own[-1] or "waits" for own in owns), shared))
    return Ends(frozenset((told, side.seen(shared)) for told, shared in last), len(seen))


class Ruled:
    """The ends of the rules under a policy, computed once for each start and operations."""

    def __init__(self, rules: SimpleNamespace, policy: Policy) -> None:
        self.rules, self.policy = rules, policy
        self.known: dict[Any, Ends] = {}

    def ends(self, start: Start, operations: Words, ended: Words = ()) -> Ends:
        """All ends of these concurrent operations; `ended` as in search()."""
        key = start, operations, ended
        if key not in self.known:
            doing = _doing(start, operations)
            self.known[key] = search(OfRules(build(start, self.policy, list(doing)), doing, self.rules), ended)
        return self.known[key]


def _doing(start: Start, operations: Words) -> tuple[Doing, ...]:
    return tuple(Doing(operation, start.page) for operation in operations)


def together(program: Program, ruled: Ruled, start: Start, operations: Words) -> Together:
    """Run these operations concurrently on both sides, all on the start's page."""
    program.start = f"{start}, {' and '.join(operations)} at once"
    side = OfC(start, ruled.policy, _doing(start, operations), program, ruled.rules)
    return Together(operations, start, search(side), ruled.ends(start, operations))


def _forget(task: dict[str, int]) -> None:
    """Clear the record of an ended thread, so that states that differ only there are equal."""
    for name in task:
        if name != "pc":
            task[name] = 0
