"""Templates of facts of guest_memfd, of any policy and machine, for single pages."""

from __future__ import annotations

from ultrafolio.model.guest_memfd.layout import *
from ultrafolio.prove import terms
from ultrafolio.prove.facts import Range, Template, Tried, View, everywhere, of_pinning
from ultrafolio.prove.facts import at as runs
from ultrafolio.prove.paths import Place
from ultrafolio.prove.terms import Value, var
from ultrafolio.prove.turns import PAGE

from .places import ALONE, FAULTS, TESTING, TESTS, is_pinning, of_device, of_request

HELD_BACK = (HW_STUCK,)
COUNTED = ("mm.pins", "mm.longs", "mm.spec", "mm.kvm", "mm.granted", "io.flying", "io.dma")


# ------------------------------------------------------------------------------------------------- what facts read
def number(v: View) -> Value:
    """The thread's own number."""
    return var(f"{v.own.thread}.id")


def mutex(v: View) -> Value:
    return v.read("vm.mutex", 0)


def true(v: View, field: str, page: Value) -> Value:
    return terms.truth(v.read(field, page))


def in_place(v: View) -> bool:
    return v.cfg["convert"] == IN_PLACE


def to_private(v: View) -> Value:
    return terms.equal(v.task("call"), UNSHARE)


def mapped(v: View, page: Value) -> Value:
    """Whether KVM maps a page."""
    return terms.negate(terms.equal(v.read("pt.present", page), UNMAPPED))


def used(v: View, page: Value) -> Value:
    """Whether a process maps a page, or a granted pin is on it."""
    return terms.any_of((true(v, "mm.users", page), terms.below(0, v.read("mm.granted", page))))


def is_host(v: View, page: Value) -> Value:
    return terms.equal(v.read("uv.state", page), HW_HOST)


def given_back(v: View, page: Value) -> Value:
    return terms.among(v.read("uv.state", page), (HW_HOST, HW_POISONED, HW_BOTH))


def has_attribute(v: View, page: Value) -> Value:
    """Whether a page has the attribute that the thread's request asks for."""
    return terms.equal(v.read("mm.private", page), terms.ite(to_private(v), 1, 0))


def another(v: View) -> Value:
    """Whether a page of the thread's request has another attribute."""
    end = terms.plus(v.page, v.task("n"))
    other = terms.make("first", v.page, end, terms.negate(has_attribute(v, PAGE)))
    return terms.below(other, end)


def new(v: View) -> Value:
    """Whether no invalidation has ended since the thread took its snapshot."""
    return terms.equal(terms.bit(v.read("vm.fresh", 0), number(v)), 1)


def still(v: View, fact: Value) -> Value:
    """A fact of the page of a fault, for as long as the fault is not to start again."""
    return terms.any_of((terms.negate(new(v)), true(v, "mm.zapped", v.page), fact))


def pinning(v: View) -> Value:
    """The page that a device, or a process, is at."""
    return terms.plus(v.page, v.task("at"))


