"""Chunks of equal time: a few cells from all over a plan are timed, then the plan is cut by what they cost."""

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

from ultrafolio.sweep.local.processes import TICK_SECONDS, die_with, fork
from ultrafolio.sweep.plan import Plan
from ultrafolio.sweep.work import Work

CHUNK_SECONDS = 2.0
"""How long a chunk computes. What a chunk costs beside its cells (a task, a fork, a deposit) is about 20 ms."""
FEWEST = 32
"""A small plan is cut into about so many chunks, so that several workers have something to do."""
SHORTEST_SECONDS = 0.1
MOST = 20_000
"""Beyond so many chunks they grow instead: the queue and the job's record stay small."""

SAMPLES = 32
SAMPLE_SECONDS = 0.3
PATIENCE = 4.0
"""Seconds after which the first cell counts as taking so long, and is not waited for."""
WARM_SECONDS = 300.0
"""How long compiling may take, where nothing was compiled yet (15 s on an idle core)."""
_WINDOW = 256
"""Points behind a sample in which cells are counted: filters may drop most of them."""


@dataclass(frozen=True)
class Sample:
    """What a point of the plan costs around ``index``, in seconds, dropped points included."""

    index: int
    seconds: float


def spread(spans: Sequence[range], number: int) -> Iterator[int]:
    """Up to ``number`` indices of the spans, at every moment evenly spread (the van der Corput sequence)."""
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


def kept(plan: Plan, index: int, stop: int) -> list[tuple[int, dict[str, Any]]]:
    """The cells of the window that begins at ``index``."""
    return list(plan.cells(range(index, min(index + _WINDOW, stop))))


def measure(work: Work, spans: Sequence[range], stopped: Callable[[], bool] = lambda: False) -> list[Sample]:
    """Time some cells for SAMPLE_SECONDS, in a forked process: one of them may kill it, or never end.

    That process compiles, too, so that its parent stays small. Failed cells are cells. Not empty unless ``spans`` is.
    When ``stopped()`` turns true nothing is waited for.
    """
    here, there = multiprocessing.Pipe(duplex=False)
    found = list[Sample]()
    process = fork(_time_cells, work, spans, there, os.getpid())
    there.close()
    with here, suppress(EOFError):
        began = time.monotonic()
        while not here.poll(TICK_SECONDS):
            if stopped() or time.monotonic() - began > WARM_SECONDS:
                break
        else:
            here.recv()
        began = time.monotonic()
        while not stopped() and here.poll(max(0.0, began + PATIENCE - time.monotonic())):
            found.append(Sample(*here.recv()))
    process.kill()
    process.join()
    if not found and spans:
        found.append(Sample(spans[0][0], PATIENCE))
    return sorted(found, key=lambda sample: sample.index)


def _time_cells(work: Work, spans: Sequence[range], pipe: Connection, parent: int) -> None:
    die_with(parent)
    work.cells.warm()
    pipe.send("ready")
    began = time.monotonic()
    for index in spread(spans, SAMPLES):
        window = kept(work.plan, index, work.plan.size)
        seconds = 0.0
        if window:
            at, cell = window[0]
            taken = _timed(work, at, cell)
            if taken > SAMPLE_SECONDS / 20:  # it may have read a recording that others find ready
                taken = _timed(work, at, cell)
            seconds = taken * len(window) / min(_WINDOW, work.plan.size - index)
        pipe.send((index, seconds))
        if time.monotonic() - began > SAMPLE_SECONDS:
            break


def _timed(work: Work, index: int, cell: dict[str, Any]) -> float:
    began = time.monotonic()
    key, config, text = work.key(cell)
    work.row(index, key, config, text)
    return time.monotonic() - began


def cut(spans: Sequence[range], samples: Sequence[Sample], target: float = CHUNK_SECONDS) -> list[list[range]]:
    """Cut the spans into chunks that last about ``target`` seconds by the nearest sample; in order, without gaps."""
    at = [sample.index for sample in samples]
    edges = [(left + right) // 2 + 1 for left, right in pairwise(at)]
    total = sum(len(span) for span in spans) * sum(sample.seconds for sample in samples) / max(1, len(samples))
    target = max(min(target, max(SHORTEST_SECONDS, total / FEWEST)), total / MOST)
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
    """The same indices in as few ranges as can be; ``spans`` ascend."""
    found: list[range] = []
    for span in spans:
        if found and found[-1].stop == span.start:
            found[-1] = range(found[-1].start, span.stop)
        elif span:
            found.append(span)
    return found
