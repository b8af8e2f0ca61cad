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
def allocate(s, p):
    """The file has page `p`, and its folio holds nothing of what its frame held. A huge page comes whole."""
    if not s.mm[p].allocated:
        for q in range(block_of(s, p), block_after(s, p)):
            s.mm[q].allocated = 1
    first = head(s, p)
    for q in range(first, first + (1 << s.mm[p].order)):
        if s.mm[q].stale == NOT_WRITTEN:
            s.mm[q].stale = UP_TO_DATE


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
