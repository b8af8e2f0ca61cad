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

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ultrafolio.model.policies import find
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
PAGE_LISTS = ("touch", "share", "unshare", "read", "write", "page")
"""Fields of an actor that name pages."""
TOP = {
    "title": Field("text", ""), "memory": Field("table"), "features": Field("table", {}), "policy": Field("table", {}),
    "expect": Field("table", {}),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Scenario:
    """A scenario as read: `memory` and `features` filled in, `actors` as (kind, fields) in file order.

    tables   the file's own [policy.NAME] blocks, for policies.find
    expect   the [expect] tables, their fields unread
    """

    title: str
    memory: dict[str, Any]
    features: dict[str, Any]
    actors: list[tuple[int, dict[str, Any]]]
    tables: dict[str, Any] = field(default_factory=dict)
    expect: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class System:
    """A scenario under a policy: the initial state, and what each actor may choose, (op, page) in a fixed order."""

    state: State
    choices: list[list[tuple[int, int]]]


def read(path: Path) -> Scenario:
    """The scenario in a TOML file. InputError names the field, the value and what is allowed."""
    return parse(read_toml(path), str(path))


def parse(document: Mapping[str, Any], where: str) -> Scenario:
    """The scenario in a TOML document; `where` stands for it in errors. Tables keep the order of ACTORS."""
    then = "ultrafolio reference scenario"
    plain = {name: value for name, value in document.items() if name not in ACTORS}
    top = take(plain, where, TOP, then=then) if set(plain) <= set(TOP) else _unknown(plain, where)
    memory = take(top["memory"], f"{where}: [memory]", MEMORY, then=then)
    features = take(top["features"], f"{where}: [features]", FEATURES, then=then)
    actors = []
    for kind, name in enumerate(ACTOR_KINDS):
        tables = document.get(name, [])
        if not isinstance(tables, list):
            raise InputError(f"{where}: [{name}] is one table", value=tables, allowed=f"[[{name}]], with two brackets")
        for n, table in enumerate(tables):
            actors.append((kind, take(table, f"{where}: [[{name}]] number {n + 1}", ACTORS[name], then=then)))
    if not actors:
        raise InputError(f"{where}: nobody acts", allowed=", ".join(f"[[{name}]]" for name in ACTORS), then=then)
    made = Scenario(top["title"], memory, features, actors, top["policy"], top["expect"])
    for name in made.tables:
        find(name, made.tables)
    for name, entry in made.expect.items():
        if not isinstance(entry, dict):
            raise InputError(f"{where}: [expect] {name}", value=entry, allowed="a table, as [expect.POLICY]", then=then)
    _check(made, where)
    return made


def document(story: Scenario) -> dict[str, Any]:
    """The TOML document that `scenario.parse` reads as this scenario, without its policies and expectations."""
    made: dict[str, Any] = {"title": story.title, "features": dict(story.features)}
    made["memory"] = {name: value for name, value in story.memory.items() if value is not None}
    for kind, fields in story.actors:
        made.setdefault(ACTOR_KINDS[kind], []).append(dict(fields))
    return made


def _unknown(plain: Mapping[str, Any], where: str) -> dict[str, Any]:
    known = {**TOP, **{name: Field("table") for name in ACTORS}}
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
        if len(scenario.memory[name]) not in (1, pages):
            raise InputError(
                f"{where}: [memory] {name}",
                value=scenario.memory[name],
                allowed=f"one value, or one for each page, in all {pages}",
            )
    for word in scenario.memory["state"]:
        if word not in STATES:
            raise one_of(f"{where}: [memory] state", word, STATES, then="ultrafolio reference scenario")
    _order(scenario, where)
    used = [*scenario.memory["refuses"]]
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
    for t, (kind, _) in enumerate(scenario.actors):
        word = ACTOR_KINDS[kind]
        names.setdefault(word, t)
        names[f"{word} {sum(k == kind for k, _ in scenario.actors[:t])}"] = t
    made = []
    for t, (kind, actor) in enumerate(scenario.actors):
        name = actor["after"]
        if name and names.get(name, t) == t:
            raise InputError(
                f"{where}: [[{ACTOR_KINDS[kind]}]] after",
                value=name,
                allowed="another actor: " + ", ".join(n for n, other in names.items() if other != t),
                then="ultrafolio reference scenario",
            )
        made.append(names[name] + 1 if name else 0)
    for t in range(len(made)):
        chain = [t]
        while made[chain[-1]] and len(chain) <= len(made):
            chain.append(made[chain[-1]] - 1)
        if len(chain) > len(made):
            raise InputError(
                f"{where}: after",
                value=scenario.actors[t][1]["after"],
                allowed="an order without a circle",
                cause="each of these actors waits for another of them",
            )
    if max(made, default=0) > np.iinfo(np.uint8).max:
        raise InputError(f"{where}: after", value=max(made) - 1, allowed="one of the first 255 actors")
    return made


def system(scenario: Scenario, policy: Policy) -> System:
    """The scenario's initial state under `policy`, and its actors' choices. Every page that starts secure or shared
    has its arch bit set, as its import left it; under `large = split` its folio is split already, and under
    `large = refuse` or `never` no page of a large folio was ever imported: it starts NON_SECURE, whatever the file
    says.
    """
    memory = scenario.memory
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
    after = _order(scenario, scenario.title)
    state.who["after"] = after
    state.who["awaited"][[number - 1 for number in after if number]] = 1
    return System(state, choices)


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
