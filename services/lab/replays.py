"""The watched replays: of the cluster's groups, and of saved streams, which are stored as files."""

from __future__ import annotations

import hashlib
import os
import re
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from services.lab.replay import GroupReplay, ReplayError
from ultrafolio.durable import replace
from ultrafolio.errors import InputError
from ultrafolio.state import validate
from ultrafolio.state.acl import group_name
from ultrafolio.state.redis import RedisStore
from ultrafolio.state.store import Event, StoreUnavailable

MAX_REPLAYS = 16
MOST_PAGES = 1 << 21
"""Pages of the groups of all replays; each takes about 260 bytes."""
MAX_BYTES = 32 << 20
"""Bytes of a saved stream."""
MOST_SAVED = 32
KEPT_DAYS = 7
"""Days that a saved stream is stored after it was last opened."""
BLOCK_MS = 200
UNFOLLOWED_S = 15.0
"""Seconds after the last request for a group's replay at which it stops following the group."""
SAVED = re.compile(r"[0-9a-f]{16}")


class Replays:
    """store: with the laboratory's rights;  folder: for saved streams."""

    def __init__(self, store: RedisStore, folder: Path) -> None:
        self.store, self._folder = store, folder
        folder.mkdir(parents=True, exist_ok=True)
        self._expire()
        self._replays: dict[tuple[str, str], GroupReplay] = {}
        self._last_shown: dict[tuple[str, str], float] = {}
        self._followed: set[tuple[str, str]] = set()
        self._viewers: Counter[tuple[str, str]] = Counter()
        self._lock, self._reading = threading.Lock(), threading.Lock()
        self.away = ""
        """Why the shared state cannot be read now; "" if it can."""

    def groups(self) -> list[str]:
        """Returns the cluster's groups. Raises StoreUnavailable if the store does not answer."""
        return self.store.groups()

    def view(self, saved: str, group: str) -> GroupReplay:
        """As `replay`, for a page that shows it until `left`."""
        with self._lock:
            self._viewers[saved, group] += 1
        return self.replay(saved, group)

    def left(self, saved: str, group: str) -> None:
        """A page has ended that called `view`, and may have shown a replay."""
        key = saved, group
        with self._lock:
            if key in self._replays:
                self._last_shown[key] = time.monotonic()
            self._viewers[key] -= 1
            if not self._viewers[key]:
                del self._viewers[key]

    def replay(self, saved: str, group: str) -> GroupReplay:
        """Returns the replay of a group of the saved stream `saved`, or of the cluster (""). Raises InputError if
        there is none, or no room for it."""
        group_name(group)
        key = saved, group
        with self._lock:
            known = self._replays.get(key)
            if known:
                self._last_shown[key] = time.monotonic()
            if known and (saved or key in self._followed):
                return known
        # a replay that exists is continued
        replay = known or GroupReplay(group, lambda pages: self._admit(key, pages))
        work: Callable[[], None]
        if saved:
            events = self._events(saved, group)
            work = lambda: self._read(replay, events)  # noqa: E731
        else:
            self._check_exists(group)
            work = lambda: self._follow(key, replay)  # noqa: E731
        with self._lock:
            if key in self._replays and (saved or key in self._followed):
                return self._replays[key]
            if key not in self._replays:
                self._drop_until(lambda: len(self._replays) < MAX_REPLAYS, "groups that pages show", f"{MAX_REPLAYS}")
            self._replays[key], self._last_shown[key] = replay, time.monotonic()
            self._followed.add(key)
        threading.Thread(target=work, name=f"replay of {group}", daemon=True).start()
        return replay

    def _admit(self, key: tuple[str, str], pages: int) -> None:
        """A replay begins whose group has so many pages. Raises InputError if there is no room for them."""

        def fits() -> bool:
            return sum(one.pages for at, one in self._replays.items() if at != key) + pages <= MOST_PAGES

        with self._lock:
            self._drop_until(fits, "pages of all groups that are shown", f"{MOST_PAGES:,}", key)

    def _drop_until(self, fits: Callable[[], bool], what: str, most: str, kept: tuple[str, str] | None = None) -> None:
        """Drop replays that no page shows, the one shown last at the end, until `fits`. Raises InputError if it does
        not then. The caller holds the lock."""
        idle = sorted((self._last_shown[at], at) for at in self._replays if at != kept and not self._viewers[at])
        for _, at in idle:
            if fits():
                return
            del self._replays[at], self._last_shown[at]
            self._followed.discard(at)
        if not fits():
            raise InputError(
                what,
                value=f"over {most}",
                allowed=most,
                cause="other pages of this lab show as many as it has memory for",
                then="close a page, and load this one again",
            )

    def _check_exists(self, group: str) -> None:
        groups = self.groups()
        if group not in groups:
            raise InputError(
                "no such folio group",
                value=group,
                allowed=", ".join(groups[:20]) or "none is there yet",
                cause="it was never laid out here, or its data was removed",
                then="python examples/lay_out.py makes one from a scenario",
            )

    def _follow(self, key: tuple[str, str], replay: GroupReplay) -> None:
        """Feed a replay until UNFOLLOWED_S after the last page showed it."""
        while self._still_followed(key, replay):
            try:
                replay.feed(self.store.events(replay.name, replay.last, BLOCK_MS))
                self.away = ""
            except StoreUnavailable:
                self.away = "the shared state does not answer"
            if replay.error:
                time.sleep(BLOCK_MS / 1000)

    def _still_followed(self, key: tuple[str, str], replay: GroupReplay) -> bool:
        """Whether a page shows a replay, or did a short time ago, and it was not dropped."""
        with self._lock:
            if self._replays.get(key) is not replay:
                return False
            if self._viewers[key] or time.monotonic() - self._last_shown[key] <= UNFOLLOWED_S:
                return True
            self._followed.discard(key)
            return False

    @staticmethod
    def _read(replay: GroupReplay, events: list[Event]) -> None:
        replay.feed(events)
        if replay.base is None and replay.error is None:
            replay.error = ReplayError("the stream ends before every part has laid out its sections")
        replay.complete = True

    # --------------------------------------------------------------------------------------------- saved streams
    def save(self, data: bytes) -> tuple[str, list[str]]:
        """Store a saved stream. Returns its name and its groups. Raises InputError if it is too long or no stream."""
        if len(data) > MAX_BYTES:
            raise InputError(
                "the saved stream is too long",
                value=f"{len(data)} bytes",
                allowed=f"{MAX_BYTES} bytes",
                then="ultrafolio trace validate --group NAME --save FILE saves one group",
            )
        name = hashlib.blake2b(data, digest_size=8).hexdigest()
        file = self._folder / name
        replace(file, data)
        self._expire()
        try:
            groups = self.saved_groups(name)
        except InputError:
            file.unlink()
            raise
        return name, groups

    def _expire(self) -> None:
        """Remove saved streams not opened for KEPT_DAYS, and the oldest beyond MOST_SAVED."""
        files = sorted((file.stat().st_mtime, file) for file in self._folder.iterdir() if SAVED.fullmatch(file.name))
        oldest = time.time() - KEPT_DAYS * 86_400
        for at, (opened, file) in enumerate(files, 1):
            if opened < oldest or at <= len(files) - MOST_SAVED:
                file.unlink(missing_ok=True)

    def saved_groups(self, saved: str) -> list[str]:
        """Returns the groups of a saved stream, sorted. Raises InputError for a bad name, or without a group."""
        groups = sorted(self._streams(saved))
        for group in groups:
            group_name(group)
        if not groups:
            raise InputError("the saved stream is empty", allowed="what trace validate --save wrote")
        return groups

    def _streams(self, saved: str) -> dict[str, list[Event]]:
        """Returns the streams of a saved file by group. Raises InputError if it is not in the lab's folder."""
        file = self._folder / saved
        if not SAVED.fullmatch(saved) or not file.is_file():
            raise InputError(
                "no such saved stream here",
                value=saved,
                allowed="one that was opened in this page",
                cause="it was opened in another lab, or the lab keeps no folder",
                then="open the file again; its link stays the same",
            )
        os.utime(file)
        try:
            # one at a time: it takes several times the memory of its file
            with self._reading:
                return validate.read(file)
        except InputError as error:
            raise InputError("not a saved stream", value=error.value, allowed=error.allowed, then=error.then) from None

    def _events(self, saved: str, group: str) -> list[Event]:
        """Returns the events of a group of a saved file. Raises InputError if it has no such group."""
        streams = self._streams(saved)
        if group not in streams:
            raise InputError("no such folio group in the saved stream", value=group, allowed=", ".join(sorted(streams)))
        return streams[group]
