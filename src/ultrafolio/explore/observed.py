"""Is there an execution of a scenario that shows what a recording shows? A search over all of them at once.

After each event the search holds every state in which an execution that shows the events so far may be, with the thread
that each vCPU is. Steps that show nothing may come in between, in any number.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ultrafolio.check.verdicts.replay import copied, frozen
from ultrafolio.engine import load
from ultrafolio.engine.interp import to_lists
from ultrafolio.model import layout
from ultrafolio.model.layout import OUTCOMES, UV_OK, VCPU, WAITS, State
from ultrafolio.model.properties import focus
from ultrafolio.model.rule import RULES
from ultrafolio.model.scenario import System
from ultrafolio.waits import words

from .node import GUARDS, guard_source
from .walk import is_idle

PINS = {"try_grab_folio": 1, "unpin_user_page": -1}
"""Events that a step shows where it changes the number of pins, and in which direction."""
EXACT = ("uv_pin_shared", "uv_convert_from_secure")
"""Events that name the very page; others may name it or the first page of its folio."""
ANSWERED = ("pin", "export")
"""Kinds of call (Rule.call) of which an event shows the result."""
MOST_SITUATIONS = 200_000
"""Most situations that are kept at once, and most states."""
MOST_TOLD = 4
"""Most lines of why an event is refused."""


class Shown(NamedTuple):
    """What one step shows. page: of the step; head: of its folio; succeeded: None where nothing is said."""

    name: str
    page: int
    head: int
    succeeded: bool | None
    optional: bool = False


class Event(NamedTuple):
    """An event of a recording, its page as a number of the scenario, or None."""

    name: str
    page: int | None
    tid: int
    succeeded: bool | None
    where: str


class Move(NamedTuple):
    """A move of actor `t`: its outcome, the state after it (its own if it was refused), and what it shows."""

    t: int
    outcome: int
    after: int
    shows: tuple[Shown, ...]
    rule: str
    pc: int

    @property
    def silent(self) -> bool:
        """Whether it can be taken and show nothing."""
        return self.outcome > 0 and all(shown.optional for shown in self.shows)


class Situation(NamedTuple):
    """state: number of a state; threads: per actor the thread of a vCPU, 0 if none is known yet; owed: per actor what
    its last step shows and the recording has not shown yet."""

    state: int
    threads: tuple[int, ...]
    owed: tuple[tuple[Shown, ...], ...]


class End(NamedTuple):
    """A wait at the end of a recording: in how many of all situations, of which classes there, in words."""

    situations: int
    all: int
    kinds: tuple[str, ...]
    line: str


@dataclass(slots=True)
class Answer:
    """accepted: whether the whole recording has an execution; None if a limit was reached.

    shown     number of events that some execution shows
    refused   the first event that none shows;  why: for each prefix, lines with the guards that refuse it
    prefixes  number of situations in which an execution of the longest prefix may be
    waits     the waits in which it ends
    """

    accepted: bool | None = True
    shown: int = 0
    refused: Event | None = None
    why: list[str] = field(default_factory=list)
    prefixes: int = 0
    waits: list[End] = field(default_factory=list)


class _Limit(Exception):
    """More than MOST_SITUATIONS."""


class Search:
    """The executions of a system under a policy. names: the events of the recording; others are not looked for."""

    def __init__(self, system: System, names: Iterable[str]) -> None:
        self.system, self.names = system, frozenset(names)
        start = to_lists(system.state)
        self._states: list[State] = [start]
        self._numbers = {frozen(start): 0}
        self._moves: dict[int, list[Move]] = {}
        self._answers: list[int] = []
        space = load.functions(lambda function: function)
        for call in ANSWERED:
            space[f"uv_{call}"] = self._asked(space[f"uv_{call}"])
        self._rules: Any = load.rules(space)
        size = len(start.task)
        self.here = {Situation(0, (0,) * size, ((),) * size)}

    def _asked(self, call: Any) -> Any:
        """Returns a function of the ultravisor that also keeps its answers."""

        def answered(*arguments: Any) -> int:
            code = int(call(*arguments))
            self._answers.append(code)
            return code

        return answered

    def run(self, events: Iterable[Event]) -> Answer:
        """Look for an execution that shows the events."""
        made = Answer()
        try:
            for event in events:
                reached = self._silent(self.here)
                following = {after for one in reached for after in self._showing(one, event)}
                if not following:
                    made.accepted, made.refused, made.prefixes = False, event, len(self.here)
                    made.why = list(self._refusals(reached, event))
                    return made
                self.here = following
                made.shown += 1
        except _Limit:
            made.accepted = None
            return made
        made.prefixes = len(self.here)
        made.waits = self._ends()
        return made

    # ------------------------------------------------------------------------------------------------- states
    def _number(self, state: State) -> int:
        key = frozen(state)
        if key not in self._numbers:
            self._numbers[key] = len(self._states)
            self._states.append(state)
        return self._numbers[key]

    def state(self, number: int) -> State:
        """Returns the state of a number."""
        return self._states[number]

    def moves(self, number: int) -> list[Move]:
        """Every move of a state, enabled or refused."""
        if number not in self._moves:
            state = self._states[number]
            choices = self.system.choices
            self._moves[number] = [
                self._move(number, state, t, *choice)
                for t in range(len(choices))
                if state.task[t].pc in RULES
                for choice in (choices[t] if is_idle(state, t) else [(0, 0)])
            ]
        return self._moves[number]

    def _move(self, number: int, state: State, t: int, op: int, page: int) -> Move:
        pc, after = state.task[t].pc, copied(state)
        self._answers.clear()
        outcome = int(self._rules.step(after, t, op, page))
        about = int(focus(state, t, page))
        head = int(self._rules.head(state, about))
        answer = self._answers[0] if self._answers else None
        shows = tuple(self._shows(state, after, t, outcome, answer, about, head))
        return Move(t, outcome, self._number(after) if outcome > 0 else number, shows, RULES[pc].name, pc)

    def _shows(
        self, state: State, after: State, t: int, outcome: int, answer: int | None, page: int, head: int
    ) -> Iterator[Shown]:
        """What a move shows of the events of the recording, by Rule.traced."""
        rule = RULES[state.task[t].pc]
        for word in rule.traced:
            name, _, outcomes = word.lstrip("?!").partition("@")
            wanted = [getattr(layout, one) for one in outcomes.split(",")] if outcomes else None
            if name not in self.names or (outcome not in wanted if wanted else outcome < 0):
                continue
            succeeded: bool | None = "!" not in word
            if name in PINS:
                if _pins(after) - _pins(state) != PINS[name]:
                    continue
                succeeded = None
            elif rule.call in ANSWERED and not outcomes:
                if answer is None:
                    continue
                succeeded = answer == UV_OK
            yield Shown(name, page, page if name in EXACT else head, succeeded, word.startswith("?"))

    # ------------------------------------------------------------------------------------------- situations
    def _silent(self, start: set[Situation]) -> set[Situation]:
        """The situations that steps lead to which show nothing."""
        seen, queue = set(start), list(start)
        while queue:
            one = queue.pop()
            for move in self.moves(one.state):
                if one.owed[move.t] or not move.silent:
                    continue
                after = one._replace(state=move.after)
                if after not in seen:
                    seen.add(after)
                    queue.append(after)
                    self._bounded(seen)
        return seen

    def _bounded(self, seen: set[Situation]) -> None:
        if len(seen) > MOST_SITUATIONS or len(self._states) > MOST_SITUATIONS:
            raise _Limit

    def _showing(self, one: Situation, event: Event) -> Iterator[Situation]:
        """The situations after an event: it is owed by an actor's last step, or a step shows it, or a refused one."""
        for t, owed in enumerate(one.owed):
            for shown, rest in first_of(owed):
                if _matches(shown, event) and (threads := self._bound(one, t, event.tid)) is not None:
                    yield Situation(one.state, threads, (*one.owed[:t], rest, *one.owed[t + 1 :]))
        for move in self.moves(one.state):
            if one.owed[move.t]:
                continue
            for shown, rest in first_of(move.shows):
                if _matches(shown, event) and (threads := self._bound(one, move.t, event.tid)) is not None:
                    yield Situation(move.after, threads, (*one.owed[: move.t], rest, *one.owed[move.t + 1 :]))

    def _bound(self, one: Situation, t: int, tid: int) -> tuple[int, ...] | None:
        """The threads of the vCPUs if actor `t` is thread `tid`; None if that cannot be. A device's steps are taken by
        any thread; thread 0 is a CPU that idles."""
        if self._states[0].who[t].kind != VCPU or 0 < one.threads[t] == tid:
            return one.threads
        if one.threads[t] or tid in (0, *one.threads):
            return None
        return (*one.threads[:t], tid, *one.threads[t + 1 :])

    # ------------------------------------------------------------------------------------------------- answers
    def _refusals(self, reached: set[Situation], event: Event) -> Iterator[str]:
        """Why no step shows the event, a line each: what the rules would show instead, and the guards that refuse."""
        at_it, before_it = Counter[str](), Counter[str]()
        for one in sorted(reached):
            state = self._states[one.state]
            for move in self.moves(one.state):
                if event.name in RULES[move.pc].shown:
                    at_it[self._at_it(one, move, event)] += 1
                elif not is_idle(state, move.t) and (why := self._before_it(one, move)):
                    before_it[why] += 1
        told = at_it or before_it
        yield from sorted(told, key=lambda line: (-told[line], line))[:MOST_TOLD]
        if not told:
            rules = [rule.name for rule in RULES.values() if event.name in rule.shown]
            yield f"no actor can come to a rule that shows {event.name} ({', '.join(rules)})"

    def _at_it(self, one: Situation, move: Move, event: Event) -> str:
        """Why a move of a rule that can show the event does not show it."""
        state = self._states[one.state]
        who = f"{words.name(state, move.t)} {move.rule}"
        if one.owed[move.t] or move.outcome < 0:
            return self._before_it(one, move)
        if self._bound(one, move.t, event.tid) is None:
            return f"{who}: thread {event.tid} is another vCPU, or {words.name(state, move.t)} another thread"
        return f"{who}: the rules say {OUTCOMES[move.outcome]}{self._difference(state, move, event)}"

    def _before_it(self, one: Situation, move: Move) -> str:
        """Why a move cannot be taken before the event: its guard, or another event that it shows. "" if it can."""
        state = self._states[one.state]
        who = f"{words.name(state, move.t)} {move.rule}"
        if one.owed[move.t]:
            return f"{who}: its step before shows {one.owed[move.t][0].name} first"
        if move.outcome < 0:
            guard = GUARDS[move.outcome]
            condition = guard_source(move.pc, guard)
            return f"{who}: {guard}, waits for {WAITS[-move.outcome]}" + (f", where {condition}" if condition else "")
        must = [shown.name for shown in move.shows if not shown.optional]
        return f"{who}: it shows {must[0]} first" if must else ""

    def _difference(self, state: State, move: Move, event: Event) -> str:
        """What a step shows in place of an event."""
        shown = next((one for one in move.shows if one.name == event.name), None)
        if shown is None:
            return f", which shows {', '.join(one.name for one in move.shows) or 'nothing'}"
        if event.page is not None and event.page not in (shown.page, shown.head):
            return f" of page {shown.page}, the recording names page {event.page}"
        stall = words.stall(state, move.t)
        held = f"; held by {stall.wait.held_by}" if stall else ""
        return f", the recording shows a {'success' if event.succeeded else 'failure'}{held}"

    def _ends(self) -> list[End]:
        """The waits at the end: those that never end by themselves, and any in which every execution ends."""
        numbers = sorted({one.state for one in self.here})
        found: dict[str, list[str]] = {}
        for number in numbers:
            for stall in words.stalls(self._states[number]):
                found.setdefault(stall.wait.line(), []).append(stall.kind)
        made = [End(len(kinds), len(numbers), tuple(sorted(set(kinds))), line) for line, kinds in found.items()]
        return sorted(one for one in made if one.situations == one.all or one.kinds != ("waiting",))


def _pins(state: State) -> int:
    """Returns the number of pins of all pages."""
    return sum(m.pins + m.longs for m in state.mm)


def first_of(shows: tuple[Shown, ...]) -> Iterator[tuple[Shown, tuple[Shown, ...]]]:
    """Each of `shows` that can come first, with those behind it: up to the first that is not optional."""
    for n, one in enumerate(shows):
        yield one, shows[n + 1 :]
        if not one.optional:
            return


def _matches(one: Shown, event: Event) -> bool:
    """Whether an event can be what a step shows: the same name, its page or folio, and no other result."""
    if one.name != event.name or (event.page is not None and event.page not in (one.page, one.head)):
        return False
    return None in (one.succeeded, event.succeeded) or one.succeeded == event.succeeded
