"""A proof in words: per property the verdict and why, what is assumed, and the facts, per rule."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from ultrafolio.model.layout import ACTOR_KINDS
from ultrafolio.model.properties import PROPERTIES
from ultrafolio.nouns import plural

from .before import candidates
from .judge import Proof
from .refuted import Refuted

PROVED, FALSE, OPEN = "proved", "false", "not proved"
ANY_SIZE = "for any number of pages, folios, orders, vCPUs, devices, requests and guests"
NOT_ASKED = "whether a wait ends: ultrafolio check"


def assumed(without: Collection[int]) -> list[str]:
    """What every proof assumes."""
    kinds = ", ".join(ACTOR_KINDS[kind] for kind in sorted(without))
    return [
        f"no actor of kind {kinds}",
        "the ultravisor refuses no call (memory.refuses is empty)",
        "initial states as scenario files make them",
        "steps are atomic and seen by all in one order",
        "rules name only pages that exist",
    ]


@dataclass(frozen=True, slots=True)
class Told:
    """The outcome for one policy."""

    policy: str
    proof: Proof
    without: Collection[int]
    refuted: dict[int, Refuted] = field(default_factory=dict)

    def verdict(self, number: int) -> str:
        if number in self.refuted:
            return FALSE
        return OPEN if self.proof.open[number] else PROVED

    @property
    def code(self) -> int:
        """The exit code: 0 all proved, 1 one is false, 3 one is not proved."""
        verdicts = {self.verdict(number) for number in self.proof.open}
        return 1 if FALSE in verdicts else 3 if OPEN in verdicts else 0

    def record(self) -> dict[str, Any]:
        """One JSON object."""
        return {
            "policy": self.policy,
            "properties": [self._property(number) for number in self.proof.open],
            "assumed": assumed(self.without),
            "not_asked": NOT_ASKED,
            **self._figures(),
        }

    def _property(self, number: int) -> dict[str, Any]:
        refuted = self.refuted.get(number)
        return {
            "number": number,
            "name": PROPERTIES[number],
            "verdict": self.verdict(number),
            "open_at": [{"rule": at.place.name, "missing": at.missing} for at in self.proof.open[number]],
            "scenario": refuted.scenario if refuted else None,
            "steps": refuted.steps if refuted else None,
            "reproduce": refuted.command if refuted else None,
        }

    def _figures(self) -> dict[str, int]:
        p, tally = self.proof.problem, self.proof.tally
        return {
            "candidates": sum(1 for _ in candidates(p.places, p.cfg)),
            "facts": len(p.kept),
            "places": len(p.places),
            "paths": sum(map(len, p.paths.values())),
            "questions": tally.questions,
            "unanswered": tally.unanswered,
            "rounds": tally.rounds,
        }

    def text(self) -> str:
        """A line for each property, then what it rests on."""
        lines = [f"{self.policy}: {ANY_SIZE}"]
        width = max(len(PROPERTIES[number]) for number in self.proof.open)
        for number in self.proof.open:
            lines.append(f"  {number:>2} {PROPERTIES[number]:<{width}}  {self.verdict(number)}")
            refuted = self.refuted.get(number)
            if refuted:
                lines.append(f"     {refuted.scenario} breaks it in {plural(refuted.steps, 'step')}: {refuted.command}")
                continue
            for at in self.proof.open[number]:
                lines.append(f"     at {at.place.name}: {at.missing}")
        figures = self._figures()
        lines.append(
            f"  by {figures['facts']} facts of {figures['candidates']} that were tried; "
            f"{figures['paths']} ways through the rules, {figures['questions']} questions, "
            f"{figures['unanswered']} unanswered"
        )
        lines += [f"  assumed: {'; '.join(assumed(self.without))}", f"  not asked: {NOT_ASKED}"]
        return "\n".join(lines)


def facts(told: Told) -> str:
    """The facts that are kept, as Markdown: of every page, then per rule."""
    p = told.proof.problem
    lines = [f"# Facts under {told.policy}", "", f"True in every reachable state, {ANY_SIZE}.", ""]
    lines += ["Assumed: " + "; ".join(assumed(told.without)) + ".", "", "## Of every page", ""]
    lines += [f"- {name}" for kind, place, name in sorted(_plain(p.kept)) if kind == "page"]
    lines += ["", "## Counts", ""]
    lines += [f"- {name}: what threads hold adds up" for kind, _, name in sorted(_plain(p.kept)) if kind == "count"]
    lines += [f"- {name}" for kind, _, name in sorted(_plain(p.kept)) if kind == "sum"]
    for place in p.places:
        here = [(kind, name) for kind, where, name in p.kept if where == place]
        if not here:
            continue
        lines += ["", f"## {place.name[0].upper()}{place.name[1:]}", ""]
        lines += [f"- {name}" for kind, name in sorted(here) if kind == "thread"]
        lines += [f"- every page {name} is accessible" for kind, name in sorted(here) if kind == "range"]
        lines += [f"- {name}" for kind, name in sorted(here) if kind == "pair"]
    return "\n".join(lines)


def _plain(kept: Collection[Any]) -> list[tuple[str, None, str]]:
    return [(kind, None, name) for kind, place, name in kept if place is None]
