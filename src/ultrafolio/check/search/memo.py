"""What states are made of, and the steps that are run once and remembered. Loaded with the rules and the kernel."""

# mypy: disallow_untyped_defs=False, disallow_untyped_calls=False
from __future__ import annotations

from typing import Any

from ultrafolio.check.search.packing import (
    COMPONENT_WORDS,
    FULL,
    HEAD_FAIR,
    HEAD_OBSTACLE,
    HEAD_PAGE,
    HEAD_PENDING,
    HEAD_RULE,
    MAX_COMPONENTS,
    OBSTACLES_END,
    OVERFLOW,
    REFUSALS,
    RUNNING,
    STEP_CHOICE,
    STEP_OWN,
    STEP_PROPERTY,
    STEPS_MASK,
)
from ultrafolio.model.layout import AGAIN, IDLE_PC, NOTHING, RUN, UNSHARE, VCPU
from ultrafolio.model.properties import broken, focus
from ultrafolio.model.rule import fn
from ultrafolio.waits.rules import is_pending
from ultrafolio.waits.tables import BUSY

step: Any = None  # bound by the loader: the dispatcher generated from the rule table
FAIR: Any = ()  # bound by the loader: per rule, whether it is weakly or strongly fair
LOCAL: Any = ()  # bound by the loader: per rule, whether it looks at no thread but its own


# ------------------------------------------------------------------------------------ components and memories
@fn
def mix(h, v):
    """One round of a 63-bit hash. Source: the multiplier of splitmix64, Steele, Lea and Flood 2014."""
    h = ((int(h) ^ int(v)) * 0x3F58476D1CE4E5B9) & 0x7FFFFFFFFFFFFFFF
    return h ^ (h >> 29)


@fn
def keep(x, words, first, n):
    """The number of the component whose words stand in the raw buffer, stored if it is new."""
    h = int(n)
    for i in range(n):
        h = mix(h, words[first + i])
    slots = len(x.index)
    slot = h & (slots - 1)
    while x.index[slot]:
        c = x.index[slot] - 1
        same = x.kept[c, COMPONENT_WORDS] == n
        for i in range(n):
            same = same and x.kept[c, i] == words[first + i]
        if same:
            return c
        slot = (slot + 1) & (slots - 1)
    c = x.count[0].components
    if c == MAX_COMPONENTS:
        x.count[0].stop = OVERFLOW
        return 0
    for i in range(n):
        x.kept[c, i] = words[first + i]
    x.kept[c, COMPONENT_WORDS] = n
    x.index[slot] = c + 1
    x.count[0].components = c + 1
    return c


@fn
def place(x, number):
    """Where memory `number` stands in `places`, or the empty slot where it would."""
    width = x.memory.shape[1]
    slots = len(x.places)
    h = width
    for c in range(width):
        h = mix(h, x.memory[number, c])
    slot = h & (slots - 1)
    while x.places[slot]:
        other = x.places[slot]
        same = True
        for c in range(width):
            same = same and x.memory[other, c] == x.memory[number, c]
        if same:
            return slot
        slot = (slot + 1) & (slots - 1)
    return slot


@fn
def memorise(x):
    """The number of the memory that stands behind the last one, stored if it is new."""
    m = x.count[0].memories
    slot = place(x, m)
    if x.places[slot]:
        return int(x.places[slot])
    x.places[slot] = m
    x.count[0].memories = m + 1
    return m


@fn
def own_of(x, t, component):
    """Actor `t`'s own number of a component, given to it if it has none yet; 0 when there is no room."""
    if x.owned[t, component]:
        return int(x.owned[t, component]) - 1
    n = x.many[t]
    if n > x.fields[t + 1].mask:
        x.count[0].stop = FULL
    if x.count[0].stop != RUNNING:
        return 0
    x.own[t, n] = component
    x.owned[t, component] = n + 1
    x.many[t] = n + 1
    return n


# ------------------------------------------------------------------------------------------------- rows
@fn
def memory_of(x, rows, number):
    """The number of the memory of the state in row `number`."""
    return rows[number, 0] & x.fields[0].mask


@fn
def own_in(x, rows, number, t):
    """Actor `t`'s own number of its component in the state in row `number`."""
    f = x.fields[t + 1]
    return (rows[number, f.word] >> f.shift) & f.mask


@fn
def component_of(x, rows, number, t):
    """The number of actor `t`'s component in the state in row `number`."""
    return x.own[t, own_in(x, rows, number, t)]


@fn
def put(x, rows, number, t, own):
    """Write actor `t`'s own number of its component into row `number`."""
    f = x.fields[t + 1]
    rows[number, f.word] = (rows[number, f.word] & ~(f.mask << f.shift)) | own << f.shift


