"""The packed form of states (collapse compression), and the arrays of an exploration.

A *part* is the records of one page (uv, mm, io and pt), one virtual machine, or one actor (task and actor). Each
distinct part is stored once, under a *part id*. Within one actor a part also has a *short id*, which needs fewer bits.
The part ids of all pages and machines of a state are its *shared vector*; each distinct one is stored once, under an
id. A state is a row of bits: the id of its shared vector, then each actor's short id. Most systems need one word of 63
bits. The fields of a row widen when ids do (allocation.py).

A thread's step depends only on the shared vector and on the thread's own part, so it is run once per such pair and
memoised (thread_local.py finds the rules that read other threads). Systems have some thousands of pairs and millions of
states, so exploration is mostly look-ups in a hash table.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ultrafolio.model import designs
from ultrafolio.model.bounds import Outgrown, fits
from ultrafolio.model.design import Design
from ultrafolio.model.layout import (
    ACTOR,
    DEAD,
    IO,
    MM,
    PT,
    TASK,
    UV,
    VM,
    WAITS,
    State,
)

PAGE_WORDS, ACTOR_WORDS, VM_WORDS = (
    -(-sum(record.itemsize for record in records) // 8) for records in ((MM, UV, IO, PT), (TASK, ACTOR), (VM,))
)
"""Words of a part. Every design's records fit (header())."""
PART_WORDS = max(PAGE_WORDS, ACTOR_WORDS, VM_WORDS)
WORD_BITS = 63
MAX_ACTORS = WORD_BITS
MAX_PARTS = 32_000
MAX_CHOICES = 1 << 14
MAX_PAGES = 1 << 12
MIN_SHARED, MAX_SHARED = 1 << 20, 1 << 28
PROPERTIES_END = designs.PROPERTIES_END
REFUSALS = designs.OUTCOMES_END - 1
OBSTACLES_END = REFUSALS + len(WAITS)
MET_END = 2 * OBSTACLES_END
"""An obstacle's number is its outcome, or REFUSALS - outcome where a step was refused; plus OBSTACLES_END for an
unshare."""


def bit_fields(word: str, **fields: int) -> tuple[int, ...]:
    """Returns shift and mask of each field of a packed word, in order. fields: the largest number that each must hold.

    Raises Outgrown if they need more than WORD_BITS bits.
    """
    made: list[int] = []
    shift = 0
    for name, largest in fields.items():
        if shift + largest.bit_length() > WORD_BITS:
            raise Outgrown(
                f"{name} in {word}, a word of {WORD_BITS} bits",
                largest,
                (1 << (WORD_BITS - shift)) - 1,
                "check/search/packing.py: fewer bits for the other fields, or a second word",
            )
        made += shift, (1 << largest.bit_length()) - 1
        shift += largest.bit_length()
    return tuple(made)


_, SHARED_MASK, STEP_SHORT, SHORT_MASK, STEP_CHOICE, CHOICE_MASK, STEP_PROPERTY, _ = bit_fields(
    "a memoised step", shared=MAX_SHARED - 1, short=MAX_PARTS - 1, choice=MAX_CHOICES - 1,
    property=PROPERTIES_END - 1,
)  # fmt: skip
AFTER_MASK = (1 << STEP_CHOICE) - 1
"""A memoised step: the shared vector and the actor's short id after it; the choice; the broken property, in all higher
bits."""


def _header(last: int) -> tuple[int, ...]:
    """Returns shift and mask of each field of the header of memoised steps, for rules up to number `last`."""
    return bit_fields(
        "the header of memoised steps", steps=MAX_CHOICES, fair=1, pending=1, rule=last, obstacle=MET_END - 1,
        page=MAX_PAGES - 1,
    )  # fmt: skip


_HEADER = ("", "STEPS_MASK", "HEAD_FAIR", "", "HEAD_PENDING", "", "HEAD_RULE", "RULE_MASK", "HEAD_OBSTACLE",
           "OBSTACLE_MASK", "HEAD_PAGE", "")  # fmt: skip
(_, STEPS_MASK, HEAD_FAIR, _, HEAD_PENDING, _, HEAD_RULE, RULE_MASK, HEAD_OBSTACLE, OBSTACLE_MASK, HEAD_PAGE,
 _) = _header(DEAD)  # fmt: skip


