"""The films that are watched: of groups, while they go on, and of saved streams, kept as files."""

from __future__ import annotations

import hashlib
import os
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path

from services.lab.replay import Film, Trouble
from ultrafolio.durable import replace
from ultrafolio.errors import InputError
from ultrafolio.state import validate
from ultrafolio.state.acl import group_name
from ultrafolio.state.redis import RedisStore
from ultrafolio.state.store import Event, StoreUnavailable

MAX_FILMS = 16
MAX_BYTES = 32 << 20
"""Of a saved stream."""
MOST_SAVED = 32
KEPT_DAYS = 7
"""Since a saved stream was last opened."""
BLOCK_MS = 200
FORGOTTEN_S = 15.0
"""A group that nobody asked about for so long is not followed any more."""
SAVED = re.compile(r"[0-9a-f]{16}")


class Films:
    """store: with the laboratory's rights;  folder: where saved streams are kept."""

    def __init__(self, store: RedisStore, folder: Path) -> None:
        self.store, self._folder = store, folder
        folder.mkdir(parents=True, exist_ok=True)
        self._expire()
        self._films: dict[tuple[str, str], Film] = {}
        self._asked: dict[tuple[str, str], float] = {}
        self._followed: set[tuple[str, str]] = set()
        self._lock = threading.Lock()
        self.away = ""
        """Why the shared state cannot be read now; "" while it can."""

    def groups(self) -> list[str]:
        """The groups there are. StoreUnavailable while nobody knows."""
        return self.store.groups()

    def film(self, saved: str, group: str) -> Film:
        """The film of a group of a saved stream, or, with "", of the cluster. InputError if there is none."""
        group_name(group)
        key = saved, group
        with self._lock:
            self._asked[key] = time.monotonic()
            if key in self._films and (saved or key in self._followed):
                return self._films[key]
        # a thread goes on with the film it finds
        film = self._films.get(key) or Film(group)
        work: Callable[[], None]
        if saved:
            events = self._events(saved, group)
            work = lambda: self._read(film, events)  # noqa: E731
        else:
            self._there(group)
            work = lambda: self._follow(key, film)  # noqa: E731
        with self._lock:
            if key in self._films and (saved or key in self._followed):
                return self._films[key]
            self._films[key] = film
            self._followed.add(key)
            self._drop()
        threading.Thread(target=work, name=f"film of {group}", daemon=True).start()
        return film

    def _drop(self) -> None:
        old = sorted(self._films, key=lambda key: self._asked[key])[: -MAX_FILMS or None]
        for key in old:
            if time.monotonic() - self._asked[key] > FORGOTTEN_S:
                del self._films[key], self._asked[key]

    def asked(self, film: Film) -> None:
        """Somebody still looks at a group's film."""
        with self._lock:
            self._asked["", film.name] = time.monotonic()

    def _there(self, group: str) -> None:
        groups = self.groups()
        if group not in groups:
            raise InputError(
                "no such folio group",
                value=group,
                allowed=", ".join(groups[:20]) or "none is there yet",
                cause="it was never laid out here, or its data was removed",
                then="python examples/lay_out.py makes one from a scenario",
            )

    def _follow(self, key: tuple[str, str], film: Film) -> None:
        """Feed a film while somebody looks at it."""
        while True:
            with self._lock:
                if time.monotonic() - self._asked.get(key, 0.0) > FORGOTTEN_S:
                    self._followed.discard(key)
                    return
            try:
                film.feed(self.store.events(film.name, film.last, BLOCK_MS))
                self.away = ""
            except StoreUnavailable:
                self.away = "the shared state does not answer"
            if film.trouble:
                time.sleep(BLOCK_MS / 1000)

    @staticmethod
    def _read(film: Film, events: list[Event]) -> None:
        film.feed(events)
        if film.base is None and film.trouble is None:
            film.trouble = Trouble("the stream ends before every part has laid out its sections")
        film.whole = True

    # --------------------------------------------------------------------------------------------- saved streams
    def keep(self, data: bytes) -> tuple[str, list[str]]:
        """Keep a saved stream: its name, and its groups. InputError: it is too long, or none."""
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
        """Remove saved streams that nobody opened for long, and the oldest of too many."""
        files = sorted((file.stat().st_mtime, file) for file in self._folder.iterdir() if SAVED.fullmatch(file.name))
        oldest = time.time() - KEPT_DAYS * 86_400
        for at, (opened, file) in enumerate(files, 1):
            if opened < oldest or at <= len(files) - MOST_SAVED:
                file.unlink(missing_ok=True)

    def saved_groups(self, saved: str) -> list[str]:
        """The groups of a saved stream, those whose names are names."""
        groups = sorted(self._streams(saved))
        for group in groups:
            group_name(group)
        if not groups:
            raise InputError("the saved stream is empty", allowed="what trace validate --save wrote")
        return groups

    def _streams(self, saved: str) -> dict[str, list[Event]]:
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
            return validate.read(file)
        except InputError as error:
            raise InputError("not a saved stream", value=error.value, allowed=error.allowed, then=error.then) from None

    def _events(self, saved: str, group: str) -> list[Event]:
        streams = self._streams(saved)
        if group not in streams:
            raise InputError("no such folio group in the saved stream", value=group, allowed=", ".join(sorted(streams)))
        return streams[group]
