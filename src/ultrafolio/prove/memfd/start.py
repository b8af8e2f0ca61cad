"""Initial states, as guest_memfd/scenario.system makes them, for every number of single pages."""

from __future__ import annotations

from ultrafolio.model.guest_memfd.layout import *
from ultrafolio.model.guest_memfd.machines import MODULES
from ultrafolio.prove import terms
from ultrafolio.prove.facts import View
from ultrafolio.prove.paths import Place
from ultrafolio.prove.start import ZERO_TASK
from ultrafolio.prove.terms import Value

from .facts import mapped, true

ZERO = (
    "mm.users", "mm.locking", "mm.zapped", "mm.batch", "mm.pins", "mm.longs", "mm.granted", "mm.frozen", "mm.turned",
    "io.flying", "io.dma", "io.asked", "uv.lost", "uv.pamt",
)  # fmt: skip
HELD = ("mm.spec", "mm.kvm", "mm.refs")
"""References that KVM's mappings have from the start."""


def of_thread(view: View, place: Place) -> list[Value]:
    """A thread that has not begun."""
    made = [terms.equal(view.task(name), 0) for name in (*ZERO_TASK, "then", "back") if name in (TASK.names or ())]
    made += [terms.equal(view.mine("actor.op"), NOTHING), terms.equal(view.mine("actor.page"), 0)]
    only_one = terms.equal(view.mine("actor.n"), 1)
    return [*made, only_one if place.kind == SPLICE else terms.at_most(1, view.mine("actor.n"))]


def of_machine(view: View) -> list[Value]:
    made = [terms.equal(view.read("vm.life", 0), ALIVE)]
    made += [terms.equal(view.read(f"vm.{name}", 0), 0) for name in ("mutex", "fresh")]
    return [*made, *(terms.at_most(0, view.read(f"vm.{name}", 0)) for name in ("no_table", "no_folio"))]


def of_page(view: View, page: Value) -> list[Value]:
    """A page."""
    shared, state = true(view, "uv.shared", page), view.read("uv.state", page)
    made = [terms.equal(view.read(name, page), 0) for name in ZERO]
    made += [terms.within(0, view.read(name, page), 2) for name in ("uv.shared", "mm.allocated")]
    at_start = terms.ite(mapped(view, page), 1, 0) if view.cfg["hold"] == HOLD_MAPPING else 0
    # the references of huge pages are counted on their folios
    held = HELD[:2] if view.cfg["block"] and at_start != 0 else HELD
    made += [terms.equal(view.read(name, page), at_start) for name in held]
    # a proof assumes that what is mapped is allocated
    made.append(terms.any_of((terms.negate(mapped(view, page)), true(view, "mm.allocated", page))))
    private_is = HW_PRIVATE if HW_PRIVATE in MODULES[view.cfg["machine"]].STATES else HW_HOST
    if view.cfg["convert"] == BY_GUEST:
        kinds: tuple[int, ...] = (UNMAPPED, MAPPED_PRIVATE)
        private = terms.ite(mapped(view, page), HW_PRIVATE, HW_HOST)
        made += [
            terms.equal(view.read("mm.private", page), 0),
            terms.implies(shared, mapped(view, page)),
            terms.equal(state, terms.ite(shared, HW_BOTH, private)),
        ]
    else:
        kinds = (UNMAPPED, MAPPED, MAPPED_PRIVATE)
        as_it_is = terms.ite(shared, MAPPED, MAPPED_PRIVATE)
        made += [
            terms.equal(view.read("mm.private", page), terms.ite(shared, 0, 1)),
            terms.implies(mapped(view, page), terms.equal(view.read("pt.present", page), as_it_is)),
            terms.equal(state, terms.ite(terms.both(mapped(view, page), terms.negate(shared)), private_is, HW_HOST)),
        ]
    return [*made, terms.among(view.read("pt.present", page), kinds)]
