"""The machine `software`: KVM's software-protected virtual machines. Nothing but KVM's own tables keeps the host from a
private page, and a conversion keeps its content."""

from __future__ import annotations

from ultrafolio.model.guest_memfd.layout import *
from ultrafolio.model.rule import fn

ABOUT = "KVM's software-protected virtual machines: only KVM's own tables enforce who uses a page"
STATES = (HW_HOST,)
SIZES = "none of its own"
LOSES_CONTENT = False
HAS_ENTRIES = False
SPLITS_LATE = False
GUEST_TURNS = False
TABLE_PER_KIND = False
BY_PAGE = False


@fn
def software_prepare(s, p):
    """Make page `p` private as a fault looks it up: nothing to do."""
    return OK


@fn
def software_assign(s, p):
    """Give page `p` to the guest as KVM maps it: nothing to do."""
    return OK


@fn
def software_guest_access(s, p, small):
    """The guest uses page `p` as private: allowed wherever KVM maps it."""
    return OK


@fn
def software_turn(s, p, shared):
    """The guest does not turn a page by itself: it asks its VMM."""
    return OK


@fn
def software_host_access(s, p, how):
    """The host uses page `p`: allowed; only its own tables keep it away."""
    return OK


@fn
def software_unmap(s, p):
    """KVM unmaps page `p`, which it maps as private: the content stays."""
    return OK


@fn
def software_make_shared(s, p):
    """Page `p` becomes shared: nothing to do."""
    return OK


@fn
def software_reclaim(s, p):
    """Page `p` leaves the file: it was the host's all along."""
    return OK


@fn
def software_join(s, p):
    """KVM's table maps the huge page at `p` as one: nothing to do."""
    return OK


@fn
def software_split(s, p, memory):
    """KVM's table maps the huge page at `p` in pages: nothing to do."""
    return OK
