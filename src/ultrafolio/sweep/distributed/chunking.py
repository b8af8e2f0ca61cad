"""Cut a plan into chunks of equal computing time, estimated from a sample of its cells."""

from __future__ import annotations

import multiprocessing
import os
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count, pairwise
from multiprocessing.connection import Connection
from typing import Any

from ultrafolio.forked import die_with, fork
from ultrafolio.sweep.local.processes import TICK_SECONDS
from ultrafolio.sweep.plan import Plan
from ultrafolio.sweep.work import Work

CHUNK_SECONDS = 2.0
"""The target for a chunk's computing time. Its overhead (task, fork, storing the part) is about 20 ms."""
MIN_CHUNKS = 32
"""A small plan is cut into about this number of chunks, so that several workers get one."""
MIN_CHUNK_SECONDS = 0.1
MAX_CHUNKS = 20_000
"""A large plan gets at most about this number of chunks, longer ones: the queue and the job's record stay small."""

SAMPLES = 32
SAMPLE_SECONDS = 0.3
CELL_TIMEOUT = 4.0
"""Seconds to wait for a sample. If the first cell takes longer, this is its estimate."""
COMPILE_TIMEOUT = 300.0
"""Seconds that compiling may take when nothing is cached (15 s on an idle core)."""
_WINDOW = 256
"""Points from a sample on in which cells are counted, since filters may drop most of them."""


@dataclass(frozen=True)
class Sample:
    """The mean computing time of a point near ``index``, in seconds, dropped points included."""

    index: int
    seconds: float


def spread(spans: Sequence[range], number: int) -> Iterator[int]:
    """Up to ``number`` indices of the spans; each prefix is evenly spread (the van der Corput sequence)."""
    total, seen = sum(map(len, spans)), set[int]()
    for turn in count():
        if len(seen) == min(number, total):
            return
        fraction, step = 0.0, 0.5
        while turn:
            fraction, turn, step = fraction + step * (turn & 1), turn >> 1, step / 2
        place = int(fraction * total)
        if place in seen:
            continue
        seen.add(place)
        for span in spans:
            if place < len(span):
                yield span[place]
                break
            place -= len(span)


def cells_from(plan: Plan, index: int, stop: int) -> list[tuple[int, dict[str, Any]]]:
    """The cells of the window that begins at ``index``."""
    return list(plan.cells(range(index, min(index + _WINDOW, stop))))


def measure(work: Work, spans: Sequence[range], stopped: Callable[[], bool] = lambda: False) -> list[Sample]:
    """Time cells for SAMPLE_SECONDS in a forked process, since a cell may kill it or not end.

    Returns samples sorted by index, at least one if ``spans`` is not empty. Failed cells count. The process also
    compiles, so that its parent's memory stays small. Returns at once when ``stopped()`` returns true.
    """
    here, there = multiprocessing.Pipe(duplex=False)
    found = list[Sample]()
    process = fork(_time_cells, work, spans, there, os.getpid())
    there.close()
    with here, suppress(EOFError):
        began = time.monotonic()
        while not here.poll(TICK_SECONDS):
            if stopped() or time.monotonic() - began > COMPILE_TIMEOUT:
                break
        else:
            here.recv()
        began = time.monotonic()
        while not stopped() and here.poll(max(0.0, began + CELL_TIMEOUT - time.monotonic())):
            found.append(Sample(*here.recv()))
    process.kill()
    process.join()
    if not found and spans:
        found.append(Sample(spans[0][0], CELL_TIMEOUT))
    return sorted(found, key=lambda sample: sample.index)


def _time_cells(work: Work, spans: Sequence[range], pipe: Connection, parent: int) -> None:
    """The child of ``measure``: compile, send "ready", then (index, seconds) of each sample; ends with ``parent``."""
    die_with(parent)
    work.cells.warm()
    pipe.send("ready")
    began = time.monotonic()
    for index in spread(spans, SAMPLES):
        window = cells_from(work.plan, index, work.plan.size)
        seconds = 0.0
        if window:
            at, cell = window[0]
            taken = _timed(work, at, cell)
            if taken > SAMPLE_SECONDS / 20:  # the first cell may have read a recording, which is then cached
                taken = _timed(work, at, cell)
            seconds = taken * len(window) / min(_WINDOW, work.plan.size - index)
        pipe.send((index, seconds))
        if time.monotonic() - began > SAMPLE_SECONDS:
            break


def _timed(work: Work, index: int, cell: dict[str, Any]) -> float:
    """Compute a cell. Returns the seconds."""
    began = time.monotonic()
    key, config, text = work.key(cell)
    work.row(index, key, config, text)
    return time.monotonic() - began


def cut(spans: Sequence[range], samples: Sequence[Sample], target: float = CHUNK_SECONDS) -> list[list[range]]:
    """Cut the spans into chunks of about ``target`` seconds, each point timed as its nearest sample.

    Returns a list of spans for each chunk. The chunks are in order and cover ``spans`` exactly.
    """
    at = [sample.index for sample in samples]
    edges = [(left + right) // 2 + 1 for left, right in pairwise(at)]
    total = sum(len(span) for span in spans) * sum(sample.seconds for sample in samples) / max(1, len(samples))
    target = max(min(target, max(MIN_CHUNK_SECONDS, total / MIN_CHUNKS)), total / MAX_CHUNKS)
    chunks: list[list[range]] = [[]]
    room = target
    for span in spans:
        start = span.start
        while start < span.stop:
            stratum = bisect_right(edges, start)
            cost = max(samples[stratum].seconds, 1e-6) if samples else target
            stop = min(span.stop, *edges[stratum : stratum + 1] or [span.stop])
            stop = min(stop, start + max(1, int(room / cost)))
            chunks[-1].append(range(start, stop))
            room -= (stop - start) * cost
            if room < cost / 2:
                chunks.append([])
                room = target
            start = stop
    return [joined(chunk) for chunk in chunks if chunk]


def joined(spans: Sequence[range]) -> list[range]:
    """The same indices in the fewest ranges; ``spans`` must ascend."""
    found: list[range] = []
    for span in spans:
        if found and found[-1].stop == span.start:
            found[-1] = range(found[-1].start, span.stop)
        elif span:
            found.append(span)
    return found
