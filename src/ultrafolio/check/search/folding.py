"""Exploration with symmetry reduction, by one worker. Loaded with bfs.py, and compiled only where it is asked for."""

# mypy: disallow_untyped_defs=False, disallow_untyped_calls=False
from __future__ import annotations

from ultrafolio.check.search.bfs import (
    expand,
    find_slot,
    hash_of,
    pack,
    plan_round,
    slot_of,
    store_first,
    store_round,
)
from ultrafolio.check.search.canonical import canonicalise
from ultrafolio.check.search.memo import free_memories
from ultrafolio.check.search.packing import FULL, ROUND, RUNNING, SLOT
from ultrafolio.model.rule import fn


@fn
def begin_folded(s, x, words):
    """Store the canonical state of the one in the raw buffer as state 0."""
    pack(x, words)
    canonicalise(s, x, words, x.count[0].zero)
    store_first(x)


@fn
def explore_folded(s, x, words, until):
    """bfs.explore() with each candidate replaced by its canonical state."""
    g = x.count[0]
    while g.stop == RUNNING and g.next < min(g.states, until):
        plan_round(x, min(ROUND, until - g.next) if g.next >= g.careful else 1)
        if g.round:
            expand(s, x, words, g.zero)
            fold_candidates(s, x, words)
            store_round(x)


@fn
def fold_candidates(s, x, words):
    """Replace the round's candidates by their canonical states, or set COUNT.stop."""
    g = x.count[0]
    if g.stop == RUNNING and free_memories(x) <= g.round * g.max_steps:
        g.stop = FULL
    for i in range(x.candidates[0] if g.stop == RUNNING else 0):
        canonicalise(s, x, words, i)
        x.candidate_rows[i, x.node.shape[1] + SLOT] = slot_of(x, hash_of(x, x.candidate_rows, i))


@fn
def locate(s, x, words):
    """Returns the number of the canonical state of the one in the raw buffer, or -1."""
    pack(x, words)
    zero = x.count[0].zero
    canonicalise(s, x, words, zero)
    slot = find_slot(x, x.candidate_rows, zero, slot_of(x, hash_of(x, x.candidate_rows, zero)))
    return int(x.slot_state[slot]) if x.table[slot, 0] else -1
