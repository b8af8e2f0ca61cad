"""Recordings as people bring them, small, and what each must give: the counts, or the cause it is refused for."""

from __future__ import annotations

from pathlib import Path

INPUTS = Path(__file__).parents[1] / "support" / "data" / "inputs"

Counts = dict[str, int]

READ: dict[str, tuple[str, Counts]] = {
    "big-endian.kpageflags": ("orders", {"folios": 14, "pages": 29, "order-0": 13, "order-4": 1}),
    "little-endian.kpageflags": ("orders", {"folios": 14, "pages": 29, "order-0": 13, "order-4": 1}),
    "little-endian.pagemap": ("touches", {"touches": 4, "pages": 4, "writes": 1}),
    "big-endian.pagemap": ("touches", {"touches": 4, "pages": 4, "writes": 1}),
    "v2-waits.iolog": ("requests", {"requests": 3, "writes": 1, "bytes": 12800, "time_us": 900000}),
    "v3-wait-ignored.iolog": ("requests", {"requests": 2, "writes": 1, "bytes": 8192, "time_us": 40}),
    "v3-time-goes-back.iolog": ("requests", {"requests": 4, "writes": 2, "bytes": 6144, "time_us": 85}),
    "windows.iolog": ("requests", {"requests": 2, "writes": 1, "bytes": 66048, "time_us": 7000}),
    "no-last-line-end.iolog": ("requests", {"requests": 2, "writes": 1, "bytes": 8192, "time_us": 9}),
    "plain.lackey": ("touches", {"touches": 6, "pages": 4, "writes": 3}),
    "superblocks.lackey": ("touches", {"touches": 3, "pages": 3, "writes": 1}),
    "client-printf.lackey": ("touches", {"touches": 2, "pages": 2, "writes": 0}),
    "43-letters-5.15.page-types": ("orders", {"folios": 3, "pages": 6, "order-0": 2, "order-2": 1}),
    "43-letters-6.12.page-types": ("orders", {"folios": 3, "pages": 6, "order-0": 2, "order-2": 1}),
    "42-letters-4.15.page-types": ("orders", {"folios": 3, "pages": 3, "order-0": 3}),
    "plain.mthp": ("orders", {"folios": 8, "pages": 68, "order-2": 5, "order-4": 3}),
    "periodic.thpmaps": ("orders", {"folios": 5, "pages": 80, "order-4": 5}),
    "two-processes.thpmaps": ("orders", {"folios": 7, "pages": 104, "order-3": 1, "order-4": 6}),
    "faults.perf": ("touches", {"touches": 4, "pages": 3, "writes": 3}),
    "software-faults.perf": ("touches", {"touches": 2, "pages": 2, "writes": 0}),
    "faults.trace-cmd": ("touches", {"touches": 3, "pages": 3, "writes": 2}),
    "tgid.trace-cmd": ("touches", {"touches": 2, "pages": 2, "writes": 1}),
    "blocks.perf": ("requests", {"requests": 4, "writes": 2, "bytes": 29184, "time_us": 780}),
    "blocks.trace-cmd": ("requests", {"requests": 2, "writes": 1, "bytes": 12288, "time_us": 380}),
    "plain.blkparse": ("requests", {"requests": 3, "writes": 2, "bytes": 12800, "time_us": 1000}),
    "plain.damon.json": ("touches", {"touches": 6, "pages": 4, "writes": 0}),
    "packed.damon.data": ("touches", {"touches": 6, "pages": 4, "writes": 0}),
    "damon.perf": ("touches", {"touches": 6, "pages": 4, "writes": 0}),
    "written-by-damo.perf": ("touches", {"touches": 3, "pages": 3, "writes": 0}),
    "damon.trace-cmd": ("touches", {"touches": 3, "pages": 3, "writes": 0}),
    "plain.smaps": ("orders", {"folios": 4, "pages": 2048, "order-9": 4}),
    "one-megabyte.smaps": ("orders", {"folios": 3, "pages": 768, "order-8": 3}),
}
"""File → the kind it is read as, and its counts."""

REFUSED: dict[str, tuple[str, str, str]] = {
    "kpagecount.words": ("implausible as page flags", "/proc/kpagecount", "dd if=/proc/kpageflags"),
    "two-jobs.iolog": ("line 5 is malformed", "several jobs", "csplit"),
    "no-trace-mem.lackey": ("no memory access", "without --trace-mem=yes", "--trace-mem=yes"),
    "two-processes.lackey": ("two address spaces", "processes 7 and 8", "%p"),
    "two-programs.lackey": ("two address spaces", "process 7 ran two programs", "%p"),
    "stderr-glued.lackey": ("line 3 is malformed", "the program's own output", "--log-file"),
    "no-nr_anon.mthp": ("no nr_anon", "older than Linux 6.12", "kpageflags"),
    "two-processes.perf": ("of 2 processes", "an address space of its own", "--pid 950 --save"),
    "two-threads.perf": ("of 2 processes", "perf script -F +pid", "--pid 900 --save"),
    "no-addresses.perf": ("line 1 is malformed", "the instruction's address only", "-F +pid,+addr"),
    "two-processes.trace-cmd": ("of 2 processes", "an address space of its own", "--pid 900 --save"),
    "two-devices.perf": ("of 2 devices", "count twice", "--device 8,0 --save"),
    "two-devices.blkparse": ("of 2 devices", "count twice", "--device 8,0 --save"),
    "two-targets.damon.json": ("2 targets", "an address space of its own", "--target 0 --save"),
    "two-processes.smaps": ("is malformed", "several processes", "/proc/PID/smaps"),
}
"""File → a part of the error message, of its cause, and of the next command."""

KIND = {**{name: kind for name, (kind, _) in READ.items()}, "two-devices.perf": "requests"}
"""The kind to read a file as, where it is not the first of its format."""
