"""The designs that proofs are about."""

from __future__ import annotations

from collections.abc import Iterator

from ultrafolio.model.design import Design
from ultrafolio.model.designs import S390

from . import counts, facts, start, terms
from .facts import View
from .memfd.subject import HUGE, MEMFD
from .subject import Parts, Subject
from .terms import Value

IN_FLIGHT = ("I/O in flight", "writeback")


def _not_negative(*views: View) -> Iterator[Value]:
    for view in views:
        for name in ("cpu", "vm", "after"):
            yield terms.at_most(0, view.mine(f"who.{name}"))


SUBJECTS = {
    subject.design.name: subject
    for subject in (
        Subject(
            design=S390,
            folios=Parts(terms.head, terms.end),
            thread=facts.THREAD,
            ranges=facts.RANGES,
            pages=facts.PAGES,
            pairs=facts.PAIRS,
            pair=facts.pair,
            of_pages=(facts.HELD,),
            counts=counts.COUNTS,
            sums=counts.SUMS,
            of_thread=lambda view, place: start.of_thread(view),
            of_machine=start.of_machine,
            of_page=start.of_page,
            always=_not_negative,
            compared=facts.COMPARED,
            where=lambda view, page: {
                "I/O in flight": page, "writeback": view.world.head(page), "frozen counts": view.counted(page),
            },
            witnesses={1: IN_FLIGHT, 4: IN_FLIGHT, 5: ("frozen counts",), 10: IN_FLIGHT},
            own=("frozen counts",),
            implied=facts.IMPLIED,
            of_range="every page {} is accessible",
        ),
        MEMFD,
    )
}  # fmt: skip


def subject_of(design: Design, cfg: dict[str, int]) -> Subject:
    """What a proof under a configuration of a design needs."""
    return HUGE if cfg.get("block") else SUBJECTS[design.name]
