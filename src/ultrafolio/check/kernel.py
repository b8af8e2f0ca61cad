"""Exploration: take the next states, look up every enabled step, keep what is new. Loaded with the rules, like the
event loop; nothing here knows what a rule does.

A round takes the next few states through `look`, `fill`, `make`, `insert`, `settle` and `link`. All but `fill` may be
shared between workers, each with its own states or its own shard of the table. New states are numbered in the order of
the edges that reach them, so neither the size of a round nor the number of workers can be seen in the result.
"""

from __future__ import annotations

from typing import Any

from ultrafolio.model.rule import fn

from .folding import fold, fold_all
from .layout import *
from .steps import component_of, keep, key_of, memorise, memory_of, mix, put, recalled, remember

prefetch: Any = None  # bound by the loader: fetch a row of an array that will soon be looked at

BATCH = 32


# ------------------------------------------------------------------------------------------------- a round
@fn
def look(x, w, first, end):
    """Worker `w` looks up the steps of the states [first, end)."""
    g = x.count[0]
    actors = g.actors
    missed = 0
    for low in range(first, end, BATCH // 4):
        high = min(low + BATCH // 4, end)
        for number in range(low, high):
            for t in range(actors):
                prefetch(x.recall, mix(7, key_of(x, number, t)) & (len(x.recall) - 1))
        for number in range(low, high):
            at = (number - g.next) * actors
            for t in range(actors):
                position = x.recall[recalled(x, key_of(x, number, t)), 1]
                prefetch(x.pool, position)
                x.steps[at + t] = position
                if position == 0:
                    missed += 1
    x.missed[w] = missed


@fn
def fill(s, x, words):
    """Run the steps that are not remembered yet, for all states of the round."""
    g = x.count[0]
    g.spare = len(x.pool)
    for number in range(g.next, g.next + g.round):
        at = (number - g.next) * g.actors
        for t in range(g.actors):
            if x.steps[at + t] == 0:
                x.steps[at + t] = remember(s, x, words, number, t)
                if g.stop != RUNNING:
                    return


@fn
def hash_of(x, number):
    """The hash of a state's row."""
    h = 0
    for w in range(x.node.shape[1]):
        h = mix(h, x.node[number, w])
    return h


@fn
def note(found, at, number, by):
    """Keep the first of its kind."""
    if found[at].state < 0:
        found[at].state, found[at].by = number, by


@fn
def shard_of(x, h):
    """The part of the table in which a state with hash `h` stands."""
    return (h >> 58) & (x.hash.shape[0] - 1)


@fn
def candidate(x, shard, at):
    """The row of a shard's candidate `at`."""
    return x.count[0].capacity + shard * x.hash.shape[1] + at


@fn
def lanes_after(x, number, c, word, shift, after):
    """Word `c` of a state's row after a step: its memory changes, and the component at `shift` in `word`."""
    lanes = x.node[number, c]
    if c == 0:
        lanes = (lanes >> 32 << 32) | (after & 0xFFFFFFF)
    if c == word:
        lanes ^= (((lanes >> shift) ^ (after >> 28)) & 0xFFFF) << shift
    return lanes


@fn
def make(x, w, first, end):
    """Worker `w` writes the candidates, the targets of every step of the states [first, end), into its areas, one for
    each shard. Where no edges are kept, a step that changes nothing is only counted."""
    g = x.count[0]
    shards = x.hash.shape[0]
    width = x.node.shape[1]
    start = w * g.area
    made = start
    loops = 0
    for shard in range(shards):
        x.listed[w, shard] = 0
    for number in range(first, end):
        pending = 0
        enabled = 0
        if g.keeps:
            x.first[number] = made - start
        for t in range(g.actors):
            position = x.steps[(number - g.next) * g.actors + t]
            header = x.pool[position]
            steps = header & 0xFFFF
            pending |= ((header >> 30) & 1) << t
            if steps:
                enabled |= ((header >> 29) & 1) << t
                x.fired[w, (header >> 16) & 0xFF] += steps
            obstacle = (header >> 24) & 31
            if obstacle:
                note(x.met, w * OBSTACLES_END + obstacle, number, t << 16)
            word = (t + 2) >> 2
            shift = 16 * ((t + 2) & 3)
            here = memory_of(x, number) | component_of(x, number, t) << 28
            for i in range(position + 1, position + 1 + steps):
                after = x.pool[i]
                by = t << 16 | after >> 48
                wrong = (after >> 44) & 15
                if wrong:
                    note(x.found, w * PROPERTIES_END + wrong, number, by)
                if after & 0xFFFFFFFFFFF == here and not g.keeps:
                    loops += 1
                    continue
                h = 0
                for c in range(width):
                    h = mix(h, lanes_after(x, number, c, word, shift, after))
                shard = shard_of(x, h)
                at = start + x.listed[w, shard]
                x.listed[w, shard] += 1
                new = candidate(x, shard, at)
                for c in range(width):
                    x.node[new, c] = lanes_after(x, number, c, word, shift, after)
                x.parent[new], x.by[new] = number, by
                x.hash[shard, at] = h
                x.order[made] = new
                made += 1
        if g.keeps:
            x.pending[number], x.enabled[number] = pending, enabled
    x.made[w], x.loops[w] = made - start, loops


@fn
def slot_of(x, h):
    """Where a state with hash `h` is looked for first."""
    part = len(x.table) // x.hash.shape[0]
    return shard_of(x, h) * part + (h & (part - 1))


@fn
def following(x, slot):
    """The next slot of the same part of the table."""
    part = len(x.table) // x.hash.shape[0] - 1
    return (slot & ~part) | ((slot + 1) & part)


@fn
def entry_of(h, number):
    """What the table holds of a state."""
    return ((h >> 32) & 0x7FFFFFFF) << 32 | (number + 1)


@fn
def find(x, number, h):
    """The table slot of the state equal to the one in row `number`, or the empty one where it would stand."""
    slot = slot_of(x, h)
    tag = (h >> 32) & 0x7FFFFFFF
    while x.table[slot]:
        entry = x.table[slot]
        if entry >> 32 == tag:
            other = (entry & 0xFFFFFFFF) - 1
            same = True
            for c in range(x.node.shape[1]):
                same = same and x.node[other, c] == x.node[number, c]
            if same:
                return slot
        slot = following(x, slot)
    return slot


@fn
def move(x, new, number, slot):
    """The candidate in row `new` becomes state `number`."""
    for c in range(x.node.shape[1]):
        x.node[number, c] = x.node[new, c]
    x.parent[number], x.by[number] = x.parent[new], x.by[new]
    x.table[slot] = (x.table[slot] >> 32 << 32) | (number + 1)


@fn
def insert(x, shard):
    """Find each candidate of a shard in the table, in their order; enter it where it is new. A worker that is alone
    knows its number at once; others get it from `settle`."""
    g = x.count[0]
    alone = len(x.made) == 1
    for w in range(len(x.made)):
        fresh = 0
        start = w * g.area
        end = start + x.listed[w, shard]
        for low in range(start, end, BATCH):
            high = min(low + BATCH, end)
            for at in range(low, high):
                prefetch(x.table, slot_of(x, x.hash[shard, at]))
            for at in range(low, high):
                entry = x.table[slot_of(x, x.hash[shard, at])]
                if entry:
                    prefetch(x.node, (entry & 0xFFFFFFFF) - 1)
            for at in range(low, high):
                h = x.hash[shard, at]
                new = candidate(x, shard, at)
                slot = find(x, new, h)
                if x.table[slot] == 0:
                    x.table[slot] = entry_of(h, new)
                    x.slot[shard, at] = slot
                    if alone:
                        move(x, new, g.states + fresh, slot)
                    fresh += 1
                x.target[shard, at] = (x.table[slot] & 0xFFFFFFFF) - 1
        x.fresh[shard, w] = fresh


@fn
def settle(x, w):
    """Worker `w` gives the new states among its candidates their numbers and places."""
    g = x.count[0]
    many = x.hash.shape[1]
    number = g.states
    for v in range(w):
        for shard in range(x.hash.shape[0]):
            number += x.fresh[shard, v]
    for i in range(w * g.area, w * g.area + x.made[w]):
        new = x.order[i]
        shard = (new - g.capacity) // many
        at = (new - g.capacity) - shard * many
        if x.target[shard, at] == new:
            move(x, new, number, x.slot[shard, at])
            x.target[shard, at] = number
            number += 1


@fn
def link(x, w, first, end):
    """Worker `w` keeps the edges of the states [first, end)."""
    g = x.count[0]
    many = x.hash.shape[1]
    edge = g.edges
    for v in range(w):
        edge += x.made[v]
    for number in range(first, end):
        x.first[number] += edge
    for i in range(w * g.area, w * g.area + x.made[w]):
        target = x.order[i]
        x.via[edge] = x.by[target]
        while target >= g.capacity:
            shard = (target - g.capacity) // many
            target = x.target[shard, target - g.capacity - shard * many]
        x.to[edge] = target
        edge += 1


# --------------------------------------------------------------------------------------------- exploration
@fn
def room(x):
    """How many more states and edges there is room for."""
    g = x.count[0]
    return min(g.capacity - g.states, len(x.to) - g.edges) if g.keeps else g.capacity - g.states


@fn
def plan(x, most, steps):
    """Choose the states of the next round, at most so many; 0 and the reason where none can be expanded.

    Not more than fit, and not more than stay within the limit, if each has so many steps: with g.widest surely, so that
    full arrays and the limit are met at the same state whatever the rounds.
    """
    g = x.count[0]
    g.round = 0
    if g.states > g.limit:
        g.stop = LIMIT
        return 0
    if room(x) < g.widest:
        g.stop = FULL
        return 0
    n = min(most, g.states - g.next)
    n = min(n, (g.limit - g.states) // steps + 1)
    g.round = max(1, min(n, room(x) // steps))
    return g.round


@fn
def advance(x):
    """The round is over."""
    g = x.count[0]
    for w in range(len(x.made)):
        g.edges += x.made[w] + x.loops[w]
        for shard in range(x.hash.shape[0]):
            g.states += x.fresh[shard, w]
            x.fresh[shard, w] = 0
            x.listed[w, shard] = 0
        x.made[w], x.loops[w] = 0, 0
    g.next += g.round
    g.round = 0
    if g.keeps:
        x.first[g.next] = g.edges


@fn
def explore(s, x, words, most, enough):
    """Expand states in breadth-first order, `most` a round, until none is left, so many wait that sharing the work
    pays (`enough`), or it stops (COUNT.stop). A stop for want of room is believed in a round of one state only, so that
    it is at the same state whatever the rounds."""
    g = x.count[0]
    while g.next < g.states and g.states - g.next < enough:
        n = plan(x, most, g.widest)
        if n == 0:
            return
        end = g.next + n
        look(x, 0, g.next, end)
        if x.missed[0] or g.folds:
            fill(s, x, words)
            if g.folds and len(x.memory) - g.memories <= n * g.widest:
                g.stop = FULL
            if g.stop != RUNNING:
                if n == 1:
                    return
                g.stop = RUNNING
                most = 1
                continue
        make(x, 0, g.next, end)
        if g.folds:
            fold_all(s, x, words)
            if g.stop != RUNNING:
                return
        for shard in range(x.hash.shape[0]):
            insert(x, shard)
        if len(x.made) > 1:
            settle(x, 0)
        if g.keeps:
            link(x, 0, g.next, end)
        advance(x)


@fn
def pack(x, words, number):
    """Write the state in the raw buffer as a row."""
    width = x.memory.shape[1]
    m = x.count[0].memories
    for c in range(width):
        x.memory[m, c] = keep(x, words, x.spans[c, 0], x.spans[c, 1])
    for c in range(x.node.shape[1]):
        x.node[number, c] = 0
    x.node[number, 0] = memorise(x)
    for t in range(x.count[0].actors):
        put(x, number, t, keep(x, words, x.spans[width + t, 0], x.spans[width + t, 1]))


@fn
def begin(s, x, words):
    """Enter the state in the raw buffer as state 0."""
    g = x.count[0]
    pack(x, words, 0)
    if g.folds:
        fold(s, x, words, 0)
    g.states = 1
    g.used = 1
    enter_states(x)


@fn
def enter_states(x):
    """Enter all states into an emptied table; they differ, so an empty slot is all that is looked for."""
    states = x.count[0].states
    for low in range(0, states, BATCH):
        high = min(low + BATCH, states)
        for number in range(low, high):
            x.hash[0, number - low] = hash_of(x, number)
            prefetch(x.table, slot_of(x, x.hash[0, number - low]))
        for number in range(low, high):
            slot = slot_of(x, x.hash[0, number - low])
            while x.table[slot]:
                slot = following(x, slot)
            x.table[slot] = entry_of(x.hash[0, number - low], number)


@fn
def locate(s, x, words):
    """The number of the state that stands for the one in the raw buffer, or -1."""
    g = x.count[0]
    new = g.capacity
    pack(x, words, new)
    fold(s, x, words, new)
    return (x.table[find(x, new, hash_of(x, new))] & 0xFFFFFFFF) - 1
