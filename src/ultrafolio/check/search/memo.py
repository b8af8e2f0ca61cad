"""Packed states (parts, memories, rows) and memoised steps. Loaded with the rules and bfs.py."""

# mypy: disallow_untyped_defs=False, disallow_untyped_calls=False
from __future__ import annotations

from typing import Any

from ultrafolio.check.search.judging import broken_within
from ultrafolio.check.search.packing import (
    ACTOR_MASK,
    FULL,
    HEAD_ACTOR,
    HEAD_FAIR,
    HEAD_OBSTACLE,
    HEAD_PAGE,
    HEAD_PENDING,
    HEAD_RULE,
    HEAD_TOLD,
    MAX_PARTS,
    OBSTACLES_END,
    OVERFLOW,
    PART_WORDS,
    REFUSALS,
    RUNNING,
    STEP_PROPERTY,
    STEPS_MASK,
)
from ultrafolio.model.layout import AGAIN, IDLE_PC, NOTHING, RUN, VCPU
from ultrafolio.model.properties import focus
from ultrafolio.model.rule import fn
from ultrafolio.waits.rules import is_pending
from ultrafolio.waits.tables import BUSY

step: Any = None  # bound by the loader: the dispatcher generated from the rule table
FAIR: Any = ()  # bound by the loader: per rule, whether it is weakly or strongly fair
SECOND: Any = 0  # bound by the loader: Design.second
LOCAL: Any = ()  # bound by the loader: thread_local.local_rules()


# ---------------------------------------------------------------------------------------- parts and memories
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
def memory_slot(x, r, number):
    """Returns the slot of memory `number` of region `r` in memory_table; an empty slot if it is absent."""
    width = x.region_width[r]
    slots = x.memory_table.shape[1]
    h = int(width)
    for i in range(width):
        h = mix(h, x.memories[r, number, i])
    slot = h & (slots - 1)
    while x.memory_table[r, slot]:
        other = x.memory_table[r, slot]
        same = True
        for i in range(width):
            same = same and x.memories[r, other, i] == x.memories[r, number, i]
        if same:
            return slot
        slot = (slot + 1) & (slots - 1)
    return slot


@fn
def intern_memory(x, r):
    """Returns the id of the memory of region `r` in the row behind its last one; stores a new one. 0 and COUNT.stop =
    FULL if its field is full."""
    n = x.memory_count[r]
    slot = memory_slot(x, r, n)
    if x.memory_table[r, slot]:
        return int(x.memory_table[r, slot])
    if n > x.fields[r].mask:
        x.count[0].stop = FULL
    if x.count[0].stop != RUNNING:
        return 0
    x.memory_table[r, slot] = n
    x.memory_count[r] = n + 1
    return int(n)


@fn
def free_memories(x):
    """Returns how many more memories each region can store."""
    free = x.memories.shape[1]
    for r in range(len(x.region_width)):
        free = min(free, x.memories.shape[1] - x.memory_count[r])
    return free


@fn
def short_id(x, t, part):
    """Returns the short id of a part of actor `t`, a new one if it has none. 0 and COUNT.stop = FULL at full
    capacity."""
    if x.short_ids[t, part]:
        return int(x.short_ids[t, part]) - 1
    n = x.short_count[t]
    if n > x.fields[len(x.region_width) + t].mask or n >= x.short_limit[t]:
        x.count[0].stop = FULL
    if x.count[0].stop != RUNNING:
        return 0
    x.short_parts[t, n] = part
    x.short_ids[t, part] = n + 1
    x.short_count[t] = n + 1
    return n


# ------------------------------------------------------------------------------------------------- rows
@fn
def value_of(x, rows, number, field):
    """Returns the value of a field in the state in row `number`."""
    f = x.fields[field]
    return (rows[number, f.word] >> f.shift) & f.mask


@fn
def put_value(x, rows, number, field, value):
    """Write a field into row `number`."""
    f = x.fields[field]
    rows[number, f.word] = (rows[number, f.word] & ~(f.mask << f.shift)) | value << f.shift


@fn
def put_in_pool(x, at, field, value):
    """Write a field into the row in `pool` from `at`."""
    f = x.fields[field]
    x.pool[at + f.word] = (x.pool[at + f.word] & ~(f.mask << f.shift)) | value << f.shift


@fn
def part_of(x, rows, number, t):
    """Returns actor `t`'s part id in the state in row `number`."""
    return x.short_parts[t, value_of(x, rows, number, len(x.region_width) + t)]


@fn
def load_part(x, words, c, part):
    """Copy a part to position `c` (pages, machines, actors) of the raw buffer."""
    first = x.spans[c, 0]
    for i in range(x.spans[c, 1]):
        words[first + i] = x.part_words[part, i]


