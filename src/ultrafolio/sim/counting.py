"""What the measures of every design count with: queues, histograms, the log of hangs, the trace.

Written in the rules' subset of Python and loaded with the measures, interpreted or compiled.
"""

from __future__ import annotations

from ultrafolio.model.rule import fn
from ultrafolio.sim.records import *


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
def log_hang(w, t, p, kind, outcome, now):
    """Log a hang of class `kind`, if the log has space."""
    g = w.clock[0]
    if g.hangs < len(w.hang):
        h = w.hang[g.hangs]
        h.time, h.waiter, h.page, h.kind, h.reason = now, t, p, kind, outcome
        g.hangs += 1


@fn
def record_event(w, now, t, p, pc, outcome):
    """Append a step to the trace buffer."""
    e = w.event[w.clock[0].traced]
    e.time, e.actor, e.page, e.rule, e.outcome = now, t, p, pc, outcome
    w.clock[0].traced += 1
