"""The split of a large folio to pages, before the import of one of them.

Mirrors s390_wiggle_split_folio() (v6.14) and the split in gmap_make_secure() (v6.10) as kernel §3.3 reads them.
"""

from __future__ import annotations

from ultrafolio.model.layout import *
from ultrafolio.model.rule import STRONG, fn, rule

from .folio import head
from .imports import busy, leave, let_go, report_success, too_many_refs


@rule(SPLIT_LOCK, takers="vcpu", sleeps="lock", fair=STRONG,
      kernel="folio_lock before split_folio, v6.10; handed over after 5 tries since v5.9",
      seed="there is no way to simply split a folio")  # fmt: skip
def split_lock(s, t):
    """Lock the large folio; it may have been split meanwhile."""
    k = s.task[t]
    if s.mm[k.page].order == 0:
        again(s, t)
        return OK
    h = s.mm[head(s, k.page)]
    if h.locked:
        return W_LOCK
    h.locked = 1
    k.pc = SPLIT
    return OK


@fn
def again(s, t):
    """Try once more in the same call; 6.10 to 6.13 hold no reference over this."""
    if s.cfg[0].import_ref == REF_WAITING:
        let_go(s, t)
    s.task[t].pc = IMPORT_MAP


@rule(SPLIT, takers="vcpu", cost="lock split_fixed@DONE,SUCCESS", holds="lock", releases="lock mutex refs",
      traced="split_folio@DONE,SUCCESS !split_folio@OK,E_DIRTY,E_REFS ?!split_folio@E_WRITEBACK",
      kernel="split_folio: -EAGAIN extra references, -EBUSY dirty iomap; wiggle_split, v6.14",
      seed="and no way to split folios, so there is no solution to this")  # fmt: skip
def split(s, t):
    """Split to order 0, unless it is in writeback, is dirty iomap, or has extra references on any page."""
    k = s.task[t]
    h = head(s, k.page)
    m = s.mm[h]
    m.locked = 0
    if m.writeback != NO_WRITEBACK:
        if s.cfg[0].import_ref == REF_WAITING:
            return busy(s, t, E_WRITEBACK)
        k.pc = WAIT_WRITEBACK
        return E_WRITEBACK
    if m.dirty and m.backing == IOMAP:
        if k.splits >= s.cfg[0].split_writeback:
            return busy(s, t, E_DIRTY)
        k.splits += 1
        k.back, k.pc = SPLIT_LOCK, WB_LOCK
        return OK
    if m.refs > k.ref:
        if s.cfg[0].import_ref == REF_WAITING:
            let_go(s, t)
        return too_many_refs(s, t)
    into_pages(s, h)
    if s.cfg[0].after_split == SPLIT_AGAIN:
        again(s, t)
        return DONE
    if s.cfg[0].after_split == SPLIT_FALSE_SUCCESS:
        return report_success(s, t)
    leave(s, t)
    return DONE


@fn
def into_pages(s, h):
    """The folio at `h` becomes folios of order 0, each with the flags of the whole and its own references."""
    m = s.mm[h]
    order, dirty, writable, arch = m.order, m.dirty, m.writable, m.arch
    for p in range(h, h + (1 << order)):
        q = s.mm[p]
        q.order, q.dirty, q.writable = 0, dirty, writable
        if s.cfg[0].track == TRACK_FOLIO:
            q.arch = arch
        q.marked = q.arch
        q.refs = q.pins + q.longs + q.spec + (1 if q.batch else 0)
