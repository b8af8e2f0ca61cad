"""The scenario file: a small closed system, written down page by page, that every engine can run.

    title = "a virtio ring in a two-page folio"
    [memory]
    folios = [1]                     # order of each folio in turn; pages are numbered through
    state = ["shared", "secure"]     # per page, or one word for all
    [[virtio]]
    page = 0
    [[vcpu]]
    touch = [1]

Header comments tell the story. [expect] tables belong to the checker and are handed through as they are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ultrafolio.model.designs import DESIGNS, GUEST_MEMFD, S390
from ultrafolio.model.guest_memfd import scenario as memfd
from ultrafolio.model.guest_memfd.policy import MemfdPolicy
from ultrafolio.model.policies import AnyPolicy, design_of, find_any
from ultrafolio.model.policy import Policy

from ..errors import InputError, one_of
from ..fields import Field, read_toml, take
from .layout import *

EXPORTED_SHARED = "exported_shared"
STATES = (*(name.lower() for name in PAGE_STATES), EXPORTED_SHARED)
"""`exported_shared`: exported while its guest shared it."""
_PAGES = Field("ints", [], 0, 4095)
_STARTS = Field("int", 1, 0, ENDLESS)
_GUEST = Field("int", 0, 0, 63)
_CPU = Field("int", 0, 0, 63)
_AFTER = Field("text", "")
_COMPLETES = Field("bool", True)
_DEVICE = {
    "guest": _GUEST,
    "page": Field("int", ..., 0, 4095),
    "pages": Field("int", 1, 1, 512),
    "starts": _STARTS,
    "after": _AFTER,
}

MEMORY = {
    "folios": Field("ints", ..., 0, 9),
    "backing": Field("choice", "anon", choices=BACKINGS),
    "state": Field("texts", ["secure"]),
    "owner": Field("ints", [0], 0, 63),
    "dirty": Field("bool", None),
    "writable": Field("bool", True),
    "refuses": _PAGES,
}
FEATURES = {"one_address_space": Field("bool", True), "ownership_transfer": Field("bool", False)}
ACTORS: dict[str, dict[str, Field]] = {
    "vcpu": {"guest": _GUEST, "cpu": _CPU, "touch": _PAGES, "share": _PAGES, "unshare": _PAGES, "starts": _STARTS,
             "after": _AFTER},
    "disk": {**_DEVICE, "completes": _COMPLETES},
    "virtio": _DEVICE,
    "writeback": {"page": _PAGES, "starts": _STARTS, "after": _AFTER, "completes": _COMPLETES},
    "reclaim": {"page": _PAGES, "starts": _STARTS, "after": _AFTER},
    "lru": {"page": _PAGES, "starts": _STARTS, "cpu": _CPU, "after": _AFTER},
    "mapping": {"page": _PAGES, "starts": _STARTS, "after": _AFTER},
    "speculative": {"page": _PAGES, "starts": _STARTS, "after": _AFTER},
    "reboot": {"guest": _GUEST, "shutdown": Field("bool", False), "starts": _STARTS, "after": _AFTER},
    "tamper": {"page": _PAGES, "starts": _STARTS, "after": _AFTER},
    "pin": _DEVICE,
    "interrupt": {"guest": _GUEST, "page": Field("int", ..., 0, 4095), "starts": _STARTS, "after": _AFTER},
    "access": {"read": _PAGES, "write": _PAGES, "starts": _STARTS, "after": _AFTER},
}  # fmt: skip
"""A table per actor; words.py says what each table and field means. `after`: the number among those of its kind counts
from 0."""


@dataclass(frozen=True, slots=True)
class Tables:
    """What a scenario file of a design may have: fields of [memory] and [features], a table per actor, page states."""

    memory: dict[str, Field]
    features: dict[str, Field]
    actors: dict[str, dict[str, Field]]
    states: tuple[str, ...]


TABLES = {
    S390.name: Tables(MEMORY, FEATURES, ACTORS, STATES),
    GUEST_MEMFD.name: Tables(memfd.MEMORY, {}, memfd.ACTORS, memfd.STATES),
}
"""Name of a design -> its tables."""
EVERY_MACHINE = "all"
"""What --machine says for each machine of a design."""
EVERY_ACTOR = {**ACTORS, **memfd.ACTORS}
"""The table of an actor of any design."""
MOST_ACTORS = 4096
"""Actors of a scenario. Each engine has a bound of its own below this."""
PAGE_LISTS = ("touch", "share", "unshare", "read", "write", "page")
"""Fields of an actor that name pages."""
MEMORY_LISTS = ("refuses", "never")
"""Fields of [memory] that name pages."""
TOP = {
    "title": Field("text", ""), "design": Field("choice", S390.name, choices=tuple(DESIGNS)),
    "machine": Field("text", ""),
    "memory": Field("table"), "features": Field("table", {}), "policy": Field("table", {}),
    "expect": Field("table", {}),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Scenario:
    """A scenario as read: `memory` and `features` filled in, `actors` as (kind, fields) in file order.

    tables   the file's own [policy.NAME] blocks, for policies.find
    expect   the [expect] tables, their fields unread
    design, machine  names of a design and of what enforces it
    """

    title: str
    memory: dict[str, Any]
    features: dict[str, Any]
    actors: list[tuple[int, dict[str, Any]]]
    tables: dict[str, Any] = field(default_factory=dict)
    expect: dict[str, Any] = field(default_factory=dict)
    design: str = S390.name
    machine: str = S390.machines[0]


@dataclass(frozen=True, slots=True)
class System:
    """A scenario under a policy: the initial state, and what each actor may choose, (op, page) in a fixed order."""

    state: State
    choices: list[list[tuple[int, int]]]


def read(path: Path) -> Scenario:
    """The scenario in a TOML file. InputError names the field, the value and what is allowed."""
    return parse(read_toml(path), str(path))


def parse(document: Mapping[str, Any], where: str) -> Scenario:
    """The scenario in a TOML document; `where` stands for it in errors. Tables keep the order of Design.kinds."""
    then = "ultrafolio reference scenario"
    plain = {name: value for name, value in document.items() if name not in EVERY_ACTOR}
    top = take(plain, where, TOP, then=then) if set(plain) <= set(TOP) else _unknown(plain, where)
    design = DESIGNS[top["design"]]
    known = TABLES[design.name]
    machine = top["machine"] or design.machines[0]
    if machine not in design.machines:
        raise one_of(f"{where}: machine", machine, design.machines, then="docs/model.md, section 9")
    _bounded(document, where)
    memory = take(top["memory"], f"{where}: [memory]", known.memory, then=then)
    features = take(top["features"], f"{where}: [features]", known.features, then=then)
    actors = []
    for kind, name in enumerate(design.kinds):
        tables = document.get(name, [])
        if not isinstance(tables, list):
            raise InputError(f"{where}: [{name}] is one table", value=tables, allowed=f"[[{name}]], with two brackets")
        for n, table in enumerate(tables):
            actors.append((kind, take(table, f"{where}: [[{name}]] number {n + 1}", known.actors[name], then=then)))
    strange = [name for name in document if name in EVERY_ACTOR and name not in known.actors]
    if strange:
        raise one_of(f"{where}: no actor of the design {design.name}", strange[0], known.actors, then=then)
    if not actors:
        raise InputError(f"{where}: nobody acts", allowed=", ".join(f"[[{name}]]" for name in known.actors), then=then)
    made = Scenario(top["title"], memory, features, actors, top["policy"], top["expect"], design.name, machine)
    for name in made.tables:
        fits_design(made, find_any(name, made.tables), where)
    for name, entry in made.expect.items():
        if not isinstance(entry, dict):
            raise InputError(f"{where}: [expect] {name}", value=entry, allowed="a table, as [expect.POLICY]", then=then)
    _check(made, where)
    return made


def _bounded(document: Mapping[str, Any], where: str) -> None:
    """InputError for more actors than MOST_ACTORS, before one of them is read."""
    lists = {name: document[name] for name in EVERY_ACTOR if isinstance(document.get(name), list)}
    if sum(map(len, lists.values())) > MOST_ACTORS:
        longest = max(lists, key=lambda name: len(lists[name]))
        raise InputError(
            f"{where}: too many actors",
            value=sum(map(len, lists.values())),
            allowed=f"at most {MOST_ACTORS:,}",
            cause=f"{len(lists[longest]):,} of them are tables [[{longest}]]",
            then="fewer actors: ultrafolio check --vary vcpus=1..3 says from which number on a scenario fails",
        )


def fits_design(scenario: Scenario, policy: AnyPolicy, where: str) -> None:
    """InputError where a policy is one of another design than the scenario's."""
    if design_of(policy) != scenario.design:
        raise InputError(
            f"{where}: a policy of another design",
            value=design_of(policy),
            allowed=f"a policy of the design {scenario.design}",
            cause="the design of a scenario, `s390` where it says none, decides which choices there are",
            then="ultrafolio policies",
        )


