"""The machine `snp`: AMD SEV-SNP. The RMP table says who may write a frame. Mirrors arch/x86/kvm/svm/sev.c (kvm-x86,
September 2026)."""

from __future__ import annotations

from ultrafolio.model.guest_memfd.layout import *
from ultrafolio.model.rule import fn

from .content import set_entries

ABOUT = "AMD SEV-SNP: the RMP table, which the processor checks at each write of the host and each walk of the guest"
STATES = (HW_HOST, HW_ASSIGNED, HW_PRIVATE, HW_STUCK)
SIZES = "4 KiB, 2 MiB (an RMP entry)"
LOSES_CONTENT = True
HAS_ENTRIES = True
SPLITS_LATE = False
GUEST_TURNS = False
TABLE_PER_KIND = False
BY_PAGE = False


@fn
def snp_prepare(s, p):
    """RMPUPDATE in sev_gmem_prepare(): assign frame `p`; one that is assigned stays."""
    if s.uv[p].state == HW_HOST:
        s.uv[p].state = HW_ASSIGNED
    return OK


@fn
def snp_assign(s, p):
    """KVM maps page `p` as private. Its frame is not assigned: a nested RMP fault, which sev_handle_rmp_fault()
    ignores; the vCPU tries again."""
    return OK if s.uv[p].state != HW_HOST else E_BUSY


@fn
def snp_guest_access(s, p, small):
    """The guest uses page `p` as private; it validates one that is not yet valid (PVALIDATE)."""
    if s.uv[p].state == HW_ASSIGNED:
        s.uv[p].state = HW_PRIVATE
    return OK


@fn
def snp_turn(s, p, shared):
    """The guest does not turn a page by itself: it asks its VMM."""
    return OK


@fn
def snp_host_access(s, p, how):
    """The host writes frame `p`, which is assigned: the kernel has an oops; a process faults again and again, since its
    entry is there."""
    if s.uv[p].state == HW_HOST:
        return OK
    if how == BY_USER:
        return E_REFAULT
    return E_FAULTED if how == BY_COPY or how == BY_DEVICE else E_OOPS


@fn
def snp_unmap(s, p):
    """KVM unmaps page `p` from the nested table: the RMP entry and the content stay."""
    return OK


@fn
def snp_make_shared(s, p):
    """RMPUPDATE to shared in sev_gmem_invalidate(), after a PSMASH of a large entry: the content is lost. It fails: a
    warning once, and KVM goes on."""
    if s.uv[p].state == HW_HOST:
        return OK
    if s.uv[p].large:
        snp_split(s, p >> s.cfg[0].block << s.cfg[0].block, True)
    s.uv[p].lost = 1
    s.uv[p].state = HW_STUCK if s.uv[p].refuses else HW_HOST
    return E_LEAKED if s.uv[p].refuses else OK


@fn
def snp_reclaim(s, p):
    """The same as page `p` leaves the file."""
    return snp_make_shared(s, p)


@fn
def snp_join(s, p):
    """The huge page at `p` is assigned by one RMP entry, is_large_rmp_possible()."""
    set_entries(s, p, 1)
    return OK


@fn
def snp_split(s, p, memory):
    """PSMASH the entry of the huge page at `p`; it needs no memory."""
    set_entries(s, p, 0)
    return OK
