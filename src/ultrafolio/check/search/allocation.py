"""The arrays of an exploration: their capacities, and how they grow."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ultrafolio.check.search.packing import (
    COUNT,
    FOUND,
    LINE,
    MAX_PARTS,
    MET_END,
    PART_WORDS,
    PROPERTIES_END,
    ROUND,
    WORD_BITS,
    row_fields,
    spans,
)
from ultrafolio.check.symmetry.like_pages import Symmetry
from ultrafolio.model import designs
from ultrafolio.model.scenario import System

Array = np.ndarray[Any, Any]
FIRST_STATES, FIRST_SHORT = 1 << 14, 16
"""Initial capacities: states, and short ids of each actor."""
SHARE, SHARE_FROM = 1024, 256
"""SHARE: states per worker in a shared round. SHARE_FROM: a round is shared only if at least this many states per
worker are unexpanded."""
LARGE_TABLE = 1 << 23
"""Slots from which the hash table doubles instead of quadrupling: rehashing touches every page of it."""
REPACK_STATES = 1 << 16
"""Rows that are repacked in one numpy operation."""


@dataclass(frozen=True, slots=True)
class Params:
    """The constants of one exploration that decide the shapes of its arrays.

    max_steps     upper bound of the steps that leave one state
    shards        shards of the hash table, a power of two
    area          candidates that a worker can write in a round
    edges         whether edges are kept
    numbers       whether the table keeps the states' numbers; edges need them
    shared_width  part ids in a shared vector: pages and machines
    """

    max_steps: int
    workers: int
    shards: int
    area: int
    edges: bool
    numbers: bool
    shared_width: int

    @staticmethod
    def of(system: System, threads: int, *, edges: bool, numbers: bool) -> Params:
        """Returns the Params of an exploration of `system` by `threads` threads."""
        max_steps = sum(max(1, len(some)) for some in system.choices)
        share = max(ROUND, SHARE) if threads > 1 else ROUND
        shared_width = len(system.state.mm) + len(system.state.vm)
        return Params(
            max_steps, threads, 1 << (threads - 1).bit_length(), share * max_steps, edges, numbers, shared_width
        )


@dataclass(frozen=True, slots=True)
class Capacity:
    """Capacity of the arrays: states, slots of the hash table of states, edges, shared vectors, words of `pool`, short
    ids of each actor. Slots, shared vectors and short ids are powers of two."""

    states: int
    slots: int
    edges: int
    shared: int
    pool: int
    short_ids: tuple[int, ...]

    def fields(self) -> Array:
        """Returns the FIELD records of a row at this capacity."""
        return row_fields(self.shared, self.short_ids)

    def table_states(self) -> int:
        """Most states in the hash table: 11 of 16 slots are used."""
        return self.slots * 11 // 16

    def array_shapes(self, params: Params) -> dict[str, tuple[int, ...]]:
        """Shapes of all arrays that grow, by field of Space."""
        width = int(self.fields()["word"][-1]) + 1
        kept, edges = (self.states, self.edges) if params.edges else (0, 0)
        return {
            "short_parts": (len(self.short_ids), max(self.short_ids)),
            "shared": (self.shared, params.shared_width),
            "shared_table": (2 * self.shared,),
            "pool": (self.pool,),
            "pool_index": (self.shared * sum(self.short_ids),),
            "node": (self.states, width),
            "parent": (self.states,),
            "by": (self.states,),
            "table": (self.slots, width),
            "slot_state": (self.slots if params.numbers else 1,),
            "candidate_rows": (params.shards * params.workers * params.area, width + 2),
            "to": (edges,),
            "via": (edges,),
            "pending": (kept,),
            "enabled": (kept,),
            "first": (kept + 1,),
        }


_TYPES = {
    "short_parts": np.int16,
    "shared": np.int16,
    "shared_table": np.int32,
    "pool_index": np.int32,
    "parent": np.int32,
    "by": np.int32,
    "slot_state": np.int32,
    "to": np.int32,
    "via": np.int32,
}
_SCRATCH = ("steps", "candidate_rows", "order")
"""Arrays that bytes_of() does not count: their size depends on the workers, and a limit must not."""


def new_arrays(system: System, params: Params, max_states: int, symmetry: Symmetry | None = None) -> dict[str, Array]:
    """Returns the fields of a Space without states, at the initial capacity. numpy zeroes them lazily: an unused page
    takes no memory. symmetry: what canonicalise() permutes; None for no reduction."""
    state = system.state
    pages, actors, vms = len(state.mm), len(state.task), len(state.vm)
    every_choice = [choice for some in system.choices for choice in some] or [(0, 0)]
    ranges, at = [], 0
    for some in system.choices:
        ranges.append((at, len(some)))
        at += len(some)
    wide = 1 << (8 * params.max_steps).bit_length()
    capacity = Capacity(
        FIRST_STATES,
        2 * FIRST_STATES,
        4 * FIRST_STATES,
        max(FIRST_STATES >> 4, wide),
        max(FIRST_STATES, wide),
        (FIRST_SHORT,) * actors,
    )
    count = np.zeros(1, COUNT)
    count["area"], count["max_steps"], count["actors"] = params.area, params.max_steps, actors
    count["keeps_edges"], count["keeps_numbers"], count["limit"] = params.edges, params.numbers, max_states
    count["shared"], count["folds"], count["spare"] = 1, symmetry is not None, capacity.pool
    _write_limits(count, params, capacity)
    page_class, permutations = (symmetry.page_class, symmetry.permutations) if symmetry else ((0,) * pages, ())
    parts, cached = pages + vms + actors, MAX_PARTS if symmetry else 1
    found, met = (np.zeros(params.workers * n, FOUND) for n in (PROPERTIES_END, actors * MET_END * pages))
    found["state"] = met["state"] = -1
    candidates = params.workers * params.area
    return {
        **{
            name: np.zeros(wanted, _TYPES.get(name, np.int64)) for name, wanted in capacity.array_shapes(params).items()
        },
        "count": count,
        "part_words": np.zeros((MAX_PARTS, PART_WORDS + 1), np.int64),
        "part_table": np.zeros(1 << 17, np.int32),
        "spans": spans(pages, actors, vms),
        "fields": capacity.fields(),
        "short_ids": np.zeros((actors, MAX_PARTS), np.int16),
        "short_count": np.zeros(actors, np.int64),
        "steps": np.zeros(candidates // params.max_steps * actors, np.int64),
        "order": np.zeros(candidates, np.int64),
        **{name: np.zeros(params.workers, np.int64) for name in ("candidates", "loops", "missed")},
        "bucket_sizes": np.zeros((params.workers, max(LINE, params.shards)), np.int64),
        "barrier": np.zeros(2 * LINE, np.int64),
        "new_states": np.zeros((params.shards, params.workers), np.int64),
        "fired": np.zeros((params.workers + 1, designs.of(state).last_rule + 1), np.int64),
        "found": found,
        "met": met,
        "choices": np.array(ranges, np.int64),
        "ops": np.array([op for op, _ in every_choice], np.int64),
        "pages": np.array([page for _, page in every_choice], np.int64),
        "page_class": np.array(page_class, np.int64),
        "busy_actors": np.zeros(pages, np.int64),
        "busy_pages": np.zeros((actors, cached), np.int16),
        "retargeted": np.zeros((cached, pages), np.int16),
        "permutations": np.array(permutations, np.int64).reshape(len(permutations), parts),
        "image": np.zeros((len(permutations), parts, cached), np.int16),
        "vectors": np.zeros((3, parts), np.int64),
    }


def _write_limits(count: Array, params: Params, capacity: Capacity) -> None:
    """Write the numbers that the compiled functions need of a capacity into COUNT."""
    count["capacity"], count["columns"] = min(capacity.states, capacity.table_states()), sum(capacity.short_ids)
    bits = capacity.slots.bit_length() - 1
    count["shift"], count["shard_shift"] = WORD_BITS - bits, bits - (params.shards.bit_length() - 1)


def capacity_of(arrays: Mapping[str, Array]) -> Capacity:
    """Returns the present capacity of the arrays."""
    short_ids = tuple(int(mask) + 1 for mask in arrays["fields"]["mask"][1:])
    states, slots, edges, shared, pool = (len(arrays[name]) for name in ("node", "table", "to", "shared", "pool"))
    return Capacity(states, slots, edges, shared, pool, short_ids)


def next_capacity(arrays: Mapping[str, Array], params: Params) -> Capacity:
    """Returns the next capacity: that of each array which could not hold one more state's successors is multiplied by
    4, by 2 for the large ones."""
    capacity, count = capacity_of(arrays), {name: int(arrays["count"][name][0]) for name in COUNT.names or ()}
    larger = 4 if capacity.slots < LARGE_TABLE else 2
    short_ids = tuple(
        2 * n if used == n else n for n, used in zip(capacity.short_ids, arrays["short_count"], strict=True)
    )
    return Capacity(
        states=capacity.states * (4 if capacity.states - count["states"] < params.max_steps else 1),
        slots=capacity.slots * (larger if capacity.table_states() - count["states"] < params.max_steps else 1),
        edges=capacity.edges * (4 if params.edges and capacity.edges - count["edges"] < params.max_steps else 1),
        shared=capacity.shared * (2 if capacity.shared - count["shared"] <= params.max_steps + 1 else 1),
        pool=capacity.pool * (4 if count["spare"] - count["used"] <= 2 * params.max_steps + 4 else 1),
        short_ids=short_ids,
    )


def bytes_of(arrays: Mapping[str, Array], params: Params, capacity: Capacity) -> int:
    """Returns the bytes of all arrays but _SCRATCH at this capacity."""
    shapes: dict[str, tuple[int, ...]] = {name: array.shape for name, array in arrays.items()}
    shapes |= capacity.array_shapes(params)
    return sum(math.prod(shapes[name]) * array.itemsize for name, array in arrays.items() if name not in _SCRATCH)


def resize(arrays: dict[str, Array], params: Params, capacity: Capacity) -> frozenset[str]:
    """Reallocate `arrays` to `capacity`, one at a time: peak memory is the new size plus one array.

    Returns the hash tables (`table`, `shared_table`) that are now empty; the caller refills them (graph.refilled).
    """
    shapes = capacity.array_shapes(params)
    used, old, new = _used(arrays), arrays["fields"], capacity.fields()
    other = {name for name, shape in shapes.items() if arrays[name].shape != shape}
    if (old != new).any():
        arrays["pool_index"] = _moved_index(arrays, capacity, used["shared"])
        arrays["node"] = _repacked(arrays.pop("node"), used["parent"], shapes["node"], old, new)
        arrays["fields"] = new
        other = other - {"pool_index", "node"} | {"table"}
    if "table" in other:
        other |= {"slot_state"}
    for name in other:
        array = arrays.pop(name)
        arrays[name] = np.zeros(shapes[name], array.dtype)
        if name in used:
            part = (slice(used[name]), *(slice(n) for n in array.shape[1:]))
            arrays[name][part] = array[: used[name]]
        del array
    _write_limits(arrays["count"], params, capacity)
    return frozenset(other & {"table", "shared_table"})


def _used(arrays: Mapping[str, Array]) -> dict[str, int]:
    """Returns how many entries of each array are copied; an array that is absent is refilled."""
    count = {name: int(arrays["count"][name][0]) for name in COUNT.names or ()}
    by_state = dict.fromkeys(("node", "parent", "by", "pending", "enabled"), count["states"])
    return by_state | {
        "first": count["states"] + 1,
        "to": count["edges"],
        "via": count["edges"],
        "shared": count["shared"],
        "pool": count["used"],
        "short_parts": count["actors"],
        "pool_index": count["shared"] * count["columns"],
    }


def _moved_index(arrays: Mapping[str, Array], capacity: Capacity, shared: int) -> Array:
    """Returns `pool_index` at the new capacity, each actor's columns moved."""
    old = arrays["pool_index"].reshape(len(arrays["shared"]), -1)
    made = np.zeros((capacity.shared, sum(capacity.short_ids)), old.dtype)
    was, now = arrays["fields"], capacity.fields()
    for before, after in zip(was[1:], now[1:], strict=True):
        ids = int(before["mask"]) + 1
        made[:shared, after["column"] : after["column"] + ids] = old[:shared, before["column"] : before["column"] + ids]
    return made.reshape(-1)


def _repacked(old: Array, states: int, shape: tuple[int, ...], was: Array, now: Array) -> Array:
    """Returns the states' rows, their ids moved from the fields `was` to the fields `now`."""
    made = np.zeros(shape, np.int64)
    for low in range(0, states, REPACK_STATES):
        rows, written = old[low : min(low + REPACK_STATES, states)], made[low : min(low + REPACK_STATES, states)]
        for before, after in zip(was, now, strict=True):
            number = rows[:, before["word"]] >> before["shift"] & before["mask"]
            written[:, after["word"]] |= number << after["shift"]
    return made
