"""Rounds by two workers: one expands a round while the other stores the one before. Loaded with bfs.py, and compiled
only where there are two.

The first half of a round reads rows of states, and the second adds rows behind them. In the COUNT record and in `first`
they write different words. A barrier separates rounds, so no two workers write one word.
"""

# mypy: disallow_untyped_defs=False, disallow_untyped_calls=False
from __future__ import annotations

from typing import Any

from ultrafolio.check.search.bfs import (
    commit,
    end_edges,
    expand,
    free_capacity,
    insert_all,
    undo_round,
)
from ultrafolio.check.search.packing import FEW, LINE, RUNNING
from ultrafolio.model.rule import fn

add: Any = None  # bound by the loader: atomics.add
peek: Any = None  # bound by the loader: atomics.peek
give_way: Any = None  # bound by the loader: atomics.give_way


@fn
def plan_shared(x, half, until):
    """Set COUNT.round to the states that the next round takes into a half of candidate_rows; 0 where too few are known
    while the other half is not stored, and where one worker goes on: for few states, and near the end of capacity or of
    the limit."""
    g = x.count[0]
    held = x.candidates[1 - half]
    n = min(g.shared_round, min(g.states, until) - g.next)
    enough = n == g.shared_round or (held == 0 and n >= g.shared_round // FEW)
    room = min(free_capacity(x), g.limit - g.states) - held
    g.round = n if enough and g.stop == RUNNING and g.next >= g.careful and room >= n * g.max_steps else 0


@fn
def explore_shared(s, x, words, w, until):
    """Run worker `w` of two: expand states below `until`, until plan_shared() gives none and the other half is
    stored, or COUNT.stop is set."""
    g = x.count[0]
    half = g.zero
    while True:
        if w == 0:
            plan_shared(x, half, until)
        barrier(x)
        if g.round == 0 and x.sources[1 - half] == 0:
            break
        if w == 0 and g.round:
            expand(s, x, words, half)
        elif w == 1 and x.sources[1 - half]:
            insert_all(x, 1 - half)
        barrier(x)
        if w == 0:
            end_shared(x, half)
        half = 1 - half
    if w == 0:
        end_edges(x)


@fn
def end_shared(x, half):
    """Count what worker 1 stored of the other half, and end worker 0's round, or undo it."""
    g = x.count[0]
    commit(x, 1 - half)
    if g.stop != RUNNING:
        undo_round(x, half)
        return
    g.next += g.round
    g.round = 0


@fn
def barrier(x):
    """Wait for both workers; each then sees what the other wrote before."""
    passed = peek(x.barrier, LINE)
    if add(x.barrier, 0, 1) == 1:
        add(x.barrier, 0, -2)
        add(x.barrier, LINE, 1)
        return
    tries = 0
    while peek(x.barrier, LINE) == passed:
        tries += 1
        if tries & 1023 == 0:
            give_way()
