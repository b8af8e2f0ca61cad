"""Host MM, part two: making pages accessible, pins, host accesses, writeback, reclaim, LRU, other mappings.

Mirrors make_folio_accessible() in arch/s390/kernel/uv.c, pin_user_pages() in mm/gup.c and
folio_start_writeback() in mm/page-writeback.c (kernel §3.1, §3.2).
"""

from __future__ import annotations

from .guest import spend
from .host import clear_arch, counted, extra_refs, finished, get_ref, head, put_ref, turn_come, unlock
from .layout import *
from .rule import STRONG, UNFAIR, fn, rule
from .ultravisor import hw_host, uv_export, uv_pin


# ------------------------------------------------------------------------------------ make accessible
@fn
def make_accessible(s, t, p, whole, then):
    """Start making `p` accessible, or every page of its folio (`whole`); go on at rule `then`."""
    k = s.task[t]
    if whole:
        k.start = head(s, p)
        k.end = k.start + (1 << s.mm[p].order)
    else:
        k.start = p
        k.end = p + 1
    k.i, k.exporting, k.failed, k.then, k.pc = k.start, 0, 0, then, ACC_TEST


@fn
def accessible_done(s, t):
    """All is accessible that should be: a pin is granted; go on."""
    k = s.task[t]
    if k.then == PIN_GET:
        s.mm[k.page + k.at - 1].granted += 1
    accessible_over(s, t)


@fn
def accessible_over(s, t):
    """Leave make_accessible(), whatever came of it."""
    k = s.task[t]
    k.pc = k.then
    k.start, k.end, k.i, k.exporting, k.failed, k.then = 0, 0, 0, 0, 0, 0


@fn
def next_marked(s, t):
    """Go to the next page that needs a call; bits per page let the others be skipped."""
    k = s.task[t]
    if s.cfg[0].track != TRACK_FOLIO:
        for p in range(k.i, k.end):
            if s.mm[p].arch:
                break
            k.i = p + 1
    if k.i < k.end:
        k.pc = ACC_EXPORT if k.exporting else ACC_PIN
    elif s.cfg[0].track == TRACK_FOLIO:
        k.pc = ACC_CLEAR
    else:
        accessible_done(s, t)


@fn
def one_loop(s):
    """Whether pins and exports are two loops over the folio, as posted, and not page by page."""
    return s.cfg[0].accessible == ACC_UNIT_LITERAL


@rule(ACC_TEST, takers="vcpu disk virtio writeback pin interrupt access",
      kernel="test_bit(PG_arch_1) in make_folio_accessible, v5.7",
      seed="the arch-bit is used to determine whether further processing (e.g. export) is needed")  # fmt: skip
def accessible_test(s, t):
    """The arch bit is clear: nothing to do, no call. With a bit per page: the bit of the page that was asked for."""
    if is_clear(s, t):
        accessible_done(s, t)
    else:
        next_marked(s, t)
    return OK


@fn
def is_clear(s, t):
    """Whether the bit that is asked for is clear (P.track): the folio's, its summary, or the page's own."""
    k = s.task[t]
    track = s.cfg[0].track
    if track == TRACK_FOLIO:
        return s.mm[head(s, k.start)].arch == 0
    if track == TRACK_BITMAP:
        return s.mm[head(s, k.start)].marked == 0
    if k.then == WB_IO:
        return False
    return s.mm[asked_page(s, t)].arch == 0


@fn
def asked_page(s, t):
    """The page for which the folio is made accessible: the one just pinned, or the one that the host accesses."""
    k = s.task[t]
    return k.page + k.at - 1 if k.then == PIN_GET else k.page


@fn
def page_done(s, t):
    """One page is accessible: clear its bit where bits are per page, and go on."""
    k = s.task[t]
    if s.cfg[0].track != TRACK_FOLIO:
        k.pc = ACC_CLEAR
    else:
        k.i += 1
        next_marked(s, t)
    return OK


@rule(ACC_PIN, takers="vcpu disk virtio writeback pin interrupt access", call="pin", tells_page=True, cost="pin_call",
      kernel="uv_pin_shared (0x0341), v5.7", seed="a page is pinned shared, or, if that fails, exported")  # fmt: skip
