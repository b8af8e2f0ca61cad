"""Random walks: two engines agree to the byte after every step, and no walk leaves the state inconsistent."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ultrafolio.conformance.bench import Engine, build, having, word
from ultrafolio.conformance.case import case
from ultrafolio.engine.interp import to_lists
from ultrafolio.model import properties
from ultrafolio.model.layout import MAPPING, SECURE, TRACK_FOLIO, State, pack
from ultrafolio.model.rule import RULES
from ultrafolio.model.scenario import System

SAFE = ("per-page", "split-writeback", "import-lock", "linux-6.18", "linux-7.1", "linux-7.2")
"""Presets under which no interleaving has I/O on a secure page or a secure page without its bit."""
KEPT_BY_NONE = {10, 11}
"""Properties that no preset keeps: a guest that shares a page beside a pin, or reclaim of a file's page, ends a pin."""

_ASKS = {"share": [0, 1], "unshare": [0, 1], "starts": 200}
SCENARIOS: dict[str, dict[str, Any]] = {
    "ring": {
        "folios": [1], "state": ["shared", "secure"],
        "vcpu": [{"touch": [0, 1], "unshare": [0], "share": [0], "starts": 90}], "virtio": [{"page": 0, "starts": 90}],
        "reboot": [{"starts": 90}], "writeback": [{"starts": 90}],
    },
    "busy-host": {
        "folios": [2, 0], "state": ["secure", "shared", "exported", "non_secure", "shared"],
        "vcpu": [{"touch": [0, 1, 2, 3, 4], **_ASKS}, {"cpu": 1}], "disk": [{"page": 1, "pages": 2, "starts": 200}],
        "writeback": [{"starts": 90}], "reclaim": [{"starts": 90}], "lru": [{"starts": 90, "cpu": 1}],
        "speculative": [{"starts": 200}],
    },
    "dirty-iomap": {
        "folios": [2], "state": ["non_secure"], "memory": {"backing": "iomap"},
        "vcpu": [{}, {"touch": [1, 2], **_ASKS}], "disk": [{"page": 3, "starts": 200}],
        "writeback": [{"starts": 90}], "reboot": [{"starts": 9}],
    },
    "two-guests": {
        "folios": [1, 1], "state": ["secure", "exported", "exported", "shared"], "memory": {"owner": [0, 0, 1, 1]},
        "vcpu": [{"touch": [0, 1], **_ASKS}, {"guest": 1, "touch": [2, 3], "cpu": 1, "unshare": [3], "starts": 90}],
        "disk": [{"page": 0, "pages": 2, "starts": 90}, {"guest": 1, "page": 3, "starts": 90}],
        "reclaim": [{"starts": 200}], "reboot": [{"guest": 1, "starts": 9}],
    },
    "two-guests-misc": {
        "folios": [1], "state": ["shared", "exported"], "features": {"ownership_transfer": True},
        "vcpu": [{"share": [0, 1], "touch": [0, 1], "starts": 90}, {"guest": 1, "touch": [0, 1]}],
        "virtio": [{"page": 0}], "reboot": [{"starts": 90}, {"guest": 1, "starts": 90}],
    },
    "faults": {
        "folios": [2], "state": ["shared", "secure", "secure", "secure"], "memory": {"refuses": [2]},
        "vcpu": [{"touch": [0, 1, 3], **_ASKS}], "disk": [{"page": 1, "pages": 2, "starts": 90}],
        "writeback": [{"starts": 90}], "mapping": [{"starts": 200}], "tamper": [{"starts": 3}],
    },
    "accesses": {
        "folios": [1, 0], "state": ["secure", "shared", "exported"],
        "vcpu": [{"touch": [0, 1, 2], **_ASKS}], "access": [{"read": [0, 1], "write": [0, 2], "starts": 200}],
        "pin": [{"page": 1, "starts": 90}], "interrupt": [{"page": 1, "starts": 200}], "reboot": [{"starts": 90}],
    },
    "in-turn": {
        "folios": [0, 0], "state": ["exported", "shared"], "memory": {"backing": "shmem"},
        "vcpu": [{}, {"cpu": 1, **_ASKS}], "disk": [{"page": 0, "completes": False}, {"page": 1, "starts": 90}],
        "reclaim": [{"starts": 200, "after": "vcpu 0"}], "writeback": [{"page": [1], "starts": 9, "after": "reclaim"}],
        "lru": [{"starts": 90, "after": "vcpu 1"}],
    },
}  # fmt: skip
"""Systems for walks. Every kind of actor is in one of them."""


