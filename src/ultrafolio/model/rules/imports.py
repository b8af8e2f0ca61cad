"""The import of a page that a guest touched, and the unshare that unpins it.

Mirrors arch/s390/kernel/uv.c make_folio_secure() (v6.10) and arch/s390/kvm/pv.c kvm_s390_pv_make_secure()
(v7.0) as kernel §3.3 and §3.5 read them; one rule is one atomic step and any other part may run between two.
"""

from __future__ import annotations

from ultrafolio.model.layout import *
from ultrafolio.model.rule import STRONG, fn, rule

from .folio import counted, extra_refs, get_ref, head, put_ref, set_arch, unlock, writable
from .references import drain
from .thread import finished, running
from .ultravisor import uv_export, uv_import, uv_unpin


@fn
def take_exit(s, t, view, call, page):
    """A vCPU exits to the host: exception 0x3e or a DAT or write fault (call TOUCH), or the unshare intercept (unpin).

    The fault of an access to a page that is not mapped writable is the guest's own: no import, and no import mutex.
    """
    k = s.task[t]
    k.call, k.page = call, page
    if view == PGM_3F:
        return fatal(s, t)
    k.pc = IMPORT_MAP
    if s.cfg[0].import_lock == LOCK_VM and (call == UNSHARE or writable(s, page)):
        k.pc = IMPORT_MUTEX
    return FAULT


@fn
def hold(s, t):
    """The import takes a reference of its own on its page, if it has none yet."""
    k = s.task[t]
    if not k.ref:
        k.ref = 1
        get_ref(s, k.page, 2)


@fn
def hold_to_wait(s, t):
    """Before it waits or splits, outside the page-table lock, the import takes a reference (6.10 to 6.13)."""
    if s.cfg[0].import_ref == REF_WAITING:
        hold(s, t)


@fn
def let_go(s, t):
    """Drop the import's own reference, if it has one."""
    k = s.task[t]
    if k.ref:
        k.ref = 0
        put_ref(s, k.page, 2)


@fn
def off_table(s, t):
    """The import drops the page-table lock of its page, if it holds it."""
    if s.cfg[0].import_ref == REF_HELD:
        s.mm[s.task[t].page].walked = 0


@fn
def leave(s, t):
    """Return to the vCPU loop, which re-enters the guest; import mutex and own reference are released on the way.

    What a finished call leaves in the thread is cleared, here as everywhere, so that equal situations are equal states.
    """
    k = s.task[t]
    let_go(s, t)
    if k.mutex:
        k.mutex = 0
        s.vm[s.who[t].vm].mutex = 0
    k.call, k.page, k.drained, k.splits, k.back, k.pc = 0, 0, 0, 0, 0, AGAIN


@fn
def fatal(s, t):
    """-EINVAL from an import: SIGSEGV for the VMM, and the whole guest is gone."""
    leave(s, t)
    s.vm[s.who[t].vm].life = KILLED
    s.task[t].pc = DEAD
    return E_FATAL


@fn
def invalid(s, t):
    """-EINVAL from an import: fatal for a guest's access; handle_pv_uvc() lets a guest repeat its unshare."""
    if s.task[t].call == UNSHARE:
        leave(s, t)
        return E_UV
    return fatal(s, t)


@fn
def busy(s, t, why):
    """-EAGAIN to the caller. P.on_busy: touch again for ever, or report to the VMM after P.give_up tries."""
    k = s.task[t]
    if s.cfg[0].on_busy == BUSY_GIVE_UP:
        k.tries += 1
        if k.tries >= s.cfg[0].give_up:
            return fatal(s, t)
    leave(s, t)
    return why


@fn
def too_many_refs(s, t):
    """Extra references: drain LRU batches as P.drain says, then busy; or sleep until they are dropped."""
    drain = s.cfg[0].drain
    k = s.task[t]
    if drain == DRAIN_OWN_THEN_ALL and not k.drained:
        k.pc = DRAIN_OWN
    elif drain != DRAIN_NONE:
        k.pc = DRAIN_ALL
    else:
        return still_referenced(s, t)
    return E_REFS


