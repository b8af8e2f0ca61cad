"""Build the initial state and world of a configuration or a scenario for the event loop."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ultrafolio.errors import InputError
from ultrafolio.files import named, reading
from ultrafolio.model import designs
from ultrafolio.model.designs import S390
from ultrafolio.model.layout import *
from ultrafolio.model.policy import Policy
from ultrafolio.model.scenario import System
from ultrafolio.sim.records import *
from ultrafolio.trace.load import load_orders, load_requests, load_touches

from .costs import PRICES, table_of
from .designs import RECORDS

Array = np.ndarray[Any, Any]
_INT = np.int64


def _quantiles() -> Array:
    """1024 mid-point quantiles of the exponential distribution with mean 1024, rounded to integers."""
    return np.array([round(-1024 * math.log1p(-(i + 0.5) / 1024)) for i in range(1024)], _INT)


@functools.lru_cache(maxsize=8)
def _touches(path: Path, digest: str) -> Array:
    return load_touches(path)["page"].astype(np.int32)


@functools.lru_cache(maxsize=8)
def _requests(path: Path, digest: str) -> Array:
    return load_requests(path)


@functools.lru_cache(maxsize=8)
def _orders(path: Path, digest: str) -> dict[int, int]:
    return load_orders(path)


def _recorded(load: Callable[[Path, str], Any], recording: tuple[str, str], base: Path) -> Any:
    """`load` of a recording, which the configuration holds as path and digest."""
    name, digest = recording
    path = named(base, name)
    with reading(path, name):
        return load(path, digest)


class Layout:
    """The layout of a guest's memory: the folio order of each page, private pages, and slots of shared pages.

    pages   pages per guest, a multiple of the largest folio
    orders  order of the folio of every page (all guests alike)
    touched pages that vCPUs touch: with aligned placement without the shared folios
    disks   first page of each bounce slot;  rings: first page of each ring
    """

    def __init__(self, config: dict[str, Any], base: Path, rng: np.random.Generator) -> None:
        load = config["workload"]
        distribution = {config["order"]: 1}
        if load["orders"]:
            recorded = _recorded(_orders, load["orders"], base)
            distribution = {order: n for order, n in recorded.items() if order <= 9}
            if not distribution:
                raise InputError(f"{load['orders'][0]}: no folios of order 0 to 9", allowed="at least one folio")
        largest = 1 << max(distribution)
        slot, ring = load["io_pages"], load["ring_pages"]
        slots = max(1, load["pool_pages"] // slot) if load["disks"] else 0
        shared = slots * slot + load["rings"] * ring
        private = load["pages"]
        if load["touches"]:
            recorded_pages = int(_recorded(_touches, load["touches"], base).max()) + 1
            private = max(private, recorded_pages)
        private = private or 4096
        aligned = config["placement"] == "aligned"
        private_up = -(-private // largest) * largest if aligned else private
        self.pages = -(-(private_up + shared) // largest) * largest
        self.orders = _fill(distribution, self.pages, rng)
        self.touched = np.arange(private_up if aligned else self.pages, dtype=np.int32)
        starts = _place(config["placement"], self.pages, private_up, [slot] * slots + [ring] * load["rings"], rng)
        self.disks, self.rings = starts[:slots], starts[slots:]
        taken = np.zeros(self.pages, bool)
        for first, n in zip(starts, [slot] * slots + [ring] * load["rings"], strict=True):
            taken[first : first + n] = True
        self.shared = np.flatnonzero(taken)
        self.private = np.flatnonzero(~taken)


def _fill(distribution: dict[int, int], pages: int, rng: np.random.Generator) -> Array:
    """The folio order of every page: folios drawn with the weights of `distribution`, naturally aligned."""
    if len(distribution) == 1:
        return np.full(pages, next(iter(distribution)), np.uint8)
    names = sorted(distribution)
    weights = np.array([distribution[o] for o in names], float)
    orders = np.zeros(pages, np.uint8)
    at = 0
    while at < pages:
        order = int(rng.choice(names, p=weights / weights.sum()))
        while at % (1 << order) or at + (1 << order) > pages:
            order -= 1
        orders[at : at + (1 << order)] = order
        at += 1 << order
    return orders


def _place(placement: str, pages: int, private: int, sizes: list[int], rng: np.random.Generator) -> Array:
    """The first page of each shared slot: in folios of their own, in one run, or scattered without overlap."""
    if placement != "scattered":
        total = sum(sizes)
        start = private if placement == "aligned" else int(rng.integers(0, pages - total + 1))
        return (start + np.cumsum([0, *sizes])[:-1]).astype(np.int32)
    free = pages - sum(sizes)
    gaps = np.sort(rng.integers(0, free + 1, len(sizes)))
    shuffled = rng.permutation(len(sizes))
    starts = np.zeros(len(sizes), np.int32)
    before = 0
    for gap, index in zip(gaps, shuffled, strict=True):
        starts[index] = gap + before
        before += sizes[index]
    return starts


def _actors(load: dict[str, Any]) -> list[tuple[int, int]]:
    """(kind, guest) of every actor, in a fixed order."""
    made = []
    for guest in range(load["guests"]):
        ring = PIN if load["early_rings"] else RING
        counts = [
            (VCPU, load["vcpus"]),
            (DISK, load["disks"]),
            (ring, load["rings"]),
            (REBOOT, int(load["reboot_us"] > 0)),
        ]
        made += [(kind, guest) for kind, n in counts for _ in range(n)]
    host = [
        (WRITEBACK, "writeback_us"),
        (RECLAIM, "reclaim_us"),
        (LRU, "lru_us"),
        (MAPPING, "mapping_us"),
        (SPECULATIVE, "speculative_us"),
    ]
    return made + [(kind, 0) for kind, field in host if load[field]]


def build(config: dict[str, Any], base: Path, *, trace: int = 0) -> tuple[State, World]:
    """The initial state and world of a configuration (see config.resolve).

    Deterministic in the configuration. `base`: the folder that recordings are relative to. `trace`: the number of
    events that the trace buffer holds, 0 for none. Raises InputError for more actors or pages than keys can hold.
    """
    load = config["workload"]
    place, *streams = np.random.SeedSequence(config["seed"]).spawn(2)
    rng = np.random.default_rng(place)
    layout = Layout(config, base, rng)
    kinds = _actors(load)
    if len(kinds) > ACTOR_MASK:
        raise InputError("too many actors", value=len(kinds), allowed=f"at most {ACTOR_MASK}")
    state = _state(config, layout, kinds, rng)
    world = _world(config, base, layout, kinds, state, np.random.default_rng(streams[0]), trace)
    return state, world


def _state(config: dict[str, Any], layout: Layout, kinds: list[tuple[int, int]], rng: np.random.Generator) -> State:
    """Returns the initial state: policy, folios, page states and actors of a configuration."""
    load, guests = config["workload"], config["workload"]["guests"]
    pages = layout.pages
    state = blank(pages * guests, len(kinds), guests)
    for name, value in Policy(**config["policy"]).codes().items():
        state.cfg[name] = value
    state.cfg["vms"] = guests if load["one_address_space"] else 1
    state.cfg["misc"] = load["ownership_transfer"]
    state.pt["cleaned"] = load["writeback_us"] > 0
    state.mm["order"] = np.tile(layout.orders, guests)
    state.mm["backing"] = BACKINGS.index(load["backing"])
    state.mm["dirty"] = load["backing"] == "iomap"
    _import_first(state, config, layout)
    if load["fail_pages"]:
        state.uv["refuses"][rng.choice(len(state.uv), min(load["fail_pages"], len(state.uv)), replace=False)] = 1
    for t, (kind, guest) in enumerate(kinds):
        state.who["kind"][t], state.who["vm"][t], state.who["cpu"][t] = kind, guest, t % CPUS
        state.task["pc"][t] = IDLE_PC[kind]
    state.actor["budget"] = ENDLESS
    return state


def _heads(order: Array) -> Array:
    """The first page of every page's folio."""
    number = np.arange(len(order))
    return number >> order << order


