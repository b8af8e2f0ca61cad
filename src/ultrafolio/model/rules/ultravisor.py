"""The ultravisor's calls and the hardware's view of an access: the tables of model.md §2.1 and §2.2.

Each call is one instruction: posting, executing and taking the result is one step of whoever issues it.
The host learns page states only from these return values. Constants and order of effects follow
Linux arch/s390/include/asm/uv.h (v6.13) and kvm-unit-tests s390x/uv-host.c; kernel §1.4, §2.2.
"""

from __future__ import annotations

from ultrafolio.model.layout import *
from ultrafolio.model.rule import fn


@fn
def hw_guest(s, vm, p):
    """Returns the result of an access of a vCPU of `vm` to page `p`: ALLOWED, or the exception."""
    if s.pt[p].present != MAPPED:
        return DAT_FAULT
    uv = s.uv[p]
    if uv.state == NON_SECURE or uv.state == EXPORTED:
        return PGM_3E
    if uv.owner == vm:
        return ALLOWED
    return PGM_3F if uv.state == SECURE else PGM_3E


@fn
def hw_host(s, p):
    """Returns the result of an access of the host to page `p`: ALLOWED, or the exception."""
    return PGM_3D if s.uv[p].state == SECURE else ALLOWED


@fn
def uv_import(s, vm, p, misc):
    """Convert to secure (0x0200): clear a new page, or decrypt and check an exported one.

    A page exported while it was shared comes back shared; an exported page of another guest is new to
    this one and comes back cleared. Another guest's page that was not exported first moves only where
    the ultravisor has the ownership-transfer feature (`misc`).
    """
    uv = s.uv[p]
    if uv.refuses:
        return UV_ERROR
    if uv.state == NON_SECURE or (uv.state == EXPORTED and uv.owner != vm):
        uv.state, uv.owner, uv.shared, uv.altered = SECURE, vm, 0, 0
        return UV_OK
    if uv.owner != vm:
        if not misc or uv.state == SECURE:
            return UV_ERROR
        uv.state, uv.owner, uv.shared, uv.altered = SECURE, vm, 0, 0
        return UV_OK
    if uv.state == EXPORTED:
        if s.mm[p].altered:
            return UV_INTEGRITY
        uv.state = SHARED if uv.shared else SECURE
        uv.altered = s.mm[p].altered
        uv.shared = 0
    return UV_OK


@fn
def uv_export(s, p):
    """Convert from secure (0x0201): encrypt, keep hash and counter; no-op on a page the host may read."""
    uv = s.uv[p]
    if uv.refuses:
        return UV_ERROR
    if uv.state != NON_SECURE and uv.state != EXPORTED:
        uv.shared = 1 if uv.state != SECURE else 0
        uv.state = EXPORTED
        s.mm[p].altered = 0
    return UV_OK


@fn
def uv_pin(s, p):
    """Pin page shared (0x0341): from now on the guest's unshare exits to the host."""
    uv = s.uv[p]
    if uv.refuses or (uv.state != SHARED and uv.state != PINNED_SHARED):
        return UV_ERROR
    uv.state = PINNED_SHARED
    return UV_OK


@fn
def uv_unpin(s, vm, p):
    """Unpin page shared (0x0342): complete the pending unshare of the guest; import-like."""
    uv = s.uv[p]
    if uv.refuses or uv.state == NON_SECURE or uv.owner != vm:
        return UV_ERROR
    if uv.state == EXPORTED:
        if s.mm[p].altered:
            return UV_INTEGRITY
        uv.altered = s.mm[p].altered
    uv.state, uv.shared = SECURE, 0
    return UV_OK


@fn
def uv_share(s, vm, p):
    """Set shared (0x1000), by the guest on a page it may access; the host does not see it."""
    uv = s.uv[p]
    if uv.state == SECURE and uv.owner == vm:
        uv.state = SHARED
    return UV_OK


@fn
def uv_unshare(s, vm, p):
    """Remove shared (0x1001), by the guest: secure at once, or an exit where the host pinned the page."""
    uv = s.uv[p]
    if uv.state == PINNED_SHARED:
        return UV_EXIT
    if uv.state == SHARED and uv.owner == vm:
        uv.state = SECURE
    return UV_OK


@fn
def uv_shared(s, vm, p):
    """Whether guest `vm` shares page `p`, as it knows itself: also while the page is exported."""
    uv = s.uv[p]
    if uv.owner != vm:
        return False
    return uv.state == SHARED or uv.state == PINNED_SHARED or (uv.state == EXPORTED and uv.shared > 0)


@fn
def uv_destroy(s, p):
    """Destroy page (0x0202): zeros, accessible to the host; no-op on a page that is not secure (new firmware)."""
    uv = s.uv[p]
    uv.state, uv.owner, uv.shared, uv.altered = NON_SECURE, 0, 0, 0
    return UV_OK


@fn
def uv_unshare_all(s, vm):
    """Unshare all (0x0340): every shared page of `vm` is secure again, pinned or not; used on a guest's reset."""
    for p in range(s.cfg[0].pages):
        uv = s.uv[p]
        if uv.owner == vm and (uv.state == SHARED or uv.state == PINNED_SHARED):
            uv.state = SECURE
    return UV_OK


@fn
def uv_reset(s, vm):
    """Unshare all, then destroy every page of `vm`: one call, since apart they would be secure with the bit clear."""
    uv_unshare_all(s, vm)
    for p in range(s.cfg[0].pages):
        if s.uv[p].state != NON_SECURE and s.uv[p].owner == vm:
            uv_destroy(s, p)
    return UV_OK
