"""Who does the work: any number of forked processes that may die, or this process."""

from __future__ import annotations

import ctypes
import mmap
import multiprocessing
import os
import resource
import signal
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Protocol

from ultrafolio.errors import InputError
from ultrafolio.sweep.local.schedule import Schedule
from ultrafolio.sweep.segment import Segment
from ultrafolio.sweep.work import NOTHING, Tally, Work

TICK_SECONDS = 0.2
LIVES = 2
"""A cell that ends this many workers is a failed cell."""
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Limits:
    """What one cell may use; a cell that uses more is a failed cell. None: no limit."""

    seconds: float | None = None
    """Wall-clock time, looked at every TICK_SECONDS."""
    megabytes: int | None = None
    """Address space beyond what the worker has when it begins (Linux)."""


NO_LIMITS = Limits()


class Executor(Protocol):
    """Works a span of a plan's indices, in any order and on any number of workers."""

    def run(
        self, work: Work, span: range, segment: Callable[[str], Segment], stopped: Callable[[], bool]
    ) -> Iterator[Tally]:
        """Compile, then yield a tally for each piece of ``span`` once its cells are stored, and NOTHING now and then.

        ``segment(writer)`` makes a writer's segment. When ``stopped()`` turns true the workers finish the
        cells they are in and store them. An exception in ``resolve`` or in the store ends the run with it.
        """


