"""Host threads that stand in the middle of something, and by which request: known to whichever process is next.

In the kernel a thread goes on when its caller is gone, and so does one here: what nobody has run for a while is run
by the service itself, as far as it goes. Otherwise a folio would stay locked, or in writeback, until somebody asks.
"""

from __future__ import annotations

import threading
import time
from typing import NamedTuple

import msgspec

from ultrafolio.state.redis import RedisStore
from ultrafolio.state.store import LEASE_MS

KEY = "uf:host:unfinished"
LEFT_S = 2 * LEASE_MS / 1000
"""How long a thread is not run by anybody until it counts as left."""


class Thread(NamedTuple):
    """A thread by group and actor, and the request that its steps are part of."""

    group: str
    actor: int
    request: str


class Unfinished:
    """The threads that are under way, in the shared state."""

    def __init__(self, store: RedisStore) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._kept: set[Thread] = set()
        self._run: dict[tuple[str, int], float] = {}

    def keep(self, thread: Thread) -> None:
        """The thread is run now, and will not be at its end after this."""
        self._run[thread.group, thread.actor] = time.monotonic()
        if thread not in self._kept:
            self._change(thread.group, thread.actor, thread)

    def done(self, group: str, actor: int) -> None:
        """The thread is at its end, or with another part."""
        self._run.pop((group, actor), None)
        if any((kept.group, kept.actor) == (group, actor) for kept in self._kept):
            self._change(group, actor, None)

    def left(self) -> list[Thread]:
        """The threads that nobody has run for LEFT_S, as far as this process has seen."""
        with self._lock:
            self._kept = set(_decoded(self._store.get(KEY)))
        now = time.monotonic()
        return sorted(one for one in self._kept if now - self._run.setdefault((one.group, one.actor), now) > LEFT_S)

    def _change(self, group: str, actor: int, to: Thread | None) -> None:
        with self._lock:
            while True:
                before = self._store.get(KEY)
                others = [one for one in _decoded(before) if (one.group, one.actor) != (group, actor)]
                after = [*others, to] if to else others
                if self._store.swap(KEY, before, msgspec.msgpack.encode(after)):
                    self._kept = set(after)
                    return


def _decoded(kept: bytes | None) -> list[Thread]:
    return msgspec.msgpack.decode(kept, type=list[Thread]) if kept else []
