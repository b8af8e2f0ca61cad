"""The state: one byte layout for the array, the checker's hash key and the store.

A state is nine arrays of small integer records. Each array is a *section* and has one owner; a rule
of another part may not look into it (``tests/test_walls.py`` holds every rule to that):

    cfg    the policy and the scenario's constants, one record       nobody writes it
    who    what each actor is: kind, virtual machine, CPU, order     nobody writes it
    uv     per page: the ultravisor's page state                     ultravisor
    mm     per page: struct page; a folio's fields stand on its head host MM
    vm     per virtual machine: the import mutex, alive or not       host MM (KVM)
    task   per actor: the host thread that runs on its behalf        host MM
    actor  per actor: what the vCPU or device wants                  guest or device
    io     per page: direct I/O in flight                            device
    pt     per page: the guest page table entry, which hardware walks  host MM

``task.pc`` alone is everybody's: it says which rule the thread runs next, and passes from the guest to
the host at an exit and back at re-entry.

Some fields that their names do not explain:

    who.after     the actor (plus 1) that must have finished once before this one may start; 0: none
    who.awaited   another actor's `after` names this one, so it records that it finished (task.done)
    who.stuck     its I/O never completes;  cfg.stuck: somebody's does not
    pt.cleaned    a writeback that starts again and again may choose this page; never changes
    mm.walked     an import holds the page-table lock of this page
    mm.granted    pins of this page that were granted: the page is accessible, and pin_user_pages() went on
    task.ref      the import holds a reference of its own on its page

Words are unsigned bytes, counts and page numbers signed, since Numba turns a mix of wide unsigned and signed
integers into floats. Every field is wide enough for the largest configuration the readers accept, so the same
integers come out of Python objects and of arrays.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

# ---- a page, in bytes
PAGE_SHIFT = 12
PAGE_SIZE = 1 << PAGE_SHIFT

# ---- page states (ultravisor), seed: "some definitions"
NON_SECURE, SECURE, SHARED, PINNED_SHARED, EXPORTED = range(5)
PAGE_STATES = ("NON_SECURE", "SECURE", "SHARED", "PINNED_SHARED", "EXPORTED")

# ---- the hardware's view of an access
ALLOWED, DAT_FAULT, PGM_3D, PGM_3E, PGM_3F = 0, 0x11, 0x3D, 0x3E, 0x3F

# ---- results of an ultravisor call (kernel §1.1: rc 0x0001, cc 1, cc 2/3; kernel §2.3: the unshare intercept 0x6c)
UV_OK, UV_ERROR, UV_BUSY, UV_INTEGRITY, UV_EXIT = range(5)

# ---- folio
ANON, SHMEM, IOMAP = range(3)
BACKINGS = ("anon", "shmem", "iomap")
UNMAPPED, MAPPED, SWAPPED = range(3)
NO_WRITEBACK, FLAGGED, WRITING = range(3)

# ---- virtual machine
ALIVE, REBOOTING, GONE, KILLED = range(4)

# ---- actors and what they may want
(
    VCPU, DISK, RING, WRITEBACK, RECLAIM, LRU, MAPPING, SPECULATIVE, REBOOT, TAMPER, PIN, INTERRUPT, ACCESS,
) = range(13)  # fmt: skip
ACTOR_KINDS = (
    "vcpu", "disk", "virtio", "writeback", "reclaim", "lru", "mapping", "speculative", "reboot", "tamper", "pin",
    "interrupt", "access",
)  # fmt: skip
NOTHING, TOUCH, SHARE, UNSHARE, READ, WRITE = range(6)
OPS = ("nothing", "touch", "share", "unshare", "read", "write")
ENDLESS = 255  # a budget that is never spent

# ---- policy choices, in the order of model.md §4
TRACK_PAGE, TRACK_FOLIO, TRACK_BITMAP = range(3)
ACC_UNIT_PAGE, ACC_UNIT_FOLIO, ACC_UNIT_LITERAL = range(3)
REFS_PAGE, REFS_FOLIO = range(2)
LARGE_DIRECT, LARGE_REFUSE, LARGE_SPLIT, LARGE_NEVER = range(4)
SPLIT_AGAIN, SPLIT_RETRY, SPLIT_FALSE_SUCCESS = range(3)
DRAIN_NONE, DRAIN_OWN_THEN_ALL, DRAIN_EVERY = range(3)
LOCK_NONE, LOCK_VM = range(2)
BUSY_REFAULT, BUSY_SLEEP, BUSY_GIVE_UP = range(3)
LARGE_BEFORE_LOCK, LARGE_AFTER_EXPORT, LARGE_AFTER_WRITEBACK = range(3)
REF_NONE, REF_WAITING, REF_HELD = range(3)
UNMAP_PAGE, UNMAP_FOLIO = range(2)
INTERRUPT_GET, INTERRUPT_PIN = range(2)

# ---- which rule a thread runs next; the number is the rule's place in the fixed rule order
(
    RUN, AGAIN, IMPORT_MUTEX, IMPORT_MAP, IMPORT_LARGE, IMPORT_TRYLOCK, IMPORT_WRITEBACK, WAIT_WRITEBACK,
    IMPORT_FREEZE, DRAIN_OWN, DRAIN_ALL, IMPORT_ARCH, IMPORT_EXPORT, IMPORT_CALL, IMPORT_END, SLEEP_REFS,
    SPLIT_LOCK, SPLIT, ACC_TEST, ACC_PIN, ACC_EXPORT, ACC_CLEAR, DEVICE_IDLE, PIN_GET, IO_START, IO_END,
    UNPIN, RING_READY, WB_IDLE, WB_LOCK, WB_START, WB_IO, WB_END, RECLAIM_IDLE, RECLAIM_LOCK,
    RECLAIM_UNMAP, RECLAIM_EXPORT, RECLAIM_SWAP, RECLAIM_FREE, LRU_IDLE, MAPPING_IDLE, SPECULATIVE_IDLE,
    PUT, REBOOT_IDLE, REBOOT_QUIET, REBOOT_RESET, TAMPER_IDLE, ACCESS_IDLE, ACCESS_TRY, ACCESS_PUT, DEAD,
) = range(51)  # fmt: skip
IDLE_PC = (
    RUN, DEVICE_IDLE, DEVICE_IDLE, WB_IDLE, RECLAIM_IDLE, LRU_IDLE, MAPPING_IDLE, SPECULATIVE_IDLE,
    REBOOT_IDLE, TAMPER_IDLE, DEVICE_IDLE, DEVICE_IDLE, ACCESS_IDLE,
)  # fmt: skip

# ---- outcomes of a step. Positive: it happened. Negative: not enabled, the state is unchanged, and why.
(
    OK, DONE, FAULT, SUCCESS, E_LOCKED, E_REFS, E_WRITEBACK, E_DIRTY, E_UV, E_FATAL, E_IO, E_LATE, MISUSE,
    E_NXIO, SWAPPED_IN,
) = range(1, 16)  # fmt: skip
OUTCOMES = (
    "", "OK", "DONE", "FAULT", "SUCCESS", "EAGAIN", "EBUSY", "EAGAIN (writeback)", "EBUSY (dirty)",
    "EAGAIN (UVC busy)", "EINVAL", "EFAULT", "BUG (too late)", "frozen count touched",
    "ENXIO", "ENXIO (swapped in)",
)  # fmt: skip
(
    W_IDLE, W_LOCK, W_WRITEBACK, W_MUTEX, W_REFS, W_FROZEN, W_STOPPED, W_DEVICE, W_TABLE, W_IO,
) = range(-1, -11, -1)  # fmt: skip
WAITS = (
    "", "nothing to do", "the folio lock", "the end of writeback", "the VM's import mutex",
    "the extra references to go", "the folio to thaw", "the virtual machine to run", "the device",
    "the page-table lock", "the I/O to complete",
)  # fmt: skip

# ---- bugs of kernels as variants of the rules (policy.VARIANTS says what each is), a configuration field each
VARIANT_FIELDS = (
    "freeze_unlocked", "faultin_success", "faultin_leak", "gup_skips", "no_export", "ignores_unmap", "drops_unused",
)  # fmt: skip

_CFG = [(name, np.uint8) for name in (
    "track", "accessible", "refs", "large", "after_split", "split_writeback", "drain", "import_lock",
    "on_busy", "give_up", "large_at", "import_ref", "unmap", "interrupt", *VARIANT_FIELDS, "misc",
    "stuck",
)]  # fmt: skip
CFG = np.dtype([*_CFG, ("pages", np.int32), ("actors", np.int32), ("vms", np.int32)])
WHO = np.dtype([("kind", np.uint8), ("vm", np.uint8), ("cpu", np.uint8), ("after", np.uint8), ("awaited", np.uint8),
                ("stuck", np.uint8)])  # fmt: skip
UV = np.dtype([("state", np.uint8), ("owner", np.uint8), ("shared", np.uint8), ("altered", np.uint8),
               ("refuses", np.uint8)])  # fmt: skip
MM = np.dtype([
    ("order", np.uint8), ("backing", np.uint8), ("arch", np.uint8), ("locked", np.uint8),
    ("frozen", np.uint8), ("writeback", np.uint8), ("dirty", np.uint8), ("writable", np.uint8),
    ("batch", np.uint8), ("altered", np.uint8), ("spec", np.uint8), ("walked", np.uint8),
    ("pins", np.int16), ("longs", np.int16), ("granted", np.int16), ("refs", np.int16), ("marked", np.int16),
])  # fmt: skip
VM = np.dtype([("life", np.uint8), ("mutex", np.int32)])
TASK = np.dtype([
    ("pc", np.uint8), ("then", np.uint8), ("back", np.uint8), ("call", np.uint8), ("drained", np.uint8),
    ("tries", np.uint8), ("splits", np.uint8), ("exporting", np.uint8), ("mutex", np.uint8), ("ref", np.uint8),
    ("done", np.uint8),
    ("n", np.int16), ("at", np.int16),
    ("page", np.int32), ("start", np.int32), ("i", np.int32), ("end", np.int32), ("failed", np.int32),
])  # fmt: skip
ACTOR = np.dtype([("op", np.uint8), ("budget", np.uint8), ("n", np.int16), ("page", np.int32)])
IO = np.dtype([("flying", np.int16)])
PT = np.dtype([("present", np.uint8), ("cleaned", np.uint8)])

SECTIONS = {"cfg": CFG, "who": WHO, "uv": UV, "mm": MM, "vm": VM, "task": TASK, "actor": ACTOR, "io": IO,
            "pt": PT}  # fmt: skip
OWNERS = {"uv": "ultravisor", "mm": "host", "vm": "host", "task": "host", "actor": "guest", "io": "device",
          "pt": "host"}  # fmt: skip


class State(NamedTuple):
    """The sections, each an array of records (or, for the plain interpreter, a list of objects).

    A state of another design than s390 is of a subclass, which names its design.
    """

    cfg: Any
    who: Any
    uv: Any
    mm: Any
    vm: Any
    task: Any
    actor: Any
    io: Any
    pt: Any


def blank(pages: int, actors: int, vms: int) -> State:
    """A state of zeroed arrays: `pages` order-0 mapped pages, `actors` threads at rule 0, `vms` machines."""
    sizes = {"cfg": 1, "who": actors, "uv": pages, "mm": pages, "vm": vms, "task": actors, "actor": actors,
             "io": pages, "pt": pages}  # fmt: skip
    state = State(*(np.zeros(sizes[name], dtype) for name, dtype in SECTIONS.items()))
    state.cfg["pages"], state.cfg["actors"], state.cfg["vms"] = pages, actors, vms
    state.pt["present"] = MAPPED
    state.mm["writable"] = 1
    return state


def pack(state: State) -> bytes:
    """The state's bytes: every mutable section after the other, in the order of SECTIONS."""
    return b"".join(getattr(state, name).tobytes() for name in OWNERS)


def copy(state: State) -> State:
    """An independent copy; `cfg` and `who` never change and stay shared."""
    # ndarray.copy() copies records field by field, which takes ten times as long
    return type(state)(*state[:2], *(np.frombuffer(bytearray(part.tobytes()), part.dtype) for part in state[2:]))


def bytes_per_page() -> int:
    """Bytes of model state one page takes (all per-page sections)."""
    return UV.itemsize + MM.itemsize + IO.itemsize + PT.itemsize
