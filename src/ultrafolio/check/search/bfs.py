"""Exploration: take the next states, look up every enabled step, keep what is new. Loaded with the rules, like the
event loop; nothing here knows what a rule does.

A round takes the next few states through `look`, `fill`, `make`, `insert`, `settle` and `link`. All but `fill` may be
shared between workers, each with its own states or its own shards of the table; between the phases all wait for each
other, so what a phase writes belongs to one worker. New states are numbered in the order of the edges that reach them,
so neither the size of a round nor the number of workers can be seen in the result.
"""

from __future__ import annotations

from typing import Any

from ultrafolio.check.search.canonical import fold
from ultrafolio.check.search.memo import (
    keep,
    memorise,
    memory_of,
    mix,
    own_in,
    own_of,
    put,
    put_memory,
    recalled,
    remember,
)
from ultrafolio.check.search.packing import *
from ultrafolio.model.rule import fn

prefetch: Any = None  # bound by the loader: fetch a row of an array that will soon be looked at
add: Any = None  # bound by the loader: add to an element that other workers add to, and return what it was
peek: Any = None  # bound by the loader: read an element that another worker will change
give_way: Any = None  # bound by the loader: let another thread run


# ------------------------------------------------------------------------------------------------- a round
@fn
def look(x, w, first, end):
    """Worker `w` looks up the steps of the states [first, end)."""
    g = x.count[0]
    actors = g.actors
    missed = 0
    for low in range(first, end, BATCH):
        high = min(low + BATCH, end)
        for number in range(low, high):
            at = (number - g.next) * actors
            for t in range(actors):
                x.steps[at + t] = recalled(x, number, t)
                prefetch(x.recall, x.steps[at + t])
        for number in range(low, high):
            at = (number - g.next) * actors
            for t in range(actors):
                position = x.recall[x.steps[at + t]]
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
def note(found, at, number, by):
    """Keep the first of its kind."""
    if found[at].state < 0:
        found[at].state, found[at].by = number, by


@fn
def slot_of(x, rows, number):
    """Where the state in row `number` is looked for first."""
    h = 0
    for c in range(x.node.shape[1]):
        h = mix(h, rows[number, c])
    return h >> x.count[0].shift


@fn
def deal(x, w, i, slot):
    """The row of worker `w`'s candidate `i`, which is looked for from `slot` on: in the shard that this belongs to."""
    if len(x.fresh) == 1:
        prefetch(x.table, slot)
        x.listed[w, 0] = i + 1
        return i
    shard = slot >> x.count[0].part
    row = (shard * len(x.made) + w) * x.count[0].area + x.listed[w, shard]
    x.listed[w, shard] += 1
    x.order[i] = row
    return row


@fn
def word_after(x, number, c, t, after):
    """Word `c` of a state's row after a step of actor `t`."""
    f = x.fields[t + 1]
    word = x.node[number, c]
    if c == 0:
        word = (word & ~x.fields[0].mask) | (after & MEMORY_MASK)
    if c == f.word:
        word = (word & ~(f.mask << f.shift)) | ((after >> STEP_OWN) & OWN_MASK) << f.shift
    return word


