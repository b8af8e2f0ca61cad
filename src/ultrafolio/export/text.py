"""A counterexample as text for a mail: 72 columns, a column per part, and the changes of each page."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

from ultrafolio.check.verdicts.replay import Step
from ultrafolio.check.verdicts.scope import scope_text
from ultrafolio.check.verdicts.verdict import Finding, Result
from ultrafolio.model.layout import ACTOR_KINDS, DONE, IO, MM, PINNED_SHARED, UV, VCPU
from ultrafolio.model.rule import RULES
from ultrafolio.nouns import plural
from ultrafolio.screen import MAIL

_COLUMNS = {"guest": 5, "host": 21, "device": 50, "fault": 50}
HEADING = f"{'#':>3}  {'guest':<16}{'host MM':<29}{'device':<20}".rstrip()
_ACTOR_OF = {rule.name: rule.actor for rule in RULES.values()}
_UV, _MM, _IO = UV.names or (), MM.names or (), IO.names or ()
ABOUT_A_PAGE = {rule.name for rule in RULES.values() if rule.tells_page}
"""Rules of which a story names the page, since the actor's earlier steps do not imply it: starts, loops, calls."""
_STATE = "NSHPE"
_FLAGS = (("arch", "a"), ("locked", "l"), ("frozen", "f"), ("writeback", "w"), ("dirty", "d"))
LEGEND = (
    "pages: N non-secure  S secure  H shared  P pinned shared  E exported;  "
    "a arch bit  l locked  f frozen  w writeback  d dirty  i I/O in flight  "
    "+n n extra references, of the folio, on its head"
)


def page_flags(packed: Any, page: int) -> str:
    """One page of a packed state as flags, one letter each, as page-types prints them: "Pa----", "E----i+1"."""
    uv = dict(zip(_UV, packed[0][page], strict=True))
    mm = dict(zip(_MM, packed[1][page], strict=True))
    io = dict(zip(_IO, packed[5][page], strict=True))
    text = _STATE[uv["state"]] + "".join(letter if mm[name] else "-" for name, letter in _FLAGS)
    text += "i" if io["flying"] else "-"
    return text + (f"+{mm['refs']}" if mm["refs"] else "")


def deed(rule: str, op: str, page: int) -> str:
    """Returns a step in words: the rule's name, or the choice: "touch page 1", "read page 1", "reboots"."""
    if rule == "reboot-start":
        return "reboots" if op == "touch" else "shuts down"
    chosen = op not in ("nothing", "") and (_ACTOR_OF.get(rule) == "guest" or rule == "access-start")
    return f"{op} page {page}" if chosen else rule


def outcome_of(step: Step) -> str:
    """Returns the outcome of a step in words."""
    return step.outcome_word


def story(steps: Sequence[Step], first: int = 1) -> list[str]:
    """Returns the steps as lines of at most 72 columns; below a step, the pages that it changed."""
    out = []
    for number, step in enumerate(steps, first):
        column = _COLUMNS[_ACTOR_OF.get(step.rule, "host")]
        what = f"{step.kind} {step.actor} {deed(step.rule, step.op, step.page)}"
        if step.rule in ABOUT_A_PAGE and (step.rule, step.outcome) != ("pin-get", DONE):
            what += f" page {step.page}"
        if step.rule == "accessible-pin" and step.after[0][step.page][0] != PINNED_SHARED:
            what += " fails"
        if step.outcome_word not in ("OK", "DONE"):
            what += f": {outcome_of(step)}"
        room = MAIL - column
        column = column if len(what) <= room else max(5, MAIL - len(what))
        out.append(f"{number:>3}".ljust(column) + what)
        changes = [
            f"page {p} {page_flags(step.before, p)} -> {page_flags(step.after, p)}"
            for p in range(len(step.before[0]))
            if page_flags(step.before, p) != page_flags(step.after, p)
        ]
        for at in range(0, len(changes), 2):
            out.append("       | " + "   ".join(changes[at : at + 2]))
    return out


def paragraph(text: str, indent: str = "") -> str:
    """Returns text wrapped to 72 columns, each line after `indent`."""
    return textwrap.fill(
        text,
        MAIL,
        initial_indent=indent,
        subsequent_indent=indent or "  ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def finding_text(finding: Finding) -> str:
    """Returns one finding as lines: the steps, the cycle, and the wait."""
    out = [paragraph(f"{finding.verdict}: {finding.name}" + (f" ({finding.kind})" if finding.kind else ""))]
    if finding.expected:
        out.append(paragraph("This wait is the purpose of pin shared; it is not counted against the policy."))
    if finding.steps or finding.cycle:
        out += ["", HEADING, *story(finding.steps)]
    if finding.cycle:
        out += ["  -- from here for ever:", *story(finding.cycle, len(finding.steps) + 1)]
    if finding.wait:
        ever = "waits for ever for" if finding.verdict == "violated" or finding.expected else "waits for"
        out += [
            "",
            paragraph(f"{finding.wait.waiter} {ever}: {finding.wait.waits_for}"),
            paragraph(f"held by: {finding.wait.held_by}"),
            paragraph(f"released by: {finding.wait.released_by}"),
        ]
        out += [paragraph(f"taken again by: {finding.wait.taken_by}")] if finding.wait.taken_by else []
    if finding.adverse:
        out.append(paragraph("Only an adverse schedule sustains this: from each of its states the wait can end."))
    return "\n".join(out)


def never_waiting(result: Result) -> list[str]:
    """Returns a line per vCPU and device without a wait: "vcpu 1: never waits", "disk 2: no wait stays"."""
    return [
        f"{name}: " + ("never waits" if name.startswith(ACTOR_KINDS[VCPU]) else "no wait stays")
        for name in result.never_waits
    ]


def result_text(result: Result) -> str:
    """Returns a result as text: the verdict, the worst story, the other failures in a line each, coverage, the
    command."""
    worst = result.worst
    out = [
        paragraph(
            f"{result.scenario} under {result.policy}: {result.verdict}"
            + (f", {worst.kind}" if worst.kind else "")
            + f"; {plural(result.states, 'state')}, {plural(result.edges, 'edge')}, "
            + f"depth {result.depth}"
        ),
        "",
    ]
    if result.reason:
        out += [paragraph(f"unknown: {result.reason}; nothing is concluded from what was not reached"), ""]
    if worst.kind:
        out += [finding_text(worst), ""]
        out += [paragraph(LEGEND), ""]
    for finding in result.findings:
        if finding is not worst and finding.kind:
            out.append(
                paragraph(
                    f"also {finding.verdict}, {finding.kind}: {finding.name}"
                    + (f"; {finding.wait.line()}" if finding.wait else "")
                )
            )
    if result.leads_to:
        out += never_waiting(result)
    else:
        out.append(paragraph("leads-to properties were not asked for: whether anything waits for ever is not decided"))
    trivial = [finding.name for finding in result.findings if finding.trivial]
    if trivial:
        out.append(paragraph(f"trivially true, since nothing of the kind was ever pending: {'; '.join(trivial)}"))
    never, yet = ", ".join(result.never_fired), "" if result.complete else " so far"
    out += [
        paragraph(f"steps that never fired{yet}: {never}" if never else "every step of these actors fired"),
        paragraph(scope_text(result.scope)),
        f"reproduce: {result.command or 'no command: its scenario or policy was made in Python'}",
    ]
    return "\n".join(out)
