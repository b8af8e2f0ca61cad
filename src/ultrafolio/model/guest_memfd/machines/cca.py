"""The machine `cca`: Arm CCA. The granule protection table says whose a granule is, the RMM's tables map it. Mirrors
arch/arm64/kvm/rmi.c (KVM series v11 to v15, RMM 1.x), and the handler of granule protection faults (v17,
2026-09-30)."""

from __future__ import annotations

from ultrafolio.model.guest_memfd.layout import *
from ultrafolio.model.rule import fn

from .content import set_entries

ABOUT = "Arm CCA: the granule protection table, and the RMM's tables"
STATES = (HW_HOST, HW_ASSIGNED, HW_PRIVATE, HW_STUCK)
SIZES = "4 KiB granules; blocks of the RMM's tables"
LOSES_CONTENT = True
HAS_ENTRIES = True
SPLITS_LATE = True
GUEST_TURNS = False
TABLE_PER_KIND = True
BY_PAGE = True


@fn
def cca_prepare(s, p):
    """Make page `p` private as a fault looks it up: nothing to do."""
    return OK


@fn
def cca_assign(s, p):
    """Delegate granule `p` and create its entry, realm_map_protected(). It cannot be delegated: taken for a race with
    another vCPU, the guest faults again."""
    if s.uv[p].state != HW_HOST or s.uv[p].never:
        return E_BUSY
    s.uv[p].state = HW_ASSIGNED
    return OK


@fn
def cca_guest_access(s, p, small):
    """The guest uses page `p` as private: its RIPAS is RAM from then on."""
    if s.uv[p].state == HW_ASSIGNED:
        s.uv[p].state = HW_PRIVATE
    return OK


@fn
def cca_turn(s, p, shared):
    """The guest does not turn a page by itself: it asks its VMM."""
    return OK


@fn
def cca_host_access(s, p, how):
    """The host touches granule `p`, which is delegated: SIGBUS for a process, an expected failure of a copy or a
    device, an oops elsewhere."""
    if s.uv[p].state == HW_HOST:
        return OK
    if how == BY_USER:
        return E_SIGBUS
    return E_OOPS if how == BY_KERNEL else E_FAULTED


@fn
def cca_unmap(s, p):
    """DATA_DESTROY and undelegate granule `p`, realm_destroy_private_granule(): the content is lost. The granule cannot
    be undelegated: a warning, and it is lost to the host."""
    if s.uv[p].state == HW_HOST:
        return OK
    s.uv[p].lost, s.uv[p].large = 1, 0
    s.uv[p].state = HW_STUCK if s.uv[p].refuses else HW_HOST
    return E_LEAKED if s.uv[p].refuses else OK


@fn
def cca_make_shared(s, p):
    """Page `p` becomes shared: it was undelegated as it was unmapped."""
    return OK


@fn
def cca_reclaim(s, p):
    """Page `p` leaves the file: the same."""
    return cca_unmap(s, p)


@fn
def cca_join(s, p):
    """Fold the entries of the huge page at `p` into a block, realm_fold_rtt_level()."""
    set_entries(s, p, 1)
    return OK


@fn
def cca_split(s, p, memory):
    """Create the table under the block at `p`, which needs a granule."""
    if not memory:
        return E_NOMEM
    set_entries(s, p, 0)
    return OK