def on_machine(story: Scenario, machine: str, where: str) -> Scenario:
    """Returns the scenario on another machine, with what [expect] says of it: entries POLICY@MACHINE. InputError for a
    machine that does not enforce its design."""
    machines = DESIGNS[story.design].machines
    if machine not in machines:
        raise one_of(f"{where}: no machine of the design {story.design}", machine, machines, then="ultrafolio policies")
    if machine == story.machine:
        return story
    of_it = {name.partition("@")[0]: entry for name, entry in story.expect.items() if name.endswith(f"@{machine}")}
    return replace(story, machine=machine, expect=of_it)


def several_machines(story: Scenario, machine: str, where: str) -> None:
    """InputError where another machine is asked for, and the scenario's design has one only."""
    if story.design == S390.name:
        raise InputError(f"{where}: --machine, and a scenario of the design {S390.name}", value=machine,
                         allowed="a scenario of the design guest_memfd", cause="s390 has one machine",
                         then="ultrafolio check --all --design guest_memfd --machine all")  # fmt: skip


def only_s390(story: Scenario, where: str) -> None:
    """InputError where a scenario is of another design than s390, for an engine that runs no other."""
    if story.design != S390.name:
        raise InputError(
            f"{where}: a design that this does not support",
            value=story.design,
            allowed=f"a scenario of the design {S390.name}",
            then=f"ultrafolio check {where}",
        )


