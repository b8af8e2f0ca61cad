"""What a search asks: scenarios, policies, and what is known of them from before."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ultrafolio.check.verdicts.verdict import MAX_STATES
from ultrafolio.model import policies
from ultrafolio.model.scenario import Scenario
from ultrafolio.search import cell, files, space, table
from ultrafolio.search.space import Array, Space
from ultrafolio.search.table import Table


@dataclass(frozen=True)
class Asked:
    """What a search asks.

    stories     the scenarios with their names, all of one design
    within      the box of the policies that are searched
    out         folder of the stored tables, or None
    max_states  limit of one exploration
    """

    design: str
    stories: Sequence[tuple[str, Scenario]]
    within: int
    out: Path | None = None
    max_states: int = MAX_STATES

    @property
    def space(self) -> Space:
        """The policies of the design."""
        return space.of(self.design)

    @functools.cached_property
    def enforced(self) -> int:
        """The box of the policies that every scenario's machine can enforce, within the search's box."""
        box, machines = self.within, {story.machine for _, story in self.stories}
        for axis in self.space.axes:
            for value in range(len(axis.values)):
                only = self.space.full & ~axis.mask | axis.bit(value)
                if not all(policies.fits_machine(self.space.policy(self.space.first_in(only)), m) for m in machines):
                    box &= ~axis.bit(value)
        return box

    @functools.cached_property
    def wanted(self) -> Array:
        """Which policies are searched: those that are enforced, each counted once."""
        return cell.wanted(self.space, self.enforced)

    @property
    def plan(self) -> str:
        """The text of the plan of the sweep that answers it."""
        return cell.plan(self.stories, self.space, self.enforced, self.max_states)

    def known(self, number: int) -> Table:
        """The stored table of a scenario; without answers, if none is stored."""
        name, story = self.stories[number]
        path = cell.path_of(self.out, name)
        return table.new(self.space, files.read(path, self._key(story), self.space) if path else ())

    def keep(self, number: int, made: Table) -> None:
        """Store the table of a scenario, if there is a folder."""
        name, story = self.stories[number]
        path = cell.path_of(self.out, name)
        if path:
            files.write(path, self._key(story), name, made.answers)

    def is_answered(self, made: Table) -> bool:
        """Whether a table has a verdict on each policy that is searched."""
        return not (self.wanted & (made.verdicts == 0)).any()

    def _key(self, story: Scenario) -> str:
        return files.key_of(self.space, story, self.max_states)
