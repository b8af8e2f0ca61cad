"""Streams for the page's tests, as a cluster would have written them, made by the plain interpreter."""

import msgspec
import numpy as np

from ultrafolio.conformance.suite import build
from ultrafolio.engine import load
from ultrafolio.engine.interp import to_lists
from ultrafolio.engine.load import interpreted, interpreted_of
from ultrafolio.model import designs
from ultrafolio.model.layout import NOTHING
from ultrafolio.model.rule import RULES
from ultrafolio.state.crossing import WALLS
from ultrafolio.state.events import Made, StepEvent, Steps, encode
from ultrafolio.state.roles import ROLE_OF_ACTOR
from ultrafolio.state.sections import encode_meta, meta_of_state, split
from ultrafolio.state.store import Event

START_MS = 1_700_000_000_000


def made(system, title="a test"):
    """The entries with which the parts lay out a group."""
    state = system.state
    parts, meta = split(state), meta_of_state(state, system.choices, title)
    mine = {role: {n: parts[n] for n in of.writes if n in parts} for role, of in meta.sections.touched.items()}
    mine["host"] = {n: data for n, data in mine["host"].items() if n not in mine["guest"]}
    meta = encode_meta(meta)
    return [Made(role, mine[role], meta if role == "host" else b"") for role in ("host", "ultravisor", "guest")]


def stream(system, choices, title="a test"):
    """Events of a group in which, one after the other, (actor, op, page) are taken to their ends, an entry a step."""
    state, entries = to_lists(system.state), made(system, title)
    for actor, op, page in choices:
        start = state.task[actor].pc
        for _ in range(200):
            pc = state.task[actor].pc
            chosen = (op, page) if RULES[pc].chooses else (NOTHING, 0)
            outcome = interpreted().step(state, actor, *chosen)
            assert outcome > 0, f"actor {actor} cannot step"
            role = "guest" if RULES[pc].actor in ("guest", "device") else "host"
            entries.append(Steps(role, [StepEvent(actor, *chosen, outcome)]))
            if state.task[actor].pc == start:
                break
    return [Event(f"{START_MS + 5 * at}-0", encode(entry)) for at, entry in enumerate(entries)]


def hang(system, *choices, rounds=60):
    """Events of a group in which (actor, op, page) are taken one after another, each as far as it goes: `rounds` steps
    at most, an entry a step. Of guest_memfd: steps that ask the hardware nothing."""
    state, entries, rules = to_lists(system.state), made(system), designs.of(system.state).rules
    for actor, op, page in choices:
        for n in range(rounds):
            pc, chosen = state.task[actor].pc, (NOTHING, 0) if n else (op, page)
            if pc not in rules or (n and rules[pc].chooses):
                break
            if not rules[pc].fair and n:
                break
            outcome = interpreted_of(state).step(state, actor, *chosen)
            if outcome < 0:
                break
            entries.append(Steps(ROLE_OF_ACTOR[rules[pc].actor], [StepEvent(actor, *chosen, outcome)]))
    return [Event(f"{START_MS + 5 * at}-0", encode(entry)) for at, entry in enumerate(entries)]


def conversion(system, *choices, rounds=60, title="a test"):
    """As hang(), of guest_memfd, with the answers of the hardware in each step that asks it."""
    design, answers = designs.of(system.state), []
    space = load.functions(lambda function: function, design=design)
    for name in {name for walls in WALLS[design.name].values() for name in walls}:
        space[name] = _noted(name, space[name], answers)
    rules, state, entries = load.rules(space), to_lists(system.state), made(system, title)
    for actor, op, page in choices:
        for n in range(rounds):
            pc, chosen = state.task[actor].pc, (NOTHING, 0) if n else (op, page)
            if pc not in design.rules or (n and (design.rules[pc].chooses or not design.rules[pc].fair)):
                break
            answers.clear()
            outcome = rules.step(state, actor, *chosen)
            if outcome < 0:
                break
            role = ROLE_OF_ACTOR[design.rules[pc].actor]
            entries.append(Steps(role, [StepEvent(actor, *chosen, outcome, [*answers])]))
    return [Event(f"{START_MS + 5 * at}-0", encode(entry)) for at, entry in enumerate(entries)]


def _noted(name, function, answers):
    """A function that enters its name and its answer in a list."""

    def called(s, *arguments):
        code = int(function(s, *arguments) or 0)
        answers.append((name, code))
        return code

    return called


def large(pages=10_000, touches=60):
    """A group of many pages in folios of 16, whose vCPU touches pages all over it."""
    system = build("per-page", [4] * (pages // 16), ["exported"], vcpu=[{}])
    chosen = np.random.default_rng(7).integers(0, pages, touches)
    return stream(system, [(0, 1, int(page)) for page in chosen])


def one_folio(order, touches=3):
    """A group of one folio of 2**order exported pages under whole-folio, whose vCPU touches pages all over it. A folio
    over order 9 is none that a scenario can have."""
    pages, whole = 1 << order, min(order, 9)
    system = build("whole-folio", [whole] * (pages >> whole), ["exported"], vcpu=[{}])
    system.state.mm["order"] = order
    chosen = np.random.default_rng(7).integers(0, pages, touches)
    return stream(system, [(0, 1, int(page)) for page in chosen])


def saved(streams):
    """The bytes of a saved stream, as `trace validate --save` writes it."""
    lines = [{"group": name, "id": e.id, "data": e.data} for name, events in streams.items() for e in events]
    return b"".join(msgspec.json.encode(line) + b"\n" for line in lines)
