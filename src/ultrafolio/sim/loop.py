"""The event loop: pop the next actor, run its rule, charge the time, wake whoever it released.

Written in the rules' subset of Python and loaded with them, interpreted or compiled. Rules know no time; costs,
random numbers, queues and measures live here, and nothing here changes the model's state but through `step`.
"""

from __future__ import annotations

from typing import Any

from ultrafolio.model.layout import *
from ultrafolio.model.properties import broken, focus
from ultrafolio.model.rule import fn
from ultrafolio.model.rules.folio import bit_page, head
from ultrafolio.sim.records import *
from ultrafolio.waits.rules import class_of, cleaned
from ultrafolio.waits.tables import BUSY, CLASS_EXPECTED, CLASS_FATAL, CLASS_NONE, CLASS_PERMANENT, CLASS_WAITING

step: Any = None  # bound by the loader: the dispatcher generated from the rule table


# ------------------------------------------------------------------------------------- random numbers
@fn
def draw(w, t):
    """The actor's next 32 random bits. Source: xoroshiro64**, Blackman and Vigna 2018; one stream per actor."""
    a = w.load[t]
    s0 = a.rng0
    s1 = a.rng1
    r = (s0 * 0x9E3779BB) & 0xFFFFFFFF
    r = ((r << 5) | (r >> 27)) & 0xFFFFFFFF
    r = (r * 5) & 0xFFFFFFFF
    s1 ^= s0
    a.rng0 = (((s0 << 26) | (s0 >> 6)) ^ s1 ^ (s1 << 9)) & 0xFFFFFFFF
    a.rng1 = ((s1 << 13) | (s1 >> 19)) & 0xFFFFFFFF
    return r


@fn
def exponential(w, t, mean):
    """A delay in ns with this mean, from an integer quantile table; 0 for mean 0."""
    if mean == 0:
        return 0
    return (mean * w.expo[draw(w, t) >> 22]) >> 10


# --------------------------------------------------------------------------------------- event queue
@fn
def schedule(w, t, key):
    """Set the key of actor `t` and replay its path to the root of the winner tree."""
    i = w.clock[0].leaves + t
    w.tree[i] = key
    m = key
    while i > 1:
        m = min(m, w.tree[i ^ 1])
        i >>= 1
        w.tree[i] = m


@fn
def block(s, w, t, queue, reason):
    """The actor waits in `queue` until a step releases what it waits for."""
    a = w.wait[t]
    a.reason = reason
    a.queue = queue
    a.next = w.queue[queue]
    w.queue[queue] = t
    schedule(w, t, NEVER)


@fn
def wake(w, queue, mask, now):
    """Wake the waiters in `queue` whose reason is in `mask`; they take up their step at `now`."""
    t = w.queue[queue]
    kept = -1
    while t >= 0:
        a = w.wait[t]
        after = a.next
        if (mask >> a.reason) & 1:
            a.queue = -1
            schedule(w, t, (now << ACTOR_BITS) | t)
        else:
            a.next = kept
            kept = t
        t = after
    w.queue[queue] = kept


@fn
def home_of(w, p):
    return p >> w.home[p] << w.home[p]


# ------------------------------------------------------------------------------------------- choices
@fn
def choose(s, w, t):
    """(op, page) that an idle actor starts next (LOAD.mode); a disk also takes its next request's size and kind."""
    a = w.load[t]
    if s.who[t].kind == DISK and a.recorded:
        q = w.requests[a.pos]
        s.actor[t].n = q.n
        a.latency = w.clock[0].write if q.write else w.clock[0].read
    elif a.share_rate:
        r = draw(w, t)
        if (r & 0xFFFF) < a.share_rate:
            page = a.share_first + ((draw(w, t) * a.share_count) >> 32)
            return (SHARE if (r >> 16) & 1 else UNSHARE), page
    if a.mode == RECORDED:
        p = w.touches[a.pos]
        a.pos = 0 if a.pos + 1 == a.count else a.pos + 1
        return TOUCH, int(p)
    if a.mode == UNIFORM:
        return TOUCH, a.first + ((draw(w, t) * a.count) >> 32)
    choice = w.choices[a.first + ((draw(w, t) * a.count) >> 32)]
    return int(choice.op), int(choice.page)


@fn
def pause(s, w, t, now):
    """Time until an actor that is idle again starts anew."""
    a = w.load[t]
    if a.recorded and s.who[t].kind == DISK:
        a.pos += a.stride
        # a recording with fewer requests than disks is passed several times by one stride
        rounds = a.pos // w.clock[0].sequence
        a.pos -= rounds * w.clock[0].sequence
        a.base += rounds * w.requests[w.clock[0].sequence - 1].at
        due = a.base + w.requests[a.pos].at
        return due - now if due > now else 0
    return exponential(w, t, a.think)


