"""The arrays of an exploration: how large they are made, and how they grow."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ultrafolio.check.search.packing import (
    COMPONENT_WORDS,
    COUNT,
    FOUND,
    LINE,
    MAX_COMPONENTS,
    MET_END,
    PROPERTIES_END,
    ROUND,
    WORD_BITS,
    fields,
    spans,
)
from ultrafolio.check.symmetry.like_pages import Likeness
from ultrafolio.model.layout import DEAD
from ultrafolio.model.scenario import System

Array = np.ndarray[Any, Any]
FIRST, FIRST_OWN = 1 << 14, 16
"""Room for states, and for each actor's own numbers, to begin with."""
SHARE, ENOUGH = 1024, 256
"""States that each worker takes at a time where several share a round; those for each that must wait for it."""
LARGE = 1 << 23
"""Slots of a hash table that is not made four times as large any more: all of it is touched at once."""
CHUNK = 1 << 16
"""States whose rows are rewritten at a time."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What the sizes of the arrays follow from.

    widest   the most steps any state can have
    shards   parts of the hash table, a power of two
    area     candidates a worker may have in a round
    numbers  whether the table knows the states' numbers, as edges need
    """

    widest: int
    workers: int
    shards: int
    area: int
    edges: bool
    numbers: bool
    machine: int

    @staticmethod
    def of(system: System, threads: int, *, edges: bool, numbers: bool) -> Shape:
        widest = sum(max(1, len(some)) for some in system.choices)
        share = max(ROUND, SHARE) if threads > 1 else ROUND
        machine = len(system.state.mm) + len(system.state.vm)
        return Shape(widest, threads, 1 << (threads - 1).bit_length(), share * widest, edges, numbers, machine)


@dataclass(frozen=True, slots=True)
class Size:
    """What there is room for: states, slots of the hash table of states, edges, memories, words of remembered steps,
    own numbers of each actor. Slots, memories and own numbers are powers of two."""

    states: int
    slots: int
    edges: int
    memories: int
    words: int
    own: tuple[int, ...]

    def fields(self) -> Array:
        return fields(self.memories, self.own)

    def entered(self) -> int:
        """States that the hash table has room for: at most 11 in 16 slots are used."""
        return self.slots * 11 // 16

    def shapes(self, shape: Shape) -> dict[str, tuple[int, ...]]:
        """The shapes of all arrays that grow."""
        width = int(self.fields()["word"][-1]) + 1
        kept, edges = (self.states, self.edges) if shape.edges else (0, 0)
        return {
            "own": (len(self.own), max(self.own)),
            "memory": (self.memories, shape.machine),
            "places": (2 * self.memories,),
            "pool": (self.words,),
            "recall": (self.memories * sum(self.own),),
            "node": (self.states, width),
            "parent": (self.states,),
            "by": (self.states,),
            "table": (self.slots, width),
            "seat": (self.slots if shape.numbers else 1,),
            "new": (shape.shards * shape.workers * shape.area, width + 2),
            "to": (edges,),
            "via": (edges,),
            "pending": (kept,),
            "enabled": (kept,),
            "first": (kept + 1,),
        }


_TYPES = {
    "own": np.int16,
    "memory": np.int16,
    "places": np.int32,
    "recall": np.int32,
    "parent": np.int32,
    "by": np.int32,
    "seat": np.int32,
    "to": np.int32,
    "via": np.int32,
}
_SCRATCH = ("steps", "new", "order")
"""Arrays that no limit counts: their size depends on the workers."""


