"""Initial states, as scenario.system makes them, for every size: what is true of a thread and of a page there."""

from __future__ import annotations

from ultrafolio.model.layout import *

from . import terms
from .facts import View
from .terms import Value

ZERO_TASK = (
    "call",
    "drained",
    "tries",
    "splits",
    "exporting",
    "mutex",
    "ref",
    "done",
    "n",
    "at",
    "page",
    "start",
    "i",
    "end",
    "failed",
)
ZERO_PAGE = (
    "mm.locked",
    "mm.frozen",
    "mm.writeback",
    "mm.batch",
    "mm.altered",
    "mm.spec",
    "mm.walked",
    "mm.pins",
    "mm.longs",
    "mm.granted",
    "mm.refs",
    "io.flying",
    "uv.altered",
    "uv.refuses",
)
BITS = ("mm.arch", "uv.shared")


def of_thread(view: View) -> list[Value]:
    """A thread that has not begun."""
    made = [terms.equal(view.task(name), 0) for name in ZERO_TASK]
    made += [terms.equal(view.mine("actor.op"), NOTHING), terms.equal(view.mine("actor.page"), 0)]
    return [*made, terms.at_most(1, view.mine("actor.n"))]


def of_machine(view: View) -> list[Value]:
    vm = view.mine("who.vm")
    return [terms.equal(view.read("vm.life", vm), ALIVE), terms.equal(view.read("vm.mutex", vm), 0)]


def of_page(view: View, page: Value) -> list[Value]:
    """A page, with the folio that it is in."""
    state, first = view.read("uv.state", page), view.world.head(page)
    large = terms.negate(view.alone(page))
    never = terms.equal(state, NON_SECURE)
    made = [terms.equal(view.read(name, page), 0) for name in ZERO_PAGE]
    made += [terms.within(0, view.read(name, page), 2) for name in BITS]
    made += [terms.within(0, state, len(PAGE_STATES)), terms.equal(view.read("pt.present", page), MAPPED)]
    # NON_SECURE: a page that was exported while shared, in a large folio that the policy refuses
    made += [
        terms.implies(terms.truth(view.read("uv.shared", page)), terms.among(state, (EXPORTED, NON_SECURE))),
        terms.implies(never, terms.equal(view.read("uv.owner", page), 0)),
    ]
    if view.cfg["large"] != LARGE_DIRECT:
        # a page of a large folio was never imported: it would have been split, or refused
        made.append(terms.implies(large, never))
    covering = view.bit(page)
    made.append(terms.implies(terms.among(state, (SECURE, SHARED)), covering))
    if view.cfg["track"] == TRACK_FOLIO:
        made.append(terms.any_of((terms.equal(page, first), terms.equal(view.read("mm.arch", page), 0))))
    else:
        made.append(terms.choose(terms.among(state, (SECURE, SHARED)), covering, terms.negate(covering)))
    return made
