"""A certified counterexample for a property that is not proved: from a shipped scenario that meets the assumptions, or
from a small system that is made of the step at which the induction fails."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from ultrafolio.check.verdicts.verdict import Extent, Result, check
from ultrafolio.errors import Defect
from ultrafolio.model.designs import DESIGNS

from .judge import Open
from .systems import MADE, System, Systems

MAX_STATES = 200_000
"""States of one shipped scenario at most; one that has more is passed over where it breaks nothing before."""
SMALL_STATES = 50_000
"""The same for a made system."""
PLAIN_STATES = 20_000
"""The same for a shipped scenario of guest_memfd."""
FEW_STATES = 5_000
"""The same for a made system of guest_memfd, which breaks a property early, or not at all."""


@dataclass(frozen=True, slots=True)
class Refuted:
    """The scenario that breaks a property, how many steps its story has, the rule of the last one, and what prints the
    story; the scenario's text, where it was made for this."""

    scenario: str
    steps: int
    rule: str
    command: str
    text: str = ""


def counterexamples(systems: Systems, left: Mapping[int, Sequence[Open] | None]) -> dict[int, Refuted]:
    """For each property that is not proved and that a system breaks: the first one that does, the shipped ones first.

    left: per property, the steps at which the induction fails; None where there is no induction. The checker certifies
    every story that it tells. Defect where a story breaks a property at a step that the proof excludes.
    """
    found: dict[int, Refuted] = {}
    numbers = {number for number, steps in left.items() if steps is None or steps}
    for story, stem, text in (*systems.shipped(), *_made(systems, left, found)):
        if not numbers - set(found):
            break
        most = (FEW_STATES if systems.machine else SMALL_STATES) if text else MAX_STATES
        extent = Extent(max_states=most, safety=True)
        if systems.machine and not text:
            extent = replace(extent, max_states=PLAIN_STATES, machine=systems.machine)
        result = check(story, stem, systems.policy, systems.name, extent)
        for number, one in _broken(result, text, systems.design.name).items():
            if number in numbers and number not in found:
                found[number] = one
                _agrees(one, left[number], systems)
    return found


def _made(systems: Systems, left: Mapping[int, Sequence[Open] | None], found: Collection[int]) -> Iterator[System]:
    """Systems with the actor of a failed step."""
    told = set[str]()
    for number, steps in left.items():
        for kind in dict.fromkeys(at.place.kind for at in steps or ()):
            for made in systems.made(kind):
                if number in found:
                    break
                if made[2] not in told:
                    told.add(made[2])
                    yield made


def _broken(result: Result, text: str, design: str) -> dict[int, Refuted]:
    """The properties that a system breaks."""
    command = f"ultrafolio check {MADE}.toml --policy {result.policy} --safety" if text else result.command
    properties = DESIGNS[design].properties
    return {
        properties.index(finding.name): Refuted(
            result.scenario, len(finding.steps), finding.steps[-1].rule, command, text
        )
        for finding in result.findings
        if finding.name in properties and finding.verdict == "violated"
    }


def _agrees(one: Refuted, steps: Sequence[Open] | None, systems: Systems) -> None:
    if steps is not None and one.rule not in {at.rule for at in steps}:
        raise Defect(
            f"{one.scenario} breaks a property at {one.rule}, which the proof of {systems.label} excludes",
            {"policy": asdict(systems.policy), "scenario": one.scenario, "text": one.text, "reproduce": one.command},
        )
