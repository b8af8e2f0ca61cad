"""A device's pins on its pages. Mirrors pin_user_pages() in mm/gup.c (kernel §3.2)."""

from __future__ import annotations

from ultrafolio.model.layout import *
from ultrafolio.model.rule import fn, rule

from .accessible import make_accessible
from .folio import counted, get_ref
from .references import plain_get
from .thread import finished
from .unpin import is_long, unpin_rest


@fn
def take_pin(s, t, page, n):
    """A device asks for pin_user_pages() on `n` pages from `page`."""
    k = s.task[t]
    k.page, k.n, k.at, k.pc = page, n, 0, PIN_GET
    return OK


@rule(PIN_GET, takers="disk virtio pin interrupt", tells_page=True, traced="try_grab_folio",
      kernel="try_grab_folio(FOLL_PIN) in mm/gup.c, v5.7",
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