@fn
def load_memory(x, words, r, m):
    """Copy memory `m` of region `r` into the raw buffer; only the parts that differ from the loaded one."""
    before = x.loaded[r]
    for i in range(x.region_width[r] if before != m else 0):
        if before == 0 or x.memories[r, m, i] != x.memories[r, before, i]:
            load_part(x, words, x.region_places[r, i], x.memories[r, m, i])
    x.loaded[r] = m


# ---------------------------------------------------------------------------------------- memoised steps
@fn
def index_of(x, number, t, first):
    """Returns the place in `index` of the steps of thread `t`, which has a home, in a state. first: the state's memory
    of region 0."""
    memory = first if x.home[t] == 0 else value_of(x, x.node, number, x.home[t])
    place = x.index_at[t] + x.index_step[t] * memory + value_of(x, x.node, number, len(x.region_width) + t)
    if x.beside[t] >= 0:
        place += x.short_limit[t] * value_of(x, x.node, number, x.beside[t])
    return place


@fn
def memo_start(x, number, t):
    """Returns the slot of memo_table at which the probe for the steps of thread `t` in a state starts."""
    h = int(t)
    for c in range(x.node.shape[1]):
        h = mix(h, x.node[number, c] & x.reach[t, c])
    return h & (len(x.memo_table) - 1)


@fn
def put_key(x, number, t, at):
    """Write the row of a state under the reach of thread `t` to `pool` from `at`."""
    for c in range(x.node.shape[1]):
        x.pool[at + c] = x.node[number, c] & x.reach[t, c]


@fn
def key_at(x, position):
    """Returns where in `pool` the masked row of the steps at a position is: behind the steps."""
    header = x.pool[position]
    return position + 1 + (header & STEPS_MASK) * (x.node.shape[1] + (header >> HEAD_TOLD))


@fn
def is_of(x, position, number, t):
    """Whether the steps at a position in `pool` are those of thread `t`, which has no home, in a state."""
    same = (x.pool[position] >> HEAD_ACTOR) & ACTOR_MASK == t
    key = key_at(x, position)
    for c in range(x.node.shape[1]):
        same = same and x.pool[key + c] == x.node[number, c] & x.reach[t, c]
    return same


@fn
def memo_slot(x, number, t, slot):
    """Returns the slot of the steps of thread `t` in a state, probing from `slot`; an empty slot if they are absent."""
    while x.memo_table[slot] and not is_of(x, x.memo_table[slot], number, t):
        slot = (slot + 1) & (len(x.memo_table) - 1)
    return slot


@fn
def holds_part(x, words, c, part):
    """Whether position `c` of the raw buffer holds this part."""
    first = x.spans[c, 0]
    same = True
    for i in range(x.spans[c, 1]):
        same = same and words[first + i] == x.part_words[part, i]
    return same


@fn
def step_result(x, words, number, t, at):
    """Intern what a step of `t` left in the raw buffer, write its row under the thread's reach to `pool` from `at`, and
    restore the buffer.

    A step changes its own thread and the regions that it looks at, no other.
    """
    put_key(x, number, t, at)
    for r in range(len(x.region_width)):
        changed = False
        if x.uses[t, r]:
            m = x.loaded[r]
            new = x.memory_count[r]
            for i in range(x.region_width[r]):
                c = x.region_places[r, i]
                x.memories[r, new, i] = x.memories[r, m, i]
                if not holds_part(x, words, c, x.memories[r, m, i]):
                    changed = True
                    x.memories[r, new, i] = intern_part(x, words, x.spans[c, 0], x.spans[c, 1])
                    load_part(x, words, c, x.memories[r, m, i])
        if changed:
            put_in_pool(x, at, r, intern_memory(x, r))
    place = x.count[0].places + t
    short = short_id(x, t, intern_part(x, words, x.spans[place, 0], x.spans[place, 1]))
    load_part(x, words, place, part_of(x, x.node, number, t))
    put_in_pool(x, at, len(x.region_width) + t, short)


@fn
def load_thread(s, x, words, number, t):
    """Load what the steps of thread `t` look at into the raw buffer. Returns whether its rule reads other threads: then
    all threads are loaded."""
    places = x.count[0].places
    for r in range(len(x.region_width)):
        if x.uses[t, r]:
            load_memory(x, words, r, value_of(x, x.node, number, r))
    load_part(x, words, places + t, part_of(x, x.node, number, t))
    far = not LOCAL[s.task[t].pc] or s.who[t].after > 0
    if far:
        for a in range(x.count[0].actors):
            load_part(x, words, places + a, part_of(x, x.node, number, a))
    return far


