"""Two or three operations at once, at every primitive: each end of the kernel's C must be an end of the rules.

A thread of C is known by its operation and the answers that it was given, so schedules that reach the same shared state
with the same answers are one, and the search is over a graph. An end is what each thread came to and the shared state.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from ..errors import InputError
from ..model.layout import DISK
from ..model.policies import Policy
from .build import Program, Returned
from .runs import SHARED, c_end, rule_end, rule_step
from .starts import Doing, Start, build
from .watch import Watched, without
from .world import World

MOST_NODES = 60_000
End = tuple[tuple[str, ...], tuple[tuple[int, ...], ...]]
"""What each thread came to, and the shared state."""


@dataclass(frozen=True, slots=True)
class Ends:
    """All ends of a system, and how many nodes its graph has."""

    ends: frozenset[End]
    nodes: int


@dataclass(frozen=True, slots=True)
class Together:
    """Operations at once from one start: the ends of both sides."""

    doing: tuple[Doing, ...]
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


@dataclass
class _Node:
    """A state in the middle: of the C with the answers and the end of each thread, or of the rules with the ends."""

    watched: Watched
    world: World | None
    answers: list[tuple[int, ...]]
    ends: list[str]

    def key(self) -> Any:
        world = self.world
        whole = tuple(tuple(row.values()) for name, rows in self.watched.values.items() if name not in ("cfg", "who")
                      for row in rows)  # fmt: skip
        extra = (world.table, frozenset(world.parted), world.was_late) if world else ()
        return whole, extra, tuple(self.answers), tuple(self.ends)

    def copy(self) -> _Node:
        watched = self.watched.copy()
        world = self.world
        if world:
            world = World(watched.state, world.rules, world.table, set(world.parted), world.was_late, world.unpinned)
        return _Node(watched, world, list(self.answers), list(self.ends))


def search(first: _Node, threads: int, step: Callable[[_Node, int], bool]) -> Ends:
    """All ends that a node leads to. `step` moves a thread, or returns False where it waits. InputError for more nodes
    than are bounded."""
    seen, stack, ends = {first.key()}, [first], set()
    while stack:
        node = stack.pop()
        moved = False
        for thread in range(threads):
            if node.ends[thread]:
                continue
            after = node.copy()
            if not step(after, thread):
                continue
            moved = True
            key = after.key()
            if key not in seen:
                seen.add(key)
                stack.append(after)
                if len(seen) > MOST_NODES:
                    raise InputError("too many interleavings", value=len(seen), allowed=f"at most {MOST_NODES}",
                                     then="judge fewer operations at once")  # fmt: skip
        if not moved:
            told = tuple(end or "waits" for end in node.ends)
            ends.add((told, seen_by_all(node.watched)))
    return Ends(frozenset(ends), len(seen))


def seen_by_all(watched: Watched) -> tuple[tuple[int, ...], ...]:
    """The shared state of an end; whether a page is mapped for writing is left out where a thread pins, since a pin's
    own write fault is explained (pin-maps-for-write)."""
    key = watched.key(*SHARED)
    pins = any(who["kind"] == DISK for who in watched.values["who"])
    return without(key, "writable", "dirty") if pins else key


def together(
    program: Program, rules: SimpleNamespace, policy: Policy, start: Start, operations: tuple[str, ...]
) -> Together:
    """These operations at once, all on the start's page."""
    doing = tuple(Doing(operation, start.page) for operation in operations)
    return Together(doing, start, _ends_of_c(program, rules, policy, start, doing),
                    _ends_of_rules(rules, policy, start, doing))  # fmt: skip


def _ends_of_c(
    program: Program, rules: SimpleNamespace, policy: Policy, start: Start, doing: tuple[Doing, ...]
) -> Ends:
    def step(node: _Node, thread: int) -> bool:
        one, world = doing[thread], node.world
        assert world
        asked = program.next(one.operation, one.page, node.answers[thread])
        if isinstance(asked, Returned):
            node.ends[thread] = c_end(world, one.operation, asked.value)
            node.answers[thread] = ()
            return True
        answer = world.answer(thread, asked)
        if answer is None:
            return False
        node.answers[thread] += (answer,)
        return True

    watched = build(start, policy, list(doing))
    first = _Node(watched, World(watched.state, rules), [()] * len(doing), [""] * len(doing))
    return search(first, len(doing), step)


def _ends_of_rules(rules: SimpleNamespace, policy: Policy, start: Start, doing: tuple[Doing, ...]) -> Ends:
    def step(node: _Node, thread: int) -> bool:
        operation = doing[thread].operation
        outcome = rule_step(node.watched, rules, thread)
        if outcome < 0:
            return False
        end = rule_end(node.watched.state, thread, operation, outcome)
        if end:
            node.ends[thread] = end
            _forget(node.watched.values["task"][thread])
        return True

    watched = build(start, policy, list(doing))
    first = _Node(watched, None, [], [""] * len(doing))
    return search(first, len(doing), step)


def _forget(task: dict[str, int]) -> None:
    """Clear what an ended thread left in its own record, so that equal situations are equal states."""
    for name in task:
        if name != "pc":
            task[name] = 0
