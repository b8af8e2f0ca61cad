"""What the simulator keeps of the design guest_memfd where it differs from records.py, under the same names.

All waiters of a machine are in one queue: they wait for the inode's invalidate lock, for the lock of a fresh folio, for
the end of faults, or, with a request that hangs, for the pins of any of its pages.
"""

from __future__ import annotations

import ast
import inspect

import numpy as np

from ultrafolio.model.designs import GUEST_MEMFD
from ultrafolio.model.guest_memfd.layout import (
    CONVERT_END,
    CONVERT_LOCK,
    CONVERT_RESTRUCTURE,
    CONVERT_STORE,
    CONVERT_UNMAP,
    CONVERT_ZAP,
    DMA_READY,
    FAULT_LOOKUP,
    FAULT_MAP,
    FRESH_SPLIT,
    GUP_WALK,
    HOLE_LOCK,
    SPECULATIVE_IDLE,
    VMM_RETRY,
    W_DEVICE,
    W_FROZEN,
    W_IDLE,
    W_IO,
    W_LOCK,
    W_MUTEX,
    W_REFS,
    W_STOPPED,
    W_TABLE,
)
from ultrafolio.waits import memfd

from . import records as _records
from .records import PARKED, releases

HANG_CLASSES = memfd.CLASSES
"""Classes of a hang: those that one state shows."""

WAIT = np.dtype([
    *_records.WAIT.descr,
    *((name, np.uint8) for name in ("locked", "drained", "faulted", "stuck", "wide")),
    ("met", np.int64),
    *((name, np.int32) for name in ("low", "high", "first", "end", "noted", "calls", "beside")),
])  # fmt: skip
"""As that of records.py. locked: the actor waits for the invalidate lock;  met: the time in ns since when;  drained:
who has the lock drains LRU batches meanwhile;  faulted: a touch that faulted is under way;  stuck: how often in a row
its fault has mapped nothing, TRIES at most. The others are of memfd_pages.py: what stood before an actor's step."""

MEASURES = (
    "events", "touches", "stalls", "stall_ns", "stall_lock", "stall_refs", "open_stalls", "open_stall_ns",
    "hang_permanent", "hang_vmm_bound", "first_hang_ns",
    "requests", "conversions", "conversions_needless", "pages_converted", "convert_ns", "refusals", "retries",
    "told_no", "faults", "fault_retries", "exits", "user_faults", "sigbus", "pins", "pin_retries", "pins_refused",
    "drains_own", "drains_all", "lock_waits", "lock_wait_ns", "drain_waits", "drain_wait_ns", "fault_ns",
    "stuck_faults", "holes", "io_done", "io_ns",
    "machine_calls", "machine_ns", "splits", "merges", "restructure_ns", "pages_lost", "extra_bytes",
    "flushes", "tlb_misses", "walk_ns", "violations",
)  # fmt: skip
METRIC = np.dtype([(name, np.int64) for name in MEASURES])

PRICE_CALL, PRICE_ZAP, PRICE_FLUSH, PRICE_ZERO, PRICE_FOLIO, PRICE_FOLIO_PAGE, PRICE_WALK, PRICE_TLB = range(8)
"""Places of world.price, in the order of costs.PRICES."""
DESCRIPTOR = 64
"""Bytes of the kernel's descriptor of a page (struct page). HugeTLB keeps one page of them for a huge page; a split
needs the others again (HVO; 1G page support, RFC v2, May 2025)."""
MAY_CALL = tuple(
    int(pc in (FAULT_LOOKUP, FAULT_MAP, CONVERT_ZAP, CONVERT_STORE, CONVERT_END))
    for pc in range(GUEST_MEMFD.last_rule + 1)
)
"""Per rule: whether its step may give a page to the machine, or take one back."""
KEEPS = tuple(int(pc in (DMA_READY, GUP_WALK, SPECULATIVE_IDLE, VMM_RETRY)) for pc in range(GUEST_MEMFD.last_rule + 1))
"""Per rule: whether LOAD.latency passes after its step."""
NOTED = tuple(
    int(MAY_CALL[pc] or pc in (CONVERT_UNMAP, CONVERT_RESTRUCTURE, FRESH_SPLIT, CONVERT_LOCK, HOLE_LOCK))
    for pc in range(GUEST_MEMFD.last_rule + 1)
)
"""Per rule: whether memfd_pages.note() precedes its step."""

TRIES = 3
"""Faults in a row that map nothing, after which a vCPU waits for a conversion."""

FREES: dict[str, tuple[int, ...]] = {"lock": (-W_LOCK,), "mutex": (-W_MUTEX,), "refs": (-W_REFS, PARKED)}
OF_A_MACHINE = tuple(FREES)
POLLED = (-W_IDLE, -W_DEVICE)
ENDLESS_WAITS = (-W_IO, -W_STOPPED, -W_FROZEN, -W_TABLE)
"""Reasons that no step ends: nothing in this design stops a machine or freezes a count."""
STOPS_MACHINE = -1
"""No rule stops a machine."""


def _given() -> dict[int, str]:
    """Returns the reasons to wait that the steps of the design, and what they call, name; and their words."""
    trees = [ast.parse(inspect.getsource(module)) for module in GUEST_MEMFD.modules]
    functions = {node.name: node for tree in trees for node in tree.body if isinstance(node, ast.FunctionDef)}
    left, used = [rule.function.__name__ for rule in GUEST_MEMFD.rules.values()], set[str]()
    while left:
        node = functions.pop(left.pop(), None)
        names = {part.id for part in ast.walk(node) if isinstance(part, ast.Name)} if node else set[str]()
        used |= names
        left += names
    numbers = sorted(-GUEST_MEMFD.constants[name] for name in used if name.startswith("W_"))
    return {number: GUEST_MEMFD.waits[number] for number in numbers}


RELEASES = releases(GUEST_MEMFD.rules, FREES, (*POLLED, *ENDLESS_WAITS), _given(), "sim/memfd_records.py")
LOCK_REASONS = 1 << -W_LOCK
REFS_REASONS = 1 << -W_REFS | 1 << PARKED
VM_REASONS = LOCK_REASONS | REFS_REASONS | 1 << -W_MUTEX
PAGE_REASONS = _records.ALL_REASONS ^ VM_REASONS