@fn
def make(x, w, first, end):
    """Worker `w` writes the candidates, the targets of every step of the states [first, end), into its area. Where no
    edges are kept, a step that changes nothing is only counted."""
    g = x.count[0]
    width = x.node.shape[1]
    start = w * g.area
    made = start
    loops = 0
    for number in range(first, end):
        pending = 0
        enabled = 0
        if g.keeps:
            x.first[number] = made - start
        for t in range(g.actors):
            position = x.steps[(number - g.next) * g.actors + t]
            header = x.pool[position]
            steps = header & STEPS_MASK
            pending |= ((header >> HEAD_PENDING) & 1) << t
            if steps:
                enabled |= ((header >> HEAD_FAIR) & 1) << t
                x.fired[w, (header >> HEAD_RULE) & RULE_MASK] += steps
            obstacle = (header >> HEAD_OBSTACLE) & OBSTACLE_MASK
            if obstacle:
                met = ((w * g.actors + t) * MET_END + obstacle) * len(x.seats) + (header >> HEAD_PAGE)
                note(x.met, met, number, t << BY_ACTOR)
            here = memory_of(x, x.node, number) | own_in(x, x.node, number, t) << STEP_OWN
            for i in range(position + 1, position + 1 + steps):
                after = x.pool[i]
                by = t << BY_ACTOR | (after >> STEP_CHOICE) & CHOICE_MASK
                wrong = after >> STEP_PROPERTY
                if wrong:
                    note(x.found, w * PROPERTIES_END + wrong, number, by)
                if after & AFTER_MASK == here and not g.keeps:
                    loops += 1
                    continue
                h = 0
                for c in range(width):
                    h = mix(h, word_after(x, number, c, t, after))
                row = deal(x, w, made, h >> g.shift)
                for c in range(width):
                    x.new[row, c] = word_after(x, number, c, t, after)
                x.new[row, width + COME], x.new[row, width + SLOT] = by << 32 | number, h >> g.shift
                made += 1
        if g.keeps:
            x.pending[number], x.enabled[number] = pending, enabled
    x.made[w], x.loops[w] = made - start, loops


@fn
def following(x, slot):
    """The next slot of the same shard of the table."""
    last = (1 << x.count[0].part) - 1
    return (slot & ~last) | ((slot + 1) & last)


@fn
def found_from(x, rows, number, slot):
    """The slot of the state in row `number`, looked for from `slot` on, or the empty one where it would stand."""
    while x.table[slot, 0]:
        same = True
        for c in range(x.node.shape[1]):
            same = same and x.table[slot, c] == rows[number, c]
        if same:
            return slot
        slot = following(x, slot)
    return slot


@fn
def enter(x, rows, number, slot):
    """Write the state in row `number` into an empty slot."""
    for c in range(x.node.shape[1]):
        x.table[slot, c] = rows[number, c]


@fn
def number_it(x, i, number):
    """The candidate in row `i`, which is new, becomes state `number`."""
    for c in range(x.node.shape[1]):
        x.node[number, c] = x.new[i, c]
    come = x.new[i, x.node.shape[1] + COME]
    x.parent[number], x.by[number] = come & 0xFFFFFFFF, come >> 32
    if x.count[0].numbers:
        x.seat[x.new[i, x.node.shape[1] + SLOT]] = number


@fn
def insert(x, shard):
    """Find each candidate of a shard in the table, in their order; enter it where it is new. Where there is one shard
    it gets its number at once, else from `settle`."""
    g = x.count[0]
    alone = len(x.fresh) == 1
    where = x.node.shape[1] + SLOT
    for w in range(len(x.made)):
        fresh = 0
        start = (shard * len(x.made) + w) * g.area
        end = start + x.listed[w, shard]
        unasked = start if alone else end  # alone, `deal` asked for all of them
        for row in range(start, min(start + BATCH, unasked)):
            prefetch(x.table, x.new[row, where])
        for row in range(start, end):
            if row + BATCH < unasked:
                prefetch(x.table, x.new[row + BATCH, where])
            slot = found_from(x, x.new, row, x.new[row, where])
            x.new[row, where] = slot
            if x.table[slot, 0] == 0:
                enter(x, x.new, row, slot)
                if alone:
                    number_it(x, row, g.states + fresh)
                else:
                    x.new[row, where] = ~slot
                fresh += 1
        x.fresh[shard, w] = fresh


@fn
def settle(x, w):
    """Worker `w` gives the new states among its candidates their numbers and places."""
    g = x.count[0]
    number = g.states
    for v in range(w):
        for shard in range(len(x.fresh)):
            number += x.fresh[shard, v]
    for i in range(w * g.area, w * g.area + x.made[w]):
        row = x.order[i]
        slot = x.new[row, x.node.shape[1] + SLOT]
        if slot < 0:
            x.new[row, x.node.shape[1] + SLOT] = ~slot
            number_it(x, row, number)
            number += 1


