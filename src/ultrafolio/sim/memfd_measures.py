"""The event loop of guest_memfd: its measures (conversions, refusals, faults, stalls, hangs), and what a step of it
costs beside the table, parks and wakes. The functions that the loop calls are those of measures.py.

A standing mapping for DMA ends when the VMM says so, which it may and need not: LOAD.latency ns after the pin was
granted; 0: not in this run.
"""

from __future__ import annotations

from ultrafolio.model.guest_memfd.guest import is_reachable
from ultrafolio.model.guest_memfd.layout import *
from ultrafolio.model.guest_memfd.properties import broken_within
from ultrafolio.model.rule import fn
from ultrafolio.sim.counting import bucket, log_hang
from ultrafolio.sim.loop import exponential
from ultrafolio.sim.memfd_pages import note, own_frame, pages_ns, translate
from ultrafolio.sim.memfd_records import *
from ultrafolio.sim.records import PARKED
from ultrafolio.waits.memfd import CLASS_VMM_BOUND, class_of
from ultrafolio.waits.tables import CLASS_PERMANENT


# ------------------------------------------------------------------------------------ what the loop asks of a design
@fn
def before_step(s, w, t, p):
    """Returns how many pages the step of actor `t` gives another attribute; and 0."""
    k = s.task[t]
    turned = 0
    if NOTED[k.pc]:
        note(s, w, t)
    if k.pc == CONVERT_STORE:
        for q in range(k.start, k.end):
            turned += s.mm[q].private != (k.call == UNSHARE)
    return turned, 0


@fn
def count_change(s, w, p, was, turned, beside, now):
    """Count the pages that a step gave another attribute."""
    w.metric[0].pages_converted += turned


@fn
def lasting_reasons(s, t, dropped):
    """Returns the reasons to wait, as a mask, that a step does not end although its rule may: while somebody holds the
    lock no waiter can take it."""
    return (0 if dropped else REFS_REASONS) | (LOCK_REASONS if s.vm[s.who[t].vm].mutex != 0 else 0)


@fn
def count_refusal(s, w, t, p, pc, outcome, now):
    """A step was not enabled: begin a wait for the invalidate lock; count a vCPU's stall."""
    if outcome == W_LOCK:
        a = w.wait[t]
        if not a.locked:
            a.locked, a.met, a.drained = 1, now, has_drained(s, t)
        count_stall(s, w, t, outcome)


@fn
def count_step(s, w, t, p, pc, outcome, was, now, ns):
    """Count the measures, the stall and the hang of a step that was taken."""
    end_lock_wait(w, t, pc, now)
    if pc <= AGAIN:
        count_guest(s, w, t, pc, outcome, now)
    elif CONVERT_LOCK <= pc <= CONVERT_END or pc in (VMM_RETRY, VMM_IDLE):
        count_request(s, w, t, p, pc, outcome, now)
    else:
        count_use(s, w, t, p, pc, outcome, now)


@fn
def longer_ns(s, w, t, p, pc, outcome):
    """The ns that a step takes beside those of the table of costs: what it does to pages; I/O by its device;
    LOAD.latency for a mapping for DMA and a full pipe while they stand, a walker's reference, and a VMM before it asks
    again."""
    if pc <= AGAIN:
        ns = translate(s, w, t, p) if outcome == DONE else 0
        w.metric[0].walk_ns += ns
        return ns
    if NOTED[pc]:
        return pages_ns(s, w, t, pc, outcome)
    if pc == DMA_READY and s.who[t].kind == DISK:
        return exponential(w, t, w.load[t].latency)
    if KEEPS[pc] and outcome in (OK, DONE) and (pc != GUP_WALK or s.task[t].pc == PIPE_READ):
        return w.load[t].latency
    return 0


@fn
def idle_ns(s, t):
    """The ns until an actor that has nothing to do looks again."""
    return 1000


@fn
def parked(s, w, t, outcome):
    """The reason with which a request that hangs is blocked until a pin is dropped, since it would be repeated without
    end, and a fault that maps nothing again and again until somebody gives the lock back, since only a conversion
    changes what is in its way; 0: it goes on."""
    if w.wait[t].stuck == TRIES and s.task[t].pc == AGAIN:
        return -W_LOCK
    if w.wait[t].hung and s.task[t].pc == VMM_RETRY and class_of(s, t) in (CLASS_PERMANENT, CLASS_VMM_BOUND):
        return PARKED
    return 0


@fn
def judged(s, w, t, pc, p, was, outcome):
    """The number of a property that a step broke, or 0: asked over the pages that the request may have changed."""
    return broken_within(s, t, pc, p, was, outcome, w.wait[t].first, w.wait[t].end)


@fn
def is_over(s, w, t):
    """Whether actor `t` takes no further step: a mapping for DMA that stands to the end of the run."""
    return (s.task[t].pc == DMA_STANDS or s.task[t].pc == PIPE_READ) and w.load[t].latency == 0