def system_of(name: str, policy: Any) -> System:
    """Returns the system of an entry of SCENARIOS under a policy."""
    return build(policy, **SCENARIOS[name])


@dataclass(frozen=True, slots=True)
class Step:
    """A step of a walk: the thread, its choice, the rule it was at, and the outcome."""

    actor: int
    op: int
    page: int
    pc: int
    outcome: int

    def __str__(self) -> str:
        rule = RULES[self.pc].name if self.pc in RULES else "dead"
        return f"actor {self.actor} {rule}({self.op}, {self.page}): {word(self.outcome)}"


def walk(engine: Engine, system: System, seed: int, steps: int) -> Iterator[Step]:
    """Load the system and take `steps` random steps, of any thread with any of its choices; yield each after it.

    Equal seeds give equal walks on engines that agree. What the caller does between steps is its own affair.
    """
    # Threads run in bursts: if every step changed the thread, no import would end while another's I/O is in flight.
    engine.load(system.state)
    generator = random.Random(seed)
    actors = range(len(system.choices))
    actor, burst = 0, 0
    for _ in range(steps):
        if not burst:
            actor, burst = generator.choice(actors), generator.randint(1, 16)
        op, page = generator.choice(system.choices[actor])
        pc = int(engine.state().task[actor]["pc"])
        outcome = engine.step(actor, op, page)
        burst = burst - 1 if outcome > 0 else 0
        yield Step(actor, op, page, pc, outcome)


def agree(left: Engine, right: Engine, system: System, seed: int, steps: int) -> set[int]:
    """Walk on `left` and repeat each step on `right`: equal outcomes and equal bytes. The rules that took a step.

    AssertionError names the first step that differs.
    """
    right.load(system.state)
    ran = set()
    for number, step in enumerate(walk(left, system, seed, steps)):
        outcome = right.step(step.actor, step.op, step.page)
        if outcome != step.outcome:
            raise AssertionError(f"seed {seed}, step {number}, {step}: {right.name} says {word(outcome)}")
        if pack(left.state()) != pack(right.state()):
            raise AssertionError(f"seed {seed}, step {number}, {step}: {left.name} and {right.name} differ in bytes")
        if outcome > 0:
            ran.add(step.pc)
    return ran


_READ = (
    "order", "pins", "longs", "spec", "batch", "refs", "marked", "arch", "frozen", "locked", "writeback", "granted",
)  # fmt: skip
"""Fields of a page that `inconsistency` reads."""


def inconsistency(state: State) -> str:
    """Returns the first contradiction within a state, or "". Independent of the policy."""
    mm, pages = {name: state.mm[name].tolist() for name in _READ}, len(state.mm)
    at = 0
    while at < pages:
        here = slice(at, at + (1 << mm["order"][at]))
        of = {name: values[here] for name, values in mm.items()}
        if len(set(of["order"])) > 1:
            return f"folio at {at}: orders {of['order']}"
        held = sum(of["pins"]) + sum(of["longs"]) + sum(of["spec"]) + sum(batch > 0 for batch in of["batch"])
        if held != of["refs"][0]:
            return f"folio at {at}: counts {of['refs'][0]} extra references, its pages have {held}"
        if of["marked"][0] != sum(of["arch"]):
            return f"folio at {at}: counts {of['marked'][0]} arch bits, its pages have {sum(of['arch'])}"
        if state.cfg[0]["track"] == TRACK_FOLIO and any(of["arch"][1:]):
            return f"folio at {at}: arch bits {of['arch']} where one stands for all"
        if any(of["frozen"]) and not of["locked"][0]:
            return f"folio at {at}: frozen but not locked"
        if any(any(of[name][1:]) for name in ("locked", "writeback", "refs")):
            return f"folio at {at}: lock, writeback or count on a tail page"
        at += len(of["order"])
    for name in ("pins", "longs"):
        if min(mm[name]) < 0:
            return f"{name} below zero"
    held = [short + long for short, long in zip(mm["pins"], mm["longs"], strict=True)]
    if any(not 0 <= granted <= most for granted, most in zip(mm["granted"], held, strict=True)):
        return f"pins granted {mm['granted']} of {held}"
    if (state.io["flying"] < 0).any():
        return "I/O in flight below zero"
    return _mutexes(state)


