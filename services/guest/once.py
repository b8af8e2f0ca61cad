"""Orders that happen once: a repetition of a request gets the answer of the first, also while that is under way."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from services.common import parking
from services.common.parking import Pausing, Wait
from services.guest.orders import Patience
from ultrafolio.rpc.v1.common_pb2 import OUTCOME_WAITS
from ultrafolio.state.requests import repeats, split
from ultrafolio.state.store import Commit, Store

M = TypeVar("M")
KEEP_S = 2.0
"""How long to try to keep an answer while a step of the group is under way. Not kept, it is made up from the state:
what an order starts has the order's own name in the store, so that it is not started again."""


class Once:
    """Answers by group and request: those under way in this process, and in the store those that came to their end."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._under_way: dict[tuple[str, str], tuple[str, Future[Any]]] = {}
        self._writer, self._number = f"guest-answers-{os.urandom(6).hex()}", 0

    def __call__(
        self, group: str, request: str, patience: Patience, shape: type[M], order: Callable[[], Pausing[M]]
    ) -> Pausing[M]:
        """The answer (a message with the field `outcome`) of `order`, run now unless the request is known."""
        if not request:
            return (yield from order())
        while True:
            key, mine = (group, split(request)[0]), Future[Any]()
            with self._lock:
                name, first = self._under_way.setdefault(key, (request, mine))
            repeats(request, name)
            if first is mine:
                answer: M = yield from self._run(group, request, mine, shape, order)
                return answer
            yield Wait(patience.left, behind=first)
            if not first.done():
                return shape(outcome=OUTCOME_WAITS)  # type: ignore[call-arg]
            waited: Any = first.result()
            if waited.outcome != OUTCOME_WAITS or patience.over:
                return waited  # type: ignore[no-any-return]

    def _run(self, group: str, request: str, mine: Future[Any], shape: Any, order: Any) -> Pausing[Any]:
        parking.HERE.take(mine)
        try:
            known = self._store.reply(group, f"{request}/answer")
            answer = shape.FromString(known) if known is not None else (yield from order())
            if known is None and answer.outcome != OUTCOME_WAITS:
                yield from self._keep(group, f"{request}/answer", answer.SerializeToString())
        except BaseException as error:
            mine.set_exception(error)
            raise
        else:
            mine.set_result(answer)
            return answer
        finally:
            with self._lock:
                del self._under_way[group, split(request)[0]]
            parking.HERE.give(mine)

    def _keep(self, group: str, request: str, answer: bytes) -> Pausing[None]:
        end = time.monotonic() + KEEP_S
        while time.monotonic() < end:
            with self._lock:
                self._number += 1
                commit = Commit(str(self._number), self._writer, request=(request, answer))
            if self._store.commit(group, commit).status == "done":
                return
            yield Wait(0.005)
