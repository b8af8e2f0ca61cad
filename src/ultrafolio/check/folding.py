"""Folding: the one state that stands for all that differ only in which of several like pages is which. Loaded with the
kernel; which pages are alike is decided in symmetry.py.

Like pages are sorted by what they hold and by who is busy with them. Two that agree in both are the same in every
respect, so the sorted state is the same for all states that are permutations of each other.
"""

# mypy: disallow_untyped_defs=False, disallow_untyped_calls=False
from __future__ import annotations

from ultrafolio.model.layout import (
    AGAIN,
    DEAD,
    IDLE_PC,
    MAPPING,
    NOTHING,
    RECLAIM,
    RUN,
    SPECULATIVE,
    VCPU,
    WRITEBACK,
)
from ultrafolio.model.rule import fn

from .steps import component_of, keep, memorise, memory_of, mix


@fn
def page_of(s, t):
    """The page that actor `t` is busy with, or -1. A device's page is not among those that are alike."""
    kind = s.who[t].kind
    if kind == VCPU:
        return s.actor[t].page if s.actor[t].op != NOTHING else -1
    if kind in (WRITEBACK, RECLAIM, MAPPING, SPECULATIVE) and s.task[t].pc != IDLE_PC[kind]:
        return s.task[t].page
    return -1


@fn
def turn_to(s, t, page):
    """Actor `t` is busy with `page` instead of the page it was busy with."""
    k = s.task[t]
    by = page - page_of(s, t)
    if k.end:
        k.start += by
        k.i += by
        k.end += by
    if k.failed:
        k.failed += by
    if s.who[t].kind != VCPU:
        k.page = page
        return
    s.actor[t].page = page
    if k.pc not in (RUN, AGAIN, DEAD):
        k.page = page


@fn
def place_of(s, x, words, t, component):
    """page_of actor `t` with this component; the raw buffer holds the component afterwards, unless it was known."""
    if x.busy[t, component] == 0:
        unpack(x, words, t, component)
        x.busy[t, component] = page_of(s, t) + 2
    return x.busy[t, component] - 2


@fn
def unpack(x, words, t, component):
    """Put an actor's component into the raw buffer."""
    c = x.memory.shape[1] + t
    for i in range(x.spans[c, 1]):
        words[x.spans[c, 0] + i] = x.kept[component, i]


@fn
def turned(s, x, words, t, component, page):
    """The component of actor `t`, busy with `page` instead."""
    if x.turned[component, page] == 0:
        unpack(x, words, t, component)
        turn_to(s, t, page)
        c = x.memory.shape[1] + t
        x.turned[component, page] = keep(x, words, x.spans[c, 0], x.spans[c, 1]) + 1
    return x.turned[component, page] - 1


@fn
def sort(x, m):
    """Sort the like pages of memory `m` by component, then by who is busy there (x.seats); True if any moved."""
    moved = False
    for p in range(len(x.alike)):
        least = p
        for q in range(p + 1, len(x.alike) if x.alike[p] else 0):
            if x.alike[q] == x.alike[p]:
                less = x.memory[m, q] < x.memory[m, least]
                equal = x.memory[m, q] == x.memory[m, least]
                if less or (equal and x.seats[q] < x.seats[least]):
                    least = q
        if least != p:
            moved = True
            component, seats = x.memory[m, p], x.seats[p]
            x.memory[m, p], x.seats[p] = x.memory[m, least], x.seats[least]
            x.memory[m, least], x.seats[least] = component, seats
    return moved


@fn
def fold(s, x, words, number):
    """Write into row `number` the state that stands for the one there."""
    g = x.count[0]
    m = memory_of(x, number)
    for c in range(x.memory.shape[1]):
        x.memory[g.memories, c] = x.memory[m, c]
    for p in range(len(x.alike)):
        x.seats[p] = 0
    for t in range(g.actors):
        page = place_of(s, x, words, t, component_of(x, number, t))
        if page >= 0:
            x.seats[page] |= 1 << t
    if not sort(x, g.memories):
        return
    x.node[number, 0] = (x.node[number, 0] >> 32 << 32) | memorise(x)
    for t in range(g.actors):
        component = component_of(x, number, t)
        for page in range(len(x.alike)):
            if (x.seats[page] >> t) & 1 and place_of(s, x, words, t, component) != page:
                other = int(turned(s, x, words, t, component, page))
                x.node[number, (t + 2) >> 2] ^= (other ^ component) << (16 * ((t + 2) & 3))


@fn
def fold_all(s, x, words):
    """Fold the candidates of a worker that is alone."""
    for i in range(x.made[0]):
        fold(s, x, words, x.order[i])
        h = 0
        for c in range(x.node.shape[1]):
            h = mix(h, x.node[x.order[i], c])
        x.hash[0, i] = h
