"""A verdict as Mermaid for a page, ITF for trace viewers, TAP for kernel test harnesses."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from ultrafolio.check.verdicts.replay import Step
from ultrafolio.check.verdicts.verdict import KINDS, Finding, Result
from ultrafolio.model import designs
from ultrafolio.model import layout as model
from ultrafolio.model.design import Design
from ultrafolio.model.rule import RULES

CALLS = {rule.name: rule.call for rule in RULES.values() if rule.call}
"""Rules in which the host calls the ultravisor."""
_UV, _MM, _TASK, _ACTOR = (tuple(model.OWNERS).index(section) for section in ("uv", "mm", "task", "actor"))
PLACE = {rule.name: rule.pc for rule in RULES.values()}
"""Name of a rule -> its number."""
_PARTS = {
    designs.S390.name: {"G": "guest", "H": "host MM", "U": "ultravisor", "D": "device"},
    designs.GUEST_MEMFD.name: {"G": "guest", "H": "host MM and KVM", "D": "VMM and device"},
}
"""Per design the participants of a diagram."""
_KEPT = {
    designs.S390.name: ("U", _UV, "state", model.PAGE_STATES),
    designs.GUEST_MEMFD.name: ("H", _MM, "private", ("shared", "private")),
}
"""Per design who keeps the state of a page, its section and field, and its words."""


def has_story(finding: Finding) -> bool:
    """Whether the finding has steps: a counterexample, or the first stall."""
    return bool(finding.steps or finding.cycle)


def worst(results: Sequence[Result]) -> Result:
    """Returns the result with the worst finding, of equals the first. `results` must not be empty."""

    def rank(result: Result) -> tuple[bool, int]:
        kind = result.worst.kind
        return result.verdict != "violated", KINDS.index(kind) if kind else len(KINDS)

    return min(results, key=rank)


# ------------------------------------------------------------------------------------------------ Mermaid
def mermaid(result: Result, finding: Finding) -> str:
    """The finding as a Mermaid sequence diagram: one message a step, a note where the state of a page changes, a loop
    block around what repeats for ever, and the wait at the end. A bare note where nothing failed."""
    lines = [
        "sequenceDiagram",
        f"    %% reproduce: {result.command} --format mermaid",
        "    autonumber",
        *(f"    participant {letter} as {name}" for letter, name in _PARTS[_design(result).name].items()),
    ]
    title = f"{finding.verdict}: {finding.name} ({finding.kind})" if finding.kind else result.verdict
    lines.append(f"    Note over G,D: {_escaped(title)}{', expected' if finding.expected else ''}")
    for step in finding.steps:
        lines += _messages(step, "    ")
    if finding.cycle:
        lines.append("    loop for ever")
        for step in finding.cycle:
            lines += _messages(step, "        ")
        lines.append("    end")
    if finding.wait:
        wait = finding.wait
        ever = "waits for ever for" if finding.verdict == "violated" else "waits for"
        parts = f"{wait.waiter} {ever} {wait.waits_for}", f"held by {wait.held_by}", f"released by {wait.released_by}"
        lines.append(f"    Note over G,D: {'<br/>'.join(_escaped(part) for part in parts)}")
    return "\n".join(lines)


def _design(result: Result) -> Design:
    """Returns the design of a result."""
    return designs.DESIGNS[result.scope.get("design", designs.S390.name)]


def _owner(step: Step) -> str:
    """Returns who takes the step."""
    return next(rule.actor for rule in designs.DESIGNS[step.design].rules.values() if rule.name == step.rule)


def _names(step: Step, section: str) -> tuple[str, ...]:
    """Returns the fields of a record of a state."""
    names: tuple[str, ...] = designs.DESIGNS[step.design].constants["SECTIONS"][section].names
    return names


def _escaped(text: str) -> str:
    """Returns text escaped for a Mermaid message, in which # starts an entity and a semicolon ends the line."""
    return text.replace("#", "#35\0").replace(";", "#59;").replace("\0", ";")


def _messages(step: Step, indent: str) -> list[str]:
    """Returns the Mermaid lines of a step."""
    sender, arrow, receiver = _ends(step)
    what = f"{step.kind} {step.actor} {step.rule}"
    if _owner(step) == "guest" and step.kind == model.ACTOR_KINDS[0]:
        what = f"{step.kind} {step.actor} {_wish(step)} page {step.page}"
    elif CALLS.get(step.rule, "reset") != "reset":
        what += f" page {step.page}"
    if step.outcome_word not in ("OK", "DONE"):
        what += f": {step.outcome_word}"
    lines = [f"{indent}{sender}{arrow}{receiver}: {_escaped(what)}"]
    keeper, section, field, words = _KEPT[step.design]
    at = _names(step, tuple(model.OWNERS)[section]).index(field)
    for page, records in enumerate(zip(step.before[section], step.after[section], strict=True)):
        old, new = (words[record[at]] for record in records)
        if old != new:
            lines.append(f"{indent}Note over {keeper}: page {page} {old} to {new}")
    return lines