def header(design: Design) -> dict[str, int]:
    """Returns the constants of the header of memoised steps for a design, which may have more rules. Raises Outgrown if
    its records do not fit into parts, or its properties into steps."""
    sections = design.constants["SECTIONS"]
    for words, names in ((PAGE_WORDS, ("mm", "uv", "io", "pt")), (ACTOR_WORDS, ("task", "actor")), (VM_WORDS, ("vm",))):
        size = sum(sections[name].itemsize for name in names)
        fits(f"bytes of {' and '.join(names)} of the design {design.name}", size, 8 * words, "check/search/packing.py")
    fits(f"properties of the design {design.name}", len(design.properties), PROPERTIES_END, "check/search/packing.py")
    return {name: n for name, n in zip(_HEADER, _header(design.last_rule), strict=True) if name}


BY_ACTOR = 16
"""An edge's label is by = actor << BY_ACTOR | choice, in the checker and in trace files."""

COUNT = np.dtype([(name, np.int64) for name in (
    "states", "next", "round", "edges", "capacity", "area", "parts", "shared", "used", "spare", "max_steps",
    "actors", "columns", "keeps_edges", "keeps_numbers", "folds", "loaded", "shift", "shard_shift", "stop", "limit",
    "zero",
)])  # fmt: skip
RUNNING, FULL, OVERFLOW, LIMIT = range(4)
FIELD = np.dtype([("word", np.int64), ("shift", np.int64), ("mask", np.int64), ("column", np.int64)])
ROUND = BATCH = 32
"""ROUND: states per round of a single worker. BATCH: prefetches in flight."""
ORIGIN, SLOT = 0, 1
"""Columns behind the row of a candidate."""
LINE = 16
"""Words between counters of different workers, so that two never share a cache line or a pair of lines."""
FOUND = np.dtype([("state", np.int64), ("by", np.int64)])


class Space(NamedTuple):
    """The explored part of a state graph. States are expanded in rounds. In a round each worker writes candidates to
    its own area, and each shard of the hash table is filled by one worker.

    count         one COUNT record:
        states, next, round, edges    states reached; next state to expand; states of this round; edges
        capacity, area, max_steps     capacity in states; candidates of an area; most steps that leave one state
        parts, shared                 distinct parts; distinct shared vectors, from id 1, so that no row is 0
        used, spare                   words used at the start of `pool`; start of the words used at its end
        actors, columns               actors; columns of `pool_index`
        keeps_edges, keeps_numbers, folds  flags: keep edges; keep numbers in the table; reduce by symmetry
        loaded                        id of the shared vector in the raw buffer
        shift, shard_shift            right shift of a hash to a slot; of a slot to a shard
        stop, limit                   RUNNING or why it stopped; most states
        zero                          0 that is no literal: Numba compiles a function again for each literal argument
    part_words    per part id: its words, then how many; part_table: their open hash table
    spans         per part of the raw buffer: first word, words
    short_parts   per actor and short id: part id; short_ids: per actor and part id: short id + 1
    short_count   per actor: short ids in use
    shared        per shared vector: part ids of pages, then machines; shared_table: their open hash table
    pool          memoised steps, from position 1: a header, then a word per step; see memo.run_steps
    pool_index    per shared vector and column (one per short id of each actor): position in `pool`, or 0
    fields        FIELD records of a row: the shared vector's, then each actor's with its first column
    node          per state: its row of words, in breadth-first order
    parent, by    per state: the edge on which it was first reached; by = actor << BY_ACTOR | choice
    table         open hash table of states: rows, or 0; slot_state: per slot the state's number, if edges are kept
    steps         per state of the round and actor: position in `pool`
    candidate_rows  per shard and candidate of an area: its row; ORIGIN: by << 32 | source state; SLOT: its slot in
                  `table`, inverted for a new state
    order         per candidate of an area, in edge order: its index in `candidate_rows`
    bucket_sizes  per worker and shard: candidates, LINE words apart
    candidates, loops, missed  per worker: candidates; steps that change nothing; pairs that are not memoised
    new_states    per shard and worker: new states
    barrier       workers that have arrived; LINE words on: barriers passed
    pending       per state: bit t: actor t has begun something that leads-to must end
    enabled       per state: bit t: thread t's fair step is enabled
    first         per state: number of its first edge;  to, via: per edge: target and by
    fired         steps per rule: of each worker in this round; last row: of all earlier rounds
    found         per worker and property: the first edge that breaks it, FOUND (state -1: none)
    met           per worker, actor, obstacle number and page: where a vCPU met it first, FOUND
    choices       per actor: first, count into ops, pages
    page_class    per page: 0, or the number of its class of interchangeable pages; busy_actors: bit t: actor t is busy
                  with the page
    busy_pages    per actor and part id: the page that it is busy with + 2 (0: not computed)
    retargeted    per part id and page: id of the part busy with that page instead, + 1
    permutations  per permutation and position (pages, machines, actors): the position that it maps to
    image         per permutation, position and part id: id of the permuted part + 1
    vectors       part ids of a state: as found; the least so far; permuted
    """

    count: Any
    part_words: Any
    part_table: Any
    spans: Any
    short_parts: Any
    short_ids: Any
    short_count: Any
    shared: Any
    shared_table: Any
    pool: Any
    pool_index: Any
    fields: Any
    node: Any
    parent: Any
    by: Any
    table: Any
    slot_state: Any
    steps: Any
    candidate_rows: Any
    order: Any
    bucket_sizes: Any
    candidates: Any
    loops: Any
    missed: Any
    new_states: Any
    barrier: Any
    pending: Any
    enabled: Any
    first: Any
    to: Any
    via: Any
    fired: Any
    found: Any
    met: Any
    choices: Any
    ops: Any
    pages: Any
    page_class: Any
    busy_actors: Any
    busy_pages: Any
    retargeted: Any
    permutations: Any
    image: Any
    vectors: Any