class InProcess:
    """Everything in this process: for debuggers and coverage. A cell that dies takes the sweep with it."""

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
    """``count`` forked workers, replaced when they die; they inherit what is compiled and stored.

    A worker's death costs the batch it was about to store. The cell it died in is tried once more on its own.
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
            crew = Crew(self.count, self.limits, work, segment, own)
            try:
                yield from crew.run(spans, stopped)
            finally:
                crew.dismiss()


class Crew:
    """Forked workers that stand ready for runs, one after the other.

    The board is shared memory: a stop flag, then the cell each slot is in.
    """

    def __init__(self, count: int, limits: Limits, work: Work, segment: Callable[[str], Segment], own: Segment) -> None:
        self._limits, self._seen, self._late = limits, dict[int, tuple[int, float]](), set[int]()
        self._work, self._schedule, self._segment, self._own = work, Schedule([], count), segment, own
        self._board = memoryview(mmap.mmap(-1, 8 * (count + 1))).cast("q")
        self._workers: list[_Worker] = []
        self._hired = 0
        self._deaths: Counter[int] = Counter()
        for slot in range(1, count + 1):
            self._hire(slot)

    def run(self, spans: Iterable[range], stopped: Callable[[], bool]) -> Iterator[Tally]:
        """Work the spans as an executor does. After an exception the crew is of no use but to be dismissed."""
        self._schedule = Schedule(spans, len(self._workers))
        self._deaths.clear()
        self._late.clear()
        self._board[0] = 0
        while self._assign(stopped):
            yield from self._collect() or [NOTHING]

    def _assign(self, stopped: Callable[[], bool]) -> bool:
        """Give every idle worker a span unless the run is stopping; whether anyone is at work."""
        if stopped():
            self._board[0] = 1
        while self._schedule and not self._board[0]:
            worker = next((worker for worker in self._workers if worker.given is None), None)
            if worker is None:
                break
            worker.given = self._schedule.take()
            try:
                worker.pipe.send(worker.given)
            except OSError:  # it died idle; its successor is idle too
                self._bury(worker)
        return any(worker.given is not None for worker in self._workers)

    def _collect(self) -> list[Tally]:
        """What has come in, waiting a moment if nothing has. Raises what a worker could not go on from."""
        tallies = []
        at_work = {worker.pipe: worker for worker in self._workers if worker.given is not None}
        for pipe in wait(list(at_work), TICK_SECONDS):
            worker = at_work[pipe]  # type: ignore[index]
            assert worker.given is not None
            try:
                answer = worker.pipe.recv()
            except (EOFError, OSError):
                tallies += self._bury(worker)
                continue
            if isinstance(answer, BaseException):
                raise answer
            self._schedule.done(worker.given, answer)
            worker.given = None
            self._deaths.pop(-1, None)
            tallies.append(answer)
        if self._limits.seconds is not None:
            self._end_the_late(self._limits.seconds)
        return tallies

    def _end_the_late(self, seconds: float) -> None:
        """Kill workers that are in one cell for too long; their end is then seen like any other."""
        now = time.monotonic()
        for worker in self._workers:
            at = self._board[worker.slot]
            seen, since = self._seen.get(worker.slot, (-1, now))
            if at == -1 or seen != at:
                self._seen[worker.slot] = (at, now)
            elif now - since > seconds:
                self._late.add(at)
                worker.process.kill()

    def dismiss(self) -> None:
        """End all workers; those still at work (after an error) are killed, their last batch is lost."""
        for worker in self._workers:
            if worker.given is not None:
                worker.process.kill()
            worker.pipe.close()
            worker.process.join()

    def _hire(self, slot: int) -> None:
        here, there = multiprocessing.Pipe()
        self._board[slot] = -1
        writer = str(self._hired)
        inherited = [worker.pipe for worker in self._workers] + [here]
        segment = partial(self._segment, writer)
        target = partial(_serve, self._work, segment, there, inherited, self._board, slot, self._limits.megabytes)
        process = fork(target, os.getpid())
        there.close()
        self._workers.append(_Worker(process, here, slot))
        self._hired += 1

    def _bury(self, worker: _Worker) -> list[Tally]:
        """Replace a dead worker; its span goes back, or the cell that has now ended LIVES workers fails."""
        assert worker.given is not None
        worker.process.join()
        worker.pipe.close()
        self._workers.remove(worker)
        at = self._board[worker.slot]
        reason = _cause_of_death(worker.process.exitcode)
        self._deaths[at] += 1
        if at == -1 and self._deaths[at] > LIVES * len(self._board):
            raise RuntimeError(f"workers end before they compute anything: {reason}")
        condemned = at != -1 and (self._deaths[at] >= LIVES or at in self._late)
        if at in self._late:
            reason = f"CellLimit: more than {self._limits.seconds:g} s in this cell"
        self._schedule.died(worker.given, at, again=not condemned)
        self._hire(worker.slot)
        return [self._work.condemn(at, reason, self._own)] if condemned else []


def _cause_of_death(code: int | None) -> str:
    if code is not None and code < 0:
        return f"WorkerDied: signal {-code} ({signal.Signals(-code).name}) ended {LIVES} workers in this cell"
    return f"WorkerDied: exit status {code} ended {LIVES} workers in this cell"


def _serve(
    work: Work,
    segment: Callable[[], Segment],
    pipe: Connection,
    inherited: list[Connection],
    board: memoryview,
    slot: int,
    megabytes: int | None,
    parent: int,
) -> None:
    """A worker's life: take spans and answer with tallies until the pipe closes."""
    die_with(parent)
    if megabytes is not None:
        _limit_memory(megabytes)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent says stop
    for connection in inherited:
        connection.close()  # so that the end of the parent is the end of every pipe

    def enter(index: int) -> None:
        board[slot] = index

    try:
        with segment() as own:
            while True:
                pipe.send(work.do(pipe.recv(), own, lambda: bool(board[0]), enter))
    except (EOFError, BrokenPipeError):
        pass  # the parent is done, or gone
    except InputError as error:
        pipe.send(error)
    except Exception:
        pipe.send(RuntimeError(f"a worker failed:\n{traceback.format_exc()}"))


def fork(target: Callable[..., None], *args: Any) -> BaseProcess:
    """Start ``target(*args)`` in a fork of this process, which inherits what is compiled."""
    process = multiprocessing.get_context("fork").Process(target=target, args=args, daemon=True)
    with warnings.catch_warnings():
        # Threads of Arrow's or rich's may exist; a worker touches nothing that they hold locks for.
        warnings.simplefilter("ignore", DeprecationWarning)
        process.start()
    return process


def die_with(parent: int) -> None:
    """Have the kernel end this process with its parent, even in the middle of a long cell."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it was gone before we asked
            os._exit(1)


def _limit_memory(megabytes: int) -> None:
    """Let allocations beyond this much more than now fail, with MemoryError in the cell that asks."""
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + (megabytes << 20)
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


def executor_of(workers: int | None, limits: Limits = NO_LIMITS) -> Executor:
    """The executor for ``--workers``; by default a process for each core this process may use."""
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
        affinity = getattr(os, "sched_getaffinity", None)
        workers = len(affinity(0)) if affinity else os.cpu_count() or 1
    return Processes(workers, limits)
