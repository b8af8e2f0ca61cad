"""What every thread asks and says at its start and its end: its budget, its turn, whether its machine runs."""

from __future__ import annotations

from ultrafolio.model.layout import *
from ultrafolio.model.rule import fn


@fn
def running(s, vm):
    """Whether KVM runs this virtual machine's vCPUs now."""
    return s.vm[vm].life == ALIVE


@fn
def spend(s, t):
    """Take one start from the actor's budget; 0 when there is none left."""
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
    """Whether the actor must start after another one that has not finished yet; the host knows."""
    return s.who[t].after > 0 and not turn_come(s, t)


@fn
def finished(s, t):
    """The actor has done once what it does: whoever comes `after` it may start."""
    if s.who[t].awaited:
        s.task[t].done = 1
