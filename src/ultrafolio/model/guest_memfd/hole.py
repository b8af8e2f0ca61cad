"""A hole in the file. Mirrors kvm_gmem_punch_hole() in virt/kvm/guest_memfd.c (v6.8).

A page that somebody else still references lives on outside the file, and the model has only the page at an offset. So
a hole waits here for the faults under way, and no scenario has a hole beside what may keep a page for longer.
"""

from __future__ import annotations

from ultrafolio.model.guest_memfd.layout import *
from ultrafolio.model.guest_memfd.machines.verbs import *
from ultrafolio.model.guest_memfd.table import rule
from ultrafolio.model.rule import STRONG, fn
from ultrafolio.model.rules.thread import finished

from .blocks import leave
from .fault import end_invalidation, kill, lock, unlock_alone


@rule(HOLE_LOCK, takers="hole", sleeps="lock", fair=STRONG,
      kernel="filemap_invalidate_lock in kvm_gmem_punch_hole, v6.8")  # fmt: skip
def hole_lock(s, t):
    """Take the invalidate lock alone."""
    return lock(s, t, True, HOLE_PUNCH)


@fn
def give_back(s, t, p):
    """Take page `p` back from the guest, and free it: one that the hardware keeps is leaked instead."""
    if s.cfg[0].no_reclaim:
        return OK
    outcome = unmap(s, p) if s.pt[p].present == MAPPED_PRIVATE else OK
    back = reclaim(s, p)
    outcome = outcome if back == OK else back
    if outcome != OK:
        kill(s, t, outcome)
        new_frame(s, p)
    return outcome


@rule(HOLE_PUNCH, takers="hole", holds="lock",
      kernel="kvm_gmem_invalidate_begin in kvm_gmem_punch_hole, v6.8; kvm_gmem_free_folio, v6.11")  # fmt: skip
def hole_punch(s, t):
    """Begin the invalidation, unmap the pages from KVM and from processes that map the file, and free them. With two
    backings a process maps other memory. The attribute stays."""
    k, outcome = s.task[t], OK
    for p in range(k.start, k.end):
        if s.mm[p].refs:
            return W_REFS
    for p in range(k.start, k.end):
        m = s.mm[p]
        if m.allocated and (m.private or s.cfg[0].convert == BY_GUEST):
            outcome = give_back(s, t, p)
        drop_content(s, p)
        m.zapped, m.allocated = 1 - s.cfg[0].quiet_hole, 0
        if s.cfg[0].convert != TWO_BACKINGS:
            m.users, m.locking = 0, 0
        leave(s, p)
    k.pc = HOLE_END
    return outcome


@rule(HOLE_END, takers="hole", holds="lock", releases="lock",
      kernel="kvm_gmem_invalidate_end in kvm_gmem_punch_hole, v6.8")  # fmt: skip
def hole_end(s, t):
    """End the invalidation; give the lock back."""
    end_invalidation(s, t)
    unlock_alone(s, t)
    s.task[t].start, s.task[t].end, s.task[t].pc = 0, 0, HOLE_IDLE
    finished(s, t)
    return DONE
