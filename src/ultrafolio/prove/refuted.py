"""A certified counterexample for a property that is not proved: from a shipped scenario that meets the assumptions, or
from a small system that is made of the step at which the induction fails."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ultrafolio import shipped
from ultrafolio.check.verdicts.verdict import Extent, Result, check
from ultrafolio.errors import Defect
from ultrafolio.model import scenario, toml
from ultrafolio.model.layout import ACTOR_KINDS, VCPU
from ultrafolio.model.policy import Policy
from ultrafolio.model.properties import PROPERTIES

from .judge import Open

MAX_STATES = 200_000
"""States of one shipped scenario at most; one that has more is passed over where it breaks nothing before."""
SMALL_STATES = 50_000
"""The same for a made system."""
MADE = "made"
FOLIOS = ((0, ["exported"]), (0, ["shared"]), (1, ["shared", "secure"]), (1, ["non_secure"]))
"""The one folio of made systems: its order, and the states of its pages."""


@dataclass(frozen=True, slots=True)
class Refuted:
    """The scenario that breaks a property, how many steps its story has, the rule of the last one, and what prints the
    story; the scenario's text, where it was made for this."""

    scenario: str
    steps: int
    rule: str
    command: str
    text: str = ""


def meets(story: scenario.Scenario, without: Collection[int]) -> bool:
    """Whether a scenario meets what a proof assumes: no actor of the kinds `without`, and no refused call."""
    return not story.memory["refuses"] and not any(kind in without for kind, _ in story.actors)


def counterexamples(
    policy: Policy, name: str, left: Mapping[int, Sequence[Open]], without: Collection[int]
) -> dict[int, Refuted]:
    """For each property that is not proved and that a system breaks: the first one that does, the shipped ones first.

    left: per property, the steps at which the induction fails. The checker certifies every story that it tells.
    Defect where a story breaks a property at a step that the proof excludes.
    """
    found: dict[int, Refuted] = {}
    numbers = {number for number, steps in left.items() if steps}
    for story, stem, text in (*_shipped(without), *_made(left, found, without)):
        if not numbers - set(found):
            break
        most = SMALL_STATES if text else MAX_STATES
        result = check(story, stem, policy, name, Extent(max_states=most, safety=True))
        for number, one in _broken(result, text).items():
            if number in numbers and number not in found:
                found[number] = one
                _agrees(one, left[number], policy, name)
    return found


System = tuple[scenario.Scenario, str, str]


def _shipped(without: Collection[int]) -> Iterator[System]:
    for file in shipped.shipped("scenarios"):
        story = scenario.read(file)
        if meets(story, without):
            yield story, file.stem, ""


def _made(left: Mapping[int, Sequence[Open]], found: Collection[int], without: Collection[int]) -> Iterator[System]:
    """A vCPU, the actor of the failed step, and one more, on one folio: for each kind that may be in a proof."""
    for number, steps in left.items():
        for kind in dict.fromkeys(at.place.kind for at in steps):
            for more in [more for more in range(len(ACTOR_KINDS)) if more not in without]:
                for order, states in FOLIOS:
                    if number in found:
                        break
                    story = scenario.parse(_document(order, states, [k for k in (kind, more) if k != VCPU]), MADE)
                    yield story, MADE, "\n".join(toml.lines(story)) + "\n"


def _document(order: int, states: Sequence[str], kinds: Sequence[int]) -> dict[str, Any]:
    """A system of one folio, a vCPU that touches its last page, and an actor of each of these kinds."""
    vcpu = {"touch": [(1 << order) - 1], "share": [0], "unshare": [0], "starts": 2}
    made: dict[str, Any] = {"memory": {"folios": [order], "state": states}, "vcpu": [vcpu]}
    for word in (ACTOR_KINDS[kind] for kind in kinds):
        page = scenario.ACTORS[word].get("page")
        fields = {"page": 0} if page and page.kind == "int" else {}
        made.setdefault(word, []).append(fields if word == "reboot" else {**fields, "starts": 2})
    return made


def _broken(result: Result, text: str) -> dict[int, Refuted]:
    """The properties that a system breaks."""
    command = f"ultrafolio check {MADE}.toml --policy {result.policy} --safety" if text else result.command
    return {
        PROPERTIES.index(finding.name): Refuted(
            result.scenario, len(finding.steps), finding.steps[-1].rule, command, text
        )
        for finding in result.findings
        if finding.name in PROPERTIES and finding.verdict == "violated"
    }


def _agrees(one: Refuted, steps: Sequence[Open], policy: Policy, name: str) -> None:
    if one.rule not in {at.rule for at in steps}:
        raise Defect(
            f"{one.scenario} breaks a property at {one.rule}, which the proof of {name} excludes",
            {"policy": asdict(policy), "scenario": one.scenario, "text": one.text, "reproduce": one.command},
        )
