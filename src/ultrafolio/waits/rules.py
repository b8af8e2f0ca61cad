"""The obstacles of an actor in one state, as functions in the rules' subset of Python: the checker, the simulator and
the services load them with the rules, interpreted or compiled.

An *obstacle* is a condition that refuses a step of the waiter; each is a bit:

    OB_MAPPED      its page is not mapped writable
    OB_MUTEX       the VM's import mutex is taken
    OB_LOCK        the folio lock is taken
    OB_WRITEBACK   the folio is in writeback
    OB_REFS        the page, or its folio, has extra references
    OB_DIRTY       the large folio is dirty, and its file system refuses to split it
    OB_FROZEN      the count is frozen (for a pin)

What the waiter holds itself is no obstacle for it. The order of the bits is that in which an import meets them.
"""

from __future__ import annotations

from ultrafolio.model.layout import *
from ultrafolio.model.rule import fn
from ultrafolio.model.rules.folio import counted, extra_refs, head, writable
from ultrafolio.model.rules.imports import never_matches
from ultrafolio.model.rules.ultravisor import hw_guest

from .tables import *


# ------------------------------------------------------------------------------------------------ who waits
@fn
def is_pending(s, t):
    """Whether actor `t` has begun what a leads-to must end: an access, an unshare, a pin, a writeback.

    Excluded are a writeback whose I/O never completes, and an access of the host: a guest that touches the page
    repeatedly may take it away each time, under every policy.
    """
    kind, pc = s.who[t].kind, s.task[t].pc
    if kind == VCPU:
        return s.actor[t].op != NOTHING
    if kind == WRITEBACK:
        return pc != WB_IDLE and not (pc == WB_END and s.who[t].stuck)
    return kind in (DISK, RING, PIN, INTERRUPT) and (pc == PIN_GET or ACC_TEST <= pc <= ACC_CLEAR)


@fn
def waited_page(s, t):
    """Returns the page that a waiting actor waits for."""
    k = s.task[t]
    if s.who[t].kind == VCPU:
        return s.actor[t].page
    if k.pc == PIN_GET and k.at < k.n:
        return k.page + k.at
    return k.page


@fn
def is_dead(s, t):
    """Whether actor `t`, a vCPU or a device, or its guest is dead: its wait never ends."""
    kind = s.who[t].kind
    if kind != VCPU and kind != DISK and kind != RING and kind != PIN and kind != INTERRUPT:
        return False
    return s.task[t].pc == DEAD or s.vm[s.who[t].vm].life == KILLED


@fn
def would_end(s, vm, p, op):
    """Whether the hardware lets an instruction (op) of guest `vm` on page `p` complete now."""
    if hw_guest(s, vm, p) != ALLOWED:
        return False
    return op != UNSHARE or s.uv[p].state != PINNED_SHARED


@fn
def ends_next(s, t):
    """Whether the hardware lets vCPU `t` complete its instruction when it re-enters the guest."""
    return would_end(s, s.who[t].vm, s.actor[t].page, s.actor[t].op)


# ------------------------------------------------------------------------------------------- what each thread holds
@fn
def holds(s, a, what):
    """Whether thread `a` holds `what`, OB_LOCK, WRITEBACK or OB_FROZEN, of the folio of its page."""
    k = s.task[a]
    if ACC_TEST <= k.pc <= ACC_CLEAR:
        return k.then == WB_IO and what != OB_FROZEN
    if k.pc == IMPORT_LARGE:
        return what == OB_LOCK and s.cfg[0].large_at != LARGE_BEFORE_LOCK
    return HOLDS[k.pc] & what > 0


@fn
def waiter_holds(s, t, what):
    """Whether waiter `t` holds `what` itself: then it is no obstacle for it."""
    return s.task[t].page == waited_page(s, t) and holds(s, t, what)


@fn
def first_of(s, p, whole):
    """Returns the first page of the unit whose references count for page `p`: its folio if `whole` or P.refs =
    folio."""
    return head(s, p) if whole or s.cfg[0].refs == REFS_FOLIO else p


@fn
def end_of(s, p, whole):
    """Returns the end (exclusive) of the unit of first_of()."""
    if whole or s.cfg[0].refs == REFS_FOLIO:
        return head(s, p) + (1 << s.mm[p].order)
    return p + 1


@fn
def to_split(s, p):
    """Whether an import of page `p` must split its folio first."""
    return s.mm[p].order > 0 and s.cfg[0].large == LARGE_SPLIT


