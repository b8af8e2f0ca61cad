"""The functions of text.py for a design: its own flags of a page, its own rules."""

from __future__ import annotations

import functools
from typing import Any

from ultrafolio.check.verdicts.replay import Step
from ultrafolio.check.verdicts.verdict import Result
from ultrafolio.export import text
from ultrafolio.model.designs import DESIGNS, GUEST_MEMFD, S390
from ultrafolio.model.guest_memfd.layout import E_AGAIN, E_NOMEM, IO, MAPPED, MAPPED_PRIVATE, MM, PT, TASK, UV
from ultrafolio.waits.telling import rebound

_LEGEND = (
    "pages: P private  S shared, by the attribute; then the kind as which the guest uses it (p, s) and as which KVM "
    "maps it (p, s, -);  u mapped by a process  z under invalidation  d mapped for DMA  i I/O in flight  "
    "+n n references and pins"
)


def _flags(packed: Any, page: int) -> str:
    """One page of a packed state as flags: "Ss-u--+1"."""
    uv, mm, io, pt = (
        dict(zip(kind.names or (), packed[at][page], strict=True)) for kind, at in ((UV, 0), (MM, 1), (IO, 5), (PT, 6))
    )
    text = ("P" if mm["private"] else "S") + ("s" if uv["shared"] else "p")
    text += {MAPPED: "s", MAPPED_PRIVATE: "p"}.get(pt["present"], "-")
    marks = ((mm["users"], "u"), (mm["zapped"], "z"), (io["dma"], "d"), (io["flying"], "i"))
    text += "".join(letter if there else "-" for there, letter in marks)
    return text + (f"+{mm['refs']}" if mm["refs"] else "")


def _outcome(step: Step) -> str:
    """Returns the outcome of a step in words; of a refused request with the page that it names: "-EAGAIN at page 2"."""
    failed = dict(zip(TASK.names or (), step.after[3][step.actor], strict=True))["failed"]
    return step.outcome_word + (f" at page {failed - 1}" if failed and step.outcome in (E_AGAIN, E_NOMEM) else "")


@functools.cache
def of(design: str) -> Any:
    """Returns the functions of text.py for the design of this name."""
    if design == S390.name:
        return text
    rules = DESIGNS[design].rules.values()
    return rebound(
        text,
        page_flags=_flags,
        outcome_of=_outcome,
        LEGEND=_LEGEND,
        _ACTOR_OF={rule.name: rule.actor for rule in rules},
        _COLUMNS={**text._COLUMNS, "vmm": 50},
        HEADING=f"{'#':>3}  {'guest':<16}{'host MM, KVM':<29}{'VMM, device':<20}".rstrip(),
        ABOUT_A_PAGE={rule.name for rule in rules if rule.tells_page},
    )


def of_design(result: Result) -> Any:
    """Returns the functions of text.py for the design of a result."""
    return of(result.scope.get("design", S390.name))


def result_text(result: Result) -> str:
    """Returns text.result_text() in the words of the result's design."""
    return str(of_design(result).result_text(result))


assert set(DESIGNS) == {S390.name, GUEST_MEMFD.name}, "each design has its flags"
