"""Progress of an exploration, on a terminal only."""

from __future__ import annotations

import resource
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

T = TypeVar("T")
AFTER_S = 1.0
"""Seconds until the first line, and between two lines."""


@contextmanager
def shown(count: Any) -> Iterator[None]:
    """A context manager that writes states, states per second, queued states and memory to stderr, on one line that is
    cleared at the end; nothing if stderr is no terminal. `count`: the COUNT record of the exploration."""
    if not sys.stderr.isatty():
        yield
        return
    over, start = threading.Event(), time.monotonic()

    def tell() -> None:
        while not over.wait(AFTER_S):
            print(f"\r{line(count, time.monotonic() - start)}", end="", file=sys.stderr, flush=True)

    teller = threading.Thread(target=tell, daemon=True)
    teller.start()
    try:
        yield
    finally:
        over.set()
        teller.join()
        if time.monotonic() - start > AFTER_S:
            print(f"\r{'':70}\r", end="", file=sys.stderr, flush=True)


def counted(results: Iterable[T], total: int) -> Iterator[T]:
    """Yields the results of a list of tasks; on a terminal, writes how many are there to stderr, on one line that is
    cleared at the end."""
    last, told = time.monotonic(), False
    for number, result in enumerate(results, 1):
        if sys.stderr.isatty() and time.monotonic() - last > AFTER_S:
            print(f"\r{f'{number} of {total} are checked':70}\r", end="", file=sys.stderr, flush=True)
            last, told = time.monotonic(), True
        yield result
    if told:
        print(f"\r{'':70}\r", end="", file=sys.stderr, flush=True)


def line(count: Any, seconds: float) -> str:
    """The exploration so far in at most 70 columns."""
    states, mib = int(count["states"][0]), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    waiting = states - int(count["next"][0])
    return f"{states:,} states, {states / seconds:,.0f}/s, {waiting:,} wait, {mib:,} MiB"[:70].ljust(70)
