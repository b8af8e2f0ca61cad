"""Folding: the one state that stands for all that differ only in which of several like pages is which, and which of
several like guests. Loaded with the kernel; what is alike is decided in check/symmetry.

Like pages are sorted by what they hold and by who is busy with them. Two that agree in both are the same in every
respect, so the sorted state is the same for all states that are permutations of each other. Guests change places in
every way that there is; of the sorted states that come of it, the least stands for all.

A state is folded as a vector of component numbers (x.parts): pages, machines, actors.
"""

# mypy: disallow_untyped_defs=False, disallow_untyped_calls=False
from __future__ import annotations

from ultrafolio.check.kinds import DEVICES, WORKERS
from ultrafolio.check.search.memo import component_of, keep, memorise, memory_of, own_of, put, put_memory, unpack
from ultrafolio.model.layout import (
    AGAIN,
    DEAD,
    IDLE_PC,
    INTERRUPT,
    NON_SECURE,
    NOTHING,
    RUN,
    UNPIN,
    VCPU,
)
from ultrafolio.model.rule import fn


@fn
def busy_page(s, t):
    """The page that actor `t` is busy with, a device's first, or -1."""
    kind = s.who[t].kind
    if kind == VCPU:
        return s.actor[t].page if s.actor[t].op != NOTHING else -1
    if (kind in DEVICES or kind in WORKERS) and s.task[t].pc != IDLE_PC[kind]:
        return s.task[t].page
    return -1


@fn
def turn_to(s, t, page):
    """Actor `t` is busy with `page` instead of the page it was busy with."""
    k = s.task[t]
    kind = s.who[t].kind
    by = page - busy_page(s, t)
    if k.end:
        k.start += by
        k.i += by
        k.end += by
    if k.failed:
        k.failed += by
    if kind == VCPU or (kind in DEVICES and kind != INTERRUPT and (k.pc != UNPIN or s.actor[t].page)):
        s.actor[t].page = page
    if kind != VCPU or k.pc not in (RUN, AGAIN, DEAD):
        k.page = page


@fn
def place_of(s, x, words, t, component):
    """busy_page actor `t` with this component; the raw buffer holds the component afterwards, unless it was known."""
    if x.busy[t, component] == 0:
        unpack(x, words, x.memory.shape[1] + t, component)
        x.busy[t, component] = busy_page(s, t) + 2
    return x.busy[t, component] - 2


@fn
def turned(s, x, words, t, component, page):
    """The component of actor `t`, busy with `page` instead."""
    if x.turned[component, page] == 0:
        unpack(x, words, x.memory.shape[1] + t, component)
        turn_to(s, t, page)
        c = x.memory.shape[1] + t
        x.turned[component, page] = keep(x, words, x.spans[c, 0], x.spans[c, 1]) + 1
    return x.turned[component, page] - 1


@fn
def rename(s, x, k, c):
    """Whatever the component at place `c` of the raw buffer names, it names what turn `k` puts there."""
    pages = len(x.alike)
    width = x.memory.shape[1]
    if c >= width:
        page = busy_page(s, c - width)
        if page >= 0:
            turn_to(s, c - width, x.moves[k, page])
    elif c >= pages:
        vm = s.vm[c - pages]
        if vm.mutex:
            vm.mutex = x.moves[k, width + vm.mutex - 1] - width + 1
    elif s.uv[c].state != NON_SECURE:
        s.uv[c].owner = x.moves[k, pages + s.uv[c].owner] - pages


@fn
def renamed(s, x, words, k, c, component):
    """What becomes of a component at place `c` by turn `k`."""
    if x.image[k, c, component] == 0:
        x.count[0].loaded = 0
        unpack(x, words, c, component)
        rename(s, x, k, c)
        x.image[k, c, component] = keep(x, words, x.spans[c, 0], x.spans[c, 1]) + 1
    return x.image[k, c, component] - 1


@fn
def sort(s, x, words, r):
    """Sort the like pages of vector `r` by component, then by who is busy there; who is busy goes with them."""
    width = x.memory.shape[1]
    for p in range(len(x.alike)):
        x.seats[p] = 0
    for t in range(x.count[0].actors):
        page = place_of(s, x, words, t, x.parts[r, width + t])
        if page >= 0:
            x.seats[page] |= 1 << t
    for p in range(len(x.alike)):
        least = p
        for q in range(p + 1, len(x.alike) if x.alike[p] else 0):
            if x.alike[q] == x.alike[p]:
                less = x.parts[r, q] < x.parts[r, least]
                equal = x.parts[r, q] == x.parts[r, least]
                if less or (equal and x.seats[q] < x.seats[least]):
                    least = q
        if least != p:
            component, seats = x.parts[r, p], x.seats[p]
            x.parts[r, p], x.seats[p] = x.parts[r, least], x.seats[least]
            x.parts[r, least], x.seats[least] = component, seats
    for t in range(x.count[0].actors):
        component = x.parts[r, width + t]
        for page in range(len(x.alike)):
            if (x.seats[page] >> t) & 1 and place_of(s, x, words, t, component) != page:
                x.parts[r, width + t] = turned(s, x, words, t, component, page)


@fn
def keep_less(x, r, q):
    """Vector `q` becomes vector `r` if that is less."""
    for c in range(x.parts.shape[1]):
        if x.parts[r, c] != x.parts[q, c]:
            for d in range(x.parts.shape[1] if x.parts[r, c] < x.parts[q, c] else 0):
                x.parts[q, d] = x.parts[r, d]
            return


@fn
def fold(s, x, words, i):
    """Write into the row of candidate `i` the state that stands for the one there."""
    width = x.memory.shape[1]
    least, turned_to = x.count[0].none + 1, x.count[0].none + 2
    m = memory_of(x, x.new, i)
    for c in range(x.parts.shape[1]):
        x.parts[0, c] = x.memory[m, c] if c < width else component_of(x, x.new, i, c - width)
        x.parts[1, c] = x.parts[0, c]
    sort(s, x, words, least)
    for k in range(len(x.moves)):
        for c in range(x.parts.shape[1]):
            x.parts[2, x.moves[k, c]] = renamed(s, x, words, k, c, x.parts[0, c])
        sort(s, x, words, turned_to)
        keep_less(x, turned_to, least)
    new = x.count[0].memories
    for c in range(width):
        x.memory[new, c] = x.parts[1, c]
    put_memory(x, x.new, i, memorise(x))
    for t in range(x.count[0].actors):
        put(x, x.new, i, t, own_of(x, t, x.parts[1, width + t]))
