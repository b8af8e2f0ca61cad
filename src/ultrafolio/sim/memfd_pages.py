"""What steps of guest_memfd do to pages, in time and memory: entries cleared, calls of the machine, pages zeroed,
folios split and merged, TLB misses, content lost, frames that are there twice.

The rules say what a step does; here it is counted from the state before and after it, and has its price (costs.MEMFD).
"""

from __future__ import annotations

from collections.abc import Sequence

from ultrafolio.model.guest_memfd.blocks import block_after, block_of
from ultrafolio.model.guest_memfd.layout import *
from ultrafolio.model.rule import fn
from ultrafolio.sim.memfd_records import *

BY_PAGE: Sequence[bool] = ()  # bound by the loader: machines.facts()


@fn
def extend(s, a, low, high):
    """The step is about [low, high): where KVM or the hardware has one entry for a huge page at an end, about all of
    it."""
    a.low, a.high = low, high
    if high > low and s.cfg[0].block:
        if s.pt[low].large or s.mm[low].order:
            a.low = block_of(s, low)
        if s.pt[high - 1].large or s.mm[high - 1].order:
            a.high = block_after(s, high - 1)


@fn
def scope(s, a, t):
    """Note the pages that the step of actor `t` is about: [a.low, a.high); and those that its request has changed or
    may change: [a.first, a.end)."""
    k = s.task[t]
    if k.pc in (FAULT_LOOKUP, FAULT_MAP, FRESH_SPLIT):
        extend(s, a, k.page + k.at, k.page + k.at + 1)
        return
    extend(s, a, k.start, k.end)
    if k.pc == CONVERT_LOCK:
        a.first, a.end = k.page, k.page + k.n
    elif k.pc == HOLE_LOCK:
        a.first, a.end = 0, s.cfg[0].pages
    elif k.pc == CONVERT_ZAP:
        a.first, a.end = min(a.first, a.low), max(a.end, a.high)


@fn
def outside(s, a, t):
    """Returns how many pages beside those of the piece under way have lost their content."""
    k = s.task[t]
    found = 0
    for p in range(a.low, a.high):
        found += s.uv[p].lost and not k.start <= p < k.end
    return found


@fn
def of_machine(s, a):
    """Returns how many of the pages are the machine's."""
    found = 0
    for p in range(a.low, a.high):
        found += s.uv[p].state != HW_HOST
    return found


@fn
def entries(s, a):
    """Returns how many entries KVM's table has for the pages: one for a huge page that it maps whole."""
    found, one = 0, 0
    for p in range(a.low, a.high):
        if s.pt[p].large:
            one += 1
        else:
            found += s.pt[p].present != UNMAPPED
    return found + (one >> s.cfg[0].block)


@fn
def whole_folios(s, a):
    """Returns how many huge pages of the range have a folio of their own."""
    found = 0
    for p in range(block_of(s, a.low), a.high, 1 << s.cfg[0].block):
        found += s.mm[p].order > 0
    return found


@fn
def note(s, w, t):
    """Note, before a step of actor `t`, what it may change of its pages."""
    a, k = w.wait[t], s.task[t]
    scope(s, a, t)
    a.noted, a.calls, a.beside = 0, 0, 0
    if k.pc == FAULT_LOOKUP:
        a.noted = 0 if s.mm[k.page].allocated else block_after(s, k.page) - block_of(s, k.page)
    elif k.pc == CONVERT_UNMAP:
        for p in range(k.start, k.end):
            a.noted += s.mm[p].users > 0
    elif k.pc == CONVERT_ZAP:
        a.noted, a.beside = entries(s, a), outside(s, a, t)
    elif k.pc == CONVERT_RESTRUCTURE or k.pc == FRESH_SPLIT:
        a.noted = whole_folios(s, a)
    if MAY_CALL[k.pc]:
        a.calls, a.wide = of_machine(s, a), (s.mm[a.low].order > 0) + 2 * (s.pt[a.low].large > 0)


@fn
def machine_ns(s, w, t):
    """Count the calls of the machine in a step, and return their time: a call for each page that came or went, or one
    for an entry of a huge page."""
    a = w.wait[t]
    moved = abs(of_machine(s, a) - a.calls)
    calls = moved
    if a.wide and not BY_PAGE[s.cfg[0].machine]:
        # a huge page comes or goes by one call; a part of it goes after a call that splits its entry
        calls = moved >> s.cfg[0].block if moved == a.high - a.low else moved + (moved > 0 and a.wide > 1)
    w.metric[0].machine_calls += calls
    w.metric[0].machine_ns += calls * w.price[PRICE_CALL]
    return calls * w.price[PRICE_CALL]


@fn
def pages_ns(s, w, t, pc, outcome):
    """Count what a step that was taken did to pages, and return what that costs in ns beside the step itself."""
    a, m = w.wait[t], w.metric[0]
    ns = 0
    if pc == FAULT_LOOKUP:
        ns += a.noted * w.price[PRICE_ZERO]
    elif pc == CONVERT_UNMAP:
        ns += a.noted * w.price[PRICE_ZAP]
    elif pc == CONVERT_ZAP:
        gone = a.noted - entries(s, a)
        m.pages_lost += outside(s, a, t) - a.beside
        if gone > 0:
            m.flushes += 1
            ns += gone * w.price[PRICE_ZAP] + w.price[PRICE_FLUSH]
    elif (pc == CONVERT_RESTRUCTURE or pc == FRESH_SPLIT) and outcome == OK:
        ns += restructured(s, w, a)
    if MAY_CALL[pc]:
        ns += machine_ns(s, w, t)
    if pc == FAULT_MAP and outcome == OK:
        for p in range(a.low, a.high):
            if s.pt[p].present != UNMAPPED:
                own_frame(s, w, p, 1 if s.pt[p].present == MAPPED_PRIVATE else 2)
    return ns


@fn
def restructured(s, w, a):
    """Count the folios that a step split or merged; return its ns."""
    m = w.metric[0]
    change = whole_folios(s, a) - a.noted
    if change > 0:
        m.merges += change
    else:
        m.splits -= change
    apart = m.splits - m.merges
    m.extra_bytes = max(m.extra_bytes, apart * max(0, (DESCRIPTOR << s.cfg[0].block) - PAGE_SIZE))
    ns = abs(change) * (w.price[PRICE_FOLIO] + (w.price[PRICE_FOLIO_PAGE] << s.cfg[0].block))
    m.restructure_ns += ns
    return ns


@fn
def own_frame(s, w, p, kind):
    """Page `p` has a frame as private (1) or as shared (2): under two backings each kind has its own, and nobody frees
    the other."""
    if s.cfg[0].convert == TWO_BACKINGS and not w.collateral[p] & kind:
        w.collateral[p] |= kind
        if w.collateral[p] == 3:
            w.metric[0].extra_bytes += PAGE_SIZE


@fn
def translate(s, w, t, p):
    """A touch of page `p` by vCPU `t`: returns the ns of a TLB miss, 0 for a hit. A TLB has one place for a number, and
    is empty after a flush."""
    size = w.price[PRICE_TLB]
    if size == 0:
        return 0
    large = s.pt[p].large > 0
    entry = block_of(s, p) if large else p
    number = p >> s.cfg[0].block if large else p
    at = t * size + number % size
    tag = (w.metric[0].flushes + 1) << 32 | entry << 1 | large
    if w.tlb[at] == tag:
        return 0
    w.tlb[at] = tag
    w.metric[0].tlb_misses += 1
    return w.price[PRICE_WALK]
