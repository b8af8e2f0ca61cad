"""Access patterns from DAMON, as damo keeps them: JSON, the same packed with zlib, or the kernel's events as text.

A snapshot holds regions of addresses with the number of checks that found an access. Conventions of damo 3.4
(_damo_records.py, _damo_fmt_str.py): numbers may be written with commas; a snapshot is ``nr_regions`` lines of one
target with the same time or later; a last snapshot of one empty region with -1 accesses stands for nothing.
"""

from __future__ import annotations

import json
import os
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from ultrafolio.errors import InputError
from ultrafolio.model.layout import PAGE_SHIFT
from ultrafolio.nouns import plural
from ultrafolio.trace import ftrace
from ultrafolio.trace.importer import MAX_ROWS, TOUCH, U64, Format, Head, Kind, Only, Rows, runs, too_large
from ultrafolio.trace.reader import Lines, Path, open_stream, quoted, shown

MAX_BYTES = 1 << 24
"""The most bytes of unpacked JSON."""
ZLIB = (b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda")
EVENTS = ("damon_aggregated", "damos_before_apply")
_REGION = re.compile(
    rb"(?:ctx_idx=[0-9]{1,9} scheme_idx=[0-9]{1,9} target_idx|target_id)=([0-9]{1,20}) nr_regions=([0-9]{1,9}) "
    rb"([0-9]{1,20})-([0-9]{1,20}): (-?[0-9]{1,10})(?: -?[0-9]{1,10})?"
)
_NUMBER = re.compile(r"-?[0-9]{1,20}(?:\.[0-9]{1,6})?")
WRAPPERS = ("damo_records", "damon_records", "record_list")
RECORD = "damo record PROGRAM (makes damon.data); or damo report access --json"
EXPECTED = 'a list of records, each with target_id and snapshots: [{"regions": [{start, end, nr_accesses, age}]}]'


class Region(NamedTuple):
    """Addresses start to end of one target, and whether DAMON saw an access there. snapshot: counts from 0."""

    target: str
    snapshot: int
    start: int
    end: int
    accessed: bool


def touches(path: Path, only: Only, notes: list[str]) -> Rows:
    """One touch a page of every region with an access, snapshot by snapshot, by ascending address.

    page   the first and the last page of a region count whole
    write  0: DAMON does not tell reads from writes

    InputError for damaged JSON or text, a region that ends before it starts, several targets, more than MAX_ROWS
    touches, and for records without any access.
    """
    name = os.fspath(path)
    seen: Counter[str] = Counter()
    snapshots: set[tuple[str, int]] = set()
    parts: list[Rows] = []
    total = 0
    for region in _regions(path, notes):
        if region.start == region.end:
            continue
        seen[region.target] += 1
        snapshots.add((region.target, region.snapshot))
        if not region.accessed or only.target not in (None, region.target):
            continue
        first, last = region.start >> PAGE_SHIFT, (region.end - 1) >> PAGE_SHIFT
        total += last - first + 1
        if total > MAX_ROWS:
            raise too_large(path, MAX_ROWS)
        rows = np.zeros(last - first + 1, TOUCH)
        rows["page"] = np.arange(last - first + 1, dtype=np.uint64) + np.uint64(first)
        parts.append(rows)
    _one_target(path, seen, only)
    if not parts:
        raise InputError(
            f"{name}: no region with an access",
            value=plural(sum(seen.values()), "region"),
            allowed="a region with nr_accesses above 0",
            then=RECORD,
        )
    taken = plural(len(snapshots), "snapshot")
    notes.append(f"DAMON samples: {taken}, in each a page of an accessed region is read once")
    return runs(np.concatenate(parts))


def _one_target(path: Path, seen: Counter[str], only: Only) -> None:
    """Raise InputError if the recording lacks the wanted target, or has several and none is named."""
    listed = ", ".join(f"{target} ({plural(n, 'region')})" for target, n in seen.most_common(8))
    if only.target is not None and only.target not in seen:
        raise InputError(f"{os.fspath(path)}: no target {only.target}", value=only.target, allowed=listed or "none")
    if only.target is None and len(seen) > 1:
        raise InputError(
            f"{os.fspath(path)}: {len(seen)} targets in one recording",
            value=listed,
            allowed="one target",
            cause="each target has an address space of its own",
            then=f"ultrafolio trace import {quoted(path)} --target {seen.most_common(1)[0][0]} --save one.lackey",
        )


def _regions(path: Path, notes: list[str]) -> Iterator[Region]:
    """Yields the regions of a recording: text of events, or JSON, plain or packed with zlib."""
    with open_stream(path) as stream:
        start = stream.peek(2)[:2]
        if start not in ZLIB and start[:1] not in (b"[", b"{"):
            yield from _traced(Lines(path, stream, notes))
            return
        data = stream.read(MAX_BYTES + 1)
    yield from _records(path, _unpacked(path, data) if start in ZLIB else data)


def _unpacked(path: Path, data: bytes) -> bytes:
    """Returns unpacked zlib data, MAX_BYTES + 1 at most. Raises InputError if it is damaged or cut short."""
    unpacker = zlib.decompressobj()
    try:
        made = unpacker.decompress(data, MAX_BYTES + 1)
    except zlib.error as error:
        raise InputError(f"{os.fspath(path)}: the zlib data is damaged", cause=str(error), then=RECORD) from None
    if len(made) <= MAX_BYTES and not unpacker.eof:
        raise InputError(f"{os.fspath(path)}: the zlib data is cut short", then=RECORD)
    return made


def _records(path: Path, data: bytes) -> Iterator[Region]:
    """The regions of damo's JSON."""
    if len(data) > MAX_BYTES:
        raise InputError(
            f"{os.fspath(path)}: more than {MAX_BYTES} bytes of JSON",
            allowed=f"up to {MAX_BYTES} bytes",
            then="damo report access --json with fewer snapshots",
        )
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{os.fspath(path)}: this is no JSON", cause=str(error), allowed=EXPECTED, then=RECORD
        ) from None
    try:
        for wrapper in WRAPPERS:
            found = found[wrapper] if isinstance(found, dict) and wrapper in found else found
        last: dict[str, int] = {}
        for record in found:
            target = shown(str(record["target_id"]))
            for snapshot in record["snapshots"]:
                last[target] = last.get(target, -1) + 1
                yield from _snapshot(path, target, last[target], snapshot["regions"])
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{os.fspath(path)}: the JSON holds no DAMON records",
            allowed=EXPECTED,
            cause=f"at {shown(str(error))}",
            then=RECORD,
        ) from None


