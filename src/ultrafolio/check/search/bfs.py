"""Breadth-first exploration: expand the next states, look up every enabled step, store the new states. Loaded with the
rules, like the simulator's loop; nothing here depends on what a rule does.

A round takes the next few states through `look_up`, `run_missing` and `make_candidates`, and stores what is new. One
worker does a round by itself (explore, folding.py), or all share its phases but `run_missing` (sharing.py). New states
are numbered in the order of the edges that reach them, so the result depends neither on the size of a round nor on the
number of workers.
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
def look_up(x, w, first, end):
    """Write the `pool` positions of the steps of the states [first, end) into x.steps; count the missing into
    x.missed."""
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
    x.missed[w] = missed


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
def row_of(x, w, i, slot):
    """Returns the row in candidate_rows for worker `w`'s candidate `i`: the next one, or in a shared round the next of
    the bucket of the shard of `slot`."""
    if w < 0:
        prefetch(x.table, slot)
        return i
    shard = slot // x.count[0].shard_slots
    return (shard * len(x.candidates) + w) * x.count[0].area + x.bucket_sizes[w, shard]


@fn
def keep_row(x, w, i, slot, row, kept):
    """Count worker `w`'s candidate `i` in the bucket of the shard of `slot`, in a shared round. kept: 1, or 0 for a
    candidate that the next one overwrites."""
    if w >= 0:
        x.bucket_sizes[w, slot // x.count[0].shard_slots] += kept
        x.order[i] = row


@fn
def word_after(x, number, c, t, at):
    """Returns word `c` of a state's row after a step of actor `t`. at: where in `pool` the step is."""
    return (x.node[number, c] & ~x.reach[t, c]) | x.pool[at + c]


@fn
def make_candidates(x, w, first, end):
    """Write the candidates (the target of every step of the states [first, end)) into the area of worker `w`; -1: into
    that of worker 0, in the order of edges. Without edges, a step that changes nothing is only counted."""
    g = x.count[0]
    width = x.node.shape[1]
    mine = max(w, 0)
    start = mine * g.area
    made = start
    loops = 0
    for number in range(first, end):
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
                x.fired[mine, (header >> HEAD_RULE) & RULE_MASK] += steps
            obstacle = (header >> HEAD_OBSTACLE) & OBSTACLE_MASK
            if obstacle:
                page = (header >> HEAD_PAGE) & PAGE_MASK
                met = ((mine * g.actors + t) * MET_END + obstacle) * len(x.busy_actors) + page
                keep_first(x.met, met, number, t << BY_ACTOR)
            for i in range(steps):
                at = position + 1 + i * (width + told)
                label = x.pool[at + width] if told else i
                by = t << BY_ACTOR | label & CHOICE_MASK
                wrong = label >> STEP_PROPERTY if told else 0
                if wrong:
                    keep_first(x.found, mine * PROPERTIES_END + wrong, number, by)
                h = 0
                changed = g.keeps_edges
                for c in range(width):
                    word = word_after(x, number, c, t, at)
                    changed |= word ^ x.node[number, c]
                    h = mix(h, word)
                slot = slot_of(x, h)
                row = row_of(x, w, made, slot)
                for c in range(width):
                    x.candidate_rows[row, c] = word_after(x, number, c, t, at)
                x.candidate_rows[row, width + ORIGIN], x.candidate_rows[row, width + SLOT] = by << 32 | number, slot
                kept = 1 if changed else 0
                keep_row(x, w, made, slot, row, kept)
                made += kept
                loops += 1 - kept
        if g.keeps_edges:
            x.pending[number], x.enabled[number] = pending, enabled
    x.candidates[mine], x.loops[mine] = made - start, loops


# ------------------------------------------------------------------------------------------------ the table
@fn
def next_slot(x, slot):
    """Returns the next slot of the same shard of the table."""
    slot += 1
    return slot - x.count[0].shard_slots if slot % LINE == 0 and slot % x.count[0].shard_slots == 0 else slot


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
def write_slot(x, rows, number, slot):
    """Write the state in row `number` into an empty slot."""
    for c in range(x.node.shape[1]):
        x.table[slot, c] = rows[number, c]


