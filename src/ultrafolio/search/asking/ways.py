"""What a step does under every policy at once: the space as boxes, in each of which the step does the same.

A question is asked of a state under one policy; its answer, and the values that it depends on (noted.py), make the
first box; the rest is asked again, until the whole space is answered. Of two policies with the same answer nobody can
tell, so the box of a policy grows by all boxes of the same answer that make a larger box with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ultrafolio.engine.undo import UndoLog
from ultrafolio.search.asking.noted import Record
from ultrafolio.search.space import Space, Values

IMPOSSIBLE = "impossible"
"""The answer where the rules have none: a policy under which the state is never reached."""
Same = Callable[[Any], Any]
Answered = Callable[[Values], tuple[Any, int]]
"""From a policy to the answer under it and the box that it was noted to depend on."""


def itself(answer: Any) -> Any:
    """The whole answer counts."""
    return answer


class Ways:
    """A partition of the space by the answer to one question."""

    def __init__(self, space: Space, asked: Answered, first: Values) -> None:
        self.space = space
        self.leaves: list[tuple[int, Any]] = []
        self._grown: dict[tuple[int, Same], tuple[int, Any]] = {}
        left, start = [space.full], space.bits(first)
        while left:
            box = left.pop()
            answer, noted = asked(first if box & start == start else space.first_in(box))
            self.leaves.append((box & noted, answer))
            left += space.without(box, box & noted)

    def around(self, policy: int, same: Same = itself) -> tuple[int, Any]:
        """The largest box found around the policy (as a box) in which what `same` says of the answer is the same, and
        that."""
        number = 0
        while self.leaves[number][0] & policy != policy:
            number += 1
        made = self._grown.get((number, same))
        if made is None:
            made = self._grown[number, same] = self._grow(number, same)
        return made

    def _grow(self, number: int, same: Same) -> tuple[int, Any]:
        box, answer = self.leaves[number][0], same(self.leaves[number][1])
        others = [leaf for leaf, said in self.leaves if said is IMPOSSIBLE or same(said) != answer]
        for axis in self.space.axes:
            for value in range(len(axis.values)):
                larger = box | axis.bit(value)
                if larger != box and all(self.space.are_apart(larger, leaf) for leaf in others):
                    box = larger
        return box, answer


class Live:
    """A state as lists whose configuration notes what is asked of it, and whose changes can be undone."""

    def __init__(self, space: Space, state: Any, fixed: dict[str, int]) -> None:
        """state: as lists, which this object then owns. fixed: the configuration fields that are no choice."""
        self.space, self.state, self._fixed = space, state, fixed
        self.log = UndoLog(state)
        self._choices = [(axis.name, axis.at, axis.codes) for axis in space.axes]
        self._records: dict[Values, Record] = {}
        self._cells = [record for section in state[2:] for record in section]
        self._places = [(number, at) for number, section in enumerate(state[2:]) for at in range(len(section))]
        self._loaded: Any = None

    def load(self, frozen: Any) -> None:
        """Take over the sections of a state as replay.frozen() has them. What is loaded is not written again."""
        if frozen is self._loaded:
            return
        put, before = object.__setattr__, self._loaded or ((None,) * len(rows) for rows in frozen)
        for section, rows, old in zip(self.state[2:], frozen, before, strict=True):
            if rows is old:
                continue
            for record, row, was in zip(section, rows, old, strict=True):
                if row != was:
                    for name, value in zip(record.__slots__, row, strict=True):
                        put(record, name, value)
        self._loaded = frozen
        self.log.clear()

    def changed(self, frozen: Any, changes: Sequence[tuple[int, str, int]]) -> Any:
        """The sections of a state after the changes that UndoLog.changes() has told."""
        made: list[Any] = list(frozen)
        for number, name, value in changes:
            section, at = self._places[number]
            rows = list(made[section])
            row = list(rows[at])
            row[self._cells[number].__slots__.index(name)] = value
            rows[at] = tuple(row)
            made[section] = tuple(rows)
        return tuple(made)

    def ways(self, question: Callable[[Any], Any], first: Values) -> Ways:
        """The partition of the space by the answer to `question(state)`, which leaves the state as it was."""

        def asked(values: Values) -> tuple[Any, int]:
            record = self._records.get(values)
            if record is None:
                record = self._records[values] = Record(self._fixed, self._choices, values)
            self.state.cfg[0] = record
            record.begin()
            try:
                answer = question(self.state)
            except IndexError:
                self.log.undo(0)
                answer = IMPOSSIBLE
            return answer, record.box

        return Ways(self.space, asked, first)