def new_arrays(system: System, shape: Shape, max_states: int, like: Likeness | None = None) -> dict[str, Array]:
    """The fields of a Space without states; `like`: what is folded. What is not used yet takes no memory."""
    state = system.state
    pages, actors, vms = len(state.mm), len(state.task), len(state.vm)
    listed = [choice for some in system.choices for choice in some] or [(0, 0)]
    ranges, at = [], 0
    for some in system.choices:
        ranges.append((at, len(some)))
        at += len(some)
    wide = 1 << (8 * shape.widest).bit_length()
    size = Size(FIRST, 2 * FIRST, 4 * FIRST, max(FIRST >> 4, wide), max(FIRST, wide), (FIRST_OWN,) * actors)
    count = np.zeros(1, COUNT)
    count["area"], count["widest"], count["actors"] = shape.area, shape.widest, actors
    count["keeps"], count["numbers"], count["limit"] = shape.edges, shape.numbers, max_states
    count["memories"], count["folds"], count["spare"] = 1, like is not None, size.words
    _measure(count, shape, size)
    alike, turns = (like.alike, like.turns) if like else ((0,) * pages, ())
    places, folds = pages + vms + actors, MAX_COMPONENTS if like else 1
    found, met = (np.zeros(shape.workers * n, FOUND) for n in (PROPERTIES_END, actors * MET_END * pages))
    found["state"] = met["state"] = -1
    many = shape.workers * shape.area
    return {
        **{name: np.zeros(wanted, _TYPES.get(name, np.int64)) for name, wanted in size.shapes(shape).items()},
        "count": count,
        "kept": np.zeros((MAX_COMPONENTS, COMPONENT_WORDS + 1), np.int64),
        "index": np.zeros(1 << 17, np.int32),
        "spans": spans(pages, actors, vms),
        "fields": size.fields(),
        "owned": np.zeros((actors, MAX_COMPONENTS), np.int16),
        "many": np.zeros(actors, np.int64),
        "steps": np.zeros(many // shape.widest * actors, np.int64),
        "order": np.zeros(many, np.int64),
        **{name: np.zeros(shape.workers, np.int64) for name in ("made", "loops", "missed")},
        "listed": np.zeros((shape.workers, max(LINE, shape.shards)), np.int64),
        "gate": np.zeros(2 * LINE, np.int64),
        "fresh": np.zeros((shape.shards, shape.workers), np.int64),
        "fired": np.zeros((shape.workers + 1, DEAD + 1), np.int64),
        "found": found,
        "met": met,
        "choices": np.array(ranges, np.int64),
        "ops": np.array([op for op, _ in listed], np.int64),
        "pages": np.array([page for _, page in listed], np.int64),
        "alike": np.array(alike, np.int64),
        "seats": np.zeros(pages, np.int64),
        "busy": np.zeros((actors, folds), np.int16),
        "turned": np.zeros((folds, pages), np.int16),
        "moves": np.array(turns, np.int64).reshape(len(turns), places),
        "image": np.zeros((len(turns), places, folds), np.int16),
        "parts": np.zeros((3, places), np.int64),
    }


def _measure(count: Array, shape: Shape, size: Size) -> None:
    """Write what the kernel needs to know of the sizes."""
    count["capacity"], count["columns"] = min(size.states, size.entered()), sum(size.own)
    bits = size.slots.bit_length() - 1
    count["shift"], count["part"] = WORD_BITS - bits, bits - (shape.shards.bit_length() - 1)


def size_of(arrays: Mapping[str, Array]) -> Size:
    """What there is room for now."""
    own = tuple(int(mask) + 1 for mask in arrays["fields"]["mask"][1:])
    states, slots, edges, memories, words = (len(arrays[name]) for name in ("node", "table", "to", "memory", "pool"))
    return Size(states, slots, edges, memories, words, own)


def grown(arrays: Mapping[str, Array], shape: Shape) -> Size:
    """More room for whatever has none left for one state's steps: four times as much, or twice of what is wide."""
    size, count = size_of(arrays), {name: int(arrays["count"][name][0]) for name in COUNT.names or ()}
    larger = 4 if size.slots < LARGE else 2
    own = tuple(2 * room if used == room else room for room, used in zip(size.own, arrays["many"], strict=True))
    return Size(
        states=size.states * (4 if size.states - count["states"] < shape.widest else 1),
        slots=size.slots * (larger if size.entered() - count["states"] < shape.widest else 1),
        edges=size.edges * (4 if shape.edges and size.edges - count["edges"] < shape.widest else 1),
        memories=size.memories * (2 if size.memories - count["memories"] <= shape.widest + 1 else 1),
        words=size.words * (4 if count["spare"] - count["used"] <= 2 * shape.widest + 4 else 1),
        own=own,
    )


def bytes_of(arrays: Mapping[str, Array], shape: Shape, size: Size) -> int:
    """Bytes of all arrays that a limit counts, those that grow as they would be at this size."""
    shapes: dict[str, tuple[int, ...]] = {name: array.shape for name, array in arrays.items()}
    shapes |= size.shapes(shape)
    return sum(math.prod(shapes[name]) * array.itemsize for name, array in arrays.items() if name not in _SCRATCH)


def resize(arrays: dict[str, Array], shape: Shape, size: Size) -> frozenset[str]:
    """Bring the arrays to a size, one after the other, so that none but the one being copied is there twice. Returns
    which hash tables, `table` and `places`, are empty now."""
    shapes = size.shapes(shape)
    used, old, new = _used(arrays), arrays["fields"], size.fields()
    other = {name for name, wanted in shapes.items() if arrays[name].shape != wanted}
    if (old != new).any():
        arrays["recall"] = _moved(arrays, size, used["memory"])
        arrays["node"] = _repacked(arrays.pop("node"), used["parent"], shapes["node"], old, new)
        arrays["fields"] = new
        other = other - {"recall", "node"} | {"table"}
    if "table" in other:
        other |= {"seat"}
    for name in other:
        array = arrays.pop(name)
        arrays[name] = np.zeros(shapes[name], array.dtype)
        if name in used:
            part = (slice(used[name]), *(slice(n) for n in array.shape[1:]))
            arrays[name][part] = array[: used[name]]
        del array
    _measure(arrays["count"], shape, size)
    return frozenset(other & {"table", "places"})


def _used(arrays: Mapping[str, Array]) -> dict[str, int]:
    """How much of each array is to be kept; what is not named is filled anew."""
    count = {name: int(arrays["count"][name][0]) for name in COUNT.names or ()}
    by_state = dict.fromkeys(("node", "parent", "by", "pending", "enabled"), count["states"])
    return by_state | {
        "first": count["states"] + 1,
        "to": count["edges"],
        "via": count["edges"],
        "memory": count["memories"],
        "pool": count["used"],
        "own": count["actors"],
        "recall": count["memories"] * count["columns"],
    }


def _moved(arrays: Mapping[str, Array], size: Size, memories: int) -> Array:
    """`recall`, each actor's columns where they will be."""
    old = arrays["recall"].reshape(len(arrays["memory"]), -1)
    made = np.zeros((size.memories, sum(size.own)), old.dtype)
    was, now = arrays["fields"], size.fields()
    for before, after in zip(was[1:], now[1:], strict=True):
        room = int(before["mask"]) + 1
        made[:memories, after["column"] : after["column"] + room] = old[
            :memories, before["column"] : before["column"] + room
        ]
    return made.reshape(-1)


def _repacked(old: Array, states: int, shape: tuple[int, ...], was: Array, now: Array) -> Array:
    """The states' rows, with their numbers where they will be."""
    made = np.zeros(shape, np.int64)
    for low in range(0, states, CHUNK):
        rows, written = old[low : min(low + CHUNK, states)], made[low : min(low + CHUNK, states)]
        for before, after in zip(was, now, strict=True):
            number = rows[:, before["word"]] >> before["shift"] & before["mask"]
            written[:, after["word"]] |= number << after["shift"]
    return made
