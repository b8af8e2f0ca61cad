"""Executors on this machine: a pool of forked processes that replaces dead ones, or this process."""

from __future__ import annotations

import mmap
import multiprocessing
import os
import resource
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Protocol

from ultrafolio.errors import InputError
from ultrafolio.forked import cores, die_with, fork
from ultrafolio.sweep.local.schedule import Schedule
from ultrafolio.sweep.segment import Segment
from ultrafolio.sweep.work import NOTHING, Tally, Work

TICK_SECONDS = 0.2
MAX_DEATHS = 2
"""A cell that kills this many workers is a failed cell."""


@dataclass(frozen=True)
class Limits:
    """Limits of one cell; a cell that exceeds them is a failed cell. None: no limit."""

    seconds: float | None = None
    """Wall-clock time, checked every TICK_SECONDS."""
    megabytes: int | None = None
    """Address space in MiB beyond that of the worker at its start (Linux)."""


NO_LIMITS = Limits()
MOST_WORKERS = 1024


class Executor(Protocol):
    """Computes a span of a plan's indices, in any order and on any number of workers."""

    def run(
        self, work: Work, span: range, segment: Callable[[str], Segment], stopped: Callable[[], bool]
    ) -> Iterator[Tally]:
        """Compile, then yield a tally for each part of ``span`` after its cells are stored, and NOTHING while waiting.

        ``segment(writer)`` makes a writer's segment. When ``stopped()`` returns true, the workers finish their
        current cells and store them. An exception in ``resolve`` or in the store ends the run and is raised.
        """


class InProcess:
    """Computes all cells in this process, for debuggers and coverage. A cell that kills its process ends the sweep."""

    def run(
        self, work: Work, span: range, segment: Callable[[str], Segment], stopped: Callable[[], bool]
    ) -> Iterator[Tally]:
        work.cells.warm()
        schedule = Schedule([span], 1)
        with segment("0") as own:
            while schedule and not stopped():
                given = schedule.take()
                tally = work.do(given, own, stopped, lambda index: None)
                schedule.done(given, tally)
                yield tally


@dataclass
class _Worker:
    """A forked worker as its parent sees it."""

    process: BaseProcess
    pipe: Connection
    slot: int
    given: range | None = field(default=None)


class Processes:
    """``count`` forked workers, replaced when they die; they inherit compiled code and the stored keys.

    A dead worker loses its current batch, which is computed again. The cell in which it died is tried once more alone.
    """

    def __init__(self, count: int, limits: Limits = NO_LIMITS) -> None:
        self.count, self.limits = count, limits

    def run(
        self, work: Work, span: range, segment: Callable[[str], Segment], stopped: Callable[[], bool]
    ) -> Iterator[Tally]:
        return self.run_all(work, [span], segment, stopped)

    def run_all(
        self, work: Work, spans: Iterable[range], segment: Callable[[str], Segment], stopped: Callable[[], bool]
    ) -> Iterator[Tally]:
        """``run`` for several spans at once."""
        work.cells.warm()
        with segment("parent") as own:
            pool = WorkerPool(self.count, self.limits, work, segment, own)
            try:
                yield from pool.run(spans, stopped)
            finally:
                pool.close()


