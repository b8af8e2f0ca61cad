"""The fixed workload: guests that touch, direct I/O, virtio rings and writeback, in three sizes and three policies."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ultrafolio.model.layout import State
from ultrafolio.sim.build import build
from ultrafolio.sim.config import resolve
from ultrafolio.sim.records import World

POLICIES = ("per-page", "whole-folio", "split")
ORDER = 4
FOREVER_US = 10**9
"""A time that no run reaches: the number of events ends it, so that every implementation runs the same events."""
RINGS_AT = 0.7
"""The part of a run after which the rings are configured."""


@dataclass(frozen=True)
class Size:
    """The size of a case. `events` are timed against C; `few` against SimPy and the interpreter, which are slow.

    pace_ns: the approximate simulated time per event, which gives the time at which the rings are configured. That is
    late in a run: under whole-folio a vCPU that then touches a neighbour of a ring page hangs for the rest of the run.
    """

    folios: int
    vcpus: int
    disks: int
    rings: int
    events: int
    few: int
    pace_ns: float

    @property
    def pages(self) -> int:
        return self.folios << ORDER

    @property
    def actors(self) -> int:
        return self.vcpus + self.disks + self.rings + 1


SIZES = {
    "S": Size(64, 4, 4, 2, 3_000_000, 250_000, 230),
    "M": Size(4096, 32, 24, 3, 3_000_000, 250_000, 30),
    "L": Size(65536, 560, 300, 35, 6_000_000, 200_000, 1.5),
}


def config(size: Size, policy: str, events: int, *, check: bool = False) -> dict[str, Any]:
    """The configuration of a size under a policy, for a run of `events` events.

    Before the run only the shared pages are imported, so that the folios are whole at the start under `split`, too.
    """
    pool, ring = 2 * size.disks, 3
    return resolve(
        {
            "policy": policy,
            "order": ORDER,
            "placement": "scattered",
            "seed": 20200615,
            "duration_us": FOREVER_US,
            "check": check,
            "pages": size.pages - pool - ring * size.rings,
            "vcpus": size.vcpus,
            "disks": size.disks,
            "io_pages": 2,
            "pool_pages": pool,
            "rings": size.rings,
            "ring_pages": ring,
            "ring_after_us": int(events * size.pace_ns * RINGS_AT / 1000),
            "touch_ns": 1_000,
            "io_us": 50,
            "writeback_us": 5,
            "imported": False,
            "costs": "bench",
            "tables": {"costs": {"bench": {"writeback": 10_000}}},
        },
        Path(),
    )


@dataclass(frozen=True)
class Fresh:
    """An initial state and world. Every run gets a copy, since a run changes them."""

    state: State
    world: World

    @classmethod
    def of(cls, configuration: dict[str, Any]) -> Fresh:
        return cls(*build(configuration, Path()))

    def copy(self) -> tuple[State, World]:
        return State(*(a.copy() for a in self.state)), World(*(a.copy() for a in self.world))


@dataclass(frozen=True)
class End:
    """The end of a run: CPU ns of its event loop, and a digest of every array."""

    ns: int
    digests: dict[str, str]


Implementation = Callable[[Fresh, int], End]
"""Runs this number of events from a new copy."""


def digests(state: State, world: World) -> dict[str, str]:
    """A digest of each array at the end: page states, actors, RNG states, queues, counters, histograms, hangs.

    Of the winner tree only the leaves, the actors' next times: SimPy has a heap instead of the rest.
    """
    leaves = int(world.clock["leaves"][0])
    arrays = {**state._asdict(), **world._asdict(), "tree": world.tree[leaves:]}
    return {name: hashlib.blake2b(np.ascontiguousarray(a), digest_size=8).hexdigest() for name, a in arrays.items()}


def differing(one: End, other: End) -> list[str]:
    """Names of the arrays in which two ends differ."""
    return [name for name, digest in one.digests.items() if other.digests[name] != digest]