def document(story: Scenario) -> dict[str, Any]:
    """The TOML document that `scenario.parse` reads as this scenario, without its policies and expectations."""
    made: dict[str, Any] = {"title": story.title, "features": dict(story.features)}
    if story.design != S390.name:
        made |= {"design": story.design, "machine": story.machine}
    made["memory"] = {name: value for name, value in story.memory.items() if value is not None}
    for kind, fields in story.actors:
        made.setdefault(DESIGNS[story.design].kinds[kind], []).append(dict(fields))
    return made


def _unknown(plain: Mapping[str, Any], where: str) -> dict[str, Any]:
    known = {**TOP, **{name: Field("table") for name in EVERY_ACTOR}}
    return take(plain, where, known, then="ultrafolio reference scenario")


def _check(scenario: Scenario, where: str) -> None:
    """Page numbers, states and owners that fit together. InputError otherwise."""
    orders, pages = scenario.memory["folios"], sum(1 << order for order in scenario.memory["folios"])
    at = 0
    for order in orders:
        if at % (1 << order):
            raise InputError(
                f"{where}: [memory] folios",
                value=orders,
                allowed="naturally aligned folios",
                cause=f"order {order} would start at page {at}; put larger ones first",
            )
        at += 1 << order
    for name in ("state", "owner"):
        if len(scenario.memory.get(name, [0])) not in (1, pages):
            raise InputError(
                f"{where}: [memory] {name}",
                value=scenario.memory[name],
                allowed=f"one value, or one for each page, in all {pages}",
            )
    states = TABLES[scenario.design].states
    for word in scenario.memory["state"]:
        if word not in states:
            raise one_of(f"{where}: [memory] state", word, states, then="ultrafolio reference scenario")
    _order(scenario, where)
    used = [page for name in MEMORY_LISTS for page in scenario.memory.get(name, [])]
    for _, actor in scenario.actors:
        for name in PAGE_LISTS:
            value = actor.get(name, [])
            used += value if isinstance(value, list) else [value + actor.get("pages", 1) - 1]
    wrong = [page for page in used if page >= pages]
    if wrong:
        raise InputError(
            f"{where}: page {wrong[0]} does not exist",
            value=wrong[0],
            allowed=f"0 to {pages - 1}",
            cause="[memory] folios gives the number of pages",
        )


