"""A walk through a system's states by index path, with each step by the interpreter.

The moves of a state have a fixed order, actor after actor and choice after choice; the enabled ones are numbered from
0. So an index path such as `3.1.0` names the same execution wherever the rules are equal.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ultrafolio.check.verdicts.replay import NotCertified, Step, copied, take
from ultrafolio.engine.interp import to_lists
from ultrafolio.engine.load import interpreted_of
from ultrafolio.errors import InputError
from ultrafolio.model import designs
from ultrafolio.model.layout import OPS, RING_READY, State
from ultrafolio.model.policies import AnyPolicy
from ultrafolio.model.scenario import Scenario, system

MAX_STEPS = 1000
"""The longest path that is followed; the longest published counterexample has under 60 steps."""
_PATH = re.compile(r"(\d{1,4}(\.\d{1,4})*)?")


@dataclass(frozen=True, slots=True)
class Move:
    """A possible move of one actor in a state: its next step, or one of its choices.

    index    its number among the enabled moves; None: refused
    op, page the choice, if the actor is idle and has one
    outcome  of the step: positive, its result; negative, the W_ reason of the refusal
    step     the step as taken; None: refused
    after    the state after it, as lists; None: refused
    design   the name of the state's design
    """

    index: int | None
    by: int
    pc: int
    op: str
    page: int
    outcome: int
    step: Step | None = None
    after: State | None = None
    design: str = designs.S390.name

    @property
    def actor(self) -> int:
        return self.by >> 16

    @property
    def rule(self) -> str:
        rules = designs.DESIGNS[self.design].rules
        return rules[self.pc].name if self.pc in rules else "none"

    @property
    def outcome_word(self) -> str:
        if self.outcome > 0:
            return designs.DESIGNS[self.design].outcomes[self.outcome]
        if self.pc == RING_READY and self.design == designs.S390.name:
            return "the guest's reboot or shutdown"
        return designs.DESIGNS[self.design].waits[-self.outcome]

    def same_choice(self, other: Move) -> bool:
        """Whether it is the same actor's, with the same choice."""
        return (self.actor, self.op, self.page) == (other.actor, other.op, other.page)


@dataclass(frozen=True, slots=True)
class Trail:
    """A path with its states and moves; there is one state more. The states are lists and must not be changed."""

    path: tuple[int, ...]
    states: list[State]
    moves: list[Move]

    @property
    def here(self) -> State:
        return self.states[-1]


@dataclass(frozen=True, slots=True)
class Follower:
    """Another policy's walk that repeats the moves of a leading walk.

    path     its own index path, of the moves that were enabled
    skipped  (first, last, why): the leading moves, numbered from 1, that were not enabled
    """

    path: tuple[int, ...]
    skipped: list[tuple[int, int, str]]


def parse_path(text: str) -> tuple[int, ...]:
    """The indices in "3.1.0"; "" is the initial state. Raises InputError for other text, or more than MAX_STEPS."""
    if text.count(".") >= MAX_STEPS:
        raise InputError("the path is too long", value=text[:40] + "...", allowed=f"at most {MAX_STEPS} steps")
    if not _PATH.fullmatch(text):
        raise InputError(
            "not an index path",
            value=text,
            allowed="indices of steps with dots between, such as 3.1.0",
            then="the same command without --path shows the first steps",
        )
    return tuple(int(word) for word in text.split(".")) if text else ()


def path_text(path: Sequence[int]) -> str:
    return ".".join(str(index) for index in path)