# ------------------------------------------------------------------------------------------ measures
@fn
def bucket(v):
    """Index of a value in an integer log-linear histogram with 32 buckets an octave."""
    if v < 1 << HIST_SUB:
        return v
    shift = 0
    while (v >> shift) >= (2 << HIST_SUB):
        shift += 1
    return ((shift + 1) << HIST_SUB) + (v >> shift) - (1 << HIST_SUB)


@fn
def over_indicated(s, w, p):
    """Pages under the bit that covers `p` for which it is set though they are not SECURE (P.track folio: all)."""
    b = bit_page(s, p)
    if not s.mm[b].arch:
        return 0
    if s.cfg[0].track == TRACK_FOLIO and s.mm[b].order:
        return (1 << s.mm[b].order) - w.secure[home_of(w, p)]
    return 0 if s.uv[p].state == SECURE else 1


@fn
def count_over(s, w, now, change):
    """`change` more pages are over-indicated from `now` on."""
    g = w.clock[0]
    w.metric[0].over_page_ns += g.over * (now - g.over_at)
    g.over_at = now
    g.over += change


@fn
def stalled(w, t, outcome, pc):
    """An import met an obstacle: count the stall once, under its first cause."""
    a = w.wait[t]
    if a.stalled:
        return
    a.stalled = 1
    m = w.metric[0]
    m.stalls += 1
    if outcome in (E_LOCKED, W_LOCK):
        m.stall_lock += 1
    elif outcome in (E_REFS, W_REFS):
        m.stall_refs += 1
    elif outcome in (E_WRITEBACK, W_WRITEBACK):
        m.stall_writeback += 1
    elif outcome == E_DIRTY:
        m.stall_dirty += 1
    elif outcome == W_MUTEX:
        m.stall_mutex += 1
    else:
        m.stall_busy += 1


@fn
def shown_livelock(s, p, outcome):
    """Whether the checker has shown this wait to be a livelock, which one state cannot tell: an import of a dirty folio
    that no import writes back, where background writeback runs (scenarios/17-iomap-endless-writeback.toml)."""
    return outcome == E_DIRTY and not s.cfg[0].split_writeback and cleaned(s, p)


@fn
def found_hang(s, w, t, p, outcome, now):
    """The class of a wait as the state tells it; a hang is counted once for each touch or unshare, and logged."""
    a = w.wait[t]
    if a.hung:
        return
    kind = class_of(s, t)
    if kind in (CLASS_NONE, CLASS_WAITING):
        if not shown_livelock(s, p, outcome):
            return
        kind = CLASS_LIVELOCK
    m = w.metric[0]
    a.hung = kind
    if kind == CLASS_PERMANENT:
        m.hang_permanent += 1
    elif kind == CLASS_LIVELOCK:
        m.hang_livelock += 1
    elif kind == CLASS_FATAL:
        m.hang_fatal += 1
    else:
        m.hang_expected += 1
    if kind != CLASS_EXPECTED and m.first_hang_ns < 0:
        m.first_hang_ns = now
    g = w.clock[0]
    if g.hangs < len(w.hang):
        h = w.hang[g.hangs]
        h.time, h.waiter, h.page, h.kind, h.reason = now, t, p, kind, outcome
        g.hangs += 1


@fn
def hang_behind(s, w, vm, now):
    """The holder of the import mutex sleeps for good, and so do those who wait for the mutex."""
    a = w.queue[s.cfg[0].pages + vm]
    while a >= 0:
        if w.wait[a].reason == -W_MUTEX:
            found_hang(s, w, a, s.actor[a].page, W_MUTEX, now)
        a = w.wait[a].next


@fn
def finished_touch(w, t, now):
    """A touch, share or unshare of a vCPU is done."""
    a = w.wait[t]
    m = w.metric[0]
    if a.stalled:
        took = now - a.since
        m.stall_ns += took
        w.stall[bucket(took)] += 1
    a.stalled, a.hung = 0, 0
    m.touches += 1


@fn
def dropped_touch(w, t, now):
    """The machine was stopped under a vCPU: a stall that only this ended is counted apart."""
    a = w.wait[t]
    if a.stalled:
        w.metric[0].dropped_stalls += 1
        w.metric[0].dropped_stall_ns += now - a.since
    a.stalled, a.hung = 0, 0


