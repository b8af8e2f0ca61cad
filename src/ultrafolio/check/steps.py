"""What states are made of, and the steps that are run once and remembered. Loaded with the rules and the kernel."""

# mypy: disallow_untyped_defs=False, disallow_untyped_calls=False
from __future__ import annotations

from typing import Any

from ultrafolio.model.layout import (
    ACC_CLEAR,
    ACC_TEST,
    AGAIN,
    DISK,
    E_LOCKED,
    E_UV,
    IDLE_PC,
    NOTHING,
    PIN_GET,
    RING,
    RUN,
    VCPU,
    WB_IDLE,
    WRITEBACK,
)
from ultrafolio.model.properties import broken, focus
from ultrafolio.model.rule import fn

from .layout import (
    ACTOR_WORDS,
    FULL,
    MAX_COMPONENTS,
    OVERFLOW,
    RUNNING,
)

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
        same = x.kept[c, ACTOR_WORDS] == n
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
    x.kept[c, ACTOR_WORDS] = n
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
        other = x.places[slot] - 1
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
        return int(x.places[slot]) - 1
    x.places[slot] = m + 1
    x.count[0].memories = m + 1
    return m


@fn
def memory_of(x, number):
    """The number of a state's memory."""
    return x.node[number, 0] & 0xFFFFFFFF


@fn
def component_of(x, number, t):
    """The number of the component of a state's actor `t`."""
    return (x.node[number, (t + 2) >> 2] >> (16 * ((t + 2) & 3))) & 0xFFFF


@fn
def put(x, number, t, component):
    """Write an actor's component into a row whose lane is empty."""
    x.node[number, (t + 2) >> 2] |= int(component) << (16 * ((t + 2) & 3))


@fn
def load(x, words, number):
    """Unpack a state into the raw buffer and its copy."""
    width = x.memory.shape[1]
    m = memory_of(x, number)
    for c in range(len(x.spans)):
        first = x.spans[c, 0]
        kept = x.memory[m, c] if c < width else component_of(x, number, c - width)
        for i in range(first, first + x.spans[c, 1]):
            words[i] = x.kept[kept, i - first]
            x.copy[i] = words[i]


# ---------------------------------------------------------------------------------------- remembered steps
@fn
def recalled(x, key):
    """The slot of `recall` where a key stands, or the empty one where it would."""
    slots = len(x.recall)
    slot = mix(7, key) & (slots - 1)
    while x.recall[slot, 1] and x.recall[slot, 0] != key:
        slot = (slot + 1) & (slots - 1)
    return slot


@fn
def key_of(x, number, t):
    """What a thread's step depends on: the memory, the thread and its component."""
    return memory_of(x, number) << 22 | t << 16 | component_of(x, number, t)


@fn
def is_pending(s, t):
    """Whether actor `t` has begun what a leads-to must end: an access, a pin, a writeback (MODEL section 5)."""
    kind, pc = s.who[t].kind, s.task[t].pc
    if kind == VCPU:
        return s.actor[t].op != NOTHING
    if kind in (DISK, RING):
        return pc == PIN_GET or ACC_TEST <= pc <= ACC_CLEAR
    return kind == WRITEBACK and pc != WB_IDLE


@fn
def taken(x, words, t, m):
    """The memory and component after a step of `t` from memory `m`: memory | component << 28. The buffer is restored.

    A step changes its own thread, pages and virtual machines, no other thread.
    """
    width = x.memory.shape[1]
    new = x.count[0].memories
    changed = False
    for c in range(width):
        first = x.spans[c, 0]
        x.memory[new, c] = x.memory[m, c]
        same = True
        for i in range(first, first + x.spans[c, 1]):
            same = same and words[i] == x.copy[i]
        if not same:
            changed = True
            x.memory[new, c] = keep(x, words, first, x.spans[c, 1])
    c = width + t
    component = keep(x, words, x.spans[c, 0], x.spans[c, 1])
    for i in range(len(x.copy)):
        words[i] = x.copy[i]
    return (memorise(x) if changed else m) | int(component) << 28


@fn
def study(s, x, words, number, t, position):
    """Run every step of thread `t` in a state, and write what came of them to `pool`; True if one was a step of a
    rule that looks at other threads.

    Header: steps | rule << 16 | obstacle << 24 | fair << 29 | pending << 30. A step: memory | component << 28 |
    property broken << 44 | choice << 48.
    """
    load(x, words, number)
    m = memory_of(x, number)
    pc = s.task[t].pc
    kind = s.who[t].kind
    idle = pc == IDLE_PC[kind]
    header = pc * (1 << 16) + (1 << 30 if is_pending(s, t) else 0) + (1 << 29 if FAIR[pc] and not idle else 0)
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
            obstacle = outcome if E_LOCKED <= outcome <= E_UV else 16 - outcome if outcome < 0 else 0
        if outcome < 0:
            continue
        wrong = broken(s, t, pc, p, was, outcome)
        steps += 1
        x.pool[position + steps] = taken(x, words, t, m) | wrong << 44 | i << 48
    x.pool[position] = header | steps | obstacle << 24
    return not LOCAL[pc]


@fn
def remember(s, x, words, number, t):
    """The position in `pool` of thread `t`'s steps in a state, run if they never were; 0 when there is no room.

    Steps that look at other threads are kept for this round only, at the far end of `pool`.
    """
    g = x.count[0]
    key = key_of(x, number, t)
    slot = recalled(x, key)
    if x.recall[slot, 1]:
        return x.recall[slot, 1]
    room = g.spare - g.used > 2 * g.widest + 4 and len(x.memory) - g.memories > g.widest + 1
    if not room or 2 * g.used > len(x.recall):
        g.stop = FULL
        return 0
    position = g.used
    far = study(s, x, words, number, t, position)
    if g.stop != RUNNING:
        return 0
    size = (x.pool[position] & 0xFFFF) + 1
    if far:
        g.spare -= size
        for i in range(size):
            x.pool[g.spare + i] = x.pool[position + i]
        return g.spare
    x.recall[slot, 0] = key
    x.recall[slot, 1] = position
    g.used += size
    return position


@fn
def enter_memories(x):
    """Enter all memories into an emptied table."""
    for m in range(x.count[0].memories):
        x.places[place(x, m)] = m + 1


@fn
def enter_recalled(x, old):
    """Enter the remembered steps of the table `old` into an emptied one."""
    for i in range(len(old)):
        if old[i, 1]:
            slot = recalled(x, old[i, 0])
            x.recall[slot, 0], x.recall[slot, 1] = old[i, 0], old[i, 1]