def _import_first(state: State, config: dict[str, Any], layout: Layout) -> None:
    """Set the pages that the guest imported and shared before the run: all pages, or only the shared ones (at boot).

    Shared pages are left out, too, if long-term pins that are no rings precede their first import (`early_rings`).
    Under `large = split` a folio with an imported page is split; under `refuse` and `never` no page of a large folio
    is imported.
    """
    load, policy = config["workload"], config["policy"]
    guests, pages = load["guests"], layout.pages
    shared = np.zeros(pages, bool)
    shared[layout.shared] = True
    done = np.full(pages, load["imported"]) | shared
    if load["early_rings"]:
        for first in layout.rings:
            done[first : first + load["ring_pages"]] = False
    shared, done = np.tile(shared, guests), np.tile(done, guests)
    order = state.mm["order"].astype(_INT)
    if policy["large"] in ("refuse", "never"):
        done &= order == 0
    touched = np.zeros(len(order), _INT)
    np.add.at(touched, _heads(order), done)
    if policy["large"] == "split":
        split = touched[_heads(order)] > 0
        state.mm["order"][split] = 0
        touched = np.where(split, done, touched)
    state.uv["state"] = np.where(done, np.where(shared, SHARED, SECURE), NON_SECURE)
    state.uv["owner"] = np.where(done, np.repeat(np.arange(guests), pages), 0)
    by_folio = policy["track"] == "folio"
    state.mm["arch"] = touched > 0 if by_folio else done
    state.mm["marked"] = np.minimum(touched, 1) if by_folio else touched