@fn
def measure(s, w, t, p, pc, outcome, was, now, spent):
    """Count what a step did. `was`: the page's ultravisor state before; `spent`: the step's ns."""
    m = w.metric[0]
    if pc <= AGAIN:
        if outcome == DONE:
            finished_touch(w, t, now)
        elif outcome == FAULT and pc == RUN:
            w.wait[t].since = now
        elif outcome == OK:
            dropped_touch(w, t, now)
    elif pc == IMPORT_CALL and outcome not in (E_NXIO, SWAPPED_IN):
        uv_called(w, spent)
        m.import_ns += spent
        if was != s.uv[p].state:
            m.imports += 1
            m.bytes_encrypted += 4096
            m.imports_collateral += w.stray[p]
            w.stray[p] = 0
    elif pc in PINS:
        uv_called(w, spent)
    elif pc in EXPORTS:
        uv_called(w, spent)
        if was != s.uv[p].state:
            exported(s, w, t, p, pc)
    elif pc == SPLIT:
        m.splits_tried += 1
        if outcome in (DONE, SUCCESS):
            m.splits_done += 1
            m.split_ns += spent
        elif outcome != OK:
            m.splits_refused += 1
    elif pc == DRAIN_OWN:
        m.drains_own += 1
    elif pc == DRAIN_ALL:
        m.drains_all += 1
    elif pc == IO_START:
        m.io_started += outcome == OK
    elif pc == WB_END:
        m.writebacks += 1
    elif pc == RECLAIM_FREE:
        m.reclaims += 1
    elif pc == REBOOT_RESET:
        m.reboots += 1
    if outcome == E_LATE:
        m.late_failures += 1
    elif outcome == E_IO:
        m.io_refused += 1


@fn
def uv_called(w, spent):
    w.metric[0].uv_calls += 1
    w.metric[0].uv_ns += spent


@fn
def exported(s, w, t, p, pc):
    """An export happened; it is collateral when a pin of another page of the folio caused it."""
    m = w.metric[0]
    m.exports += 1
    m.bytes_encrypted += 4096
    k = s.task[t]
    if pc == ACC_EXPORT and s.who[t].kind in (DISK, RING, PIN) and p != k.page + k.at - 1:
        m.exports_collateral += 1
        w.stray[p] = 1


# ------------------------------------------------------------------------------------------ the loop
@fn
def release(s, w, t, p, pc, dropped, now):
    """Wake whoever waited for what this rule may release; for references, only if some were `dropped`."""
    mask = RELEASES[pc]
    if not dropped:
        mask &= ~REFS_REASONS
    if mask == 0:
        return
    if mask & PAGE_REASONS and w.queue[home_of(w, p)] >= 0:
        wake(w, home_of(w, p), mask, now)
    if mask & VM_REASONS:
        q = s.cfg[0].pages + s.who[t].vm
        if w.queue[q] >= 0:
            wake(w, q, mask, now)
        if pc == REBOOT_IDLE:
            wake_sleepers(s, w, s.who[t].vm, now)


@fn
def wake_sleepers(s, w, vm, now):
    """The machine stops: its vCPUs that wait for a page drop their instruction."""
    for t in range(s.cfg[0].actors):
        if s.who[t].vm == vm and s.who[t].kind == VCPU and w.wait[t].queue >= 0:
            wake(w, w.wait[t].queue, ALL_REASONS, now)


@fn
def wait_place(s, t, p, w, outcome):
    """The queue for a refusal: the virtual machine's, or the page's folio's."""
    if (VM_REASONS >> -outcome) & 1:
        return s.cfg[0].pages + s.who[t].vm
    return home_of(w, p)


@fn
def refused(s, w, t, p, pc, outcome, now):
    """The step was not enabled: wait for what it needs, try again later, or for ever."""
    if outcome == W_IDLE:
        # a ring whose page its guest does not share looks again after a while
        later = pause(s, w, t, now) + (50_000 if s.who[t].kind == RING else 1000)
        schedule(w, t, ((now + later) << ACTOR_BITS) | t if s.actor[t].budget or pc == RUN else NEVER)
        return
    if -outcome in POLLED:
        schedule(w, t, ((now + 10_000) << ACTOR_BITS) | t)
        return
    if s.who[t].kind == VCPU and pc > AGAIN:
        stalled(w, t, outcome, pc)
        found_hang(s, w, t, p, outcome, now)
        if s.task[t].mutex and w.wait[t].hung:
            hang_behind(s, w, s.who[t].vm, now)
    block(s, w, t, wait_place(s, t, p, w, outcome), -outcome)


@fn
def charge(s, w, t, p, pc, outcome, now):
    """The ns that this step takes until the thread's next one."""
    ns = w.cost[pc * OUTCOME_SLOTS + outcome] + exponential(w, t, w.cost[pc * OUTCOME_SLOTS])
    if pc == SPLIT and outcome in (DONE, SUCCESS):
        ns += w.clock[0].split_page << w.home[p]
    elif pc == IO_START and outcome == OK:
        ns += exponential(w, t, w.load[t].latency)
    if s.task[t].pc == IDLE_PC[s.who[t].kind]:
        ns += pause(s, w, t, now + ns)
    return ns


