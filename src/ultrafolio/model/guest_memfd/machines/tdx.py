"""The machine `tdx`: Intel TDX. The TDX module keeps the private page table (S-EPT). Mirrors arch/x86/kvm/vmx/tdx.c
(v6.16, the clean-ups of October 2025)."""

from __future__ import annotations

from ultrafolio.model.guest_memfd.layout import *
from ultrafolio.model.rule import fn

from .content import set_entries

ABOUT = "Intel TDX: the TDX module's private page table, memory integrity and the TD bit of each line"
STATES = (HW_HOST, HW_ASSIGNED, HW_PRIVATE, HW_STUCK)
SIZES = "4 KiB, 2 MiB (an entry of the S-EPT)"
LOSES_CONTENT = True
HAS_ENTRIES = True
SPLITS_LATE = False
GUEST_TURNS = False
TABLE_PER_KIND = True
BY_PAGE = False


@fn
def tdx_prepare(s, p):
    """Make page `p` private as a fault looks it up: nothing to do."""
    return OK


@fn
def tdx_assign(s, p):
    """TDH.MEM.PAGE.AUG as KVM maps page `p`. The entry is there, or the module is busy: -EBUSY, and the fault starts
    again."""
    if s.uv[p].state != HW_HOST or s.uv[p].never:
        return E_BUSY
    s.uv[p].state = HW_ASSIGNED
    return OK


@fn
def tdx_guest_access(s, p, small):
    """The guest uses page `p` as private; it accepts one that is pending (TDG.MEM.PAGE.ACCEPT), or the whole huge page.
    small: it accepts single pages only, which an entry of a huge page refuses."""
    if s.uv[p].state == HW_ASSIGNED and s.uv[p].large:
        if small:
            return E_LEVEL
        first = p >> s.cfg[0].block << s.cfg[0].block
        for q in range(first, first + (1 << s.cfg[0].block)):
            s.uv[q].state = HW_PRIVATE
    if s.uv[p].state == HW_ASSIGNED:
        s.uv[p].state = HW_PRIVATE
    return OK


@fn
def tdx_turn(s, p, shared):
    """The guest does not turn a page by itself: it asks its VMM."""
    return OK


@fn
def tdx_host_access(s, p, how):
    """The host writes page `p` of a TD: the line is poisoned, and the next read of it is a machine check."""
    return OK if s.uv[p].state == HW_HOST else E_CHECK


@fn
def tdx_in_guest(s):
    """Whether a vCPU is inside TD entry, which holds locks of the S-EPT."""
    for t in range(s.cfg[0].actors):
        if s.who[t].kind == VCPU and s.task[t].pc == AGAIN:
            return True
    return False


@fn
def tdx_neighbour(s, p):
    """Whether another page of the huge page of `p` is in the S-EPT, so that both use one pair of PAMT pages."""
    order = max(s.cfg[0].block, 1)
    first = p >> order << order
    for q in range(first, min(first + (1 << order), s.cfg[0].pages)):
        if q != p and s.uv[q].state != HW_HOST:
            return True
    return False


@fn
def tdx_unmap(s, p):
    """RANGE.BLOCK, TRACK and PAGE.REMOVE of page `p`: the content is lost. Busy: all vCPUs leave the guest, and it is
    tried once more; it still fails, or nobody made them leave: the VM is dead."""
    if s.uv[p].state == HW_HOST:
        return OK
    if s.uv[p].refuses or (s.cfg[0].no_kick and tdx_in_guest(s)):
        s.uv[p].state = HW_STUCK
        return E_DEAD
    s.uv[p].state, s.uv[p].lost, s.uv[p].large = HW_HOST, 1, 0
    s.uv[p].pamt = 1 if s.cfg[0].pamt_race and not tdx_neighbour(s, p) else 0
    return OK


@fn
def tdx_make_shared(s, p):
    """Page `p` becomes shared: it left the S-EPT as it was unmapped. Under pamt-race the PAMT pages of its huge page
    are dropped now, as was decided then: another page of it that is in use since has none, and the VM is dead."""
    dropped, s.uv[p].pamt = s.uv[p].pamt, 0
    return E_DEAD if dropped and tdx_neighbour(s, p) else OK


@fn
def tdx_reclaim(s, p):
    """Page `p` leaves the file: the same, or it is leaked."""
    return tdx_unmap(s, p)


@fn
def tdx_join(s, p):
    """One entry of the S-EPT maps the huge page at `p`."""
    set_entries(s, p, 1)
    return OK


@fn
def tdx_split(s, p, memory):
    """PAGE.DEMOTE the entry of the huge page at `p`, which needs a page for the S-EPT."""
    if not memory:
        return E_NOMEM
    set_entries(s, p, 0)
    return OK
