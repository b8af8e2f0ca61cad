"""The conversion. Mirrors __kvm_gmem_set_attributes() in virt/kvm/guest_memfd.c as queued for 7.4 (799c9fadc639,
dcde2f853ff4, 856852ef2108)."""

from __future__ import annotations

from ultrafolio.model.guest_memfd.layout import *
from ultrafolio.model.guest_memfd.machines.verbs import *
from ultrafolio.model.guest_memfd.table import rule
from ultrafolio.model.rule import STRONG, fn
from ultrafolio.model.rules.folio import extra_refs, head, pinned
from ultrafolio.model.rules.references import drain

from .blocks import block_after, block_of, leave, take_apart
from .fault import end_invalidation, go_on, kill, lock, tell, unlock_alone
from .vmm import request_over


@fn
def to_private(s, t):
    """Whether the request is one to private."""
    return 1 if s.task[t].call == UNSHARE else 0


@fn
def refuse(s, t, p, outcome):
    """Refuse the request at the folio of page `p`, with -EAGAIN or -ENOMEM: nothing of the piece but the user mappings
    has changed."""
    q = head(s, p)
    return tell(s, t, max(q, s.task[t].start) if s.cfg[0].pieces == PIECES_REQUEST else q, outcome)


@fn
def piece_over(s, t):
    """A piece of the request is converted: go on with the next, or 0."""
    k = s.task[t]
    if k.end == k.page + k.n:
        unlock_alone(s, t)
        return request_over(s, t, CONVERTED, SUCCESS)
    k.start, k.drained = k.end, 0
    return piece(s, t)


@fn
def piece(s, t):
    """Begin with a piece: all pages of the request, or under P.pieces = folio those of one huge page."""
    k = s.task[t]
    end = k.page + k.n
    k.i, k.end = k.start, min(end, block_after(s, k.start)) if s.cfg[0].pieces == PIECES_FOLIO else end
    return go_on(s, t, CONVERT_UNMAP if to_private(s, t) and s.cfg[0].convert == IN_PLACE else CONVERT_ZAP)


@fn
def next_page(s, t):
    """The page under test is free: test the next, or go on."""
    k = s.task[t]
    k.i += 1
    return go_on(s, t, CONVERT_PINNED if k.i < k.end else CONVERT_ZAP)


@rule(CONVERT_LOCK, takers="vcpu vmm", sleeps="lock", fair=STRONG,
      kernel="filemap_invalidate_lock in __kvm_gmem_set_attributes, queued for 7.4")  # fmt: skip
def convert_lock(s, t):
    """Take the invalidate lock alone."""
    return lock(s, t, True, CONVERT_TEST)


@rule(CONVERT_TEST, takers="vcpu vmm", holds="lock", releases="lock",
      kernel="early return, queued for 7.4 (856852ef2108)")  # fmt: skip
def convert_test(s, t):
    """All pages have the attribute already: 0, and nothing is done."""
    k = s.task[t]
    for p in range(k.page, k.page + k.n):
        if s.mm[p].private != to_private(s, t):
            return piece(s, t)
    return piece_over(s, t)


@rule(CONVERT_UNMAP, takers="vcpu vmm", holds="lock",
      kernel="unmap_mapping_pages, queued for 7.4; munlock_folio, v6.14")  # fmt: skip
def convert_unmap(s, t):
    """Unmap the pages from all user page tables; one of a VM_LOCKED mapping enters this CPU's batch, which holds it."""
    k = s.task[t]
    for p in range(k.start, k.end):
        m = s.mm[p]
        if m.locking and not m.batch:
            m.batch = s.who[t].cpu + 1
            s.mm[head(s, p)].refs += 1
        m.users, m.locking = 0, 0
    return go_on(s, t, CONVERT_PINNED)


@rule(CONVERT_PINNED, takers="vcpu vmm", holds="lock", releases="lock",
      kernel="__folio_has_outstanding_references: folio_maybe_dma_pinned, folio_mapped, queued for 7.4")  # fmt: skip
def convert_pinned(s, t):
    """A page that may be pinned, or is mapped again, refuses the request at once, without a drain."""
    k = s.task[t]
    if s.cfg[0].no_test or not s.mm[k.i].allocated:
        return next_page(s, t)
    in_use = pinned(s, k.i) or s.mm[k.i].users
    return refuse(s, t, k.i, E_AGAIN) if in_use else go_on(s, t, CONVERT_COUNT)


@rule(CONVERT_COUNT, takers="vcpu vmm", holds="lock", releases="lock",
      kernel="__folio_has_outstanding_references: folio_ref_count, queued for 7.4 (dcde2f853ff4)")  # fmt: skip
def convert_count(s, t):
    """A foreign reference, for whatever reason: drain, at each level once a request; then refuse."""
    k = s.task[t]
    if extra_refs(s, k.i) == 0 and not s.mm[k.i].users:
        return next_page(s, t)
    if s.cfg[0].drain != DRAIN_ONCE or k.drained == 2:
        return refuse(s, t, k.i, E_AGAIN)
    return go_on(s, t, CONVERT_DRAIN_ALL if k.drained else CONVERT_DRAIN_OWN)


@fn
def drain_request(s, t, cpu):
    """Drain the batches that hold a page of the request: those of CPU `cpu` - 1, or of every CPU (0). Count again."""
    k = s.task[t]
    for p in range(k.start, k.end):
        if p == k.start or p == head(s, p):
            drain(s, p, cpu)
    k.drained += 1
    return go_on(s, t, CONVERT_COUNT)