@fn
def present(s, t, p, whole):
    """Returns the obstacles present for waiter `t` and page `p`, at whichever rule the waiter is. whole: count
    references over the folio."""
    h = s.mm[head(s, p)]
    found = 0 if writable(s, p) else OB_MAPPED
    mutex = s.vm[s.who[t].vm].mutex
    if mutex and mutex != t + 1:
        found |= OB_MUTEX
    if h.locked and not waiter_holds(s, t, OB_LOCK):
        found |= OB_LOCK
    if h.writeback != NO_WRITEBACK and not waiter_holds(s, t, OB_WRITEBACK):
        found |= OB_WRITEBACK
    refs = h.refs if whole else extra_refs(s, p)
    if refs > (s.task[t].ref if s.task[t].page == p else 0) or never_matches(s, p):
        found |= OB_REFS
    if h.dirty and h.backing == IOMAP and to_split(s, p):
        found |= OB_DIRTY
    if s.mm[counted(s, p)].frozen and not waiter_holds(s, t, OB_FROZEN):
        found |= OB_FROZEN
    return found


@fn
def is_vcpu(s, t):
    """Whether actor `t` is a vCPU."""
    return s.who[t].kind == VCPU


@fn
def unshares(s, t):
    """Whether actor `t` is a vCPU in an unshare."""
    return s.who[t].kind == VCPU and s.actor[t].op == UNSHARE


@fn
def batches(s, p, whole):
    """Returns how many pages of the unit of first_of() are in an LRU batch."""
    found = 0
    for q in range(first_of(s, p, whole), end_of(s, p, whole)):
        found += 1 if s.mm[q].batch else 0
    return found


@fn
def batched(s, p, whole, cpu):
    """Whether a page of the unit of first_of() is in the LRU batch of `cpu`."""
    for q in range(first_of(s, p, whole), end_of(s, p, whole)):
        if s.mm[q].batch == cpu + 1:
            return True
    return False


@fn
def contributes(s, a, t, p, whole):
    """Returns the obstacles of waiter `t` at page `p` that thread `a` holds."""
    k = s.task[a]
    found = 0
    if s.vm[s.who[t].vm].mutex == a + 1:
        found |= OB_MUTEX
    if head(s, k.page) == head(s, p):
        for what in (OB_LOCK, OB_WRITEBACK):
            if holds(s, a, what):
                found |= what
        if holds(s, a, OB_FROZEN) and counted(s, k.page) == counted(s, p):
            found |= OB_FROZEN
    first, end = first_of(s, p, whole), end_of(s, p, whole)
    if (k.at > 0 and k.page < end and first < k.page + k.at) or (first <= k.page < end and holds_plain(s, a)):
        found |= OB_REFS
    return found


@fn
def refusable(s, t):
    """Returns the obstacles that can still refuse a step of actor `t` before it is done.

    A vCPU whose page has become accessible is refused only by what it sleeps for in the host.
    """
    pc = s.task[t].pc
    if s.who[t].kind != VCPU:
        if pc == WB_LOCK:
            return OB_LOCK | OB_WRITEBACK
        return OB_FROZEN if pc == PIN_GET else 0
    if ends_next(s, t):
        return ASLEEP[pc]
    if HOLDS[pc] & OB_FROZEN > 0 or holds(s, t, OB_WRITEBACK):
        return 0
    found = OB_LOCK | OB_WRITEBACK | OB_REFS
    if s.cfg[0].import_lock == LOCK_VM and (s.actor[t].op == UNSHARE or writable(s, s.actor[t].page)):
        found |= OB_MUTEX
    if s.cfg[0].large == LARGE_SPLIT:
        found |= OB_DIRTY
    return found


@fn
def obstacles(s, t):
    """Returns the obstacles of actor `t`, for which is_pending() is true; 0 if another holds none."""
    p = waited_page(s, t)
    return present(s, t, p, to_split(s, p)) & refusable(s, t)


# ---------------------------------------------------------------------------------- what no fair step removes
@fn
def pins_stay(s, first, end):
    """Whether a pin on a page in [first, end) is permanent: a granted ring or other long-term pin, or direct I/O that
    never completes."""
    longs, pins = 0, 0
    for q in range(first, end):
        longs += s.mm[q].longs
        pins += s.mm[q].pins
    if longs or (pins and s.cfg[0].stuck):
        for a in range(s.cfg[0].actors):
            k = s.task[a]
            ready = k.pc == RING_READY or (k.pc == IO_END and s.who[a].stuck)
            if ready and k.page < end and first < k.page + k.at:
                return True
    return False


@fn
def writeback_stays(s, p):
    """Whether the writeback of the folio of `p` never completes."""
    if s.cfg[0].stuck and s.mm[head(s, p)].writeback != NO_WRITEBACK:
        for a in range(s.cfg[0].actors):
            if s.task[a].pc == WB_END and s.who[a].stuck and head(s, s.task[a].page) == head(s, p):
                return True
    return False


@fn
def leaked(s, first, end):
    """Whether a plain reference in [first, end) has no holder: an earlier fault-in leaked it."""
    if not s.cfg[0].faultin_leak:
        return False
    plain = 0
    for q in range(first, end):
        plain += s.mm[q].spec
    for a in range(s.cfg[0].actors):
        if first <= s.task[a].page < end and holds_plain(s, a):
            plain -= 1
    return plain > 0


