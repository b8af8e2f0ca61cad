"""The obstacles of an actor in one state of the design guest_memfd: the functions of rules.py under the same names.

Three obstacles exist: OB_LOCK, the inode's invalidate lock, which a conversion wants alone and a fault shared; OB_REFS,
what somebody holds of a page that is to become private, or of a huge page that is split: a pin, a reference, a batch, a
user mapping; OB_MUTEX, the lock of a fresh huge folio, for which a fault sleeps.
"""

from __future__ import annotations

from ultrafolio.model.guest_memfd.blocks import block_after, block_of
from ultrafolio.model.guest_memfd.guest import is_reachable
from ultrafolio.model.guest_memfd.layout import *
from ultrafolio.model.guest_memfd.restructure import order_wanted
from ultrafolio.model.guest_memfd.table import STEPS
from ultrafolio.model.guest_memfd.vmm import asked_pages
from ultrafolio.model.rule import fn
from ultrafolio.model.rules.folio import extra_refs

from . import tables as _tables
from .tables import *

CLASS_VMM_BOUND = len(_tables.CLASSES)
CLASSES = (*_tables.CLASSES, "vmm-bound")  # type: ignore[assignment]
HOLDS_LOCK = tuple(int(pc in STEPS and "lock" in STEPS[pc].holds) for pc in range(max(STEPS) + 1))
"""Per rule: whether a thread at it holds the invalidate lock. From Rule.holds."""


# ------------------------------------------------------------------------------------------------ who waits
@fn
def is_device(kind):
    """Whether an actor of this kind takes references on pages that its process maps."""
    return kind == DISK or kind == PIN or kind == SPLICE


@fn
def is_pending(s, t):
    """Whether actor `t` has begun what a leads-to must end: a fault, a request, a pin. An exit to the VMM ends it."""
    kind, pc = s.who[t].kind, s.task[t].pc
    if kind == VCPU:
        return s.actor[t].op != NOTHING and pc != EXITED
    if kind == VMM:
        return pc != VMM_IDLE
    if kind == USER:
        return pc != USER_IDLE
    return is_device(kind) and (pc == GUP_WALK or USER_LOCK <= pc <= GUP_RECHECK or is_fresh(pc))


@fn
def is_fresh(pc):
    """Whether a thread at rule `pc` has allocated a huge page that it is to split."""
    return pc == FRESH_UNLOCK or pc == FRESH_SPLIT


@fn
def is_asleep(s, t):
    """Whether thread `t` sleeps for the lock of a fresh huge folio."""
    k = s.task[t]
    at_look = k.ref and (k.pc == FAULT_LOOKUP or k.pc == USER_LOOKUP)
    return at_look and s.mm[block_of(s, k.page + k.at)].allocated > THERE


@fn
def waited_page(s, t):
    """Returns the page that a waiting actor waits for; of a request the first."""
    kind, k = s.who[t].kind, s.task[t]
    if kind == VCPU or kind == VMM:
        return s.actor[t].page
    return k.page + k.at if k.at < k.n else k.page


@fn
def is_dead(s, t):
    """Whether actor `t` is dead: nothing in this design kills it."""
    return False


@fn
def is_vcpu(s, t):
    """Whether actor `t` is a vCPU."""
    return s.who[t].kind == VCPU


@fn
def unshares(s, t):
    """Whether the wait of actor `t` may be the purpose of a pin: none is in this design."""
    return False


@fn
def is_expected(s, t):
    """See unshares()."""
    return False


@fn
def requests(s, t):
    """Whether actor `t` asks for a conversion: by itself, or by its VMM's answer to an exit."""
    kind = s.who[t].kind
    return kind == VMM or (kind == VCPU and (s.actor[t].op != TOUCH or s.task[t].call >= SHARE))


@fn
def wants_private(s, t):
    """Whether what actor `t` asks for, by itself or by its VMM, is a conversion to private."""
    return s.actor[t].op == UNSHARE or s.task[t].call == UNSHARE


