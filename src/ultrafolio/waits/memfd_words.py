"""What is particular to the words of waits in the design guest_memfd: names, reasons and holders."""

from __future__ import annotations

from typing import Any

from ultrafolio.model.designs import GUEST_MEMFD
from ultrafolio.model.guest_memfd import layout
from ultrafolio.model.guest_memfd.layout import MemfdState

from .load import interpreted
from .tables import OB_LOCK, OB_MUTEX, OB_REFS
from .words import Holder

FAULT, REQUEST, PIN = GUEST_MEMFD.leads_to


def leads_to(kind: int, op: int) -> str:
    """Returns the leads-to property for an actor of this kind; op: a vCPU's operation."""
    if kind == layout.USER or (kind == layout.VCPU and op in (layout.NOTHING, layout.TOUCH)):
        return FAULT
    return REQUEST if kind in (layout.VCPU, layout.VMM) else PIN


def is_met(kind: int, outcome: int) -> bool:
    """Returns True: in this design an operation ends by its own answer only, which is what its leads-to asks for."""
    return True


def name(s: MemfdState, t: int) -> str:
    """Returns an actor's name: "user 1"."""
    return f"{layout.KINDS[s.who[t].kind]} {t}"


def short(s: MemfdState, t: int) -> str:
    """The same as one word."""
    return f"{layout.KINDS[s.who[t].kind]}{t}"


def waiter_words(s: MemfdState, t: int, page: int) -> str:
    """Returns the waiter with what it began: "vcpu 0 (request to private, page 1)"."""
    kind, op, n = s.who[t].kind, s.actor[t].op, s.actor[t].n
    if kind == layout.VMM or (kind == layout.VCPU and op != layout.TOUCH):
        to = "private" if op == layout.UNSHARE else "shared"
        pages = f"page {page}" if n == 1 else f"pages {page} to {page + n - 1}"
        return f"{name(s, t)} (request to {to}, {pages})"
    return f"{name(s, t)} ({'pin of' if kind in GUEST_MEMFD.devices else 'touch'} page {page})"


def what_for(s: MemfdState, t: int, obstacle: int, page: int, whole: bool) -> str:
    """Returns what waiter `t` waits for, in words."""
    if obstacle == OB_LOCK:
        return "the inode's invalidate lock"
    if obstacle == OB_MUTEX:
        return f"the lock of the fresh folio of page {page}"
    assert obstacle == OB_REFS, "no other obstacle exists in this design"
    if s.task[t].pc == layout.FRESH_SPLIT:
        return f"the foreign references of the fresh folio of page {page}"
    return f"the foreign references of the request that begins with page {page}"


def holders(
    s: MemfdState, t: int, obstacle: int, page: int, whole: bool, followed: tuple[int, ...] = ()
) -> list[Holder]:
    """Returns every holder, but the waiter, of an obstacle that is present for waiter `t`."""
    run: Any = interpreted(GUEST_MEMFD)
    first, end = run.first_of(s, t), run.end_of(s, t)
    found = [
        _user(s, a, first, end) if obstacle == OB_REFS else _locker(s, a, obstacle)
        for a in range(len(s.task))
        if a != t and run.contributes(s, a, t, page, whole) & obstacle
    ]
    for q in range(first, end) if obstacle == OB_REFS else ():
        if s.mm[q].batch:
            found.append(_batch(s, q))
        if s.cfg[0].hold == layout.HOLD_MAPPING and s.pt[q].present != layout.UNMAPPED:
            found.append(Holder(None, f"KVM's mapping of page {q}", "an unmap of that page", True, f"kvm:mapping@{q}"))
    return found


def _locker(s: MemfdState, a: int, obstacle: int) -> Holder:
    """Returns the holder for a thread that holds the invalidate lock, or is to unlock or split a fresh folio."""
    if obstacle == OB_MUTEX:
        who, wakes = name(s, a), s.task[a].pc == layout.FRESH_UNLOCK and not s.cfg[0].no_wake
        step = "fresh-unlock" if wakes else "fresh-split"
        return Holder(a, f"{who}, which allocated it", f"{step} of {who}", brief=f"folio:{short(s, a)}")
    return Holder(a, name(s, a), f"the unlock by {name(s, a)}", brief=f"lock:{short(s, a)}")


def _batch(s: MemfdState, q: int) -> Holder:
    """Returns the holder for the batch that holds a page."""
    drains, cpu = s.cfg[0].drain == layout.DRAIN_ONCE, s.mm[q].batch - 1
    return Holder(
        None,
        f"the LRU batch of CPU {cpu}, which holds page {q}",
        "convert-drain-all" if drains else "a drain, which this policy does not do",
        not drains,
        f"batch:cpu{cpu}@{q}",
    )


def _user(s: MemfdState, a: int, first: int, end: int) -> Holder:
    """Returns the holder for a thread that uses a page of a request, by the most lasting of its uses."""
    k, who = s.task[a], name(s, a)
    brief = f"ref:{short(s, a)}@{k.page}"
    stand = interpreted(GUEST_MEMFD).stands(s, a)
    if k.at and k.page < end and first < k.page + k.at:
        where = f"page {k.page}" if k.at == 1 else f"pages {k.page} to {k.page + k.at - 1}"
        brief = f"pin:{short(s, a)}@{k.page}"
        if k.pc == layout.DMA_STANDS:
            return Holder(
                a, f"{who}'s long-term pin on {where}", f"dma-unmap of {who}, which the VMM may take", True, brief
            )
        if k.pc == layout.PIPE_READ:
            return Holder(
                a, f"the pipe of {who}, with page {k.page}", f"pipe-read of {who}, which the VMM may take", True,
                f"pipe:{short(s, a)}@{k.page}",
            )  # fmt: skip
        never = ", which never comes: its I/O does not complete" if stand else ""
        ends = "dma-unmap" if s.cfg[0].iommu == layout.IOMMU_NEVER else "dma-unmap-asked"
        step = "io-end and unpin" if s.who[a].kind == layout.DISK else f"{ends} and unpin"
        return Holder(a, f"{who}'s pin on {where}", f"{step} of {who}{never}", stand > 0, brief)
    asleep = ", which sleeps for the folio's lock" if interpreted(GUEST_MEMFD).is_asleep(s, a) else ""
    if k.ref and s.who[a].kind == layout.VCPU:
        whose = f"KVM's own reference on page {k.page}, of the fault of {who}{asleep}"
        return Holder(a, whose, f"fault-map of {who}", brief=brief)
    if k.ref:
        return Holder(a, f"the fault of {who} on page {k.page + k.at}{asleep}", f"user-map of {who}", brief=brief)
    if k.pc == layout.PUT:
        return Holder(a, f"{who}'s reference on page {k.page}", f"plain-put of {who}", brief=brief)
    if k.pc == layout.GUP_RECHECK:
        return Holder(a, f"{who}'s reference on page {k.page + k.at}", f"gup-recheck of {who}", brief=brief)
    process = s.who[a].process
    return Holder(a, f"the mapping of {who}, of process {process}", "convert-unmap", brief=f"map:{short(s, a)}")