def _order(scenario: Scenario, where: str) -> list[int]:
    """Returns per actor the number, plus 1, of its predecessor (`after`); 0 for none. Raises InputError if the
    predecessor does not exist, or for a cycle."""
    names: dict[str, int] = {}
    kinds = DESIGNS[scenario.design].kinds
    seen: Counter[str] = Counter()
    for t, (kind, _) in enumerate(scenario.actors):
        word = kinds[kind]
        names.setdefault(word, t)
        names[f"{word} {seen[word]}"] = t
        seen[word] += 1
    made = []
    for t, (kind, actor) in enumerate(scenario.actors):
        name = actor["after"]
        if name and names.get(name, t) == t:
            raise InputError(
                f"{where}: [[{kinds[kind]}]] after",
                value=name,
                allowed="another actor: " + ", ".join(n for n, other in names.items() if other != t),
                then="ultrafolio reference scenario",
            )
        made.append(names[name] + 1 if name else 0)
    ends: set[int] = set()
    for t in range(len(made)):
        chain, at = {t}, t
        while made[at] and at not in ends and (at := made[at] - 1) not in chain:
            chain.add(at)
        if not made[at] or at in ends:
            ends |= chain
        else:
            raise InputError(
                f"{where}: after",
                value=scenario.actors[t][1]["after"],
                allowed="an order without a circle",
                cause="each of these actors waits for another of them",
            )
    if max(made, default=0) > np.iinfo(np.uint8).max:
        raise InputError(f"{where}: after", value=max(made) - 1, allowed="one of the first 255 actors")
    return made


def system(scenario: Scenario, policy: AnyPolicy) -> System:
    """The scenario's initial state under `policy`, and its actors' choices. InputError for a policy of another design.

    Under s390 every page that starts secure or shared
    has its arch bit set, as its import left it; under `large = split` its folio is split already, and under
    `large = refuse` or `never` no page of a large folio was ever imported: it starts NON_SECURE, whatever the file
    says.
    """
    fits_design(scenario, policy, scenario.title)
    memory = scenario.memory
    if isinstance(policy, MemfdPolicy):
        if not policy.fits(scenario.machine):
            raise InputError(
                f"{scenario.title}: a policy of the design that this machine does not support",
                value=scenario.machine,
                allowed="pkvm",
                cause="the policy says convert = by-guest: the guest converts by itself",
                then='--machine pkvm, or machine = "pkvm" in the scenario',
            )
        made, choices = memfd.system(
            memory, scenario.actors, policy, DESIGNS[scenario.design].machines.index(scenario.machine), scenario.title
        )
        _enter_order(made, scenario)
        return System(made, choices)
    pages = sum(1 << order for order in memory["folios"])
    guests = 1 + max([actor.get("guest", 0) for _, actor in scenario.actors] + memory["owner"])
    state = blank(pages, len(scenario.actors), guests)
    for name, code in policy.codes().items():
        state.cfg[name] = code
    state.cfg["vms"] = guests if scenario.features["one_address_space"] else 1
    state.cfg["misc"] = scenario.features["ownership_transfer"]
    _memory(state, memory, policy)
    state.cfg["stuck"] = not all(actor.get("completes", True) for _, actor in scenario.actors)
    choices = [_actor(state, t, kind, actor, pages) for t, (kind, actor) in enumerate(scenario.actors)]
    for (kind, actor), chosen in zip(scenario.actors, choices, strict=True):
        if kind == WRITEBACK and actor["starts"] == ENDLESS:
            state.pt["cleaned"][[page for _, page in chosen]] = 1
    _enter_order(state, scenario)
    return System(state, choices)


