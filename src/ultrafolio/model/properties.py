"""The "always" properties of model.md §5.1, as functions of one step, and what a step looks at.

They may look at everything. A step changes little, so each property is decided from the state after the step,
the rule that ran, its outcome, the page it was about, and that page's state before.
"""

from __future__ import annotations

from ultrafolio.model.rules.folio import bit_page, counted, head

from .layout import *
from .rule import fn

PROPERTIES = (
    "",
    "no I/O in flight on a SECURE page",
    "the arch bit is set whenever a page it covers is SECURE",
    "a page that is shared throughout an accessible() is not exported by it",
    "no page becomes SECURE while its folio is in writeback, or while a pin granted on it is held",
    "nobody takes a reference on, or changes the count of, a frozen folio",
    "an import yields exactly the content of the last export",
    "a page is accessible to no guest but its owner",
    "writeback never fails to make its folio accessible",
    "success is reported only for a page that is SECURE or shared then",
    "no page is exported while a pin is granted on it or I/O is in flight on it",
    "a device never gets the cipher text of a page that its guest shares",
)
SEED = (
    "",
    "we MUST NOT do any kind of I/O on secure pages",
    "the bit MUST be set whenever a page is secure",
    "a page is pinned shared, or, if that fails, exported",
    "when a page transitions from non-secure to secure, we must make sure that no I/O is possibly happening on it",
    "make sure the page does not have any extra references except for the mapping itself",
    "page with guest content, encrypted and integrity protected",
    "page belonging to a secure guest, accessible by the guest, not accessible by the host",
    "when it comes time to do writeback and it's too late",
    "",
    "the host can force a page to stay shared",
    "virtio requires individual guest pages to be shared with the host",
)


@fn
def focus(s, t, page):
    """The page that the next step of `t` is about; `page` is the choice, for rules that choose."""
    k = s.task[t]
    if k.pc == IDLE_PC[s.who[t].kind]:
        return page
    if k.pc == AGAIN:
        return s.actor[t].page
    if k.pc in (ACC_PIN, ACC_EXPORT, ACC_CLEAR, RECLAIM_EXPORT):
        return k.i if k.i < k.end else k.start
    if k.pc == PIN_GET and k.at < k.n:
        return k.page + k.at
    if k.pc == UNPIN and k.at > 0:
        return k.page + k.at - 1
    return k.page


@fn
def io_on_secure(s, p):
    """Whether page `p` is SECURE with I/O in flight."""
    return s.uv[p].state == SECURE and in_flight(s, p)


@fn
def in_flight(s, p):
    """Whether I/O is in flight on page `p`: direct I/O, swap, or its folio's writeback."""
    return s.io[p].flying > 0 or s.mm[head(s, p)].writeback == WRITING


@fn
def bit_missing(s, p):
    """Whether page `p` is SECURE and the arch bit that covers it is clear."""
    return s.uv[p].state == SECURE and not s.mm[bit_page(s, p)].arch


@fn
def broken(s, t, pc, p, was, outcome):
    """The number of a property that a step broke, or 0; the one about the step itself before those it implies.

    t: the actor that stepped; pc: the rule that ran; p: focus() and `was`: uv state of p, both from before the
    step; outcome: what the rule returned.
    """
    now = s.uv[p].state
    if pc == IMPORT_CALL and now == SECURE and was != SECURE:
        m = s.mm[p]
        if m.pins or m.longs or s.mm[head(s, p)].writeback != NO_WRITEBACK:
            return 4
    if io_on_secure(s, p):
        return 1
    if bit_missing(s, p):
        return 2
    if pc in (IO_START, WB_IO, ACC_CLEAR, REBOOT_RESET):
        wrong = over_range(s, t, pc)
        if wrong:
            return wrong
    if pc == ACC_EXPORT and now == EXPORTED and s.task[t].failed != p + 1 and was in (SHARED, PINNED_SHARED):
        return 3
    exports = pc in (ACC_EXPORT, RECLAIM_EXPORT, IMPORT_EXPORT) and now == EXPORTED and was != EXPORTED
    if exports and (s.mm[p].granted > 0 or in_flight(s, p)):
        return 10
    if pc in (PIN_GET, UNPIN, LRU_IDLE, MAPPING_IDLE, SPECULATIVE_IDLE, PUT) and s.mm[counted(s, p)].frozen:
        return 5
    if s.uv[p].altered and now != EXPORTED:
        return 6
    if outcome == DONE and pc in (RUN, AGAIN) and s.uv[p].owner != s.who[t].vm:
        return 7
    if outcome == E_LATE and pc == ACC_EXPORT:
        return 8
    if outcome == SUCCESS and now in (NON_SECURE, EXPORTED):
        return 9
    return 0


@fn
def over_range(s, t, pc):
    """Properties 1 and 2 over every page that a step touches at once, and 11 where a device begins to use pages."""
    k = s.task[t]
    if pc == IO_START:
        first, end = k.page, k.page + k.n
    elif pc == WB_IO:
        first = head(s, k.page)
        end = first + (1 << s.mm[k.page].order)
    elif pc == REBOOT_RESET:
        first, end = 0, s.cfg[0].pages
    else:
        first, end = k.start, k.end
    for p in range(first, end):
        if io_on_secure(s, p):
            return 1
        if bit_missing(s, p):
            return 2
        if pc == IO_START and s.uv[p].state == EXPORTED and s.uv[p].shared:
            return 11
    return 0


def everywhere(s: State) -> int:
    """Properties 1 and 2 over all pages: what the step-wise form implies, for tests. 0 when both hold."""
    for p in range(len(s.mm)):
        if io_on_secure(s, p):
            return 1
        if bit_missing(s, p):
            return 2
    return 0
