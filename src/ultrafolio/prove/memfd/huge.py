"""Templates of facts of guest_memfd with huge pages, of any policy, machine and order; the sum of a folio's references;
initial states."""

from __future__ import annotations

from ultrafolio.model.guest_memfd.layout import *
from ultrafolio.model.guest_memfd.machines import MODULES
from ultrafolio.prove import terms
from ultrafolio.prove.counts import Sum
from ultrafolio.prove.facts import Page, Range, Template, View
from ultrafolio.prove.facts import at as runs
from ultrafolio.prove.state import ORDER, Gather, Point, Symbolic
from ultrafolio.prove.terms import Value
from ultrafolio.prove.turns import PAGE as AT

from . import facts
from .facts import another, in_place, mapped, mutex, pinning, references, to_private, true, used
from .places import ALONE, FRESH

CHANGING = (CONVERT_STORE, CONVERT_RESTRUCTURE, CONVERT_ROLLBACK, CONVERT_END)
"""Rules at which a conversion has unmapped its piece."""


def behind(page: Value) -> Value:
    """Returns the first page behind the huge page of `page`."""
    return terms.plus(terms.block(page), terms.SIZE)


def is_first(page: Value) -> Value:
    """Formula: the first page of the huge page of `page` is the first page of its own huge page."""
    first = terms.block(page)
    return terms.equal(terms.make("block", first), first)


def folio(v: View, page: Value) -> Value:
    """The first page of the folio of a page: of its huge page, or itself."""
    return terms.ite(true(v, ORDER, page), terms.block(page), page)


def _one(v: View, page: Value) -> Value:
    """Whether the huge page of a page is one folio."""
    return true(v, ORDER, page)


def _large(v: View, page: Value) -> Value:
    """Whether KVM maps the huge page of a page by one entry."""
    return true(v, "pt.large", page)


def _agree(field: str) -> Page:
    return lambda v, p: terms.equal(v.read(field, p), v.read(field, terms.block(p)))


def _agree_whether(field: str) -> Page:
    """That a field is 0 for all pages of a huge page, or for none."""

    def says(v: View, p: Value) -> Value:
        first = true(v, field, terms.block(p))
        return terms.choose(true(v, field, p), first, terms.negate(first))

    return says


def _flag(field: str) -> Page:
    return lambda v, p: terms.within(0, v.read(field, p), 2)


def _where(condition: Page, *options: Page) -> Page:
    """Formula of a page: if it meets `condition`, it meets one of `options`."""
    return lambda v, p: terms.any_of((terms.negate(condition(v, p)), *(option(v, p) for option in options)))


def _private(v: View, page: Value) -> Value:
    return true(v, "mm.private", page)


def _zapped(v: View, page: Value) -> Value:
    return true(v, "mm.zapped", page)


def _locked(v: View, page: Value) -> Value:
    return terms.below(0, mutex(v))


def _is_private(v: View, page: Value) -> Value:
    return terms.equal(v.read("pt.present", page), MAPPED_PRIVATE)


def _hardware(v: View, page: Value) -> Value:
    """Whether the hardware has one entry for the huge page of a page, if it has entries."""
    return true(v, "uv.large", page) if MODULES[v.cfg["machine"]].HAS_ENTRIES else True


