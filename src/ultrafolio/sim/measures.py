"""The event loop of s390: its measures (stalls, hangs, calls of the ultravisor, over-indicated pages), and what a step
of it costs beside the table, parks and wakes.

The loop calls before_step, count_change, lasting_reasons, count_refusal, count_step, longer_ns, idle_ns, parked and
is_over of the design; memfd_measures.py has functions of the same names. Written in the rules' subset of Python and
loaded with the loop, interpreted or compiled. Nothing here changes the model's state.
"""

from __future__ import annotations

from ultrafolio.model.layout import *
from ultrafolio.model.properties import broken
from ultrafolio.model.rule import fn
from ultrafolio.model.rules.folio import bit_page
from ultrafolio.sim.counting import bucket, home_of, log_hang
from ultrafolio.sim.loop import exponential
from ultrafolio.sim.records import *
from ultrafolio.waits.rules import class_of, cleaned
from ultrafolio.waits.tables import BUSY, CLASS_EXPECTED, CLASS_FATAL, CLASS_NONE, CLASS_PERMANENT, CLASS_WAITING


# ------------------------------------------------------------------------------------ what the loop asks of a design
@fn
def before_step(s, w, t, p):
    """Returns what count_change() compares with: the bit that covers page `p`, and over_indicated()."""
    return s.mm[bit_page(s, p)].arch, over_indicated(s, w, p)


@fn
def count_change(s, w, p, was, bit, over, now):
    """Update the counts of SECURE and over-indicated pages after a step on page `p`. `was`: its state before the step;
    `bit`, `over`: before_step()."""
    changed = s.uv[p].state != was
    if changed:
        w.secure[home_of(w, p)] += (s.uv[p].state == SECURE) - (was == SECURE)
    if changed or s.mm[bit_page(s, p)].arch != bit:
        count_over(s, w, now, over_indicated(s, w, p) - over)


@fn
def lasting_reasons(s, t, dropped):
    """Returns the reasons to wait, as a mask, that a step does not end although its rule may."""
    return 0 if dropped else REFS_REASONS


@fn
def count_refusal(s, w, t, p, pc, outcome, now):
    """A step was not enabled: count a vCPU's stall and hang."""
    if s.who[t].kind == VCPU and pc > AGAIN:
        count_stall(w, t, outcome, pc)
        count_hang(s, w, t, p, outcome, now)
        if s.task[t].mutex and w.wait[t].hung:
            count_mutex_hangs(s, w, s.who[t].vm, now)


@fn
def count_step(s, w, t, p, pc, outcome, was, now, ns):
    """Count the measures, the stall and the hang of a step that was taken."""
    measure(s, w, t, p, pc, outcome, was, now, ns)
    if outcome == E_FATAL:
        count_hang(s, w, t, p, outcome, now)
    elif pc > AGAIN and s.who[t].kind == VCPU and outcome in BUSY:
        count_stall(w, t, outcome, pc)
        count_hang(s, w, t, p, outcome, now)
    if pc == REBOOT_RESET:
        recount(s, w, now)
    if s.who[t].kind == DISK:
        measure_disk(s, w, t, pc, outcome, now)


@fn
def longer_ns(s, w, t, p, pc, outcome):
    """The ns that a step takes beside those of the table of costs: a split by its pages, I/O by its device."""
    if pc == SPLIT and outcome in (DONE, SUCCESS):
        return w.clock[0].split_page << w.home[p]
    if pc == IO_START and outcome == OK:
        return exponential(w, t, w.load[t].latency)
    return 0


@fn
def idle_ns(s, t):
    """The ns until an actor that has nothing to do looks again: longer for a ring whose page its guest does not
    share."""
    return 50_000 if s.who[t].kind == RING else 1000


@fn
def parked(s, w, t, outcome):
    """The reason with which a hung vCPU is blocked until a step releases its obstacle, since it would poll without
    end; 0: it goes on."""
    if w.wait[t].hung and s.task[t].pc == AGAIN and s.cfg[0].on_busy != BUSY_GIVE_UP:
        return PARKED_DIRTY if outcome == E_DIRTY else PARKED
    return 0


@fn
def judged(s, w, t, pc, p, was, outcome):
    """The number of a property that a step broke, or 0."""
    return broken(s, t, pc, p, was, outcome)


@fn
def is_over(s, w, t):
    """Whether actor `t` takes no further step."""
    return s.task[t].pc == DEAD


