"""The simulator's state beside that of the model: clock, loads of the actors, wait queues, measures.

What depends on the design is that of s390 here; memfd_records.py has the same names for guest_memfd.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from ultrafolio.model import rules  # noqa: F401  (it fills RULES)
from ultrafolio.model.bounds import fits, most
from ultrafolio.model.designs import OUTCOMES_END
from ultrafolio.model.layout import (
    MM,
    REBOOT_IDLE,
    TASK,
    W_DEVICE,
    W_FROZEN,
    W_IDLE,
    W_IO,
    W_LOCK,
    W_MUTEX,
    W_REFS,
    W_STOPPED,
    W_TABLE,
    W_WRITEBACK,
    WAITS,
)
from ultrafolio.model.rule import RULES, Rule
from ultrafolio.waits.tables import CLASSES

ACTOR_BITS = 17
ACTOR_MASK = (1 << ACTOR_BITS) - 1
NEVER = (1 << 62) >> ACTOR_BITS << ACTOR_BITS
"""A key (time in ns << 17 | actor) later than any other: the actor is blocked or finished."""

OUTCOME_SLOTS = OUTCOMES_END
EXPORTS = tuple(pc for pc, rule in RULES.items() if rule.call == "export")
PINS = tuple(pc for pc, rule in RULES.items() if rule.call == "pin")
"""Rules that make this call of the ultravisor."""
CPUS = most(MM, "batch")
"""The most CPUs: a page's `batch` names one, or none."""
UNIFORM, RECORDED, LISTED = range(3)
"""How an actor chooses: a page uniformly from a range, the next of a recording, or one of its listed (op, page)."""

CLASS_LIVELOCK = len(CLASSES)
HANG_CLASSES = (*CLASSES, "livelock")
"""Classes of a hang: those that one state shows, and the livelock that the checker proved (measures.shown_livelock)."""

LOAD = np.dtype([
    ("rng0", np.int64), ("rng1", np.int64), ("first", np.int32), ("count", np.int32), ("pos", np.int32),
    ("stride", np.int32), ("latency", np.int32), ("share_first", np.int32), ("share_count", np.int32),
    ("share_rate", np.int32), ("mode", np.uint8), ("recorded", np.uint8), ("listed", np.uint8),
    ("think", np.int64), ("base", np.int64),
])  # fmt: skip
REQUEST = np.dtype([("at", np.int64), ("n", np.int16), ("write", np.uint8)])
CHOICE = np.dtype([("op", np.uint8), ("page", np.int32)])
WAIT = np.dtype(
    [
        ("next", np.int32),
        ("queue", np.int32),
        ("reason", np.uint8),
        ("stalled", np.uint8),
        ("hung", np.uint8),
        ("since", np.int64),
    ]
)
CLOCK = np.dtype([("now", np.int64), ("until", np.int64), ("over", np.int64), ("over_at", np.int64),
                  ("leaves", np.int64), ("sequence", np.int64), ("read", np.int64), ("write", np.int64),
                  ("split_page", np.int64), ("checked", np.int64), ("tracing", np.int64), ("hangs", np.int64),
                  ("traced", np.int64), ("pausing", np.int64)])  # fmt: skip
EVENT = np.dtype(
    [("time", np.int64), ("actor", np.int32), ("page", np.int32), ("rule", TASK["pc"]), ("outcome", np.int8)]
)
HANG = np.dtype([("time", np.int64), ("waiter", np.int32), ("page", np.int32), ("kind", np.uint8), ("reason", np.int8)])

MEASURES = (
    "events", "touches", "stalls", "stall_ns", "stall_lock", "stall_refs", "stall_writeback", "stall_dirty",
    "stall_mutex", "stall_busy", "open_stalls", "open_stall_ns",
    "dropped_stalls", "dropped_stall_ns", "hang_permanent", "hang_livelock", "hang_fatal",
    "hang_expected", "first_hang_ns", "exports", "exports_collateral", "imports", "imports_collateral",
    "import_ns", "uv_calls", "uv_ns", "bytes_encrypted", "io_started", "io_done", "io_refused", "io_ns",
    "writebacks", "late_failures", "reclaims", "splits_tried", "splits_done", "splits_refused", "split_ns",
    "drains_own", "drains_all", "over_page_ns", "reboots", "violations",
)  # fmt: skip
METRIC = np.dtype([(name, np.int64) for name in MEASURES])

