"""Breadth-first exploration: expand the next states, look up every enabled step, store the new states. Loaded with the
rules, like the simulator's loop; nothing here depends on what a rule does.

A round takes the next few states through `look_up`, `run_missing`, `make_candidates`, `insert`, `number_new` and
`store_edges`. Workers share all phases but `run_missing`, each with its own states or its own shards of the table. A
barrier separates the phases, so no two workers write one word. New states are numbered in the order of the edges that
reach them, so the result depends neither on the size of a round nor on the number of workers.
"""

from __future__ import annotations

from typing import Any

from ultrafolio.check.search.canonical import canonicalise
from ultrafolio.check.search.memo import (
    intern_part,
    intern_shared,
    mix,
    pool_index_of,
    put_shared,
    put_short_id,
    shared_of,
    short_id,
    short_id_in,
    steps_of,
)
from ultrafolio.check.search.packing import *
from ultrafolio.model.rule import fn

prefetch: Any = None  # bound by the loader: atomics.prefetch
add: Any = None  # bound by the loader: atomics.add
peek: Any = None  # bound by the loader: atomics.peek
give_way: Any = None  # bound by the loader: atomics.give_way


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
            for t in range(actors):
                x.steps[at + t] = pool_index_of(x, number, t)
                prefetch(x.pool_index, x.steps[at + t])
        for number in range(low, high):
            at = (number - g.next) * actors
            for t in range(actors):
                position = x.pool_index[x.steps[at + t]]
                prefetch(x.pool, position)
                x.steps[at + t] = position
                if position == 0:
                    missed += 1
    x.missed[w] = missed


@fn
def run_missing(s, x, words):
    """Run the steps of the round's states that are not memoised."""
    g = x.count[0]
    g.spare = len(x.pool)
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
def slot_of(x, rows, number):
    """Returns the slot at which the probe for the state in row `number` starts."""
    h = 0
    for c in range(x.node.shape[1]):
        h = mix(h, rows[number, c])
    return h >> x.count[0].shift


@fn
def assign_row(x, w, i, slot):
    """Returns the row in candidate_rows for worker `w`'s candidate `i`: the next of the bucket of the shard of
    `slot`."""
    if len(x.new_states) == 1:
        prefetch(x.table, slot)
        x.bucket_sizes[w, 0] = i + 1
        return i
    shard = slot >> x.count[0].shard_shift
    row = (shard * len(x.candidates) + w) * x.count[0].area + x.bucket_sizes[w, shard]
    x.bucket_sizes[w, shard] += 1
    x.order[i] = row
    return row


@fn
def word_after(x, number, c, t, after):
    """Returns word `c` of a state's row after a step of actor `t`. after: the memoised step."""
    f = x.fields[t + 1]
    word = x.node[number, c]
    if c == 0:
        word = (word & ~x.fields[0].mask) | (after & SHARED_MASK)
    if c == f.word:
        word = (word & ~(f.mask << f.shift)) | ((after >> STEP_SHORT) & SHORT_MASK) << f.shift
    return word


