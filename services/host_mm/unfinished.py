"""Unfinished host threads and their requests, in the shared state, for every host process.

A kernel thread continues when its caller is gone. Here the service itself runs an abandoned thread, as far as the rules
allow; otherwise a folio would stay locked, or in writeback, until the next request.
"""

from __future__ import annotations

import threading
import time
from typing import NamedTuple

import msgspec

from ultrafolio.state.redis import RedisStore
from ultrafolio.state.store import LEASE_MS

KEY = "uf:host:unfinished"
ABANDONED_S = 2 * LEASE_MS / 1000
"""Seconds without a run after which a thread counts as abandoned."""


class Thread(NamedTuple):
    """A thread, by group and actor, and the request id of its steps."""

    group: str
    actor: int
    request: str


class UnfinishedThreads:
    """The unfinished threads, in the shared state under KEY."""

    def __init__(self, store: RedisStore) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._recorded: set[Thread] = set()
        self._last_run: dict[tuple[str, int], float] = {}

    def record(self, thread: Thread) -> None:
        """Record that the thread is run now and will not finish in this run."""
        self._last_run[thread.group, thread.actor] = time.monotonic()
        if thread not in self._recorded:
            self._change(thread.group, thread.actor, thread)

    def remove(self, group: str, actor: int) -> None:
        """Forget the thread: it finished, or another service runs it."""
        self._last_run.pop((group, actor), None)
        if any((kept.group, kept.actor) == (group, actor) for kept in self._recorded):
            self._change(group, actor, None)

    def abandoned(self) -> list[Thread]:
        """Returns the threads that were not run for ABANDONED_S, as this process observed them."""
        with self._lock:
            self._recorded = set(_decoded(self._store.get(KEY)))
        now = time.monotonic()
        return sorted(
            one for one in self._recorded if now - self._last_run.setdefault((one.group, one.actor), now) > ABANDONED_S
        )

    def _change(self, group: str, actor: int, to: Thread | None) -> None:
        """Record `to` as what is left of an actor's thread, or forget it (None)."""
        with self._lock:
            while True:
                before = self._store.get(KEY)
                others = [one for one in _decoded(before) if (one.group, one.actor) != (group, actor)]
                after = [*others, to] if to else others
                if self._store.swap(KEY, before, msgspec.msgpack.encode(after)):
                    self._recorded = set(after)
                    return


def _decoded(kept: bytes | None) -> list[Thread]:
    return msgspec.msgpack.decode(kept, type=list[Thread]) if kept else []
