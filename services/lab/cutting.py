"""What keeps a running lab small: streams cut to a window, groups archived to files and deleted."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path
from typing import Any, NamedTuple

import grpc

from services.common.groups import missing
from ultrafolio import durable
from ultrafolio.rpc.errors import StatusError
from ultrafolio.state import checkpoint, validate
from ultrafolio.state.acl import group_name
from ultrafolio.state.redis import RedisStore

MOST_ARCHIVES = 1024
EVERY_S = 30.0
"""Seconds between two looks at the streams' lengths."""


class Size(NamedTuple):
    """What a group takes: entries of its stream, and bytes of the store, about."""

    group: str
    entries: int
    bytes: int


class Archive(NamedTuple):
    """A saved stream: its file's name in the lab's folder `archive`, its entries, bytes and SHA-256."""

    file: str
    entries: int
    bytes: int
    digest: str


class Keeper:
    """store: with the keeper's rights, None where the lab was given none;  folder: for archives."""

    def __init__(self, store: RedisStore | None, folder: Path) -> None:
        self._store, self._folder = store, folder
        self._over = threading.Event()

    def tend(self, log: Any) -> None:
        """Cut streams from now on, until `close`. Why one is not cut is logged once."""
        if self._store is not None:
            threading.Thread(target=self._tend, args=(self._store, log), name="keeper", daemon=True).start()

    def _tend(self, store: RedisStore, log: Any) -> None:
        said: dict[str, str] = {}
        while not self._over.wait(EVERY_S):
            try:
                for group in store.groups():
                    why = checkpoint.cut(store, group)
                    if why and said.get(group) != why:
                        log.warning("a stream is not cut", group=group, reason=why)
                    said[group] = why
            except Exception as error:  # the thread goes on: what is away now may be there the next time
                log.warning("streams are not looked at", reason=f"{type(error).__name__}: {error}")

    def close(self) -> None:
        self._over.set()

    def sizes(self) -> list[Size]:
        """What each group takes. StatusError: the lab has not the keeper's rights."""
        store = self._rights()
        return [Size(group, store.length(group), store.size(group)) for group in store.groups()]

    def archive(self, group: str) -> Archive:
        """Save a group's stream, checkpoint included, as `trace validate --save` does. StatusError: no such group."""
        store = self._known(group)
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
        """Remove a group; its name is not used again. StatusError: no such group."""
        self._known(group).delete(group)

    def _known(self, group: str) -> RedisStore:
        store = self._rights()
        if group_name(group) not in store.groups():
            raise missing(group)
        return store

    def _rights(self) -> RedisStore:
        if self._store is None:
            raise StatusError(
                grpc.StatusCode.FAILED_PRECONDITION,
                "NO_KEEPER",
                "this lab may not cut or delete streams",
                allowed="a lab that has the password of the Redis user `keeper`",
                then="ULTRAFOLIO_KEEPER_PASSWORD_FILE=FOLDER/keeper.password of services.launcher.users",
            )
        return self._store