@fn
def link(x, w, first, end):
    """Worker `w` keeps the edges of the states [first, end)."""
    g = x.count[0]
    width = x.node.shape[1]
    edge = g.edges
    for v in range(w):
        edge += x.made[v]
    for number in range(first, end):
        x.first[number] += edge
    for i in range(w * g.area, w * g.area + x.made[w]):
        row = x.order[i] if len(x.fresh) > 1 else i
        x.to[edge], x.via[edge] = x.seat[x.new[row, width + SLOT]], x.new[row, width + COME] >> 32
        edge += 1


# --------------------------------------------------------------------------------------------- exploration
@fn
def room(x):
    """How many more states and edges there is room for."""
    g = x.count[0]
    return min(g.capacity - g.states, len(x.to) - g.edges) if g.keeps else g.capacity - g.states


@fn
def plan(x, most):
    """Choose the states of the next round, at most so many; none, and the reason, where no more can be expanded.

    Not more than fit, and not more than stay within the limit, if each has the most steps a state can have: so full
    arrays and the limit are met at the same state whatever the rounds.
    """
    g = x.count[0]
    g.round = 0
    if g.states > g.limit:
        g.stop = LIMIT
        return
    if room(x) < g.widest:
        g.stop = FULL
        return
    n = min(most, g.states - g.next)
    n = min(n, (g.limit - g.states) // g.widest + 1)
    g.round = max(1, min(n, room(x) // g.widest))


@fn
def advance(x):
    """The round is over."""
    g = x.count[0]
    total = len(x.made)
    for w in range(total):
        g.edges += x.made[w] + x.loops[w]
        for shard in range(len(x.fresh)):
            g.states += x.fresh[shard, w]
            x.fresh[shard, w] = 0
        for pc in range(x.fired.shape[1]):
            x.fired[total, pc] += x.fired[w, pc]
    g.next += g.round
    undo(x)
    if g.keeps:
        x.first[g.next] = g.edges


@fn
def undo(x):
    """Nothing of the round is left but what advance() kept."""
    for w in range(len(x.made)):
        x.made[w], x.loops[w] = 0, 0
        for shard in range(len(x.fresh)):
            x.listed[w, shard] = 0
        for pc in range(x.fired.shape[1]):
            x.fired[w, pc] = 0
    x.count[0].round = 0


@fn
def explore(s, x, words, w, share, enough):
    """Worker `w`'s part in expanding states in breadth-first order until none is left or it stops (COUNT.stop).

    While fewer than `enough` states wait, the first worker is alone; else a round has `share` states for each. A stop
    for want of room is believed in a round of one state only, so that it is at the same state whatever the rounds.
    """
    g = x.count[0]
    workers = len(x.made)
    careful = g.next
    while True:
        if w == 0:
            careful = alone(s, x, words, careful, enough)
            plan_shared(x, careful, share)
        meet(x)
        if g.round == 0:
            return
        first = g.next + g.round * w // workers
        end = g.next + g.round * (w + 1) // workers
        look(x, w, first, end)
        meet(x)
        if w == 0:
            fill_missed(s, x, words)
        meet(x)
        if g.stop == RUNNING:
            make(x, w, first, end)
            meet(x)
            for shard in range(w, len(x.fresh), workers):
                insert(x, shard)
            meet(x)
            settle(x, w)
            if g.keeps:
                meet(x)
                link(x, w, first, end)
        meet(x)
        if w == 0:
            careful = over(x, careful)


@fn
def plan_shared(x, careful, share):
    """A round for all workers, or none where all is done or it stopped."""
    g = x.count[0]
    g.round = 0
    if g.stop == RUNNING and g.next < g.states:
        plan(x, share * len(x.made))


@fn
def over(x, careful):
    """The round is over, or it must be tried again state by state: up to which state is returned."""
    g = x.count[0]
    if g.stop == RUNNING:
        advance(x)
        return careful
    n = g.round
    undo(x)
    if g.stop == FULL and n > 1:
        g.stop = RUNNING
        return g.next + n
    return careful


@fn
def alone(s, x, words, careful, enough):
    """Expand states by one worker, until `enough` wait and none up to `careful` is to be tried by itself; return the
    next `careful`."""
    g = x.count[0]
    while g.stop == RUNNING and g.next < g.states and (g.states - g.next < enough or g.next < careful):
        plan(x, ROUND if g.next >= careful else 1)
        if g.round:
            expand(s, x, words, g.next, g.next + g.round)
            if g.stop == RUNNING:
                insert_all(x)
            careful = over(x, careful)
    return careful


@fn
def meet(x):
    """Wait until all workers are here; what each did before is seen by all."""
    workers = len(x.made)
    if workers == 1:
        return
    turn = peek(x.gate, LINE)
    if add(x.gate, 0, 1) == workers - 1:
        add(x.gate, 0, -workers)
        add(x.gate, LINE, 1)
        return
    tries = 0
    while peek(x.gate, LINE) == turn:
        tries += 1
        if tries & 1023 == 0:
            give_way()


@fn
def fill_missed(s, x, words):
    """Run the steps that are not remembered, if a worker missed any."""
    missed = 0
    for w in range(len(x.made)):
        missed += x.missed[w]
    if missed:
        fill(s, x, words)


@fn
def expand(s, x, words, first, end):
    """Make the candidates of the states [first, end), by a worker that is alone; or stop."""
    g = x.count[0]
    look(x, g.none, first, end)
    if x.missed[0]:
        fill(s, x, words)
        if g.stop != RUNNING:
            return
    if g.folds and len(x.memory) - g.memories <= (end - first) * g.widest:
        g.stop = FULL
        return
    make(x, g.none, first, end)
    if g.folds:
        for i in range(x.made[0]):
            fold(s, x, words, i)
            x.new[i, x.node.shape[1] + SLOT] = slot_of(x, x.new, i)


@fn
def insert_all(x):
    """Find or enter all candidates of a worker that is alone."""
    g = x.count[0]
    for shard in range(len(x.fresh)):
        insert(x, shard)
    if len(x.fresh) > 1:
        settle(x, g.none)
    if g.keeps:
        link(x, g.none, g.next, g.next + g.round)


@fn
def pack(x, words):
    """Write the state in the raw buffer as candidate 0."""
    width = x.memory.shape[1]
    none = x.count[0].none
    m = x.count[0].memories
    for c in range(width):
        x.memory[m, c] = keep(x, words, x.spans[c, 0], x.spans[c, 1])
    for c in range(x.node.shape[1]):
        x.new[0, c] = 0
    put_memory(x, x.new, none, memorise(x))
    for t in range(x.count[0].actors):
        component = keep(x, words, x.spans[width + t, 0], x.spans[width + t, 1])
        put(x, x.new, none, t, own_of(x, t, component))


@fn
def begin(s, x, words):
    """Enter the state in the raw buffer as state 0."""
    g = x.count[0]
    pack(x, words)
    if g.folds:
        fold(s, x, words, g.none)
    for c in range(x.node.shape[1]):
        x.node[0, c] = x.new[0, c]
    g.states = 1
    g.used = 1
    enter_states(x, g.none, g.used)


@fn
def enter_states(x, w, workers):
    """Enter all states of the shards of worker `w` into an emptied table; they differ, so an empty slot is all that is
    looked for."""
    states = x.count[0].states
    for low in range(0, states, BATCH):
        high = min(low + BATCH, states)
        for number in range(low, high):
            slot = slot_of(x, x.node, number)
            if (slot >> x.count[0].part) % workers == w:
                prefetch(x.table, slot)
        for number in range(low, high):
            slot = slot_of(x, x.node, number)
            if (slot >> x.count[0].part) % workers == w:
                while x.table[slot, 0]:
                    slot = following(x, slot)
                enter(x, x.node, number, slot)
                if x.count[0].numbers:
                    x.seat[slot] = number


@fn
def locate(s, x, words):
    """The number of the state that stands for the one in the raw buffer, or -1."""
    pack(x, words)
    none = x.count[0].none
    fold(s, x, words, none)
    slot = found_from(x, x.new, none, slot_of(x, x.new, none))
    return int(x.seat[slot]) if x.table[slot, 0] else -1
