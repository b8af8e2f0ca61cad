"""A walk through the state graph of a scenario under a policy, one step at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ultrafolio.errors import InputError
from ultrafolio.explore.goto import Guide
from ultrafolio.explore.node import node
from ultrafolio.explore.walk import Walk, parse_path, path_text
from ultrafolio.tabular import Tabular

from .named import Policy, Scenario, no_such_type


class Explorer(Tabular):
    """A state of a walk. It is immutable: step(), back() and goto() return a new one.

    path  the index of each enabled step taken from the start, such as 3.1.0; "" at the start
    """

    def __init__(self, scenario: Scenario, policy: Policy, guide: Guide, path: tuple[int, ...] = ()) -> None:
        self._scenario, self._policy, self._guide, self._path = scenario, policy, guide, path
        self._trail = guide.walk.follow(path)

    @classmethod
    def at(cls, scenario: Scenario, policy: Policy, path: str = "") -> Explorer:
        """The walk at a path. Raises InputError for a path with an index that no enabled step has."""
        walk = Walk(scenario.story, scenario.name, policy.choices, policy.name)
        return cls(scenario, policy, Guide(walk), parse_path(path))

    @property
    def path(self) -> str:
        """The index path from the initial state, such as "3.1.0"."""
        return path_text(self._path)

    def step(self, index: int) -> Explorer:
        """The state after the enabled step with this index. Raises InputError for another index."""
        if not isinstance(index, int):
            raise no_such_type("step", index, "the index of an enabled step, as in rows()")
        return Explorer(self._scenario, self._policy, self._guide, (*self._path, index))

    def back(self) -> Explorer:
        """The state before the last step. Raises InputError at the initial state."""
        if not self._path:
            raise InputError("back: this is the start", value=self.path, allowed="after a step")
        return Explorer(self._scenario, self._policy, self._guide, self._path[:-1])

    def goto(self, where: str) -> Explorer:
        """The state at "counterexample" or "loop", or a nearest state in which an expression is not zero.

        Raises InputError if there is none."""
        found = self._guide.goto(where)
        if found.path is None:
            raise InputError(f"goto: {found.message}", value=where, allowed="counterexample, loop, or an expression")
        return Explorer(self._scenario, self._policy, self._guide, found.path)

    def record(self) -> dict[str, Any]:
        """The state as `ultrafolio explore --json` prints it."""
        return dict(node(self._guide.walk, self._trail.here))

    def rows(self) -> Sequence[Mapping[str, Any]]:
        """One row a move of this state: its index if it is enabled, else the reason of its refusal."""
        return [
            {
                "index": move.index,
                "actor": self._guide.walk.actors[move.actor],
                "rule": move.rule,
                "op": move.op,
                "page": move.page,
                "outcome": move.outcome_word,
            }
            for move in self._guide.walk.moves(self._trail.here)
        ]

    def heading(self) -> str:
        """The scenario, the policy and the path."""
        return f"{self._scenario.name} under {self._policy.name} at {self.path or 'the start'}"

    def __repr__(self) -> str:
        return f"Explorer({self.heading()})"