def raw_words(pages: int, actors: int, vms: int) -> int:
    """Returns the words of the raw buffer, which holds one unpacked state and one spare record per section: an array of
    a single record has another Numba type, and everything would be compiled again for it."""
    return (pages + 1) * PAGE_WORDS + (actors + 1) * ACTOR_WORDS + (vms + 1) * VM_WORDS


def views(words: np.ndarray[Any, Any], state: State) -> State:
    """Returns the sections as strided views into the raw buffer, part after part, each with a spare record."""
    pages, actors, vms = len(state.mm) + 1, len(state.task) + 1, len(state.vm) + 1
    data = words.view(np.uint8)
    step = 8 * PAGE_WORDS
    at_actor = pages * step
    at_vm = at_actor + actors * 8 * ACTOR_WORDS

    def view(dtype: Any, n: int, offset: int, stride: int) -> Any:
        return np.ndarray((n,), dtype, data.data, offset, (stride,))

    kinds = {name: getattr(state, name).dtype for name in state._fields}
    mm, uv, io = (kinds[name].itemsize for name in ("mm", "uv", "io"))
    return type(state)(
        cfg=state.cfg,
        who=state.who,
        uv=view(kinds["uv"], pages, mm, step),
        mm=view(kinds["mm"], pages, 0, step),
        vm=view(kinds["vm"], vms, at_vm, 8 * VM_WORDS),
        task=view(kinds["task"], actors, at_actor, 8 * ACTOR_WORDS),
        actor=view(kinds["actor"], actors, at_actor + kinds["task"].itemsize, 8 * ACTOR_WORDS),
        io=view(kinds["io"], pages, mm + uv, step),
        pt=view(kinds["pt"], pages, mm + uv + io, step),
    )


def spans(pages: int, actors: int, vms: int) -> np.ndarray[Any, Any]:
    """Returns (first word, words) of every part of the raw buffer: pages, machines, actors."""
    at_actor = (pages + 1) * PAGE_WORDS
    at_vm = at_actor + (actors + 1) * ACTOR_WORDS
    rows = [(p * PAGE_WORDS, PAGE_WORDS) for p in range(pages)]
    rows += [(at_vm + v * VM_WORDS, VM_WORDS) for v in range(vms)]
    rows += [(at_actor + t * ACTOR_WORDS, ACTOR_WORDS) for t in range(actors)]
    return np.array(rows, np.int64)


def row_fields(shared: int, short_ids: Sequence[int]) -> np.ndarray[Any, Any]:
    """Returns the FIELD records of a row for ids of shared vectors below `shared` and `short_ids` of each actor, all
    powers of two. No field spans two words. The shared vector's field has at least MIN_SHARED, since widening it late
    would rewrite many rows."""
    made = np.zeros(1 + len(short_ids), FIELD)
    word = shift = column = 0
    for record, size in zip(made, (max(shared, MIN_SHARED), *short_ids), strict=True):
        bits = size.bit_length() - 1
        if shift + bits > WORD_BITS:
            word, shift = word + 1, 0
        record["word"], record["shift"], record["mask"] = word, shift, size - 1
        shift += bits
    for record, size in zip(made[1:], short_ids, strict=True):
        record["column"] = column
        column += size
    return made
