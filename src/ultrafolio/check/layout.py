"""How the checker keeps states, and what it remembers of them.

A *component* is what changes together: a page (its uv, mm, io and pt records), a virtual machine, an actor (its task
and actor records). Each different one is stored once and has a number. The pages and machines of a state together are
its *memory*, a vector of component numbers, also stored once. A state is then a row of few bytes: the number of its
memory, and the number of each actor's component.

A thread's step depends on the memory and on its own component alone, so it is run once for each such pair and
remembered (see local.py for the steps that look further). There are some thousands of pairs where there are millions
of states, so exploring is mostly looking up rows in a hash table.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ultrafolio.model.layout import ACTOR, IO, MM, PT, TASK, UV, VM, State

PAGE_WORDS, ACTOR_WORDS, VM_WORDS = 4, 6, 1
assert MM.itemsize + UV.itemsize + IO.itemsize + PT.itemsize <= 8 * PAGE_WORDS
assert TASK.itemsize + ACTOR.itemsize <= 8 * ACTOR_WORDS
assert VM.itemsize <= 8 * VM_WORDS
MAX_ACTORS = 63
MAX_COMPONENTS = 32_000
MAX_MEMORIES = 1 << 28
PROPERTIES_END, OBSTACLES_END = 10, 32

COUNT = np.dtype([(name, np.int64) for name in (
    "states", "next", "round", "edges", "capacity", "area", "components", "memories", "used", "spare", "widest",
    "actors", "keeps", "folds", "stop", "limit",
)])  # fmt: skip
RUNNING, FULL, OVERFLOW, LIMIT = range(4)
FOUND = np.dtype([("state", np.int64), ("by", np.int64)])


class Space(NamedTuple):
    """The explored part of a state graph. States are expanded in rounds; within one, each worker has an area of
    the candidates, and each shard is a part of the hash table that one worker fills.

    count      one COUNT record: states reached, the next to expand, states of this round, edges, room for states,
               candidates of an area, components, memories, words used of `pool` from its start, and left below its
               spare end, most steps of one state, actors, whether edges are kept and like pages folded, why it
               stopped, most states
    kept       component words, and how many; index: their open hash table
    spans      first word, words of each component of the raw buffer
    copy       the raw buffer of the state whose steps are run
    memory     the component numbers of each memory: pages, then machines; places: their open hash table
    pool       remembered steps, from position 1: a header, then a word for each step; see kernel.study
    recall     open hash table of (memory, thread, component) -> position in `pool`
    node       per state a row of 16-bit lanes, four a word: the memory's number (2), each actor's component; in
               breadth-first order, and from `capacity` on the candidates
    parent, by the edge on which a state was first reached; by = actor << 16 | choice
    table      open hash table of states: 31 bits of hash << 32 | number + 1
    steps      per state of the round and actor: position in `pool`
    hash, target, slot   per shard and candidate: its hash; the state it turned out to be; its place in `table`
    order      per candidate of an area, in the order of the edges: its row
    made, loops, missed  per worker: candidates; steps that change nothing; pairs not yet remembered
    listed     per worker and shard: candidates (rows far apart, since every worker counts in its own all the time)
    fresh      per shard and worker: new states
    pending    per state: bit t, actor t has begun something that leads-to must end
    enabled    per state: bit t, thread t's fair step is enabled
    first      per state: number of its first edge;  to, via: the edges' target and by
    fired      per worker: steps taken per rule
    found      per worker and property: the first edge that breaks it, FOUND (state -1: none)
    met        per worker: the first time a vCPU met an obstacle, by outcome, or 16 - the reason of a refusal; FOUND
    choices    per actor: first, count into ops, pages
    alike      per page: 0, or the number of the like pages it is one of; seats: who is busy with it, a bit each
    busy       per actor and component: the page it is busy with + 2 (0: not known yet)
    turned     per component and page: the component busy with that page instead + 1
    """

    count: Any
    kept: Any
    index: Any
    spans: Any
    copy: Any
    memory: Any
    places: Any
    pool: Any
    recall: Any
    node: Any
    parent: Any
    by: Any
    table: Any
    steps: Any
    hash: Any
    target: Any
    slot: Any
    order: Any
    made: Any
    loops: Any
    missed: Any
    listed: Any
    fresh: Any
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
        cfg=state.cfg, who=state.who,
        uv=view(UV, pages, MM.itemsize, step), mm=view(MM, pages, 0, step),
        vm=view(VM, vms, at_vm, 8 * VM_WORDS), task=view(TASK, actors, at_actor, 8 * ACTOR_WORDS),
        actor=view(ACTOR, actors, at_actor + TASK.itemsize, 8 * ACTOR_WORDS),
        io=view(IO, pages, MM.itemsize + UV.itemsize, step),
        pt=view(PT, pages, MM.itemsize + UV.itemsize + IO.itemsize, step),
    )  # fmt: skip


def spans(pages: int, actors: int, vms: int) -> np.ndarray[Any, Any]:
    """(first word, words) of every component in the raw buffer: pages, machines, actors."""
    at_actor = (pages + 1) * PAGE_WORDS
    at_vm = at_actor + (actors + 1) * ACTOR_WORDS
    rows = [(p * PAGE_WORDS, PAGE_WORDS) for p in range(pages)]
    rows += [(at_vm + v * VM_WORDS, VM_WORDS) for v in range(vms)]
    rows += [(at_actor + t * ACTOR_WORDS, ACTOR_WORDS) for t in range(actors)]
    return np.array(rows, np.int64)


def lanes(actors: int) -> int:
    """Words of a state's row."""
    return (2 + actors + 3) // 4
