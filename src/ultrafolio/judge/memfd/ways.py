"""An operation of a thread of guest_memfd, in C and in the rules: its begin, and the word of its end.

Both sides end with a word: done, mapped, again (the vCPU faults once more), exit (the VMM is told), or "waits".
"""

from __future__ import annotations

from typing import Any

from ultrafolio.model.guest_memfd.layout import (
    AGAIN,
    CONVERT_LOCK,
    E_RETRY,
    EXITED,
    FAULT_SNAPSHOT,
    HOLE,
    HOLE_IDLE,
    HOLE_LOCK,
    OK,
    SHARE,
    TOUCH,
    UNSHARE,
    VCPU,
    VMM,
    VMM_IDLE,
    VMM_RETRY,
)

from ..runs import Way

RETRIES, MAPPED = 1, 5
"""RET_PF_RETRY and RET_PF_FIXED of shim.h."""
EFAULT = 14


WAYS = {
    "hole": Way(HOLE, HOLE_LOCK, (HOLE_IDLE,)),
    "fault-private": Way(VCPU, FAULT_SNAPSHOT, (AGAIN, EXITED)),
    "fault-shared": Way(VCPU, FAULT_SNAPSHOT, (AGAIN, EXITED)),
    "to-private": Way(VMM, CONVERT_LOCK, (VMM_IDLE, VMM_RETRY)),
    "to-shared": Way(VMM, CONVERT_LOCK, (VMM_IDLE, VMM_RETRY)),
}


def set_up(state: Any, thread: int, operation: str, page: int, pages: int) -> None:
    """Put a thread at the start of its operation."""
    k, way = state.task[thread], WAYS[operation]
    k.pc = way.start
    if way.kind == VCPU:
        k.page, k.call = page, int(operation == "fault-private")
        state.actor[thread].op, state.actor[thread].page = TOUCH, page
        return
    k.start, k.end = page, page + pages
    if way.kind == VMM:
        k.page, k.n, k.call = page, pages, UNSHARE if operation == "to-private" else SHARE


def rule_end(state: Any, thread: int, operation: str, outcome: int) -> str:
    """The word with which a thread of the rules ended; "" before its end."""
    pc = state.task[thread].pc
    if pc not in WAYS[operation].ends:
        return ""
    if operation.startswith("fault"):
        words = {OK: "mapped", E_RETRY: "again"}
        return "exit" if pc == EXITED else words.get(outcome, f"outcome {outcome}")
    return "refused" if pc == VMM_RETRY else "done"


def c_end(operation: str, value: int) -> str:
    """The word for the result of a kernel function."""
    if operation.startswith("fault"):
        return {-EFAULT: "exit", RETRIES: "again", MAPPED: "mapped"}.get(value, f"result {value}")
    return "done" if value == 0 else f"error {-value}"
