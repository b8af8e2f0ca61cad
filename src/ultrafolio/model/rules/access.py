"""The host's own accesses. Mirrors do_secure_storage_access() in arch/s390/mm/fault.c (kernel §3.1)."""

from __future__ import annotations

from ultrafolio.model.layout import *
from ultrafolio.model.rule import UNFAIR, fn, rule

from .accessible import make_accessible
from .folio import counted, get_ref, put_ref
from .thread import finished, spend, turn_come
from .ultravisor import hw_host


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
