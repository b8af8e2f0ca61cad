"""The measures of the event loop: stalls, hangs, calls of the ultravisor, over-indicated pages, and the trace.

Written in the rules' subset of Python and loaded with the loop, interpreted or compiled. Nothing here changes the
model's state.
"""

from __future__ import annotations

from ultrafolio.model.layout import *
from ultrafolio.model.rule import fn
from ultrafolio.model.rules.folio import bit_page
from ultrafolio.sim.records import *
from ultrafolio.waits.rules import class_of, cleaned
from ultrafolio.waits.tables import CLASS_EXPECTED, CLASS_FATAL, CLASS_NONE, CLASS_PERMANENT, CLASS_WAITING


@fn
def home_of(w, p):
    """The first page of the folio that held page `p` at the start: the queue of the page's waiters."""
    return p >> w.home[p] << w.home[p]


@fn
def bucket(v):
    """The index of a value's bucket in an integer log-linear histogram with 32 buckets an octave."""
    if v < 1 << HIST_SUB:
        return v
    shift = 0
    while (v >> shift) >= (2 << HIST_SUB):
        shift += 1
    return ((shift + 1) << HIST_SUB) + (v >> shift) - (1 << HIST_SUB)


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
    g = w.clock[0]
    if g.hangs < len(w.hang):
        h = w.hang[g.hangs]
        h.time, h.waiter, h.page, h.kind, h.reason = now, t, p, kind, outcome
        g.hangs += 1


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
def record_event(w, now, t, p, pc, outcome):
    e = w.event[w.clock[0].traced]
    e.time, e.actor, e.page, e.rule, e.outcome = now, t, p, pc, outcome
    w.clock[0].traced += 1


@fn
def update_counts(s, w, p, was, bit, over, now):
    """Update the counts of SECURE and over-indicated pages after a step on page `p`. `was`, `bit`, `over`: its state,
    its bit and over_indicated before the step."""
    changed = s.uv[p].state != was
    if changed:
        w.secure[home_of(w, p)] += (s.uv[p].state == SECURE) - (was == SECURE)
    if changed or s.mm[bit_page(s, p)].arch != bit:
        count_over(s, w, now, over_indicated(s, w, p) - over)


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