PAGES: dict[str, Page] = {
    "a page is a folio of its own, or in one of a huge page": _flag(ORDER),
    "KVM has one entry for a huge page, or not": _flag("pt.large"),
    "the hardware has one entry for a huge page, or not": _flag("uv.large"),
    "the attribute of a page was changed by the request that has the lock, or not": _flag("mm.turned"),
    "all pages of a huge page are in one folio, or none": _agree(ORDER),
    "all pages of a huge page are allocated, or none": _agree_whether("mm.allocated"),
    "KVM has one entry for all pages of a huge page, or for none": _agree("pt.large"),
    "the hardware has one entry for all pages of a huge page, or for none": _agree("uv.large"),
    "no other page of a folio than the first has a count of the folio": lambda v, p: terms.any_of((
        terms.equal(folio(v, p), p), terms.equal(v.read("mm.refs", p), 0))),
    "no page is taken for written": lambda v, p: terms.negate(
        terms.equal(v.read("mm.stale", p), TAKEN_FOR_WRITTEN)),
    "what KVM maps by one entry is mapped as private": _where(_large, _is_private),
    "what KVM maps by one entry is private": _where(_large, _private),
    "what KVM maps by one entry is private, but for an invalidation": _where(_large, _private, _zapped),
    "what KVM maps by one entry is one folio": _where(_large, _one),
    "what KVM maps by one entry is one folio, but for an invalidation": _where(_large, _one, _zapped),
    "what KVM maps by one entry has one of the hardware": _where(_large, _hardware),
    "a huge page that is one folio is private": _where(_one, _private),
    "a huge page that is one folio is private, but for an invalidation": _where(_one, _private, _zapped),
    "a huge page that is one folio is private, but while the lock is held alone": _where(_one, _private, _locked),
    "a page whose attribute is changed now is in no page table, and has no granted pin": lambda v, p: terms.any_of((
        not in_place(v), terms.negate(true(v, "mm.turned", p)), terms.negate(used(v, p)))),
    "a page that is not private is given back, or its attribute is changed now": lambda v, p: terms.any_of((
        _private(v, p), true(v, "mm.turned", p), facts.given_back(v, p))),
    "a page that is not private is the host's, or its attribute is changed now": lambda v, p: terms.any_of((
        _private(v, p), true(v, "mm.turned", p), facts.is_host(v, p))),
    "no attribute is changed but while the lock is held alone": _where(
        lambda v, p: true(v, "mm.turned", p), _locked),
}  # fmt: skip


# ------------------------------------------------------------------------------------------------- of a thread
def _turned(v: View) -> Value:
    """Whether the thread's request has changed the attribute of one of its pages."""
    end = terms.plus(v.page, v.task("n"))
    return terms.below(terms.make("first", v.page, end, true(v, "mm.turned", AT)), end)


def _some_shared(v: View) -> Value:
    """Whether a page of the huge page of the thread's page is shared."""
    end = behind(pinning(v))
    return terms.below(terms.make("first", terms.block(pinning(v)), end, terms.negate(_private(v, AT))), end)


THREAD: dict[str, Template] = {
    "it has changed the attribute of a page of its request": Template(
        runs(CONVERT_RESTRUCTURE, CONVERT_ROLLBACK, CONVERT_END), _turned),
    "the attribute of its page is not changed now": Template(
        runs(USER_MAP, GUP_GET, GUP_RECHECK),
        lambda v: terms.any_of((not in_place(v), terms.negate(true(v, "mm.turned", pinning(v)))))),
    "a page of its huge page is shared": Template(runs(*FRESH), _some_shared),
    "a page of its request has another attribute still": Template(
        runs(CONVERT_STORE, CONVERT_RESTRUCTURE, CONVERT_END), another),
}  # fmt: skip


def _first(v: View) -> Value:
    return terms.block(v.task("start"))


def _behind(v: View) -> Value:
    return behind(terms.minus(v.task("end"), 1))


def _start(v: View) -> Value:
    return v.task("start")


def _end(v: View) -> Value:
    return v.task("end")


def _not_turned(v: View, page: Value) -> Value:
    return terms.negate(true(v, "mm.turned", page))


def _in_part(v: View, page: Value) -> Value:
    """The first page of a thread's piece that is in the huge page of a page of which a part is in the piece."""
    return terms.most(v.task("start"), terms.block(page))


RANGES: dict[str, Range] = {
    "KVM maps no huge page by one entry of which it makes a part shared": Range(
        runs(*CHANGING), _first, _behind,
        lambda v, p: terms.any_of((to_private(v), terms.both(
            terms.negate(_large(v, p)), true(v, "mm.zapped", _in_part(v, p)))))),
    "it has changed no attribute but before its piece": Range(
        runs(*ALONE), lambda v: v.page, _start, _not_turned, outside=True),
    "it has changed no attribute but before its piece and in it": Range(
        runs(*ALONE), lambda v: v.page, _end, _not_turned, outside=True),
    "a huge page that is one folio is private, or it has changed that": Range(
        runs(*CHANGING), _start, _end, _where(_one, _private, lambda v, p: true(v, "mm.turned", p))),
    "everywhere, a huge page that is one folio is private": Range(
        runs(*ALONE), lambda v: 0, lambda v: 0, _where(_one, _private), outside=True),
    "out of its piece, a huge page that is one folio is private": Range(
        runs(*ALONE), _start, _end, _where(_one, _private), outside=True),
    "every page that it has changed has the attribute that is asked for": Range(
        runs(*CHANGING), _start, _end,
        lambda v, p: terms.any_of((terms.negate(true(v, "mm.turned", p)),
                                   terms.equal(v.read("mm.private", p), terms.ite(to_private(v), 1, 0))))),
}  # fmt: skip


