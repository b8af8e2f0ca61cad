"""Running rules against a store: a burst is some steps of one thread, committed as one change of its group.

The rules run as they are, over the role's own view. Functions that belong to another part (ultravisor calls, the
hardware's view, an exit to the host) are replaced by a crossing: the step is undone, the group's turn is taken, the
other part is asked and commits its own change under that turn, and the step runs again with the answer at hand. Rules
are pure, so the second run, and any run after a crash, ends the same (see state/store.py). Where the first part that is
asked can take the turn for the beginner, it is offered the turn: one commit less.
"""

from __future__ import annotations

import functools
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec

from ultrafolio.model.design import Design
from ultrafolio.model.designs import S390
from ultrafolio.model.layout import NOTHING, State
from ultrafolio.state.view import View

from .crossing import (
    HANDS_OVER,
    LOOKED_AT,
    OFFERED,
    ROUNDS,
    SEEN,
    Ask,
    Begun,
    Crossing,
    NotTaken,
    Result,
    Slot,
    rules_of,
    swaps,
)
from .events import StepEvent, Steps, encode
from .owner import token
from .roles import ROLE_OF_ACTOR
from .sections import Meta
from .store import Answer, Commit, NoGroup, Offer, Store, Turn

LONGEST = 64
"""Most steps in one burst, so that other threads of the group get their turn."""


@dataclass(frozen=True, slots=True)
class Done:
    """A step taken (outcome > 0), or refused and why (outcome < 0)."""

    actor: int
    pc: int
    outcome: int
    design: Design = S390

    @property
    def name(self) -> str:
        return self.design.rules[self.pc].name

    @property
    def word(self) -> str:
        return self.design.outcomes[self.outcome] if self.outcome > 0 else self.design.waits[-self.outcome]


class Contended(Exception):
    """The group's turn was not free in time; the message names its holder."""


class Section(NamedTuple):
    """A section as a part has it."""

    name: str
    revision: int
    data: bytes


class Lost(Exception):
    """The turn expired; only the store knows whether the step was committed."""


