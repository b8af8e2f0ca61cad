"""Why a verdict: for what holds, short runs; and each property's truth along the story. As text and as JSON."""

from __future__ import annotations

from typing import Any

from ultrafolio.check.search.first import explore
from ultrafolio.check.verdicts.truth import LEGEND, truth_along
from ultrafolio.check.verdicts.verdict import Result
from ultrafolio.check.verdicts.witnesses import Witness, witnesses
from ultrafolio.model.scenario import System
from ultrafolio.nouns import plural

from . import text_in
from .text import paragraph

Why = tuple[dict[str, list[Witness]], dict[str, str]]
"""(runs by property that holds, truth by property along the worst story, {} without one)."""


def why(result: Result, system: System, *, max_states: int, max_mib: int) -> Why:
    """Returns both for a result of this system; no runs where its exploration was not complete."""
    worst = result.worst
    path = [step.by for step in (*worst.steps, *worst.cycle)]
    truth = truth_along(system, path) if path else {}
    if not (result.complete and result.leads_to):
        return {}, truth
    return witnesses(explore(system, max_states=max_states, max_mib=max_mib), result), truth


def why_text(found: Why) -> str:
    """Returns the same as text of at most 72 columns, but for the lines of truth, which have a letter a state."""
    runs, truth = found
    out = []
    for name, some in runs.items():
        out += [paragraph(f"why it holds: {name}" + ("" if some else ": no run was found that ends one")), ""]
        for witness in some:
            out += [paragraph(f"{plural(len(witness.steps), 'step')}, to the end of what {witness.waiter} began:")]
            out += [paragraph(f"on the way {witness.wait}", "  ")] if witness.wait else []
            out += [*text_in.of(witness.steps[0].design).story(witness.steps), ""]
    if truth:
        out += [paragraph(f"truth along the story, the initial state and each step: {LEGEND}")]
        out += [f"  {letters}  {name}" for name, letters in truth.items()]
    return "\n".join(out).rstrip("\n")


def why_record(found: Why) -> dict[str, Any]:
    """Returns the same as a JSON object."""
    runs, truth = found
    return {"holds": {name: [one.record() for one in some] for name, some in runs.items()}, "truth": truth}
