"""Which systems one proof is about: those of a policy, on a machine of its design, with single or with huge pages."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from ultrafolio import shipped
from ultrafolio.model import policies, scenario, toml
from ultrafolio.model.design import Design
from ultrafolio.model.designs import DESIGNS
from ultrafolio.model.guest_memfd.policy import MemfdPolicy
from ultrafolio.model.layout import ACTOR_KINDS, VCPU
from ultrafolio.model.policies import AnyPolicy

from .memfd import made
from .memfd.configuration import configuration

MADE = "made"
FOLIOS = ((0, ["exported"]), (0, ["shared"]), (1, ["shared", "secure"]), (1, ["non_secure"]))
"""The one folio of made systems of s390: its order, and the states of its pages."""
SOFTWARE = "software"
"""The machine of a proof of guest_memfd that names none."""
System = tuple[scenario.Scenario, str, str]
"""A scenario, its name, and its text if it was made."""


@dataclass(frozen=True, slots=True)
class Systems:
    """Which systems: policy `policy`, called `name`; machine: "" for s390; huge: with huge pages, under a policy of
    guest_memfd that has them, else with single pages; no actor of the kinds `without`."""

    name: str
    policy: AnyPolicy
    without: frozenset[int]
    machine: str = ""
    huge: bool = False

    @property
    def design(self) -> Design:
        return DESIGNS[policies.design_of(self.policy)]

    @property
    def label(self) -> str:
        """The policy, with the machine and the pages where there is a choice."""
        where = f" on {self.machine}" if self.machine else ""
        form = ", huge pages" if self.huge else ", single pages"
        return f"{self.name}{where}{form if self.has_huge else ''}"

    @property
    def has_huge(self) -> bool:
        """Whether the policy has huge pages."""
        return isinstance(self.policy, MemfdPolicy) and self.policy.large != "none"

    @property
    def cfg(self) -> dict[str, int]:
        """The configuration's fields."""
        if isinstance(self.policy, MemfdPolicy):
            return configuration(self.policy, self.machine, self.huge)
        return self.policy.codes()

    def meets(self, story: scenario.Scenario) -> bool:
        """Whether a scenario on this machine is one of these systems."""
        if isinstance(self.policy, MemfdPolicy):
            return made.meets(story, self.policy, self.without, self.huge)
        return meets(story, self.without)

    def shipped(self) -> Iterator[System]:
        """The shipped scenarios among these systems, each on this machine."""
        for file in shipped.shipped("scenarios", below=bool(self.machine)):
            story = scenario.read(file)
            if story.design == self.design.name:
                there = scenario.on_machine(story, self.machine, file.stem) if self.machine else story
                if self.meets(there):
                    yield there, file.stem, ""

    def made(self, kind: int) -> Iterator[System]:
        """Small systems with an actor of this kind, and one of each kind that may be in a proof."""
        for more in range(len(self.design.kinds)):
            if more not in self.without:
                for document in self._documents(kind, more):
                    story = scenario.parse(document, MADE)
                    if self.meets(story):
                        yield story, MADE, "\n".join(toml.lines(story)) + "\n"

    def _documents(self, kind: int, more: int) -> Iterator[dict[str, Any]]:
        if self.machine:
            yield from made.documents(kind, more, self.machine, self.huge)
            return
        for order, states in FOLIOS:
            yield _document(order, states, [k for k in (kind, more) if k != VCPU])


def meets(story: scenario.Scenario, without: Collection[int]) -> bool:
    """Whether a scenario of s390 meets what a proof assumes: no actor of the kinds `without`, and no refused call."""
    return not story.memory["refuses"] and not any(kind in without for kind, _ in story.actors)


def _document(order: int, states: list[str], kinds: list[int]) -> dict[str, Any]:
    """A system of one folio, a vCPU that touches its last page, and an actor of each of these kinds."""
    vcpu = {"touch": [(1 << order) - 1], "share": [0], "unshare": [0], "starts": 2}
    made: dict[str, Any] = {"memory": {"folios": [order], "state": states}, "vcpu": [vcpu]}
    for word in (ACTOR_KINDS[kind] for kind in kinds):
        page = scenario.ACTORS[word].get("page")
        fields = {"page": 0} if page and page.kind == "int" else {}
        made.setdefault(word, []).append(fields if word == "reboot" else {**fields, "starts": 2})
    return made
