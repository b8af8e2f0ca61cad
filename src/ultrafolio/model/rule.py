"""How a rule is written down: a function over the state, and what it stands for.

The functions use a small subset of Python (integers, comparisons, ``if``, bounded ``for``, calls to each
other), so the interpreter runs them as they are and the engine compiles them from this very source.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Function = Callable[..., Any]
WEAK, STRONG, UNFAIR = "weak", "strong", ""


@dataclass(frozen=True, slots=True)
class Rule:
    """One atomic step. `pc` is its place in the fixed rule order, so a list of rules is an execution.

    actor     whose step it is: guest, host, device or fault
    fairness  WEAK: if it stays enabled it is taken in the end. STRONG: if it is enabled again and again it is; its
              thread sleeps in a queue, and the kernel hands over what it waits for. UNFAIR: the guest's own
              choices, starts of work, and device tear-down (model.md §5.2)
    chooses   it takes (op, page) from outside: what to touch, share, write back …
    kernel    the kernel function it mirrors, with the version it was read in
    seed      the sentence of the mail behind it, or "" where only the kernel's later history says it
    releases  what a waiter may wait for and this step ends: lock, writeback, mutex, refs, frozen, vm,
              table (the page-table lock)
    holds     what of its folio a thread holds that stands at this rule: lock, writeback, frozen. Not said here: the
              lock and the writeback that a thread holds while it makes a folio accessible for writeback, and the lock
              at the test for a large folio where that comes after the trylock
    """

    pc: int
    name: str
    function: Function
    actor: str
    fairness: str
    chooses: bool
    kernel: str
    seed: str
    releases: tuple[str, ...]
    holds: tuple[str, ...]

    @property
    def fair(self) -> bool:
        """Whether it is fair at all, weakly or strongly."""
        return self.fairness != UNFAIR

    @property
    def about(self) -> str:
        """The first paragraph of its docstring, as one line."""
        return " ".join((self.function.__doc__ or "").strip().split("\n\n")[0].split())


RULES: dict[int, Rule] = {}


def rule(
    pc: int,
    *,
    actor: str = "host",
    fair: str = WEAK,
    chooses: bool = False,
    kernel: str,
    seed: str = "",
    releases: str = "",
    holds: str = "",
) -> Callable[[Function], Function]:
    """Register a step under its place `pc` in the rule order."""

    def register(function: Function) -> Function:
        name = function.__name__.replace("_", "-")
        RULES[pc] = Rule(pc, name, function, actor, fair, chooses, kernel, seed, tuple(releases.split()),
                         tuple(holds.split()))  # fmt: skip
        return function

    return register


def fn(function: Function) -> Function:
    """A function that rules call; not a step of its own."""
    return function
