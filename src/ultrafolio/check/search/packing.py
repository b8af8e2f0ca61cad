"""The packed form of states (collapse compression), and the arrays of an exploration.

A *part* is the records of one page (uv, mm, io and pt), one virtual machine, or one actor (task and actor). Each
distinct part is stored once, under a *part id*. Within one actor a part also has a *short id*, which needs fewer bits.
Pages and machines are divided into *regions* (reach.py): a folio, a machine, or several of them that the same actors
look at. The part ids of a region in a state are its *memory*; each distinct one is stored once, under an id of its
region. A state is a row of bits: the id of each region's memory, then each actor's short id. Most systems need one word
of 63 bits. The fields of a row widen when ids do (allocation.py).

A thread's step depends only on the thread's own part and on the memories of the regions that it looks at: on the row
under a mask, the thread's *reach*. So it is run once per masked row and memoised (thread_local.py finds the rules that
read other threads). Systems have some thousands of masked rows and millions of states, so exploration is mostly
look-ups in a hash table. Regions that no thread looks at together add their masked rows, and do not multiply them.
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
MAX_MEMORIES = 1 << 28
REGION_SHARE, MOST_FIELD, NARROW = 3, 28, 6
"""See row_fields(). MOST_FIELD: most bits of a field; NARROW: of that of a region which `index` has a column for."""
PROPERTIES_END = designs.PROPERTIES_END
REFUSALS = designs.OUTCOMES_END - 1
OBSTACLES_END = REFUSALS + len(WAITS)
MET_END = 2 * OBSTACLES_END
"""An obstacle's number is its outcome, or REFUSALS - outcome where a step was refused; plus OBSTACLES_END for an
unshare."""


def bit_fields(word: str, most: int = WORD_BITS, **fields: int) -> tuple[int, ...]:
    """Returns shift and mask of each field of a packed word, in order. fields: the largest number that each must hold.

    Raises Outgrown if they need more than `most` bits.
    """
    made: list[int] = []
    shift = 0
    for name, largest in fields.items():
        if shift + largest.bit_length() > most:
            raise Outgrown(
                f"{name} in {word}, a word of {most} bits",
                largest,
                (1 << (most - shift)) - 1,
                "check/search/packing.py: fewer bits for the other fields, or a second word",
            )
        made += shift, (1 << largest.bit_length()) - 1
        shift += largest.bit_length()
    return tuple(made)


LABEL_BITS = 20
_, CHOICE_MASK, STEP_PROPERTY, _ = bit_fields(
    "a memoised step", LABEL_BITS, choice=MAX_CHOICES - 1, property=PROPERTIES_END - 1
)
"""The label of a memoised step: the choice; the broken property, in all higher bits."""


def _header(last: int) -> tuple[int, ...]:
    """Returns shift and mask of each field of the header of memoised steps, for rules up to number `last`."""
    return bit_fields(
        "the header of memoised steps", steps=MAX_CHOICES, fair=1, pending=1, rule=last, obstacle=MET_END - 1,
        page=MAX_PAGES - 1, actor=MAX_ACTORS - 1, told=1,
    )  # fmt: skip


_HEADER = ("", "STEPS_MASK", "HEAD_FAIR", "", "HEAD_PENDING", "", "HEAD_RULE", "RULE_MASK", "HEAD_OBSTACLE",
           "OBSTACLE_MASK", "HEAD_PAGE", "PAGE_MASK", "HEAD_ACTOR", "ACTOR_MASK", "HEAD_TOLD", "")  # fmt: skip
(_, STEPS_MASK, HEAD_FAIR, _, HEAD_PENDING, _, HEAD_RULE, RULE_MASK, HEAD_OBSTACLE, OBSTACLE_MASK, HEAD_PAGE,
 PAGE_MASK, HEAD_ACTOR, ACTOR_MASK, HEAD_TOLD, _) = _header(DEAD)  # fmt: skip


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
    "states", "next", "round", "careful", "edges", "capacity", "edge_capacity", "area", "parts", "places", "used",
    "spare", "pool_end", "kept", "most_kept", "max_steps", "actors", "keeps_edges", "keeps_numbers", "slots",
    "stop", "limit", "shared_round", "zero",
)])  # fmt: skip
RUNNING, FULL, OVERFLOW, LIMIT = range(4)
FIELD = np.dtype([("word", np.int64), ("shift", np.int64), ("mask", np.int64), ("ids", np.int64)])
ROUND = BATCH = 32
"""ROUND: states per round of a single worker. BATCH: prefetches in flight."""
FEW = 4
"""A round of two workers has at least 1/FEW of COUNT.shared_round states."""
ORIGIN, SLOT = 0, 1
"""Columns behind the row of a candidate."""
HASH_BITS = 32
"""Bits of a hash that decide the slot of a state, the highest."""
BUCKET = 8
"""Slots of the table that are compared at once, a cache line where a row has one word."""
LINE = 16
"""Words between counters of different workers, so that two never share a cache line or a pair of lines."""
FOUND = np.dtype([("state", np.int64), ("by", np.int64)])


class Space(NamedTuple):
    """The explored part of a state graph. States are expanded in rounds, by one worker or by two. Of two, one writes
    candidates to one half of `candidate_rows` while the other stores those of the other half.

    count         one COUNT record:
        states, next, round, edges    states reached; next state to expand; states of this round; edges
        careful                       rounds of states below this one have one state
        capacity, edge_capacity       most states; most edges, if they are kept
        area, max_steps               candidates of a half; most steps that leave one state
        parts, places, actors         distinct parts; pages and machines; actors
        used, spare, pool_end         words used at the start of `pool`; start of the words used at its end; its end
        kept, most_kept               masked rows in memo_table; most of them
        keeps_edges, keeps_numbers    flags: keep edges; keep the numbers of the states in the table
        slots                         slots of `table`
        stop, limit                   RUNNING or why it stopped; most states
        shared_round                  states per round of two workers
        zero                          0 that is no literal: Numba compiles a function again for each literal argument
    part_words    per part id: its words, then how many; part_table: their open hash table
    spans         per part of the raw buffer: first word, words
    short_parts   per actor and short id: part id; short_ids: per actor and part id: short id + 1
    short_count   per actor: short ids in use; short_limit: most of them in the columns of `index`
    region_places  per region: its positions (pages, machines); region_width: how many
    memories      per region and id, from 1: part ids of its positions; memory_table: per region their open hash table
    memory_count  per region: the next id; loaded: the id whose parts are in the raw buffer, 0 for none
    uses          per actor and region: whether the actor's steps look at the region
    extent        per actor: the pages that its steps look at: first, and the one behind the last
    reach         per actor: the mask of a row under which are all fields that its steps look at
    pool          memoised steps, from position 1: a header, the steps, a masked row where the actor has no home; see
                  memo.run_steps
    home          per actor: the region that it uses if it is one, or one beside a narrow one, else -1
    beside        per actor: the narrow region that it uses beside its home, or -1
    index         per memory and short id of an actor with a home: position in `pool`, or 0; the place is index_at of
                  the actor + its index_step * memory + its short_limit * memory of the region beside + short id
    memo_table    open hash table of the masked rows of the other actors: position in `pool`, or 0
    fields        FIELD records of a row: of each region, then of each actor
    node          per state: its row of words, in breadth-first order
    parent, by    per state: the edge on which it was first reached; by = actor << BY_ACTOR | choice
    table         open hash table of states: rows, or 0, in buckets of BUCKET slots; slot_state: per slot the state's
                  number, if numbers are kept
    steps         per state of the round and actor: position in `pool`
    candidate_rows  per half and candidate, in the order of edges: its row; ORIGIN: by << 32 | source state; SLOT: the
                  slot of `table` at which its probe starts
    candidates, loops  per half: candidates; steps that change nothing
    source, sources  per half: the first state whose candidates it has; how many such states, 0 once they are stored
    new_states    per half: states that were new
    barrier       workers that have arrived; LINE words on: barriers passed
    pending       per state: bit t: actor t has begun something that leads-to must end
    enabled       per state: bit t: thread t's fair step is enabled
    first         per state: number of its first edge;  to, via: per edge: target and by
    fired         steps per rule: of each half; last row: of all earlier rounds
    found         per property: the first edge that breaks it, FOUND (state -1: none)
    met           per actor, obstacle number and page: where a vCPU met it first, FOUND
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
    short_limit: Any
    region_places: Any
    region_width: Any
    memories: Any
    memory_table: Any
    memory_count: Any
    loaded: Any
    uses: Any
    extent: Any
    reach: Any
    pool: Any
    home: Any
    beside: Any
    index: Any
    index_at: Any
    index_step: Any
    memo_table: Any
    fields: Any
    node: Any
    parent: Any
    by: Any
    table: Any
    slot_state: Any
    steps: Any
    candidate_rows: Any
    candidates: Any
    loops: Any
    source: Any
    sources: Any
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


def row_fields(ids: Sequence[int], regions: int, narrow: frozenset[int] = frozenset()) -> np.ndarray[Any, Any]:
    """Returns the FIELD records of a row for so many `ids` of each region and then of each actor, all powers of two. No
    field spans two words. What is left of a word widens its fields, those of regions REGION_SHARE times as much, but
    those of `narrow` regions to NARROW bits at most: widening one later rewrites all rows."""
    words: list[list[int]] = [[]]
    bits = [max(1, n.bit_length() - 1) for n in ids]
    for number, size in enumerate(bits):
        if sum(bits[other] for other in words[-1]) + size > WORD_BITS:
            words.append([])
        words[-1].append(number)
    made = np.zeros(len(ids), FIELD)
    for word, here in enumerate(words):
        share = {number: REGION_SHARE if number < regions else 1 for number in here}
        left, shift = WORD_BITS - sum(bits[number] for number in here), 0
        for number in here:
            most = NARROW if number in narrow else MOST_FIELD
            size = min(bits[number] + left * share[number] // sum(share.values()), most)
            made[number] = word, shift, (1 << size) - 1, ids[number]
            shift += size
    return made
