"""The design guest_memfd as a subject of proofs."""

from __future__ import annotations

from collections.abc import Iterator

from ultrafolio.model.designs import GUEST_MEMFD
from ultrafolio.prove import terms
from ultrafolio.prove.facts import IMPLIED, View
from ultrafolio.prove.subject import Subject
from ultrafolio.prove.terms import Value

from . import counts, facts, start
from .configuration import ASSUMED, SINGLE


def _always(first: View, second: View) -> Iterator[Value]:
    """Two threads have two numbers; no number of a CPU, a process or a thread is negative."""
    for view in (first, second):
        yield terms.at_most(0, facts.number(view))
        for name in ("cpu", "process", "after"):
            yield terms.at_most(0, view.mine(f"who.{name}"))
    yield terms.negate(terms.equal(facts.number(first), facts.number(second)))


COMPARED = ("convert", "hold")
"""The choices of a policy that facts read."""
READ = ("refs", "block", *COMPARED, *SINGLE, *ASSUMED)
"""The fields of the configuration that verdicts read."""
MEMFD = Subject(
    design=GUEST_MEMFD,
    folios=False,
    thread=facts.THREAD,
    ranges=facts.RANGES,
    pages=facts.PAGES,
    pairs=facts.PAIRS,
    pair=facts.pair,
    of_pages=(),
    counts=counts.COUNTS,
    sums=(),
    of_thread=start.of_thread,
    of_machine=start.of_machine,
    of_page=start.of_page,
    always=_always,
    compared=READ,
    where=lambda view, page: {counts.KVMS: view.task("i")},
    witnesses={2: (counts.KVMS,)},
    implied=(
        *IMPLIED,
        ("it is at the start of its piece", "it is in its piece or at the end"),
        ("it is in its piece", "it is in its piece or at the end"),
        ("its piece is its request", "its piece is in its request"),
        ("no page is under invalidation", "no page out of its piece is under invalidation"),
        ("no page of its piece is mapped", "no page of its piece is mapped as the old kind"),
        ("it has a page left to pin", "it has pinned at most all pages"),
        ("its device has one page", "its device has at least one page"),
    ),
)