class Group:
    """A role's access to one group: its view, one burst at a time.

    A burst ends when its thread passes to another role.

    left: called for each abandoned turn that was finished here, with the group's name
    """

    def __init__(
        self,
        store: Store,
        name: str,
        meta: Meta,
        role: str,
        ask: Ask,
        *,
        patience: float = 10.0,
        left: Callable[[str, Turn], None] = lambda group, turn: None,
    ) -> None:
        self.store, self.name, self.role, self.view = store, name, role, View(meta, role)
        self.design = meta.design
        self._ask, self._patience, self._left = ask, patience, left
        self._rules = rules_of(role, self.design)
        self._lock, self._told = threading.Lock(), set[str]()
        self._writer = f"{role}-{os.urandom(6).hex()}"
        self._sequence = 0

    def burst(
        self,
        actor: int,
        op: int = NOTHING,
        page: int = 0,
        *,
        most: int = LONGEST,
        request: str = "",
        stop: Callable[[View], bool] | None = None,
        fresh: int = -1,
        begun: Begun | None = None,
    ) -> list[Done]:
        """Run thread `actor` until it waits, passes to another part, is idle, or has taken `most` steps.

        (op, page) is its choice if it stands where it chooses. `request` names the client's request: if a burst of that
        name was committed before, its steps are returned and nothing is done. `stop` ends it after any step.
        `fresh`: the revision of `pc` at which no burst of that name was committed. `begun`: the first step has begun.
        Contended if others keep the group busy for longer than the patience.
        """
        end, pause = time.monotonic() + self._patience, 0.001
        offers = True
        while True:
            with self._lock, self._clean():
                answer = None if begun or (self._read and self._ours(actor)) else self._renew()
                # after the look: what the view does not show yet is not answered yet, and makes the commit stale
                if answer and answer.status == "held" and not self._ours(actor):
                    pass  # a step that is half done may have moved the thread: wait and see
                elif not begun and fresh != self.view.revisions["pc"] and self.known(request) is not None:
                    answer = self._renew()
                    if answer.status != "held" or not answer.turn or answer.turn.request != request:
                        return self.known(request) or []
                else:
                    burst = _Burst(self, actor, request, begun=begun, offers=offers)
                    begun, fresh = None, -1
                    try:
                        return burst.run(op, page, most, stop)
                    except Lost:
                        if burst.kept and not request:
                            return burst.kept
                        offers = False
                        continue
                    except _Again as again:
                        self.view.rollback()
                        answer = again.answer
                        if answer.status == "left":
                            self._finish(answer)
            if answer.status == "held":
                if time.monotonic() > end:
                    holder = answer.turn.role if answer.turn else "nobody"
                    raise Contended(f"{self.name}: the turn is held by {holder}")
                # without the lock: the holder of the turn may call this role
                time.sleep(pause)
                pause = min(2 * pause, 0.02)

    def refresh(self) -> View:
        """Returns the refreshed view, after finishing an abandoned step of this role."""
        with self._lock, self._clean():
            self._renew()
            return self.view

    def snapshot(self) -> State:
        """Returns a copy of the view's arrays as stored now, without uncommitted changes of this role, and with the
        sections of sections.MAY_LOOK."""
        with self._lock, self._clean():
            beside = self.view.may.looks
            found = self._look(beside).sections
            return self.view.seen({name: found[name] for name in beside})

    def begin(self, actor: int, op: int, page: int, ready: Callable[[View], bool]) -> Offer | None:
        """What another part needs to begin the step that `actor` takes with its choice: a turn that it may take. None
        where the view was not read before, or what it shows is not `ready` for that. Nothing is sent."""
        with self._lock:
            if not self._read or not ready(self.view):
                return None
            return self._offer(self._turn(actor, op, page, ""), f"{self._writer}/{actor}")

    def _offer(self, turn: Turn, writer: str) -> Offer:
        """Returns the offer of a turn for the role that is asked to take it."""
        return Offer(turn, dict(self.view.revisions), writer, int(self._next()))

    def _turn(self, actor: int, op: int, page: int, request: str) -> Turn:
        """Returns a new turn of this role, with what the role has seen."""
        seen = [(name, self.view.section(name).hex()) for name in SEEN[self.design.name][self.role]]
        return Turn(token(self.store.epoch), self.role, actor, op, page, request, seen=seen)

    def tell(self, known: Mapping[str, int], role: str) -> list[Section]:
        """The sections of those `known` by revision that another role reads, too, and that were read later here."""
        with self._lock:
            shared = self.view.sections.touched[role].reads
            mine = {name: self.view.revisions.get(name, -1) for name in known if name in shared}
            return [Section(name, at, self.view.section(name)) for name, at in mine.items() if at > known[name]]

    def learn(self, sections: Iterable[Section], role: str) -> None:
        """Take over sections that another role has read, or written, later than this one; what it may not write itself
        it cannot tell."""
        with self._lock:
            for name, revision, data in sections:
                before = self.view.revisions.get(name, revision)
                may = name in self.view.sections.touched[role].writes
                if may and revision > before and len(data) == self.view.meta.size(name):
                    self.view.update({name: revision}, {name: data})
                    self._told.add(name)

    def _look(self, beside: Sequence[str] = ()) -> Answer:
        """Refresh the view. The returned answer also has the sections `beside`, which are not in the view."""
        cached = self.view.revisions | dict.fromkeys(beside, -1)
        answer = self._commit(Commit(self._next(), self._writer, cached=cached))
        self.view.update(answer.revisions, {n: data for n, data in answer.sections.items() if n not in beside})
        return answer

    def _renew(self) -> Answer:
        """Refresh the view, after finishing an abandoned step of this role."""
        while (answer := self._look()).status == "left":
            self._finish(answer)
        return answer

    @property
    def _read(self) -> bool:
        """Whether every section was read before."""
        return min(self.view.revisions.values()) >= 0

    def _ours(self, actor: int) -> bool:
        """Whether the thread's present rule is run by this role."""
        return self.runs(self.view.live.task[actor].pc)

    def runs(self, pc: int) -> bool:
        """Whether this role runs the rule at a place; nobody runs what is none."""
        return pc in self.design.rules and ROLE_OF_ACTOR[self.design.rules[pc].actor] == self.role

    def known(self, request: str) -> list[Done] | None:
        """The steps that were committed for a request, None if there are none."""
        known = self.store.reply(self.name, request) if request else None
        if known is None:
            return None
        return [Done(actor, pc, outcome, self.design) for actor, pc, outcome in msgspec.msgpack.decode(known)]

    @contextmanager
    def _clean(self) -> Iterator[None]:
        """Roll back uncommitted changes at the end."""
        try:
            yield
        finally:
            self.view.rollback()

    def take_part(self, token: str, index: int, function: str, arguments: Iterable[int]) -> Result:
        """Run one function of this role in another role's step, committed under its turn. Lost: the turn expired."""
        with self._lock, self._clean():
            while True:
                self.view.live.crossing = None
                result = Result(int(getattr(self._rules, function)(self.view.live, *arguments)))
                answer = self._commit(
                    Commit(
                        self._next(),
                        self._writer,
                        cached=dict(self.view.revisions),
                        expect=list(self.view.revisions),
                        patches=self.view.patches(),
                        token=token,
                        journal=(index, msgspec.msgpack.encode(result)),
                    )
                )
                if answer.status == "done" and not answer.journal:
                    self.view.committed(answer)
                    return result
                self.view.rollback()
                self.view.update(answer.revisions, answer.sections)
                if answer.journal:
                    return msgspec.msgpack.decode(answer.journal[0], type=Result)
                if answer.status != "stale":
                    raise Lost

    def _finish(self, left: Answer) -> None:
        """Finish the step of an abandoned turn of this role that has results of other roles."""
        assert left.turn is not None
        results = [msgspec.msgpack.decode(entry, type=Result) for entry in left.journal]
        turn = left.turn
        try:
            burst = _Burst(self, turn.actor, turn.request)
            burst.adopt(turn, results, self.known(turn.request) or [])
            burst.run(turn.op, turn.page, LONGEST, None)
        except (Lost, _Again):
            self.view.rollback()
        else:
            self._left(self.name, turn)

    def _commit(self, commit: Commit) -> Answer:
        """Returns the store's answer to a commit. Raises NoGroup if there is no such group."""
        if self._told:
            commit = msgspec.structs.replace(commit, told=sorted(self._told & commit.cached.keys()))
        answer = self.store.commit(self.name, commit)
        self._told -= answer.revisions.keys()
        if answer.status == "absent":
            raise NoGroup(self.name)
        return answer

    def _next(self) -> str:
        """Returns the name of the next commit of this process."""
        self._sequence += 1
        return str(self._sequence)


