"""What a file allocates and KVM maps: single pages, or huge pages of 2^cfg.block pages, of which two are enough for
every case. Mirrors kvm_gmem_get_folio() (v6.8), tdx_sept_set_private_spte() (v6.16), and the proposals of huge pages of
2025."""

from __future__ import annotations

from ultrafolio.model.guest_memfd.layout import *
from ultrafolio.model.guest_memfd.machines.verbs import *
from ultrafolio.model.rule import fn
from ultrafolio.model.rules.folio import get_ref, head, put_ref


@fn
def block_of(s, p):
    """Returns the first page of the huge page of `p`; `p` where pages are single ones."""
    return p >> s.cfg[0].block << s.cfg[0].block


@fn
def block_after(s, p):
    """Returns the first page behind the huge page of `p`."""
    return ((p >> s.cfg[0].block) + 1) << s.cfg[0].block


@fn
def enter(s, p, kind):
    """KVM maps page `p`; under P.hold = mapping the mapping has a reference. Returns OK."""
    if s.cfg[0].hold == HOLD_MAPPING and s.pt[p].present == UNMAPPED:
        get_ref(s, p, 2)
        s.mm[p].kvm += 1
    s.pt[p].present = kind
    return OK


@fn
def leave(s, p):
    """KVM maps page `p` no more."""
    if s.cfg[0].hold == HOLD_MAPPING and s.pt[p].present != UNMAPPED:
        put_ref(s, p, 2)
        s.mm[p].kvm -= 1
    s.pt[p].present, s.pt[p].large = UNMAPPED, 0


@fn
def whole(s, p):
    """Whether KVM may map the huge page of `p` by one entry: nothing of it is shared, mapped or under invalidation."""
    for q in range(block_of(s, p), block_after(s, p)):
        if not s.mm[q].order or not s.mm[q].private or s.pt[q].present != UNMAPPED or s.mm[q].zapped:
            return False
    return True


@fn
def get_folio(s, t, then):
    """Look the page of thread `t` up, which takes a reference, and go on at rule `then`. What the file has not is
    allocated, a huge page whole. The folio holds nothing of what its frame held; a vCPU makes its private pages ready
    for the machine.

    A huge page of which a page is shared is fresh: added to the page cache, locked, and split in two more steps. Who
    finds it locked sleeps for the lock, with its reference, until somebody unlocks it. Returns OK; DONE where the
    file has no folio yet, or a huge one that is locked; W_MUTEX asleep; or E_TWICE where the page was looked for in a
    step before, and was not there (variant double-allocation).
    """
    k, kvms = s.task[t], 1 if s.who[t].kind == VCPU else 0
    p = k.page + k.at
    first, there = s.mm[block_of(s, p)], s.mm[p].allocated
    if k.ref and first.allocated > THERE:
        return W_MUTEX
    if s.cfg[0].looks_first and s.cfg[0].block and not there and not k.splits:
        k.splits = 1
        return DONE
    outcome = E_TWICE if k.splits and there else OK
    if not k.ref:
        k.ref, s.mm[p].kvm = 1, s.mm[p].kvm + kvms
        get_ref(s, p, 2)
    if not there:
        for q in range(block_of(s, p), block_after(s, p)):
            s.mm[q].allocated = THERE
        if s.mm[p].order and not whole(s, p):
            first.allocated, k.splits, k.pc = LOCKED, 0, FRESH_UNLOCK
    if first.allocated == LOCKED and outcome == OK:
        return DONE
    first.allocated, k.splits, k.pc = THERE, 0, then
    for q in range(head(s, p), head(s, p) + (1 << s.mm[p].order)):
        s.mm[q].stale = UP_TO_DATE if s.mm[q].stale == NOT_WRITTEN else s.mm[q].stale
        if kvms and s.mm[q].private:
            prepare(s, q)
    return outcome


@fn
def map_private(s, p):
    """Map page `p` as private, its huge page as one where possible. Returns the machine's outcome."""
    if s.pt[p].present != UNMAPPED:
        return OK
    large = 1 if whole(s, p) else 0
    first, end = block_of(s, p) if large else p, block_after(s, p) if large else p + 1
    for q in range(first, end):
        outcome = assign(s, q)
        if outcome != OK:
            return outcome
    if large:
        join(s, first)
    for q in range(first, end):
        enter(s, q, MAPPED_PRIVATE)
        s.pt[q].large = large
    return OK


@fn
def take_apart(s, t, p):
    """Split the entry of the huge page of `p`. Returns -ENOMEM where there is no memory for that; nothing has
    changed."""
    first, vm = block_of(s, p), s.vm[s.who[t].vm]
    if split(s, first, vm.no_table == 0) == E_NOMEM:
        vm.no_table -= 0 if vm.no_table == ENDLESS else 1
        return E_NOMEM
    for q in range(first, block_after(s, p)):
        s.pt[q].large = 0
    return OK