@rule(CONVERT_DRAIN_OWN, takers="vcpu vmm", cost="drain_own", holds="lock", releases="refs",
      kernel="lru_cache_drain_for_folio, queued for 7.4 (8ebad84956e8)")  # fmt: skip
def convert_drain_own(s, t):
    """Drain this CPU's batches, and count again."""
    return drain_request(s, t, s.who[t].cpu + 1)


@rule(CONVERT_DRAIN_ALL, takers="vcpu vmm", cost="drain_all ~drain_all_spread", holds="lock", releases="refs",
      kernel="lru_cache_drain_for_folio, queued for 7.4 (8ebad84956e8)")  # fmt: skip
def convert_drain_all(s, t):
    """Drain every CPU's batches, and count again. The lock is held, so every fault of the file waits."""
    return drain_request(s, t, 0)


@fn
def zap(s, t, p):
    """Unmap page `p` from KVM's table: where the machine has a table for each kind, only what is mapped as the old kind
    (kvm_gfn_range_filter_to_root_types, v6.14), and under P.pieces = folio what is mapped at all. A machine that splits
    the entry of a huge page late does so here, and without memory the page stays mapped; elsewhere the entry is split
    already, or unmapped whole, the other pages with it."""
    was = s.pt[p].present
    both = not TABLE_PER_KIND[s.cfg[0].machine] or s.cfg[0].pieces == PIECES_FOLIO
    if was != (MAPPED if to_private(s, t) else MAPPED_PRIVATE) and not (was and both):
        return OK
    if s.pt[p].large and SPLITS_LATE[s.cfg[0].machine] and take_apart(s, t, p) == E_NOMEM:
        return E_NOMEM
    if s.pt[p].large:
        for q in range(block_of(s, p), block_after(s, p)):
            if q != p:
                leave(s, q)
                unmap(s, q)
    leave(s, p)
    return unmap(s, p) if was == MAPPED_PRIVATE else OK


@fn
def make_pages_shared(s, t):
    """The machine makes the pages shared, where that is asked. Returns its worst outcome."""
    worst = OK
    for p in range(s.task[t].start, s.task[t].end):
        outcome = OK if to_private(s, t) else make_shared(s, p)
        worst = worst if outcome == OK else outcome
        if s.mm[p].turned:
            converted_content(s, p)
    return worst


@fn
def keeps(s, t, worst):
    """End the request, refused, where the machine keeps a page and P.stuck = kept. Returns whether it is ended. A
    machine that failed is dead in any case."""
    kill(s, t, worst)
    if worst == OK or worst == E_NOMEM or s.cfg[0].stuck != STUCK_KEPT:
        return False
    end_invalidation(s, t)
    unlock_alone(s, t)
    request_over(s, t, REFUSED, worst)
    return True


@rule(CONVERT_ZAP, takers="vcpu vmm", holds="lock", releases="lock", kernel="kvm_gmem_invalidate_start, queued for 7.4")
def convert_zap(s, t):
    """Begin the invalidation, and unmap the pages from KVM's table (zap). Under P.stuck = kept a page that the machine
    does not give back stays private."""
    k, worst = s.task[t], OK
    for p in range(k.start, k.end):
        early = s.cfg[0].hw_split == HW_SPLIT_BEFORE and not SPLITS_LATE[s.cfg[0].machine] and not to_private(s, t)
        if early and s.pt[p].large and take_apart(s, t, p) == E_NOMEM:
            return refuse(s, t, k.start, E_NOMEM)
    for p in range(k.start, k.end):
        s.mm[p].zapped = 1
        outcome = zap(s, t, p)
        worst = worst if outcome == OK else outcome
    if not keeps(s, t, worst):
        k.pc = CONVERT_END if s.cfg[0].end_first else store_or_split(s)
    return worst


@fn
def store_or_split(s):
    """The step after the unmapping: the folios first, or the attribute."""
    return CONVERT_RESTRUCTURE if s.cfg[0].block and s.cfg[0].large == LARGE_BEFORE else CONVERT_STORE


@rule(CONVERT_STORE, takers="vcpu vmm", holds="lock", releases="lock",
      kernel="kvm_arch_gmem_make_shared (f3c073e25476), mas_store_prealloc (1ae5be958ff7), queued for 7.4")  # fmt: skip
def convert_store(s, t):
    """The machine makes the pages shared, where that is asked; store the attribute. The machine follows later where the
    folios are split after the store."""
    k = s.task[t]
    for p in range(k.start, k.end):
        if s.mm[p].private != to_private(s, t):
            s.mm[p].turned, k.splits = 1, 1
    late = s.cfg[0].block and s.cfg[0].large == LARGE_AFTER
    worst = OK if late else make_pages_shared(s, t)
    if keeps(s, t, worst):
        return worst
    for p in range(k.start, k.end):
        s.mm[p].private = to_private(s, t)
    k.pc = CONVERT_RESTRUCTURE if late else CONVERT_END
    outcome = piece_over(s, t) if s.cfg[0].end_first else OK
    return outcome if worst == OK else worst


@rule(CONVERT_END, takers="vcpu vmm", holds="lock", releases="lock", kernel="kvm_gmem_invalidate_end, queued for 7.4")
def convert_end(s, t):
    """End the invalidation; give the lock back."""
    if s.cfg[0].block and s.cfg[0].large == LARGE_AFTER:
        make_pages_shared(s, t)
    end_invalidation(s, t)
    return go_on(s, t, store_or_split(s)) if s.cfg[0].end_first else piece_over(s, t)