def _enter_order(state: State, scenario: Scenario) -> None:
    """Enter each actor's predecessor."""
    after = _order(scenario, scenario.title)
    state.who["after"] = after
    state.who["awaited"][[number - 1 for number in after if number]] = 1


def _memory(state: State, memory: dict[str, Any], policy: Policy) -> None:
    """Set the state of pages and folios from the table [memory]."""
    pages = len(state.mm)
    words, owners = memory["state"], memory["owner"]
    words = words if len(words) == pages else words * pages
    state.uv["state"] = [EXPORTED if word == EXPORTED_SHARED else STATES.index(word) for word in words]
    state.uv["shared"] = [word == EXPORTED_SHARED for word in words]
    state.uv["owner"] = owners if len(owners) == pages else owners * pages
    state.uv["owner"][state.uv["state"] == NON_SECURE] = 0
    state.uv["refuses"][memory["refuses"]] = 1
    state.mm["backing"] = BACKINGS.index(memory["backing"])
    state.mm["writable"] = memory["writable"]
    dirty = memory["dirty"]
    state.mm["dirty"] = memory["backing"] == "iomap" and memory["writable"] if dirty is None else dirty
    at = 0
    for order in memory["folios"]:
        _folio(state, at, order, policy)
        at += 1 << order


def _folio(state: State, at: int, order: int, policy: Policy) -> None:
    """Order and arch bits of the folio that starts at page `at`."""
    every = slice(at, at + (1 << order))
    if policy.large in ("refuse", "never") and order:
        state.uv["state"][every] = NON_SECURE
        state.uv["owner"][every] = 0
    marked = (state.uv["state"][every] == SECURE) | (state.uv["state"][every] == SHARED)
    split = policy.large == "split" and (state.uv["state"][every] != NON_SECURE).any()
    state.mm["order"][every] = 0 if split else order
    state.mm["arch"][every] = marked
    state.mm["marked"][at] = marked.sum()
    if split:
        state.mm["marked"][every] = marked
    elif policy.track == "folio":
        state.mm["arch"][every] = 0
        state.mm["arch"][at] = state.mm["marked"][at] = marked.any()


def _actor(state: State, t: int, kind: int, actor: dict[str, Any], pages: int) -> list[tuple[int, int]]:
    """Enter one actor; return its choices."""
    state.who[t] = (kind, actor.get("guest", 0), actor.get("cpu", 0), 0, 0, not actor.get("completes", True))
    state.task["pc"][t] = IDLE_PC[kind]
    state.actor["budget"][t] = actor["starts"]
    state.actor["n"][t] = actor.get("pages", 1)
    every = list(range(pages))
    if kind == VCPU:
        named = any(actor[word] for word in ("touch", "share", "unshare"))
        touch = actor["touch"] if named else every
        ops = [(TOUCH, touch), (SHARE, actor["share"]), (UNSHARE, actor["unshare"])]
        return [(op, page) for op, chosen in ops for page in chosen]
    if kind == ACCESS:
        ops = [(READ, actor["read"] if actor["read"] or actor["write"] else every), (WRITE, actor["write"])]
        return [(op, page) for op, chosen in ops for page in chosen]
    if kind == REBOOT:
        return [(NOTHING if actor["shutdown"] else TOUCH, 0)]
    page = actor["page"]
    return [(TOUCH, p) for p in (([page] if isinstance(page, int) else page) or every)]
