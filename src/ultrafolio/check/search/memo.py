"""Packed states (parts, shared vectors, rows) and memoised steps. Loaded with the rules and bfs.py."""

# mypy: disallow_untyped_defs=False, disallow_untyped_calls=False
from __future__ import annotations

from typing import Any

from ultrafolio.check.search.packing import (
    FULL,
    HEAD_FAIR,
    HEAD_OBSTACLE,
    HEAD_PAGE,
    HEAD_PENDING,
    HEAD_RULE,
    MAX_PARTS,
    OBSTACLES_END,
    OVERFLOW,
    PART_WORDS,
    REFUSALS,
    RUNNING,
    STEP_CHOICE,
    STEP_PROPERTY,
    STEP_SHORT,
    STEPS_MASK,
)
from ultrafolio.model.layout import AGAIN, IDLE_PC, NOTHING, RUN, VCPU
from ultrafolio.model.properties import broken, focus
from ultrafolio.model.rule import fn
from ultrafolio.waits.rules import is_pending
from ultrafolio.waits.tables import BUSY

step: Any = None  # bound by the loader: the dispatcher generated from the rule table
FAIR: Any = ()  # bound by the loader: per rule, whether it is weakly or strongly fair
SECOND: Any = 0  # bound by the loader: Design.second
LOCAL: Any = ()  # bound by the loader: thread_local.local_rules()


# ---------------------------------------------------------------------------------- parts and shared vectors
@fn
def mix(h, v):
    """One round of a 63-bit hash. Source: the multiplier of splitmix64, Steele, Lea and Flood 2014."""
    h = ((int(h) ^ int(v)) * 0x3F58476D1CE4E5B9) & 0x7FFFFFFFFFFFFFFF
    return h ^ (h >> 29)


@fn
def intern_part(x, words, first, n):
    """Returns the id of the part in the `n` words from `first` of the raw buffer; stores a new one. Sets COUNT.stop to
    OVERFLOW at MAX_PARTS."""
    h = int(n)
    for i in range(n):
        h = mix(h, words[first + i])
    slots = len(x.part_table)
    slot = h & (slots - 1)
    while x.part_table[slot]:
        c = x.part_table[slot] - 1
        same = x.part_words[c, PART_WORDS] == n
        for i in range(n):
            same = same and x.part_words[c, i] == words[first + i]
        if same:
            return c
        slot = (slot + 1) & (slots - 1)
    c = x.count[0].parts
    if c == MAX_PARTS:
        x.count[0].stop = OVERFLOW
        return 0
    for i in range(n):
        x.part_words[c, i] = words[first + i]
    x.part_words[c, PART_WORDS] = n
    x.part_table[slot] = c + 1
    x.count[0].parts = c + 1
    return c


@fn
def shared_slot(x, number):
    """Returns the slot of shared vector `number` in shared_table; an empty slot if it is absent."""
    width = x.shared.shape[1]
    slots = len(x.shared_table)
    h = width
    for c in range(width):
        h = mix(h, x.shared[number, c])
    slot = h & (slots - 1)
    while x.shared_table[slot]:
        other = x.shared_table[slot]
        same = True
        for c in range(width):
            same = same and x.shared[other, c] == x.shared[number, c]
        if same:
            return slot
        slot = (slot + 1) & (slots - 1)
    return slot


@fn
def intern_shared(x):
    """Returns the id of the shared vector in the row behind the last one; stores a new one."""
    m = x.count[0].shared
    slot = shared_slot(x, m)
    if x.shared_table[slot]:
        return int(x.shared_table[slot])
    x.shared_table[slot] = m
    x.count[0].shared = m + 1
    return m


@fn
def short_id(x, t, part):
    """Returns the short id of a part of actor `t`, a new one if it has none. 0 and COUNT.stop = FULL at full
    capacity."""
    if x.short_ids[t, part]:
        return int(x.short_ids[t, part]) - 1
    n = x.short_count[t]
    if n > x.fields[t + 1].mask:
        x.count[0].stop = FULL
    if x.count[0].stop != RUNNING:
        return 0
    x.short_parts[t, n] = part
    x.short_ids[t, part] = n + 1
    x.short_count[t] = n + 1
    return n


# ------------------------------------------------------------------------------------------------- rows
@fn
def shared_of(x, rows, number):
    """Returns the id of the shared vector of the state in row `number`."""
    return rows[number, 0] & x.fields[0].mask


@fn
def short_id_in(x, rows, number, t):
    """Returns actor `t`'s short id in the state in row `number`."""
    f = x.fields[t + 1]
    return (rows[number, f.word] >> f.shift) & f.mask


@fn
def part_of(x, rows, number, t):
    """Returns actor `t`'s part id in the state in row `number`."""
    return x.short_parts[t, short_id_in(x, rows, number, t)]


@fn
def put_short_id(x, rows, number, t, short):
    """Write actor `t`'s short id into row `number`."""
    f = x.fields[t + 1]
    rows[number, f.word] = (rows[number, f.word] & ~(f.mask << f.shift)) | short << f.shift


@fn
def put_shared(x, rows, number, m):
    """Write the id of a shared vector into row `number`."""
    rows[number, 0] = (rows[number, 0] & ~x.fields[0].mask) | m


@fn
def load_part(x, words, c, part):
    """Copy a part to position `c` (pages, machines, actors) of the raw buffer."""
    first = x.spans[c, 0]
    for i in range(x.spans[c, 1]):
        words[first + i] = x.part_words[part, i]


