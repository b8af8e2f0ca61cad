"""A user's fault and pins. Mirrors kvm_gmem_fault_user_mapping() in virt/kvm/guest_memfd.c (v6.18, attributes per file
as queued for 7.4), finish_fault() in mm/memory.c, and gup_fast_pte_range() in mm/gup.c."""

from __future__ import annotations

from ultrafolio.model.guest_memfd.layout import *
from ultrafolio.model.guest_memfd.machines.verbs import *
from ultrafolio.model.guest_memfd.table import rule
from ultrafolio.model.rule import STRONG, UNFAIR, fn
from ultrafolio.model.rules.folio import get_ref, put_ref
from ultrafolio.model.rules.thread import finished, spend, turn_come
from ultrafolio.model.rules.unpin import device_over, is_long, take_unpin, unpin_rest

from .blocks import get_folio
from .fault import go_on, let_go, lock


@fn
def maps(s, t, p):
    """Whether the page table of the process of thread `t` maps page `p`."""
    return s.mm[p].users >> s.who[t].process & 1


@fn
def user_over(s, t, outcome):
    """The access is over."""
    s.task[t].page, s.task[t].pc = 0, USER_IDLE
    finished(s, t)
    return outcome


@fn
def user_access(s, t, p):
    """Access the thread's page `p`, which is mapped: it is done, it ends as the machine says, or the process faults
    again."""
    outcome = host_access(s, p, BY_USER) if s.cfg[0].convert != TWO_BACKINGS else OK
    if outcome == E_REFAULT:
        s.task[t].pc = USER_LOCK
        return outcome
    return user_over(s, t, DONE if outcome == OK else outcome)


@rule(USER_IDLE, takers="user", tells_page=True, fair=UNFAIR, chooses=True, kernel="handle_mm_fault, v6.18")
def user_touch(s, t, op, page):
    """A process touches a page through its mapping of the file; a page that is not mapped faults."""
    if not turn_come(s, t) or not spend(s, t):
        return W_IDLE
    s.task[t].page, s.task[t].pc = page, USER_LOCK
    return user_access(s, t, page) if maps(s, t, page) else FAULT


@rule(USER_LOCK, takers="user disk pin vmsplice", sleeps="lock", fair=STRONG,
      kernel="kvm_gmem_fault_user_mapping: filemap_invalidate_lock_shared, queued for 7.4")  # fmt: skip
def user_lock(s, t):
    """Take the invalidate lock shared; a conversion holds it alone."""
    return lock(s, t, False, USER_LOOKUP)


@rule(USER_LOOKUP, takers="user disk pin vmsplice", cost="lock fault@OK", sleeps="mutex", holds="lock",
      releases="mutex lock refs",
      kernel="kvm_gmem_fault_user_mapping, queued for 7.4: SIGBUS; kvm_gmem_get_folio, v6.18")  # fmt: skip
def user_lookup(s, t):
    """A private page: SIGBUS, or -EFAULT for a pin. Else the first half of the fault: a reference, as in fault_lookup,
    and the lock given back. A folio that is still huge: SIGBUS, too."""
    m, in_place = s.mm[s.task[t].page + s.task[t].at], s.cfg[0].convert == IN_PLACE
    outcome = E_SIGBUS if in_place and m.private else get_folio(s, t, USER_MAP)
    if s.task[t].pc != USER_MAP and outcome != E_SIGBUS:
        return outcome
    s.vm[s.who[t].vm].mutex += 1
    if in_place and (m.private or m.order):
        let_go(s, t)
        outcome = E_SIGBUS if outcome == OK else outcome
        if s.who[t].kind == USER:
            return user_over(s, t, outcome)
        s.actor[t].page = 0
        unpin_rest(s, t)
    return outcome


@rule(USER_MAP, takers="user disk pin vmsplice", releases="refs", kernel="finish_fault: set_pte_range, v6.18")
def user_map(s, t):
    """The second half of the fault: the entry is set, without the lock, and has the reference from now on."""
    k, m = s.task[t], s.mm[s.task[t].page + s.task[t].at]
    m.users |= 1 << s.who[t].process
    if s.who[t].locks:
        m.locking |= 1 << s.who[t].process
    let_go(s, t)
    return user_access(s, t, k.page) if s.who[t].kind == USER else go_on(s, t, GUP_WALK)


@fn
def reference(s, t):
    """Which reference of get_ref() a device takes: a pin; vmsplice a plain one, which no count tells from others."""
    return 2 if s.who[t].kind == SPLICE else is_long(s, t)


@rule(DEVICE_IDLE, takers="disk pin vmsplice", actor="vmm", fair=UNFAIR, chooses=True,
      kernel="O_DIRECT; io_uring fixed buffers; vfio_pin_pages_remote, v6.18")  # fmt: skip
def pin_start(s, t, op, page):
    """The VMM asks for a pin of `actor.n` pages from `page`: for direct I/O, or for long, such as a DMA mapping."""
    if not turn_come(s, t) or not spend(s, t):
        return W_IDLE
    k = s.task[t]
    k.page, k.n, k.at, k.pc, s.actor[t].page = page, s.actor[t].n, 0, GUP_WALK, page
    return OK