def assemble(
    state: State,
    *,
    home: Array,
    costs: dict[str, int],
    duration_us: int,
    check: bool,
    rng: np.random.Generator,
    trace: int,
    touches: Array,
    requests: Array,
    choices: Array,
) -> World:
    """The world of a state before the first event: each actor has its random stream and no time yet."""
    n, vms, design = len(state.who), len(state.vm), designs.of(state)
    leaves = 1 << max(1, (n - 1).bit_length())
    world = World(
        clock=np.zeros(1, CLOCK),
        tree=np.full(2 * leaves, NEVER, _INT),
        load=np.zeros(n, LOAD),
        wait=np.zeros(n, RECORDS[design.name].WAIT),
        queue=np.full(len(home) + vms, -1, np.int32),
        home=home,
        secure=np.zeros(len(home), np.int16),
        collateral=np.zeros(len(home), np.uint8),
        touches=touches,
        requests=requests,
        choices=choices,
        price=np.array([costs.get(name, 0) for name in PRICES], _INT),
        tlb=np.zeros(1, _INT),
        cost=table_of(costs, design),
        expo=_quantiles(),
        metric=np.zeros(1, RECORDS[design.name].METRIC),
        stall=np.zeros(HIST_SIZE, _INT),
        latency=np.zeros(HIST_SIZE, _INT),
        broken=np.zeros(len(design.properties), _INT),
        fired=np.zeros(design.last_rule + 1, _INT),
        hang=np.zeros(64, HANG),
        event=np.zeros(max(1, trace), EVENT),
    )
    clock = world.clock[0]
    clock["until"] = duration_us * 1000
    clock["leaves"], clock["sequence"] = leaves, len(requests)
    clock["read"], clock["write"] = costs["read"], costs["write"]
    clock["split_page"], clock["checked"], clock["tracing"] = costs["split_page"], check, trace > 0
    if design is S390:
        _count_secure(state, world)
    world.metric["first_hang_ns"] = -1
    world.wait["queue"] = world.wait["next"] = -1
    seeds = rng.integers(1, 1 << 32, (n, 2), dtype=np.uint64)
    world.load["rng0"], world.load["rng1"] = seeds[:, 0], seeds[:, 1]
    return world


