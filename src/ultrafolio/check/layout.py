"""How the checker keeps states: a state is a vector of component numbers, each component stored once.

A component is what changes together: a page (its uv, mm, io and pt records), an actor (task and actor), a virtual
machine. A step changes few of them, so few are looked up; a state costs two bytes a component.
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

COUNT = np.dtype([("states", np.int64), ("next", np.int64), ("edges", np.int64), ("components", np.int64),
                  ("stop", np.int64), ("limit", np.int64)])  # fmt: skip
RUNNING, FULL, OVERFLOW, LIMIT = range(4)
FOUND = np.dtype([("state", np.int64), ("by", np.int64)])


class Space(NamedTuple):
    """The explored part of a state graph; arrays grow by doubling.

    count      one COUNT record             fired   steps taken per rule
    kept       component words, MAX_COMPONENTS x ACTOR_WORDS; index, their open hash table
    spans      first word, words of each component of the raw buffer
    node       per state its component numbers, in breadth-first order
    copy       the raw buffer of the state being expanded
    table      open hash table of states: 31 bits of hash << 32 | number + 1
    parent, by the edge on which a state was first reached; by = actor << 16 | choice
    pending    per state: bit t, actor t has begun something that leads-to must end
    enabled    per state: bit t, thread t's fair step is enabled
    first      per state: number of its first edge;  to, via: the edges' target and by
    found      per property: the first edge that breaks it, FOUND (state -1: none)
    met        the first time a vCPU met an obstacle, by outcome, or 16 - the reason why a step was refused; FOUND
    choices    per actor: first, count into ops, pages
    """

    count: Any
    fired: Any
    kept: Any
    index: Any
    spans: Any
    node: Any
    copy: Any
    table: Any
    parent: Any
    by: Any
    pending: Any
    enabled: Any
    first: Any
    to: Any
    via: Any
    found: Any
    met: Any
    choices: Any
    ops: Any
    pages: Any


def raw_words(pages: int, actors: int, vms: int) -> int:
    """Words of the raw buffer in which one state is unpacked."""
    return pages * PAGE_WORDS + actors * ACTOR_WORDS + vms * VM_WORDS


def views(words: np.ndarray[Any, Any], state: State) -> State:
    """The sections as strided views into the raw buffer, component after component."""
    pages, actors, vms = len(state.mm), len(state.task), len(state.vm)
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
    """(first word, words) of every component."""
    sizes = [PAGE_WORDS] * pages + [ACTOR_WORDS] * actors + [VM_WORDS] * vms
    ends = np.cumsum(sizes)
    return np.array([(end - size, size) for end, size in zip(ends, sizes, strict=True)], np.int64)