def accessible_pin(s, t):
    """Pin the page shared; where that fails, export (in the posted loops: export the whole folio)."""
    k = s.task[t]
    if uv_pin(s, k.i) == UV_OK:
        return page_done(s, t)
    k.failed = k.i + 1
    if one_loop(s):
        k.exporting, k.i = 1, k.start
        next_marked(s, t)
    else:
        k.pc = ACC_EXPORT
    return OK


@rule(ACC_EXPORT, takers="vcpu disk virtio writeback pin interrupt access", call="export", tells_page=True,
      cost="export_call", releases="lock writeback refs", kernel="uv_convert_from_secure (0x0201), v5.7",
      seed="or, if that fails, exported")  # fmt: skip
def accessible_export(s, t):
    """Export the page. A failure leaves the bit set; in writeback it is too late to recover."""
    k = s.task[t]
    if uv_export(s, k.i) == UV_OK:
        return page_done(s, t)
    if k.then == WB_IO:
        accessible_over(s, t)
        unlock(s, k.page)
        return writeback_over(s, t, E_LATE)
    if k.then == PIN_GET and s.cfg[0].gup_skips:
        accessible_done(s, t)
        return OK
    return not_accessible(s, t)


@fn
def not_accessible(s, t):
    """A page could not be made accessible: drop the reference on it, then the others; a host access is refused."""
    k = s.task[t]
    if k.then == PIN_GET:
        k.at -= 1
        put_ref(s, k.page + k.at, is_long(s, t))
        accessible_over(s, t)
        unpin_rest(s, t)
    else:
        accessible_over(s, t)
        k.call = NOTHING
    return E_IO


@rule(ACC_CLEAR, takers="vcpu disk virtio writeback pin interrupt access",
      kernel="clear_bit(PG_arch_1) after the UVC, v5.7",
      seed="sometimes we have small windows where non-secure pages can have the bit set")  # fmt: skip
def accessible_clear(s, t):
    """Clear the bit: of the page just made accessible, or of the folio, all of which is."""
    k = s.task[t]
    if s.cfg[0].track == TRACK_FOLIO:
        clear_arch(s, k.start)
        accessible_done(s, t)
    else:
        clear_arch(s, k.i)
        k.i += 1
        next_marked(s, t)
    return OK


# ---------------------------------------------------------------------------------------------- pins
@fn
def is_long(s, t):
    """Which reference of get_ref() a device takes: 1 a long-term pin, 0 a short one."""
    return 1 if s.who[t].kind == RING or s.who[t].kind == PIN else 0


@rule(PIN_GET, takers="disk virtio pin interrupt", tells_page=True, kernel="try_grab_folio(FOLL_PIN) in mm/gup.c, v5.7",
      seed="pin_user_pages() will cause the pages to be made accessible")  # fmt: skip
def pin_get(s, t):
    """Take the reference on the next page, faulting it in, then make it accessible; or all are pinned."""
    k = s.task[t]
    if k.at == k.n:
        k.pc = IO_START
        if is_long(s, t):
            finished(s, t)
        return DONE
    p = k.page + k.at
    if s.mm[counted(s, p)].frozen:
        return frozen_met(s, t)
    if s.who[t].kind == INTERRUPT and s.cfg[0].interrupt == INTERRUPT_GET:
        k.n = 0
        return plain_get(s, t, p, OK)
    s.pt[p].present = MAPPED
    get_ref(s, p, is_long(s, t))
    unit = s.cfg[0].accessible
    make_accessible(s, t, p, unit != ACC_UNIT_PAGE, PIN_GET)
    k.at += 1
    return OK


@fn
def frozen_met(s, t):
    """A pin meets a frozen count: it waits for the page-table lock; without that (7.0) it fails with a warning."""
    if s.cfg[0].freeze_unlocked:
        unpin_rest(s, t)
        return MISUSE
    return W_FROZEN


@fn
def unpin_rest(s, t):
    """A pin is refused: drop what it has, if anything."""
    s.task[t].pc = UNPIN
    if s.task[t].at == 0:
        device_over(s, t)


@fn
def device_over(s, t):
    """A device holds no page any more."""
    k = s.task[t]
    k.page, k.n, k.pc = 0, 0, DEVICE_IDLE
    finished(s, t)


