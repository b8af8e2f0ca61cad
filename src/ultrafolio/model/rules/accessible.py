"""Making a page, or every page of its folio, accessible to the host.

Mirrors make_folio_accessible() in arch/s390/kernel/uv.c (kernel §3.1). A pin, a writeback and the host's own access
come here and go on at the rule `then`.
"""

from __future__ import annotations

from ultrafolio.model.layout import *
from ultrafolio.model.rule import fn, rule

from .folio import clear_arch, head, put_ref, unlock
from .thread import finished
from .ultravisor import uv_export, uv_pin
from .unpin import is_long, unpin_rest


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
    """Leave make_accessible(), after success or failure."""
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
def pins_then_exports(s):
    """P.accessible = folio-literal: pin every page, then export every page, as posted; not page by page."""
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
      traced="uv_pin_shared",
      kernel="uv_pin_shared (0x0341), v5.7", seed="a page is pinned shared, or, if that fails, exported")  # fmt: skip
def accessible_pin(s, t):
    """Pin the page shared; where that fails, export (in the posted loops: export the whole folio)."""
    k = s.task[t]
    if uv_pin(s, k.i) == UV_OK:
        return page_done(s, t)
    k.failed = k.i + 1
    if pins_then_exports(s):
        k.exporting, k.i = 1, k.start
        next_marked(s, t)
    else:
        k.pc = ACC_EXPORT
    return OK


@rule(ACC_EXPORT, takers="vcpu disk virtio writeback pin interrupt access", call="export", tells_page=True,
      cost="export_call", releases="lock writeback refs", kernel="uv_convert_from_secure (0x0201), v5.7",
      traced="uv_convert_from_secure unpin_user_page folio_end_writeback@E_LATE",
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
