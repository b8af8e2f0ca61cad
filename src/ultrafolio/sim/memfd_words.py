"""The meanings of the axes and of a workload's fields in a plan of guest_memfd, for the reference and the report."""

from __future__ import annotations

from .memfd_config import AXES, PATIENCE_FIELDS, WORKLOAD
from .words import AXIS_MEANING

MEMFD_AXIS_MEANING = {
    "policy": "a preset of guest_memfd, or a [policy.NAME] of the plan with one as its base",
    "order": "a huge page has 2^order pages of 4 KiB, in one folio while all of it is private; a policy without huge "
             "pages has single pages",
    "workload": AXIS_MEANING["workload"],
    "machine": "what enforces who uses a page",
    "patience": "what the VMM does about a refusal: for-ever, one-try, four-tries, four-paused (100 µs between them), "
                "unmap-first (its DMA mappings end before a request), unmap-asked (after a refusal), or a "
                "[patience.NAME] of the plan",
    "holder": "who uses pages that the guest shares: none; user, mlock: processes by a mapping, by a VM_LOCKED one; "
              "gup: direct I/O; vfio: long-term pins; vmsplice: full pipes; walker: PFN walkers; lru: LRU batches of "
              "other CPUs",
    "placement": "where the pool lies: aligned, in huge pages of its own; contiguous, in one run; scattered, each "
                 "request somewhere else",
    "costs": AXIS_MEANING["costs"],
    "seed": AXIS_MEANING["seed"],
    "duration_us": AXIS_MEANING["duration_us"],
    "check": AXIS_MEANING["check"],
    "pages": AXIS_MEANING["pages"],
    "vcpus": AXIS_MEANING["vcpus"],
    "touch_ns": AXIS_MEANING["touch_ns"],
    "convert_rate": "part of the vCPUs' operations that are about the pool: half of them touch a page of it, a quarter "
                    "each ask to share or to unshare a run of it",
    "request_pages": "pages of a request, and of a run of the pool",
    "pool_pages": "pages that the guest shares and unshares",
    "holders": "how many holders of the axis there are",
    "holder_us": "mean time between two uses of a holder, in µs",
    "hold_us": "how long a long-term pin or a full pipe stands, in µs; 0: to the end of the run",
    "walker_us": "how long a PFN walker keeps its reference, in µs: assumed",
    "tlb_entries": "entries of a vCPU's TLB, for single and huge pages alike; 0: no misses are counted. The default is "
                   "assumed: a second-level TLB of x86 servers",
    "touches": AXIS_MEANING["touches"],
    "requests": "the recording of disk requests that the holder gup repeats",
}  # fmt: skip
"""Axis, or field of a workload -> its meaning."""
PATIENCE_MEANING = {
    "retries": "refusals after which the VMM tells the guest no; 0: it asks again for ever",
    "pause_us": "time before it asks again, in µs",
    "iommu": "when it ends its own DMA mappings of pages that become private",
}

assert set(MEMFD_AXIS_MEANING) == (set(AXES) | set(WORKLOAD)) - {"tables"}, "every axis and field has its meaning"
assert set(PATIENCE_MEANING) == set(PATIENCE_FIELDS)