@fn
def disk_times(s, w, t, pc, outcome, now):
    """Direct I/O latency: from the request to the last unpin."""
    a = w.wait[t]
    if pc == DEVICE_IDLE and outcome == OK:
        a.since = now
    elif pc == UNPIN and outcome == DONE:
        w.metric[0].io_done += 1
        w.metric[0].io_ns += now - a.since
        w.latency[bucket(now - a.since)] += 1


@fn
def traced(w, now, t, p, pc, outcome):
    e = w.event[w.clock[0].traced]
    e.time, e.actor, e.page, e.rule, e.outcome = now, t, p, pc, outcome
    w.clock[0].traced += 1


@fn
def event(s, w, t, now):
    """One event: the actor's step, its consequences, and its next time."""
    g = w.clock[0]
    pc = s.task[t].pc
    kind = s.who[t].kind
    op, page = NOTHING, 0
    if pc == IDLE_PC[kind]:
        op, page = choose(s, w, t)
    p = focus(s, t, page)
    was = s.uv[p].state
    # a touch changes no page, and most events are touches
    moves = pc > AGAIN or (op != TOUCH and s.actor[t].op != TOUCH)
    bit, over, refs = 0, 0, 0
    if moves:
        bit = s.mm[bit_page(s, p)].arch
        over = over_indicated(s, w, p)
        refs = s.mm[head(s, p)].refs
    outcome = step(s, t, op, page)
    w.metric[0].events += 1
    if g.tracing:
        traced(w, now, t, p, pc, outcome)
    if outcome < 0:
        refused(s, w, t, p, pc, outcome, now)
        return
    w.fired[pc] += 1
    if moves:
        follow(s, w, p, was, bit, over, now)
    if g.checked:
        wrong = broken(s, t, pc, p, was, outcome)
        if wrong:
            w.broken[wrong] += 1
            w.metric[0].violations += 1
    ns = charge(s, w, t, p, pc, outcome, now)
    after(s, w, t, p, pc, outcome, was, now, ns)
    if kind == DISK:
        disk_times(s, w, t, pc, outcome, now)
    if moves:
        release(s, w, t, p, pc, s.mm[head(s, p)].refs < refs, now)
    if w.wait[t].hung and s.task[t].pc == AGAIN and s.cfg[0].on_busy != BUSY_GIVE_UP:
        # its polling would repeat this for ever: park it until the obstacle moves
        block(s, w, t, home_of(w, p), PARKED_DIRTY if outcome == E_DIRTY else PARKED)
    elif s.task[t].pc == DEAD:
        schedule(w, t, NEVER)
    else:
        schedule(w, t, ((now + ns) << ACTOR_BITS) | t)


@fn
def follow(s, w, p, was, bit, over, now):
    """Keep the counts of SECURE and over-indicated pages in step with what a step changed."""
    changed = s.uv[p].state != was
    if changed:
        w.secure[home_of(w, p)] += (s.uv[p].state == SECURE) - (was == SECURE)
    if changed or s.mm[bit_page(s, p)].arch != bit:
        count_over(s, w, now, over_indicated(s, w, p) - over)


@fn
def after(s, w, t, p, pc, outcome, was, now, ns):
    """Measures, stalls and hangs of a step that happened."""
    measure(s, w, t, p, pc, outcome, was, now, ns)
    if outcome == E_FATAL:
        found_hang(s, w, t, p, outcome, now)
    elif pc > AGAIN and s.who[t].kind == VCPU and outcome in BUSY:
        stalled(w, t, outcome, pc)
        found_hang(s, w, t, p, outcome, now)
    if pc == REBOOT_RESET:
        recount(s, w, now)


@fn
def recount(s, w, now):
    """After a step that changed pages at large: count SECURE and over-indicated pages afresh."""
    for p in range(s.cfg[0].pages):
        w.secure[p] = 0
    for p in range(s.cfg[0].pages):
        w.secure[home_of(w, p)] += s.uv[p].state == SECURE
    over = 0
    for p in range(s.cfg[0].pages):
        over += s.uv[p].state != SECURE and s.mm[bit_page(s, p)].arch
    count_over(s, w, now, over - w.clock[0].over)


@fn
def simulate(s, w, limit):
    """Run events until the clock's `until` or for `limit` of them; with clock.pausing, to the next hang that is logged.
    Returns how many ran."""
    g = w.clock[0]
    hangs = g.hangs
    for n in range(limit):
        key = w.tree[1]
        now = key >> ACTOR_BITS
        if now >= g.until:
            return n
        g.now = now
        event(s, w, key & ACTOR_MASK, now)
        if g.pausing and g.hangs != hangs:
            return n + 1
    return limit