@fn
def make_candidates(x, w, first, end):
    """Write the candidates (the target of every step of the states [first, end)) into the area of worker `w`. Without
    edges, a step that changes nothing is only counted."""
    g = x.count[0]
    width = x.node.shape[1]
    start = w * g.area
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
            pending |= ((header >> HEAD_PENDING) & 1) << t
            if steps:
                enabled |= ((header >> HEAD_FAIR) & 1) << t
                x.fired[w, (header >> HEAD_RULE) & RULE_MASK] += steps
            obstacle = (header >> HEAD_OBSTACLE) & OBSTACLE_MASK
            if obstacle:
                met = ((w * g.actors + t) * MET_END + obstacle) * len(x.busy_actors) + (header >> HEAD_PAGE)
                keep_first(x.met, met, number, t << BY_ACTOR)
            here = shared_of(x, x.node, number) | short_id_in(x, x.node, number, t) << STEP_SHORT
            for i in range(position + 1, position + 1 + steps):
                after = x.pool[i]
                by = t << BY_ACTOR | (after >> STEP_CHOICE) & CHOICE_MASK
                wrong = after >> STEP_PROPERTY
                if wrong:
                    keep_first(x.found, w * PROPERTIES_END + wrong, number, by)
                if after & AFTER_MASK == here and not g.keeps_edges:
                    loops += 1
                    continue
                h = 0
                for c in range(width):
                    h = mix(h, word_after(x, number, c, t, after))
                row = assign_row(x, w, made, h >> g.shift)
                for c in range(width):
                    x.candidate_rows[row, c] = word_after(x, number, c, t, after)
                x.candidate_rows[row, width + ORIGIN], x.candidate_rows[row, width + SLOT] = (
                    by << 32 | number,
                    h >> g.shift,
                )
                made += 1
        if g.keeps_edges:
            x.pending[number], x.enabled[number] = pending, enabled
    x.candidates[w], x.loops[w] = made - start, loops


@fn
def next_slot(x, slot):
    """Returns the next slot of the same shard of the table."""
    last = (1 << x.count[0].shard_shift) - 1
    return (slot & ~last) | ((slot + 1) & last)


@fn
def find_slot(x, rows, number, slot):
    """Returns the slot of the state in row `number`, probing from `slot`; an empty slot if it is absent."""
    while x.table[slot, 0]:
        same = True
        for c in range(x.node.shape[1]):
            same = same and x.table[slot, c] == rows[number, c]
        if same:
            return slot
        slot = next_slot(x, slot)
    return slot


@fn
def write_slot(x, rows, number, slot):
    """Write the state in row `number` into an empty slot."""
    for c in range(x.node.shape[1]):
        x.table[slot, c] = rows[number, c]


@fn
def number_state(x, i, number):
    """Store the new candidate in row `i` as state `number`, with its parent and edge."""
    for c in range(x.node.shape[1]):
        x.node[number, c] = x.candidate_rows[i, c]
    origin = x.candidate_rows[i, x.node.shape[1] + ORIGIN]
    x.parent[number], x.by[number] = origin & 0xFFFFFFFF, origin >> 32
    if x.count[0].keeps_numbers:
        x.slot_state[x.candidate_rows[i, x.node.shape[1] + SLOT]] = number


@fn
def insert(x, shard):
    """Look up each candidate of a shard in the table, in order; write a new one into its slot. With one shard a new
    state gets its number here, else in number_new()."""
    g = x.count[0]
    alone = len(x.new_states) == 1
    where = x.node.shape[1] + SLOT
    for w in range(len(x.candidates)):
        fresh = 0
        start = (shard * len(x.candidates) + w) * g.area
        end = start + x.bucket_sizes[w, shard]
        prefetched = start if alone else end  # alone, assign_row() prefetched all
        for row in range(start, min(start + BATCH, prefetched)):
            prefetch(x.table, x.candidate_rows[row, where])
        for row in range(start, end):
            if row + BATCH < prefetched:
                prefetch(x.table, x.candidate_rows[row + BATCH, where])
            slot = find_slot(x, x.candidate_rows, row, x.candidate_rows[row, where])
            x.candidate_rows[row, where] = slot
            if x.table[slot, 0] == 0:
                write_slot(x, x.candidate_rows, row, slot)
                if alone:
                    number_state(x, row, g.states + fresh)
                else:
                    x.candidate_rows[row, where] = ~slot
                fresh += 1
        x.new_states[shard, w] = fresh


@fn
def number_new(x, w):
    """Number and store the new states among the candidates of worker `w`."""
    g = x.count[0]
    number = g.states
    for v in range(w):
        for shard in range(len(x.new_states)):
            number += x.new_states[shard, v]
    for i in range(w * g.area, w * g.area + x.candidates[w]):
        row = x.order[i]
        slot = x.candidate_rows[row, x.node.shape[1] + SLOT]
        if slot < 0:
            x.candidate_rows[row, x.node.shape[1] + SLOT] = ~slot
            number_state(x, row, number)
            number += 1


