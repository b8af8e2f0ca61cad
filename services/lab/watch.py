"""Watchers of groups: all watchers of a group share one reader; a waiting watcher holds no thread."""

from __future__ import annotations

import re
import threading
import time
from collections import deque
from collections.abc import Iterator

import grpc
import msgspec

from services.common import scheduler
from services.common.scheduler import Wait
from ultrafolio.errors import InputError
from ultrafolio.rpc.errors import StatusError
from ultrafolio.rpc.v1 import lab_pb2 as pb
from ultrafolio.state.events import decode
from ultrafolio.state.redis import RedisStore
from ultrafolio.state.store import Event

MOST_READERS = 48
"""Groups watched at a time; each takes a connection to the store."""
WINDOW = 4096
"""Entries that a reader buffers; a watcher further behind reads the store itself."""
BLOCK_MS = 500
LEFT_S = 5.0
"""Seconds that a reader runs after its last watcher's last read."""
LOOK_S = 2.0
"""Seconds between a watcher's checks of its caller."""
PLACE = re.compile(r"\d{1,20}(-\d{1,20})?")


class _Reader:
    """Reads one group's stream from an entry on. version: grows with each read that found entries."""

    def __init__(self, store: RedisStore, group: str, after: str) -> None:
        self.group, self.last, self.first = group, after, after
        self.window: deque[pb.WatchResponse] = deque(maxlen=WINDOW)
        self.version, self.asked, self.over = 0, time.monotonic(), False
        self.error: Exception | None = None
        self._store = store
        scheduler.DEFAULT.hold(self.news)

    @property
    def news(self) -> tuple[str, int, int]:
        """The key behind which watchers wait for the next entries."""
        return "news", id(self), self.version

    def run(self) -> None:
        """Read the group's stream and hand out its events until nobody has asked for LEFT_S seconds."""
        while time.monotonic() < self.asked + LEFT_S:
            try:
                found = list(self._store.events(self.group, self.last, BLOCK_MS))
            except Exception as error:  # every watcher raises it
                self.error = error
                break
            if found:
                self._add(found)
        self.over = True
        self._tell()

    def _add(self, found: list[Event]) -> None:
        """Append messages to the window, which drops its oldest ones beyond WINDOW, and tell the watchers."""
        messages = [message_of(event) for event in found]
        if len(self.window) + len(messages) > WINDOW:
            dropped = [*self.window, *messages][: len(self.window) + len(messages) - WINDOW]
            self.first = dropped[-1].id
        self.window.extend(messages)
        self.last = found[-1].id
        self._tell()

    def _tell(self) -> None:
        """Wake the watchers that wait for news."""
        before = self.news
        self.version += 1
        scheduler.DEFAULT.hold(self.news)
        scheduler.DEFAULT.release(before)


def message_of(event: Event) -> pb.WatchResponse:
    return pb.WatchResponse(id=event.id, event=msgspec.json.encode(decode(event.data)))


class Watchers:
    """The readers of this process, one per watched group."""

    def __init__(self, store: RedisStore) -> None:
        self._store = store
        self._readers: dict[str, _Reader] = {}
        self._lock = threading.Lock()

    def follow(self, group: str, after: str, once: bool) -> Iterator[pb.WatchResponse | Wait]:
        """Yields the entries of a group's stream after entry `after`, and unless `once` new ones, with waits between.

        Raises InputError if `after` is no entry's id, StatusError if too many groups are watched.
        """
        if after and not PLACE.fullmatch(after):
            raise InputError("after", value=after, allowed="the id of an entry, as 1700000000000-0, or nothing")
        place = after or "0"
        while True:
            for event in self._store.events(group, place):
                place = event.id
                yield message_of(event)
            if once:
                return
            reader = self._reader(group, place)
            while not reader.over and _order(reader.first) <= _order(place):
                reader.asked, news = time.monotonic(), reader.news
                for message in [one for one in tuple(reader.window) if _order(one.id) > _order(place)]:
                    place = message.id
                    yield message
                yield Wait(LOOK_S, behind=news)
            if reader.error:
                raise reader.error

    def _reader(self, group: str, after: str) -> _Reader:
        """Returns the running reader of a group, or starts one after entry `after`. Raises StatusError beyond
        MOST_READERS."""
        with self._lock:
            self._readers = {name: one for name, one in self._readers.items() if not one.over}
            reader = self._readers.get(group)
            if reader is None:
                if len(self._readers) >= MOST_READERS:
                    raise StatusError(
                        grpc.StatusCode.RESOURCE_EXHAUSTED,
                        "TOO_MANY_WATCHED",
                        "groups that are watched",
                        value=len(self._readers),
                        allowed=f"{MOST_READERS} at a time",
                        then="watch again later",
                    )
                reader = self._readers[group] = _Reader(self._store, group, after)
                threading.Thread(target=reader.run, name=f"watch {group}", daemon=True).start()
            reader.asked = time.monotonic()
            return reader


def _order(place: str) -> tuple[int, int]:
    """Returns a sort key of an entry's id."""
    head, _, tail = place.partition("-")
    return int(head), int(tail or 0)
