"""Build the initial state and world of a configuration of guest_memfd (memfd_config.resolve) for the event loop.

A guest runs a recorded program; a vCPU now and then turns a run of pages of its pool shared, or private, or touches
one. Nothing is allocated or mapped at the start, and all is private. Holders use the pool's pages from the host's side.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ultrafolio.model.guest_memfd import machines
from ultrafolio.model.guest_memfd.layout import *
from ultrafolio.model.guest_memfd.policy import MemfdPolicy
from ultrafolio.sim.records import CHOICE, CPUS, LISTED, RECORDED, UNIFORM, World

from .build import Array, Layout, assemble, request_sequence, start, touch_sequence
from .costs import PRICES

KIND_OF = {"user": USER, "mlock": USER, "gup": DISK, "vfio": PIN, "vmsplice": SPLICE, "walker": SPECULATIVE, "lru": LRU}
"""Holder -> the kind of actor that it is."""
BY_SLOT = (DISK, PIN)
"""Kinds of holders that use a whole run of pages of the pool; the others use one page."""


def build(config: dict[str, Any], base: Path, *, trace: int = 0) -> tuple[MemfdState, World]:
    """The initial state and world of a configuration. Deterministic in it. `base`: the folder that recordings are
    relative to. `trace`: the number of events that the trace buffer holds, 0 for none."""
    load = config["workload"]
    place, *streams = np.random.SeedSequence(config["seed"]).spawn(2)
    layout = Layout({**config, "workload": _memory(load)}, base, np.random.default_rng(place))
    kinds = [VCPU] * load["vcpus"]
    if config["holder"] != "none":
        kinds += [KIND_OF[config["holder"]]] * load["holders"]
    state = _state(config, layout, kinds)
    world = assemble(
        state,
        home=np.zeros(layout.pages, np.uint8),
        costs=config["costs"],
        duration_us=config["duration_us"],
        check=config["check"],
        rng=np.random.default_rng(streams[0]),
        trace=trace,
        touches=touch_sequence(load, base, layout),
        requests=request_sequence(load["requests"], load["request_pages"], base),
        choices=_choices(layout, load["request_pages"]),
    )
    world.price[PRICES.index("tlb_entries")] = load["tlb_entries"]
    world = world._replace(tlb=np.zeros(max(1, load["vcpus"] * load["tlb_entries"]), np.int64))
    _loads(config, layout, kinds, state, world)
    start(world, [int(a["think"]) * int(a["rng0"]) >> 32 for a in world.load])
    return state, world


def _memory(load: dict[str, Any]) -> dict[str, Any]:
    """The workload as Layout reads it: the pool is its slots of shared pages."""
    return {**{name: load[name] for name in ("pages", "pool_pages", "touches")}, "orders": "", "ring_pages": 1,
            "io_pages": load["request_pages"], "disks": 1, "rings": 0}  # fmt: skip


def _state(config: dict[str, Any], layout: Layout, kinds: list[int]) -> MemfdState:
    """Returns the initial state: policy, machine, folios and actors."""
    load, policy = config["workload"], MemfdPolicy(**config["policy"])
    state = new_state(layout.pages, len(kinds), 1)
    for name, value in policy.codes().items():
        state.cfg[name] = value
    state.cfg["machine"] = machines.NAMES.index(config["machine"])
    block = config["order"] if policy.large != "none" else 0
    state.cfg["block"] = state.mm["order"] = block
    state.mm["private"] = policy.convert != "by-guest"
    state.mm["stale"] = NOT_WRITTEN if block else UP_TO_DATE
    for t, kind in enumerate(kinds):
        # a holder is on a CPU of its own, and of another process than the next
        state.who["kind"][t], state.who["cpu"][t] = kind, t % CPUS
        state.who["process"][t] = max(0, t - load["vcpus"]) % (8 * MM["users"].itemsize)
        state.task["pc"][t] = IDLE_PC[kind]
        state.actor["n"][t] = load["request_pages"] if kind == VCPU or kind in BY_SLOT else 1
    state.who["locks"] = (state.who["kind"] == USER) & (config["holder"] == "mlock")
    state.actor["budget"] = ENDLESS
    return state


def _choices(layout: Layout, request: int) -> Array:
    """The first page of each run of the pool, then every page of the pool."""
    pages = (np.asarray(layout.disks)[:, None] + np.arange(request)[None, :]).ravel()
    made = np.zeros(len(layout.disks) + len(pages), CHOICE)
    made["op"], made["page"] = TOUCH, np.concatenate([layout.disks, pages])
    return made


def _loads(config: dict[str, Any], layout: Layout, kinds: list[int], state: MemfdState, world: World) -> None:
    """Set the LOAD of each actor: its pages, its mean pause, its position in the recordings."""
    load, slots = config["workload"], len(layout.disks)
    for t, kind in enumerate(kinds):
        a = world.load[t]
        if kind == VCPU:
            recorded = bool(load["touches"])
            a["mode"], a["first"] = RECORDED if recorded else UNIFORM, 0
            a["count"] = len(world.touches) if recorded else len(layout.touched)
            a["pos"] = t * len(world.touches) // load["vcpus"] if recorded else 0
            a["think"], a["latency"] = load["touch_ns"], config["pause_us"] * 1000
            a["share_rate"] = round(load["convert_rate"] * 65535)
            a["share_first"], a["share_count"], a["listed"] = 0, slots, 1
            continue
        a["mode"], a["think"] = LISTED, load["holder_us"] * 1000
        a["first"], a["count"] = (0, slots) if kind in BY_SLOT else (slots, len(world.choices) - slots)
        if kind == DISK:
            a["latency"], a["recorded"], a["stride"] = world.clock[0]["read"], bool(load["requests"]), load["holders"]
            a["pos"] = (t - load["vcpus"]) % len(world.requests)
        elif kind == SPECULATIVE:
            a["latency"] = load["walker_us"] * 1000
        elif kind != PIN or config["policy"]["iommu"] == "never":
            # a VMM that ends its mappings when it is asked looks for that at once
            a["latency"] = load["hold_us"] * 1000