@fn
def store_edges(x, w, first, end):
    """Store the edges of the states [first, end), the candidates of worker `w`."""
    g = x.count[0]
    width = x.node.shape[1]
    edge = g.edges
    for v in range(w):
        edge += x.candidates[v]
    for number in range(first, end):
        x.first[number] += edge
    for i in range(w * g.area, w * g.area + x.candidates[w]):
        row = x.order[i] if len(x.new_states) > 1 else i
        x.to[edge], x.via[edge] = (
            x.slot_state[x.candidate_rows[row, width + SLOT]],
            x.candidate_rows[row, width + ORIGIN] >> 32,
        )
        edge += 1


# --------------------------------------------------------------------------------------------- exploration
@fn
def free_capacity(x):
    """Returns how many more states, and edges if they are kept, fit into the arrays."""
    g = x.count[0]
    return min(g.capacity - g.states, len(x.to) - g.edges) if g.keeps_edges else g.capacity - g.states


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
def explore(s, x, words, w, share, enough):
    """Run worker `w` of an exploration: expand states in breadth-first order until none is left or COUNT.stop is set.

    share    states per worker and shared round
    enough   fewer unexpanded states than this are expanded by worker 0 alone

    A round that runs out of capacity is undone and retried one state at a time, so the stopping state does not depend
    on the size of a round or on the workers.
    """
    g = x.count[0]
    workers = len(x.candidates)
    careful = g.next
    while True:
        if w == 0:
            careful = expand_alone(s, x, words, careful, enough)
            plan_shared_round(x, careful, share)
        barrier(x)
        if g.round == 0:
            return
        first = g.next + g.round * w // workers
        end = g.next + g.round * (w + 1) // workers
        look_up(x, w, first, end)
        barrier(x)
        if w == 0:
            run_if_missed(s, x, words)
        barrier(x)
        if g.stop == RUNNING:
            make_candidates(x, w, first, end)
            barrier(x)
            for shard in range(w, len(x.new_states), workers):
                insert(x, shard)
            barrier(x)
            number_new(x, w)
            if g.keeps_edges:
                barrier(x)
                store_edges(x, w, first, end)
        barrier(x)
        if w == 0:
            careful = end_round(x, careful)


@fn
def plan_shared_round(x, careful, share):
    """Plan a round for all workers; COUNT.round is 0 if all states are expanded or the exploration stopped."""
    g = x.count[0]
    g.round = 0
    if g.stop == RUNNING and g.next < g.states:
        plan_round(x, share * len(x.candidates))


@fn
def end_round(x, careful):
    """Commit the round, or undo it. Returns the state number below which rounds must have one state."""
    g = x.count[0]
    if g.stop == RUNNING:
        commit_round(x)
        return careful
    n = g.round
    clear_round(x)
    if g.stop == FULL and n > 1:
        g.stop = RUNNING
        return g.next + n
    return careful


@fn
def expand_alone(s, x, words, careful, enough):
    """Expand states by one worker until `enough` are unexpanded and all below `careful` are expanded. Returns the next
    `careful`, the state number below which rounds must have one state."""
    g = x.count[0]
    while g.stop == RUNNING and g.next < g.states and (g.states - g.next < enough or g.next < careful):
        plan_round(x, ROUND if g.next >= careful else 1)
        if g.round:
            expand(s, x, words, g.next, g.next + g.round)
            if g.stop == RUNNING:
                insert_all(x)
            careful = end_round(x, careful)
    return careful