@fn
def still_referenced(s, t):
    if s.cfg[0].on_busy == BUSY_SLEEP:
        s.task[t].pc = SLEEP_REFS
        return E_REFS
    return busy(s, t, E_REFS)


@rule(IMPORT_MUTEX, takers="vcpu", sleeps="mutex", fair=STRONG,
      kernel="kvm_s390_pv_make_secure: pv.import_lock, v7.0; MUTEX_HANDOFF, v4.10")  # fmt: skip
def import_mutex(s, t):
    """One import at a time per VM: take the mutex; it stays held over every wait below."""
    vm = s.vm[s.who[t].vm]
    if vm.mutex:
        return W_MUTEX
    vm.mutex = t + 1
    s.task[t].mutex = 1
    s.task[t].pc = IMPORT_MAP
    return OK


@rule(IMPORT_MAP, takers="vcpu", cost="lock fault@E_NXIO swap_read@SWAPPED_IN",
      kernel="make_folio_secure: pte not present or not writable -> -ENXIO, v6.10")  # fmt: skip
def import_map(s, t):
    """Not mapped writable: fault it in for write, dirty if the file system is iomap, and touch again.

    A guest's own fault ends here. Since 6.14 the walk takes a reference, and from it to the call the import holds the
    page-table lock of this page, so that no other import of the page is between the two.
    """
    k = s.task[t]
    if s.mm[k.page].walked:
        return W_TABLE
    if not writable(s, k.page):
        return fault_in(s, t)
    if s.cfg[0].import_lock == LOCK_VM and not k.mutex:
        leave(s, t)
        return OK
    if s.cfg[0].import_ref == REF_HELD:
        hold(s, t)
        s.mm[k.page].walked = 0 if s.cfg[0].freeze_unlocked else 1
    k.pc = IMPORT_LARGE if s.cfg[0].large_at == LARGE_BEFORE_LOCK else IMPORT_TRYLOCK
    return OK


@fn
def fault_in(s, t):
    """The write fault maps the page, and the vCPU touches it again; a fault of its own or -ENXIO from an import."""
    entry = s.pt[s.task[t].page]
    h = s.mm[head(s, s.task[t].page)]
    outcome = SWAPPED_IN if entry.present == SWAPPED else E_NXIO
    entry.present = MAPPED
    h.writable = 1
    if h.backing == IOMAP:
        h.dirty = 1
    leave(s, t)
    return outcome


@rule(IMPORT_LARGE, takers="vcpu", releases="table lock mutex refs",
      kernel="make_folio_secure: -EINVAL (v6.4), -E2BIG (v6.10); no such test in the mail")  # fmt: skip
def import_large(s, t):
    """A large folio is imported page by page, refused, or split first (P.large); where this is tested: P.large_at."""
    k = s.task[t]
    large, at = s.cfg[0].large, s.cfg[0].large_at
    if s.mm[k.page].order == 0 or large == LARGE_DIRECT or large == LARGE_NEVER:
        k.pc = IMPORT_FREEZE if at == LARGE_AFTER_WRITEBACK else IMPORT_TRYLOCK
        if at == LARGE_AFTER_EXPORT:
            k.pc = IMPORT_WRITEBACK
        return OK
    if at != LARGE_BEFORE_LOCK:
        unlock(s, k.page)
    off_table(s, t)
    if large == LARGE_REFUSE:
        return invalid(s, t)
    hold_to_wait(s, t)
    k.pc = SPLIT_LOCK
    return OK


@rule(IMPORT_TRYLOCK, takers="vcpu", releases="table mutex refs",
      kernel="folio_trylock in make_folio_secure, v6.4")  # fmt: skip
