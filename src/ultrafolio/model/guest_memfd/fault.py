"""The guest's fault in KVM. Mirrors kvm_faultin_pfn() in arch/x86/kvm/mmu/mmu.c (v6.8; since v6.13
kvm_mmu_faultin_pfn()) and kvm_gmem_get_pfn() in virt/kvm/guest_memfd.c, with the lock and the attributes per file as
queued for 7.4 (1ae5be958ff7)."""

from __future__ import annotations

from ultrafolio.model.guest_memfd.layout import *
from ultrafolio.model.guest_memfd.machines.verbs import *
from ultrafolio.model.guest_memfd.table import rule
from ultrafolio.model.rule import STRONG, fn
from ultrafolio.model.rules.folio import put_ref

from .blocks import enter, get_folio, map_private, take_apart


@fn
def go_on(s, t, then):
    """Go on at rule `then`. Returns OK."""
    s.task[t].pc = then
    return OK


@fn
def take_fault(s, t, page, private):
    """A vCPU exits with a fault on a page. private: the access is one to a private page. Returns FAULT."""
    k = s.task[t]
    k.page, k.call, k.pc = page, private, FAULT_SNAPSHOT
    return FAULT


@fn
def let_go(s, t):
    """Drop the thread's own reference on its page, if it has one; that of a vCPU's fault is KVM's."""
    k = s.task[t]
    if k.ref:
        k.ref = 0
        s.mm[k.page + k.at].kvm -= 1 if s.who[t].kind == VCPU else 0
        put_ref(s, k.page + k.at, 2)


@fn
def leave_fault(s, t, then, outcome):
    """The fault is over: the snapshot is forgotten, KVM's reference dropped; go on at rule `then`, with `outcome`."""
    let_go(s, t)
    s.vm[s.who[t].vm].fresh &= ~(1 << t)
    k = s.task[t]
    k.page, k.call, k.exporting, k.pc = 0, 0, 0, then
    return outcome


@fn
def lock(s, t, alone, then):
    """Take the inode's invalidate lock, alone or shared, and go on at rule `then`. Returns OK, or W_LOCK if a
    conversion holds it, or, for one that wants it alone, anybody."""
    vm = s.vm[s.who[t].vm]
    if vm.mutex > 0 or (alone and vm.mutex):
        return W_LOCK
    vm.mutex = t + 1 if alone else vm.mutex - 1
    return go_on(s, t, then)


@fn
def unlock_alone(s, t):
    """Give the lock back, which ends what the request remembers of its pages."""
    k = s.task[t]
    for p in range(k.page, k.page + k.n):
        s.mm[p].turned = 0
    s.vm[s.who[t].vm].mutex = 0


@fn
def end_invalidation(s, t):
    """End the invalidation of the pages that the thread is about, which makes every snapshot old."""
    for p in range(s.task[t].start, s.task[t].end):
        s.mm[p].zapped = 0
    s.vm[s.who[t].vm].fresh = 0


@fn
def tell(s, t, page, outcome):
    """The call gives the lock back, and returns an error that names page `page`; the VMM asks again, or tells its guest
    no."""
    k = s.task[t]
    unlock_alone(s, t)
    k.failed, k.i, k.drained, k.pc = page + 1, 0, 0, VMM_RETRY
    return outcome


@fn
def kill(s, t, outcome):
    """KVM_BUG_ON: the machine failed, and the virtual machine is dead. Of other outcomes nothing."""
    if outcome == E_DEAD:
        s.vm[s.who[t].vm].life = KILLED


@rule(FAULT_SNAPSHOT, takers="vcpu", kernel="kvm_faultin_pfn: fault->mmu_seq, v6.8")
def fault_snapshot(s, t):
    """Take a snapshot of the invalidation sequence, before anything else is read."""
    s.vm[s.who[t].vm].fresh |= 1 << t
    return go_on(s, t, FAULT_ATTRIBUTE)


@rule(FAULT_ATTRIBUTE, takers="vcpu",
      kernel="kvm_gmem_is_private_gfn, queued for 7.4; kvm_mmu_prepare_memory_fault_exit, v6.8")  # fmt: skip
def fault_attribute(s, t):
    """Read the attribute, without the lock. It is of the other kind: the exit KVM_EXIT_MEMORY_FAULT to the VMM."""
    k = s.task[t]
    if s.mm[k.page].private != k.call and s.cfg[0].convert != BY_GUEST:
        k.then = k.call + 1
        return leave_fault(s, t, EXITED, E_EXIT)
    return go_on(s, t, FAULT_LOCK)


@rule(FAULT_LOCK, takers="vcpu", sleeps="lock", fair=STRONG,
      kernel="kvm_gmem_get_pfn: filemap_invalidate_lock_shared, queued for 7.4")  # fmt: skip
def fault_lock(s, t):
    """Take the invalidate lock shared; a conversion holds it alone."""
    return lock(s, t, False, FAULT_LOOKUP)


@rule(FAULT_LOOKUP, takers="vcpu", sleeps="mutex", holds="lock", releases="mutex",
      kernel="kvm_gmem_get_folio in kvm_gmem_get_pfn, v6.8")  # fmt: skip
def fault_lookup(s, t):
    """Look the page up, or allocate and zero it: a reference. The attribute is not read again. A huge page of which a
    page is shared is added to the page cache, locked, and is split in two more steps; who finds it locked sleeps. Under
    the variant double-allocation nothing holds the place of a huge page between the look and the allocation."""
    return get_folio(s, t, FAULT_UNLOCK)


@rule(FAULT_UNLOCK, takers="vcpu", holds="lock", releases="lock refs",
      kernel="kvm_gmem_get_pfn, queued for 7.4: folio_put before it returns (375b32931b5d, 89fbe3de01cc)")  # fmt: skip
def fault_unlock(s, t):
    """Drop the reference, under P.hold = dropped, and give the lock back."""
    if s.cfg[0].hold == HOLD_DROPPED:
        let_go(s, t)
    s.vm[s.who[t].vm].mutex += 1
    return go_on(s, t, FAULT_MAP)


@rule(FAULT_MAP, takers="vcpu", releases="refs", kernel="is_page_fault_stale, kvm_tdp_mmu_map under mmu_lock, v6.8")
def fault_map(s, t):
    """Map the page as the kind of the access. Under invalidation, or one ended since the snapshot, or the machine is
    busy: start again. The guest accepts less than is mapped: split the entry."""
    k = s.task[t]
    stale = s.mm[k.page].zapped or not s.vm[s.who[t].vm].fresh >> t & 1
    outcome = E_RETRY if stale else map_private(s, k.page) if k.call else enter(s, k.page, MAPPED)
    if k.exporting and outcome == OK and s.pt[k.page].large and not s.cfg[0].no_level:
        outcome = take_apart(s, t, k.page)
    return leave_fault(s, t, AGAIN, outcome)