def _mutexes(state: State) -> str:
    """Returns a contradiction about import mutexes, or ""."""
    for vm, record in enumerate(state.vm):
        holders = [t for t, task in enumerate(state.task) if task["mutex"] and state.who[t]["vm"] == vm]
        if holders != ([int(record["mutex"]) - 1] if record["mutex"] else []):
            return f"import mutex of machine {vm} says {record['mutex']}, threads {holders} hold it"
    return ""


def check_walk(engine: Engine, system: System, seed: int, steps: int, *, safe: bool) -> None:
    """A walk on which the state stays consistent and a step that is not enabled changes nothing.

    If `safe`, also every step keeps all properties but KEPT_BY_NONE, and 1 and 2 hold on every page after it. Excused
    are a count touched while frozen where a folio is mapped twice, and late failures where the ultravisor refuses a
    page.
    AssertionError names the step.
    """
    before, lists = pack(system.state), to_lists(system.state)
    excused = {0} | KEPT_BY_NONE | ({5} if (system.state.who["kind"] == MAPPING).any() else set())
    excused |= {8} if system.state.uv["refuses"].any() else set()
    for number, step in enumerate(walk(engine, system, seed, steps)):
        state = engine.state()
        after, where = pack(state), f"{engine.name}, seed {seed}, step {number}, {step}"
        if step.outcome < 0:
            if after != before:
                raise AssertionError(f"{where}: changed the state")
            continue
        before = after
        wrong = inconsistency(state)
        if wrong:
            raise AssertionError(f"{where}: {wrong}")
        if safe:
            about = properties.focus(lists, step.actor, step.page)
            was, lists = lists.uv[about].state, to_lists(state)
            broken = properties.everywhere(lists)
            if step.outcome > 0 and not broken:
                broken = properties.broken(lists, step.actor, step.pc, about, was, step.outcome)
            if broken not in excused:
                raise AssertionError(f"{where}: broke property {broken}")


def _walk_all(engine: Engine, checks: Mapping[str, bool], seeds: int, steps: int) -> None:
    """Check random walks of every system, under each preset; `checks` says which of them must stay safe."""
    for preset, safe in checks.items():
        for name in SCENARIOS:
            for seed in range(seeds):
                check_walk(engine, system_of(name, preset), seed, steps, safe=safe)


@case(58)
def walks_keep_the_invariant(engine: Engine) -> None:
    """Random walks: no I/O on a secure page, none without its bit or made one under a pin, no frozen count used."""
    _walk_all(engine, dict.fromkeys(SAFE, True), seeds=2, steps=250)


@case(45)
def no_bit_on_a_large_folio(engine: Engine) -> None:
    """Where imports split, a large folio never has the bit and is never secure: the kernel's refusal cannot come up."""
    for preset in having(large="split"):
        for name in SCENARIOS:
            for step in walk(engine, system_of(name, preset), 1, 300):
                state = engine.state()
                large = state.mm["order"] > 0
                if (state.mm["arch"][large] > 0).any() or (state.uv["state"][large] == SECURE).any():
                    raise AssertionError(f"{engine.name}, {preset}, {name}, {step}: a large folio is marked or secure")
