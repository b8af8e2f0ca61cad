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
        number = next(n for n, (box, _) in enumerate(self.leaves) if box & policy == policy)
        key = number, same
        if key not in self._grown:
            self._grown[key] = self._grow(number, same)
        return self._grown[key]

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
        self._loaded: Any = None

    def load(self, frozen: Any) -> None:
        """Take over the sections of a state as replay.frozen() has them."""
        if frozen is self._loaded:
            return
        self._loaded = frozen
        put = object.__setattr__
        for section, rows in zip(self.state[2:], frozen, strict=True):
            for record, row in zip(section, rows, strict=True):
                for name, value in zip(record.__slots__, row, strict=True):
                    put(record, name, value)
        self.log.clear()

    def apply(self, changes: Sequence[tuple[int, str, int]]) -> None:
        """Make the changes that UndoLog.changes() has told."""
        self._loaded = None
        for number, name, value in changes:
            object.__setattr__(self._cells[number], name, value)

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