def import_trylock(s, t):
    """Try the folio lock; a locked folio is busy, which 6.10 to 6.13 answer with a wait for writeback.

    More than one secure VM and no ownership transfer: an export comes first, under the lock.
    """
    k = s.task[t]
    h = s.mm[head(s, k.page)]
    if h.locked:
        off_table(s, t)
        if s.cfg[0].import_ref == REF_WAITING:
            hold(s, t)
            k.pc = WAIT_WRITEBACK
            return E_LOCKED
        return busy(s, t, E_LOCKED)
    h.locked = 1
    foreign = s.cfg[0].vms > 1 and not s.cfg[0].misc and k.call != UNSHARE and not s.cfg[0].no_export
    if foreign:
        k.pc = IMPORT_EXPORT
    else:
        locked(s, t)
    return OK


@fn
def locked(s, t):
    """The folio is locked, and exported if it had to be: go on."""
    s.task[t].pc = IMPORT_LARGE if s.cfg[0].large_at == LARGE_AFTER_EXPORT else IMPORT_WRITEBACK


@rule(IMPORT_EXPORT, takers="vcpu", call="export", tells_page=True, cost="export_call", holds="lock",
      traced="uv_convert_from_secure", kernel="should_export_before_import in gmap_make_secure, v6.0")  # fmt: skip
def import_export(s, t):
    """Export the page of another guest first; the result is ignored, the arch bit stays."""
    uv_export(s, s.task[t].page)
    locked(s, t)
    return OK


@rule(IMPORT_WRITEBACK, takers="vcpu", holds="lock", releases="table lock",
      kernel="folio_test_writeback in make_folio_secure, v5.7",
      seed="make sure the page is not in writeback, and if so wait until the writeback is over")  # fmt: skip
def import_writeback(s, t):
    """In writeback: unlock and wait for its end."""
    k = s.task[t]
    if s.mm[head(s, k.page)].writeback != NO_WRITEBACK:
        unlock(s, k.page)
        off_table(s, t)
        hold_to_wait(s, t)
        k.pc = WAIT_WRITEBACK
        return E_WRITEBACK
    k.pc = IMPORT_LARGE if s.cfg[0].large_at == LARGE_AFTER_WRITEBACK else IMPORT_FREEZE
    return OK


@rule(WAIT_WRITEBACK, takers="vcpu", sleeps="writeback", releases="mutex refs",
      traced="folio_wait_writeback@W_WRITEBACK", kernel="folio_wait_writeback, v5.7",
      seed="wait until the writeback is over")  # fmt: skip
def wait_writeback(s, t):
    """The folio left writeback: touch again."""
    if s.mm[head(s, s.task[t].page)].writeback != NO_WRITEBACK:
        return W_WRITEBACK
    leave(s, t)
    return OK


@rule(IMPORT_FREEZE, takers="vcpu", holds="lock", releases="table lock mutex refs",
      traced="page_ref_freeze@OK !page_ref_freeze@E_REFS,E_FATAL",
      kernel="folio_ref_freeze(expected) in make_folio_secure, v5.7",
      seed="make sure the page does not have any extra references except for the mapping itself")  # fmt: skip
def import_freeze(s, t):
    """Freeze the count at its expected value; extra references besides its own: unlock, drain, busy."""
    k = s.task[t]
    if extra_refs(s, k.page) > k.ref or never_matches(s, k.page):
        unlock(s, k.page)
        off_table(s, t)
        return too_many_refs(s, t)
    s.mm[counted(s, k.page)].frozen = 1
    k.pc = IMPORT_ARCH
    return OK


@fn
def never_matches(s, p):
    """Whether the count that an import freezes can never match: up to 6.9 that of the one page of a large folio."""
    return s.mm[p].order > 0 and s.cfg[0].large == LARGE_NEVER


@rule(DRAIN_OWN, takers="vcpu", cost="drain_own", releases="refs", kernel="lru_add_drain, v5.7..v6.13")
def drain_own(s, t):
    """Drain this CPU's LRU batches and go on in the same call."""
    k = s.task[t]
    drain(s, k.page, s.who[t].cpu + 1)
    k.drained, k.pc = 1, IMPORT_MAP
    return OK