@fn
def wants_alone(s, t):
    """Whether actor `t` wants the invalidate lock alone: a fault that shares it is in its way, too."""
    return requests(s, t) or s.who[t].kind == HOLE


@fn
def refused_by_blocks(s, t):
    """Whether references on all of the huge pages that a request of actor `t` splits or merges are in its way from its
    beginning: one that is met refuses the request."""
    return s.cfg[0].split_refuses and s.cfg[0].block > 0 and requests(s, t)


@fn
def restructures(s, t, p):
    """Whether the request of actor `t` splits or merges the huge page of `p`."""
    page, order, call = s.actor[t].page, s.mm[p].order, UNSHARE if wants_private(s, t) else SHARE
    return order_wanted(s, block_of(s, p), order, page, page + asked_pages(s, t), call) != order


@fn
def first_of(s, t):
    """Returns the first page whose references are in the way of actor `t`: of its request, and in a split or a merge
    of the huge page."""
    k, page = s.task[t], s.actor[t].page
    if k.pc == FRESH_SPLIT:
        return block_of(s, k.page + k.at)
    if refused_by_blocks(s, t):
        return block_of(s, page) if restructures(s, t, page) else page
    if k.pc != CONVERT_RESTRUCTURE:
        return page
    first = block_of(s, k.start)
    return min(first, page) if k.call == UNSHARE else first


@fn
def end_of(s, t):
    """Returns the end (exclusive) of the pages of first_of()."""
    k, end = s.task[t], s.actor[t].page + asked_pages(s, t)
    if k.pc == FRESH_SPLIT:
        return block_after(s, k.page + k.at)
    if refused_by_blocks(s, t):
        return block_after(s, end - 1) if restructures(s, t, end - 1) else end
    if k.pc != CONVERT_RESTRUCTURE:
        return end
    after = block_after(s, k.end - 1)
    return max(after, end) if k.call == UNSHARE else after


@fn
def asks_references(s, t):
    """Whether actor `t` asks for a conversion to private, which foreign references refuse, or splits or merges
    folios."""
    if s.task[t].pc == FRESH_SPLIT:
        return True
    return requests(s, t) and (wants_private(s, t) or s.task[t].pc == CONVERT_RESTRUCTURE or refused_by_blocks(s, t))


@fn
def hw_guest(s, vm, p):
    """Returns the result of an access of the guest to page `p`: ALLOWED, or a fault."""
    return ALLOWED if is_reachable(s, p) else DAT_FAULT


@fn
def to_split(s, p):
    """Whether references count over the folio of page `p`: folios are single pages here."""
    return False


# ------------------------------------------------------------------------------------------- what each thread holds
@fn
def holds_lock(s, a):
    """Whether thread `a` holds the invalidate lock, alone or shared."""
    return HOLDS_LOCK[s.task[a].pc] > 0


@fn
def references(s, a, first, end):
    """Returns whether thread `a` uses a page in [first, end): it has a pin or a reference on it, or its process maps
    it."""
    k, kind = s.task[a], s.who[a].kind
    pinned = k.at + (1 if k.pc == GUP_RECHECK else 0)
    if is_device(kind) and pinned > 0 and k.page < end and first < k.page + pinned:
        return True
    if (k.ref or k.pc == PUT) and first <= k.page + k.at < end:
        return True
    if kind == USER or is_device(kind):
        for q in range(first, end):
            if s.mm[q].users >> s.who[a].process & 1:
                return True
    return False


@fn
def holding(s, a):
    """Returns the obstacles that thread `a` is to any waiter: the locks, references on any page."""
    found = (OB_LOCK if holds_lock(s, a) else 0) | (OB_MUTEX if is_fresh(s.task[a].pc) else 0)
    return found | (OB_REFS if references(s, a, 0, s.cfg[0].pages) else 0)


