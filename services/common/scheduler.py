"""Suspended calls: a servicer's method is a generator that yields `Wait` instead of sleeping, and so holds no thread.

    @suspends
    def Touch(self, request, context):
        while not enabled():
            yield Wait(0.02)
        return TouchResponse()

The method yields `Wait`s, and its messages where its responses are a stream; the value that it returns is its last
message. While it is suspended it holds no thread. One thread runs the timers; a pool of THREADS resumes calls.

A key is a lock with a queue: `hold` it, or wait `behind` it until its holder releases it.
"""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable, Generator, Hashable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol, TypeVar

import grpc

from ultrafolio.rpc.errors import StatusError

T = TypeVar("T")
THREADS = 16
"""They resume suspended calls; a call runs on the thread that it arrived on until its first wait."""
MOST = 8192
"""Suspended calls at a time; see services.limits."""


class Wait(NamedTuple):
    """Suspend the call for `seconds` at most;  behind: or until this key is released or woken."""

    seconds: float
    behind: Hashable | None = None


Suspending = Generator[Wait, None, T]
"""A generator that yields its waits and returns a T."""


class Sink(Protocol):
    """Receives a call's messages."""

    def send(self, message: Any) -> Wait | None:
        """Begin to send a message that is not the last. Returns a wait until it is sent, None if it is. Raises Gone if
        nobody reads it."""

    def end(self, message: Any | None, error: BaseException | None) -> None:
        """Send the last message, or the exception that ended the call. Called once."""


class Timer:
    """Calls functions at a given time, in one thread, which a slow function delays."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._due: list[tuple[float, int, Callable[[], object]]] = []
        self._cancelled: set[int] = set()
        self._numbers = itertools.count()
        self._started = False

    def at(self, seconds: float, function: Callable[[], object]) -> int:
        """Call `function` after `seconds`. Returns a number for `cancel`."""
        with self._changed:
            number = next(self._numbers)
            heapq.heappush(self._due, (time.monotonic() + seconds, number, function))
            if self._due[0][1] == number:
                self._changed.notify()
            if not self._started:
                self._started = True
                threading.Thread(target=self._run, name="timer", daemon=True).start()
        return number

    def cancel(self, number: int) -> None:
        """Do not call that function. No effect once it was called."""
        with self._changed:
            self._cancelled.add(number)
            if len(self._cancelled) > 1000 and 2 * len(self._cancelled) > len(self._due):
                self._due = [one for one in self._due if one[1] not in self._cancelled]
                heapq.heapify(self._due)
                self._cancelled.clear()

    def _run(self) -> None:
        """Call each function at its time, for ever, in the timer's thread."""
        while True:
            with self._changed:
                while not self._due or self._due[0][0] > time.monotonic():
                    self._changed.wait(self._due[0][0] - time.monotonic() if self._due else None)
                _, number, function = heapq.heappop(self._due)
                cancelled = number in self._cancelled
                self._cancelled.discard(number)
            if not cancelled:
                function()


class _Call:
    """A call that has not ended. wake_pending: do not suspend it at its next wait."""

    __slots__ = ("behind", "body", "sink", "suspended", "timer", "wake_pending")

    def __init__(self, body: Generator[Any, None, Any], sink: Sink) -> None:
        self.body, self.sink = body, sink
        self.suspended = self.wake_pending = False
        self.behind: Hashable | None = None
        self.timer = -1


class Gone(Exception):
    """Nobody reads the call's messages."""


class _Full(Exception):
    """The bound of suspended calls is reached."""