class _Again(Exception):
    def __init__(self, answer: Answer) -> None:
        self.answer = answer


class _Burst:
    """One attempt at a burst."""

    def __init__(
        self, group: Group, actor: int, request: str, *, begun: Begun | None = None, offers: bool = True
    ) -> None:
        self.group, self.view, self.actor, self.request = group, group.view, actor, request
        self.turn = begun.turn if begun else None
        self.offers = offers
        self.slot = Slot([begun.result] if begun else [])
        self.choice = NOTHING, 0
        self.view.live.crossing = self.slot
        self.events: list[StepEvent] = []
        self.polls = 0
        self.done: list[Done] = []
        self.kept: list[Done] = []
        self.adopted = False

    def adopt(self, turn: Turn, results: list[Result], kept: list[Done]) -> None:
        """Take over an abandoned turn with these results, after `kept` steps, and restore its saved inputs."""
        self.slot.results, self.done, self.adopted = results, kept, True
        self._take(msgspec.structs.replace(turn, token=token(self.group.store.epoch)), adopt=True)
        self.view.update(dict.fromkeys(dict(turn.seen), -1), {name: bytes.fromhex(data) for name, data in turn.seen})

    def run(self, op: int, page: int, most: int, stop: Callable[[View], bool] | None) -> list[Done]:
        """Take steps of the actor, `most` at most, until one is refused or `stop` says so. Returns the steps."""
        refused, self.choice = None, (op, page)
        while len(self.done) < most and self.group._ours(self.actor):
            step = self._step(op, page)
            if step.outcome < 0:
                if self.turn is None and not self.done and (now := self.group._look()).sections:
                    raise _Again(msgspec.structs.replace(now, status="stale"))
                refused = step
                break
            self.done.append(step)
            op, page = NOTHING, 0
            over = self.adopted and self.slot.used == len(self.slot.results)
            if over or self._handed() or self._idle() or (stop and stop(self.view)):
                break
        self._end()
        return [*self.done, refused] if refused and not self.done else self.done

    def _handed(self) -> bool:
        """Whether the last step passed the thread to another role, whose changes are not in the view."""
        return any(name in HANDS_OVER for name, _ in self.slot.names)

    def _idle(self) -> bool:
        idle = self.group.design.idle[int(self.view.meta.who["kind"][self.actor])]
        return bool(self.view.live.task[self.actor].pc == idle)

    def _step(self, op: int, page: int) -> Done:
        """Run the thread's present rule, repeatedly until all its calls have results."""
        while True:
            mark, used = len(self.view.log), self.slot.used
            self.slot.begin(functools.partial(swaps, self.view, mark))
            pc = self.view.live.task[self.actor].pc
            try:
                outcome = int(self.group._rules.step(self.view.live, self.actor, op, page))
                self.slot.settle()
            except Crossing as crossing:
                self.view.rollback(mark)
                self.slot.used = used
                self._cross(op, page, crossing)
                continue
            if outcome < 0:
                self.view.rollback(mark)
            else:
                if not self.events:
                    # it polled without success
                    self.polls = self.actor + 1 if (pc, outcome) in ROUNDS[self.group.design.name] else 0
                self.events.append(StepEvent(self.actor, op, page, outcome, list(self.slot.names)))
            return Done(self.actor, pc, outcome, self.group.design)

    def _cross(self, op: int, page: int, crossing: Crossing) -> None:
        """Ask the role that executes `function`; first begin a turn, by an offer where that is allowed."""
        if self.turn is None:
            if not self._offered(crossing):
                self._take(self.group._turn(self.actor, op, page, self.request))
            return
        result = self.group._ask(self.view, self.turn, len(self.slot.results), crossing.function, crossing.arguments)
        self.slot.results.append(result)

    def _offered(self, crossing: Crossing) -> bool:
        """Let the part that is asked take the turn; False: the burst must take it itself.

        Steps before this one in the burst are committed at its end only. So the turn names the choice of the first of
        them, from where a successor begins, and none of them has written what a part that is asked may read.
        """
        role, design = self.group.role, self.group.design.name
        offers = self.offers and crossing.function in OFFERED[design][role]
        if not offers or self.view.pending() & LOOKED_AT[design][role]:
            return False
        turn = self.group._turn(self.actor, *self.choice, self.request)
        offer = self.group._offer(turn, self.group._writer)
        try:
            result = self.group._ask(self.view, offer.turn, 0, crossing.function, crossing.arguments, offer)
        except NotTaken:
            self.offers = False
            return False
        self.turn = offer.turn
        self.slot.results.append(result)
        return True

    def _take(self, turn: Turn, *, adopt: bool = False) -> None:
        """Commit the changes so far, and take the turn."""
        self._commit(self._change(take=turn, adopt=adopt))
        self.turn = turn

    def _end(self) -> None:
        """Commit the rest, and release the turn."""
        if self.turn or self.events:
            self._commit(self._change(token=self.turn.token if self.turn else "", release=bool(self.turn)))

    def _change(self, **more: Any) -> Commit:
        """Returns the commit of the changes, with the request's answer so far, so that both are stored together."""
        events = [encode(Steps(self.group.role, list(self.events)))] if self.events else []
        answer = msgspec.msgpack.encode([(step.actor, step.pc, step.outcome) for step in self.done])
        return Commit(
            self.group._next(),
            self.group._writer,
            cached=dict(self.view.revisions),
            expect=[] if self.turn else list(self.view.revisions),
            patches=self.view.patches(),
            events=events,
            request=(self.request, answer) if self.request and self.done else None,
            polls=self.polls if events else 0,
            **more,
        )

    def _commit(self, commit: Commit) -> None:
        """Commit the steps. Raises Lost if the turn is lost, _Again if the view was stale."""
        answer = self.group._commit(commit)
        if answer.status == "lost":
            self.view.rollback()
            self.view.update(answer.revisions, answer.sections)
            raise Lost
        if answer.status != "done":
            self.view.rollback()
            self.view.update(answer.revisions, answer.sections)
            raise _Again(answer)
        self.events.clear()
        self.kept = list(self.done)
        self.view.committed(answer)
