"""The event loop: pop the next actor, run its rule, charge its cost, wake the actors that it released.

Written in the rules' subset of Python and loaded with them, interpreted or compiled. Rules have no time: costs, random
numbers and wait queues are here. Only `step`, and `choose` with a disk's request size, change the model's state.
"""

from __future__ import annotations

from typing import Any

from ultrafolio.model.layout import *
from ultrafolio.model.properties import focus
from ultrafolio.model.rule import fn
from ultrafolio.model.rules.folio import head
from ultrafolio.sim.counting import home_of, record_event
from ultrafolio.sim.records import *

step: Any = None  # bound by the loader: the dispatcher generated from the rule table
before_step = count_change = lasting_reasons = count_refusal = count_step = step  # those of the design: measures.py
longer_ns = idle_ns = parked = is_over = judged = step


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
    """Put actor `t` into wait queue `queue` with a reason to wait; `wake` schedules it again."""
    a = w.wait[t]
    a.reason = reason
    a.queue = queue
    a.next = w.queue[queue]
    w.queue[queue] = t
    schedule(w, t, NEVER)


@fn
def wake(w, queue, mask, now):
    """Schedule at `now` the waiters in `queue` whose reason is a bit of `mask`; the others stay."""
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
            if a.listed:
                # a listed run of pages is shared, or unshared, or in half of the cases one of them is touched
                page = w.choices[page].page
                if (r >> 17) & 1:
                    return TOUCH, page + ((draw(w, t) * s.actor[t].n) >> 32)
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
    """The ns until an actor that became idle starts its next operation."""
    a = w.load[t]
    if a.recorded and s.who[t].kind == DISK:
        a.pos += a.stride
        # if a recording has fewer requests than disks, one stride passes it several times
        rounds = a.pos // w.clock[0].sequence
        a.pos -= rounds * w.clock[0].sequence
        a.base += rounds * w.requests[w.clock[0].sequence - 1].at
        due = a.base + w.requests[a.pos].at
        return due - now if due > now else 0
    return exponential(w, t, a.think)


# ------------------------------------------------------------------------------------------ the loop
@fn
def release(s, w, t, p, pc, dropped, now):
    """Wake the actors whose reason this rule ends; those that wait for references only if some were `dropped`."""
    mask = RELEASES[pc] & ~lasting_reasons(s, t, dropped)
    if mask == 0:
        return
    if mask & PAGE_REASONS and w.queue[home_of(w, p)] >= 0:
        wake(w, home_of(w, p), mask, now)
    if mask & VM_REASONS:
        q = s.cfg[0].pages + s.who[t].vm
        if w.queue[q] >= 0:
            wake(w, q, mask, now)
        if pc == STOPS_MACHINE:
            wake_sleepers(s, w, s.who[t].vm, now)


@fn
def wake_sleepers(s, w, vm, now):
    """Wake the vCPUs of a virtual machine that stops; they drop their instruction."""
    for t in range(s.cfg[0].actors):
        if s.who[t].vm == vm and s.who[t].kind == VCPU and w.wait[t].queue >= 0:
            wake(w, w.wait[t].queue, ALL_REASONS, now)


@fn
def queue_of(s, t, p, w, outcome):
    """The wait queue for a reason, as a negative number: that of the virtual machine, or that of the page's folio."""
    if (VM_REASONS >> -outcome) & 1:
        return s.cfg[0].pages + s.who[t].vm
    return home_of(w, p)


@fn
def wait_or_retry(s, w, t, p, pc, outcome, now):
    """The step was not enabled: block the actor, or schedule a retry; count it."""
    if outcome == W_IDLE and pc == IDLE_PC[s.who[t].kind]:
        later = pause(s, w, t, now) + idle_ns(s, t)
        schedule(w, t, ((now + later) << ACTOR_BITS) | t if s.actor[t].budget or pc == RUN else NEVER)
        return
    if -outcome in POLLED:
        schedule(w, t, ((now + 10_000) << ACTOR_BITS) | t)
        return
    count_refusal(s, w, t, p, pc, outcome, now)
    block(s, w, t, queue_of(s, t, p, w, outcome), -outcome)


@fn
def charge(s, w, t, p, pc, outcome, now):
    """The ns from this step to the actor's next one: the step's cost, and the pause of an actor that became idle."""
    ns = w.cost[pc * OUTCOME_SLOTS + outcome] + exponential(w, t, w.cost[pc * OUTCOME_SLOTS])
    ns += longer_ns(s, w, t, p, pc, outcome)
    if s.task[t].pc == IDLE_PC[s.who[t].kind]:
        ns += pause(s, w, t, now + ns)
    return ns


@fn
def event(s, w, t, now):
    """One event: run the actor's step, count it, wake waiters, and schedule or block the actor."""
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
    noted, beside, refs = 0, 0, 0
    if moves:
        noted, beside = before_step(s, w, t, p)
        refs = s.mm[head(s, p)].refs
    outcome = step(s, t, op, page)
    w.metric[0].events += 1
    if g.tracing:
        record_event(w, now, t, p, pc, outcome)
    if outcome < 0:
        wait_or_retry(s, w, t, p, pc, outcome, now)
        return
    w.fired[pc] += 1
    if moves:
        count_change(s, w, p, was, noted, beside, now)
    if g.checked:
        wrong = judged(s, w, t, pc, p, was, outcome)
        if wrong:
            w.broken[wrong] += 1
            w.metric[0].violations += 1
    ns = charge(s, w, t, p, pc, outcome, now)
    count_step(s, w, t, p, pc, outcome, was, now, ns)
    if moves:
        release(s, w, t, p, pc, s.mm[head(s, p)].refs < refs, now)
    reason = parked(s, w, t, outcome)
    if reason:
        block(s, w, t, queue_of(s, t, p, w, -reason), reason)
    elif is_over(s, w, t):
        schedule(w, t, NEVER)
    else:
        schedule(w, t, ((now + ns) << ACTOR_BITS) | t)


@fn
def simulate(s, w, limit):
    """Run events until the clock's `until`, or at most `limit`; with clock.pausing, until a hang is logged.
    Returns the number of events."""
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
