"""The design guest_memfd as a subject of proofs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ultrafolio.model.designs import GUEST_MEMFD
from ultrafolio.prove import terms
from ultrafolio.prove.facts import IMPLIED, View
from ultrafolio.prove.subject import Parts, Subject
from ultrafolio.prove.terms import Value

from . import counts, facts, huge, start
from .configuration import ASSUMED, SINGLE


def _always(first: View, second: View) -> Iterator[Value]:
    """Two threads have two numbers; no number of a CPU, a process or a thread is negative."""
    for view in (first, second):
        yield terms.at_most(0, facts.number(view))
        for name in ("cpu", "process", "after"):
            yield terms.at_most(0, view.mine(f"who.{name}"))
    yield terms.negate(terms.equal(facts.number(first), facts.number(second)))


def _with_a_size(first: View, second: View) -> Iterator[Value]:
    """The same, and a huge page has two pages at least."""
    yield terms.at_most(2, terms.SIZE)
    yield from _always(first, second)


COMPARED = ("convert", "hold")
"""The choices of a policy that facts read."""
READ = ("refs", "block", *COMPARED, *SINGLE, *ASSUMED)
READ_HUGE = ("refs", "block", "machine", *COMPARED, *ASSUMED)
"""The fields of the configuration that verdicts read."""
MEMFD = Subject(
    design=GUEST_MEMFD,
    folios=None,
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
HUGE = replace(
    MEMFD,
    folios=Parts(terms.block, huge.behind, huge.is_first),
    thread={**MEMFD.thread, **huge.THREAD},
    ranges={**MEMFD.ranges, **huge.RANGES},
    pages={**{name: says for name, says in MEMFD.pages.items() if name != facts.REFERENCES}, **huge.PAGES},
    sums=(huge.REFERENCES,),
    of_page=lambda view, page: [*start.of_page(view, page), *huge.of_page(view, page)],
    always=_with_a_size,
    compared=READ_HUGE,
)
"""The same of systems with huge pages."""