# ------------------------------------------------------------------------------------------------- references
def kept(total: Sum, after: Symbolic, cfg: dict[str, int], page: Value) -> Value:
    """That a step keeps the references of the folio of the page the sum over its pages.

    Each entry of the log changes the sum by what it changes of the numbers on pages. Where the order of a folio is set,
    no page of the huge page has a reference, before and after.
    """
    before, world = View(after, Symbolic(after.thread), cfg), View(after, after, cfg)
    first = folio(before, page)
    change, of_page, gathered = _numbers(total, after, cfg, before, page)
    grown = terms.minus(after.read(total.total, first), before.read(total.total, first))
    same = [terms.equal(grown, change), terms.equal(of_page, gathered)]
    for entry in after.log:
        if isinstance(entry, Gather) and entry.field == total.total:
            here = terms.both(terms.within(entry.low, page, entry.high), terms.bodies_at(entry.condition, page))
            same.append(terms.implies(here, terms.equal(terms.bodies_at(entry.index, page), first)))
    if ORDER not in after.written():
        return terms.all_of(same)
    changed = [
        terms.negate(terms.equal(before.read(ORDER, p), world.read(ORDER, p))) for p in (page, terms.block(page))
    ]
    none = [terms.equal(total.of_page(world, page), 0), terms.equal(world.read(total.total, folio(world, page)), 0)]
    agree = terms.choose(changed[0], changed[1], terms.negate(changed[1]))
    return terms.both(agree, terms.choose(changed[0], terms.all_of(none), terms.all_of(same)))


def _numbers(total: Sum, after: Symbolic, cfg: dict[str, int], before: View, page: Value) -> tuple[Value, Value, Value]:
    """What a step changes of the sum of the folio of the page; what its loops change of the number of the page; and
    what they should, by what they change of the folios' numbers."""
    change: Value = 0
    of_page: Value = 0
    gathered: Value = 0
    first = folio(before, page)
    for n, entry in enumerate(after.log):
        old, new = (View(after, Symbolic(after.thread, after.own, after.log[:k]), cfg) for k in (n, n + 1))
        if isinstance(entry, Point):
            if entry.field in total.fields:
                grown = terms.minus(total.of_page(new, entry.index), total.of_page(old, entry.index))
                change = terms.plus(change, terms.ite(terms.equal(folio(before, entry.index), first), grown, 0))
        elif isinstance(entry, Gather):
            if entry.field == total.total:
                change = terms.plus(change, entry.turns(first), entry.change)
                here = terms.both(terms.within(entry.low, page, entry.high), terms.bodies_at(entry.condition, page))
                gathered = terms.plus(gathered, terms.ite(here, entry.change, 0))
        elif set(entry.fields) & set(total.fields):
            of_page = terms.plus(of_page, terms.minus(total.of_page(new, page), total.of_page(old, page)))
    return change, of_page, gathered


REFERENCES = Sum(
    "the references of a folio are those of its pages", "mm.refs", ("mm.pins", "mm.longs", "mm.spec", "mm.batch"),
    references, head=folio, kept=kept,
)  # fmt: skip


# ------------------------------------------------------------------------------------------------- initial states
def of_page(view: View, page: Value) -> list[Value]:
    """A page of a huge page: beside what is true of a single one."""
    one, shared = _one(view, page), true(view, "uv.shared", page)
    by_one = terms.both(one, mapped(view, page)) if view.cfg["convert"] != BY_GUEST else False
    has = MODULES[view.cfg["machine"]].HAS_ENTRIES
    there = true(view, "mm.allocated", page)
    made = [_flag(ORDER)(view, page), *(_agree(name)(view, page) for name in (ORDER, "mm.allocated"))]
    made.append(terms.choose(there, terms.implies(one, terms.negate(shared)), one))
    if view.cfg["convert"] != BY_GUEST:
        both = mapped(view, page), mapped(view, terms.block(page))
        made.append(terms.choose(both[0], both[1], terms.negate(both[1])))
    stale = terms.ite(there, UP_TO_DATE, NOT_WRITTEN)
    made.append(terms.equal(view.read("mm.stale", page), stale))
    made.append(terms.equal(view.read("pt.large", page), terms.ite(by_one, 1, 0)))
    made.append(terms.equal(view.read("uv.large", page), terms.ite(by_one, 1, 0) if has else 0))
    return made
