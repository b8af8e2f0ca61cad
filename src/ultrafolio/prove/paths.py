"""The places where a thread can be, and each way through the rule that it runs there.

A place is the kind of its actor and its fields pc, then and back: which rule it runs, and where it goes on. Places are
found from the idle ones, so a rule that no place has is never run under the policy.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass

from ultrafolio.model import layout
from ultrafolio.model.design import Design
from ultrafolio.model.designs import DESIGNS, S390

from . import terms
from .oracle import Oracle, every_way
from .reader import Reader
from .rules import Rules
from .state import WHERE, Refused, Span, Symbolic
from .terms import Value, var
from .values import Thread

STEPS = "S"
"""The thread that steps, as it stands in variables."""
OP, PAGE = var("choose.op"), var("choose.page")
"""What a rule that chooses is given."""


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Where a thread of a design is. In guest_memfd no thread is told where to go on: then and back are 0."""

    kind: int
    pc: int
    then: int = 0
    back: int = 0
    design: str = S390.name

    @property
    def rule(self) -> str:
        """The name of the rule that the thread runs next; "dead" where it runs none any more."""
        rules = DESIGNS[self.design].rules
        return rules[self.pc].name if self.pc in rules else "dead"

    @property
    def name(self) -> str:
        """The rule, and whose thread it is: "pin-get, disk", or "accessible-pin for writeback-io, disk"."""
        design = DESIGNS[self.design]
        then = f" for {design.rules[self.then].name}" if self.then else ""
        return f"{self.rule}{then}, {design.kinds[self.kind]}"

    @property
    def who(self) -> dict[str, int]:
        """What is known of its actor: its kind; in guest_memfd there is one machine."""
        return {"kind": self.kind} if self.design == S390.name else {"kind": self.kind, "vm": 0}

    @property
    def where(self) -> tuple[str, ...]:
        """The fields of a thread that say where it is."""
        return WHERE if self.design == S390.name else WHERE[:1]


@dataclass(frozen=True, slots=True)
class Path:
    """One way through a rule: where the thread was, under which conditions it is gone, what it leaves."""

    place: Place
    conditions: tuple[Value, ...]
    after: Symbolic
    outcome: int

    @property
    def has_inner_loops(self) -> bool:
        """Whether a condition or a write has a loop in a loop."""
        values = [pair for entry in self.after.log if isinstance(entry, Span) for pair in entry.fields.values()]
        formulas = [*self.conditions, *(part for pair in values for part in pair)]
        loops = [loop for formula in formulas for loop in terms.leaves(formula, frozenset(terms.LOOPS))]
        spread = any(isinstance(entry, Span) and entry.low is None for entry in self.after.log)
        return (spread and bool(loops)) or any(terms.leaves(loop.args[2], frozenset(terms.LOOPS)) for loop in loops)  # type: ignore[arg-type]

    @property
    def to(self) -> Place:
        """Where the thread is then."""
        where = [_place_number(self.after.mine(name), name) for name in self.place.where]
        then, back = where[1:] or (0, 0)
        return Place(self.place.kind, where[0], then, back, self.place.design)


def _place_number(value: Value, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise Refused(f"{name} is set to what is not known: {value}")
    return value


def at(place: Place, thread: str = STEPS) -> Symbolic:
    """The state before a step of a thread that is at a place."""
    numbers = zip(WHERE, (place.pc, place.then, place.back), strict=True)
    return Symbolic(thread, {name: number for name, number in numbers if name in place.where})


def paths_of(rules: Rules, cfg: dict[str, int], place: Place) -> list[Path]:
    """Each way through the rule at a place, also those that do not happen (outcome < 0)."""
    rule = DESIGNS[place.design].rules[place.pc]
    arguments: list[object] = [Thread(STEPS), OP, PAGE] if rule.chooses else [Thread(STEPS)]

    def run(oracle: Oracle) -> tuple[Symbolic, int]:
        reader = Reader(rules, cfg, place.who, at(place), oracle)
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


def idle(design: Design = S390, without: Container[int] = ()) -> list[Place]:
    """Where threads of a design start; no actor of the kinds `without`."""
    return [Place(kind, pc, design=design.name) for kind, pc in enumerate(design.idle) if kind not in without]


def reached(rules: Rules, cfg: dict[str, int], without: Container[int] = ()) -> dict[Place, list[Path]]:
    """Every place that threads can come to under a configuration, and the steps from there that happen; no actor of the
    kinds `without`."""
    found: dict[Place, list[Path]] = {}
    left = idle(rules.design, without)
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