@fn
def run_steps(s, x, words, number, t, position):
    """Run every step of thread `t` in a state and write a header, the steps, and where the thread has no home the
    state's row under its reach to `pool` from `position`.

    Returns whether the rule reads other threads: then the steps hold for this state only. A step that is about no page
    (focus: 0) is asked for the properties of the nearest page that the thread looks at.

    Header: steps | fair << HEAD_FAIR | pending << HEAD_PENDING | rule << HEAD_RULE | obstacle << HEAD_OBSTACLE |
    page << HEAD_PAGE, where there is an obstacle | actor << HEAD_ACTOR | told << HEAD_TOLD. A step is the row after it
    under the thread's reach, and where the steps are told, a label: choice | property broken << STEP_PROPERTY. Steps
    that are not told break nothing, and the choice of each is its place.
    """
    width = x.node.shape[1]
    far = load_thread(s, x, words, number, t)
    pc = s.task[t].pc
    kind = s.who[t].kind
    idle = pc == IDLE_PC[kind]
    header = pc * (1 << HEAD_RULE) + (1 << HEAD_PENDING if is_pending(s, t) else 0) + t * (1 << HEAD_ACTOR)
    header += 1 << HEAD_FAIR if FAIR[pc] and not idle else 0
    steps = 0
    obstacle = 0
    told = False
    at = position + 1
    for i in range(x.choices[t, 1] if idle else 1):
        c = x.choices[t, 0] + i
        op = x.ops[c] if idle else NOTHING
        page = x.pages[c] if idle else 0
        if pc == RUN and s.actor[t].op != NOTHING:
            continue
        p = min(max(focus(s, t, page), x.extent[t, 0]), x.extent[t, 1] - 1)
        was = s.uv[p].state
        outcome = step(s, t, op, page)
        if kind == VCPU and pc > AGAIN:
            obstacle = outcome if outcome in BUSY else REFUSALS - outcome if outcome < 0 else 0
            if obstacle and s.actor[t].op >= SECOND:
                obstacle += OBSTACLES_END
        if outcome < 0:
            continue
        wrong = broken_within(s, t, pc, p, was, outcome, x.extent[t, 0], x.extent[t, 1])
        step_result(x, words, number, t, at)
        x.pool[at + width] = i | wrong << STEP_PROPERTY
        told = told or wrong > 0 or i != steps
        steps += 1
        at += width + 1
    for i in range(0 if told else steps * width):
        x.pool[position + 1 + i] = x.pool[position + 1 + i + i // width]
    header += s.actor[t].page * (1 << HEAD_PAGE) if obstacle else 0
    x.pool[position] = header | steps | obstacle << HEAD_OBSTACLE | (1 << HEAD_TOLD if told else 0)
    if x.home[t] < 0:
        put_key(x, number, t, key_at(x, position))
    return far


@fn
def size_of(x, t, position):
    """Returns the words of the steps of thread `t` at a position in `pool`."""
    return key_at(x, position) - position + (x.node.shape[1] if x.home[t] < 0 else 0)


@fn
def steps_of(s, x, words, number, t):
    """Returns the position in `pool` of thread `t`'s steps in a state; runs them if they are not memoised. 0 and
    COUNT.stop = FULL at full capacity.

    Steps of rules that read other threads are kept at the end of `pool`, for this round only.
    """
    g = x.count[0]
    has_home = x.home[t] >= 0
    memory = value_of(x, x.node, number, g.zero)
    slot = index_of(x, number, t, memory) if has_home else memo_slot(x, number, t, memo_start(x, number, t))
    position = int(x.index[slot] if has_home else x.memo_table[slot])
    if position:
        return position
    most = (g.max_steps + 1) * (x.node.shape[1] + 1)
    if g.spare - g.used <= 2 * most or g.kept >= g.most_kept or free_memories(x) <= g.max_steps + 1:
        g.stop = FULL
        return 0
    position = g.used
    far = run_steps(s, x, words, number, t, position)
    if g.stop != RUNNING:
        return 0
    size = size_of(x, t, position)
    if far:
        g.spare -= size
        for i in range(size):
            x.pool[g.spare + i] = x.pool[position + i]
        return g.spare
    if has_home:
        x.index[slot] = position
    else:
        x.memo_table[slot] = position
        g.kept += 1
    g.used += size
    return position


@fn
def rehash_memo(x):
    """Enter all kept steps of actors without a home into an empty memo_table."""
    width = x.node.shape[1]
    position = 1
    while position < x.count[0].used:
        t = int((x.pool[position] >> HEAD_ACTOR) & ACTOR_MASK)
        if x.home[t] < 0:
            key = key_at(x, position)
            h = t
            for c in range(width):
                h = mix(h, x.pool[key + c])
            slot = h & (len(x.memo_table) - 1)
            while x.memo_table[slot]:
                slot = (slot + 1) & (len(x.memo_table) - 1)
            x.memo_table[slot] = position
        position += size_of(x, t, position)


@fn
def rehash_memories(x):
    """Insert all memories into an empty memory_table."""
    for r in range(len(x.region_width)):
        for m in range(1, x.memory_count[r]):
            x.memory_table[r, memory_slot(x, r, m)] = m
