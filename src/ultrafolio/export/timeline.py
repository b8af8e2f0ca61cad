"""An execution as a picture over time: a track for each actor, a slice for each step, a flow for each wait.

A flow joins steps of two actors: the step with which a holder took what is waited for, the step in which the waiter met
it, and the step with which the holder released it. The first is missing where the holder had it from the start, the
last where it is never released.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ultrafolio.check.verdicts.replay import copied, take
from ultrafolio.engine.interp import to_lists
from ultrafolio.engine.load import interpreted_of
from ultrafolio.model import designs
from ultrafolio.model.design import Design
from ultrafolio.model.designs import S390
from ultrafolio.model.layout import SPLIT, State
from ultrafolio.model.scenario import System
from ultrafolio.sim.designs import RECORDS
from ultrafolio.trace.events import WAITING
from ultrafolio.waits import load as waits
from ultrafolio.waits import telling
from ultrafolio.waits.tables import OB_MAPPED, OBSTACLE_OF

STEP_NS = 1000
"""Length of a step where an execution has an order and no times."""


@dataclass(frozen=True, slots=True)
class Slice:
    """A step: from `begin` to `end`, ns. about: its page and outcome, and what else is known."""

    actor: int
    name: str
    begin: int
    end: int
    about: Mapping[str, Any]


@dataclass(slots=True)
class Flow:
    """A wait. points: (actor, begin of one of its slices), in order of time."""

    name: str
    points: list[tuple[int, int]]


@dataclass(slots=True)
class Timeline:
    """actors: (kind, virtual machine) by number; pages: number of steps about each page, by page."""

    actors: list[tuple[str, int]]
    slices: list[Slice] = field(default_factory=list)
    flows: list[Flow] = field(default_factory=list)
    pages: dict[int, int] = field(default_factory=dict)

    def add(self, step: Slice) -> None:
        """Append a step, and count its page."""
        self.slices.append(step)
        page = step.about.get("page")
        if page is not None:
            self.pages[page] = self.pages.get(page, 0) + 1


def actors_of(state: State) -> list[tuple[str, int]]:
    """Returns the actors of a state (arrays or lists)."""
    size = len(state.who)
    kinds = (state.who[t].kind if isinstance(state.who, list) else state.who["kind"][t] for t in range(size))
    guests = (state.who[t].vm if isinstance(state.who, list) else state.who["vm"][t] for t in range(size))
    names = designs.of(state).kinds
    return [(names[kind], int(vm)) for kind, vm in zip(kinds, guests, strict=True)]


# ------------------------------------------------------------------------------------- executions with their states
class Waiting:
    """Follows the states of an execution (as lists) and finds its waits.

    An actor waits from a step that was refused, or after which it sleeps, until the holder's step that gives up what
    was in the way, or until it needs that no more.
    """

    def __init__(self, state: State) -> None:
        self.flows: list[Flow] = []
        self._run, self._words = waits.of(state), telling.of(state)
        self._held = [0] * len(state.task)
        self._since: dict[tuple[int, int], tuple[int, int]] = {}
        self._open: dict[tuple[int, int, int], tuple[Flow, int, bool]] = {}

    def step(self, before: State, after: State, a: int, outcome: int, at: int) -> None:
        """Take notice of a step of actor `a` at time `at`, with the states around it."""
        self._close(after, a, at)
        self._meet(before, after, a, outcome, at)
        held = int(self._run.holding(after, a))
        new = held & ~self._held[a]
        self._since |= {(a, 1 << n): (a, at) for n in range(new.bit_length()) if new >> n & 1}
        self._held[a] = held

    def end(self, state: State, a: int, at: int) -> None:
        """The execution ends after a step of `a` at time `at`: begin its wait, if its next step is refused."""
        self._begin(state, a, _refused_next(state, a), at)

    def _close(self, after: State, a: int, at: int) -> None:
        """End the waits that this step of `a` ends: those for what it held, and its own."""
        run = self._run
        for (waiter, holder, bit), (flow, page, whole) in list(self._open.items()):
            if a not in (waiter, holder):
                continue
            gone = not run.contributes(after, holder, waiter, page, whole) & bit
            if gone and a == holder:
                flow.points.append((a, at))
            if gone or not run.is_pending(after, waiter):
                del self._open[waiter, holder, bit]

    def _meet(self, before: State, after: State, a: int, outcome: int, at: int) -> None:
        """Begin a wait if this step was refused, or if the actor sleeps after it."""
        if OBSTACLE_OF.get(outcome, 0) > OB_MAPPED:
            self._begin(before, a, OBSTACLE_OF[outcome], at)
        else:
            self._begin(after, a, _refused_next(after, a, asleep=True), at)

    def _begin(self, state: State, a: int, met: int, at: int) -> None:
        """Begin a wait for each holder of the obstacle that `a` meets in this state; none for 0 or OB_MAPPED."""
        if met <= OB_MAPPED:
            return
        page, whole = int(self._run.waited_page(state, a)), state.task[a].pc == SPLIT
        for holder in self._words.holders(state, a, met, page, whole):
            key = (a, holder.actor if holder.actor is not None else -1, met)
            if holder.actor is None or key in self._open:
                continue
            first = self._since.get((holder.actor, met))
            flow = Flow(self._words.what_for(state, a, met, page, whole), [*([first] if first else []), (a, at)])
            self._open[key] = (flow, page, whole)
            self.flows.append(flow)


def _refused_next(state: State, a: int, *, asleep: bool = False) -> int:
    """Returns the obstacle that refuses the next step of `a`; 0 without one, and for an idle actor. asleep: only where
    the step is not enabled."""
    pc, design = state.task[a].pc, designs.of(state)
    if pc not in design.rules or pc == design.idle[state.who[a].kind]:
        return 0
    outcome = interpreted_of(state).step(copied(state), a, 0, 0)
    return OBSTACLE_OF.get(outcome, 0) if outcome < 0 or not asleep else 0


def of_story(system: System, path: Sequence[int], loop: int | None = None) -> Timeline:
    """Returns the timeline of a story (actor << 16 | choice), a step every STEP_NS. loop: the first step of those that
    repeat for ever, which are marked. Raises NotCertified if a step is not possible."""
    state = to_lists(system.state)
    made, waiting = Timeline(actors_of(system.state)), Waiting(state)
    for number, by in enumerate(path):
        before, at = copied(state), number * STEP_NS
        step = take(system, state, by)
        about: dict[str, Any] = {"step": number + 1, "page": step.page, "outcome": step.outcome_word}
        about |= {"op": step.op} if step.op != "nothing" else {}
        about |= {"breaks property": step.broke} if step.broke else {}
        about |= {"for ever": True} if loop is not None and number >= loop else {}
        made.add(Slice(step.actor, step.rule, at, at + STEP_NS, about))
        waiting.step(before, state, step.actor, step.outcome, at)
    if path and loop is None:
        waiting.end(state, path[-1] >> 16, (len(path) - 1) * STEP_NS)
    made.flows = waiting.flows
    return made


# ------------------------------------------------------------------------------------------- runs, without states
def of_run(actors: Sequence[Mapping[str, Any]], events: Iterable[Mapping[str, Any]], design: Design = S390) -> Timeline:
    """Returns the timeline of a run's trace (trace.events). A slice lasts until the actor's next step, or to the end.

    A wait is a refused step; a flow goes from it to the step, at the time of the actor's next one, whose rule releases
    what it waits for. Raises KeyError, TypeError, ValueError or IndexError for records of another form.
    """
    made = Timeline([(str(actor["kind"]), int(actor["guest"])) for actor in actors])
    place = {rule.name: pc for pc, rule in design.rules.items()}
    last: dict[int, tuple[int, Mapping[str, Any]]] = {}
    now, at_once = 0, list[tuple[int, int]]()
    for event in events:
        actor, begin, pc = event["actor"], event["ns"], place[event["rule"]]
        if not 0 <= actor < len(made.actors) or begin < now:
            raise ValueError("a step of no actor, or one before the step before it")
        now, at_once = begin, at_once if begin == now else []
        if actor in last:
            began, earlier = last.pop(actor)
            made.add(_slice(earlier, began, begin))
            _released(made, earlier, began, at_once, begin, design)
        at_once.append((actor, pc))
        last[actor] = (begin, event)
    for began, event in last.values():
        made.add(_slice(event, began, now))
    made.slices.sort(key=lambda one: (one.begin, one.about["n"]))
    return made


def _slice(event: Mapping[str, Any], begin: int, end: int) -> Slice:
    about = {name: event[name] for name in ("n", "page", "outcome")}
    return Slice(event["actor"], event["rule"], begin, end, about)


def _released(
    made: Timeline,
    refused: Mapping[str, Any],
    began: int,
    at_once: Sequence[tuple[int, int]],
    now: int,
    design: Design,
) -> None:
    """Add the flow of a refused step, if a step `at_once` with the actor's next one released what it waits for."""
    if not refused["outcome"].startswith(WAITING):
        return
    reason = refused["outcome"].removeprefix(WAITING)
    bit, releases = 1 << design.waits.index(reason), RECORDS[design.name].RELEASES
    by = [actor for actor, pc in at_once if releases[pc] & bit and actor != refused["actor"]]
    if by:
        made.flows.append(Flow(reason, [(refused["actor"], began), (by[-1], now)]))
