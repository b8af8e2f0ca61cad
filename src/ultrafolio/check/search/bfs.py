"""Breadth-first exploration: expand the next states, look up every enabled step, store the new states. Loaded with the
rules, like the simulator's loop; nothing here depends on what a rule does.

A round has two halves: expand() makes the candidates of the next few states, insert_all() stores those that are new.
One worker does both, or two do one each (sharing.py). New states are numbered in the order of the edges that reach
them, so the result depends neither on the size of a round nor on the number of workers.
"""

from __future__ import annotations

from typing import Any

from ultrafolio.check.search.memo import (
    index_of,
    intern_memory,
    intern_part,
    memo_slot,
    memo_start,
    mix,
    put_value,
    short_id,
    steps_of,
    value_of,
)
from ultrafolio.check.search.packing import *
from ultrafolio.model.rule import fn

prefetch: Any = None  # bound by the loader: atomics.prefetch


# ------------------------------------------------------------------------------------------------- a round
@fn
def look_up(x, first, end):
    """Write the `pool` positions of the steps of the states [first, end) into x.steps. Returns how many are missing."""
    g = x.count[0]
    actors = g.actors
    missed = 0
    for low in range(first, end, BATCH):
        high = min(low + BATCH, end)
        for number in range(low, high):
            at = (number - g.next) * actors
            memory = value_of(x, x.node, number, g.zero)
            for t in range(actors):
                if x.home[t] >= 0:
                    x.steps[at + t] = index_of(x, number, t, memory)
                    prefetch(x.index, x.steps[at + t])
                else:
                    x.steps[at + t] = ~memo_start(x, number, t)
                    prefetch(x.memo_table, ~x.steps[at + t])
        for at in range((low - g.next) * actors, (high - g.next) * actors):
            place = x.steps[at]
            if place >= 0:
                position = int(x.index[place])
                x.steps[at] = position
                if position == 0:
                    missed += 1
            else:
                position = int(x.memo_table[~place])
            prefetch(x.pool, position)
        missed += look_up_hashed(x, low, high)
    return missed


@fn
def look_up_hashed(x, first, end):
    """look_up() for the actors without a home, of which x.steps has the inverted slots. Returns how many are
    missing."""
    g = x.count[0]
    missed = 0
    for t in range(g.actors):
        for number in range(first, end if x.home[t] < 0 else first):
            at = (number - g.next) * g.actors + t
            position = int(x.memo_table[memo_slot(x, number, t, ~x.steps[at])])
            x.steps[at] = position
            if position == 0:
                missed += 1
    return missed


@fn
def run_missing(s, x, words):
    """Run the steps of the round's states that are not memoised."""
    g = x.count[0]
    g.spare = g.pool_end
    for number in range(g.next, g.next + g.round):
        at = (number - g.next) * g.actors
        for t in range(g.actors):
            if x.steps[at + t] == 0:
                x.steps[at + t] = steps_of(s, x, words, number, t)
                if g.stop != RUNNING:
                    return


@fn
def keep_first(found, at, number, by):
    """Record (number, by) at found[at] unless there is an earlier one."""
    if found[at].state < 0:
        found[at].state, found[at].by = number, by


@fn
def hash_of(x, rows, number):
    """Returns the hash of the state in row `number`."""
    h = 0
    for c in range(x.node.shape[1]):
        h = mix(h, rows[number, c])
    return h


@fn
def slot_of(x, h):
    """Returns the slot at which the probe for a state with this hash starts, the first of a bucket."""
    return (((h >> (63 - HASH_BITS)) * x.count[0].slots) >> HASH_BITS) & ~(BUCKET - 1)


@fn
def word_after(x, number, c, t, at):
    """Returns word `c` of a state's row after a step of actor `t`. at: where in `pool` the step is."""
    return (x.node[number, c] & ~x.reach[t, c]) | x.pool[at + c]