def _count_secure(state: State, world: World) -> None:
    """Count the SECURE pages of each folio, and those that are over-indicated."""
    home, number = world.home, np.arange(len(world.home))
    np.add.at(world.secure, number >> home << home, (state.uv["state"] == SECURE).astype(np.int16))
    bit = _heads(state.mm["order"].astype(_INT)) if state.cfg["track"][0] == TRACK_FOLIO else number
    world.clock[0]["over"] = int(((state.mm["arch"][bit] > 0) & (state.uv["state"] != SECURE)).sum())


def _world(
    config: dict[str, Any],
    base: Path,
    layout: Layout,
    kinds: list[tuple[int, int]],
    state: State,
    rng: np.random.Generator,
    trace: int,
) -> World:
    """Returns what the event loop keeps beside the state: costs, workloads, counters and the trace."""
    load = config["workload"]
    world = assemble(
        state,
        home=np.tile(layout.orders, load["guests"]),
        costs=config["costs"],
        duration_us=config["duration_us"],
        check=config["check"],
        rng=rng,
        trace=trace,
        touches=touch_sequence(load, base, layout),
        requests=request_sequence(load["requests"], load["io_pages"], base),
        choices=_choices(layout, load["guests"]),
    )
    _loads(load, layout, kinds, state, world)
    _first_keys(load["ring_after_us"] * 1000, kinds, world)
    return world


def _choices(layout: Layout, guests: int) -> Array:
    """For each guest the first page of each bounce slot, then of each ring; never empty, so that it can be indexed."""
    starts = np.concatenate([layout.disks, layout.rings])
    made = np.zeros(max(1, guests * len(starts)), CHOICE)
    made["op"] = TOUCH
    every = (np.arange(guests)[:, None] * layout.pages + starts[None, :]).ravel()
    made["page"][: len(every)] = every
    return made


def touch_sequence(load: dict[str, Any], base: Path, layout: Layout) -> Array:
    """Recorded touches as page numbers of guest 0: the recording's pages are its private pages, in address order."""
    if not load["touches"]:
        return np.zeros(1, np.int32)
    recorded = _recorded(_touches, load["touches"], base)
    numbers: Array = layout.private[recorded % len(layout.private)].astype(np.int32)
    return numbers


