"""Forks of this process, which inherit its compiled code, and results of a list of tasks from several of them."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

from ultrafolio.errors import InputError

T = TypeVar("T")
_PR_SET_PDEATHSIG = 1


def cores() -> int:
    """Returns how many cores this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def fork(target: Callable[..., None], *args: Any) -> BaseProcess:
    """Start ``target(*args)`` in a fork of this process. Returns the process."""
    process = multiprocessing.get_context("fork").Process(target=target, args=args, daemon=True)
    with warnings.catch_warnings():
        # Threads of Arrow or rich may exist; a worker uses nothing whose locks they may hold.
        warnings.simplefilter("ignore", DeprecationWarning)
        process.start()
    return process


def die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent ends, also inside a long task (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it ended before prctl
            os._exit(1)


_TASK: list[Callable[[int], Any]] = []
"""The task of a process of in_order(). The fork inherits it, so only the number of a task is sent."""


def _begin(task: Callable[[int], Any], parent: int) -> None:
    """Begin a process of in_order(): Ctrl-C, which reaches the whole group, ends it without a traceback."""
    die_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    _TASK.append(task)


def _call(number: int) -> Any:
    """Do task `number` in a process of in_order()."""
    return _TASK[0](number)


def in_order(task: Callable[[int], T], n: int, processes: int, alone: str) -> Iterator[T]:
    """Yields the results of task(0) to task(n - 1), in this order. What a task returns or raises must be picklable. The
    first exception is raised, and no further task begins.

    processes  forks of this process that do the tasks; 1: this process does them, each when it is asked for
    alone      what to type if the system ends a fork, for instance for its memory

    Raises InputError in that case.
    """
    if processes == 1:
        yield from map(task, range(n))
        return
    context = multiprocessing.get_context("fork")
    pool = ProcessPoolExecutor(processes, context, initializer=_begin, initargs=(task, os.getpid()))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # as in fork()
            results = pool.map(_call, range(n))
        yield from results
    except BrokenProcessPool as error:
        raise InputError(
            "a process that did a part of the work was ended",
            value=f"one of {processes}",
            cause="the system had too little memory for so many",
            then=alone,
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)
