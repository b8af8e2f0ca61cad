"""Templates of facts. A fact is kept where induction keeps it (houdini.py); none is written for one policy.

page     true of every page
thread   true of every thread at a place
range    every page is accessible in a range that a thread at a place names
pair     true of two threads, the first of them at a place
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ultrafolio.model.layout import *
from ultrafolio.model.rule import RULES

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


Page = Callable[[View, Value], Value]
COMPARED = ("track", "refs")
"""The choices of a policy that facts read."""
Tried = Callable[[Place], bool]


@dataclass(frozen=True, slots=True)
class Template:
    """A fact of a thread: at which places it is tried, and what it says."""

    tried: Tried
    says: Callable[[View], Value]


@dataclass(frozen=True, slots=True)
class Range:
    """A range of pages of a thread, and what may be true of every page in it, or out of it; at which places it is
    tried."""

    tried: Tried
    low: Callable[[View], Value]
    high: Callable[[View], Value]
    says: Page = View.accessible
    outside: bool = False

    def broken(self, view: View, page: Value) -> Value:
        """Whether it is not true of a page of the range."""
        inside = terms.within(self.low(view), page, self.high(view))
        return terms.both(terms.negate(inside) if self.outside else inside, terms.negate(self.says(view, page)))


DEVICES = (DISK, RING, PIN, INTERRUPT)
FREEZING = tuple(pc for pc in sorted(RULES) if "frozen" in RULES[pc].holds)
"""Rules at which an import holds a frozen count. From Rule.holds."""


def everywhere(place: Place) -> bool:
    return True


def of_device(place: Place) -> bool:
    """The thread is that of a device."""
    return place.kind in DEVICES


def of_import(place: Place) -> bool:
    return place.kind == VCPU


def accessing(place: Place) -> bool:
    """It makes pages accessible."""
    return ACC_TEST <= place.pc <= ACC_CLEAR


def writing_back(place: Place) -> bool:
    """It makes a folio accessible for writeback, or is about to submit."""
    return place.pc in (WB_START, WB_IO, WB_END) or (accessing(place) and place.then == WB_IO)


def ranging(place: Place) -> bool:
    """It goes through a range of pages."""
    return accessing(place) or place.pc == RECLAIM_EXPORT


def at(*pcs: int) -> Tried:
    """It runs one of these rules next."""
    return lambda place: place.pc in pcs


def _spans(low: Callable[[View], Value], high: Callable[[View], Value]) -> Template:
    return Template(
        ranging, lambda v: terms.both(terms.equal(v.task("start"), low(v)), terms.equal(v.task("end"), high(v)))
    )


def of_pinning(of_device: Tried) -> dict[str, Template]:
    """The templates of a thread that pins the pages of its device, in any design. of_device: at which places."""
    return {
        "its device has at least one page": Template(of_device, lambda v: terms.at_most(1, v.mine("actor.n"))),
        "it uses at least one page": Template(of_device, lambda v: terms.at_most(1, v.task("n"))),
        "it uses as many pages as its device has": Template(
            of_device, lambda v: terms.equal(v.task("n"), v.mine("actor.n"))),
        "it uses the pages of its device": Template(of_device, lambda v: terms.equal(v.page, v.mine("actor.page"))),
        "it has pinned no page": Template(everywhere, lambda v: terms.equal(v.task("at"), 0)),
        "it has pinned a page": Template(of_device, lambda v: terms.at_most(1, v.task("at"))),
        "its number of pinned pages is not negative": Template(of_device, lambda v: terms.at_most(0, v.task("at"))),
        "it has pinned at most all pages": Template(of_device, lambda v: terms.at_most(v.task("at"), v.task("n"))),
        "it has pinned all pages": Template(of_device, lambda v: terms.equal(v.task("at"), v.task("n"))),
    }  # fmt: skip


THREAD: dict[str, Template] = {
    "it holds at most one reference of its own": Template(of_import, lambda v: terms.within(0, v.task("ref"), 2)),
    "it holds no reference of its own": Template(everywhere, lambda v: terms.equal(v.task("ref"), 0)),
    **of_pinning(of_device),
    "the page it failed to pin shared is the one it is at": Template(
        at(ACC_EXPORT), lambda v: terms.equal(v.task("failed"), terms.plus(v.task("i"), 1))),
    "it is not in the second of the posted loops": Template(accessing, lambda v: terms.equal(v.task("exporting"), 0)),
    "its range is the folio of its page": _spans(lambda v: v.world.head(v.page), lambda v: v.world.end(v.page)),
    "its range is its page": _spans(lambda v: v.page, lambda v: terms.plus(v.page, 1)),
    "its range is the folio of its last pin": _spans(lambda v: v.world.head(v.last), lambda v: v.world.end(v.last)),
    "its range is its last pin": _spans(lambda v: v.last, lambda v: terms.plus(v.last, 1)),
    "it is in its range": Template(ranging, lambda v: terms.within(v.task("start"), v.task("i"), v.task("end"))),
    "it is in its range or at the end": Template(ranging, lambda v: terms.both(
        terms.at_most(v.task("start"), v.task("i")), terms.at_most(v.task("i"), v.task("end")))),
    "it is at the end of its range": Template(ranging, lambda v: terms.equal(v.task("i"), v.task("end"))),
    "its page is accessible": Template(at(RECLAIM_SWAP, RECLAIM_FREE), lambda v: v.accessible(v.page)),
    "its page is secure or shared": Template(at(IMPORT_END), lambda v: v.imported(v.page)),
    "its page is its guest's": Template(
        at(IMPORT_END), lambda v: terms.equal(v.read("uv.owner", v.page), v.mine("who.vm"))),
    "the bit of its page is set": Template(at(IMPORT_CALL, IMPORT_END), lambda v: v.bit(v.page)),
    "the page it is at is accessible": Template(at(ACC_CLEAR), lambda v: v.accessible(v.task("i"))),
    "its folio is in no writeback": Template(
        at(IMPORT_LARGE, IMPORT_FREEZE, WB_START, *FREEZING), lambda v: terms.equal(v.writeback(v.page), NO_WRITEBACK)),
    "no I/O of writeback is in flight on its folio": Template(
        writing_back, lambda v: terms.negate(terms.equal(v.writeback(v.page), WRITING))),
    "nobody pins its page": Template(at(*FREEZING), lambda v: terms.both(
        terms.equal(v.read("mm.pins", v.page), 0), terms.equal(v.read("mm.longs", v.page), 0))),
    "its machine does not run": Template(at(REBOOT_QUIET, REBOOT_RESET), lambda v: terms.negate(
        terms.equal(v.read("vm.life", v.mine("who.vm")), ALIVE))),
}  # fmt: skip

RANGES: dict[str, Range] = {
    "behind it in its range": Range(ranging, lambda v: v.task("start"), lambda v: v.task("i")),
    "in its range": Range(at(ACC_CLEAR), lambda v: v.task("start"), lambda v: v.task("end")),
    "of its folio": Range(at(WB_IO, WB_END), lambda v: v.world.head(v.page), lambda v: v.world.end(v.page)),
    "that it has pinned": Range(of_device, lambda v: v.page, lambda v: terms.plus(v.page, v.task("at"))),
    "that it has pinned but the last": Range(
        lambda place: of_device(place) and accessing(place), lambda v: v.page, lambda v: v.last),
}  # fmt: skip

PAGES: dict[str, Page] = {
    "a page whose bit is clear is accessible": lambda v, p: terms.any_of((v.bit(p), v.accessible(p))),
    "a page is in one of the ultravisor's states": lambda v, p: terms.within(
        0, v.read("uv.state", p), len(PAGE_STATES)),
    "a bit is set or clear": lambda v, p: terms.within(0, v.read("mm.arch", p), 2),
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


IMPLIED = (
    ("it holds no reference of its own", "it holds at most one reference of its own"),
    ("it has pinned no page", "its number of pinned pages is not negative"),
    ("it has pinned no page", "it has pinned at most all pages"),
    ("it has pinned a page", "its number of pinned pages is not negative"),
    ("it has pinned all pages", "it has pinned at most all pages"),
    ("it is in its range", "it is in its range or at the end"),
    ("it is at the end of its range", "it is in its range or at the end"),
)
"""A fact, and one that it says already, which is not told beside it."""


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
    return terms.negate(
        terms.both(held(second, place, page), terms.equal(first.counted(page), first.counted(first.page)))
    )


PAIRS: dict[str, Tried] = {
    HELD: at(*FREEZING), STOPPED: at(REBOOT_RESET), ONE_REBOOT: at(REBOOT_QUIET, REBOOT_RESET),
}  # fmt: skip
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