def request_sequence(recording: tuple[str, str] | str, most: int, base: Path) -> Array:
    """Recorded I/O as requests of `most` pages with their times in ns; a larger request is several."""
    if isinstance(recording, str):
        return np.zeros(1, REQUEST)
    recorded = _recorded(_requests, recording, base)
    total = np.maximum(1, -(-recorded["length"].astype(_INT) // PAGE_SIZE))
    parts = -(-total // most)
    made = np.zeros(int(parts.sum()), REQUEST)
    made["at"] = np.repeat(recorded["time_us"].astype(_INT) * 1000, parts)
    made["write"] = np.repeat(recorded["write"], parts)
    made["n"] = most
    last = np.cumsum(parts) - 1
    made["n"][last] = total - (parts - 1) * most
    return made


def _loads(load: dict[str, Any], layout: Layout, kinds: list[tuple[int, int]], state: State, world: World) -> None:
    """Set the LOAD of each actor: its pages, its mean pause, its position in the recordings."""
    pages, slots = layout.pages, len(layout.disks)
    listed = slots + len(layout.rings)
    seen: dict[tuple[int, int], int] = {}
    everything = pages * load["guests"]
    every = {
        WRITEBACK: "writeback_us",
        RECLAIM: "reclaim_us",
        LRU: "lru_us",
        MAPPING: "mapping_us",
        SPECULATIVE: "speculative_us",
        REBOOT: "reboot_us",
    }
    for t, (kind, guest) in enumerate(kinds):
        a = world.load[t]
        index = seen[kind, guest] = seen.get((kind, guest), -1) + 1
        if kind == VCPU:
            recorded = bool(load["touches"]) and guest == 0
            a["mode"] = RECORDED if recorded else UNIFORM
            a["first"], a["count"] = guest * pages, len(world.touches) if recorded else len(layout.touched)
            a["pos"] = index * len(world.touches) // load["vcpus"] if recorded else 0
            a["think"] = load["touch_ns"]
            a["share_rate"] = round(load["share_rate"] * 65535)
            a["share_first"], a["share_count"] = guest * pages, len(layout.touched)
        elif kind == DISK:
            a["mode"], a["first"], a["count"] = LISTED, guest * listed, slots
            a["think"], a["latency"] = load["io_us"] * 1000, world.clock[0]["read"]
            a["recorded"], a["stride"] = bool(load["requests"]), load["disks"]
            a["pos"] = index % len(world.requests)
            if load["requests"]:
                a["base"] = index // len(world.requests) * int(world.requests[-1]["at"])
            state.actor["n"][t] = load["io_pages"]
        elif kind in (RING, PIN):
            a["mode"], a["first"], a["count"] = LISTED, guest * listed + slots + index, 1
            state.actor["n"][t] = load["ring_pages"]
        else:
            a["mode"], a["first"], a["count"] = UNIFORM, 0, everything
            a["think"] = load[every[kind]] * 1000


def _first_keys(rings_at: int, kinds: list[tuple[int, int]], world: World) -> None:
    """Set each actor's first time in ns: rings at `rings_at`, disks from the recording, the others after a pause."""
    times = [int(a["think"]) * int(a["rng0"]) >> 32 for a in world.load]
    for t, (kind, _) in enumerate(kinds):
        if kind in (RING, PIN):
            times[t] = rings_at
        elif kind == DISK and world.load[t]["recorded"]:
            times[t] = int(world.load[t]["base"] + world.requests[world.load[t]["pos"]]["at"])
    start(world, times)


def start(world: World, times: list[int]) -> None:
    """Set each actor's first time in ns, and build the winner tree."""
    leaves = int(world.clock[0]["leaves"])
    for t, at in enumerate(times):
        world.tree[leaves + t] = at << ACTOR_BITS | t
    for i in range(leaves - 1, 0, -1):
        world.tree[i] = min(world.tree[2 * i], world.tree[2 * i + 1])


def from_system(
    system: System, costs: dict[str, int], *, seed: int, duration_us: int, check: bool = True, trace: int = 0
) -> tuple[State, World]:
    """The state and world of a scenario. Mean pause: 500 ns for a vCPU, 50 us for the others; all but a reboot start
    within the first 2 us.

    Each actor draws uniformly from its listed choices; the scenario bounds the number of starts.
    """
    state = copy(system.state)
    listed = [choice for choices in system.choices for choice in choices]
    world = assemble(
        state,
        home=state.mm["order"].copy(),
        costs=costs,
        duration_us=duration_us,
        check=check,
        rng=np.random.default_rng(np.random.SeedSequence(seed).spawn(2)[1]),
        trace=trace,
        touches=np.zeros(1, np.int32),
        requests=np.zeros(1, REQUEST),
        choices=np.array(listed, CHOICE),
    )
    at = 0
    for t, choices in enumerate(system.choices):
        a = world.load[t]
        a["mode"], a["first"], a["count"] = LISTED, at, len(choices)
        a["think"] = 500 if state.who["kind"][t] == VCPU else 50_000
        # of guest_memfd others have a latency, too: here a mapping for DMA and a full pipe stand to the end
        a["latency"] = costs["read"] if designs.of(state) is S390 or state.who["kind"][t] == DISK else 0
        at += len(choices)
    within = np.where(state.who["kind"] == REBOOT, 100_000, 2_000)
    start(world, [int(ns) * int(a["rng0"]) >> 32 for ns, a in zip(within, world.load, strict=True)])
    return state, world
