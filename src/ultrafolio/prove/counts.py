"""Counts: a number on a page is the sum of what threads have of it, one on a folio the sum over its pages.

Each is a lemma, proved with the facts and dropped with them where a step does not keep it. What a thread has comes
from waits/rules.py (holds, holds_plain) and from the rules' own is_long().
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ultrafolio.model.layout import *
from ultrafolio.waits.tables import OB_FROZEN, OB_LOCK, OB_WRITEBACK

from . import terms
from .facts import View
from .oracle import Oracle
from .paths import Place
from .reader import Reader
from .rules import Rules
from .state import Symbolic
from .terms import Value
from .values import Thread

Share = Callable[[Rules, View, Place, Value], Value]


@dataclass(frozen=True, slots=True)
class Count:
    """What is counted: its value on a page, a thread's share of it; exact: the shares add up to the value."""

    name: str
    value: Callable[[View, Value], Value]
    share: Share
    exact: bool = True


def _asked(rules: Rules, v: View, place: Place, function: str, *arguments: int) -> Value:
    """What a function of the rules says of the thread, as a truth value."""
    key = (function, arguments, place, tuple(v.cfg.items()), v.own.thread, v.mine("task.ref"))
    if key not in rules.asked:
        rules.asked[key] = _told(rules, v, place, function, *arguments)
    found: Value = rules.asked[key]
    return found


def _told(rules: Rules, v: View, place: Place, function: str, *arguments: int) -> Value:
    reader = Reader(rules, v.cfg, {"kind": place.kind}, v.own, Oracle([]))
    if not reader.is_pure(function):
        raise ValueError(f"{function} writes")
    return terms.truth(reader.called(function, [Thread(v.own.thread), *arguments]))


def _pinned(rules: Rules, v: View, place: Place, page: Value, long: bool) -> Value:
    mine = _asked(rules, v, place, "is_long")
    within = terms.within(v.page, page, terms.plus(v.page, v.task("at")))
    return terms.both(mine if long else terms.negate(mine), within)


def _held(what: int) -> Share:
    """What a thread holds of the folio of its page."""
    return lambda rules, v, place, page: terms.both(
        _asked(rules, v, place, "holds", what), terms.equal(v.world.head(v.page), page)
    )


def _frozen(rules: Rules, v: View, place: Place, page: Value) -> Value:
    return terms.both(_asked(rules, v, place, "holds", OB_FROZEN), terms.equal(v.counted(v.page), page))


def _plain(rules: Rules, v: View, place: Place, page: Value) -> Value:
    return terms.both(_asked(rules, v, place, "holds_plain"), terms.equal(v.page, page))


def _flying(rules: Rules, v: View, place: Place, page: Value) -> Value:
    if place.pc == IO_END:
        first = v.mine("actor.page")
        return terms.within(first, page, terms.plus(first, v.mine("actor.n")))
    return terms.both(place.pc == RECLAIM_FREE, terms.equal(v.page, page))


def _field(name: str) -> Callable[[View, Value], Value]:
    return lambda v, page: v.read(name, page)


COUNTS = (
    Count("short pins", _field("mm.pins"), lambda r, v, at, p: _pinned(r, v, at, p, False)),
    Count("long pins", _field("mm.longs"), lambda r, v, at, p: _pinned(r, v, at, p, True)),
    Count("plain references", _field("mm.spec"), _plain, exact=False),
    Count("the folio lock", _field("mm.locked"), _held(OB_LOCK)),
    Count("writeback", lambda v, p: terms.ite(terms.equal(v.read("mm.writeback", p), NO_WRITEBACK), 0, 1),
          _held(OB_WRITEBACK)),
    Count("frozen counts", _field("mm.frozen"), _frozen),
    Count("I/O in flight", _field("io.flying"), _flying),
)  # fmt: skip
BY_NAME = {count.name: count for count in COUNTS}


@dataclass(frozen=True, slots=True)
class Sum:
    """A number on the first page of a folio that is the sum of numbers on its pages."""

    name: str
    total: str
    fields: tuple[str, ...]
    of_page: Callable[[View, Value], Value]
    needed: Callable[[dict[str, int]], bool] = lambda cfg: True
    head: Callable[[View, Value], Value] = lambda view, page: view.world.head(page)
    kept: Callable[[Sum, Symbolic, dict[str, int], Value], Value] | None = None
    """That a step keeps the sum; None: window.sum_kept."""


def _references(v: View, page: Value) -> Value:
    total: Value = terms.ite(terms.truth(v.read("mm.batch", page)), 1, 0)
    for field in ("mm.pins", "mm.longs", "mm.spec"):
        total = terms.plus(total, v.read(field, page))
    return total


SUMS = (
    Sum("the references of a folio are those of its pages", "mm.refs",
        ("mm.pins", "mm.longs", "mm.spec", "mm.batch"), _references),
    Sum("the marked pages of a folio are those whose bit is set", "mm.marked", ("mm.arch",), _field("mm.arch"),
        lambda cfg: cfg["track"] == TRACK_BITMAP),
)  # fmt: skip
