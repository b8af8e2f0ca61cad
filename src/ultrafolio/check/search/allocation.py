"""The arrays of an exploration: their capacities, and how they grow."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ultrafolio.check.search.packing import (
    BUCKET,
    COUNT,
    FOUND,
    LINE,
    MAX_PARTS,
    MET_END,
    NARROW,
    PART_WORDS,
    PROPERTIES_END,
    ROUND,
    row_fields,
    spans,
)
from ultrafolio.check.search.places import columns, copy_index, home_of, widths
from ultrafolio.check.search.reach import Regions, regions_of
from ultrafolio.check.symmetry.like_pages import Symmetry
from ultrafolio.model import designs
from ultrafolio.model.scenario import System

Array = np.ndarray[Any, Any]
FIRST_SLOTS, FIRST_IDS = 1 << 16, 16
"""Initial capacities: slots of the hash table, and ids of each region and actor."""
FEWEST_SLOTS = 1 << 12
"""Initial slots for a limit of few states: what is made is zeroed."""
LARGE_TABLE = 1 << 22
"""Slots from which the hash table grows by half; smaller ones quadruple. Growth enters all states again; of a large
table, what is not used is much."""
SHARED_ROUND = 256
"""States per round of two workers."""
CACHE_LINE = 64
"""Bytes."""
ROOM = 16
"""An array to which states or edges are added is made for so many times what is asked: what is not written takes no
memory, and the array is seldom copied."""
MOST_PLACES = 1 << 26
"""Most places of `index` with columns for narrow regions."""
REPACK_STATES = 1 << 16
"""Rows that are repacked in one numpy operation."""


@dataclass(frozen=True, slots=True)
class Params:
    """The constants of one exploration that decide the shapes of its arrays.

    max_steps     upper bound of the steps that leave one state
    area          candidates that a round can have
    edges         whether edges are kept
    numbers       whether the table keeps the states' numbers; edges need them
    homes         per actor: the region that it uses if it is one, or one of pages beside one of a machine; else -1
    besides       per actor: the region of a machine that it uses beside its home, or -1
    found         the regions;  regions: how many;  widest: positions of the widest
    """

    max_steps: int
    area: int
    edges: bool
    numbers: bool
    homes: tuple[int, ...]
    besides: tuple[int, ...]
    found: Regions
    regions: int
    widest: int

    @staticmethod
    def of(system: System, threads: int, *, edges: bool, numbers: bool, found: Regions | None = None) -> Params:
        """Returns the Params of an exploration of `system` by `threads` threads. found: its regions; default:
        regions_of()."""
        max_steps = sum(max(1, len(some)) for some in system.choices)
        found = found or regions_of(system)
        places = found.places
        pages = len(system.state.mm)
        machines = frozenset(r for r, positions in enumerate(places) if positions[0] >= pages)
        homes = [home_of(mine, machines) for mine in found.uses]
        return Params(
            max_steps,
            max(ROUND, SHARED_ROUND if threads > 1 else 0) * max_steps,
            edges,
            numbers,
            tuple(home for home, _ in homes),
            tuple(beside for _, beside in homes),
            found,
            len(places),
            max(map(len, places)),
        )


@dataclass(frozen=True, slots=True)
class Capacity:
    """Capacity of the arrays: slots of the hash table of states, edges, memories of a region, words of `pool`, slots of
    memo_table, ids of each region and then of each actor that a row can hold, short ids of each actor. Memories, memo
    slots and ids are powers of two."""

    slots: int
    edges: int
    memories: int
    pool: int
    memo: int
    ids: tuple[int, ...]
    short_limit: tuple[int, ...]

    @property
    def states(self) -> int:
        """Most states: three of four slots are used."""
        return self.slots * 3 // 4

    def homes(self, params: Params) -> tuple[tuple[int, int], ...]:
        """Returns per actor its home and the narrow region beside it: those of `params`, while such regions have few
        memories and `index` is not large; else (-1, -1) for who has one beside its home."""
        made = tuple(zip(params.homes, params.besides, strict=True))
        few = all(self.ids[beside] <= 1 << NARROW for beside in params.besides if beside >= 0)
        if few and self.memories * sum(widths(made, self.short_limit)) <= MOST_PLACES:
            return made
        return tuple((home, beside) if beside < 0 else (-1, -1) for home, beside in made)

    def fields(self, params: Params) -> Array:
        """Returns the FIELD records of a row at this capacity."""
        narrow = frozenset(beside for _, beside in self.homes(params) if beside >= 0)
        return row_fields(self.ids, params.regions, narrow)

    def array_shapes(self, params: Params) -> dict[str, tuple[int, ...]]:
        """Shapes of all arrays that grow, by field of Space."""
        width = int(self.fields(params)["word"][-1]) + 1
        kept, edges = (self.states, self.edges) if params.edges else (0, 0)
        return {
            "memories": (params.regions, self.memories, params.widest),
            "memory_table": (params.regions, 2 * self.memories),
            "reach": (len(self.ids) - params.regions, width),
            "pool": (self.pool,),
            "index": (self.memories * sum(widths(self.homes(params), self.short_limit)),),
            "memo_table": (self.memo,),
            "node": (self.states, width),
            "parent": (self.states,),
            "by": (self.states,),
            "table": (self.slots, width),
            "slot_state": (self.slots if params.numbers else 1,),
            "candidate_rows": (2 * params.area, width + 2),
            "to": (edges,),
            "via": (edges,),
            "pending": (kept,),
            "enabled": (kept,),
            "first": (kept + 1,),
        }


_ROOMY = ("node", "parent", "by", "to", "via", "pending", "enabled", "first", "pool", "index")
"""Arrays of ROOM times their capacity."""
_TYPES = {
    "memories": np.int16,
    "memory_table": np.int32,
    "memo_table": np.int32,
    "index": np.int32,
    "parent": np.int32,
    "by": np.int32,
    "slot_state": np.int32,
    "to": np.int32,
    "via": np.int32,
}
_SCRATCH = ("steps", "candidate_rows")
"""Arrays that bytes_of() does not count: their size depends on the workers, and a limit must not."""


def first_capacity(params: Params, actors: int, max_states: int) -> Capacity:
    """Returns the initial capacity: no more states than the limit lets come."""
    wide = 1 << (8 * params.max_steps).bit_length()
    slots = min(FIRST_SLOTS, max(FEWEST_SLOTS, 1 << (2 * (max_states + params.max_steps)).bit_length()))
    return Capacity(
        slots,
        min(FIRST_SLOTS, 4 * slots),
        max(FIRST_SLOTS >> 6, wide),
        max(FIRST_SLOTS >> 2, wide * (4 + actors)),
        FIRST_SLOTS >> 4,
        (FIRST_IDS,) * (params.regions + actors),
        (FIRST_IDS,) * actors,
    )


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
    regions, capacity = params.found, first_capacity(params, actors, max_states)
    count = np.zeros(1, COUNT)
    count["area"], count["max_steps"], count["actors"] = params.area, params.max_steps, actors
    count["keeps_edges"], count["keeps_numbers"] = params.edges, params.numbers
    count["limit"], count["places"], count["shared_round"] = max_states, pages + vms, SHARED_ROUND
    fields = capacity.fields(params)
    places = np.zeros((params.regions, params.widest), np.int64)
    for r, positions in enumerate(regions.places):
        places[r, : len(positions)] = positions
    uses = np.array(regions.uses, np.int64).reshape(actors, params.regions)
    page_class, permutations = (symmetry.page_class, symmetry.permutations) if symmetry else ((0,) * pages, ())
    parts, cached = pages + vms + actors, MAX_PARTS if symmetry else 1
    found, met = (np.zeros(n, FOUND) for n in (PROPERTIES_END, actors * MET_END * pages))
    found["state"] = met["state"] = -1
    made = {
        **{
            name: _aligned(wanted, _TYPES.get(name, np.int64)) for name, wanted in capacity.array_shapes(params).items()
        },
        "reach": reach_of(fields, uses, capacity.array_shapes(params)["reach"]),
        "uses": uses,
        "extent": np.array(regions.extents, np.int64).reshape(actors, 2),
        "region_places": places,
        "region_width": np.array([len(positions) for positions in regions.places], np.int64),
        "memory_count": np.ones(params.regions, np.int64),
        "loaded": np.zeros(params.regions, np.int64),
        "count": count,
        "part_words": np.zeros((MAX_PARTS, PART_WORDS + 1), np.int64),
        "part_table": np.zeros(1 << 17, np.int32),
        "spans": spans(pages, actors, vms),
        "fields": fields,
        "short_parts": np.zeros((actors, MAX_PARTS), np.int16),
        "short_ids": np.zeros((actors, MAX_PARTS), np.int16),
        "short_count": np.zeros(actors, np.int64),
        "steps": np.zeros(params.area // params.max_steps * actors, np.int64),
        **{name: np.zeros(2, np.int64) for name in ("candidates", "loops", "source", "sources", "new_states")},
        "barrier": np.zeros(2 * LINE, np.int64),
        "fired": np.zeros((3, designs.of(state).last_rule + 1), np.int64),
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
        **{name: np.zeros(actors, np.int64) for name in ("short_limit", "home", "beside", "index_at", "index_step")},
    }
    _write_limits(made, params, capacity)
    return made


def reach_of(fields: Array, uses: Array, shape: tuple[int, ...]) -> Array:
    """Returns per actor the mask of a row under which are its own field and those of the regions that it uses."""
    made = np.zeros(shape, np.int64)
    for t, mine in enumerate(uses):
        for field in (*np.flatnonzero(mine).tolist(), len(mine) + t):
            made[t, fields["word"][field]] |= fields["mask"][field] << fields["shift"][field]
    return made


def _write_limits(arrays: Mapping[str, Array], params: Params, capacity: Capacity) -> None:
    """Write the numbers that the compiled functions need of a capacity into COUNT, and where `index` has what."""
    count = arrays["count"]
    count["capacity"], count["edge_capacity"], count["pool_end"] = capacity.states, capacity.edges, capacity.pool
    count["slots"] = capacity.slots
    count["most_kept"] = capacity.memo * 3 // 8
    arrays["short_limit"][:] = capacity.short_limit
    for t, (home, beside) in enumerate(capacity.homes(params)):
        arrays["home"][t], arrays["beside"][t] = home, beside
    for t, at, step in columns(capacity.homes(params), capacity.short_limit, len(arrays["index"])):
        arrays["index_at"][t], arrays["index_step"][t] = at, step


def capacity_of(arrays: Mapping[str, Array]) -> Capacity:
    """Returns the present capacity of the arrays."""
    count = {name: int(arrays["count"][name][0]) for name in ("slots", "edge_capacity", "pool_end")}
    memories, memo = arrays["memories"].shape[1], len(arrays["memo_table"])
    ids, limits = tuple(arrays["fields"]["ids"].tolist()), tuple(arrays["short_limit"].tolist())
    return Capacity(count["slots"], count["edge_capacity"], memories, count["pool_end"], memo, ids, limits)


def next_capacity(arrays: Mapping[str, Array], params: Params) -> Capacity:
    """Returns the next capacity: that of each array which could not hold one more state's successors grows."""
    capacity, count = capacity_of(arrays), {name: int(arrays["count"][name][0]) for name in COUNT.names or ()}
    used = [*arrays["memory_count"].tolist(), *arrays["short_count"].tolist()]
    masks = arrays["fields"]["mask"].tolist()
    most = (params.max_steps + 1) * (arrays["node"].shape[1] + 1)
    full = any(n > mask for n, mask in zip(used, masks, strict=True))
    fewest = capacity.memories - max(used[: params.regions])
    return Capacity(
        slots=_more_slots(capacity.slots) if capacity.states - count["states"] < params.max_steps else capacity.slots,
        edges=capacity.edges * (2 if params.edges and capacity.edges - count["edges"] < params.max_steps else 1),
        memories=capacity.memories * (2 if fewest <= params.max_steps + 1 else 1),
        pool=capacity.pool * (2 if count["spare"] - count["used"] <= 2 * most else 1),
        memo=capacity.memo * (2 if count["kept"] >= count["most_kept"] else 1),
        ids=tuple(max(had, 1 << n.bit_length()) for had, n in zip(capacity.ids, used, strict=True))
        if full
        else capacity.ids,
        short_limit=tuple(
            2 * had if n == had else had for had, n in zip(capacity.short_limit, used[params.regions :], strict=True)
        ),
    )


