"""A verdict as English sentences for the body of a mail, in 72 columns: what each actor does in turn, how pages change,
and who waits for whom."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

from ultrafolio.check.verdicts.replay import Step
from ultrafolio.check.verdicts.verdict import Finding, Result
from ultrafolio.export import prose_memfd
from ultrafolio.model.designs import GUEST_MEMFD, S390
from ultrafolio.model.layout import PAGE_STATES, PINNED_SHARED, TASK
from ultrafolio.nouns import plural
from ultrafolio.screen import MAIL

PHRASES: dict[str, str] = {
    "vcpu-run": "{op} page {page}", "vcpu-again": "repeats its access to page {page}",
    "import-mutex": "takes the import mutex of its VM", "import-map": "looks up page {page} in the guest's table",
    "import-large": "tests whether the folio of page {page} is large", "import-trylock": "takes the folio lock",
    "import-export": "has page {page} exported first, since another guest may own it",
    "import-writeback": "tests for writeback", "wait-writeback": "wakes up, since the writeback is over",
    "import-freeze": "freezes the count of page {page}", "drain-own": "drains the LRU batches of its own CPU",
    "drain-all": "drains the LRU batches of every CPU", "import-arch": "sets the arch bit",
    "import-call": "makes its ultravisor call for page {page}", "import-end": "thaws the count and unlocks the folio",
    "sleep-refs": "wakes up, since the extra references are gone",
    "split-lock": "locks the folio, unless it was split meanwhile", "split": "splits the folio",
    "accessible-test": "tests the arch bit", "accessible-pin": "asks the ultravisor to pin page {page} shared",
    "accessible-export": "asks the ultravisor to export page {page}", "accessible-clear": "clears the arch bit",
    "device-start": "asks for a pin of page {page}", "pin-get": "takes a reference on page {page}",
    "io-start": "begins to use its pages", "io-end": "completes its I/O", "unpin": "drops its pin of page {page}",
    "ring-teardown": "is torn down", "access-start": "is about to {op} page {page}",
    "access-try": "accesses page {page}", "access-put": "drops its reference on page {page}",
    "writeback-start": "picks the folio of page {page}", "writeback-lock": "locks the folio",
    "writeback-flag": "puts the folio into writeback", "writeback-io": "unlocks the folio and submits its I/O",
    "writeback-end": "ends the writeback", "reclaim-start": "picks page {page}", "reclaim-lock": "locks the folio",
    "reclaim-unmap": "unmaps page {page}", "reclaim-export": "asks the ultravisor to export page {page}",
    "reclaim-swap": "writes page {page} to swap", "reclaim-free": "frees page {page}, unless it is used again",
    "lru-add": "puts page {page} into the LRU batch of its CPU", "mapping-get": "takes a reference on page {page}",
    "speculative-get": "takes a short reference on page {page}", "plain-put": "drops that reference",
    "reboot-start": "stops the guest", "reboot-quiet": "finds vCPUs and devices at rest",
    "reboot-reset": "has all pages of the guest unshared and destroyed", "tamper": "changes bytes of page {page}",
}  # fmt: skip
"""What an actor does in a step of a rule, where nothing is in its way; of a rule that is not here, its name is told."""
OTHERWISE: dict[tuple[str, str], str] = {
    ("vcpu-again", "OK"): "drops its access, since the guest is stopped",
    ("import-trylock", "EAGAIN"): "finds the folio locked",
    ("import-writeback", "EAGAIN (writeback)"): "finds the folio in writeback",
    ("import-freeze", "EBUSY"): "finds extra references on page {page}",
    ("drain-all", "EBUSY"): "drains the LRU batches of every CPU and returns busy",
    ("split", "EBUSY"): "finds extra references, and cannot split the folio",
    ("split", "EAGAIN (writeback)"): "finds the folio in writeback, and cannot split it",
    ("split", "EBUSY (dirty)"): "finds the folio dirty, and cannot split it",
    ("split", "OK"): "begins to write the dirty folio back before it splits it",
    ("pin-get", "DONE"): "has all its pages pinned",
    ("reclaim-lock", "EAGAIN"): "passes page {page} over",
    ("reclaim-export", "EBUSY"): "leaves page {page}, which is in use again",
    ("reclaim-swap", "EBUSY"): "leaves page {page}, which is in use again",
}  # fmt: skip
"""What it does where a step of this outcome is not the usual one."""
ADDED: dict[str, str] = {
    "": "", "OK": "", "DONE": "", "FAULT": ", which faults", "SUCCESS": " and reports success",
    "EAGAIN": ", but finds the folio locked", "EBUSY": ", but finds extra references",
    "EAGAIN (writeback)": ", but finds the folio in writeback", "EBUSY (dirty)": ", but finds the folio dirty",
    "EAGAIN (UVC busy)": ", which the ultravisor does not do now",
    "EINVAL": ", which is not valid: the guest is killed",
    "EFAULT": ", and fails", "BUG (too late)": ", and fails when it is too late",
    "frozen count touched": ", whose count is frozen", "ENXIO": " and faults it in",
    "ENXIO (swapped in)": " and reads it from swap",
}  # fmt: skip
"""What is added for an outcome that OTHERWISE does not name."""
_THIRD = {"touch": "touches", "share": "shares", "unshare": "unshares"}
_AT = (TASK.names or ()).index("at")
_STATES = [name.lower().replace("_", " ") for name in PAGE_STATES]


class _S390:
    """The words of this module under the names of prose_memfd."""

    PHRASES, OTHERWISE, ADDED = PHRASES, OTHERWISE, ADDED


_WORDS: dict[str, Any] = {S390.name: _S390, GUEST_MEMFD.name: prose_memfd}
"""Name of a design -> its words."""


def phrase(step: Step) -> str:
    """What its actor does in a step, as a verb with its object."""
    words = _WORDS[step.design]
    said: str | None = words.OTHERWISE.get((step.rule, step.outcome_word))
    if said is None:
        said = words.PHRASES[step.rule] + words.ADDED.get(step.outcome_word, "")
    if step.rule == "reboot-start":
        said += ", which reboots" if step.op == "touch" else ", which shuts down"
    if step.rule == "accessible-pin" and step.after[0][step.page][0] != PINNED_SHARED:
        said += ", which fails"
    if step.rule == "unpin" and not step.before[3][step.actor][_AT]:
        said = "has nothing to unpin"
    return said.format(op=_THIRD.get(step.op, step.op) if step.rule == "vcpu-run" else step.op, page=step.page)


def paragraph(text: str) -> str:
    """A text in lines of at most 72 columns."""
    return textwrap.fill(text, MAIL, break_long_words=False, break_on_hyphens=False)


def told(steps: Sequence[Step], first: int = 1) -> Iterator[str]:
    """A paragraph for each turn of an actor: its steps, numbered from `first`, and how they changed pages."""
    number = first
    for (kind, actor), group in itertools.groupby(steps, lambda step: (step.kind, step.actor)):
        turn = list(group)
        last = number + len(turn) - 1
        which = f"Step {number}" if last == number else f"Steps {number} to {last}"
        yield paragraph(f"{which}: {kind} {actor} {listed([phrase(step) for step in turn])}." + changes(turn))
        number = last + 1


def listed(parts: Sequence[str]) -> str:
    """Parts of a sentence: "a", "a, then b", "a, b, then c"."""
    return ", then ".join(filter(None, [", ".join(parts[:-1]), parts[-1]]))


def changes(turn: Sequence[Step]) -> str:
    """How the ultravisor's states of pages, or their attributes, changed over these steps, a sentence for each page."""
    s390 = turn[0].design == S390.name
    section, field, words = (0, 0, _STATES) if s390 else (1, prose_memfd.PRIVATE, ["shared", "private"])
    before, after = turn[0].before[section], turn[-1].after[section]
    return "".join(
        f" Page {page} was {words[was[field]]} and is {words[now[field]]} now."
        for page, (was, now) in enumerate(zip(before, after, strict=True))
        if was[field] != now[field]
    )