class Scheduler:
    """Suspends and resumes calls. most: suspended calls at a time; one more ends with TOO_MANY_WAITING."""

    def __init__(self, most: int = MOST) -> None:
        self.most, self.suspended, self.timer = most, 0, Timer()
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="resumed")
        self._lock = threading.Lock()
        self._held: set[Hashable] = set()
        self._queues: dict[Hashable, dict[_Call, None]] = {}
        """The calls suspended behind each key, in order."""

    # ------------------------------------------------------------------------------------------------- keys
    def hold(self, key: Hashable) -> bool:
        """Take a key. False if it is held."""
        with self._lock:
            if key in self._held:
                return False
            self._held.add(key)
            return True

    def release(self, key: Hashable, *, wake_all: bool = True) -> None:
        """Release a key, and resume the calls behind it: all, or the first."""
        with self._lock:
            self._held.discard(key)
            calls = self._dequeued(key, None if wake_all else 1)
        self._resume(calls)

    def wake(self, key: Hashable) -> None:
        """Resume all calls behind a key, which stays held."""
        with self._lock:
            calls = self._dequeued(key, None)
        self._resume(calls)

    def wake_next(self, key: Hashable) -> None:
        """Resume the first call behind a key that is not held. A resumed call that does not take the key calls this."""
        with self._lock:
            calls = [] if key in self._held else self._dequeued(key, 1)
        self._resume(calls)

    def _dequeued(self, key: Hashable, most: int | None) -> list[_Call]:
        """Take the first calls out of a key's queue, `most` of them (None: all). Returns them, to be resumed."""
        calls = list(itertools.islice(self._queues.get(key, ()), most))
        for call in calls:
            self._dequeue(call)
        return calls

    # ------------------------------------------------------------------------------------------------ calls
    def start(self, body: Generator[Any, None, Any], sink: Sink) -> Callable[[], None]:
        """Run a call in this thread until it is suspended or ends. Returns a function that resumes it early."""
        call = _Call(body, sink)
        self._run(call)
        return lambda: self._wake(call)

    def idle(self) -> Future[int]:
        """Returns a future that is done once a thread of the pool is free."""
        return self._pool.submit(int)

    def _run(self, call: _Call) -> None:
        """Run a call until it is suspended or ends; send its messages and its end to its sink."""
        refusal: StatusError | None = None
        while True:
            try:
                yielded = call.body.throw(refusal) if refusal else next(call.body)
                refusal = None
                wait = yielded if isinstance(yielded, Wait) else call.sink.send(yielded)
                if wait is not None and self._suspend(call, wait):
                    return
            except StopIteration as end:
                return call.sink.end(end.value, None)
            except _Full:
                refusal = _too_many(self.most)
            except BaseException as error:
                call.body.close()
                return call.sink.end(None, GeneratorExit() if isinstance(error, Gone) else error)

    def _suspend(self, call: _Call, wait: Wait) -> bool:
        """Suspend the call. False if it must continue now. Raises _Full at the bound."""
        with self._lock:
            if call.wake_pending or wait.seconds <= 0 or (wait.behind is not None and wait.behind not in self._held):
                call.wake_pending = False
                return False
            if self.suspended >= self.most:
                raise _Full
            self.suspended += 1
            call.suspended, call.behind = True, wait.behind
            if wait.behind is not None:
                self._queues.setdefault(wait.behind, {})[call] = None
            call.timer = self.timer.at(wait.seconds, lambda: self._wake(call, due=True))
        return True

    def _wake(self, call: _Call, *, due: bool = False) -> None:
        """Resume a call. If it is not suspended yet, its next wait does not suspend it; with `due` (its time is over)
        nothing."""
        with self._lock:
            if call.suspended:
                self._dequeue(call)
            elif due:
                return
            else:
                call.wake_pending = True
                return
        self._resume([call])

    def _dequeue(self, call: _Call) -> None:
        """Take a suspended call out of its queue, and stop its timer. The caller holds the lock."""
        call.suspended = False
        self.suspended -= 1
        queue = self._queues.get(call.behind)
        if queue is not None:
            queue.pop(call, None)
            if not queue:
                del self._queues[call.behind]
        self.timer.cancel(call.timer)

    def _resume(self, calls: list[_Call]) -> None:
        """Have the pool run these calls."""
        for call in calls:
            self._pool.submit(self._run, call)


def _too_many(most: int) -> StatusError:
    return StatusError(
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "TOO_MANY_WAITING",
        "too many calls wait here",
        value=f"{most} wait",
        allowed=f"{most} at a time",
        cause="what they wait for does not come: Explain says who holds it",
        then="repeat the call later",
    )


def suspends(method: Callable[..., Generator[Any, None, Any]] | Callable[..., Iterator[Any]]) -> Any:
    """Decorator of a servicer's method that yields Waits. gRPC sees a method that returns its messages."""
    method.suspends = True  # type: ignore[union-attr]
    return method


def run_blocking(body: Suspending[T]) -> T:
    """Run a generator to its end in this thread, which sleeps 20 ms at most for each wait. Returns its value."""
    while True:
        try:
            wait = next(body)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        time.sleep(min(0.02, max(0.0, wait.seconds)))


DEFAULT = Scheduler()
"""The scheduler of this process."""