@rule(GUP_WALK, takers="disk pin vmsplice", tells_page=True, kernel="gup_fast_pte_range: ptep_get_lockless, v6.18")
def gup_walk(s, t):
    """Read the next page's entry, and fault it in where there is none; or all are pinned."""
    k = s.task[t]
    if k.at == k.n:
        k.pc = PIPE_READ if s.who[t].kind == SPLICE else DMA_READY
        if reference(s, t):
            finished(s, t)
        return DONE
    return go_on(s, t, GUP_GET if maps(s, t, k.page + k.at) else USER_LOCK)


@rule(GUP_GET, takers="disk pin vmsplice", kernel="try_grab_folio_fast in gup_fast_pte_range, v6.18")
def gup_get(s, t):
    """Take the reference."""
    k = s.task[t]
    get_ref(s, k.page + k.at, reference(s, t))
    return go_on(s, t, GUP_RECHECK)


@rule(GUP_RECHECK, takers="disk pin vmsplice", releases="refs",
      kernel="gup_fast_pte_range: pte_val(pte) != pte_val(ptep_get(ptep)), v6.18")  # fmt: skip
def gup_recheck(s, t):
    """Read the entry once more. It is gone: back off. It is there: the page is pinned."""
    k = s.task[t]
    p = k.page + k.at
    k.pc = GUP_WALK
    if not maps(s, t, p):
        put_ref(s, p, reference(s, t))
        return E_RETRY
    s.mm[p].granted += 1
    k.at += 1
    return OK


@rule(DMA_READY, takers="disk pin", actor="vmm", kernel="submit_bio; iommu_map, v6.18")
def dma_ready(s, t):
    """All pages are pinned: direct I/O is in flight, or a mapping for DMA stands, which the VMM remembers."""
    a, direct = s.actor[t], 1 if s.who[t].kind == DISK else 0
    for p in range(a.page, a.page + a.n):
        s.io[p].flying += direct
        s.io[p].dma += 1 - direct
    s.task[t].pc = DMA_END if direct else (DMA_STANDS if s.cfg[0].iommu == IOMMU_NEVER else DMA_ASKED)
    return DONE


@rule(DMA_END, takers="disk", actor="device", kernel="bio_endio, v6.18")
def io_end(s, t):
    """The direct I/O completes, unless its device never answers."""
    a = s.actor[t]
    if s.who[t].stuck:
        return W_IO
    outcome = OK
    for p in range(a.page, a.page + a.n):
        s.io[p].flying -= 1
        one = host_access(s, p, BY_DEVICE) if s.cfg[0].convert != TWO_BACKINGS else OK
        outcome = outcome if one == OK else one
    a.page = 0
    take_unpin(s, t)
    return outcome


@rule(ACCESS_IDLE, takers="access", tells_page=True, fair=UNFAIR, chooses=True,
      kernel="the linear map; show_fault_oops, v6.11; handler of GPT faults of arm64, 2026-09-30")  # fmt: skip
def kernel_touch(s, t, op, page):
    """The kernel itself touches a page, without a reference; a copy expects that the access may fail."""
    if not turn_come(s, t) or not spend(s, t):
        return W_IDLE
    finished(s, t)
    outcome = host_access(s, page, BY_COPY if s.who[t].copies else BY_KERNEL)
    return DONE if outcome == OK else outcome


@rule(DMA_STANDS, takers="pin", actor="vmm", fair=UNFAIR, kernel="vfio_unpin_pages_remote; io_uring unregister, v6.18")
def dma_unmap(s, t):
    """The VMM may end the mapping, and need not."""
    a = s.actor[t]
    for p in range(a.page, a.page + a.n):
        s.io[p].dma -= 1
    a.page = 0
    return take_unpin(s, t)


@rule(DMA_ASKED, takers="pin", actor="vmm", kernel="RamDiscardManager of QEMU: unmap before to-private, 2025")
def dma_unmap_asked(s, t):
    """The VMM ends the mapping before it converts one of its pages (P.iommu = first or on-eagain)."""
    a = s.actor[t]
    for p in range(a.page, a.page + a.n):
        if s.io[p].asked:
            return dma_unmap(s, t)
    return W_IDLE


@fn
def close_pipe(s, t):
    """The kernel drops the reference of the pipe on the page of the thread, once."""
    k = s.task[t]
    if k.at:
        k.at = 0
        s.mm[k.page].granted -= 1
        put_ref(s, k.page, 2)
    return OK


@rule(PIPE_READ, takers="vmsplice", actor="vmm", fair=UNFAIR, releases="refs", kernel="generic_pipe_buf_release, v6.18")
def pipe_read(s, t):
    """Somebody reads the pipe that the page is in, and need not: the reference is dropped."""
    close_pipe(s, t)
    s.task[t].at, s.actor[t].page = 0, 0
    device_over(s, t)
    return DONE