@fn
def barrier(x):
    """Wait for all workers; each then sees what the others wrote before."""
    workers = len(x.candidates)
    if workers == 1:
        return
    passed = peek(x.barrier, LINE)
    if add(x.barrier, 0, 1) == workers - 1:
        add(x.barrier, 0, -workers)
        add(x.barrier, LINE, 1)
        return
    tries = 0
    while peek(x.barrier, LINE) == passed:
        tries += 1
        if tries & 1023 == 0:
            give_way()


@fn
def run_if_missed(s, x, words):
    """Call run_missing() if a worker counted a step that is not memoised."""
    missed = 0
    for w in range(len(x.candidates)):
        missed += x.missed[w]
    if missed:
        run_missing(s, x, words)


@fn
def expand(s, x, words, first, end):
    """Make the candidates of the states [first, end) by one worker, canonical ones if COUNT.folds; or set
    COUNT.stop."""
    g = x.count[0]
    look_up(x, g.zero, first, end)
    if x.missed[0]:
        run_missing(s, x, words)
        if g.stop != RUNNING:
            return
    if g.folds and len(x.shared) - g.shared <= (end - first) * g.max_steps:
        g.stop = FULL
        return
    make_candidates(x, g.zero, first, end)
    if g.folds:
        for i in range(x.candidates[0]):
            canonicalise(s, x, words, i)
            x.candidate_rows[i, x.node.shape[1] + SLOT] = slot_of(x, x.candidate_rows, i)


@fn
def insert_all(x):
    """Insert and number all candidates of a single worker, and store their edges."""
    g = x.count[0]
    for shard in range(len(x.new_states)):
        insert(x, shard)
    if len(x.new_states) > 1:
        number_new(x, g.zero)
    if g.keeps_edges:
        store_edges(x, g.zero, g.next, g.next + g.round)


@fn
def pack(x, words):
    """Pack the state in the raw buffer into row 0 of candidate_rows."""
    width = x.shared.shape[1]
    zero = x.count[0].zero
    m = x.count[0].shared
    for c in range(width):
        x.shared[m, c] = intern_part(x, words, x.spans[c, 0], x.spans[c, 1])
    for c in range(x.node.shape[1]):
        x.candidate_rows[0, c] = 0
    put_shared(x, x.candidate_rows, zero, intern_shared(x))
    for t in range(x.count[0].actors):
        part = intern_part(x, words, x.spans[width + t, 0], x.spans[width + t, 1])
        put_short_id(x, x.candidate_rows, zero, t, short_id(x, t, part))


@fn
def begin(s, x, words):
    """Store the state in the raw buffer as state 0."""
    g = x.count[0]
    pack(x, words)
    if g.folds:
        canonicalise(s, x, words, g.zero)
    for c in range(x.node.shape[1]):
        x.node[0, c] = x.candidate_rows[0, c]
    g.states = 1
    g.used = 1
    rehash_states(x, g.zero, g.used)


@fn
def rehash_states(x, w, workers):
    """Insert all states of the shards of worker `w` into an empty table. They are distinct, so no rows are compared."""
    states = x.count[0].states
    for low in range(0, states, BATCH):
        high = min(low + BATCH, states)
        for number in range(low, high):
            slot = slot_of(x, x.node, number)
            if (slot >> x.count[0].shard_shift) % workers == w:
                prefetch(x.table, slot)
        for number in range(low, high):
            slot = slot_of(x, x.node, number)
            if (slot >> x.count[0].shard_shift) % workers == w:
                while x.table[slot, 0]:
                    slot = next_slot(x, slot)
                write_slot(x, x.node, number, slot)
                if x.count[0].keeps_numbers:
                    x.slot_state[slot] = number


@fn
def locate(s, x, words):
    """Returns the number of the canonical state of the one in the raw buffer, or -1."""
    pack(x, words)
    zero = x.count[0].zero
    canonicalise(s, x, words, zero)
    slot = find_slot(x, x.candidate_rows, zero, slot_of(x, x.candidate_rows, zero))
    return int(x.slot_state[slot]) if x.table[slot, 0] else -1
