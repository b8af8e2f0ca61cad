"""Retention: cuts streams to a window, archives groups to files, deletes groups."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path
from typing import NamedTuple

import grpc
from structlog.typing import FilteringBoundLogger

from services.common.groups import missing
from ultrafolio import durable
from ultrafolio.rpc.errors import StatusError
from ultrafolio.state import checkpoint, validate
from ultrafolio.state.acl import group_name
from ultrafolio.state.redis import RedisStore

MOST_ARCHIVES = 1024
EVERY_S = 30.0
"""Seconds between two checks of the streams' lengths."""


class Size(NamedTuple):
    """Size of a group: entries of its stream, approximate bytes of the store, and why its stream cannot be cut."""

    group: str
    entries: int
    bytes: int
    uncut: str


class Archive(NamedTuple):
    """An archived stream: file name in the lab's folder `archive`, entries, bytes, SHA-256."""

    file: str
    entries: int
    bytes: int
    digest: str


class Retention:
    """store: with the rights of the user `keeper`, None if the lab has no password for it;  folder: for archives."""

    def __init__(self, store: RedisStore | None, folder: Path) -> None:
        self._store, self._folder = store, folder
        self._closed = threading.Event()

    def start_cutting(self, log: FilteringBoundLogger) -> None:
        """Start a thread that cuts long streams until `close`. Logs and stores why a stream cannot be cut."""
        if self._store is not None:
            threading.Thread(target=self._cut_streams, args=(self._store, log), name="retention", daemon=True).start()

    def _cut_streams(self, store: RedisStore, log: FilteringBoundLogger) -> None:
        """Cut long streams, round after round, until `close`. Logs and stores why one cannot be cut, once for each
        reason."""
        looked: dict[str, str] = {}
        while not self._closed.wait(EVERY_S):
            try:
                for group in store.groups():
                    # entries do not change: what keeps a stream from being cut stays, until the next start of the lab
                    why = looked.get(group) or checkpoint.cut(store, group)
                    if looked.get(group) != why:
                        store.note_uncut(group, why)
                        looked[group] = why
                        if why:
                            then = "ultrafolio trace groups URL --archive G --save FILE --delete G"
                            log.warning("a stream is not cut", group=group, reason=why, then=then)
            except Exception as error:  # any failure is retried in the next round
                log.warning("streams are not looked at", reason=f"{type(error).__name__}: {error}")

    def close(self) -> None:
        self._closed.set()

    def sizes(self) -> list[Size]:
        """Returns the size of each group. Raises StatusError if the lab lacks the keeper's rights."""
        store = self._allowed_store()
        uncut = store.uncut()
        return [Size(group, store.length(group), store.size(group), uncut.get(group, "")) for group in store.groups()]

    def archive(self, group: str) -> Archive:
        """Save a group's stream with its checkpoint, as `trace validate --save` does. StatusError: no such group."""
        store = self._store_of(group)
        self._folder.mkdir(parents=True, exist_ok=True)
        if len(list(self._folder.iterdir())) >= MOST_ARCHIVES:
            raise StatusError(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                "TOO_MANY",
                "archives of this lab",
                value=MOST_ARCHIVES,
                allowed=f"fewer than {MOST_ARCHIVES}",
                then=f"move files from {self._folder} to another place",
            )
        events = list(store.history(group))
        data = validate.saved([(group, events)])
        digest = hashlib.sha256(data).hexdigest()
        file = self._folder / f"{group}-{digest[:16]}.stream"
        durable.replace(file, data)
        return Archive(file.name, len(events), len(data), digest)

    def delete(self, group: str) -> None:
        """Delete a group; its name cannot be used again. StatusError: no such group."""
        self._store_of(group).delete(group)

    def _store_of(self, group: str) -> RedisStore:
        """Returns the store, if it has this group. Raises StatusError if not."""
        store = self._allowed_store()
        if group_name(group) not in store.groups():
            raise missing(group)
        return store

    def _allowed_store(self) -> RedisStore:
        """Returns the store. Raises StatusError if the lab has no keeper's rights."""
        if self._store is None:
            raise StatusError(
                grpc.StatusCode.FAILED_PRECONDITION,
                "NO_KEEPER",
                "this lab may not cut or delete streams",
                allowed="a lab that has the password of the Redis user `keeper`",
                then="ULTRAFOLIO_KEEPER_PASSWORD_FILE=FOLDER/keeper.password of services.launcher.users",
            )
        return self._store
