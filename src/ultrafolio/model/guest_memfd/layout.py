"""The records, places of rules and words of the design guest_memfd. What is not named here is that of model/layout.py.

Some fields that their names do not explain:

    mm.private    the attribute of the page: set by conversions, read by faults
    mm.users      the processes whose page tables map the page, a bit each
    mm.locking    those of them whose mapping is VM_LOCKED
    mm.zapped     an invalidation of the page is in progress
    mm.kvm        how many of its plain references (mm.spec) are KVM's own
    uv.shared     the kind as which the guest uses the page; the host never reads it
    uv.state      what the hardware says of the page, HW_…; only the functions of a machine use it
    uv.lost       the content that the page had is gone, and no conversion has ended since
    uv.pamt       TDX: the PAMT pages of the huge page are to be dropped
    uv.refuses    the hardware never gives the page back;  uv.never: it never takes the page
    mm.stale      the page has what its frame held before: not yet written, or taken for written
    mm.allocated  the file has the page: THERE; the first page of a fresh huge folio that is to be split: LOCKED, or
                  UNWOKEN: the lock bit is cleared, and who sleeps for the lock is not woken
    vm.no_table, vm.no_folio  how often there is no memory to split an entry of the machine, or a folio; ENDLESS: never
    pt.large, uv.large  KVM's table, and the hardware, have one entry for the huge page
    pt.present    how KVM's table maps the page: not, as shared, or as private
    vm.mutex      the inode's invalidate lock: t + 1 of the conversion that holds it, or minus the faults that share it
    vm.fresh      bit t: no invalidation has ended since vCPU t took its snapshot of the sequence
    io.dma        the VMM's standing mappings of the page for DMA;  io.asked: the VMM wants to end them
    task.call     of a fault: 1 for an access to a private page; of a request: SHARE or UNSHARE
    task.then     after an exit: the kind of the access, plus 1
    task.page, task.n  of a request: its first page, and how many; start to end: the piece that is converted now
    task.splits   the request has changed an attribute; of a fault: it has found no page
    task.ref      the fault has a reference of its own on its page; with it, at a look-up, it sleeps for a folio's lock
    mm.turned     the request that has the lock has changed the attribute of the page
    cfg.block     log2 of the pages of a huge page; 0: pages are single ones
    task.exporting  of a fault: the guest accepts less than KVM maps
    task.failed   the page of the last refusal, plus 1
    task.back     the answer to the guest's request: NO_ANSWER, CONVERTED or REFUSED
"""

from __future__ import annotations

import numpy as np

from ultrafolio.model import layout as _shared
from ultrafolio.model.layout import *
from ultrafolio.model.layout import State

# ---- how KVM's table maps a page
MAPPED_PRIVATE = 2  # pt.present, beside UNMAPPED and MAPPED (as shared)

# ---- what the hardware says of a page: the host's; the guest's, not yet accepted; the guest's; not given back, for
# good; taken from the guest by force; shared by its guest (pKVM, where both may use it)
HW_HOST, HW_ASSIGNED, HW_PRIVATE, HW_STUCK, HW_POISONED, HW_BOTH = range(6)
HW_WORDS = ("host", "assigned", "private", "stuck", "poisoned", "both")
BY_USER, BY_KERNEL, BY_COPY, BY_DEVICE = range(4)
"""How the host accesses a page: a process, the kernel, the kernel where a failing access is expected, a device."""

# ---- actors
USER, VMM, HOLE, SPLICE = range(len(ACTOR_KINDS), len(ACTOR_KINDS) + 4)
_KEPT = ("vcpu", "disk", "lru", "speculative", "pin", "access")
KINDS = (*(name if name in _KEPT else "" for name in ACTOR_KINDS), "user", "vmm", "hole", "vmsplice")
NO_ANSWER, CONVERTED, REFUSED = range(3)

# ---- policy choices
DRAIN_ONCE = 1
HOLD_DROPPED, HOLD_MAPPED, HOLD_MAPPING = range(3)
IOMMU_NEVER, IOMMU_ON_EAGAIN, IOMMU_FIRST = range(3)
STUCK_IGNORED, STUCK_KEPT = range(2)
EXIT_REENTER, EXIT_CONVERT = range(2)
IN_PLACE, TWO_BACKINGS, BY_GUEST = range(3)
LARGE_NONE, LARGE_AFTER, LARGE_BEFORE = range(3)
PIECES_REQUEST, PIECES_FOLIO = range(2)
HW_SPLIT_NEVER, HW_SPLIT_BEFORE = range(2)
MERGE_ON_PRIVATE, MERGE_ON_FREE = range(2)
UP_TO_DATE, NOT_WRITTEN, TAKEN_FOR_WRITTEN = range(3)  # mm.stale
THERE, LOCKED, UNWOKEN = 1, 2, 3  # mm.allocated

