"""The start and end of every thread: its budget, its predecessor (who.after), whether its machine runs."""

from __future__ import annotations

from ultrafolio.model.layout import *
from ultrafolio.model.rule import fn


@fn
def running(s, vm):
    """Whether KVM runs this virtual machine's vCPUs now."""
    return s.vm[vm].life == ALIVE


@fn
def spend(s, t):
    """Take one start from the actor's budget. Returns 0 if none is left."""
    a = s.actor[t]
    if a.budget == 0:
        return 0
    if a.budget != ENDLESS:
        a.budget -= 1
    return 1


@fn
def turn_come(s, t):
    """Whether the actor that this one comes `after` has finished once."""
    after = s.who[t].after
    return after == 0 or s.task[after - 1].done > 0


@fn
def waits_its_turn(s, t):
    """Whether the actor's predecessor (who.after) has not finished; only the host reads that."""
    return s.who[t].after > 0 and not turn_come(s, t)


@fn
def finished(s, t):
    """Record that the actor has finished once: an actor that comes `after` it may start."""
    if s.who[t].awaited:
        s.task[t].done = 1