@rule(DRAIN_ALL, takers="vcpu", cost="drain_all ~drain_all_spread", releases="refs mutex",
      kernel="lru_add_drain_all, v5.7",
      seed="If the page has extra references, we wait until they are dropped")  # fmt: skip
def drain_all(s, t):
    """Drain every CPU's LRU batches, then busy."""
    drain(s, s.task[t].page, 0)
    return still_referenced(s, t)


@rule(SLEEP_REFS, takers="vcpu", sleeps="refs", releases="mutex refs",
      kernel="none: the mail read literally; the kernel touches again",
      seed="we wait until they are dropped")  # fmt: skip
def sleep_refs(s, t):
    """Sleep until the extra references are dropped, or the machine is stopped."""
    if extra_refs(s, s.task[t].page) > s.task[t].ref and running(s, s.who[t].vm):
        return W_REFS
    leave(s, t)
    return OK


@rule(IMPORT_ARCH, takers="vcpu", holds="lock frozen", kernel="set_bit(PG_arch_1) before the UVC, v5.7",
      seed="the bit MUST be set whenever a page is secure, and MAY be set for non-secure pages")  # fmt: skip
def import_arch(s, t):
    """Set the arch bit before the call, so that it over-indicates if the call fails."""
    set_arch(s, s.task[t].page)
    s.task[t].pc = IMPORT_CALL
    return OK


@rule(IMPORT_CALL, takers="vcpu", call="import", tells_page=True, cost="import_call fault@E_NXIO swap_read@SWAPPED_IN",
      holds="lock frozen", releases="table lock frozen mutex refs",
      traced="page_ref_unfreeze@E_UV,E_FATAL,E_NXIO,SWAPPED_IN,SUCCESS",
      kernel="__uv_call in make_folio_secure, one attempt since v5.16",
      seed="each time a guest tries to touch an exported page, it gets imported")  # fmt: skip
def import_call(s, t):
    """The call: import, or unpin for an unshare. Busy, or unmapped meanwhile: undo and touch again. Else not valid."""
    k = s.task[t]
    vm = s.who[t].vm
    if s.pt[k.page].present != MAPPED and not s.cfg[0].ignores_unmap:
        thaw(s, t)
        return unmapped(s, t)
    if s.pt[k.page].present == SWAPPED:
        s.mm[k.page].altered = 1  # the frame was freed and reused
    rc = uv_unpin(s, vm, k.page) if k.call == UNSHARE else uv_import(s, vm, k.page, s.cfg[0].misc)
    if rc == UV_OK:
        k.pc = IMPORT_END
        return OK
    thaw(s, t)
    if rc == UV_BUSY:
        return busy(s, t, E_UV)
    return invalid(s, t)


@fn
def unmapped(s, t):
    """The page was unmapped since the walk: fault it in. Linux 7.0 reports success there, and leaks a reference."""
    if s.cfg[0].faultin_leak:
        get_ref(s, s.task[t].page, 2)
    if s.cfg[0].faultin_success:
        return report_success(s, t)
    return fault_in(s, t)


@fn
def thaw(s, t):
    """Thaw the count, unlock the folio, drop the page-table lock."""
    p = s.task[t].page
    s.mm[counted(s, p)].frozen = 0
    unlock(s, p)
    off_table(s, t)


@rule(IMPORT_END, takers="vcpu", holds="lock frozen", releases="table lock frozen mutex refs",
      traced="page_ref_unfreeze", kernel="folio_ref_unfreeze, folio_unlock, v5.7",
      seed="the page is allowed become secure again before allowing the page to be unshared")  # fmt: skip
def import_end(s, t):
    """Thaw, unlock, report success; the vCPU touches again, an unshare is complete."""
    thaw(s, t)
    return report_success(s, t)


@fn
def report_success(s, t):
    leave(s, t)
    finished(s, t)
    s.task[t].tries = 0
    return SUCCESS
