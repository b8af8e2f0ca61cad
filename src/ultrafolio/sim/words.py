"""What the axes of a run and the fields of a workload mean, for the reference, the schemas and the report."""

from __future__ import annotations

from .config import AXES, WORKLOAD

AXIS_MEANING = {
    "policy": "which policy tracks the pages of the guest",
    "order": "the folio order: a folio has 2^order pages of 4 KiB",
    "workload": "what the guest and its devices do; the workloads are explained below",
    "placement": "where shared pages lie: aligned, in folios of their own; contiguous, in one run that starts inside a "
                 "folio; scattered, each somewhere else",
    "costs": "what each step takes; the profiles are explained below",
    "seed": "the seed of the random numbers; it changes nothing but the order and the times of events",
    "duration_us": "simulated time of a run, in µs",
    "check": "whether the properties of the model were checked",
    "pages": "pages of a guest; 0: as many as the recording touches",
    "guests": "guests on the host",
    "vcpus": "vCPUs of a guest",
    "disks": "disk requests of a guest in flight",
    "io_pages": "pages of a disk request",
    "pool_pages": "bounce buffer pages that a guest shares",
    "rings": "virtio rings of a guest, pinned by their device until the guest reboots",
    "ring_pages": "pages of a ring",
    "ring_after_us": "when the rings are configured, in µs",
    "touch_ns": "mean time between two touches of a vCPU, in ns",
    "io_us": "mean time between two requests of one disk slot, in µs",
    "writeback_us": "mean time between two writebacks of a folio by the host, in µs; 0: none",
    "reclaim_us": "mean time between two folios that the host reclaims, in µs; 0: none",
    "lru_us": "mean time between two folios in a per-CPU batch of the LRU, in µs; 0: none",
    "mapping_us": "mean time between two changes of a mapping, in µs; 0: none",
    "speculative_us": "mean time between two speculative references, in µs; 0: none",
    "reboot_us": "mean time between two reboots of a guest, in µs; 0: none",
    "share_rate": "part of the vCPUs' operations that share or unshare a page",
    "fail_pages": "pages on which calls of the ultravisor fail",
    "backing": "what backs the guest's memory",
    "imported": "true: all pages are secure at the start; false: only the shared ones were imported before",
    "early_rings": "true: devices pin the rings before their first import",
    "one_address_space": "true: the guests share one address space on the host",
    "ownership_transfer": "true: an import takes a page of another guest without an export first",
    "touches": "the recording of page touches that the guest repeats",
    "requests": "the recording of disk requests that the guest repeats",
    "orders": "the recording that gives the sizes of the folios",
}  # fmt: skip
"""Every axis and every field of a workload, in words."""

assert set(AXIS_MEANING) == (set(AXES) | set(WORKLOAD)) - {"tables"}, "every axis and field has its meaning"

COLUMN_MEANING = {
    "events": "steps of all actors", "touches": "touches of guest pages that went through",
    "stalls": "touches that had to wait and went on", "stall_ns": "time of these, together",
    "stall_lock": "stalls whose first cause is the folio lock", "stall_refs": "… extra references of the folio",
    "stall_writeback": "… writeback", "stall_dirty": "… a dirty file-system folio that is not split",
    "stall_mutex": "… the import mutex", "stall_busy": "… anything else, such as a busy ultravisor",
    "open_stalls": "stalls that still last at the end", "open_stall_ns": "time of these so far, together",
    "dropped_stalls": "stalls that only a stop of the guest ended", "dropped_stall_ns": "time of these, together",
    "hang_permanent": "vCPUs whose wait only the guest's reboot would end",
    "hang_livelock": "vCPUs whose obstacle goes and comes for ever",
    "hang_fatal": "vCPUs of which the VMM was told an error", "hang_expected": "waits that the guest itself asked for",
    "first_hang_ns": "when the first hang was found; -1: none", "exports": "calls that exported a page",
    "exports_collateral": "of these, collateral: a pin of another page of the folio caused them",
    "imports": "calls that imported a page",
    "imports_collateral": "of these, for pages that a collateral export took",
    "import_ns": "time of the import calls, together", "uv_calls": "calls of the ultravisor",
    "uv_ns": "time of these, together", "bytes_encrypted": "bytes that exports and imports encrypted or decrypted",
    "io_started": "direct I/O requests begun", "io_done": "of these, done",
    "io_refused": "steps refused since a page could not be made accessible",
    "io_ns": "time of the requests that are done, together", "writebacks": "writebacks that ended",
    "late_failures": "host accesses or I/O that met a secure page when it was too late",
    "reclaims": "pages that reclaim took", "splits_tried": "splits tried", "splits_done": "of these, done",
    "splits_refused": "of these, refused", "split_ns": "time of splits, together",
    "drains_own": "LRU drains of one CPU", "drains_all": "LRU drains of all CPUs",
    "over_page_ns": "pages that the tracking calls secure and are not, times the ns",
    "reboots": "reboots of guests", "violations": "steps that broke a property",
    "sim_ns": "simulated time", "throughput": "guest touches in a second of simulated time",
    "pages_total": "pages of the host's memory", "tracking_bytes": "bytes of tracking state: bits a page or a folio",
    "hung": "class of the first hang with waiter, holder and page; empty: none",
    "broken": "violations of each property, from 1 on",
    "stall_hist": "times of stalls: bucket, count, bucket, count, …",
    "latency_hist": "times of direct I/O requests: bucket, count, …",
}
"""Every result of a run: a field of `run --json`, a column of results.parquet. Times are in ns."""
