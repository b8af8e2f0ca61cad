"""Random states for the tests of proofs: walks through drawn scenarios, with page fields changed by chance."""

from random import Random

from drawn_cases import fitting
from ultrafolio.engine.interp import to_lists
from ultrafolio.engine.load import interpreted
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


def place_of(state, t):
    """Where a thread is."""
    k = state.task[t]
    return Place(state.who[t].kind, k.pc, k.then, k.back)