@fn
def sleepers_hold(s, first, end):
    """Whether two imports sleep until the references in [first, end) are dropped, and each holds one of them."""
    found = 0
    for a in range(s.cfg[0].actors):
        k = s.task[a]
        if k.pc == SLEEP_REFS and k.ref and first <= k.page < end:
            found += 1
    return found > 1


@fn
def sleeps_on(s, a):
    """Whether thread `a` sleeps in the host for something permanent."""
    k = s.task[a]
    if k.pc == SLEEP_REFS:
        first, end = first_of(s, k.page, False), end_of(s, k.page, False)
        if pins_stay(s, first, end) or batches_stay(s, first, end):
            return True
        return leaked(s, first, end) or sleepers_hold(s, first, end)
    return (k.pc == WAIT_WRITEBACK or k.pc == WB_LOCK) and writeback_stays(s, k.page)


@fn
def plain_refs_stay(s, t, first, end):
    """Whether a plain reference in [first, end) is permanent: leaked, or of an import that sleeps for ever."""
    if s.cfg[0].stuck or s.cfg[0].on_busy == BUSY_SLEEP:
        for a in range(s.cfg[0].actors):
            k = s.task[a]
            if a != t and k.ref and first <= k.page < end and holds_plain(s, a) and sleeps_on(s, a):
                return True
    return leaked(s, first, end)


@fn
def holds_plain(s, a):
    """Whether thread `a` holds a plain reference on its page."""
    k = s.task[a]
    if k.ref or k.pc == PUT or k.pc == ACCESS_PUT:
        return True
    return s.who[a].kind == ACCESS and ACC_TEST <= k.pc <= ACC_CLEAR


@fn
def batches_stay(s, first, end):
    """Whether an LRU batch holds a page in [first, end) under a policy that never drains."""
    if s.cfg[0].drain == DRAIN_NONE:
        for q in range(first, end):
            if s.mm[q].batch:
                return True
    return False


@fn
def cleaned(s, p):
    """Whether a writeback with an endless budget may choose the folio of `p`."""
    h = head(s, p)
    for q in range(h, h + (1 << s.mm[p].order)):
        if s.pt[q].cleaned:
            return True
    return False


@fn
def dirt_stays(s, p):
    """Whether the dirty folio of `p` stays dirty: no import writes it back, no writeback of it is in progress, and none
    with an endless budget may choose it."""
    if s.cfg[0].split_writeback or cleaned(s, p):
        return False
    for a in range(s.cfg[0].actors):
        k = s.task[a]
        if (k.pc == WB_LOCK or k.pc == WB_START) and head(s, k.page) == head(s, p):
            return False
    return True


@fn
def staying(s, t):
    """Returns the obstacles of actor `t` that neither a fair step nor its own drain or split removes."""
    return lasting(s, t, obstacles(s, t))


@fn
def lasting(s, t, found):
    """Returns staying() of actor `t`, given found = obstacles()."""
    p = waited_page(s, t)
    left = 0
    if found & OB_MUTEX and sleeps_on(s, s.vm[s.who[t].vm].mutex - 1):
        left |= OB_MUTEX
    if found & OB_WRITEBACK and writeback_stays(s, p):
        left |= OB_WRITEBACK
    if s.cfg[0].on_busy == BUSY_GIVE_UP:
        return left
    whole = to_split(s, p)
    first, end = first_of(s, p, whole), end_of(s, p, whole)
    if found & OB_REFS and (
        never_matches(s, p)
        or pins_stay(s, first, end)
        or batches_stay(s, first, end)
        or plain_refs_stay(s, t, first, end)
    ):
        left |= OB_REFS
    if found & OB_DIRTY and dirt_stays(s, p):
        left |= OB_DIRTY
    return left


@fn
def is_expected(s, t):
    """Whether actor `t` unshares a page with a permanent pin: under every policy property 4 forbids that it ends."""
    if not unshares(s, t) or s.cfg[0].on_busy == BUSY_GIVE_UP:
        return False
    p = s.actor[t].page
    return pins_stay(s, p, p + 1) and not ends_next(s, t)


@fn
def class_of(s, t):
    """Returns the class of the wait of actor `t` from one state, an index of tables.CLASSES.

    Only the state graph divides CLASS_WAITING into transient and livelock.
    """
    if not is_pending(s, t):
        return CLASS_NONE
    if is_dead(s, t):
        return CLASS_FATAL
    if is_expected(s, t):
        return CLASS_EXPECTED
    found = obstacles(s, t)
    if not found:
        return CLASS_NONE
    return CLASS_PERMANENT if lasting(s, t, found) else CLASS_WAITING