# ------------------------------------------------------------------------------------------------- of a page
REFERENCES = "the references of a page are its pins, its plain ones and that of a batch"
PAGES = {
    "a page is private or shared": lambda v, p: terms.within(0, v.read("mm.private", p), 2),
    "a page is allocated, or not": lambda v, p: terms.within(0, v.read("mm.allocated", p), THERE + 1),
    "KVM maps a page as shared, as private, or not": lambda v, p: terms.within(0, v.read("pt.present", p), 3),
    "no count is negative": lambda v, p: terms.all_of(terms.at_most(0, v.read(f, p)) for f in COUNTED),
    REFERENCES: lambda v, p: terms.equal(v.read("mm.refs", p), references(v, p)),
    "no process maps a private page, and no granted pin is on one": lambda v, p: terms.any_of((
        not in_place(v), terms.negate(true(v, "mm.private", p)), terms.negate(used(v, p)))),
    "KVM maps a page as the kind that it is, but for an invalidation": lambda v, p: terms.any_of((
        v.cfg["convert"] == BY_GUEST, true(v, "mm.zapped", p), terms.negate(mapped(v, p)),
        terms.equal(v.read("pt.present", p), terms.ite(true(v, "mm.private", p), MAPPED_PRIVATE, MAPPED)))),
    "KVM maps no page that is not allocated": lambda v, p: terms.any_of((
        terms.negate(mapped(v, p)), true(v, "mm.allocated", p))),
    "a page that a process maps, or with a granted pin, is allocated": lambda v, p: terms.any_of((
        terms.negate(used(v, p)), true(v, "mm.allocated", p))),
    "an invalidation is in progress only while the lock is held alone": lambda v, p: terms.any_of((
        terms.negate(true(v, "mm.zapped", p)), terms.below(0, mutex(v)))),
    "a page is in one of the hardware's states": lambda v, p: terms.within(0, v.read("uv.state", p), len(HW_WORDS)),
    "no page is assigned, and not yet accepted": lambda v, p: terms.negate(
        terms.equal(v.read("uv.state", p), HW_ASSIGNED)),
    "the hardware says that a page is the host's": is_host,
    "a page that is not private is given back": lambda v, p: terms.any_of((
        true(v, "mm.private", p), given_back(v, p))),
    "a page that is not private is the host's": lambda v, p: terms.any_of((
        true(v, "mm.private", p), is_host(v, p))),
    "the hardware has for the guest only what KVM maps as private": lambda v, p: terms.any_of((
        is_host(v, p), terms.equal(v.read("pt.present", p), MAPPED_PRIVATE))),
    "a page that is not allocated is given back": lambda v, p: terms.any_of((
        true(v, "mm.allocated", p), given_back(v, p))),
    "a page that is not allocated is the host's": lambda v, p: terms.any_of((
        true(v, "mm.allocated", p), is_host(v, p))),
    "the hardware keeps no page": lambda v, p: terms.negate(terms.among(v.read("uv.state", p), HELD_BACK)),
    "the content of no page is gone": lambda v, p: terms.equal(v.read("uv.lost", p), 0),
    "the content of a page is gone only during an invalidation": lambda v, p: terms.any_of((
        terms.equal(v.read("uv.lost", p), 0), true(v, "mm.zapped", p))),
    "no PAMT page is to be dropped": lambda v, p: terms.equal(v.read("uv.pamt", p), 0),
    "the machine runs": lambda v, p: terms.equal(v.read("vm.life", 0), ALIVE),
}  # fmt: skip


def references(v: View, page: Value) -> Value:
    total: Value = terms.ite(true(v, "mm.batch", page), 1, 0)
    for field in ("mm.pins", "mm.longs", "mm.spec"):
        total = terms.plus(total, v.read(field, page))
    return total


# ------------------------------------------------------------------------------------------------- of a thread
THREAD: dict[str, Template] = {
    "it holds no reference of its own": Template(everywhere, lambda v: terms.equal(v.task("ref"), 0)),
    "it holds a reference of its own": Template(
        runs(FAULT_UNLOCK, FAULT_MAP, USER_MAP, FRESH_UNLOCK), lambda v: terms.equal(v.task("ref"), 1)),
    "it holds at most one reference of its own": Template(everywhere, lambda v: terms.within(0, v.task("ref"), 2)),
    "the lock is its own": Template(
        runs(*ALONE), lambda v: terms.equal(mutex(v), terms.plus(number(v), 1))),
    "faults share the lock": Template(everywhere, lambda v: terms.below(mutex(v), 0)),
    "its device has one page": Template(of_device, lambda v: terms.equal(v.mine("actor.n"), 1)),
    "it has a page left to pin": Template(is_pinning, lambda v: terms.below(v.task("at"), v.task("n"))),
    **of_pinning(of_device),
    "its access is one to a private or a shared page": Template(
        runs(*FAULTS), lambda v: terms.within(0, v.task("call"), 2)),
    "its page has the attribute that it read, or it starts again": Template(
        runs(*FAULTS), lambda v: still(v, terms.equal(v.read("mm.private", v.page), v.task("call")))),
    "its page is allocated, or it starts again": Template(
        runs(*FAULTS), lambda v: still(v, true(v, "mm.allocated", v.page))),
    "its page is allocated": Template(
        runs(*FAULTS, USER_MAP), lambda v: true(v, "mm.allocated", pinning(v))),
    "its page is shared": Template(
        runs(USER_MAP, GUP_GET, GUP_RECHECK),
        lambda v: terms.any_of((not in_place(v), terms.equal(v.read("mm.private", pinning(v)), 0)))),
    "its page is assigned, or it starts again": Template(
        runs(*FAULTS), lambda v: still(v, terms.any_of((
            terms.equal(v.task("call"), 0), terms.negate(is_host(v, v.page)))))),
    "its request has at least one page": Template(of_request, lambda v: terms.at_most(1, v.task("n"))),
    "its actor has at least one page": Template(of_request, lambda v: terms.at_most(1, v.mine("actor.n"))),
    "its request has changed no attribute": Template(everywhere, lambda v: terms.equal(v.task("splits"), 0)),
    "a page of its request has another attribute": Template(runs(*TESTING), another),
    "its piece is its request": Template(of_request, lambda v: terms.both(
        terms.equal(v.task("start"), v.page), terms.equal(v.task("end"), terms.plus(v.page, v.task("n"))))),
    "its piece is in its request": Template(of_request, lambda v: terms.all_of((
        terms.at_most(v.page, v.task("start")), terms.at_most(v.task("start"), v.task("end")),
        terms.at_most(v.task("end"), terms.plus(v.page, v.task("n")))))),
    "its piece is one page": Template(
        of_request, lambda v: terms.equal(v.task("end"), terms.plus(v.task("start"), 1))),
    "it is at the start of its piece": Template(
        of_request, lambda v: terms.equal(v.task("i"), v.task("start"))),
    "it is in its piece": Template(
        of_request, lambda v: terms.within(v.task("start"), v.task("i"), v.task("end"))),
    "it is in its piece or at the end": Template(of_request, lambda v: terms.both(
        terms.at_most(v.task("start"), v.task("i")), terms.at_most(v.task("i"), v.task("end")))),
    "it asks for private pages": Template(of_request, to_private),
    "its page is not the guest's": Template(everywhere, lambda v: given_back(v, v.page)),
}  # fmt: skip