class WorkerPool:
    """Forked workers that serve several runs, one after the other.

    ``_shared`` is memory shared with the workers: a stop flag, then the current cell of each slot (-1: none).
    """

    def __init__(self, count: int, limits: Limits, work: Work, segment: Callable[[str], Segment], own: Segment) -> None:
        self._limits, self._seen, self._timed_out = limits, dict[int, tuple[int, float]](), set[int]()
        self._work, self._schedule, self._segment, self._own = work, Schedule([], count), segment, own
        self._shared = memoryview(mmap.mmap(-1, 8 * (count + 1))).cast("q")
        self._workers: list[_Worker] = []
        self._started = 0
        self._deaths: Counter[int] = Counter()
        for slot in range(1, count + 1):
            self._start_worker(slot)

    def run(self, spans: Iterable[range], stopped: Callable[[], bool]) -> Iterator[Tally]:
        """Compute the spans as an executor does. After an exception the pool can only be closed."""
        self._schedule = Schedule(spans, len(self._workers))
        self._deaths.clear()
        self._timed_out.clear()
        self._shared[0] = 0
        while self._assign(stopped):
            yield from self._collect() or [NOTHING]

    def _assign(self, stopped: Callable[[], bool]) -> bool:
        """Give each idle worker a span unless the run is stopping. Returns whether any worker is busy."""
        if stopped():
            self._shared[0] = 1
        while self._schedule and not self._shared[0]:
            worker = next((worker for worker in self._workers if worker.given is None), None)
            if worker is None:
                break
            worker.given = self._schedule.take()
            try:
                worker.pipe.send(worker.given)
            except OSError:  # it died idle; its replacement is idle too
                self._replace(worker)
        return any(worker.given is not None for worker in self._workers)

    def _collect(self) -> list[Tally]:
        """Returns the tallies that arrive within TICK_SECONDS. Raises the exception that a worker sent."""
        tallies = []
        at_work = {worker.pipe: worker for worker in self._workers if worker.given is not None}
        for pipe in wait(list(at_work), TICK_SECONDS):
            worker = at_work[pipe]  # type: ignore[index]
            assert worker.given is not None
            try:
                answer = worker.pipe.recv()
            except (EOFError, OSError):
                tallies += self._replace(worker)
                continue
            if isinstance(answer, BaseException):
                raise answer
            self._schedule.done(worker.given, answer)
            worker.given = None
            self._deaths.pop(-1, None)
            tallies.append(answer)
        if self._limits.seconds is not None:
            self._kill_timed_out(self._limits.seconds)
        return tallies

    def _kill_timed_out(self, seconds: float) -> None:
        """Kill workers that are in one cell for more than ``seconds``; ``_collect`` then replaces them."""
        now = time.monotonic()
        for worker in self._workers:
            at = self._shared[worker.slot]
            seen, since = self._seen.get(worker.slot, (-1, now))
            if at == -1 or seen != at:
                self._seen[worker.slot] = (at, now)
            elif now - since > seconds:
                self._timed_out.add(at)
                worker.process.kill()

    def close(self) -> None:
        """End all workers. Busy workers (after an error) are killed and lose their last batch."""
        for worker in self._workers:
            if worker.given is not None:
                worker.process.kill()
            worker.pipe.close()
            worker.process.join()

    def _start_worker(self, slot: int) -> None:
        """Fork a worker for a slot of the shared memory."""
        here, there = multiprocessing.Pipe()
        self._shared[slot] = -1
        writer = str(self._started)
        inherited = [worker.pipe for worker in self._workers] + [here]
        segment = partial(self._segment, writer)
        target = partial(_serve, self._work, segment, there, inherited, self._shared, slot, self._limits.megabytes)
        process = fork(target, os.getpid())
        there.close()
        self._workers.append(_Worker(process, here, slot))
        self._started += 1

    def _replace(self, worker: _Worker) -> list[Tally]:
        """Replace a dead worker and schedule its span again. Returns the tally of the cell that killed MAX_DEATHS
        workers or exceeded its time, if it did; that cell is stored as failed."""
        assert worker.given is not None
        worker.process.join()
        worker.pipe.close()
        self._workers.remove(worker)
        at = self._shared[worker.slot]
        reason = _death_reason(worker.process.exitcode)
        self._deaths[at] += 1
        if at == -1 and self._deaths[at] > MAX_DEATHS * len(self._shared):
            raise RuntimeError(f"workers end before they compute anything: {reason}")
        failed = at != -1 and (self._deaths[at] >= MAX_DEATHS or at in self._timed_out)
        if at in self._timed_out:
            reason = f"CellLimit: more than {self._limits.seconds:g} s in this cell"
        self._schedule.died(worker.given, at, again=not failed)
        self._start_worker(worker.slot)
        return [self._work.store_failure(at, reason, self._own)] if failed else []


def _death_reason(code: int | None) -> str:
    """Returns the error of a cell in which workers died."""
    if code is not None and code < 0:
        return f"WorkerDied: signal {-code} ({signal.Signals(-code).name}) ended {MAX_DEATHS} workers in this cell"
    return f"WorkerDied: exit status {code} ended {MAX_DEATHS} workers in this cell"


def _serve(
    work: Work,
    segment: Callable[[], Segment],
    pipe: Connection,
    inherited: list[Connection],
    shared: memoryview,
    slot: int,
    megabytes: int | None,
    parent: int,
) -> None:
    """The main loop of a worker: receive spans and send tallies until the pipe closes."""
    die_with(parent)
    if megabytes is not None:
        _limit_memory(megabytes)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent sets the stop flag
    for connection in inherited:
        connection.close()  # so that every pipe closes when the parent ends

    def enter(index: int) -> None:
        shared[slot] = index

    try:
        with segment() as own:
            while True:
                pipe.send(work.do(pipe.recv(), own, lambda: bool(shared[0]), enter))
    except (EOFError, BrokenPipeError):
        pass  # the parent closed the pipe or ended
    except InputError as error:
        pipe.send(error)
    except Exception:
        pipe.send(RuntimeError(f"a worker failed:\n{traceback.format_exc()}"))


def _limit_memory(megabytes: int) -> None:
    """Limit the address space to its size plus ``megabytes``; a larger allocation raises MemoryError (Linux)."""
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + (megabytes << 20)
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


def executor_of(workers: int | None, limits: Limits = NO_LIMITS) -> Executor:
    """The executor for ``--workers``: 0 is this process; None is a process for each core that this process may use.
    Raises InputError for another number, or for limits without processes."""
    if workers is not None and (not isinstance(workers, int) or not 0 <= workers <= MOST_WORKERS):
        raise InputError("number of workers", value=workers, allowed=f"0 to {MOST_WORKERS}")
    if workers == 0:
        if limits != NO_LIMITS:
            raise InputError(
                "--workers 0: this process cannot end its own cells",
                value=limits,
                allowed="--workers 1 or more",
                then="repeat without --cell-seconds and --cell-memory",
            )
        return InProcess()
    if workers is None:
        workers = cores()
    return Processes(workers, limits)
