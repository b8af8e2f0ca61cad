"""Calls that wait without a thread: what a call does is a generator, which yields where it would otherwise sleep.

    def Touch(self, request, context):        # marked with @parks
        while not enabled():
            yield Wait(0.02)
        return TouchResponse()

A servicer's method that is marked yields `Wait`s, and messages where its responses are a stream; what it returns is its
last message. Between two pieces it holds no thread. One thread looks after all that is due; a few run the pieces.

Keys order those who wait for one another: `take` a key, or wait `behind` it until its holder gives it back.
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
"""They run pieces of calls that waited; the first piece of a call is run by the thread that it arrived on."""
MOST = 8192
"""Calls that wait at a time; see services.limits."""


class Wait(NamedTuple):
    """seconds: look again after so long at the latest;  behind: or when this key is given back."""

    seconds: float
    behind: Hashable | None = None


Pausing = Generator[Wait, None, T]
"""Work that waits now and then, and returns a T in the end."""


class Sink(Protocol):
    """Where a call's messages go."""

    def send(self, message: Any) -> None:
        """One message of several."""

    def end(self, message: Any | None, error: BaseException | None) -> None:
        """The last message, or what was raised. Called once."""


class Alarm:
    """Calls functions when their time has come, in one thread; they must be short."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._due: list[tuple[float, int, Callable[[], None] | None]] = []
        self._gone: set[int] = set()
        self._numbers = itertools.count()
        self._started = False

    def at(self, seconds: float, function: Callable[[], None]) -> int:
        """Call `function` in so many seconds; a number to cancel it by."""
        with self._changed:
            number = next(self._numbers)
            heapq.heappush(self._due, (time.monotonic() + seconds, number, function))
            if self._due[0][1] == number:
                self._changed.notify()
            if not self._started:
                self._started = True
                threading.Thread(target=self._run, name="alarm", daemon=True).start()
        return number

    def cancel(self, number: int) -> None:
        """Do not call it any more; nothing for one that was called."""
        with self._changed:
            self._gone.add(number)
            if len(self._gone) > 1000 and 2 * len(self._gone) > len(self._due):
                self._due = [one for one in self._due if one[1] not in self._gone]
                heapq.heapify(self._due)
                self._gone.clear()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._due or self._due[0][0] > time.monotonic():
                    self._changed.wait(self._due[0][0] - time.monotonic() if self._due else None)
                _, number, function = heapq.heappop(self._due)
                gone = number in self._gone
                self._gone.discard(number)
            if function is not None and not gone:
                function()


class _Call:
    """A call under way. poked: it is to look again, whatever it waits for."""

    __slots__ = ("alarm", "behind", "order", "parked", "poked", "sink")

    def __init__(self, order: Generator[Any, None, Any], sink: Sink) -> None:
        self.order, self.sink = order, sink
        self.parked = self.poked = False
        self.behind: Hashable | None = None
        self.alarm = -1


class _Full(Exception):
    """One more call may not wait."""


class Parking:
    """Where calls wait. most: how many at a time; further ones end with TOO_MANY_WAITING."""

    def __init__(self, most: int = MOST) -> None:
        self.most, self.waiting, self.alarm = most, 0, Alarm()
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="parked")
        self._lock = threading.Lock()
        self._held: set[Hashable] = set()
        self._behind: dict[Hashable, dict[_Call, None]] = {}
        """Who waits behind a key, in order."""

    # ------------------------------------------------------------------------------------------------- keys
    def take(self, key: Hashable) -> bool:
        """Take a key; False if another has it."""
        with self._lock:
            if key in self._held:
                return False
            self._held.add(key)
            return True

    def give(self, key: Hashable, *, everybody: bool = True) -> None:
        """Release a key. With `everybody` all who wait behind it look again, else the first."""
        with self._lock:
            self._held.discard(key)
            woken = self._woken(key, None if everybody else 1)
        self._resume(woken)

    def ring(self, key: Hashable) -> None:
        """Let everybody look again who waits behind a key, which stays taken: a bell."""
        with self._lock:
            woken = self._woken(key, None)
        self._resume(woken)

    def pass_on(self, key: Hashable) -> None:
        """Who was woken behind a key and does not take it lets the next one look, unless another has it."""
        with self._lock:
            woken = [] if key in self._held else self._woken(key, 1)
        self._resume(woken)

    def _woken(self, key: Hashable, most: int | None) -> list[_Call]:
        woken = list(itertools.islice(self._behind.get(key, ()), most))
        for call in woken:
            self._leave(call)
        return woken

    # ------------------------------------------------------------------------------------------------ calls
    def start(self, order: Generator[Any, None, Any], sink: Sink) -> Callable[[], None]:
        """Run a call in this thread until it waits or ends. Returns what makes it look again: its caller went away."""
        call = _Call(order, sink)
        self._run(call)
        return lambda: self._poke(call)

    def idle(self) -> Future[int]:
        """Done once a thread was free."""
        return self._pool.submit(int)

    def _run(self, call: _Call) -> None:
        refusal: StatusError | None = None
        while True:
            try:
                told = call.order.throw(refusal) if refusal else next(call.order)
                refusal = None
                if not isinstance(told, Wait):
                    call.sink.send(told)
                elif self._park(call, told):
                    return
            except StopIteration as end:
                return call.sink.end(end.value, None)
            except _Full:
                refusal = _too_many(self.most)
            except BaseException as error:
                return call.sink.end(None, error)

    def _park(self, call: _Call, wait: Wait) -> bool:
        """Let the call wait; False if it is to go on at once. _Full: it may not wait."""
        with self._lock:
            if call.poked or wait.seconds <= 0 or (wait.behind is not None and wait.behind not in self._held):
                call.poked = False
                return False
            if self.waiting >= self.most:
                raise _Full
            self.waiting += 1
            call.parked, call.behind = True, wait.behind
            if wait.behind is not None:
                self._behind.setdefault(wait.behind, {})[call] = None
            call.alarm = self.alarm.at(wait.seconds, lambda: self._poke(call, due=True))
        return True

    def _poke(self, call: _Call, *, due: bool = False) -> None:
        with self._lock:
            if call.parked:
                self._leave(call)
            elif due:
                return
            else:
                call.poked = True
                return
        self._resume([call])

    def _leave(self, call: _Call) -> None:
        call.parked = False
        self.waiting -= 1
        queue = self._behind.get(call.behind)
        if queue is not None:
            queue.pop(call, None)
            if not queue:
                del self._behind[call.behind]
        self.alarm.cancel(call.alarm)

    def _resume(self, calls: list[_Call]) -> None:
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


def parks(method: Callable[..., Generator[Any, None, Any]] | Callable[..., Iterator[Any]]) -> Any:
    """Marks a servicer's method that waits without a thread. To gRPC it is one that returns its messages."""
    method.parks = True  # type: ignore[union-attr]
    return method


def blocking(order: Pausing[T]) -> T:
    """Run to the end in this thread, which sleeps where the work waits."""
    while True:
        try:
            wait = next(order)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        time.sleep(min(0.02, max(0.0, wait.seconds)))


HERE = Parking()
"""Of this process."""