class Walk:
    """The state graph of a scenario under a policy, walked on demand.

    scenario, policy  as the user named them, for the command that reproduces a state
    machine           that of the story, if it is another than the scenario names
    """

    def __init__(self, story: Scenario, scenario: str, policy: AnyPolicy, policy_name: str, machine: str = "") -> None:
        self.story, self.scenario, self.policy, self.choices = story, scenario, policy_name, policy
        self.machine = machine
        self.system = system(story, policy)
        self.design = designs.of(self.system.state)
        self.actors = [
            f"{self.design.kinds[kind]} {t}" for t, kind in enumerate(self.system.state.who["kind"].tolist())
        ]
        start = to_lists(self.system.state)
        self._last = Trail((), [start], [])

    def moves(self, state: State) -> list[Move]:
        """Every move of a state (as lists), enabled and refused, in the fixed order."""
        made: list[Move] = []
        enabled = 0
        for t, choices in enumerate(self.system.choices):
            for choice in range(len(choices) if is_idle(state, t) else 1):
                move = self._move(state, t, choice, enabled)
                enabled += move.index is not None
                made.append(move)
        return made

    def enabled(self, state: State) -> list[Move]:
        return [move for move in self.moves(state) if move.index is not None]

    def _move(self, state: State, t: int, choice: int, index: int) -> Move:
        """Returns actor `t`'s move with this choice, tried on a copy of the state; refused where the step is not
        enabled."""
        pc, by = state.task[t].pc, t << 16 | choice
        op, page = self.system.choices[t][choice] if is_idle(state, t) else (0, 0)
        trial = copied(state)
        try:
            step = take(self.system, trial, by)
        except NotCertified:
            refused = interpreted_of(trial).step(trial, t, op, page)
            return Move(None, by, pc, OPS[op], page, refused, design=self.design.name)
        return Move(index, by, pc, OPS[op], page, step.outcome, step, trial, self.design.name)

    def follow(self, path: Sequence[int]) -> Trail:
        """Take the steps of an index path. Raises InputError for an index that no enabled step has."""
        if len(path) > MAX_STEPS:
            raise InputError("the path is too long", value=len(path), allowed=f"at most {MAX_STEPS} steps")
        same = 0
        for old, new in zip(self._last.path, path, strict=False):
            if old != new:
                break
            same += 1
        states, moves = self._last.states[: same + 1], self._last.moves[:same]
        for at in range(same, len(path)):
            enabled = self.enabled(states[-1])
            if not 0 <= path[at] < len(enabled):
                raise self._no_step(path, at, len(enabled))
            move: Any = enabled[path[at]]
            states.append(move.after)
            moves.append(move)
        self._last = Trail(tuple(path), states, moves)
        return self._last

    def _no_step(self, path: Sequence[int], at: int, enabled: int) -> InputError:
        """Returns the error for an index of a path that no enabled step has."""
        steps = "only 1 step is" if enabled == 1 else f"only {enabled} steps are" if enabled else "no step is"
        return InputError(
            f"index {path[at]} at step {at + 1}: {steps} enabled",
            value=path_text(path),
            allowed=f"0 to {enabled - 1}" if enabled else f"the path up to there: {path_text(path[:at]) or '(start)'}",
            cause="a link of another scenario or policy, or of other rules",
            then=shlex.join(self.command(path[:at])),
        )

    def indices(self, bys: Sequence[int]) -> tuple[int, ...]:
        """The index path of the edges (actor << 16 | choice) of a counterexample. Raises InputError if one is not
        enabled."""
        state, path = self._last.states[0], list[int]()
        for by in bys:
            move: Any = next((m for m in self.enabled(state) if m.by == by), None)
            if move is None:
                raise InputError("a step of the story is not enabled", value=path_text(path), cause="other rules")
            path.append(move.index)
            state = move.after
        return tuple(path)

    def in_step(self, lead: Trail) -> Follower:
        """Take the moves of a leading trail with the same actors and choices; skip moves that are not enabled."""
        state, path = self._last.states[0], list[int]()
        skipped: list[tuple[int, int, str]] = []
        for number, wanted in enumerate(lead.moves, 1):
            moves = self.moves(state)
            move: Any = next((m for m in moves if m.same_choice(wanted)), None)
            if move is None or move.index is None:
                first, why = number, self._why_not(state, wanted, move)
                if skipped and skipped[-1][1:] == (number - 1, why):
                    first = skipped.pop()[0]
                skipped.append((first, number, why))
                continue
            path.append(move.index)
            state = move.after
        return Follower(tuple(path), skipped)

    def _why_not(self, state: State, wanted: Move, refused: Move | None) -> str:
        """Returns in words why a follower cannot take the wanted move."""
        who = self.actors[wanted.actor]
        if refused:
            return f"{who} {refused.rule} waits for {refused.outcome_word}"
        pc = state.task[wanted.actor].pc
        if is_idle(state, wanted.actor):
            return f"{who} has begun nothing to go on with"
        rule = self.design.rules.get(pc)
        return f"{who} has begun something else: it is at {rule.name if rule else 'its end'}"

    def command(self, path: Sequence[int] = (), machine: str | None = None) -> list[str]:
        """The words of the command that shows the state at `path`; machine: that of --machine, if it is another."""
        machine = self.machine if machine is None else machine
        words = ["ultrafolio", "explore", self.scenario, "--policy", self.policy]
        words += ["--machine", machine] if machine else []
        return [*words, "--path", path_text(path)] if path else words


def is_idle(state: State, t: int) -> bool:
    """Whether actor `t` has no operation, so that its next step takes a choice."""
    pc = state.task[t].pc
    return pc == designs.of(state).idle[state.who[t].kind] and not (pc == 0 and state.actor[t].op)