# ---- which rule a thread runs next; shared places are those of model/layout.py
(
    FAULT_SNAPSHOT, FAULT_ATTRIBUTE, FAULT_LOCK, FAULT_LOOKUP, FAULT_UNLOCK, FAULT_MAP, EXITED, USER_IDLE, USER_LOCK,
    USER_LOOKUP, USER_MAP, GUP_GET, GUP_RECHECK, DMA_ASKED, VMM_IDLE, VMM_UNMAP, VMM_UNMAPPED, VMM_RETRY, CONVERT_LOCK,
    CONVERT_TEST, CONVERT_UNMAP, CONVERT_PINNED, CONVERT_COUNT, CONVERT_DRAIN_OWN, CONVERT_DRAIN_ALL, CONVERT_ZAP,
    CONVERT_STORE, CONVERT_RESTRUCTURE, CONVERT_ROLLBACK, CONVERT_END, HOLE_IDLE, HOLE_LOCK, HOLE_PUNCH, HOLE_END,
    PIPE_READ, FRESH_UNLOCK, FRESH_SPLIT,
) = range(DEAD + 1, DEAD + 38)  # fmt: skip
GUP_WALK, DMA_READY, DMA_END, DMA_STANDS = PIN_GET, IO_START, IO_END, RING_READY
"""Places of the steps of a device, which are steps of this design's own here."""
IDLE_PC = (*_shared.IDLE_PC, USER_IDLE, VMM_IDLE, HOLE_IDLE, DEVICE_IDLE)  # type: ignore[assignment]

# ---- words for outcomes and reasons to wait, by the numbers of model/layout.py
E_AGAIN, E_RETRY, E_EXIT, E_SIGBUS, E_TOLD_NO = E_REFS, E_UV, E_LATE, E_IO, MISUSE
_SAID = {FAULT: "exit", SUCCESS: "0", E_AGAIN: "-EAGAIN", E_RETRY: "retry: invalidated", E_EXIT: "memory-fault exit",
         E_SIGBUS: "SIGBUS", E_TOLD_NO: "told no"}  # fmt: skip
(
    E_BUSY, E_DEAD, E_LEAKED, E_FAULTED, E_REFAULT, E_OOPS, E_CHECK, E_STOLEN, E_POISONED,
    E_SEGV, E_NOMEM, E_LEVEL, E_TWICE,
) = range(len(_shared.OUTCOMES), len(_shared.OUTCOMES) + 13)  # fmt: skip
_OF_MACHINES = ("-EBUSY: retry", "VM dead", "leaked", "-EFAULT", "fault without end", "oops", "machine check",
                "taken from the guest", "KVM_RUN: -EFAULT", "SIGSEGV", "-ENOMEM", "EPT violation: level",
                "a second folio")  # fmt: skip
_WAITED = {
    -W_LOCK: "the inode's invalidate lock",
    -W_MUTEX: "the lock of a fresh huge folio",
    -W_DEVICE: "the end of the VMM's DMA mappings",
    -W_REFS: "the foreign references",
    -W_TABLE: "the end of the rollback",
}
OUTCOMES = (*(_SAID.get(number, word) for number, word in enumerate(_shared.OUTCOMES)), *_OF_MACHINES)  # type: ignore[assignment]
WAITS = tuple(_WAITED.get(number, word) for number, word in enumerate(_shared.WAITS))  # type: ignore[assignment]

VARIANT_FIELDS = (
    "end_first",
    "no_kick",
    "no_reclaim",
    "one_hook",
    "no_level",
    "merge_whole",
    "looks_first",
    "pamt_race",
    "split_refuses",
    "no_test",
    "quiet_hole",
    "no_wake",
)  # type: ignore[assignment]

CFG = np.dtype([(name, np.uint8) for name in ("refs", "drain", "hold", "retries", "iommu", "stuck",
                                            "on_exit", "convert", "large", "pieces", "hw_split", "merge",
                                            *VARIANT_FIELDS, "machine", "block")]
               + [("pages", np.int32), ("actors", np.int32), ("vms", np.int32)])  # fmt: skip
WHO = np.dtype([*((name, np.uint8) for name in ("kind", "vm", "cpu", "after", "awaited", "stuck", "process")),
                ("locks", np.uint8), ("copies", np.uint8), ("small", np.uint8)])  # fmt: skip
UV = np.dtype([(name, np.uint8) for name in ("state", "shared", "lost", "refuses", "never", "large", "pamt")])
MM = np.dtype([
    *((name, np.uint8) for name in ("order", "private", "frozen", "allocated", "users", "locking", "zapped", "batch",
                                    "spec", "kvm", "stale", "turned", "longs", "granted")),
    ("pins", np.int16), ("refs", np.int32),
])  # fmt: skip
TASK = np.dtype([
    *((name, _shared.TASK[name]) for name in _shared.TASK.fields or () if name not in ("mutex", "n", "at")),
    ("n", np.int32), ("at", np.int32),
])  # fmt: skip
ACTOR = np.dtype([(name, np.int32 if name == "n" else _shared.ACTOR[name]) for name in _shared.ACTOR.fields or ()])
VM = np.dtype(
    [("life", np.uint8), ("mutex", np.int16), ("fresh", np.uint16), ("no_table", np.uint8), ("no_folio", np.uint8)]
)
IO = np.dtype([("flying", np.uint8), ("dma", np.uint8), ("asked", np.uint8)])
PT = np.dtype([("present", np.uint8), ("large", np.uint8)])

SECTIONS = {"cfg": CFG, "who": WHO, "uv": UV, "mm": MM, "vm": VM, "task": TASK, "actor": ACTOR, "io": IO, "pt": PT}


class MemfdState(State):
    """A state of the design guest_memfd."""

    __slots__ = ()
    design = "guest_memfd"


def new_state(pages: int, actors: int, vms: int) -> MemfdState:
    """Returns a state of zeroed arrays: `pages` unallocated shared pages that nobody maps, `actors` threads at rule
    0."""
    sizes = {"cfg": 1, "who": actors, "vm": vms, "task": actors, "actor": actors}
    state = MemfdState(*(np.zeros(sizes.get(name, pages), dtype) for name, dtype in SECTIONS.items()))
    state.cfg["pages"], state.cfg["actors"], state.cfg["vms"] = pages, actors, vms
    return state
