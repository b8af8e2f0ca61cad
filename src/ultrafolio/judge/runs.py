"""One operation of a thread, in C and in the rules: its next step, and its end.

Both sides start from the same state with the same thread, and end with a word: done, again (-EAGAIN: the caller
retries), fatal (the guest is lost), refused (the device gets no pin), skipped (the device gets its pins without that
of this page), kept (the page stays), late (too late to recover), or "waits for ..." if no other thread runs.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from types import SimpleNamespace

from ..model.layout import (
    AGAIN,
    DEAD,
    DEVICE_IDLE,
    DISK,
    E_LATE,
    IMPORT_MAP,
    IO_START,
    LOCK_VM,
    PIN_GET,
    RECLAIM,
    RECLAIM_FREE,
    RECLAIM_IDLE,
    RECLAIM_LOCK,
    RECLAIM_SWAP,
    RECLAIM_UNMAP,
    SUCCESS,
    TOUCH,
    UNSHARE,
    VCPU,
    WB_IDLE,
    WB_LOCK,
    WRITEBACK,
    State,
)
from .watch import Watched
from .world import World

PAGE_SKIPPED = 1
"""The result of a fast pin in shim.h if its walk continues without the page."""


@dataclass(frozen=True, slots=True)
class Way:
    """An operation in the rules: the kind of actor, the first rule, and the rules at which it has ended."""

    kind: int
    start: int
    ends: tuple[int, ...]


WAYS = {
    "import": Way(VCPU, IMPORT_MAP, (AGAIN, DEAD)),
    "unshare": Way(VCPU, IMPORT_MAP, (AGAIN, DEAD)),
    "pin": Way(DISK, PIN_GET, (IO_START, DEVICE_IDLE)),
    "pin-fast": Way(DISK, PIN_GET, (IO_START, DEVICE_IDLE)),
    "writeback": Way(WRITEBACK, WB_LOCK, (WB_IDLE,)),
    "reclaim": Way(RECLAIM, RECLAIM_LOCK, (RECLAIM_IDLE, RECLAIM_FREE)),
    "unmap-lazy": Way(RECLAIM, RECLAIM_UNMAP, (RECLAIM_IDLE, RECLAIM_SWAP)),
    "unmap-flush": Way(RECLAIM, RECLAIM_UNMAP, (RECLAIM_IDLE, RECLAIM_SWAP)),
    "unmap-full": Way(RECLAIM, RECLAIM_UNMAP, (RECLAIM_IDLE, RECLAIM_SWAP)),
}


def set_up(state: State, thread: int, operation: str, page: int) -> None:
    """Put a thread at the start of its operation."""
    k = state.task[thread]
    way = WAYS[operation]
    k.page, k.pc = page, way.start
    if way.kind == VCPU:
        k.call = UNSHARE if operation == "unshare" else TOUCH
        state.actor[thread].op, state.actor[thread].page = k.call, page
        if state.cfg[0].import_lock == LOCK_VM:
            k.mutex, state.vm[state.who[thread].vm].mutex = 1, thread + 1
    if way.kind == DISK:
        k.n, k.at = 1, 0
        state.actor[thread].page = page
    if operation == "writeback":
        k.back = WB_IDLE


def rule_end(state: State, thread: int, operation: str, outcome: int) -> str:
    """The word with which a thread of the rules ended; "" before its end."""
    pc = state.task[thread].pc
    if pc not in WAYS[operation].ends:
        return ""
    if outcome == E_LATE:
        return "late"
    if operation in ("import", "unshare"):
        return "fatal" if pc == DEAD else "done" if outcome == SUCCESS else "again"
    if operation.startswith("pin"):
        return "done" if pc == IO_START else "refused"
    if operation == "reclaim":
        return "done" if pc == RECLAIM_FREE else "kept"
    return "done"


def c_end(world: World, thread: int, operation: str, value: int) -> str:
    """The word for the result of a kernel function."""
    if thread in world.was_late:
        return "late"
    if operation == "unshare" and value == 0 and thread not in world.unpinned:
        return "again"  # the guest goes on, and its unshare exits once more
    if operation in ("import", "unshare"):
        return "done" if value == 0 else "again" if value == -errno.EAGAIN else "fatal"
    if operation.startswith("pin"):
        return "done" if value == 0 else "skipped" if value == PAGE_SKIPPED else "refused"
    if operation == "reclaim":
        return "done" if value == 0 else "kept"
    return "done"


def rule_step(watched: Watched, rules: SimpleNamespace, thread: int) -> int:
    """Take one step of a thread of the rules. Returns its outcome, negative if it waits."""
    return int(rules.step(watched.state, thread, 0, 0))
