"""The verdict of every policy on one scenario."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ultrafolio.check.verdicts.replay import NotCertified
from ultrafolio.check.verdicts.verdict import MAX_STATES
from ultrafolio.errors import Defect
from ultrafolio.model.scenario import Scenario, document
from ultrafolio.search.asking.ask import Answer, ask
from ultrafolio.search.asking.system import Settings
from ultrafolio.search.space import Array, Space, Values


@dataclass(slots=True)
class Table:
    """What is known of a scenario: `verdicts` has the shape of the space, 0 where nothing is known; `answers` in the
    order in which they were found, each with the policy that was asked."""

    space: Space
    verdicts: Array
    answers: list[tuple[Values, Answer]] = field(default_factory=list)

    def add(self, values: Values, answer: Answer) -> None:
        """Enter an answer. Raises Defect where it contradicts an earlier one."""
        where, policy = self.space.where(answer.box), self.space.bits(values)
        known = self.verdicts[where]
        if answer.box & policy != policy or ((known != 0) & (known != answer.verdict)).any():
            raise Defect(
                f"two answers of the search contradict each other at {self.space.policy(values)}",
                {"format": "ultrafolio-defect", "answer": repr(answer), "values": list(values)},
            )
        self.verdicts[where] = answer.verdict
        self.answers.append((values, answer))


def new(space: Space, answers: Iterable[tuple[Values, Answer]] = ()) -> Table:
    """A table with these answers."""
    made = Table(space, np.zeros(space.shape, np.int8))
    for values, answer in answers:
        made.add(values, answer)
    return made


def fill(table: Table, story: Scenario, wanted: Array, max_states: int = MAX_STATES, rules: Any = None) -> None:
    """Ask until the verdict of every wanted policy is known. rules: as Settings has them. Raises Defect where answers
    contradict each other, or the interpreter a story."""
    settings = Settings(table.space, story, rules)
    left = wanted & (table.verdicts == 0)
    flat, at = left.reshape(-1), 0
    while flat[at := at + int(flat[at:].argmax())]:
        values = tuple(int(n) for n in np.unravel_index(at, table.space.shape))
        try:
            answer = ask(settings, values, max_states)
        except NotCertified as error:
            raise Defect(
                f"{story.title} under {table.space.policy(values)}: the interpreter contradicts a story: {error}",
                {"format": "ultrafolio-defect", "values": list(values), "scenario": document(story)},
            ) from error
        table.add(values, answer)
        left[table.space.where(answer.box)] = False
