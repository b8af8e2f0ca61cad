"""A certified counterexample for a property that is not proved: from a shipped scenario that meets the assumptions."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from ultrafolio import shipped
from ultrafolio.check.verdicts.verdict import Extent, check
from ultrafolio.model import scenario
from ultrafolio.model.policy import Policy
from ultrafolio.model.properties import PROPERTIES

MAX_STATES = 200_000
"""States of one scenario at most; one that has more is passed over where it breaks nothing before."""


@dataclass(frozen=True, slots=True)
class Refuted:
    """The scenario that breaks a property, how many steps its story has, and what prints the story."""

    scenario: str
    steps: int
    command: str


def meets(story: scenario.Scenario, without: Collection[int]) -> bool:
    """Whether a scenario meets what a proof assumes: no actor of the kinds `without`, and no refused call."""
    return not story.memory["refuses"] and not any(kind in without for kind, _ in story.actors)


def counterexamples(
    policy: Policy, name: str, numbers: Collection[int], without: Collection[int]
) -> dict[int, Refuted]:
    """For each of these properties that a shipped scenario breaks under the policy: the first scenario that does.

    The checker certifies every story that it tells.
    """
    found: dict[int, Refuted] = {}
    extent = Extent(max_states=MAX_STATES, safety=True)
    for file in shipped.shipped("scenarios"):
        story = scenario.read(file)
        if not set(numbers) - set(found):
            break
        if not meets(story, without):
            continue
        result = check(story, file.stem, policy, name, extent)
        for finding in result.findings:
            number = PROPERTIES.index(finding.name) if finding.name in PROPERTIES else 0
            if finding.verdict == "violated" and number in numbers:
                found.setdefault(number, Refuted(file.stem, len(finding.steps), result.command))
    return found
