"""Rounds that several workers share, each with its own states or its own shards of the table. Loaded with bfs.py, and
compiled only where there are several.

A barrier separates the phases of a round, so no two workers write one word.
"""

# mypy: disallow_untyped_defs=False, disallow_untyped_calls=False
from __future__ import annotations

from typing import Any

from ultrafolio.check.search.bfs import (
    end_round,
    find_slot,
    look_up,
    make_candidates,
    number_state,
    plan_round,
    run_missing,
    write_slot,
)
from ultrafolio.check.search.packing import BATCH, LINE, ORIGIN, RUNNING, SLOT
from ultrafolio.model.rule import fn

prefetch: Any = None  # bound by the loader: atomics.prefetch
add: Any = None  # bound by the loader: atomics.add
peek: Any = None  # bound by the loader: atomics.peek
give_way: Any = None  # bound by the loader: atomics.give_way


@fn
def insert(x, shard):
    """Look up each candidate of a shard in the table, in order; write a new one into its slot, and invert its SLOT."""
    g = x.count[0]
    where = x.node.shape[1] + SLOT
    for w in range(len(x.candidates)):
        fresh = 0
        start = (shard * len(x.candidates) + w) * g.area
        end = start + x.bucket_sizes[w, shard]
        for row in range(start, min(start + BATCH, end)):
            prefetch(x.table, x.candidate_rows[row, where])
        for row in range(start, end):
            if row + BATCH < end:
                prefetch(x.table, x.candidate_rows[row + BATCH, where])
            slot = find_slot(x, x.candidate_rows, row, x.candidate_rows[row, where])
            x.candidate_rows[row, where] = slot
            if x.table[slot, 0] == 0:
                write_slot(x, x.candidate_rows, row, slot)
                x.candidate_rows[row, where] = ~slot
                fresh += 1
        x.new_states[shard, w] = fresh


@fn
def number_new(x, w):
    """Number and store the new states among the candidates of worker `w`."""
    g = x.count[0]
    where = x.node.shape[1] + SLOT
    number = g.states
    for v in range(w):
        for shard in range(len(x.new_states)):
            number += x.new_states[shard, v]
    for i in range(w * g.area, w * g.area + x.candidates[w]):
        row = x.order[i]
        slot = x.candidate_rows[row, where]
        if slot < 0:
            x.candidate_rows[row, where] = ~slot
            number_state(x, row, ~slot, number)
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
        row = x.order[i]
        x.to[edge] = x.slot_state[x.candidate_rows[row, width + SLOT]]
        x.via[edge] = x.candidate_rows[row, width + ORIGIN] >> 32
        edge += 1


@fn
def explore_shared(s, x, words, w, share, until):
    """Run worker `w` of shared rounds of `share` states per worker: expand states below `until`, until fewer are left,
    a round must have one state, or COUNT.stop is set."""
    g = x.count[0]
    workers = len(x.candidates)
    while True:
        if w == 0:
            g.round = 0
            if g.stop == RUNNING and g.next >= g.careful and min(g.states, until) - g.next >= workers:
                plan_round(x, min(share * workers, until - g.next))
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
            end_round(x)


@fn
def run_if_missed(s, x, words):
    """Call run_missing() if a worker counted a step that is not memoised."""
    missed = 0
    for w in range(len(x.candidates)):
        missed += x.missed[w]
    if missed:
        run_missing(s, x, words)


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
