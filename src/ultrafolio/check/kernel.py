"""Exploration: take the next state, run every enabled step, keep what is new. Loaded with the rules, like the
event loop; nothing here knows what a rule does."""

from __future__ import annotations

from typing import Any

from ultrafolio.model.layout import *
from ultrafolio.model.properties import broken, focus
from ultrafolio.model.rule import fn

from .layout import *

step: Any = None  # bound by the loader: the dispatcher generated from the rule table
FAIR: Any = ()  # bound by the loader: per rule, whether it is weakly fair


@fn
def mix(h, v):
    """One round of a 64-bit hash. Source: the multiplier of splitmix64, Steele, Lea and Flood 2014."""
    h = ((h ^ v) * 0x3F58476D1CE4E5B9) & 0x7FFFFFFFFFFFFFFF
    return h ^ (h >> 29)


@fn
def keep(x, words, first, n):
    """The number of the component whose words stand in the raw buffer, stored if it is new."""
    h = int(n)
    for i in range(n):
        h = mix(h, int(words[first + i]))
    slots = len(x.index)
    slot = h & (slots - 1)
    while x.index[slot]:
        c = x.index[slot] - 1
        same = x.kept[c, ACTOR_WORDS] == n
        for i in range(n):
            same = same and x.kept[c, i] == words[first + i]
        if same:
            return c
        slot = (slot + 1) & (slots - 1)
    c = x.count[0].components
    if c == MAX_COMPONENTS:
        x.count[0].stop = OVERFLOW
        return 0
    for i in range(n):
        x.kept[c, i] = words[first + i]
    x.kept[c, ACTOR_WORDS] = n
    x.index[slot] = c + 1
    x.count[0].components = c + 1
    return c


@fn
def share(c, kept):
    """What component `c` adds to the hash of a state when its number is `kept`; the hash is the sum of them."""
    return mix(c + 1, int(kept))


@fn
def hash_of(x, number):
    """The hash of a state in `node`."""
    h = 0
    for c in range(len(x.spans)):
        h += share(c, int(x.node[number, c]))
    return h


@fn
def find(x, number, h):
    """The state equal to the one at `number` (the last of `node`), or `number` itself, entered in the table.

    A table entry holds 31 bits of the hash beside the state's number, so that few others are looked at.
    """
    slots = len(x.table)
    slot = h & (slots - 1)
    tag = (h >> 32) & 0x7FFFFFFF
    while x.table[slot]:
        entry = x.table[slot]
        if entry >> 32 == tag:
            other = (entry & 0xFFFFFFFF) - 1
            same = True
            for c in range(len(x.spans)):
                same = same and x.node[other, c] == x.node[number, c]
            if same:
                return other
        slot = (slot + 1) & (slots - 1)
    x.table[slot] = (tag << 32) | (number + 1)
    return number


@fn
def load(x, words, number):
    """Unpack a state into the raw buffer and its copy."""
    for c in range(len(x.spans)):
        first = x.spans[c, 0]
        kept = x.node[number, c]
        for i in range(first, first + x.spans[c, 1]):
            words[i] = x.kept[kept, i - first]
            x.copy[i] = words[i]


@fn
def look(x, words, new, c, h):
    """Component `c` after a step: if it changed, enter it in state `new` and restore the buffer. The new hash."""
    first = x.spans[c, 0]
    end = first + x.spans[c, 1]
    for i in range(first, end):
        if words[i] != x.copy[i]:
            kept = keep(x, words, first, end - first)
            h += share(c, kept) - share(c, int(x.node[new, c]))
            x.node[new, c] = kept
            for j in range(first, end):
                words[j] = x.copy[j]
            return h
    return h