def _more_slots(slots: int) -> int:
    """Returns the next number of slots, a multiple of BUCKET."""
    if slots < LARGE_TABLE:
        return 4 * slots
    return -(-slots * 3 // 2 // BUCKET) * BUCKET


def bytes_of(arrays: Mapping[str, Array], params: Params, capacity: Capacity) -> int:
    """Returns the bytes of all arrays but _SCRATCH at this capacity."""
    shapes: dict[str, tuple[int, ...]] = {name: array.shape for name, array in arrays.items()}
    shapes |= capacity.array_shapes(params)
    return sum(math.prod(shapes[name]) * array.itemsize for name, array in arrays.items() if name not in _SCRATCH)


def resize(arrays: dict[str, Array], params: Params, capacity: Capacity) -> frozenset[str]:
    """Reallocate `arrays` to `capacity`, one at a time: peak memory is the new size plus one array. The steps of actors
    with a home stay in `index`.

    Returns the hash tables that are now empty; the caller refills them (graph.refilled). Where the fields of a row
    change, the rows are rewritten, and the memoised steps are dropped: they are run again where they are needed.
    """
    shapes, count = capacity.array_shapes(params), arrays["count"]
    used, old, new, before = _used(arrays), arrays["fields"], capacity.fields(params), capacity_of(arrays)
    other = {name for name, shape in shapes.items() if not _suffices(name, arrays[name].shape, shape)}
    if (old != new).any() or before.homes(params) != capacity.homes(params):
        arrays["node"] = _repacked(arrays.pop("node"), used["node"], shapes["node"], old, new)
        arrays["fields"], arrays["reach"] = new, reach_of(new, arrays["uses"], shapes["reach"])
        count["used"], count["kept"] = 1, 0
        used["pool"] = 0
        other = other - {"node", "reach"} | {"table", "index", "memo_table"}
    if capacity.short_limit != before.short_limit:
        other |= {"index"}
    if other & {"table", "slot_state"}:
        other |= {"table", "slot_state"}
    for name in other:
        array = arrays.pop(name)
        arrays[name] = _roomy(name, shapes[name], array.dtype)
        if name in used:
            part = (slice(used[name]), *(slice(n) for n in array.shape[1:]))
            arrays[name][part] = array[: used[name]]
        elif name == "memories":
            arrays[name][:, : array.shape[1]] = array
        elif name == "index" and used["pool"]:
            copy_index(
                array, before.memories, before.short_limit, arrays[name], capacity.short_limit, capacity.homes(params)
            )
        del array
    _write_limits(arrays, params, capacity)
    return frozenset(other & {"table", "memory_table", "memo_table"})


def _suffices(name: str, has: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    """Whether an array of a shape is large enough; all but roomy ones must have the very shape."""
    return has[1:] == wanted[1:] and has[0] >= wanted[0] if name in _ROOMY else has == wanted


def _roomy(name: str, shape: tuple[int, ...], dtype: Any) -> Array:
    """Returns a zeroed array of a shape, with ROOM for more where states or edges are added to it, if the system gives
    so much."""
    try:
        return _aligned((shape[0] * (ROOM if name in _ROOMY else 1), *shape[1:]), dtype)
    except MemoryError:
        return _aligned(shape, dtype)


def _aligned(shape: tuple[int, ...], dtype: Any) -> Array:
    """Returns a zeroed array that begins at a cache line, so that a bucket of the table is one."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    data = np.zeros(size + CACHE_LINE, np.uint8)
    first = -data.ctypes.data % CACHE_LINE
    made: Array = data[first : first + size].view(dtype).reshape(shape)
    return made


def _used(arrays: Mapping[str, Array]) -> dict[str, int]:
    """Returns how many entries of each array are copied; an array that is absent is refilled, or copied whole."""
    count = {name: int(arrays["count"][name][0]) for name in COUNT.names or ()}
    by_state = dict.fromkeys(("node", "parent", "by", "pending", "enabled"), count["states"])
    return by_state | {
        "first": count["states"] + 1,
        "to": count["edges"],
        "via": count["edges"],
        "pool": count["used"],
    }


def _repacked(old: Array, states: int, shape: tuple[int, ...], was: Array, now: Array) -> Array:
    """Returns the states' rows, their ids moved from the fields `was` to the fields `now`."""
    made = _roomy("node", shape, np.int64)
    for low in range(0, states, REPACK_STATES):
        rows, written = old[low : min(low + REPACK_STATES, states)], made[low : min(low + REPACK_STATES, states)]
        for before, after in zip(was, now, strict=True):
            number = rows[:, before["word"]] >> before["shift"] & before["mask"]
            written[:, after["word"]] |= number << after["shift"]
    return made
