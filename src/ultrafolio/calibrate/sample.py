"""Measured times with their spread."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

LEAST, MOST = 5, 20_000


class NotPossible(Exception):
    """Something cannot be measured or observed on this machine; the message is the reason, for the user."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A measured time.

    name         its name in the profile
    what         the timed operation, in words
    median, q1, q3, mean  ns for one operation; q1 and q3 are the quartiles
    n            the number of timings; if each is the mean over a batch of operations, `what` says so
    """

    name: str
    what: str
    median: int
    q1: int
    q3: int
    mean: int
    n: int


@dataclass(frozen=True, slots=True)
class Missing:
    """A measure that is not possible on this machine, and the reason."""

    name: str
    reason: str


def sample(name: str, what: str, once: Callable[[], float], seconds: float) -> Sample:
    """Repeat `once`, which returns the ns of one operation, for `seconds`, but at least LEAST times.

    The first call is not counted. NotPossible of `once` is raised.
    """
    once()
    times: list[float] = []
    end = time.monotonic() + seconds
    while len(times) < LEAST or (time.monotonic() < end and len(times) < MOST):
        times.append(once())
    return summary(name, what, times)


def summary(name: str, what: str, times: Sequence[float]) -> Sample:
    """The median, the quartiles and the mean of `times`, in ns, rounded; never below zero."""
    low, middle, high = np.percentile(times, (25, 50, 75)).round().astype(int).tolist()
    return Sample(
        name, what, max(0, middle), max(0, low), max(0, high), max(0, round(float(np.mean(times)))), len(times)
    )


def each(call: Callable[[], object], count: int = 16) -> float:
    """The mean ns of one `call`, over `count` consecutive ones."""
    return timed(lambda: [call() for _ in range(count)], count)


def timed(operation: Callable[[], object], count: int = 1) -> float:
    """The mean ns of one of the `count` operations of `operation`."""
    start = time.perf_counter_ns()
    operation()
    return (time.perf_counter_ns() - start) / count