# ----------------------------------------------------------------------------------------------------- the measures
@fn
def count_stall(s, w, t, outcome):
    """A vCPU's fault or request met an obstacle: count the stall once, by its first cause."""
    a = w.wait[t]
    if s.who[t].kind != VCPU or a.stalled:
        return
    a.stalled = 1
    m = w.metric[0]
    m.stalls += 1
    if outcome == W_LOCK:
        m.stall_lock += 1
    else:
        m.stall_refs += 1


@fn
def count_hang(s, w, t, p, outcome, now):
    """Classify a refused request from the state; count a hang once a request, and log it."""
    a = w.wait[t]
    kind = class_of(s, t)
    if a.hung or (kind != CLASS_PERMANENT and kind != CLASS_VMM_BOUND):
        return
    a.hung = kind
    m = w.metric[0]
    if kind == CLASS_PERMANENT:
        m.hang_permanent += 1
    else:
        m.hang_vmm_bound += 1
    if m.first_hang_ns < 0:
        m.first_hang_ns = now
    log_hang(w, t, p, kind, outcome, now)


@fn
def has_drained(s, t):
    """Whether the conversion that has the lock, for which actor `t` waits, has drained LRU batches."""
    mutex = s.vm[s.who[t].vm].mutex
    return mutex > 0 and s.task[mutex - 1].drained > 0


@fn
def end_lock_wait(w, t, pc, now):
    """An actor that waited for the invalidate lock takes a step, so it has the lock: count the wait of a fault."""
    a = w.wait[t]
    if a.locked:
        a.locked = 0
        if pc in (FAULT_LOCK, USER_LOCK):
            w.metric[0].lock_waits += 1
            w.metric[0].lock_wait_ns += now - a.met
            if a.drained:
                w.metric[0].drain_waits += 1
                w.metric[0].drain_wait_ns += now - a.met


@fn
def count_guest(s, w, t, pc, outcome, now):
    """A vCPU's own step: an operation begins or ends, or is repeated after a fault."""
    a = w.wait[t]
    m = w.metric[0]
    if outcome == DONE:
        if a.stalled:
            m.stall_ns += now - a.since
            w.stall[bucket(now - a.since)] += 1
        m.fault_ns += (now - a.since) * a.faulted
        a.stalled, a.hung, a.faulted = 0, 0, 0
        m.touches += 1
    elif outcome == FAULT and pc == RUN:
        a.since = now
        a.faulted = s.actor[t].op == TOUCH
        m.requests += s.actor[t].op != TOUCH


@fn
def count_request(s, w, t, p, pc, outcome, now):
    """A step of a request, of the VMM's own or of a vCPU's."""
    a = w.wait[t]
    m = w.metric[0]
    if pc == VMM_IDLE:
        a.since = now
        m.requests += 1
    elif outcome == SUCCESS:
        m.conversions += 1
        m.conversions_needless += pc == CONVERT_TEST
        m.convert_ns += now - a.since
        w.latency[bucket(now - a.since)] += 1
        a.hung = 0
    elif outcome == E_AGAIN:
        m.refusals += 1
        count_stall(s, w, t, outcome)
        count_hang(s, w, t, p, outcome, now)
    elif outcome == E_TOLD_NO:
        m.told_no += 1
    elif pc == VMM_RETRY:
        m.retries += 1
    elif pc == CONVERT_DRAIN_OWN or pc == CONVERT_DRAIN_ALL:
        m.drains_own += pc == CONVERT_DRAIN_OWN
        m.drains_all += pc == CONVERT_DRAIN_ALL
        for one in range(s.cfg[0].actors):
            w.wait[one].drained = w.wait[one].locked


@fn
def count_use(s, w, t, p, pc, outcome, now):
    """A step of a fault, or of a pin."""
    m = w.metric[0]
    if pc == FAULT_SNAPSHOT:
        m.faults += 1
    elif pc == FAULT_MAP:
        m.fault_retries += outcome == E_RETRY
        a = w.wait[t]
        if outcome == E_RETRY or is_reachable(s, p):
            a.stuck = 0
        elif a.stuck < TRIES:
            a.stuck += 1
            m.stuck_faults += a.stuck == TRIES
    elif pc == FAULT_ATTRIBUTE:
        m.exits += outcome == E_EXIT
    elif pc == USER_LOOKUP:
        m.user_faults += outcome != DONE
        if outcome == E_SIGBUS:
            if s.who[t].kind == USER:
                m.sigbus += 1
            else:
                m.pins_refused += 1
    elif pc == USER_MAP:
        own_frame(s, w, p, 2)
    elif pc == GUP_WALK:
        m.pins += outcome == DONE
    elif pc == GUP_RECHECK:
        m.pin_retries += outcome == E_RETRY
    elif pc == DEVICE_IDLE:
        w.wait[t].since = now
    elif pc == HOLE_END:
        m.holes += 1
    elif pc == DMA_END:
        m.io_done += 1
        m.io_ns += now - w.wait[t].since