# ----------------------------------------------------------------------------------------------------- the measures
@fn
def over_indicated(s, w, p):
    """The number of pages that are not SECURE although their bit is set, among those whose bit is that of page `p`."""
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
def count_stall(w, t, outcome, pc):
    """An import met an obstacle: count the stall once, by its first cause."""
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
    """Whether the checker has proven this wait a livelock, which one state does not show: an import of a dirty folio
    that imports do not write back, with background writeback (scenarios/17-iomap-endless-writeback.toml)."""
    return outcome == E_DIRTY and not s.cfg[0].split_writeback and cleaned(s, p)


@fn
def count_hang(s, w, t, p, outcome, now):
    """Classify an actor's wait from the state; count a hang once for each touch or unshare, and log it."""
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
    log_hang(w, t, p, kind, outcome, now)


@fn
def count_mutex_hangs(s, w, vm, now):
    """The holder of a machine's import mutex hangs: count a hang for each actor that waits for the mutex."""
    a = w.queue[s.cfg[0].pages + vm]
    while a >= 0:
        if w.wait[a].reason == -W_MUTEX:
            count_hang(s, w, a, s.actor[a].page, W_MUTEX, now)
        a = w.wait[a].next


@fn
def finish_touch(w, t, now):
    """A vCPU finished a touch, share or unshare: count it, and the time of its stall."""
    a = w.wait[t]
    m = w.metric[0]
    if a.stalled:
        took = now - a.since
        m.stall_ns += took
        w.stall[bucket(took)] += 1
    a.stalled, a.hung = 0, 0
    m.touches += 1


@fn
def drop_touch(w, t, now):
    """A vCPU dropped its operation since its machine stopped: count its stall as dropped."""
    a = w.wait[t]
    if a.stalled:
        w.metric[0].dropped_stalls += 1
        w.metric[0].dropped_stall_ns += now - a.since
    a.stalled, a.hung = 0, 0


@fn
def measure(s, w, t, p, pc, outcome, was, now, spent):
    """Add a step to the measures. `was`: the page's ultravisor state before it; `spent`: its cost in ns."""
    m = w.metric[0]
    if pc <= AGAIN:
        if outcome == DONE:
            finish_touch(w, t, now)
        elif outcome == FAULT and pc == RUN:
            w.wait[t].since = now
        elif outcome == OK:
            drop_touch(w, t, now)
    elif pc == IMPORT_CALL and outcome not in (E_NXIO, SWAPPED_IN):
        count_uv_call(w, spent)
        m.import_ns += spent
        if was != s.uv[p].state:
            m.imports += 1
            m.bytes_encrypted += PAGE_SIZE
            m.imports_collateral += w.collateral[p]
            w.collateral[p] = 0
    elif pc in PINS:
        count_uv_call(w, spent)
    elif pc in EXPORTS:
        count_uv_call(w, spent)
        if was != s.uv[p].state:
            count_export(s, w, t, p, pc)
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
def count_uv_call(w, spent):
    w.metric[0].uv_calls += 1
    w.metric[0].uv_ns += spent


@fn
def count_export(s, w, t, p, pc):
    """Count an export. It is collateral if a pin of another page of the folio caused it."""
    m = w.metric[0]
    m.exports += 1
    m.bytes_encrypted += PAGE_SIZE
    k = s.task[t]
    if pc == ACC_EXPORT and s.who[t].kind in (DISK, RING, PIN) and p != k.page + k.at - 1:
        m.exports_collateral += 1
        w.collateral[p] = 1


@fn
def measure_disk(s, w, t, pc, outcome, now):
    """Measure the latency of direct I/O in ns, from the request to the last unpin."""
    a = w.wait[t]
    if pc == DEVICE_IDLE and outcome == OK:
        a.since = now
    elif pc == UNPIN and outcome == DONE:
        w.metric[0].io_done += 1
        w.metric[0].io_ns += now - a.since
        w.latency[bucket(now - a.since)] += 1


@fn
def recount(s, w, now):
    """Count SECURE and over-indicated pages of all guests again, after a step that changed many pages."""
    for p in range(s.cfg[0].pages):
        w.secure[p] = 0
    for p in range(s.cfg[0].pages):
        w.secure[home_of(w, p)] += s.uv[p].state == SECURE
    over = 0
    for p in range(s.cfg[0].pages):
        over += s.uv[p].state != SECURE and s.mm[bit_page(s, p)].arch
    count_over(s, w, now, over - w.clock[0].over)
