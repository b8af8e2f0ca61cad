"""The result store: keeps the parts that workers computed until a client fetches them. Chosen by URL (--deposit).

``redis:``               keys in the broker's Redis; needs no shared folder and no object store
``/folder``, ``file://`` a folder that all machines share
``s3://bucket/prefix``   an object store, or another file system of pyarrow.fs

Each attempt at a chunk gives its part a new name, so no part is overwritten, and no commit names a half-written part.
"""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from ultrafolio.durable import replace, unwritable
from ultrafolio.errors import InputError

EXPIRE_SECONDS = 7 * 24 * 3600
"""Redis deletes results and jobs this long after their last change."""
THROUGH_REDIS = "redis:"


class ResultStore(Protocol):
    """Bytes by name."""

    def put(self, name: str, data: bytes) -> None:
        """Store ``data``; on return every client can read it."""

    def get(self, name: str) -> bytes | None:
        """The part's bytes, or None if it is missing."""

    def remove(self, name: str) -> None:
        """Delete a part; no error if it is missing."""

    def clear(self) -> None:
        """Delete all parts of the job, also those that no commit names."""


class RedisResults:
    """Parts as Redis keys with the job's prefix."""

    def __init__(self, client: Any, prefix: str) -> None:
        self._client, self._prefix = client, prefix

    def put(self, name: str, data: bytes) -> None:
        self._client.set(f"{self._prefix}part:{name}", data, ex=EXPIRE_SECONDS)

    def get(self, name: str) -> bytes | None:
        found: bytes | None = self._client.get(f"{self._prefix}part:{name}")
        return found

    def remove(self, name: str) -> None:
        self._client.delete(f"{self._prefix}part:{name}")

    def clear(self) -> None:
        for key in self._client.scan_iter(f"{self._prefix}part:*", count=1000):
            self._client.delete(key)


class FolderResults:
    """Parts as files of a shared folder; a file gets its name after fsync."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, name: str, data: bytes) -> None:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unwritable(self._folder, error) from None
        replace(self._folder / name, data)

    def get(self, name: str) -> bytes | None:
        with suppress(FileNotFoundError):
            return (self._folder / name).read_bytes()
        return None

    def remove(self, name: str) -> None:
        (self._folder / name).unlink(missing_ok=True)

    def clear(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)


class ObjectResults:
    """Parts as objects of a pyarrow file system."""

    def __init__(self, system: Any, prefix: str) -> None:
        self._system, self._prefix = system, prefix

    def put(self, name: str, data: bytes) -> None:
        self._system.create_dir(self._prefix, recursive=True)
        with self._system.open_output_stream(f"{self._prefix}/{name}") as stream:
            stream.write(data)

    def get(self, name: str) -> bytes | None:
        with suppress(FileNotFoundError), self._system.open_input_stream(f"{self._prefix}/{name}") as stream:
            found: bytes = stream.read()
            return found
        return None

    def remove(self, name: str) -> None:
        with suppress(FileNotFoundError):
            self._system.delete_file(f"{self._prefix}/{name}")

    def clear(self) -> None:
        with suppress(FileNotFoundError):
            self._system.delete_dir(self._prefix)


def checked(url: str) -> str:
    """The URL with an absolute folder, for workers. Raises InputError for an unknown or unreachable kind."""
    parts = urlsplit(url)
    if url == THROUGH_REDIS:
        return url
    if parts.scheme in ("", "file"):
        return Path(parts.path).resolve().as_uri()
    from pyarrow import fs

    try:
        fs.FileSystem.from_uri(url)
    except Exception as error:  # Arrow and its clients raise many types
        raise InputError(
            "--deposit: unknown kind of result store, or it cannot be reached",
            value=url,
            allowed="redis:, a folder that all workers share, s3://BUCKET/PREFIX",
            cause=str(error).splitlines()[0],
            then="ultrafolio sweep PLAN.toml --executor celery --deposit redis:",
        ) from None
    return url


def open_result_store(url: str, job: str, client: Any, prefix: str) -> ResultStore:
    """The result store of job ``job``. ``client``, ``prefix``: the Redis client and the prefix of the job's keys."""
    parts = urlsplit(url)
    if url == THROUGH_REDIS:
        return RedisResults(client, prefix)
    if parts.scheme == "file":
        return FolderResults(Path(parts.path) / job)
    from pyarrow import fs

    system, path = fs.FileSystem.from_uri(url)
    return ObjectResults(system, f"{path}/{job}")
