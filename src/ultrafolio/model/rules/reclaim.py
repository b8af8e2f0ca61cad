"""Reclaim of a page to swap. Mirrors shrink_folio_list() in mm/vmscan.c (kernel §3.2)."""

from __future__ import annotations

from ultrafolio.model.layout import *
from ultrafolio.model.rule import UNFAIR, fn, rule

from .folio import clear_arch, extra_refs, head, pinned, unlock
from .thread import finished, spend, turn_come
from .ultravisor import uv_export


@rule(RECLAIM_IDLE, takers="reclaim", tells_page=True, fair=UNFAIR, chooses=True,
      kernel="shrink_folio_list, v5.7")  # fmt: skip
def reclaim_start(s, t, op, page):
    """Reclaim picks a page."""
    if not turn_come(s, t) or not spend(s, t):
        return W_IDLE
    s.task[t].page, s.task[t].pc = page, RECLAIM_LOCK
    return OK


@fn
def reclaim_over(s, t, outcome):
    """Reclaim is done with its page."""
    k = s.task[t]
    k.page, k.start, k.i, k.end, k.pc = 0, 0, 0, 0, RECLAIM_IDLE
    finished(s, t)
    return outcome


@rule(RECLAIM_LOCK, takers="reclaim",
      kernel="folio_trylock, folio_maybe_dma_pinned in shrink_folio_list, v6.12")  # fmt: skip
def reclaim_lock(s, t):
    """Try the folio lock; a folio that is locked or in writeback, or a page not mapped, is passed over.

    So is an anon folio with a pin on any of its pages; of other folios this is asked only after the unmap.
    """
    k = s.task[t]
    h = s.mm[head(s, k.page)]
    if h.locked or h.writeback != NO_WRITEBACK or s.pt[k.page].present != MAPPED:
        return reclaim_over(s, t, E_LOCKED)
    if h.backing == ANON and pinned(s, k.page):
        return reclaim_over(s, t, E_LOCKED)
    h.locked = 1
    k.pc = RECLAIM_UNMAP
    return OK


@rule(RECLAIM_UNMAP, takers="reclaim", holds="lock", kernel="ptep_clear_flush in try_to_unmap_one, v5.7")
def reclaim_unmap(s, t):
    """Unmap the page; the unmap itself exports it next, or its whole folio (P.unmap)."""
    k = s.task[t]
    s.pt[k.page].present = UNMAPPED
    k.start, k.end = k.page, k.page + 1
    if s.cfg[0].unmap == UNMAP_FOLIO:
        k.start = head(s, k.page)
        k.end = k.start + (1 << s.mm[k.page].order)
    k.i = k.start
    k.pc = RECLAIM_EXPORT
    return OK


@rule(RECLAIM_EXPORT, takers="reclaim", call="export", cost="export_call", holds="lock", releases="lock",
      traced="uv_convert_from_secure", kernel="uv_convert_from_secure_pte in ptep_clear_flush, v5.7",
      seed="page with guest content, encrypted and integrity protected")  # fmt: skip
def reclaim_export(s, t):
    """Export, unless it was mapped again; a failure cannot be returned from here, the page is given up and stays.

    An anon page that was pinned since it was tested is mapped again, exported as it is.
    """
    k = s.task[t]
    if s.pt[k.page].present != UNMAPPED:
        unlock(s, k.page)
        return reclaim_over(s, t, E_REFS)
    if uv_export(s, k.i) != UV_OK:
        unlock(s, k.page)
        return reclaim_over(s, t, E_LATE)
    if s.cfg[0].track != TRACK_FOLIO or s.mm[k.page].order == 0:
        clear_arch(s, k.i)
    k.i += 1
    if k.i < k.end:
        return OK
    if s.mm[head(s, k.page)].backing == ANON and pinned(s, k.page):
        s.pt[k.page].present = MAPPED
        unlock(s, k.page)
        return reclaim_over(s, t, E_REFS)
    k.start, k.i, k.end, k.pc = 0, 0, 0, RECLAIM_SWAP
    return OK


@rule(RECLAIM_SWAP, takers="reclaim", cost="lock swap_write@OK", holds="lock", releases="lock",
      kernel="pageout in mm/vmscan.c, v5.7")  # fmt: skip
def reclaim_swap(s, t):
    """Write to swap, unless the page has extra references or was mapped again."""
    k = s.task[t]
    if extra_refs(s, k.page) or s.pt[k.page].present != UNMAPPED:
        unlock(s, k.page)
        return reclaim_over(s, t, E_REFS)
    s.io[k.page].flying += 1
    k.pc = RECLAIM_FREE
    return OK


@rule(RECLAIM_FREE, takers="reclaim", holds="lock", releases="lock", traced="?page_ref_freeze ?!page_ref_freeze",
      kernel="__remove_mapping in mm/vmscan.c, v5.7")  # fmt: skip
def reclaim_free(s, t):
    """The write to swap completes: free the page, unless it was mapped again or referenced meanwhile."""
    k = s.task[t]
    s.io[k.page].flying -= 1
    if s.pt[k.page].present == UNMAPPED and not extra_refs(s, k.page):
        s.pt[k.page].present = SWAPPED
        if s.cfg[0].drops_unused:
            s.mm[k.page].altered = 1
    unlock(s, k.page)
    return reclaim_over(s, t, DONE)
