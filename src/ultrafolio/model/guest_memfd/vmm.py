"""The VMM: it asks for conversions and holes, and answers the guest. It knows answers and exits only."""

from __future__ import annotations

from ultrafolio.model.guest_memfd.layout import *
from ultrafolio.model.guest_memfd.table import rule
from ultrafolio.model.rule import UNFAIR, fn
from ultrafolio.model.rules.thread import finished, spend, turn_come

from .fault import go_on


@fn
def asked_pages(s, t):
    """Returns how many pages a request of actor `t` is about: after an exit the one that was touched."""
    return 1 if s.actor[t].op == TOUCH else s.actor[t].n


@fn
def take_request(s, t, op):
    """The VMM is to convert the pages that the actor names: op UNSHARE to private, SHARE to shared. Returns OK."""
    k = s.task[t]
    k.call, k.page, k.n = op, s.actor[t].page, asked_pages(s, t)
    return ask(s, t, s.cfg[0].iommu == IOMMU_FIRST)


@fn
def ask(s, t, unmap):
    """Call the conversion; unmap: end the DMA mappings first, where the pages become private. Returns OK."""
    k = s.task[t]
    k.start, k.end = k.page, k.page + k.n
    return go_on(s, t, VMM_UNMAP if unmap and k.call == UNSHARE else CONVERT_LOCK)


@fn
def request_over(s, t, answer, outcome):
    """The VMM has done with a request: it answers the guest's vCPU, or is idle."""
    k = s.task[t]
    k.call, k.page, k.n, k.start, k.i, k.end, k.failed, k.drained, k.tries, k.splits = 0, 0, 0, 0, 0, 0, 0, 0, 0, 0
    if s.who[t].kind == VCPU:
        k.back, k.pc = answer, AGAIN
    else:
        s.actor[t].op, s.actor[t].page, k.pc = NOTHING, 0, VMM_IDLE
    finished(s, t)
    return outcome


@rule(VMM_IDLE, takers="vmm", tells_page=True, actor="vmm", fair=UNFAIR, chooses=True,
      kernel="KVM_SET_MEMORY_ATTRIBUTES2, queued for 7.4 (799c9fadc639)")  # fmt: skip
def vmm_start(s, t, op, page):
    """The VMM asks for a conversion of `actor.n` pages, with no request of its guest."""
    if not turn_come(s, t) or not spend(s, t):
        return W_IDLE
    s.actor[t].op, s.actor[t].page = op, page
    return take_request(s, t, op)


@rule(HOLE_IDLE, takers="hole", tells_page=True, actor="vmm", fair=UNFAIR, chooses=True,
      kernel="fallocate(FALLOC_FL_PUNCH_HOLE), v6.8")  # fmt: skip
def hole_start(s, t, op, page):
    """The VMM punches a hole of `actor.n` pages."""
    if not turn_come(s, t) or not spend(s, t):
        return W_IDLE
    k = s.task[t]
    k.start, k.end, k.pc = page, page + s.actor[t].n, HOLE_LOCK
    return OK


@rule(EXITED, takers="vcpu", actor="vmm", kernel="KVM_EXIT_MEMORY_FAULT, v6.8")
def vmm_reenter(s, t):
    """An access of the other kind than the attribute: the VMM lets the vCPU go on, or converts the page first
    (P.on_exit)."""
    private, s.task[t].then, s.task[t].pc = s.task[t].then, 0, AGAIN
    if s.cfg[0].on_exit == EXIT_CONVERT:
        take_request(s, t, UNSHARE if private == 2 else SHARE)
    return OK


@rule(VMM_UNMAP, takers="vcpu vmm", actor="vmm", kernel="RamDiscardManager of QEMU, 2025")
def vmm_unmap(s, t):
    """The VMM asks to end its DMA mappings of the pages (P.iommu)."""
    for p in range(s.task[t].start, s.task[t].end):
        s.io[p].asked = 1
    return go_on(s, t, VMM_UNMAPPED)


@rule(VMM_UNMAPPED, takers="vcpu vmm", actor="vmm", kernel="RamDiscardManager of QEMU, 2025")
def vmm_unmapped(s, t):
    """They have ended: call the conversion."""
    k = s.task[t]
    for p in range(k.start, k.end):
        if s.io[p].dma:
            return W_DEVICE
    for p in range(k.start, k.end):
        s.io[p].asked = 0
    return go_on(s, t, CONVERT_LOCK)


@rule(VMM_RETRY, takers="vcpu vmm", actor="vmm", kernel="-EAGAIN of KVM_SET_MEMORY_ATTRIBUTES2, queued for 7.4")
def vmm_retry(s, t):
    """The request was refused: ask again, for ever or up to P.retries refusals; then tell the guest no."""
    k = s.task[t]
    k.failed, k.splits = 0, 0
    k.tries += 1 if s.cfg[0].retries else 0
    if s.cfg[0].retries and k.tries >= s.cfg[0].retries:
        return request_over(s, t, REFUSED, E_TOLD_NO)
    return ask(s, t, s.cfg[0].iommu != IOMMU_NEVER)
