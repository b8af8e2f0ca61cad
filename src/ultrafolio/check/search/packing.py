"""How the checker keeps states, and what it remembers of them.

A *component* is what changes together: a page (its uv, mm, io and pt records), a virtual machine, an actor (its task
and actor records). Each different one is stored once and has a number; an actor's components have small numbers of the
actor's own besides. The pages and machines of a state together are its *memory*, a vector of component numbers, also
stored once. A state is then a row of few bits: the number of its memory, and each actor's own number of its component.
Most systems need one word of 63 bits. The fields of a row grow when numbers do (allocation.py).

A thread's step depends on the memory and on its own component alone, so it is run once for each such pair and
remembered (see local.py for the steps that look further). There are some thousands of pairs where there are millions
of states, so exploring is mostly looking up rows in a hash table.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ultrafolio.model.bounds import Outgrown
from ultrafolio.model.layout import (
    ACTOR,
    DEAD,
    IO,
    MM,
    OUTCOMES,
    PT,
    TASK,
    UV,
    VM,
    WAITS,
    State,
)
from ultrafolio.model.properties import PROPERTIES

PAGE_WORDS, ACTOR_WORDS, VM_WORDS = (
    -(-sum(record.itemsize for record in records) // 8) for records in ((MM, UV, IO, PT), (TASK, ACTOR), (VM,))
)
COMPONENT_WORDS = max(PAGE_WORDS, ACTOR_WORDS, VM_WORDS)
WORD_BITS = 63
MAX_ACTORS = WORD_BITS
MAX_COMPONENTS = 32_000
MAX_CHOICES = 1 << 14
MAX_PAGES = 1 << 12
LEAST_MEMORIES, MAX_MEMORIES = 1 << 20, 1 << 28
PROPERTIES_END = len(PROPERTIES)
REFUSALS = len(OUTCOMES) - 1
OBSTACLES_END = REFUSALS + len(WAITS)
MET_END = 2 * OBSTACLES_END
"""An obstacle's number is its outcome, or REFUSALS - outcome where a step was refused; OBSTACLES_END more if an unshare
met it."""


def places(word: str, **fields: int) -> tuple[int, ...]:
    """Where the fields of a packed word stand, one after the other, shift and mask of each; given the largest number
    that each must hold. Outgrown where a word has not that many bits."""
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


_, MEMORY_MASK, STEP_OWN, OWN_MASK, STEP_CHOICE, CHOICE_MASK, STEP_PROPERTY, _ = places(
    "a remembered step", memory=MAX_MEMORIES - 1, own=MAX_COMPONENTS - 1, choice=MAX_CHOICES - 1,
    property=PROPERTIES_END - 1,
)  # fmt: skip
AFTER_MASK = (1 << STEP_CHOICE) - 1
"""A remembered step: what is there after it, a memory and the actor's own number; the choice; the property broken,
for which all higher bits are left."""
(_, STEPS_MASK, HEAD_FAIR, _, HEAD_PENDING, _, HEAD_RULE, RULE_MASK, HEAD_OBSTACLE, OBSTACLE_MASK, HEAD_PAGE,
 _) = places(
    "the header of remembered steps", steps=MAX_CHOICES, fair=1, pending=1, rule=DEAD, obstacle=MET_END - 1,
    page=MAX_PAGES - 1,
)  # fmt: skip
BY_ACTOR = 16
"""An edge is called by = actor << BY_ACTOR | choice, in every file of the checker and in traces."""

COUNT = np.dtype([(name, np.int64) for name in (
    "states", "next", "round", "edges", "capacity", "area", "components", "memories", "used", "spare", "widest",
    "actors", "columns", "keeps", "numbers", "folds", "loaded", "shift", "part", "stop", "limit", "none",
)])  # fmt: skip
RUNNING, FULL, OVERFLOW, LIMIT = range(4)
FIELD = np.dtype([("word", np.int64), ("shift", np.int64), ("mask", np.int64), ("column", np.int64)])
ROUND = BATCH = 32
"""States that a worker who is alone takes at a time; things that are asked of memory before the first is used."""
COME, SLOT = 0, 1
"""What stands behind the row of a candidate."""
LINE = 16
"""Words from one place that all workers write to the next: they share no cache line, nor a pair of lines."""
FOUND = np.dtype([("state", np.int64), ("by", np.int64)])


class Space(NamedTuple):
    """The explored part of a state graph. States are expanded in rounds; within one, each worker has an area of
    the candidates, and each shard is a part of the hash table that one worker fills.

    count      one COUNT record: states reached, the next to expand, states of this round, edges, room for states,
               candidates of an area, components, memories (numbered from 1, so that no row is 0), words used of `pool`
               from its start, and left below its spare end, most steps of one state, actors, columns of `recall`,
               whether edges are kept, numbers in the table, and like pages folded, the memory in the raw buffer, bits
               of a hash below those that choose a slot, and of a slot below those that choose a shard, why it stopped,
               most states, and 0 that is no literal: Numba compiles a function again for each literal it is given
    kept       component words, and how many; index: their open hash table
    spans      first word, words of each component of the raw buffer
    own        per actor and its own number: the component; owned: per actor and component, its own number + 1
    many       per actor: its own numbers
    memory     the component numbers of each memory: pages, then machines; places: their open hash table
    pool       remembered steps, from position 1: a header, then a word for each step; see kernel.study
    recall     per memory and column, one for each own number of each actor: position in `pool`, or 0
    fields     where a row's numbers stand, FIELD: the memory's, then each actor's and its first column
    node       per state its row of words, in breadth-first order
    parent, by the edge on which a state was first reached; by = actor << BY_ACTOR | choice
    table      open hash table of states: rows, or 0; seat: the number of the state there, where edges are kept
    steps      per state of the round and actor: position in `pool`
    new        per shard and candidate of an area: its row; COME, by << 32 | the state it comes from; SLOT, its place in
               `table`, inverted where it is new there
    order      per candidate of an area, in the order of the edges: where it is in `new`
    listed     per worker and shard: candidates (rows LINE apart, since every worker counts in its own all the time)
    made, loops, missed  per worker: candidates; steps that change nothing; pairs not yet remembered
    fresh      per shard and worker: new states
    gate       the workers that have come to a meeting, and LINE words on, the meetings that are over
    pending    per state: bit t, actor t has begun something that leads-to must end
    enabled    per state: bit t, thread t's fair step is enabled
    first      per state: number of its first edge;  to, via: the edges' target and by
    fired      steps taken per rule: by each worker in this round, and in the last row before it
    found      per worker and property: the first edge that breaks it, FOUND (state -1: none)
    met        per worker and actor: the first time a vCPU met an obstacle, by outcome or its reason to refuse, and by
               page; FOUND
    choices    per actor: first, count into ops, pages
    alike      per page: 0, or the number of the like pages it is one of; seats: who is busy with it, a bit each
    busy       per actor and component: the page it is busy with + 2 (0: not known yet)
    turned     per component and page: the component busy with that page instead + 1
    moves      per turn of like guests and place (of pages, machines, actors): the place that its component goes to
    image      per turn, place and component: what becomes of it there + 1
    parts      component numbers of a state that is folded: as it is, the least so far, after a turn
    """

    count: Any
    kept: Any
    index: Any
    spans: Any
    own: Any
    owned: Any
    many: Any
    memory: Any
    places: Any
    pool: Any
    recall: Any
    fields: Any
    node: Any
    parent: Any
    by: Any
    table: Any
    seat: Any
    steps: Any
    new: Any
    order: Any
    listed: Any
    made: Any
    loops: Any
    missed: Any
    fresh: Any
    gate: Any
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
    alike: Any
    seats: Any
    busy: Any
    turned: Any
    moves: Any
    image: Any
    parts: Any


def raw_words(pages: int, actors: int, vms: int) -> int:
    """Words of the raw buffer in which one state is unpacked; one record more of each than the state has, since an
    array of a single record is of another type to Numba, and everything would be compiled again for it."""
    return (pages + 1) * PAGE_WORDS + (actors + 1) * ACTOR_WORDS + (vms + 1) * VM_WORDS


def views(words: np.ndarray[Any, Any], state: State) -> State:
    """The sections as strided views into the raw buffer, component after component, with a record to spare."""
    pages, actors, vms = len(state.mm) + 1, len(state.task) + 1, len(state.vm) + 1
    data = words.view(np.uint8)
    step = 8 * PAGE_WORDS
    at_actor = pages * step
    at_vm = at_actor + actors * 8 * ACTOR_WORDS

    def view(dtype: Any, n: int, offset: int, stride: int) -> Any:
        return np.ndarray((n,), dtype, data.data, offset, (stride,))

    return State(
        cfg=state.cfg,
        who=state.who,
        uv=view(UV, pages, MM.itemsize, step),
        mm=view(MM, pages, 0, step),
        vm=view(VM, vms, at_vm, 8 * VM_WORDS),
        task=view(TASK, actors, at_actor, 8 * ACTOR_WORDS),
        actor=view(ACTOR, actors, at_actor + TASK.itemsize, 8 * ACTOR_WORDS),
        io=view(IO, pages, MM.itemsize + UV.itemsize, step),
        pt=view(PT, pages, MM.itemsize + UV.itemsize + IO.itemsize, step),
    )


def spans(pages: int, actors: int, vms: int) -> np.ndarray[Any, Any]:
    """(first word, words) of every component in the raw buffer: pages, machines, actors."""
    at_actor = (pages + 1) * PAGE_WORDS
    at_vm = at_actor + (actors + 1) * ACTOR_WORDS
    rows = [(p * PAGE_WORDS, PAGE_WORDS) for p in range(pages)]
    rows += [(at_vm + v * VM_WORDS, VM_WORDS) for v in range(vms)]
    rows += [(at_actor + t * ACTOR_WORDS, ACTOR_WORDS) for t in range(actors)]
    return np.array(rows, np.int64)


def fields(memories: int, room: Sequence[int]) -> np.ndarray[Any, Any]:
    """Where a row's numbers stand: FIELD records for memories below `memories`, and for so many own numbers of each
    actor; all are powers of two. No field spans two words. The memory's has bits to spare, for it would grow late, when
    there are many rows to rewrite."""
    made = np.zeros(1 + len(room), FIELD)
    word = shift = column = 0
    for record, size in zip(made, (max(memories, LEAST_MEMORIES), *room), strict=True):
        bits = size.bit_length() - 1
        if shift + bits > WORD_BITS:
            word, shift = word + 1, 0
        record["word"], record["shift"], record["mask"] = word, shift, size - 1
        shift += bits
    for record, size in zip(made[1:], room, strict=True):
        record["column"] = column
        column += size
    return made