@fn
def put_memory(x, rows, number, m):
    """Write the number of a memory into row `number`."""
    rows[number, 0] = (rows[number, 0] & ~x.fields[0].mask) | m


@fn
def unpack(x, words, c, component):
    """Put a component at place `c`, of the pages, machines and actors, into the raw buffer."""
    first = x.spans[c, 0]
    for i in range(x.spans[c, 1]):
        words[first + i] = x.kept[component, i]


@fn
def load(x, words, m):
    """Put a memory into the raw buffer, where another one stands."""
    before = x.count[0].loaded
    for c in range(x.memory.shape[1] if before != m else 0):
        if before == 0 or x.memory[m, c] != x.memory[before, c]:
            unpack(x, words, c, x.memory[m, c])
    x.count[0].loaded = m


# ---------------------------------------------------------------------------------------- remembered steps
@fn
def recalled(x, number, t):
    """Where the steps of thread `t` in a state are remembered: a place in `recall`."""
    return memory_of(x, x.node, number) * x.count[0].columns + x.fields[t + 1].column + own_in(x, x.node, number, t)


@fn
def is_there(x, words, c, component):
    """Whether the raw buffer holds this component at place `c`."""
    first = x.spans[c, 0]
    same = True
    for i in range(x.spans[c, 1]):
        same = same and words[first + i] == x.kept[component, i]
    return same


@fn
def taken(x, words, t, m, component):
    """What a step of `t` from memory `m` left in the raw buffer: memory | own number of the component << STEP_OWN. The
    buffer is restored.

    A step changes its own thread, pages and virtual machines, no other thread.
    """
    width = x.memory.shape[1]
    new = x.count[0].memories
    changed = False
    for c in range(width):
        x.memory[new, c] = x.memory[m, c]
        if not is_there(x, words, c, x.memory[m, c]):
            changed = True
            x.memory[new, c] = keep(x, words, x.spans[c, 0], x.spans[c, 1])
            unpack(x, words, c, x.memory[m, c])
    own = own_of(x, t, keep(x, words, x.spans[width + t, 0], x.spans[width + t, 1]))
    unpack(x, words, width + t, component)
    return (memorise(x) if changed else m) | own << STEP_OWN


@fn
def study(s, x, words, number, t, position):
    """Run every step of thread `t` in a state, and write what came of them to `pool`; True if one was a step of a
    rule that looks at other threads.

    Header: steps | fair << HEAD_FAIR | pending << HEAD_PENDING | rule << HEAD_RULE | obstacle << HEAD_OBSTACLE |
    page << HEAD_PAGE, where there is an obstacle. A step:
    memory | own number << STEP_OWN | choice << STEP_CHOICE | property broken << STEP_PROPERTY.
    """
    m = memory_of(x, x.node, number)
    component = component_of(x, x.node, number, t)
    load(x, words, m)
    unpack(x, words, x.memory.shape[1] + t, component)
    pc = s.task[t].pc
    far = not LOCAL[pc] or s.who[t].after > 0
    if far:
        for a in range(x.count[0].actors):
            unpack(x, words, x.memory.shape[1] + a, component_of(x, x.node, number, a))
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
            if obstacle and s.actor[t].op == UNSHARE:
                obstacle += OBSTACLES_END
        if outcome < 0:
            continue
        wrong = broken(s, t, pc, p, was, outcome)
        steps += 1
        x.pool[position + steps] = taken(x, words, t, m, component) | i << STEP_CHOICE | wrong << STEP_PROPERTY
    header += s.actor[t].page * (1 << HEAD_PAGE) if obstacle else 0
    x.pool[position] = header | steps | obstacle << HEAD_OBSTACLE
    return far


@fn
def remember(s, x, words, number, t):
    """The position in `pool` of thread `t`'s steps in a state, run if they never were; 0 when there is no room.

    Steps that look at other threads are kept for this round only, at the far end of `pool`.
    """
    g = x.count[0]
    at = recalled(x, number, t)
    if x.recall[at]:
        return int(x.recall[at])
    if g.spare - g.used <= 2 * g.widest + 4 or len(x.memory) - g.memories <= g.widest + 1:
        g.stop = FULL
        return 0
    position = g.used
    far = study(s, x, words, number, t, position)
    if g.stop != RUNNING:
        return 0
    size = (x.pool[position] & STEPS_MASK) + 1
    if far:
        g.spare -= size
        for i in range(size):
            x.pool[g.spare + i] = x.pool[position + i]
        return g.spare
    x.recall[at] = position
    g.used += size
    return position


@fn
def enter_memories(x):
    """Enter all memories into an emptied table."""
    for m in range(1, x.count[0].memories):
        x.places[place(x, m)] = m