PARKED, PARKED_DIRTY = len(WAITS), len(WAITS) + 1
"""Reasons of a hung vCPU that is blocked, instead of polling, until a step releases its obstacle (a reference, a dirty
folio). They follow the numbers of the W_ reasons."""
REASONS = PARKED_DIRTY + 1
FREES: dict[str, tuple[int, ...]] = {
    "lock": (-W_LOCK,), "writeback": (-W_WRITEBACK, PARKED_DIRTY), "mutex": (-W_MUTEX,), "refs": (-W_REFS, PARKED),
    "frozen": (-W_FROZEN,), "vm": (-W_STOPPED,), "table": (-W_TABLE,),
}  # fmt: skip
"""Word of a rule's `releases` -> the reasons to wait that it ends."""
OF_A_MACHINE = ("mutex", "vm")
"""The words whose waiters are in the queue of a virtual machine; other waiters are in that of a folio."""
STOPS_MACHINE = REBOOT_IDLE
"""The rule that stops a virtual machine: its vCPUs drop their instructions."""
POLLED = (-W_IDLE, -W_DEVICE)
"""Reasons after which an actor retries after a fixed time."""
ENDLESS_WAITS = (-W_IO,)
"""Reasons that no step ends."""


def releases(
    steps: Mapping[int, Rule],
    frees: Mapping[str, tuple[int, ...]],
    endless: tuple[int, ...],
    waits: Mapping[int, str],
    where: str,
) -> tuple[int, ...]:
    """Returns for each rule a mask with a bit for each reason that it may end, from the rule's `releases`.

    frees    word of `releases` -> reasons
    endless  reasons that no step ends, or after which an actor retries
    waits    every reason that a rule may give, and its words
    where    the module of these tables, for errors
    """
    words = {word for rule in steps.values() for word in rule.releases}
    unknown = sorted(words - set(frees))
    fits(
        f"words of releases, of which the simulator does not know {', '.join(unknown)}",
        len(words),
        len(words) - len(unknown),
        f"{where}: FREES",
    )
    idle = sorted(set(frees) - words)
    fits(
        f"words of releases, of which no rule releases {', '.join(idle)}",
        len(frees),
        len(frees) - len(idle),
        "the rule that does: @rule(releases=...)",
    )
    ended = {*endless, *(reason for word in frees for reason in frees[word])}
    never = [word for reason, word in waits.items() if reason not in ended]
    fits(
        f"reasons to wait, of which the simulator never ends {', '.join(never)}",
        len(waits),
        len(waits) - len(never),
        f"{where}: FREES or POLLED",
    )
    return tuple(
        sum({1 << reason for word in steps[pc].releases for reason in frees[word]}) if pc in steps else 0
        for pc in range(max(steps) + 2)
    )


RELEASES = releases(RULES, FREES, (*POLLED, *ENDLESS_WAITS), dict(enumerate(WAITS[1:], 1)), "sim/records.py")
REFS_REASONS = sum(1 << reason for reason in FREES["refs"])
ALL_REASONS = (1 << REASONS) - 1
VM_REASONS = sum(1 << reason for word in OF_A_MACHINE for reason in FREES[word])
PAGE_REASONS = ALL_REASONS ^ VM_REASONS
fits("reasons to wait, a bit each of a word of 63", REASONS, 63, "sim/records.py: RELEASES")
fits("outcomes that an event may name", OUTCOMES_END - 1, most(EVENT, "outcome"), "sim/records.py: EVENT")
fits(
    "reasons that an event or a hang may name",
    max(len(WAITS), OUTCOMES_END) - 1,
    most(HANG, "reason"),
    "sim/records.py: EVENT and HANG",
)
fits("reasons that wait.reason may name", REASONS - 1, most(WAIT, "reason"), "sim/records.py: WAIT")

HIST_SUB = 5
HIST_SIZE = 64 << HIST_SUB
"""Histograms are integer and log-linear, 32 buckets an octave: relative error at most 1/64; sums merge them exactly."""


class World(NamedTuple):
    """The arrays of a simulation, beside the model's state.

    clock    one CLOCK record            tree     winner tree of keys, 2 x leaves
    load     per actor: LOAD             wait     per actor: WAIT
    queue    first waiter per page (folio home), then per virtual machine; -1 when empty
    home     log2 of the folio that held each page at the start: where its waiters queue
    secure   SECURE pages per original folio, on its first page
    collateral  per page: whether its last export was collateral
    touches  recorded page numbers       requests recorded I/O, REQUEST
    choices  the listed (op, page) of all actors, CHOICE
    price    ns of what steps do to pages, and the entries of a TLB, by costs.PRICES: guest_memfd
    tlb      per vCPU the tags of its TLB: guest_memfd
    cost     ns of a step, by rule x OUTCOME_SLOTS + outcome; in slot 0 the mean of the rule's exponential part
    expo     1024 quantiles of the exponential distribution, mean 1024
    metric   one METRIC record           stall, latency  histograms
    broken   violations per property     fired    steps per rule
    hang     the first hangs found       event    trace buffer
    """

    clock: Any
    tree: Any
    load: Any
    wait: Any
    queue: Any
    home: Any
    secure: Any
    collateral: Any
    touches: Any
    requests: Any
    choices: Any
    price: Any
    tlb: Any
    cost: Any
    expo: Any
    metric: Any
    stall: Any
    latency: Any
    broken: Any
    fired: Any
    hang: Any
    event: Any