@fn
def make_candidates(x, half):
    """Write the candidates (the target of every step of the round's states) into half `half` of candidate_rows, in the
    order of edges. Without edges, a step that changes nothing is only counted."""
    g = x.count[0]
    width = x.node.shape[1]
    start = half * g.area
    made = start
    loops = 0
    for number in range(g.next, g.next + g.round):
        pending = 0
        enabled = 0
        if g.keeps_edges:
            x.first[number] = made - start
        for t in range(g.actors):
            position = x.steps[(number - g.next) * g.actors + t]
            header = x.pool[position]
            steps = header & STEPS_MASK
            told = header >> HEAD_TOLD
            pending |= ((header >> HEAD_PENDING) & 1) << t
            if steps:
                enabled |= ((header >> HEAD_FAIR) & 1) << t
                x.fired[half, (header >> HEAD_RULE) & RULE_MASK] += steps
            obstacle = (header >> HEAD_OBSTACLE) & OBSTACLE_MASK
            if obstacle:
                page = (header >> HEAD_PAGE) & PAGE_MASK
                keep_first(x.met, (t * MET_END + obstacle) * len(x.busy_actors) + page, number, t << BY_ACTOR)
            for i in range(steps):
                at = position + 1 + i * (width + told)
                label = x.pool[at + width] if told else i
                by = t << BY_ACTOR | label & CHOICE_MASK
                wrong = label >> STEP_PROPERTY if told else 0
                if wrong:
                    keep_first(x.found, wrong, number, by)
                h = 0
                changed = g.keeps_edges
                for c in range(width):
                    word = word_after(x, number, c, t, at)
                    changed |= word ^ x.node[number, c]
                    h = mix(h, word)
                    x.candidate_rows[made, c] = word
                x.candidate_rows[made, width + ORIGIN] = by << 32 | number
                x.candidate_rows[made, width + SLOT] = slot_of(x, h)
                kept = 1 if changed else 0
                made += kept
                loops += 1 - kept
        if g.keeps_edges:
            x.pending[number], x.enabled[number] = pending, enabled
    x.candidates[half], x.loops[half], x.source[half], x.sources[half] = made - start, loops, g.next, g.round


# ------------------------------------------------------------------------------------------------ the table
@fn
def next_slot(x, slot):
    """Returns the slot behind this one."""
    return slot + 1 if slot + 1 < x.count[0].slots else x.count[0].zero


@fn
def holds_row(x, slot, rows, number):
    """Whether a slot of the table holds the state in row `number`."""
    same = True
    for c in range(x.node.shape[1]):
        same = same and x.table[slot, c] == rows[number, c]
    return same


@fn
def find_slot(x, rows, number, slot):
    """Returns the slot of the state in row `number`, probing from `slot`, the first of a bucket; an empty slot if it is
    absent.

    All slots of a bucket are compared without a branch, which is cheaper than a branch that is often mispredicted.
    """
    first = rows[number, 0]
    while True:
        alike, free = BUCKET, BUCKET
        for i in range(BUCKET):
            word = x.table[slot + BUCKET - 1 - i, 0]
            alike = BUCKET - 1 - i if word == first else alike
            free = BUCKET - 1 - i if word == 0 else free
        for i in range(alike, BUCKET):
            if holds_row(x, slot + i, rows, number):
                return slot + i
        if free < BUCKET:
            return slot + free
        slot = next_slot(x, slot + BUCKET - 1)


@fn
def write_slot(x, slot, number):
    """Write state `number` into an empty slot."""
    for c in range(x.node.shape[1]):
        x.table[slot, c] = x.node[number, c]
    if x.count[0].keeps_numbers:
        x.slot_state[slot] = number


@fn
def number_state(x, row, slot, number):
    """Store the new candidate in row `row` as state `number`, with its parent and edge."""
    width = x.node.shape[1]
    for c in range(width):
        x.node[number, c] = x.candidate_rows[row, c]
    origin = x.candidate_rows[row, width + ORIGIN]
    x.parent[number], x.by[number] = origin & 0xFFFFFFFF, origin >> 32
    write_slot(x, slot, number)


@fn
def insert_all(x, half):
    """Look up each candidate of a half of candidate_rows in the table, in order; number and store a new one."""
    g = x.count[0]
    where = x.node.shape[1] + SLOT
    number = g.states
    first = half * g.area
    end = first + x.candidates[half]
    for row in range(first, min(first + BATCH, end)):
        prefetch(x.table, x.candidate_rows[row, where])
    for row in range(first, end):
        if row + BATCH < end:
            prefetch(x.table, x.candidate_rows[row + BATCH, where])
        slot = find_slot(x, x.candidate_rows, row, x.candidate_rows[row, where])
        if x.table[slot, 0] == 0:
            number_state(x, row, slot, number)
            number += 1
        if g.keeps_edges:
            x.to[g.edges + row - first] = x.slot_state[slot]
            x.via[g.edges + row - first] = x.candidate_rows[row, x.node.shape[1] + ORIGIN] >> 32
    for source in range(x.source[half], x.source[half] + x.sources[half] if g.keeps_edges else 0):
        x.first[source] += g.edges
    x.new_states[half] = number - g.states


@fn
def rehash_states(x):
    """Insert all states into an empty table. They are distinct, so no rows are compared."""
    for low in range(0, x.count[0].states, BATCH):
        high = min(low + BATCH, x.count[0].states)
        for number in range(low, high):
            prefetch(x.table, slot_of(x, hash_of(x, x.node, number)))
        for number in range(low, high):
            slot = slot_of(x, hash_of(x, x.node, number))
            while x.table[slot, 0]:
                slot = next_slot(x, slot)
            write_slot(x, slot, number)


