"""Writeback of a folio. Mirrors folio_start_writeback() in mm/page-writeback.c (kernel §3.2)."""

from __future__ import annotations

from ultrafolio.model.layout import *
from ultrafolio.model.rule import STRONG, UNFAIR, rule

from .accessible import make_accessible, writeback_over
from .folio import head, unlock
from .thread import spend, turn_come


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


@rule(WB_LOCK, takers="vcpu writeback", sleeps="lock writeback", fair=STRONG, traced="folio_wait_writeback@W_WRITEBACK",
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


@rule(WB_START, takers="vcpu writeback", holds="lock", traced="folio_start_writeback",
      kernel="folio_clear_dirty_for_io, folio_start_writeback, v5.7",
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


@rule(WB_END, takers="vcpu writeback", holds="writeback", releases="writeback", traced="folio_end_writeback",
      kernel="folio_end_writeback, v5.7", seed="once the I/O is over, the pages can be accessed again")  # fmt: skip
def writeback_end(s, t):
    """The I/O completes: clear the flag, wake the waiters."""
    if s.who[t].stuck:
        return W_IO
    return writeback_over(s, t, DONE)
