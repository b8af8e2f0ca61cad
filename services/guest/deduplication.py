"""Runs each request once: a repeated request id returns the first run's answer, also while that run is not finished."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from services.common import scheduler
from services.common.scheduler import Suspending, Wait
from services.guest.orders import Deadline
from ultrafolio.rpc.v1.common_pb2 import OUTCOME_WAITS
from ultrafolio.state.requests import repeats, split
from ultrafolio.state.store import Commit, Store

M = TypeVar("M")
STORE_S = 2.0
"""Seconds to try to store an answer while another step of the group is uncommitted. An answer that is not stored is
rebuilt from the state: the request id recorded with the started step prevents a second start."""


def kept_as(request: str) -> str:
    """Returns the name under which the answer of a request is kept. Its first step is kept under its own."""
    return f"{request}/answer"


class Deduplicator:
    """Answers by group and request id: running ones in this process, finished ones in the store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._running: dict[tuple[str, str], tuple[str, Future[Any]]] = {}
        self._writer, self._number = f"guest-answers-{os.urandom(6).hex()}", 0

    def __call__(
        self,
        group: str,
        request: str,
        deadline: Deadline,
        shape: type[M],
        order: Callable[[], Suspending[M]],
        again: Callable[[], Suspending[M]] | None = None,
    ) -> Suspending[M]:
        """Returns the answer (a message with the field `outcome`) of `order`, which runs only if the request is new.

        shape: class of the answer. Without a request id `order` always runs.
        again: runs for a repetition of a finished request, of which only the id is kept then: for answers with a
        guest's bytes, which no file of the host may have.
        Raises requests.Reused if the id belongs to another request.
        """
        if not request:
            return (yield from order())
        while True:
            key, mine = (group, split(request)[0]), Future[Any]()
            with self._lock:
                name, first = self._running.setdefault(key, (request, mine))
            repeats(request, name)
            if first is mine:
                answer: M = yield from self._run(group, request, mine, shape, order, again)
                return answer
            yield Wait(deadline.left, behind=first)
            if not first.done():
                return shape(outcome=OUTCOME_WAITS)  # type: ignore[call-arg]
            waited: Any = first.result()
            if waited.outcome != OUTCOME_WAITS or deadline.over:
                return waited  # type: ignore[no-any-return]

    def _run(self, group: str, request: str, mine: Future[Any], shape: Any, order: Any, again: Any) -> Suspending[Any]:
        """Returns the stored answer to `request`, or that of `again`, else runs `order` and stores its answer, unless
        it still waits. Gives it to `mine`."""
        scheduler.DEFAULT.hold(mine)
        try:
            known = self._store.reply(group, kept_as(request))
            if known is not None and not again:
                answer = shape.FromString(known)
            else:
                answer = yield from (again if known is not None else order)()
            if known is None and answer.outcome != OUTCOME_WAITS:
                yield from self._record(group, kept_as(request), b"" if again else answer.SerializeToString())
        except BaseException as error:
            mine.set_exception(error)
            raise
        else:
            mine.set_result(answer)
            return answer
        finally:
            with self._lock:
                del self._running[group, split(request)[0]]
            scheduler.DEFAULT.release(mine)

    def _record(self, group: str, request: str, answer: bytes) -> Suspending[None]:
        """Store an answer. A conflict with another writer is tried again for STORE_S seconds."""
        end = time.monotonic() + STORE_S
        while time.monotonic() < end:
            with self._lock:
                self._number += 1
                commit = Commit(str(self._number), self._writer, request=(request, answer))
            if self._store.commit(group, commit).status == "done":
                return
            yield Wait(0.005)