# --------------------------------------------------------------------------------------------- exploration
@fn
def free_capacity(x):
    """Returns how many more states, and edges if they are kept, fit into the arrays."""
    g = x.count[0]
    return min(g.capacity - g.states, g.edge_capacity - g.edges) if g.keeps_edges else g.capacity - g.states


@fn
def plan_round(x, most):
    """Set COUNT.round, the states of the next round, to at most `most`; 0, with COUNT.stop, if none can be expanded.

    A round is small enough to fit, and to stay within the limit, if each state has max_steps steps. So the exploration
    stops at the same state for every size of a round.
    """
    g = x.count[0]
    g.round = 0
    if g.states > g.limit:
        g.stop = LIMIT
        return
    if free_capacity(x) < g.max_steps:
        g.stop = FULL
        return
    n = min(most, g.states - g.next)
    n = min(n, (g.limit - g.states) // g.max_steps + 1)
    g.round = max(1, min(n, free_capacity(x) // g.max_steps))


@fn
def commit(x, half):
    """Add the counters of the states of a half of candidate_rows, which are stored, to the totals, and clear them."""
    g = x.count[0]
    g.edges += x.candidates[half] + x.loops[half]
    g.states += x.new_states[half]
    for pc in range(x.fired.shape[1]):
        x.fired[2, pc] += x.fired[half, pc]
    clear(x, half)


@fn
def clear(x, half):
    """Clear the counters of a half of candidate_rows."""
    x.candidates[half], x.loops[half], x.sources[half], x.new_states[half] = 0, 0, 0, 0
    for pc in range(x.fired.shape[1]):
        x.fired[half, pc] = 0


@fn
def undo_round(x, half):
    """Undo a round that cannot be finished; then its states get rounds of their own."""
    g = x.count[0]
    clear(x, half)
    if g.round > 1:
        g.stop = RUNNING
        g.careful = g.next + g.round
    g.round = 0


@fn
def expand(s, x, words, half):
    """Make the candidates of the round's states in a half of candidate_rows, or set COUNT.stop."""
    g = x.count[0]
    if look_up(x, g.next, g.next + g.round):
        run_missing(s, x, words)
    if g.stop == RUNNING:
        make_candidates(x, half)


@fn
def end_edges(x):
    """Write where the edges of the last expanded state end."""
    g = x.count[0]
    if g.keeps_edges:
        x.first[g.next] = g.edges


@fn
def explore(s, x, words, until):
    """Expand states in breadth-first order by one worker: those below `until`, until none is left or COUNT.stop is set.

    A round that runs out of capacity is undone and retried one state at a time, so the stopping state does not depend
    on the size of a round or on the workers.
    """
    g = x.count[0]
    while g.stop == RUNNING and g.next < min(g.states, until):
        plan_round(x, min(ROUND, until - g.next) if g.next >= g.careful else 1)
        if g.round:
            expand(s, x, words, g.zero)
            store_round(x)
    end_edges(x)


@fn
def store_round(x):
    """Store the round of one worker, or undo it."""
    g = x.count[0]
    if g.stop != RUNNING:
        undo_round(x, g.zero)
        return
    insert_all(x, g.zero)
    commit(x, g.zero)
    g.next += g.round
    g.round = 0


@fn
def pack(x, words):
    """Pack the state in the raw buffer into row 0 of candidate_rows."""
    zero = x.count[0].zero
    for c in range(x.node.shape[1]):
        x.candidate_rows[0, c] = 0
    for r in range(len(x.region_width)):
        new = x.memory_count[r]
        for i in range(x.region_width[r]):
            c = x.region_places[r, i]
            x.memories[r, new, i] = intern_part(x, words, x.spans[c, 0], x.spans[c, 1])
        put_value(x, x.candidate_rows, zero, r, intern_memory(x, r))
    for t in range(x.count[0].actors):
        c = x.count[0].places + t
        part = intern_part(x, words, x.spans[c, 0], x.spans[c, 1])
        put_value(x, x.candidate_rows, zero, len(x.region_width) + t, short_id(x, t, part))


@fn
def begin(x, words):
    """Store the state in the raw buffer as state 0, if nothing is stored."""
    pack(x, words)
    store_first(x)


@fn
def store_first(x):
    """Store row 0 of candidate_rows as state 0."""
    for c in range(x.node.shape[1]):
        x.node[0, c] = x.candidate_rows[0, c]
    zero = x.count[0].zero
    write_slot(x, slot_of(x, hash_of(x, x.node, zero)), zero)
    x.count[0].states = 1
    x.count[0].used = 1