@fn
def number_state(x, row, slot, number):
    """Store the new candidate in row `row` as state `number`, with its parent and edge."""
    for c in range(x.node.shape[1]):
        x.node[number, c] = x.candidate_rows[row, c]
    origin = x.candidate_rows[row, x.node.shape[1] + ORIGIN]
    x.parent[number], x.by[number] = origin & 0xFFFFFFFF, origin >> 32
    if x.count[0].keeps_numbers:
        x.slot_state[slot] = number


@fn
def insert_all(x):
    """Look up each candidate of a round of one worker in the table, in order; number and store a new one."""
    g = x.count[0]
    width = x.node.shape[1]
    number = g.states
    for row in range(x.candidates[0]):
        slot = find_slot(x, x.candidate_rows, row, x.candidate_rows[row, width + SLOT])
        if x.table[slot, 0] == 0:
            write_slot(x, x.candidate_rows, row, slot)
            number_state(x, row, slot, number)
            number += 1
        if g.keeps_edges:
            x.to[g.edges + row] = x.slot_state[slot]
            x.via[g.edges + row] = x.candidate_rows[row, width + ORIGIN] >> 32
    for source in range(g.next, g.next + g.round if g.keeps_edges else 0):
        x.first[source] += g.edges
    x.new_states[0, 0] = number - g.states


@fn
def rehash_states(x, w, workers):
    """Insert all states of the shards of worker `w` into an empty table. They are distinct, so no rows are compared."""
    states, per = x.count[0].states, x.count[0].shard_slots
    for low in range(0, states, BATCH):
        high = min(low + BATCH, states)
        for number in range(low, high):
            slot = slot_of(x, hash_of(x, x.node, number))
            if workers == 1 or (slot // per) % workers == w:
                prefetch(x.table, slot)
        for number in range(low, high):
            slot = slot_of(x, hash_of(x, x.node, number))
            if workers == 1 or (slot // per) % workers == w:
                while x.table[slot, 0]:
                    slot = next_slot(x, slot)
                write_slot(x, x.node, number, slot)
                if x.count[0].keeps_numbers:
                    x.slot_state[slot] = number


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
def commit_round(x):
    """Add the counters of a finished round to the totals, and clear them."""
    g = x.count[0]
    total = len(x.candidates)
    for w in range(total):
        g.edges += x.candidates[w] + x.loops[w]
        for shard in range(len(x.new_states)):
            g.states += x.new_states[shard, w]
            x.new_states[shard, w] = 0
        for pc in range(x.fired.shape[1]):
            x.fired[total, pc] += x.fired[w, pc]
    g.next += g.round
    clear_round(x)
    if g.keeps_edges:
        x.first[g.next] = g.edges


@fn
def clear_round(x):
    """Clear the per-round counters; commit_round() has added them to the totals, an undone round drops them."""
    for w in range(len(x.candidates)):
        x.candidates[w], x.loops[w] = 0, 0
        for shard in range(len(x.new_states)):
            x.bucket_sizes[w, shard] = 0
        for pc in range(x.fired.shape[1]):
            x.fired[w, pc] = 0
    x.count[0].round = 0


@fn
def end_round(x):
    """Commit the round, or undo it; then the states of an undone round get rounds of their own."""
    g = x.count[0]
    if g.stop == RUNNING:
        commit_round(x)
        return
    n = g.round
    clear_round(x)
    if g.stop == FULL and n > 1:
        g.stop = RUNNING
        g.careful = g.next + n


@fn
def expand(s, x, words):
    """Make the candidates of the round's states by one worker, or set COUNT.stop."""
    g = x.count[0]
    look_up(x, g.zero, g.next, g.next + g.round)
    if x.missed[0]:
        run_missing(s, x, words)
    if g.stop == RUNNING:
        make_candidates(x, g.zero - 1, g.next, g.next + g.round)


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
            expand(s, x, words)
            if g.stop == RUNNING:
                insert_all(x)
            end_round(x)


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
    slot = slot_of(x, hash_of(x, x.node, zero))
    write_slot(x, x.node, zero, slot)
    if x.count[0].keeps_numbers:
        x.slot_state[slot] = zero
    x.count[0].states = 1
    x.count[0].used = 1
