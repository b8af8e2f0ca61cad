"""What the simulator keeps of the design guest_memfd where it differs from records.py, under the same names.

All waiters of a machine are in one queue: they wait for the inode's invalidate lock, for the end of faults, or, with a
request that hangs, for the pins of any of its pages.
"""

from __future__ import annotations

import ast
import inspect

import numpy as np

from ultrafolio.model.designs import GUEST_MEMFD
from ultrafolio.model.guest_memfd.layout import W_DEVICE, W_FROZEN, W_IDLE, W_IO, W_LOCK, W_REFS, W_STOPPED, W_TABLE
from ultrafolio.waits import memfd

from . import records as _records
from .records import PARKED, releases

HANG_CLASSES = memfd.CLASSES
"""Classes of a hang: those that one state shows."""

WAIT = np.dtype([*_records.WAIT.descr, ("locked", np.uint8), ("met", np.int64)])
"""As that of records.py. locked: the actor waits for the invalidate lock;  met: the time in ns since when."""

MEASURES = (
    "events", "touches", "stalls", "stall_ns", "stall_lock", "stall_refs", "open_stalls", "open_stall_ns",
    "hang_permanent", "hang_vmm_bound", "first_hang_ns",
    "requests", "conversions", "conversions_needless", "pages_converted", "convert_ns", "refusals", "retries",
    "told_no", "faults", "fault_retries", "exits", "user_faults", "sigbus", "pins", "pin_retries", "pins_refused",
    "drains_own", "drains_all", "lock_waits", "lock_wait_ns", "holes", "io_done", "io_ns", "violations",
)  # fmt: skip
METRIC = np.dtype([(name, np.int64) for name in MEASURES])

FREES: dict[str, tuple[int, ...]] = {"lock": (-W_LOCK,), "refs": (-W_REFS, PARKED)}
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
VM_REASONS = LOCK_REASONS | REFS_REASONS
PAGE_REASONS = _records.ALL_REASONS ^ VM_REASONS
