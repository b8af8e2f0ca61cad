"""The arrays of an exploration: how large they are made, and how they grow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ultrafolio.model.layout import DEAD
from ultrafolio.model.scenario import System

from .layout import (
    ACTOR_WORDS,
    COUNT,
    FOUND,
    MAX_COMPONENTS,
    OBSTACLES_END,
    PROPERTIES_END,
    lanes,
    raw_words,
    spans,
)

Array = np.ndarray[Any, Any]
FIRST = 1 << 14
"""Room for states, and for remembered steps, to begin with."""
ROUND, SHARE = 32, 8192
"""States of a round that one worker does alone; those of each worker where several share it."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What the sizes of the arrays follow from.

    widest   the most steps any state can have
    shards   parts of the hash table, a power of two
    area     candidates a worker may have in a round
    """

    widest: int
    workers: int
    shards: int
    area: int
    edges: bool

    @staticmethod
    def of(system: System, threads: int, *, edges: bool) -> Shape:
        widest = sum(max(1, len(some)) for some in system.choices)
        share = ROUND if threads == 1 else SHARE
        return Shape(widest, threads, 1 << (threads - 1).bit_length(), share * widest, edges)

    @property
    def candidates(self) -> int:
        return self.workers * self.area

    @property
    def rows(self) -> int:
        """Rows of candidates: any may belong to any shard."""
        return self.shards * self.candidates


def table_slots(capacity: int) -> int:
    """Slots of the hash table for so many states, a power of two: at most 11 in 16 are used."""
    return 1 << (capacity * 16 // 11).bit_length()


def new_arrays(system: System, shape: Shape, max_states: int, alike: Sequence[int] = ()) -> dict[str, Array]:
    """The fields of a Space without states; `alike` as there, to fold. What is not used yet takes no memory."""
    state = system.state
    pages, actors, vms = len(state.mm), len(state.task), len(state.vm)
    listed = [choice for some in system.choices for choice in some] or [(0, 0)]
    ranges, at = [], 0
    for some in system.choices:
        ranges.append((at, len(some)))
        at += len(some)
    kept_states = FIRST if shape.edges else 0
    many, wide = shape.candidates, max(FIRST, 1 << (8 * shape.widest).bit_length())
    count = np.zeros(1, COUNT)
    count["capacity"], count["area"], count["widest"] = FIRST, shape.area, shape.widest
    count["actors"], count["keeps"], count["limit"] = actors, shape.edges, max_states
    count["folds"] = any(alike)
    folds = MAX_COMPONENTS if any(alike) else 1
    found, met = (np.zeros(shape.workers * n, FOUND) for n in (PROPERTIES_END, OBSTACLES_END))
    found["state"] = met["state"] = -1
    return {
        "count": count, "kept": np.zeros((MAX_COMPONENTS, ACTOR_WORDS + 1), np.int64),
        "index": np.zeros(1 << 17, np.int32), "spans": spans(pages, actors, vms),
        "copy": np.zeros(raw_words(pages, actors, vms), np.int64), "memory": np.zeros((wide, pages + vms), np.int16),
        "places": np.zeros(2 * wide, np.int32), "pool": np.zeros(wide, np.int64),
        "recall": np.zeros((2 * FIRST, 2), np.int64), "node": np.zeros((FIRST + shape.rows, lanes(actors)), np.int64),
        "parent": np.zeros(FIRST + shape.rows, np.int32), "by": np.zeros(FIRST + shape.rows, np.int32),
        "table": np.zeros(table_slots(FIRST), np.int64),
        "steps": np.zeros(many // shape.widest * actors, np.int64),
        **{name: np.zeros((shape.shards, many), np.int64) for name in ("hash", "target", "slot")},
        "order": np.zeros(many, np.int64),
        **{name: np.zeros(shape.workers, np.int64) for name in ("made", "loops", "missed")},
        "listed": np.zeros((shape.workers, max(16, shape.shards)), np.int64),
        "fresh": np.zeros((shape.shards, shape.workers), np.int64),
        "pending": np.zeros(kept_states, np.int64), "enabled": np.zeros(kept_states, np.int64),
        "first": np.zeros(kept_states + 1, np.int64),
        "to": np.zeros(4 * kept_states, np.int32), "via": np.zeros(4 * kept_states, np.int32),
        "fired": np.zeros((shape.workers, DEAD + 1), np.int64), "found": found, "met": met,
        "choices": np.array(ranges, np.int64), "ops": np.array([op for op, _ in listed], np.int64),
        "pages": np.array([page for _, page in listed], np.int64), "alike": np.array(alike or [0] * pages, np.int64),
        "seats": np.zeros(pages, np.int64), "busy": np.zeros((actors, folds), np.int16),
        "turned": np.zeros((folds, pages), np.int16),
    }  # fmt: skip


def grow(arrays: dict[str, Array], shape: Shape, max_mib: int) -> dict[str, Array] | None:
    """Make what is full four times as long, one array after the other, so that none but the one being copied is there
    twice. None, and nothing is changed, where more than `max_mib` MiB would be needed.

    Returns the hash tables as they were; the new ones are empty.
    """
    count = arrays["count"][0]
    full = _full(arrays, shape)
    bytes_of = {name: array.nbytes * int(count["capacity"]) // len(array) if name in _BY_STATE else array.nbytes
                for name, array in arrays.items() if name not in _SCRATCH}  # fmt: skip
    if sum(bytes_of.values()) + 3 * sum(bytes_of[name] for name in full) > max_mib << 20:
        return None
    if "node" in full:
        count["capacity"] *= 4
    tables = {}
    for name, used in full.items():
        old = arrays.pop(name)
        if name in ("table", "places", "recall"):
            tables[name] = old if name == "recall" else np.zeros(0)
        size = 4 * len(old)
        if name == "table":
            size = table_slots(int(count["capacity"]))
        if name in _BY_STATE:
            size = int(count["capacity"]) + shape.rows
        made = np.zeros((size, *old.shape[1:]), old.dtype)
        made[:used] = old[:used]
        arrays[name] = made
        del old
    return tables


_BY_STATE = ("node", "parent", "by")
"""Arrays with room for candidates behind that for states, which no limit counts: it depends on the workers."""
_SCRATCH = ("steps", "hash", "target", "slot", "order")


def _full(arrays: dict[str, Array], shape: Shape) -> dict[str, int]:
    """The arrays that have no room for one more state's steps, and how much of each is to be kept."""
    count = {name: int(arrays["count"][name][0]) for name in COUNT.names or ()}
    states, edges, memories = count["states"], count["edges"], count["memories"]
    full: dict[str, int] = {}
    if count["capacity"] - states < shape.widest:
        full |= {"node": states, "parent": states, "by": states, "table": 0}
        if shape.edges:
            full |= {"pending": states, "enabled": states, "first": states + 1}
    if shape.edges and len(arrays["to"]) - edges < shape.widest:
        full |= {"to": edges, "via": edges}
    if len(arrays["memory"]) - memories <= shape.widest + 1:
        full |= {"memory": memories, "places": 0}
    if count["spare"] - count["used"] <= 2 * shape.widest + 4:
        full["pool"] = count["used"]
    if 2 * count["used"] > len(arrays["recall"]):
        full["recall"] = 0
    return full
