"""Requests of a block device from the kernel's block events: blkparse text, perf script, trace-cmd report.

A request is queued, inserted into the scheduler and issued to the device. Only the last stage that the recording has
(issue, insert, queue) is read, so that no request counts twice. Sources: include/trace/events/block.h, blktrace's
blkparse.c.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator

import numpy as np

from ultrafolio.errors import InputError
from ultrafolio.nouns import plural
from ultrafolio.trace import ftrace
from ultrafolio.trace.importer import (
    MAX_ROWS,
    REQUEST,
    U64,
    Format,
    Head,
    HoldsNone,
    Kind,
    Only,
    Rows,
    batched,
    gathered,
)
from ultrafolio.trace.reader import Lines, Path, open_stream, quoted

STAGES = ("issue", "insert", "queue")
EVENTS = {"block_rq_issue": 0, "block_rq_insert": 1, "block_bio_queue": 2}
ACTIONS = {b"D": 0, b"I": 1, b"Q": 2}
_FIELDS = re.compile(
    rb"([0-9]{1,7}),([0-9]{1,7}) ([A-Z]{1,8})(?: [0-9]{1,10} \(.*?\))? ([0-9]{1,20}) \+ ([0-9]{1,10})(?: .*)?"
)
_BLKPARSE = re.compile(
    rb"\s*([0-9]{1,7}),([0-9]{1,7})\s+[0-9]{1,5}\s+[0-9]{1,12}\s+([0-9]{1,9})\.([0-9]{9})\s+([0-9]{1,10})\s+"
    rb"([A-Za-z]{1,2})\s+([A-Z]{1,8})(?:\s+([0-9]{1,20}) \+ ([0-9]{1,10}))?(\s.*)?"
)
_COMMAND = re.compile(rb"\s+[0-9]{1,10} \(.*")
"""What follows the direction of a request that carries a command instead of sectors."""
_SUMMARY = re.compile(rb"(?:CPU[0-9]+|Total) \(.*\):")
BLKPARSE_EXPECTED = "'major,minor cpu number seconds.nanos pid action rwbs sector + sectors [comm]', a line of blkparse"
SECTOR = 512
BATCH = 65536
RECORD = "perf record -a -e block:block_rq_issue PROGRAM; perf script > mine.perf"

_ROW = np.dtype([*((name, REQUEST[name]) for name in REQUEST.names or ()), ("device", "<u4"), ("stage", "u1")])


class _Requests:
    """The requests of all devices and stages, until the device and the stage are chosen."""

    def __init__(self, source: Lines, only: Only) -> None:
        self.source, self.only = source, only
        self.devices: dict[str, int] = {}
        self.start: int | None = None
        self.others: Counter[str] = Counter()
        self.pids: set[int] = set()

    def row(
        self, lineno: int, text: bytes, fields: tuple[bytes, ...], stage: int, pid: int, ns: int
    ) -> tuple[int, ...] | None:
        """A row of _ROW, None for one without data or of another process."""
        major, minor, rwbs, sector, sectors = fields
        at, length = int(sector) * SECTOR, int(sectors) * SECTOR
        write = _direction(rwbs)
        if write is None or not length:
            self.others["requests without data"] += 1
            return None
        if not length < 1 << 32 or at + length > U64:
            raise self.source.bad(lineno, text, "a request below 2^32 bytes that ends within 2^64 bytes")
        self.pids.add(pid)
        if self.only.pid not in (None, pid):
            return None
        device = self.devices.setdefault(f"{int(major)},{int(minor)}", len(self.devices))
        self.start = ns if self.start is None else self.start
        return ns, write, at, length, device, stage

    def chosen(self, rows: Rows, from_start: bool) -> Rows:
        """The requests of the one device and of the latest stage, with times from 0 that never decrease."""
        name = os.fspath(self.source.path)
        if self.only.device is not None:
            if self.only.device not in self.devices:
                raise InputError(
                    f"{name}: no request of device {self.only.device}",
                    value=self.only.device,
                    allowed=", ".join(self.devices),
                )
            rows = rows[rows["device"] == self.devices[self.only.device]]
        elif len(self.devices) > 1:
            raise self._several(rows)
        stage = int(rows["stage"].min())
        kept = rows[rows["stage"] == stage]
        if len(kept) < len(rows):
            earlier = plural(len(rows) - len(kept), "earlier step")
            self.source.notes.append(f"read are the {STAGES[stage]} events; left out: {earlier} of the same requests")
        ns = kept["time_us"].astype(np.int64)
        first = ns[0] if from_start else 0
        made = np.empty(len(kept), REQUEST)
        for column in REQUEST.names or ():
            made[column] = kept[column]
        made["time_us"] = np.maximum.accumulate(np.maximum(ns - first, 0)) // 1000
        return made

    def _several(self, rows: Rows) -> InputError:
        """Returns the error for a recording of several devices."""
        counts = np.bincount(rows["device"])
        listed = ", ".join(
            f"{device} ({plural(int(counts[at]), 'event')})" for device, at in list(self.devices.items())[:8]
        )
        most = list(self.devices)[int(counts.argmax())]
        path = self.source.path
        return InputError(
            f"{os.fspath(path)}: requests of {len(self.devices)} devices in one recording",
            value=listed,
            allowed="one device",
            cause="a request that a device passes on would count twice",
            then=f"ultrafolio trace import {quoted(path)} --device {most} --save one.iolog",
        )


def _direction(rwbs: bytes) -> int | None:
    """1 for a write, 0 for a read, None for a flush, discard or command. A leading F is a flush before a write."""
    kind = rwbs[1:2] if rwbs[:1] == b"F" else rwbs[:1]
    return {b"W": 1, b"R": 0}.get(kind)


def requests(form: str, path: Path, only: Only, notes: list[str]) -> Rows:
    """The requests of one device, rows of ``REQUEST``, in order.

    time_us  since the first request; of blkparse since its start; one that goes back is that of the one before
    offset   bytes from the start of the device

    InputError for a malformed line, several devices, no request, or more than MAX_ROWS events.
    """
    with open_stream(path) as stream:
        source = Lines(path, stream, notes)
        found = _Requests(source, only)
        rows = _blkparse(source, found) if form == "blkparse" else _traced(form, source, found)
        batches = list(batched(rows, _ROW, BATCH))
    if not batches:
        asked = f" by process {only.pid}" if only.pid is not None else ""
        there = ", ".join(map(str, sorted(found.pids)[:20])) if asked else ""
        raise HoldsNone(
            f"{os.fspath(path)}: no read and no write of a block device{asked}",
            allowed=there or f"{', '.join(EVENTS)}; of blkparse the actions D, I, Q",
            then=RECORD,
        )
    made = found.chosen(gathered(path, batches), from_start=form != "blkparse")
    ftrace.skipped(found.others, notes)
    return made


def _traced(form: str, source: Lines, found: _Requests) -> Iterator[tuple[int, ...]]:
    """Yields a row for each request among the events of a text."""
    for event in ftrace.events(form, source):
        stage = EVENTS.get(ftrace.short(event.name))
        if stage is None:
            found.others[event.name] += 1
            continue
        match = _FIELDS.fullmatch(event.rest)
        if match is None:
            raise source.bad(event.lineno, event.text, "'major,minor rwbs bytes () sector + sectors [comm]'")
        who = event.tid if event.pid is None else event.pid
        if (row := found.row(event.lineno, event.text, match.groups(), stage, who, event.ns)) is not None:
            yield row


def _blkparse(source: Lines, found: _Requests) -> Iterator[tuple[int, ...]]:
    """The lines of blkparse up to the summary, which repeats the counts and is not read."""
    for lineno, text in source:
        match = _BLKPARSE.fullmatch(text)
        if match is None:
            if _SUMMARY.fullmatch(text):
                for _ in source:
                    pass
                return
            if text and not text.startswith(b"Input file "):
                raise source.bad(lineno, text, BLKPARSE_EXPECTED)
            continue
        major, minor, seconds, nanos, pid, action, rwbs, sector, sectors, rest = match.groups()
        stage = ACTIONS.get(action)
        moves = stage is not None and _direction(rwbs) is not None
        if moves and sector is None and not _COMMAND.fullmatch(rest or b""):
            raise source.bad(lineno, text, BLKPARSE_EXPECTED)
        if stage is None or sector is None:
            found.others[f"action {action.decode()}"] += 1
            continue
        ns = int(seconds) * 10**9 + int(nanos)
        if (row := found.row(lineno, text, (major, minor, rwbs, sector, sectors), stage, int(pid), ns)) is not None:
            yield row


def _sniff(head: Head) -> bool:
    lines = (line for line in head.lines if line and not line.startswith(b"Input file "))
    return _BLKPARSE.fullmatch(next(lines, b"")) is not None


def _read(path: Path, kind: Kind, only: Only, notes: list[str]) -> Rows:
    return requests("blkparse", path, only, notes)


BLKPARSE = Format(
    "blkparse", "blktrace -d /dev/DISK -o - | blkparse -i -", ("requests",), _sniff, _read,
    bounds={"rows": MAX_ROWS}, parts=("pid", "device"),
)  # fmt: skip