def _snapshot(path: Path, target: str, number: int, regions: Iterable[Any]) -> Iterator[Region]:
    """Yields the regions of one snapshot of a JSON record."""
    for region in regions:
        start, end = _count(path, region["start"]), _count(path, region["end"])
        accesses = region["nr_accesses"]
        samples = accesses.get("samples")
        value = _count(path, accesses["percent"] if samples is None else samples)
        yield _region(path, target, number, start, end, value)


def _count(path: Path, value: object) -> float:
    """A number as damo writes it: 4096, "4096", "4,096", "12.5 %" or "max"."""
    text = str(value).replace(",", "").removesuffix("%").strip()
    if text == "max":
        return U64 - 1
    if isinstance(value, bool) or not _NUMBER.fullmatch(text):
        raise InputError(
            f"{os.fspath(path)}: not a number", value=shown(str(value)), allowed='4096, "4,096" or "12 %"', then=RECORD
        )
    return float(text) if "." in text else int(text)


def _region(path: Path, target: str, number: int, start: float, end: float, accesses: float) -> Region:
    """Returns a region. Raises InputError if it does not lie within 64 bits."""
    if not 0 <= start <= end <= U64 or isinstance(start, float) or isinstance(end, float):
        raise InputError(
            f"{os.fspath(path)}: a region from {start} to {end}", allowed="0 <= start <= end <= 2^64", then=RECORD
        )
    return Region(target, number, start, end, accesses > 0)


def _traced(source: Lines) -> Iterator[Region]:
    """The regions of a text of events; a snapshot of a target ends with its ``nr_regions``-th line."""
    found = ftrace.first(Head(source.path))
    form = found[0] if found else "perf"
    count: Counter[str] = Counter()
    number: Counter[str] = Counter()
    others: Counter[str] = Counter()
    for event in ftrace.events(form, source):
        if ftrace.short(event.name) not in EVENTS:
            others[event.name] += 1
            continue
        match = _REGION.fullmatch(event.rest)
        if match is None:
            raise source.bad(event.lineno, event.text, "'target_id=N nr_regions=N start-end: accesses age'")
        target = str(int(match[1]))
        yield _region(source.path, target, number[target], int(match[3]), int(match[4]), int(match[5]))
        count[target] += 1
        if count[target] >= int(match[2]):
            count[target], number[target] = 0, number[target] + 1
    ftrace.skipped(others, source.notes)


def _sniff(head: Head) -> bool:
    if head.data.startswith(ZLIB):
        return True
    if head.data[:1] in (b"[", b"{"):
        return b'"snapshots"' in head.data or b'"target_id"' in head.data
    found = ftrace.first(head)
    return found is not None and ftrace.short(found[1].name) in (*EVENTS, "damon_monitor_intervals_tune")


def _read(path: Path, kind: Kind, only: Only, notes: list[str]) -> Rows:
    return touches(path, only, notes)


IMPORTER = Format(
    "damon", RECORD, ("touches",), _sniff, _read, bounds={"rows": MAX_ROWS, "bytes of JSON": MAX_BYTES},
    parts=("target",)
)  # fmt: skip