def _wish(step: Step) -> str:
    """Returns the operation of a guest's vCPU step: chosen in this step, or before an exit."""
    if step.op != model.OPS[0]:
        return step.op
    return model.OPS[step.before[_ACTOR][step.actor][(model.ACTOR.names or ()).index("op")]]


def _ends(step: Step) -> tuple[str, str, str]:
    """Returns sender, arrow and receiver of a step's message; sender and receiver are equal if one part is involved."""
    if step.rule in CALLS:
        return "H", "->>", "U"
    owner, pc = _owner(step), step.after[_TASK][step.actor][(model.TASK.names or ()).index("pc")]
    if owner == "guest":
        if pc not in (model.RUN, model.DEAD) or step.outcome_word == "EINVAL":
            return "G", "->>", "H"
        return "G", "->>", "U" if _wish(step) in ("share", "unshare") and "U" in _PARTS[step.design] else "G"
    if owner == "vmm":
        return "D", "->>", "G" if pc == model.AGAIN else "H"
    if owner == "device":
        return "D", "->>", "D" if step.before[_TASK][step.actor][0] == model.IO_START else "H"
    if step.kind == model.ACTOR_KINDS[0] and pc in (model.RUN, model.AGAIN, model.DEAD):
        return "H", "-->>", "G"
    return ("H", "-->>", "D") if pc in (model.IO_START, model.DEVICE_IDLE) else ("H", "->>", "H")


# ---------------------------------------------------------------------------------------------------- ITF
def itf(result: Result, finding: Finding) -> dict[str, Any]:
    """The finding's story in the Informal Trace Format (Apalache ADR 015), as one JSON object.

    Variables: each section that changes (uv, mm, vm, task, actor, io) as a sequence of records, and `step`, the step
    that led to the state; so the state a cycle starts from stands there again at its end, and `loop`, where the last
    state goes on, is the one after its first occurrence. Where everything rests, `loop` is the last state itself.

    The finding must have a story (`has_story`).
    """
    steps = [*finding.steps, *finding.cycle]
    states: list[dict[str, Any]] = [{"#meta": {"index": 0}, **_sections(steps[0], steps[0].before), "step": _START}]
    for index, step in enumerate(steps, 1):
        states.append({"#meta": {"index": index}, **_sections(step, step.after), "step": _itf_step(step)})
    trace: dict[str, Any] = {
        "#meta": {
            "format": "ITF", "format-description": "https://apalache-mc.org/docs/adr/015adr-trace.html",
            "source": result.scenario, "policy": result.policy, "description": finding.name,
            "verdict": finding.verdict, "kind": finding.kind, "wait": finding.wait.line() if finding.wait else None,
            "reproduce": f"{result.command} --format itf",
        },
        "vars": [*model.OWNERS, "step"], "states": states,
    }  # fmt: skip
    if finding.verdict == "violated" and finding.kind != "safety":
        trace["loop"] = len(finding.steps) + bool(finding.cycle)
    return trace


_START = {"actor": -1, "kind": "", "rule": "start", "op": "nothing", "page": 0, "outcome": ""}


def _itf_step(step: Step) -> dict[str, Any]:
    return {name: value for name, value in step.record().items() if name in _START}


def _sections(step: Step, packed: Any) -> dict[str, list[dict[str, int]]]:
    """Returns a frozen state with names: section, record number, field."""
    return {
        section: [dict(zip(_names(step, section), record, strict=True)) for record in records]
        for section, records in zip(model.OWNERS, packed, strict=True)
    }


# ---------------------------------------------------------------------------------------------------- TAP
def tap(results: Sequence[Result]) -> str:
    """The results as TAP 14, one line per scenario and policy; what fails has YAML diagnostics.

    `not ok` means violated or unknown: an incomplete exploration has not passed. A wait that is
    the purpose of pin shared is `ok` with the comment `# expected`.
    """
    lines = ["TAP version 14", f"1..{len(results)}"]
    for number, result in enumerate(results, 1):
        name = f"{result.scenario} under {result.policy}".replace("\\", "\\\\").replace("#", "\\#")
        passed = result.verdict == "holds"
        note = " # expected" if passed and result.worst.expected else ""
        lines.append(f"{'' if passed else 'not '}ok {number} - {name}{note}")
        if not passed:
            lines += ["  ---", *(f"  {key}: {json.dumps(value)}" for key, value in _diagnosis(result).items()), "  ..."]
    return "\n".join(lines)


def _diagnosis(result: Result) -> dict[str, Any]:
    """Returns the YAML fields of a failure; without fields that have no value."""
    record = result.record()
    fields = {
        name: record[name]
        for name in ("verdict", "kind", "reason", "depth", "states", "waiter", "waits_for", "held_by", "released_by")
    }
    fields["property"] = result.worst.name
    fields["reproduce"] = result.command
    return {name: value for name, value in fields.items() if value is not None}
