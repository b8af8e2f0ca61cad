"""Templates of facts. A fact is kept where induction keeps it (houdini.py); none is written for one policy.

page     true of every page
thread   true of every thread at a place
range    true of every page in a range that a thread at a place names
pair     true of two threads, the first of them at a place
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ultrafolio.model.layout import *

from . import terms
from .paths import Place
from .state import Symbolic
from .terms import Value


@dataclass(frozen=True, slots=True)
class View:
    """A thread in a state: its own fields as `own` has them, pages as `world` has them."""

    own: Symbolic
    world: Symbolic
    cfg: dict[str, int]

    def mine(self, name: str) -> Value:
        return self.own.mine(name)

    def task(self, name: str) -> Value:
        return self.own.mine(f"task.{name}")

    def read(self, field: str, page: Value) -> Value:
        return self.world.read(field, page)

    @property
    def page(self) -> Value:
        return self.task("page")

    @property
    def last(self) -> Value:
        """The page that it pinned last."""
        return terms.minus(terms.plus(self.page, self.task("at")), 1)

    def counted(self, page: Value) -> Value:
        """The page on which the references and the freeze of `page` are counted."""
        return page if self.cfg["refs"] == REFS_PAGE else self.world.head(page)

    def bit(self, page: Value) -> Value:
        """Whether the arch bit that covers a page is set."""
        at = self.world.head(page) if self.cfg["track"] == TRACK_FOLIO else page
        return terms.truth(self.read("mm.arch", at))

    def accessible(self, page: Value) -> Value:
        """Whether the host may use a page for I/O, whatever the guest does: it is neither SECURE nor SHARED."""
        return terms.negate(terms.among(self.read("uv.state", page), (SECURE, SHARED)))

    def imported(self, page: Value) -> Value:
        return terms.among(self.read("uv.state", page), (SECURE, SHARED, PINNED_SHARED))

    def writeback(self, page: Value) -> Value:
        return self.read("mm.writeback", self.world.head(page))

    def alone(self, page: Value) -> Value:
        """Whether a page is a folio of its own."""
        return terms.equal(terms.minus(self.world.end(page), self.world.head(page)), 1)


Thread = Callable[[View], Value]
Page = Callable[[View, Value], Value]


def _is(name: str, value: int) -> Thread:
    return lambda v: terms.equal(v.task(name), value)


def _spans(low: Callable[[View], Value], high: Callable[[View], Value]) -> Thread:
    return lambda v: terms.both(terms.equal(v.task("start"), low(v)), terms.equal(v.task("end"), high(v)))


THREAD: dict[str, Thread] = {
    "its call is a touch": _is("call", TOUCH),
    "its call is an unshare": _is("call", UNSHARE),
    "its call is a touch or an unshare": lambda v: terms.among(v.task("call"), (TOUCH, UNSHARE)),
    "it holds no reference of its own": _is("ref", 0),
    "it holds at most one reference of its own": lambda v: terms.within(0, v.task("ref"), 2),
    "it uses at least one page": lambda v: terms.at_most(1, v.task("n")),
    "its device has at least one page": lambda v: terms.at_most(1, v.mine("actor.n")),
    "it uses as many pages as its device has": lambda v: terms.equal(v.task("n"), v.mine("actor.n")),
    "it uses the pages of its device": lambda v: terms.equal(v.page, v.mine("actor.page")),
    "it has pinned no page": _is("at", 0),
    "it has pinned a page": lambda v: terms.at_most(1, v.task("at")),
    "its number of pinned pages is not negative": lambda v: terms.at_most(0, v.task("at")),
    "it has pinned at most all pages": lambda v: terms.at_most(v.task("at"), v.task("n")),
    "it has pinned all pages": lambda v: terms.equal(v.task("at"), v.task("n")),
    "the page it failed to pin shared is the one it is at": lambda v: terms.equal(
        v.task("failed"), terms.plus(v.task("i"), 1)),
    "it is not in the second of the posted loops": _is("exporting", 0),
    "its range is empty": lambda v: terms.all_of(terms.equal(v.task(n), 0) for n in ("start", "i", "end")),
    "its range is the folio of its page": _spans(lambda v: v.world.head(v.page), lambda v: v.world.end(v.page)),
    "its range is its page": _spans(lambda v: v.page, lambda v: terms.plus(v.page, 1)),
    "its range is the folio of its last pin": _spans(lambda v: v.world.head(v.last), lambda v: v.world.end(v.last)),
    "its range is its last pin": _spans(lambda v: v.last, lambda v: terms.plus(v.last, 1)),
    "it is in its range": lambda v: terms.within(v.task("start"), v.task("i"), v.task("end")),
    "it is in its range or at the end": lambda v: terms.both(
        terms.at_most(v.task("start"), v.task("i")), terms.at_most(v.task("i"), v.task("end"))),
    "it is at the end of its range": lambda v: terms.equal(v.task("i"), v.task("end")),
    "its folio has one page": lambda v: v.alone(v.page),
    "its page is accessible": lambda v: v.accessible(v.page),
    "its page is secure or shared": lambda v: v.imported(v.page),
    "its page is its guest's": lambda v: terms.equal(v.read("uv.owner", v.page), v.mine("who.vm")),
    "the bit of its page is set": lambda v: v.bit(v.page),
    "the page it is at is accessible": lambda v: v.accessible(v.task("i")),
    "the page it is at is not shared": lambda v: terms.negate(
        terms.among(v.read("uv.state", v.task("i")), (SHARED, PINNED_SHARED))),
    "its folio is in no writeback": lambda v: terms.equal(v.writeback(v.page), NO_WRITEBACK),
    "its folio is flagged for writeback": lambda v: terms.equal(v.writeback(v.page), FLAGGED),
    "I/O of writeback is in flight on its folio": lambda v: terms.equal(v.writeback(v.page), WRITING),
    "nobody pins its page": lambda v: terms.both(
        terms.equal(v.read("mm.pins", v.page), 0), terms.equal(v.read("mm.longs", v.page), 0)),
    "its page is mapped": lambda v: terms.equal(v.read("pt.present", v.page), MAPPED),
    "it walks its page": lambda v: terms.equal(v.read("mm.walked", v.page), 1),
    "its machine does not run": lambda v: terms.negate(terms.equal(v.read("vm.life", v.mine("who.vm")), ALIVE)),
}  # fmt: skip

RANGES: dict[str, Callable[[View], tuple[Value, Value]]] = {
    "behind it in its range": lambda v: (v.task("start"), v.task("i")),
    "in its range": lambda v: (v.task("start"), v.task("end")),
    "of its folio": lambda v: (v.world.head(v.page), v.world.end(v.page)),
    "that it has pinned": lambda v: (v.page, terms.plus(v.page, v.task("at"))),
    "that it has pinned but the last": lambda v: (v.page, v.last),
}

PAGES: dict[str, Page] = {
    "a page whose bit is clear is accessible": lambda v, p: terms.any_of((v.bit(p), v.accessible(p))),
    "the folio lock is taken or free": lambda v, p: terms.within(0, v.read("mm.locked", p), 2),
    "a count is frozen or not": lambda v, p: terms.within(0, v.read("mm.frozen", p), 2),
    "a page walked is walked once": lambda v, p: terms.within(0, v.read("mm.walked", p), 2),
    "no bit is set on another page of a folio than the first": lambda v, p: _head_only(v, p, "mm.arch"),
    "no lock is taken on another page of a folio than the first": lambda v, p: _head_only(v, p, "mm.locked"),
    "no other page of a folio than the first is in writeback": lambda v, p: _head_only(v, p, "mm.writeback"),
    "no other page of a folio than the first has a count of the folio": lambda v, p: _head_only(v, p, "mm.refs"),
    "no other page of a folio than the first is frozen": lambda v, p: _head_only(v, p, "mm.frozen"),
    "the content that an import yields is that of the last export": lambda v, p: terms.equal(
        v.read("uv.altered", p), 0),
    "the ultravisor refuses no call": lambda v, p: terms.equal(v.read("uv.refuses", p), 0),
    "no count is negative": lambda v, p: terms.all_of(
        terms.at_most(0, v.read(f, p)) for f in ("mm.pins", "mm.longs", "mm.spec", "io.flying")),
}  # fmt: skip


def _head_only(v: View, page: Value, field: str) -> Value:
    return terms.any_of((terms.equal(page, v.world.head(page)), terms.equal(v.read(field, page), 0)))


def held(v: View, place: Place, page: Value) -> Value:
    """Whether a thread other than an import holds a reference on a page: pinned, or a plain one on its page."""
    found = terms.within(v.page, page, terms.plus(v.page, v.task("at")))
    if place.pc in (PUT, ACCESS_PUT) or (place.kind == ACCESS and ACC_TEST <= place.pc <= ACC_CLEAR):
        found = terms.any_of((found, terms.equal(page, v.page)))
    return False if place.kind == VCPU else found


def may_rest(place: Place) -> bool:
    """Whether a vCPU or a device of a stopped machine may be at a place."""
    return place.pc in (RUN, DEVICE_IDLE, DEAD)


HELD = "nobody but an import holds a reference on what is counted with its page"
STOPPED = "every vCPU of its machine has stopped, and every device is torn down"
ONE_REBOOT = "no second reboot of its machine is under way"


def no_reference(first: View, second: View, place: Place, page: Value) -> Value:
    """HELD, of the first thread, where the second one is at `place`: it holds no such reference on this page."""
    return terms.negate(terms.both(
        held(second, place, page), terms.equal(first.counted(page), first.counted(first.page))))  # fmt: skip


PAIRS: dict[str, Callable[[Place], bool]] = {
    HELD: lambda place: place.kind == VCPU,
    STOPPED: lambda place: place.kind == REBOOT,
    ONE_REBOOT: lambda place: place.kind == REBOOT,
}
"""Of two threads, and at which places of the first it is tried."""


def pair(name: str, first: View, second: View, place: Place, page: Value) -> Value:
    """A fact of two threads, the second at `place`."""
    if name == HELD:
        return no_reference(first, second, place, page)
    same = terms.equal(first.mine("who.vm"), second.mine("who.vm"))
    if name == STOPPED:
        guests = place.kind in (VCPU, DISK, RING, PIN, INTERRUPT)
        return terms.negate(same) if guests and not may_rest(place) else True
    return terms.negate(same) if place.kind == REBOOT and place.pc != REBOOT_IDLE else True