@fn
def reached(s, x, words, number, t, h):
    """The number of the state in the raw buffer, one step of `t` from state `number` with hash `h`; the buffer is
    `number` again. A step changes its own thread, pages and virtual machines, no other thread."""
    new = x.count[0].states
    pages = len(s.mm)
    for c in range(len(x.spans)):
        x.node[new, c] = x.node[number, c]
    for c in range(pages):
        h = look(x, words, new, c, h)
    h = look(x, words, new, pages + t, h)
    for c in range(pages + len(s.task), len(x.spans)):
        h = look(x, words, new, c, h)
    return find(x, new, h)


@fn
def is_pending(s, t):
    """Whether actor `t` has begun what a leads-to must end: an access, a pin, a writeback (MODEL section 5)."""
    kind, pc = s.who[t].kind, s.task[t].pc
    if kind == VCPU:
        return s.actor[t].op != NOTHING
    if kind in (DISK, RING):
        return pc == PIN_GET or ACC_TEST <= pc <= ACC_CLEAR
    return kind == WRITEBACK and pc != WB_IDLE


@fn
def take(s, x, words, number, h, t, op, page, by):
    """Run one step from state `number`; record its edge. True if the step was enabled."""
    pc = s.task[t].pc
    if pc == RUN and s.actor[t].op != NOTHING:
        return False
    p = focus(s, t, page)
    was = s.uv[p].state
    outcome = step(s, t, op, page)
    if s.who[t].kind == VCPU and pc > AGAIN:
        obstacle = outcome if E_LOCKED <= outcome <= E_UV else 16 - outcome if outcome < 0 else 0
        if obstacle and x.met[obstacle].state < 0:
            x.met[obstacle].state, x.met[obstacle].by = number, by
    if outcome < 0:
        return False
    g = x.count[0]
    wrong = broken(s, t, pc, p, was, outcome)
    if wrong and x.found[wrong].state < 0:
        x.found[wrong].state, x.found[wrong].by = number, by
    x.fired[pc] += 1
    other = reached(s, x, words, number, t, h)
    if other == g.states:
        x.parent[other], x.by[other] = number, by
        g.states += 1
    x.to[g.edges], x.via[g.edges] = other, by
    g.edges += 1
    return True


@fn
def expand(s, x, words, number):
    """All steps from one state."""
    load(x, words, number)
    h = hash_of(x, number)
    pending = 0
    enabled = 0
    x.first[number] = x.count[0].edges
    for t in range(len(s.task)):
        if is_pending(s, t):
            pending |= 1 << t
    for t in range(len(s.task)):
        pc = s.task[t].pc
        if pc != IDLE_PC[s.who[t].kind]:
            if take(s, x, words, number, h, t, NOTHING, 0, t << 16) and FAIR[pc]:
                enabled |= 1 << t
        else:
            for i in range(x.choices[t, 1]):
                c = x.choices[t, 0] + i
                take(s, x, words, number, h, t, x.ops[c], x.pages[c], (t << 16) | i)
    x.pending[number], x.enabled[number] = pending, enabled


@fn
def explore(s, x, words, widest):
    """Expand states in breadth-first order until none is left, or an array is full (COUNT.stop).

    `widest`: the most steps any state can have; room for so many is kept.
    """
    g = x.count[0]
    while g.next < g.states:
        if g.states > g.limit:
            g.stop = LIMIT
            return
        room = len(x.parent) - g.states > widest and len(x.to) - g.edges > widest
        if not room or 2 * (g.states + widest) > len(x.table):
            g.stop = FULL
            return
        expand(s, x, words, g.next)
        if g.stop == OVERFLOW:
            return
        g.next += 1
    x.first[g.states] = g.edges


@fn
def begin(x, words):
    """Enter the state in the raw buffer as state 0."""
    for c in range(len(x.spans)):
        x.node[0, c] = keep(x, words, x.spans[c, 0], x.spans[c, 1])
    x.count[0].states = 1
    find(x, 0, hash_of(x, 0))


@fn
def rehash(x):
    """Enter all states into an emptied table."""
    for number in range(x.count[0].states):
        find(x, number, hash_of(x, number))
