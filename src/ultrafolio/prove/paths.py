"""The places where a thread can be, and each way through the rule that it runs there.

A place is the kind of its actor and its fields pc, then and back: which rule it runs, and where it goes on. Places are
found from the idle ones, so a rule that no place has is never run under the policy.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass

from ultrafolio.model import layout
from ultrafolio.model.policy import Policy
from ultrafolio.model.rule import RULES

from .oracle import Oracle, every_way
from .reader import Reader
from .rules import Rules
from .state import WHERE, Refused, Symbolic
from .terms import Value, var
from .values import Thread

STEPS = "S"
"""The thread that steps, as it stands in variables."""
OP, PAGE = var("choose.op"), var("choose.page")
"""What a rule that chooses is given."""


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Where a thread is."""

    kind: int
    pc: int
    then: int = 0
    back: int = 0

    @property
    def rule(self) -> str:
        """The name of the rule that the thread runs next; "dead" where it runs none any more."""
        return RULES[self.pc].name if self.pc in RULES else "dead"

    @property
    def name(self) -> str:
        """The rule, and whose thread it is: "pin-get, disk", or "accessible-pin for writeback-io, disk"."""
        then = f" for {RULES[self.then].name}" if self.then else ""
        return f"{self.rule}{then}, {layout.ACTOR_KINDS[self.kind]}"


@dataclass(frozen=True, slots=True)
class Path:
    """One way through a rule: where the thread was, under which conditions it is gone, what it leaves."""

    place: Place
    conditions: tuple[Value, ...]
    after: Symbolic
    outcome: int

    @property
    def to(self) -> Place:
        """Where the thread is then."""
        return Place(self.place.kind, *(_place_number(self.after.mine(name), name) for name in WHERE))


def _place_number(value: Value, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise Refused(f"{name} is set to what is not known: {value}")
    return value


def at(place: Place, thread: str = STEPS) -> Symbolic:
    """The state before a step of a thread that is at a place."""
    return Symbolic(thread, {"task.pc": place.pc, "task.then": place.then, "task.back": place.back})


def paths_of(rules: Rules, cfg: dict[str, int], place: Place) -> list[Path]:
    """Each way through the rule at a place, also those that do not happen (outcome < 0)."""
    rule = RULES[place.pc]
    arguments: list[object] = [Thread(STEPS), OP, PAGE] if rule.chooses else [Thread(STEPS)]

    def run(oracle: Oracle) -> tuple[Symbolic, int]:
        reader = Reader(rules, cfg, {"kind": place.kind}, at(place), oracle)
        outcome = reader.settled(reader.call(rule.function.__name__, arguments))
        if isinstance(outcome, bool) or not isinstance(outcome, int):
            raise Refused(f"its outcome is {outcome}")
        return reader.state, outcome

    try:
        made = [Path(place, tuple(conditions), after, outcome) for conditions, (after, outcome) in every_way(run)]
        for path in made:
            _ = path.to
        return made
    except Refused as refused:
        raise Refused(f"rule {rule.name}: {refused}") from None


def idle(without: Container[int] = ()) -> list[Place]:
    """Where threads start; no actor of the kinds `without`."""
    return [Place(kind, pc) for kind, pc in enumerate(layout.IDLE_PC) if kind not in without]


def reached(rules: Rules, policy: Policy, without: Container[int] = ()) -> dict[Place, list[Path]]:
    """Every place that threads can come to, and the steps from there that happen; no actor of the kinds `without`."""
    cfg = policy.codes()
    found: dict[Place, list[Path]] = {}
    left = idle(without)
    while left:
        place = left.pop()
        if place in found:
            continue
        found[place] = []
        if place.pc == layout.DEAD:
            continue
        found[place] = [path for path in paths_of(rules, cfg, place) if path.outcome > 0]
        left += [path.to for path in found[place]]
    return dict(sorted(found.items()))
