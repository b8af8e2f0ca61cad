"""Groups of the design guest_memfd in the shared state: rules run by their parts agree with the interpreter, on every
machine, and the validator accepts what they did."""

import ast
import random
from pathlib import Path

import pytest
from msgspec.structs import replace

from memfd_cases import SHIPPED
from memfd_cases import system as system_of
from store_cases import Stored
from ultrafolio.engine.interp import to_lists, write_back
from ultrafolio.engine.load import interpreted
from ultrafolio.model.designs import GUEST_MEMFD
from ultrafolio.model.layout import NOTHING, copy, pack
from ultrafolio.state.crossing import WALLS
from ultrafolio.state.events import Steps, decode, encode
from ultrafolio.state.memory import Memory, MemoryStore
from ultrafolio.state.roles import ROLE_OF_ACTOR
from ultrafolio.state.sections import sections
from ultrafolio.state.store import Event
from ultrafolio.state.validate import replayed, validate


@pytest.fixture
def engine(tmp_path):
    memory = Memory()
    return Stored({role: MemoryStore(memory, role) for role in ("ultravisor", "host", "guest", "admin")}, tmp_path)


def walk(engine, system, seed, steps):
    """Random steps, by the parts over the store and by the interpreter: equal outcomes, equal states."""
    draw, plain = random.Random(seed), to_lists(system.state)
    engine.load(system.state)
    for _ in range(steps):
        actor = draw.randrange(len(system.choices))
        idle = plain.task[actor].pc == GUEST_MEMFD.idle[plain.who[actor].kind]
        op, page = draw.choice(system.choices[actor]) if idle else (NOTHING, 0)
        wanted = interpreted(GUEST_MEMFD).step(plain, actor, op, page)
        assert engine.step(actor, op, page) == wanted, (actor, op, page)
    assert pack(engine.state()) == pack(write_back(plain, copy(system.state)))


@pytest.mark.parametrize(("name", "policy", "machine"), SHIPPED)
def test_the_parts_take_the_steps_of_the_rules(engine, name, policy, machine):
    system = system_of(name, policy, machine)
    walk(engine, system, 1, 60)
    verdict = validate(engine.stores["admin"].history(engine.group), engine.state)
    assert verdict.accepted, (verdict.at, verdict.why)


def test_a_checkpoint_stands_for_the_entries_before_it(engine):
    walk(engine, system_of("g32-fault-races", "gmem-7.4", "tdx"), 1, 60)
    events = list(engine.stores["admin"].history(engine.group))
    half = len(events) // 2
    kept = replayed(events[:half]).kept()
    verdict = validate([Event("9-0", encode(kept)), *events[half:]], engine.state)
    assert verdict.accepted and verdict.steps == validate(events).steps > 20


# ------------------------------------------------------------------------------------------------------- the walls
FUNCTIONS = {
    node.name: node
    for module in GUEST_MEMFD.modules
    if not module.__name__.endswith(".properties")
    for node in ast.parse(Path(module.__file__).read_text()).body
    if isinstance(node, ast.FunctionDef)
}


def called(node):
    return {n.func.id for n in ast.walk(node) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}


def reached(role):
    """The functions that run in a role's process: its rules, and what they call on this side of its walls."""
    left = [rule.function.__name__ for rule in GUEST_MEMFD.rules.values() if ROLE_OF_ACTOR[rule.actor] == role]
    seen = {}
    while left:
        name = left.pop()
        if name in FUNCTIONS and name not in seen and name not in WALLS["guest_memfd"][role]:
            seen[name] = FUNCTIONS[name]
            left += called(FUNCTIONS[name])
    return seen.values()


@pytest.mark.parametrize("role", ["host", "guest"])
def test_what_a_part_runs_needs_only_what_it_may_touch(role):
    """No function in the process of the host names what the hardware says of a page; none in that of guest and VMM
    names a kernel's record, and of the hardware's as which kind the guest uses a page."""
    stored = sections(GUEST_MEMFD)
    may = {stored.arrays[name] for name in stored.touched[role].reads}
    for node in reached(role):
        fields = [n for n in ast.walk(node) if isinstance(n, ast.Attribute)]
        assert {n.attr for n in fields if ast.unparse(n.value) == "s"} - {"cfg", "who"} <= may, node.name
        of_pages = {n.attr for n in fields if ast.unparse(n.value).startswith("s.uv[")}
        assert of_pages <= ({"shared"} if role == "guest" else set()), node.name


def test_every_wall_is_met():
    for role, walls in WALLS["guest_memfd"].items():
        assert set(walls) <= {name for node in reached(role) for name in called(node)}, role


def test_a_step_whose_answer_of_the_hardware_is_another_is_refused(engine):
    """The validator asks the rules what the machine answers, and compares."""
    system = system_of("g32-fault-races", "gmem-7.4", "tdx")
    walk(engine, system, 1, 60)
    events = list(engine.stores["admin"].history(engine.group))
    at, changed = next(
        (at, entry)
        for at, entry in enumerate(decode(event.data) for event in events)
        if isinstance(entry, Steps) and entry.steps[0].results
    )
    function, code = changed.steps[0].results[0]
    for results in ([(function, code + 1)], [], [(function, code)] * 2):
        step = replace(changed.steps[0], results=results)
        wrong = [*events[:at], Event(events[at].id, encode(replace(changed, steps=[step]))), *events[at + 1 :]]
        verdict = validate(wrong)
        assert not verdict.accepted and verdict.at == events[at].id and function in verdict.why, verdict.why