# ------------------------------------------------------------------------------------------------- of its pages
def _start(v: View) -> Value:
    return v.task("start")


def _at(v: View) -> Value:
    return v.task("i")


def _end(v: View) -> Value:
    return v.task("end")


def _where_private(v: View, fact: Value) -> Value:
    """A fact of what becomes private in place."""
    return terms.any_of((not in_place(v), terms.negate(to_private(v)), fact))


def _old_kind(v: View) -> Value:
    return terms.ite(to_private(v), MAPPED, MAPPED_PRIVATE)


def _not_zapped(v: View, page: Value) -> Value:
    return terms.negate(true(v, "mm.zapped", page))


def _unused(v: View, page: Value) -> Value:
    return _where_private(v, terms.negate(used(v, page)))


_ALONE: Tried = runs(*ALONE)
_AFTER: Tried = runs(CONVERT_STORE, CONVERT_RESTRUCTURE, CONVERT_ROLLBACK, CONVERT_END, HOLE_END)
"""It has begun an invalidation."""
_BECOMING: Tried = runs(CONVERT_ZAP, CONVERT_STORE, CONVERT_RESTRUCTURE, CONVERT_ROLLBACK, CONVERT_END)
"""It has tested all pages of its piece."""
RANGES: dict[str, Range] = {
    "no page is under invalidation": Range(
        _ALONE, lambda v: 0, lambda v: 0, _not_zapped, outside=True),
    "no page out of its piece is under invalidation": Range(_ALONE, _start, _end, _not_zapped, outside=True),
    "every page of its piece is under invalidation": Range(
        _AFTER, _start, _end, lambda v, p: true(v, "mm.zapped", p)),
    "what becomes private is in no page table, and has no granted pin, behind it": Range(
        runs(*TESTS), _start, _at, _unused),
    "what becomes private is in no page table, and has no granted pin": Range(
        _BECOMING, _start, _end, _unused),
    "no page of its piece is mapped as the old kind": Range(
        _AFTER, _start, _end, lambda v, p: terms.negate(terms.equal(v.read("pt.present", p), _old_kind(v)))),
    "no page of its piece is mapped": Range(
        _AFTER, _start, _end, lambda v, p: terms.negate(mapped(v, p))),
    "every page of its piece has the attribute that is asked for": Range(_AFTER, _start, _end, has_attribute),
    "the content of a page of its piece is gone only where it is private and becomes shared": Range(
        _AFTER, _start, _end, lambda v, p: terms.any_of((
            terms.equal(v.read("uv.lost", p), 0),
            terms.both(true(v, "mm.private", p), terms.negate(to_private(v)))))),
    "the content of no page of its piece is gone": Range(
        _AFTER, _start, _end, lambda v, p: terms.equal(v.read("uv.lost", p), 0)),
    "every page of its piece is the host's where it becomes shared": Range(
        _AFTER, _start, _end, lambda v, p: terms.any_of((to_private(v), is_host(v, p)))),
}  # fmt: skip


# ------------------------------------------------------------------------------------------------- of two threads
BEHIND = "no fault of a process is under way on what becomes private behind it"
IN_PIECE = "no fault of a process is under way on what becomes private"
PAIRS: dict[str, Tried] = {BEHIND: runs(*TESTS), IN_PIECE: _BECOMING}


def pair(name: str, first: View, second: View, place: Place, page: Value) -> Value:
    """A fact of two threads, the second at `place`."""
    if place.pc != USER_MAP:
        return True
    end = _at(first) if name == BEHIND else _end(first)
    return _where_private(first, terms.negate(terms.within(_start(first), pinning(second), end)))
