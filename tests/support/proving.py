"""Random states for the tests of proofs: walks through drawn scenarios, with page fields changed by chance."""

from collections import deque
from random import Random

import pytest

import memfd_cases
from drawn_cases import fitting
from ultrafolio.check.verdicts.replay import copied, frozen
from ultrafolio.engine.interp import to_lists
from ultrafolio.engine.load import interpreted, interpreted_of
from ultrafolio.errors import InputError
from ultrafolio.model import designs
from ultrafolio.model.guest_memfd.layout import HW_WORDS
from ultrafolio.model.layout import WRITING
from ultrafolio.prove import terms
from ultrafolio.prove.evaluate import Concrete
from ultrafolio.prove.paths import STEPS as STEPPING
from ultrafolio.prove.paths import Place

STEPS = 40
"""Steps of one walk."""
ONE = "per-page"
"""The policy whose proof the short tests look at."""
FEW_KINDS = {"vcpu", "disk"}
"""The kinds of actors of that proof; --long proves with all kinds."""
FEW_MEMFD = {"vcpu", "user", "pin"}
"""The same for guest_memfd."""
FEW_HUGE = {"user", "speculative"}
"""The same with huge pages; conversions, which take long, are in the long round."""
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


CHANGED_HUGE = {
    "uv": {**CHANGED_MEMFD["uv"], "large": 1, "pamt": 0}, "pt": {"present": 2, "large": 1}, "io": CHANGED_MEMFD["io"],
    "vm": {**CHANGED_MEMFD["vm"], "no_table": 1, "no_folio": 1},
    "mm": {**CHANGED_MEMFD["mm"], "stale": 2, "turned": 1, "order": 1}, "task": CHANGED_MEMFD["task"],
}  # fmt: skip
"""The same with huge pages."""


def fits_a_proof(case):
    """Whether a drawn case of guest_memfd is a system that a proof is about."""
    memory = case.document["memory"]
    return not memory["refuses"] and not memory["never"] and 1 not in memory["folios"]


def walk_memfd(number, changed=0.0, steps=STEPS):
    """The states of a walk through the drawn case of guest_memfd of this number, as walk(): (policy, machine, state,
    actor, op, page). None where the case is none that a proof is about."""
    case = memfd_cases.drawn(number)
    if not fits_a_proof(case):
        return
    try:
        system = case.system()
    except InputError:
        return
    yield from _walk_memfd(case, system, number, CHANGED_MEMFD, changed, steps)


def walk_huge(number, changed=0.0, steps=STEPS):
    """The same with huge pages: one or two of two pages, or one of four, which no scenario file has."""
    case = memfd_cases.drawn_huge(number)
    system = case.system()
    four = len(system.state.mm) == 4 and Random(f"block {number}").random() < 0.5
    if four:
        system.state.cfg["block"] = 2
        for section, name, value in (("mm", "order", 2), ("pt", "large", 1), ("uv", "large", 1)):
            rows = getattr(system.state, section)
            rows[name] = value if all(rows[name]) else 0
    yield from _walk_memfd(case, system, number, CHANGED_HUGE, changed, steps)


def _walk_memfd(case, system, number, fields, changed, steps):
    state, random = to_lists(system.state), Random(f"walk {number}")
    for _ in range(steps):
        t = random.randrange(len(state.task))
        op, page = random.choice(system.choices[t])
        if random.random() < changed:
            section = random.choice(list(fields))
            word = random.choice(list(fields[section]))
            value = random.randint(0, fields[section][word])
            times = state.cfg[0].block if word == "order" else 1
            setattr(random.choice(getattr(state, section)), word, value * times)
        yield case.policy, case.document["machine"], state, t, op, page
        interpreted_of(state).step(state, t, op, page)


def place_of(state, t):
    """Where a thread is."""
    k, design = state.task[t], designs.of(state)
    where = (k.then, k.back) if design is designs.S390 else (0, 0)
    return Place(state.who[t].kind, k.pc, *where, design.name)


# ------------------------------------------------------------------------------------------- facts and states
def reachable(made, most):
    """The first states of a system, breadth first, by the interpreter."""
    first = to_lists(made.state)
    seen, left = {frozen(first)}, deque([first])
    while left:
        state = left.popleft()
        yield state
        for t, choices in enumerate(made.choices):
            for op, page in choices:
                new = copied(state)
                if interpreted_of(new).step(new, t, op, page) > 0 and frozen(new) not in seen and len(seen) < most:
                    seen.add(frozen(new))
                    left.append(new)


def walked(made, random, steps):
    """The states of a random walk, by the interpreter."""
    state = to_lists(made.state)
    for _ in range(steps):
        t = random.randrange(len(state.task))
        if interpreted_of(state).step(state, t, *random.choice(made.choices[t])) > 0:
            yield state


def wrong_facts(proof, state, s, w, page, other):
    """What the induction is given, for a thread, another one and two pages of a state: what of it is false."""
    from ultrafolio.prove.before import OTHER, PAGE, WHERE, of_other

    p = proof.problem
    place, where = place_of(state, s), p.places.index(place_of(state, w))
    flags = {
        of_other(kind, name).args[0]: where in p.where(kind, name)
        for kind, names in p.subject.of_threads
        for name in names
    }
    values = {PAGE.args[0]: page, WHERE.args[0]: where, "Q": other, **flags}
    here = Concrete(state, {STEPPING: s, OTHER: w}, values)
    given = [*p.of_threads(place), *p.of_page(place, PAGE), *p.of_two_pages(PAGE, terms.var("Q"))]
    for fact, formula in given:
        if (fact is None or p.is_kept(fact)) and not here.holds(formula):
            yield place.name, fact


def wrong_in(proof, states, random, each):
    """What is false in these states, for `each` random choices of threads and pages; and how many states there were."""
    found, count = [], 0
    for state in states:
        count += 1
        if len(state.task) < 2:
            continue
        for _ in range(each):
            s, w = random.sample(range(len(state.task)), 2)
            page, other = random.choices(range(len(state.mm)), k=2)
            found += wrong_facts(proof, state, s, w, page, other)
    return found, count


def evaluated(proof, systems, states_of, each):
    """Evaluate the facts of a proof in states of these systems, each with its name; how many states there were."""
    total = 0
    for name, made in systems:
        random = Random(name)
        wrong, count = wrong_in(proof, states_of(made, random), random, each)
        assert not wrong, name
        total += count
    return total


def asked_again(proof):
    """The facts that steps break where every step is asked about once more, given all that is kept."""
    from ultrafolio.prove.houdini import Houdini, Tally

    run = Houdini(proof.problem, Tally())
    for n in range(len(proof.problem.steps)):
        run._step(n)
    return run.tally.dropped


# ------------------------------------------------------------------------------------------------- solvers
def other_answers(folder, count=None):
    """What cvc5 says to so many of the questions of a folder, or to all, which z3 answered with unsat."""
    cvc5 = pytest.importorskip("cvc5", reason="cvc5 is not installed")
    files = sorted(folder.glob("*.smt2"))
    return [_second_answer(cvc5, file) for file in Random("cvc5").sample(files, count or len(files))]


def _second_answer(cvc5, file):
    solver = cvc5.Solver()
    solver.setOption("tlimit-per", "120000")
    parser = cvc5.InputParser(solver)
    parser.setFileInput(cvc5.InputLanguage.SMT_LIB_2_6, str(file))
    symbols, said = parser.getSymbolManager(), []
    while not (command := parser.nextCommand()).isNull():
        said.append(command.invoke(solver, symbols).strip())
    return [word for word in said if word][-1]