@fn
def load_shared(x, words, m):
    """Copy shared vector `m` into the raw buffer; only the parts that differ from the loaded one."""
    before = x.count[0].loaded
    for c in range(x.shared.shape[1] if before != m else 0):
        if before == 0 or x.shared[m, c] != x.shared[before, c]:
            load_part(x, words, c, x.shared[m, c])
    x.count[0].loaded = m


# ---------------------------------------------------------------------------------------- memoised steps
@fn
def pool_index_of(x, number, t):
    """Returns the index in pool_index of the steps of thread `t` in a state."""
    return (
        shared_of(x, x.node, number) * x.count[0].columns + x.fields[t + 1].column + short_id_in(x, x.node, number, t)
    )


@fn
def holds_part(x, words, c, part):
    """Whether position `c` of the raw buffer holds this part."""
    first = x.spans[c, 0]
    same = True
    for i in range(x.spans[c, 1]):
        same = same and words[first + i] == x.part_words[part, i]
    return same


@fn
def step_result(x, words, t, m, part):
    """Intern what a step of `t` from shared vector `m` left in the raw buffer, and restore the buffer.

    Returns shared vector id | short id << STEP_SHORT. A step changes its own thread, pages and virtual machines, no
    other thread.
    """
    width = x.shared.shape[1]
    new = x.count[0].shared
    changed = False
    for c in range(width):
        x.shared[new, c] = x.shared[m, c]
        if not holds_part(x, words, c, x.shared[m, c]):
            changed = True
            x.shared[new, c] = intern_part(x, words, x.spans[c, 0], x.spans[c, 1])
            load_part(x, words, c, x.shared[m, c])
    short = short_id(x, t, intern_part(x, words, x.spans[width + t, 0], x.spans[width + t, 1]))
    load_part(x, words, width + t, part)
    return (intern_shared(x) if changed else m) | short << STEP_SHORT


@fn
def run_steps(s, x, words, number, t, position):
    """Run every step of thread `t` in a state and write a header and the steps to `pool` from `position`.

    Returns True if the rule reads other threads: then the steps hold for this state only.

    Header: steps | fair << HEAD_FAIR | pending << HEAD_PENDING | rule << HEAD_RULE | obstacle << HEAD_OBSTACLE |
    page << HEAD_PAGE, where there is an obstacle. A step:
    shared vector | short id << STEP_SHORT | choice << STEP_CHOICE | property broken << STEP_PROPERTY.
    """
    m = shared_of(x, x.node, number)
    part = part_of(x, x.node, number, t)
    load_shared(x, words, m)
    load_part(x, words, x.shared.shape[1] + t, part)
    pc = s.task[t].pc
    far = not LOCAL[pc] or s.who[t].after > 0
    if far:
        for a in range(x.count[0].actors):
            load_part(x, words, x.shared.shape[1] + a, part_of(x, x.node, number, a))
    kind = s.who[t].kind
    idle = pc == IDLE_PC[kind]
    header = pc * (1 << HEAD_RULE) + (1 << HEAD_PENDING if is_pending(s, t) else 0)
    header += 1 << HEAD_FAIR if FAIR[pc] and not idle else 0
    steps = 0
    obstacle = 0
    for i in range(x.choices[t, 1] if idle else 1):
        c = x.choices[t, 0] + i
        op = x.ops[c] if idle else NOTHING
        page = x.pages[c] if idle else 0
        if pc == RUN and s.actor[t].op != NOTHING:
            continue
        p = focus(s, t, page)
        was = s.uv[p].state
        outcome = step(s, t, op, page)
        if kind == VCPU and pc > AGAIN:
            obstacle = outcome if outcome in BUSY else REFUSALS - outcome if outcome < 0 else 0
            if obstacle and s.actor[t].op >= SECOND:
                obstacle += OBSTACLES_END
        if outcome < 0:
            continue
        wrong = broken(s, t, pc, p, was, outcome)
        steps += 1
        x.pool[position + steps] = step_result(x, words, t, m, part) | i << STEP_CHOICE | wrong << STEP_PROPERTY
    header += s.actor[t].page * (1 << HEAD_PAGE) if obstacle else 0
    x.pool[position] = header | steps | obstacle << HEAD_OBSTACLE
    return far


@fn
def steps_of(s, x, words, number, t):
    """Returns the position in `pool` of thread `t`'s steps in a state; runs them if they are not memoised. 0 and
    COUNT.stop = FULL at full capacity.

    Steps of rules that read other threads are kept at the end of `pool`, for this round only.
    """
    g = x.count[0]
    at = pool_index_of(x, number, t)
    if x.pool_index[at]:
        return int(x.pool_index[at])
    if g.spare - g.used <= 2 * g.max_steps + 4 or len(x.shared) - g.shared <= g.max_steps + 1:
        g.stop = FULL
        return 0
    position = g.used
    far = run_steps(s, x, words, number, t, position)
    if g.stop != RUNNING:
        return 0
    size = (x.pool[position] & STEPS_MASK) + 1
    if far:
        g.spare -= size
        for i in range(size):
            x.pool[g.spare + i] = x.pool[position + i]
        return g.spare
    x.pool_index[at] = position
    g.used += size
    return position


@fn
def rehash_shared(x):
    """Insert all shared vectors into an empty shared_table."""
    for m in range(1, x.count[0].shared):
        x.shared_table[shared_slot(x, m)] = m
