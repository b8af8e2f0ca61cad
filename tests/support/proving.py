"""Random states for the tests of proofs: walks through drawn scenarios, with page fields changed by chance."""

from random import Random

import memfd_cases
from drawn_cases import fitting
from ultrafolio.engine.interp import to_lists
from ultrafolio.engine.load import interpreted, interpreted_of
from ultrafolio.errors import InputError
from ultrafolio.model import designs
from ultrafolio.model.guest_memfd.layout import HW_WORDS
from ultrafolio.model.layout import WRITING
from ultrafolio.prove.paths import Place

STEPS = 40
"""Steps of one walk."""
ONE = "per-page"
"""The policy whose proof the short tests look at."""
FEW_KINDS = {"vcpu", "disk"}
"""The kinds of actors of that proof; --long proves with all kinds."""
CHANGED = {
    "uv": {"state": 4, "owner": 1, "shared": 1}, "pt": {"present": 2}, "io": {"flying": 1},
    "mm": {"arch": 1, "locked": 1, "frozen": 1, "writeback": WRITING, "dirty": 1, "writable": 1, "batch": 2,
           "altered": 1, "walked": 1, "pins": 2, "longs": 2, "spec": 2, "refs": 4, "marked": 2, "granted": 2,
           "backing": 2},
}  # fmt: skip
"""Fields of a page that may hold anything, and the largest number tried."""


def walk(number, changed=0.0, steps=STEPS):
    """The states of a walk through the drawn case of this number: (policy, state, actor, op, page) before each step,
    taken or not. `changed`: how likely it is that a field of a page is changed before a step."""
    drawn, random = fitting(number, lambda _: True)[0], Random(f"walk {number}")
    system = drawn.system()
    state = to_lists(system.state)
    for _ in range(steps):
        t = random.randrange(len(state.task))
        op, page = random.choice(system.choices[t])
        if random.random() < changed:
            section = random.choice(list(CHANGED))
            word = random.choice(list(CHANGED[section]))
            setattr(random.choice(getattr(state, section)), word, random.randint(0, CHANGED[section][word]))
        yield drawn.policy, state, t, op, page
        interpreted().step(state, t, op, page)


CHANGED_MEMFD = {
    "uv": {"state": len(HW_WORDS) - 1, "shared": 1, "lost": 1, "pamt": 1}, "pt": {"present": 2},
    "io": {"flying": 2, "dma": 2, "asked": 1}, "vm": {"mutex": 2, "fresh": 7, "life": 3},
    "mm": {"private": 1, "allocated": 1, "users": 3, "locking": 3, "zapped": 1, "batch": 2, "spec": 2, "kvm": 2,
           "pins": 2, "longs": 2, "granted": 2, "refs": 4},
    "task": {"ref": 1, "splits": 3, "exporting": 1, "drained": 2, "back": 2, "call": 3},
}  # fmt: skip
"""The same for guest_memfd, and fields of machines and threads."""


def fits_a_proof(case):
    """Whether a drawn case of guest_memfd is a system that a proof is about."""
    memory = case.document["memory"]
    return not memory["refuses"] and not memory["never"] and 1 not in memory["folios"]


def walk_memfd(number, changed=0.0, steps=STEPS):
    """The states of a walk through the drawn case of guest_memfd of this number, as walk(): (policy, machine, state,
    actor, op, page). None where the case is none that a proof is about."""
    case, random = memfd_cases.drawn(number), Random(f"walk {number}")
    if not fits_a_proof(case):
        return
    try:
        system = case.system()
    except InputError:
        return
    state = to_lists(system.state)
    for _ in range(steps):
        t = random.randrange(len(state.task))
        op, page = random.choice(system.choices[t])
        if random.random() < changed:
            section = random.choice(list(CHANGED_MEMFD))
            word = random.choice(list(CHANGED_MEMFD[section]))
            setattr(random.choice(getattr(state, section)), word, random.randint(0, CHANGED_MEMFD[section][word]))
        yield case.policy, case.document["machine"], state, t, op, page
        interpreted_of(state).step(state, t, op, page)


def place_of(state, t):
    """Where a thread is."""
    k, design = state.task[t], designs.of(state)
    where = (k.then, k.back) if design is designs.S390 else (0, 0)
    return Place(state.who[t].kind, k.pc, *where, design.name)
