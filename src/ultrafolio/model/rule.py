"""The form of a rule: a function over the state, and the facts about it.

The functions use a small subset of Python (integers, comparisons, ``if``, bounded ``for``, calls to each
other), so the interpreter runs them as they are and the engine compiles them from this very source.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Function = Callable[..., Any]
WEAK, STRONG, UNFAIR = "weak", "strong", ""
CALLS = ("", "import", "pin", "export", "reset")
SLEEPS = ("lock", "writeback", "mutex", "refs")


@dataclass(frozen=True, slots=True)
class Rule:
    """One atomic step. `pc` is its place in the fixed rule order, so a list of rules is an execution.

    actor     whose step it is: guest, host, device, fault or vmm
    takers    kinds of actors that may come to it, by their names in layout.ACTOR_KINDS
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
    sleeps    what a thread that stands at this rule sleeps for, whatever becomes of its page: lock, writeback, mutex,
              refs
    call      the ultravisor call that it makes: import (an unpin, for an unshare), pin, export or reset; "" for none
    tells_page  whether a story names its page: it does not follow from the actor's steps before
    traced    what a recording of the kernel shows of a step, in order: `EVENT`, a name of trace.kernel.SPELLINGS;
              `EVENT@OUTCOME,OUTCOME` for these outcomes, or these reasons not to step (W_); `!EVENT` where it fails;
              `?EVENT` where it may be missing. A call's result is the ultravisor's; a pin or an unpin is shown where
              the step changes the number of pins
    cost      its classes of cost, names of costs.DEFAULTS: `NAME` for every outcome, `NAME@OUTCOME,OUTCOME` for these,
              `~NAME` for the mean of an exponential part of its own
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
    takers: tuple[str, ...]
    sleeps: tuple[str, ...]
    call: str
    tells_page: bool
    cost: tuple[str, ...]
    traced: tuple[str, ...]

    @property
    def fair(self) -> bool:
        """Whether it is fair at all, weakly or strongly."""
        return self.fairness != UNFAIR

    @property
    def shown(self) -> list[str]:
        """The names of the events of `traced`."""
        return [word.lstrip("?!").partition("@")[0] for word in self.traced]

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
    takers: str,
    sleeps: str = "",
    call: str = "",
    tells_page: bool = False,
    cost: str = "lock",
    traced: str = "",
    table: dict[int, Rule] | None = None,
) -> Callable[[Function], Function]:
    """Register a step under its place `pc` in the rule order; table: of another design than s390."""

    def register(function: Function) -> Function:
        name = function.__name__.replace("_", "-")
        (RULES if table is None else table)[pc] = Rule(
            pc,
            name,
            function,
            actor,
            fair,
            chooses,
            kernel,
            seed,
            tuple(releases.split()),
            tuple(holds.split()),
            tuple(takers.split()),
            tuple(sleeps.split()),
            call,
            tells_page,
            tuple(cost.split()),
            tuple(traced.split()),
        )
        return function

    return register


def fn(function: Function) -> Function:
    """A function that rules call; not a step of its own."""
    return function
