"""The machine `pkvm`: protected guests of pKVM on Arm. EL2 keeps the owner of each page and never asks who references
it. Mirrors arch/arm64/kvm/hyp/nvhe/mem_protect.c and the host's abort handler (v3, March 2026: 1bc42a2556f8,
d649d6fd2c9d)."""

from __future__ import annotations

from ultrafolio.model.guest_memfd.layout import *
from ultrafolio.model.rule import fn

from .content import set_entries

ABOUT = "protected guests of pKVM: the page tables of EL2, which look at no reference, pin or mapping of the host"
STATES = (HW_HOST, HW_PRIVATE, HW_POISONED, HW_BOTH)
SIZES = "4 KiB entries; blocks of stage 2"
LOSES_CONTENT = False
HAS_ENTRIES = True
SPLITS_LATE = False
GUEST_TURNS = True
TABLE_PER_KIND = False
BY_PAGE = False


@fn
def pkvm_prepare(s, p):
    """Make page `p` private as a fault looks it up: nothing to do."""
    return OK


@fn
def pkvm_assign(s, p):
    """Donate page `p` to the guest as KVM maps it: the host's page becomes the guest's."""
    if s.uv[p].state == HW_HOST:
        s.uv[p].state = HW_PRIVATE
    return OK


@fn
def pkvm_guest_access(s, p, small):
    """The guest uses page `p`. The host has taken it by force: KVM_RUN ends with -EFAULT."""
    return E_POISONED if s.uv[p].state == HW_POISONED else OK


@fn
def pkvm_turn(s, p, shared):
    """The guest shares page `p`, or unshares it, __pkvm_guest_unshare_host(). No reference of the host is looked at,
    and the content stays."""
    if s.uv[p].state == HW_PRIVATE or s.uv[p].state == HW_BOTH:
        s.uv[p].state = HW_BOTH if shared else HW_PRIVATE
    return OK


@fn
def pkvm_host_access(s, p, how):
    """The host uses page `p`, which is the guest's alone: SIGSEGV for a process, an expected failure of a copy or a
    device. Elsewhere the kernel takes the page by force: it is zeroed, and its guest's next touch ends it."""
    if s.uv[p].state != HW_PRIVATE:
        return OK
    if how != BY_KERNEL:
        return E_SEGV if how == BY_USER else E_FAULTED
    s.uv[p].state, s.uv[p].lost = HW_POISONED, 1
    return E_STOLEN


@fn
def pkvm_unmap(s, p):
    """KVM unmaps page `p`: EL2 keeps its owner until it is made shared or reclaimed."""
    return OK


@fn
def pkvm_make_shared(s, p):
    """Page `p` becomes the host's with its content. With one hook for this and for a free it is scrubbed."""
    if s.uv[p].state == HW_PRIVATE:
        s.uv[p].state, s.uv[p].lost = HW_HOST, s.cfg[0].one_hook
    return OK


@fn
def pkvm_reclaim(s, p):
    """Page `p` leaves the file: scrubbed, and the host's."""
    if s.uv[p].state == HW_PRIVATE or s.uv[p].state == HW_BOTH:
        s.uv[p].state, s.uv[p].lost = HW_HOST, 1
    return OK


@fn
def pkvm_join(s, p):
    """A block of stage 2 maps the huge page at `p`."""
    set_entries(s, p, 1)
    return OK


@fn
def pkvm_split(s, p, memory):
    """Split the block at `p`."""
    set_entries(s, p, 0)
    return OK