@rule(UNPIN, takers="disk virtio pin interrupt", tells_page=True, releases="refs",
      kernel="unpin_user_page in mm/gup.c, v5.7",
      seed="the pin stays as long as the corresponding virtio devices are configured")  # fmt: skip
def unpin(s, t):
    """Drop the reference on one page; the ultravisor is not told."""
    k = s.task[t]
    if k.at:
        k.at -= 1
        s.mm[k.page + k.at].granted -= 1
        put_ref(s, k.page + k.at, is_long(s, t))
    if k.at == 0:
        device_over(s, t)
        return DONE
    return OK


# ------------------------------------------------------------------------------------- the host's own accesses
@rule(ACCESS_IDLE, takers="access", fair=UNFAIR, chooses=True, kernel="a load or store of the kernel or the VMM",
      seed="trying to access a page will (try to) make the whole")  # fmt: skip
def access_start(s, t, op, page):
    """The host is about to read (op READ) or write (op WRITE) a page."""
    if not turn_come(s, t) or not spend(s, t):
        return W_IDLE
    s.task[t].page, s.task[t].call, s.task[t].pc = page, op, ACCESS_TRY
    return OK


@rule(ACCESS_TRY, takers="access",
      kernel="do_secure_storage_access: 0x3d, folio_get, arch_make_folio_accessible, v6.12",
      seed="a page is pinned shared, or, if that fails, exported")  # fmt: skip
def access_try(s, t):
    """Access the page, faulting it in; where the hardware refuses, take a reference and make it accessible first."""
    k = s.task[t]
    before = s.pt[k.page].present
    s.pt[k.page].present = MAPPED
    if hw_host(s, k.page) != ALLOWED:
        if s.mm[counted(s, k.page)].frozen:
            s.pt[k.page].present = before
            return W_FROZEN
        get_ref(s, k.page, 2)
        make_accessible(s, t, k.page, s.cfg[0].accessible != ACC_UNIT_PAGE, ACCESS_PUT)
        return FAULT
    if k.call == WRITE:
        s.mm[k.page].altered = 1
    return access_over(s, t, DONE)


@rule(ACCESS_PUT, takers="access", releases="refs", kernel="folio_put in do_secure_storage_access, v6.12")
def access_put(s, t):
    """Drop the reference; repeat the access, or give up where the page could not be made accessible."""
    k = s.task[t]
    put_ref(s, k.page, 2)
    if k.call == NOTHING:
        return access_over(s, t, E_IO)
    k.pc = ACCESS_TRY
    return OK


@fn
def access_over(s, t, outcome):
    k = s.task[t]
    k.page, k.call, k.pc = 0, NOTHING, ACCESS_IDLE
    finished(s, t)
    return outcome


# ----------------------------------------------------------------------------------------- writeback
@rule(WB_IDLE, takers="writeback", tells_page=True, fair=UNFAIR, chooses=True,
      kernel="wb_writeback; wakes up on its own",
      seed="if a folio is in writeback, all of it is going to be written back")  # fmt: skip
def writeback_start(s, t, op, page):
    """Writeback picks the folio of `page`."""
    if not turn_come(s, t) or not spend(s, t):
        return W_IDLE
    k = s.task[t]
    k.page, k.back, k.pc = page, WB_IDLE, WB_LOCK
    return OK


@rule(WB_LOCK, takers="vcpu writeback", sleeps="lock writeback", fair=STRONG,
      kernel="folio_lock, handed over after 5 tries since v5.9; folio_wait_writeback, v5.7")  # fmt: skip
def writeback_lock(s, t):
    """Lock the folio, once an earlier writeback of it is over."""
    h = s.mm[head(s, s.task[t].page)]
    if h.locked:
        return W_LOCK
    if h.writeback != NO_WRITEBACK:
        return W_WRITEBACK
    h.locked = 1
    s.task[t].pc = WB_START
    return OK


@rule(WB_START, takers="vcpu writeback", holds="lock", kernel="folio_clear_dirty_for_io, folio_start_writeback, v5.7",
      seed="so all of it needs to be made accessible")  # fmt: skip
def writeback_flag(s, t):
    """Set the flag, clear dirty and mapped-writable; then every page is made accessible, always."""
    h = s.mm[head(s, s.task[t].page)]
    h.dirty, h.writable, h.writeback = 0, 0, FLAGGED
    make_accessible(s, t, s.task[t].page, True, WB_IO)
    return OK


