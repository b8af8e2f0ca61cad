"""A proof in words: per property the verdict and why, and what is assumed; several policies in a table."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from ultrafolio.model.design import Design
from ultrafolio.model.designs import S390
from ultrafolio.nouns import plural

from .judge import Open, Proof
from .refuted import Refuted
from .systems import Systems

PROVED, FALSE, OPEN = "proved", "false", "not proved"
ANY_SIZE = {
    "s390": "for any number of pages, folios, orders, vCPUs, devices, requests and guests",
    "guest_memfd": "for any number of pages, vCPUs, processes, devices, requests and holes",
}
HUGE_SIZE = "for any number of huge pages, of any one order, of vCPUs, processes, devices and requests"
NOT_ASKED = "whether a wait ends: ultrafolio check"
_ASSUMED = {
    "s390": ["the ultravisor refuses no call (memory.refuses is empty)"],
    "guest_memfd": [
        "the hardware takes and gives back every page (memory.never and memory.refuses are empty)",
        "what KVM maps at the start is allocated",
    ],
}
_ALWAYS = [
    "initial states as scenario files make them",
    "steps are atomic and seen by all in one order",
    "rules name only pages that exist",
]


def assumed(without: Collection[int], design: Design = S390) -> list[str]:
    """What every proof about a design assumes."""
    kinds = ", ".join(design.kinds[kind] for kind in sorted(without) if design.kinds[kind])
    return [*([f"no actor of kind {kinds}"] if kinds else []), *_ASSUMED[design.name], *_ALWAYS]


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome for one kind of systems; without a proof: why there is none."""

    systems: Systems
    numbers: tuple[int, ...]
    proof: Proof | None
    refuted: dict[int, Refuted] = field(default_factory=dict)
    why_none: str = ""

    @property
    def policy(self) -> str:
        """The name of the policy."""
        return self.systems.name

    def number(self, number: int) -> int:
        """The number of a property in documents."""
        return self.systems.design.first + number

    def name(self, number: int) -> str:
        return self.systems.design.properties[number]

    def open(self, number: int) -> list[Open]:
        """Where the induction fails."""
        return self.proof.open[number] if self.proof else []

    def missing(self, at: Open) -> str:
        """The facts that would exclude a step at which the induction fails."""
        assert self.proof
        return self.proof.missing(at)

    def verdict(self, number: int) -> str:
        if number in self.refuted:
            return FALSE
        return PROVED if self.proof and not self.proof.open[number] else OPEN

    @property
    def code(self) -> int:
        """The exit code: 0 all proved, 1 one is false, 3 one is not proved."""
        verdicts = {self.verdict(number) for number in self.numbers}
        return 1 if FALSE in verdicts else 3 if OPEN in verdicts else 0

    def record(self) -> dict[str, Any]:
        """One JSON object."""
        systems = self.systems
        where = {"design": systems.design.name, "machine": systems.machine, "huge_pages": systems.huge}
        return {
            "policy": self.policy,
            **(where if systems.machine else {}),
            "properties": [self._property(number) for number in self.numbers],
            "assumed": assumed(systems.without, systems.design),
            "not_asked": NOT_ASKED,
            **self._figures(),
        }

    def _property(self, number: int) -> dict[str, Any]:
        refuted = self.refuted.get(number)
        return {
            "number": self.number(number),
            "name": self.name(number),
            "verdict": self.verdict(number),
            "open_at": [
                {"rule": at.place.name, "missing": None if refuted else self.missing(at)} for at in self.open(number)
            ],
            "scenario": refuted.scenario if refuted else None,
            "scenario_text": refuted.text or None if refuted else None,
            "steps": refuted.steps if refuted else None,
            "reproduce": refuted.command if refuted else None,
        }

    def _figures(self) -> dict[str, Any]:
        if self.proof is None:
            return {"why_none": self.why_none}
        p, tally = self.proof.problem, self.proof.tally
        return {
            "candidates": len(p.tried),
            "facts": len(p.kept),
            "places": len(p.places),
            "paths": len(p.steps),
            "shared_steps": tally.shared,
            "questions": tally.questions,
            "unanswered": tally.unanswered,
            "rounds": tally.rounds,
        }

    def text(self, told_once: Collection[int] = ()) -> str:
        """A line for each property but those that are told once for all policies, then what it rests on."""
        systems = self.systems
        lines = [f"{systems.label}: {HUGE_SIZE if systems.huge else ANY_SIZE[systems.design.name]}"]
        shown = [number for number in self.numbers if number not in told_once]
        width = max((len(self.name(number)) for number in shown), default=0)
        for number in shown:
            lines.append(f"  {self.number(number):>2} {self.name(number):<{width}}  {self.verdict(number)}")
            lines += [f"     {line}" for line in self._why(number)]
        lines += [f"  {line}" for line in self._rests_on()]
        return "\n".join(lines)

    def stories(self, numbers: Collection[int]) -> list[str]:
        """These properties that are false, with what shows it."""
        return [
            line
            for n in numbers
            for line in (f"  {self.number(n):>2} {self.name(n)}", *(f"     {x}" for x in self._why(n)))
        ]

    def _why(self, number: int) -> list[str]:
        refuted = self.refuted.get(number)
        if refuted is None:
            return [f"at {at.place.name}: {self.missing(at)}" for at in self.open(number)]
        lines = [f"{refuted.scenario} breaks it in {plural(refuted.steps, 'step')}: {refuted.command}"]
        if refuted.text:
            lines += [f"{refuted.scenario}.toml:", *(f"  {line}" for line in refuted.text.splitlines())]
        return lines

    def _rests_on(self) -> list[str]:
        assumptions = f"assumed: {'; '.join(assumed(self.systems.without, self.systems.design))}"
        if self.proof is None:
            return [f"no induction: {self.why_none}", assumptions]
        figures = self._figures()
        return [
            f"by {figures['facts']} facts of {figures['candidates']} that were tried; "
            f"{figures['paths']} ways through the rules, {figures['shared_steps']} of them known from another policy; "
            f"{figures['questions']} questions, {figures['unanswered']} unanswered",
            assumptions,
            f"not asked: {NOT_ASKED}",
        ]


def false_for_all(told: Sequence[Outcome]) -> list[int]:
    """The properties that are false under each of several policies; none of one policy alone."""
    if len(told) < 2:
        return []
    return [number for number in told[0].refuted if all(number in each.refuted for each in told)]


def text(told: Sequence[Outcome]) -> str:
    """The outcome for each policy; for several, what is false under all of them once, and a table."""
    once = false_for_all(told)
    parts = [each.text(once) for each in told]
    if once:
        parts.append("\n".join(["false under every one of these policies:", *told[0].stories(once)]))
    if len(told) > 1:
        parts.append("\n".join(table(told)))
    return "\n\n".join(parts)


def table(told: Sequence[Outcome]) -> list[str]:
    """The verdict on each property, a line a policy."""
    numbers = told[0].numbers
    cells = [["policy", *(str(told[0].number(number)) for number in numbers)]]
    cells += [[each.systems.label, *(each.verdict(number) for number in numbers)] for each in told]
    widths = [max(len(row[column]) for row in cells) for column in range(len(numbers) + 1)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