@fn
def present(s, t, p, whole):
    """Returns the obstacles present for waiter `t`, at whichever rule it is."""
    mutex = s.vm[s.who[t].vm].mutex
    found = OB_LOCK if mutex != t + 1 and (mutex > 0 or (mutex < 0 and wants_alone(s, t))) else 0
    found |= OB_MUTEX if is_asleep(s, t) else 0
    if asks_references(s, t):
        for q in range(first_of(s, t), end_of(s, t)):
            if extra_refs(s, q) or s.mm[q].users:
                found |= OB_REFS
    return found


@fn
def contributes(s, a, t, p, whole):
    """Returns the obstacles of waiter `t` that thread `a` holds."""
    found = OB_LOCK if holds_lock(s, a) and (wants_alone(s, t) or s.vm[s.who[t].vm].mutex == a + 1) else 0
    if is_asleep(s, t) and is_fresh(s.task[a].pc):
        same = block_of(s, s.task[a].page + s.task[a].at) == block_of(s, s.task[t].page + s.task[t].at)
        found |= OB_MUTEX if same else 0
    if asks_references(s, t) and references(s, a, first_of(s, t), end_of(s, t)):
        found |= OB_REFS
    return found


@fn
def in_batches(s, t):
    """Returns how many pages of waiter `t`'s request are in an LRU batch."""
    found = 0
    if asks_references(s, t):
        for q in range(first_of(s, t), end_of(s, t)):
            found += 1 if s.mm[q].batch else 0
    return found


@fn
def in_batch_of(s, t, cpu):
    """Whether a page of waiter `t`'s request is in the LRU batch of `cpu`."""
    if asks_references(s, t):
        for q in range(first_of(s, t), end_of(s, t)):
            if s.mm[q].batch == cpu + 1:
                return True
    return False


@fn
def drains(s):
    """Whether a request drains the batches that hold its pages."""
    return s.cfg[0].drain == DRAIN_ONCE


@fn
def obstacles(s, t):
    """Returns the obstacles of actor `t`, for which is_pending() is true."""
    if s.who[t].kind == VCPU and s.actor[t].op == TOUCH and is_reachable(s, s.actor[t].page):
        return 0
    return present(s, t, waited_page(s, t), False)


# ---------------------------------------------------------------------------------- what no fair step removes
@fn
def stands(s, a):
    """Whether thread `a` has what no fair step ends: 1 a pin or a pipe that the VMM may end, 2 I/O that never
    completes."""
    pc = s.task[a].pc
    if pc == DMA_STANDS or pc == PIPE_READ:
        return 1
    return 2 if pc == DMA_END and s.who[a].stuck else 0


@fn
def lasting(s, t, found):
    """Returns the obstacles of actor `t` that no fair step removes, given found = obstacles()."""
    return OB_REFS if found & OB_REFS and stays(s, t) else 0


@fn
def staying(s, t):
    """Returns lasting() of actor `t`."""
    return lasting(s, t, obstacles(s, t))


@fn
def stays(s, t):
    """Returns what uses a page of actor `t`'s request for good: 0 nothing, 1 pins that the VMM may end, 2 others.

    An entry of the same process is not for good: the conversion itself removes it.
    """
    most = 0
    for a in range(s.cfg[0].actors):
        k = s.task[a]
        stand = stands(s, a)
        if stand and k.page < end_of(s, t) and first_of(s, t) < k.page + k.at:
            most = max(most, stand)
    if s.cfg[0].hold == HOLD_MAPPING and asks_references(s, t):
        for q in range(first_of(s, t), end_of(s, t)):
            if s.pt[q].present != UNMAPPED:
                return 2
    return 2 if not drains(s) and in_batches(s, t) else most


@fn
def class_of(s, t):
    """Returns the class of the wait of actor `t` from one state, an index of CLASSES."""
    if not is_pending(s, t):
        return CLASS_NONE
    found = obstacles(s, t)
    if not found:
        return CLASS_NONE
    if not lasting(s, t, found) or s.cfg[0].retries:
        return CLASS_WAITING
    return CLASS_VMM_BOUND if stays(s, t) == 1 else CLASS_PERMANENT