@rule(WB_IO, takers="vcpu writeback", cost="lock ~writeback", holds="lock writeback", releases="lock",
      kernel="folio_unlock, submit_bio, v5.7", seed="we MUST NOT do any kind of I/O on secure pages")  # fmt: skip
def writeback_io(s, t):
    """Unlock; the I/O on all pages of the folio is in flight."""
    k = s.task[t]
    s.mm[head(s, k.page)].writeback = WRITING
    unlock(s, k.page)
    k.pc = WB_END
    return OK


@rule(WB_END, takers="vcpu writeback", holds="writeback", releases="writeback", kernel="folio_end_writeback, v5.7",
      seed="once the I/O is over, the pages can be accessed again")  # fmt: skip
def writeback_end(s, t):
    """The I/O completes: clear the flag, wake the waiters."""
    if s.who[t].stuck:
        return W_IO
    return writeback_over(s, t, DONE)


@fn
def writeback_over(s, t, outcome):
    """The folio leaves writeback; a background thread is idle again, an import goes on with its split."""
    k = s.task[t]
    s.mm[head(s, k.page)].writeback = NO_WRITEBACK
    k.pc = k.back
    if k.back == WB_IDLE:
        k.page = 0
        finished(s, t)
    k.back = 0
    return outcome


# ------------------------------------------------------------------------------------------- reclaim
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


@fn
def pinned(s, p):
    """Whether any page of the folio of `p` is pinned, as folio_maybe_dma_pinned() asks."""
    h = head(s, p)
    for q in range(h, h + (1 << s.mm[p].order)):
        if s.mm[q].pins or s.mm[q].longs:
            return True
    return False


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
      kernel="uv_convert_from_secure_pte in ptep_clear_flush, v5.7",
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


@rule(RECLAIM_FREE, takers="reclaim", holds="lock", releases="lock",
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


# ------------------------------------------------------------------------- LRU and other references
@rule(LRU_IDLE, takers="lru", tells_page=True, fair=UNFAIR, chooses=True,
      kernel="folio_add_lru: a batch of this CPU holds a reference")  # fmt: skip
def lru_add(s, t, op, page):
    """A page enters the LRU batch of the actor's CPU, where it stays, referenced, until drained."""
    m = s.mm[page]
    if m.batch or s.mm[counted(s, page)].frozen or not turn_come(s, t) or not spend(s, t):
        return W_IDLE
    m.batch = s.who[t].cpu + 1
    s.mm[head(s, page)].refs += 1
    finished(s, t)
    return OK


@rule(MAPPING_IDLE, takers="mapping", tells_page=True, fair=UNFAIR, chooses=True,
      kernel="folio_get by zap, fork or rmap of another mapping")  # fmt: skip
def mapping_get(s, t, op, page):
    """The other mapping of a twice-mapped folio takes its count; a plain get does not look whether it is frozen."""
    if not turn_come(s, t) or not spend(s, t):
        return W_IDLE
    return plain_get(s, t, page, MISUSE if s.mm[counted(s, page)].frozen else OK)


@rule(SPECULATIVE_IDLE, takers="speculative", tells_page=True, fair=UNFAIR, chooses=True,
      kernel="folio_try_get by a pfn walker")  # fmt: skip
def speculative_get(s, t, op, page):
    """A pfn walker tries a reference; a frozen folio refuses it."""
    if s.mm[counted(s, page)].frozen:
        return W_FROZEN
    if not turn_come(s, t) or not spend(s, t):
        return W_IDLE
    return plain_get(s, t, page, OK)


@fn
def plain_get(s, t, page, outcome):
    get_ref(s, page, 2)
    s.task[t].page, s.task[t].pc = page, PUT
    return outcome


@rule(PUT, takers="mapping speculative interrupt", releases="refs", kernel="folio_put")
def plain_put(s, t):
    """Drop the plain reference."""
    k = s.task[t]
    put_ref(s, k.page, 2)
    k.page = 0
    if s.who[t].kind == INTERRUPT:
        k.pc = DEVICE_IDLE
    else:
        k.pc = MAPPING_IDLE if s.who[t].kind == MAPPING else SPECULATIVE_IDLE
    finished(s, t)
    return DONE