def finding_prose(finding: Finding) -> list[str]:
    """The paragraphs of a finding: the property, the story, what repeats, and the wait."""
    kind = {"safety": "is broken by the last step"}.get(finding.kind or "", f"fails ({finding.kind})")
    if finding.verdict == "holds":
        kind = "holds; somebody waits for a while" if finding.kind else "holds"
    out = [paragraph(f'The property "{finding.name}" {kind}.')]
    out += told(finding.steps)
    if finding.cycle:
        out += ["From here on the following goes round for ever.", *told(finding.cycle, len(finding.steps) + 1)]
    if finding.wait:
        wait, ever = finding.wait, " for ever" if finding.verdict == "violated" else ""
        said = (
            f"In the end {wait.waiter} waits{ever} for {wait.waits_for}. It is held by {wait.held_by}. It is "
            f"released by {wait.released_by}."
        )
        said += f" It is taken again by {wait.taken_by}." if wait.taken_by else ""
        said += " This is the purpose of pin shared, and not counted against the policy." if finding.expected else ""
        out.append(paragraph(said))
    return out


def prose(result: Result) -> str:
    """The verdict, the worst story and the other findings in a sentence each, as paragraphs of 72 columns."""
    worst = result.worst
    verdict = {"holds": "All properties hold", "violated": "A property fails"}.get(
        result.verdict, f"Nothing is decided: {result.reason}"
    )
    count = f"explored: {plural(result.states, 'state')} and {plural(result.edges, 'step')} between them"
    out = [paragraph(f"Scenario {result.scenario} under the policy {result.policy}. {verdict}; {count}.")]
    if worst.kind:
        out += finding_prose(worst)
    elif result.complete:
        out.append("Nobody waits for what another holds.")
    others = [finding for finding in result.findings if finding.kind and finding is not worst]
    out += [
        paragraph(
            f'Besides, "{finding.name}" is {finding.verdict} ({finding.kind})'
            + (f": {finding.wait.line()}." if finding.wait else ".")
        )
        for finding in others
    ]
    out.append(f"To see it again:\n  {result.command}" if result.command else "Its scenario was made in Python.")
    return "\n\n".join(out)
