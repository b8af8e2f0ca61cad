"""Who waits, for what, held by whom, and which step would release it: the wait-for graph of one state, in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ultrafolio.engine.load import interpreted
from ultrafolio.model.layout import *

LOCK_HELD = (IMPORT_WRITEBACK, IMPORT_FREEZE, IMPORT_ARCH, IMPORT_EXPORT, IMPORT_CALL, IMPORT_END, SPLIT, WB_START,
             ACC_TEST, ACC_PIN, ACC_EXPORT, ACC_CLEAR, WB_IO, RECLAIM_UNMAP, RECLAIM_EXPORT, RECLAIM_SWAP,
             RECLAIM_FREE)  # fmt: skip
"""Rules at which a thread has the folio lock (at the ACC_ rules: if it is writing back)."""
EVER = "which comes only with the guest's reboot or shutdown"


@dataclass(frozen=True, slots=True)
class Wait:
    """waiter, waits_for, held_by, released_by: one line each; expected: the wait of MODEL section 6.8."""

    waiter: str
    waits_for: str
    held_by: str
    released_by: str
    expected: bool = False

    def line(self) -> str:
        return f"{self.waiter} waits for {self.waits_for}; held by {self.held_by}; released by {self.released_by}"


def name(state: Any, t: int) -> str:
    return f"{ACTOR_KINDS[state.who[t].kind]} {t}"


def explain(state: Any, t: int, outcome: int, whole: bool) -> Wait:
    """The wait of actor `t`, that met `outcome` (E_ or W_) in `state` (as lists).

    whole: the obstacle is counted over the whole folio whatever P.refs says, as a split does.
    """
    page = state.task[t].page or state.actor[t].page
    waiter = f"{name(state, t)} ({_wish(state, t)} page {page})"
    if state.task[t].pc == DEAD or outcome == E_FATAL:
        return Wait(waiter, "nothing any more: its VMM was told -EINVAL", "the refused import", "a new start")
    if outcome in (E_REFS, W_REFS):
        return _references(state, t, waiter, page, whole)
    if outcome == E_DIRTY:
        return Wait(waiter, f"the dirty folio of page {page} to become splittable", "the write fault that dirtied it",
                    "a writeback with no write fault before the next split")  # fmt: skip
    if outcome in (E_WRITEBACK, W_WRITEBACK):
        holder = _at(state, (WB_END, WB_IO, WB_START), t, "the writeback's I/O")
        return Wait(waiter, "the end of the folio's writeback", holder, f"writeback-end of {holder}")
    if outcome == W_MUTEX:
        owner = name(state, int(state.vm[state.who[t].vm].mutex) - 1)
        return Wait(waiter, "the VM's import mutex", owner, f"the end of {owner}'s import, which hands the mutex over")
    if outcome in (E_LOCKED, W_LOCK):
        holder = _at(state, LOCK_HELD, t, "a thread that holds it now and then")
        over = ", which hands it over to those that sleep for it" if outcome == W_LOCK else ""
        return Wait(waiter, "the folio lock", holder, f"the unlock by {holder}{over}")
    if outcome == E_NXIO:
        return Wait(waiter, f"page {page} to stay mapped writable", "writeback, which write-protects its folio again",
                    "an end of the writebacks")  # fmt: skip
    if outcome == W_STOPPED:
        return Wait(waiter, "the virtual machine to run", "its VMM", "the end of the reboot")
    return Wait(waiter, WAITS[-outcome] if outcome < 0 else OUTCOMES[outcome], "nobody", "its own next step")


def _wish(state: Any, t: int) -> str:
    kind = state.who[t].kind
    if kind == VCPU and state.actor[t].op:
        return OPS[state.actor[t].op]
    return {DISK: "I/O on", RING: "ring"}.get(kind, "folio of")


def _at(state: Any, rules: tuple[int, ...], waiter: int, otherwise: str) -> str:
    """The first thread but the waiter that stands at one of the rules."""
    there = [name(state, t) for t in range(len(state.task)) if state.task[t].pc in rules and t != waiter]
    return there[0] if there else otherwise


def _references(state: Any, t: int, waiter: str, page: int, whole: bool) -> Wait:
    run = interpreted()
    whole = whole or state.cfg[0].refs == REFS_FOLIO
    first = run.head(state, page) if whole else page
    end = first + (1 << state.mm[page].order) if whole else page + 1
    holders, release, expected = [], [], False
    for q in range(first, end):
        where = f"page {q}" + ("" if q == page else ", another page of the folio")
        for other in range(len(state.task)):
            k, kind = state.task[other], state.who[other].kind
            holds = k.page <= q < k.page + k.at
            if kind == RING and holds and state.mm[q].longs:
                holders.append(f"{name(state, other)}'s long-term pin on {where}")
                release.append(f"ring-teardown of {name(state, other)}, {EVER}")
                expected = expected or (q == page and state.actor[t].op == UNSHARE)
            elif kind == DISK and holds and state.mm[q].pins:
                holders.append(f"{name(state, other)}'s pin for direct I/O on {where}")
                release.append(f"io-end and unpin of {name(state, other)}")
            elif kind in (MAPPING, SPECULATIVE) and k.pc == PUT and k.page == q:
                holders.append(f"{name(state, other)}'s reference on {where}")
                release.append(f"plain-put of {name(state, other)}")
        if state.mm[q].batch:
            holders.append(f"the LRU batch of CPU {state.mm[q].batch - 1}, which holds {where}")
            drains = state.cfg[0].drain != DRAIN_NONE
            release.append("drain-all" if drains else "a drain, which this policy does not do")
    what = f"the extra references of {'the folio of ' if whole else ''}page {page}"
    if not holders:
        return Wait(waiter, what, "references that are gone by now", "its own next try")
    return Wait(waiter, what, "; ".join(holders), "; ".join(dict.fromkeys(release)), expected)
