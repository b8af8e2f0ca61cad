"""The folios of huge pages: split where a page is shared, a fresh one, too, and merged where none is, if the policy
merges them before they are freed. Mirrors the HugeTLB series of May 2025 (RFC v2, 1G page support) and the branch of
December 2025 (wip-gmem-conversions-hugetlb-restructuring)."""

from __future__ import annotations

from ultrafolio.model.guest_memfd.layout import *
from ultrafolio.model.guest_memfd.table import rule
from ultrafolio.model.rule import fn
from ultrafolio.model.rules.folio import extra_refs

from .blocks import block_after, block_of
from .fault import end_invalidation, go_on, let_go, tell


@fn
def order_wanted(s, first, order, start, end, call):
    """Returns the order that the huge page at `first`, now of order `order`, has after the request `call` for the pages
    in [start, end): 0 where a page of it is shared then, or where it was split and is merged on free; else that of the
    huge page, as one that is not allocated."""
    for p in range(first, block_after(s, first)):
        asked = start <= p < end
        if s.mm[p].allocated and ((asked and call == SHARE) or not (asked or s.mm[p].private)):
            return 0
    if order == 0 and s.cfg[0].merge == MERGE_ON_FREE:
        return 0
    return s.cfg[0].block


@fn
def set_order(s, first, order):
    """Split the folio of the huge page, or merge its pages, which brings all of it up to date."""
    for p in range(first, block_after(s, first)):
        m = s.mm[p]
        if order and not m.order and m.stale == NOT_WRITTEN:
            m.stale = TAKEN_FOR_WRITTEN if s.cfg[0].merge_whole else UP_TO_DATE
        m.order = order


@fn
def in_use(s, first):
    """Whether anybody but the file references a page of the huge page at `first`."""
    for p in range(first, block_after(s, first)):
        if extra_refs(s, p):
            return True
    return False


@rule(CONVERT_RESTRUCTURE, takers="vcpu vmm", holds="lock", releases="lock", sleeps="refs",
      kernel="kvm_gmem_restructure_folios_in_range, RFC v2 of 1G pages, May 2025; branch of December 2025")  # fmt: skip
def convert_restructure(s, t):
    """Split or merge the folios of the piece. The kernel spins until nobody else references any of their pages, or
    refuses (variant refuses-a-split); a split needs memory."""
    k, vm, splits = s.task[t], s.vm[s.who[t].vm], False
    for p in range(k.start, k.end):
        first = block_of(s, p)
        wanted = order_wanted(s, first, s.mm[p].order, k.start, k.end, k.call)
        if (p == k.start or p == first) and wanted != s.mm[p].order:
            splits = splits or s.mm[p].order > 0
            if in_use(s, first):
                return undo(s, t, E_AGAIN) if s.cfg[0].split_refuses else W_REFS
    if splits and vm.no_folio:
        vm.no_folio -= 0 if vm.no_folio == ENDLESS else 1
        return undo(s, t, E_NOMEM)
    for p in range(k.start, k.end):
        if p == k.start or p == block_of(s, p):
            set_order(s, block_of(s, p), order_wanted(s, block_of(s, p), s.mm[p].order, k.start, k.end, k.call))
    return go_on(s, t, CONVERT_STORE if s.cfg[0].large == LARGE_BEFORE else CONVERT_END)


@fn
def undo(s, t, outcome):
    """The folios cannot be split or merged: there is no memory, or somebody references them. Before the store nothing
    is to be undone but the unmapping; after it the attributes are set back, by a loop that never ends where the piece
    begins in the first huge page of the file."""
    k = s.task[t]
    if s.cfg[0].large == LARGE_AFTER:
        if k.start < block_after(s, 0):
            return go_on(s, t, CONVERT_ROLLBACK)
        for p in range(k.start, k.end):
            s.mm[p].private ^= s.mm[p].turned
    end_invalidation(s, t)
    k.splits = 0
    return tell(s, t, k.start, outcome)


@rule(CONVERT_ROLLBACK, takers="vcpu vmm", holds="lock",
      kernel="rollback of kvm_gmem_restructure_folios_in_range, RFC v2 of 1G pages, May 2025")  # fmt: skip
def convert_rollback(s, t):
    """The index of the rollback is below 0: the loop goes on for ever, under the lock."""
    return W_TABLE


@rule(FRESH_UNLOCK, takers="vcpu user disk pin vmsplice", holds="lock", releases="mutex refs",
      kernel="__kvm_gmem_filemap_add_folio, RFC v2, May 2025; __maybe_split_fresh_folio, December 2025")  # fmt: skip
def fresh_unlock(s, t):
    """Clear the lock bit of the fresh folio, and drop the reference. Under the variant clear-without-wake-up
    (__folio_clear_locked) nobody who sleeps for the lock is woken."""
    let_go(s, t)
    s.mm[block_of(s, s.task[t].page + s.task[t].at)].allocated = UNWOKEN if s.cfg[0].no_wake else THERE
    return go_on(s, t, FRESH_SPLIT)


@rule(FRESH_SPLIT, takers="vcpu user disk pin vmsplice", sleeps="refs", holds="lock", releases="mutex",
      kernel="kvm_gmem_split_folio_in_filemap, RFC v2, May 2025; __maybe_split_fresh_folio, December 2025")  # fmt: skip
def fresh_split(s, t):
    """Split the fresh folio, and look the page up again. The kernel spins until nobody else references it."""
    first = block_of(s, s.task[t].page + s.task[t].at)
    if in_use(s, first):
        return W_REFS
    set_order(s, first, 0)
    s.mm[first].allocated = THERE
    return go_on(s, t, FAULT_LOOKUP if s.who[t].kind == VCPU else USER_LOOKUP)
