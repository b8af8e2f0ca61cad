"""Where workers put the results of their chunks until a client fetches them: a place reached by URL.

``redis:``               through the broker, where there is neither a shared folder nor an object store
``/folder``, ``file://`` a folder that all machines share
``s3://bucket/prefix``   an object store, and whatever else pyarrow.fs knows by URL

A part's name is never used twice, so nothing is overwritten and a half-written part has a name that nobody asks for.
"""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from ultrafolio.durable import replace, unwritable
from ultrafolio.errors import InputError

KEPT_SECONDS = 7 * 24 * 3600
"""After a week nobody comes for a result or a job any more, and Redis drops it."""
THROUGH_REDIS = "redis:"


class Deposit(Protocol):
    """Bytes by name."""

    def put(self, name: str, data: bytes) -> None:
        """Keep ``data``; on return it is there for everybody."""

    def get(self, name: str) -> bytes | None:
        """What was put, or None where it is gone."""

    def remove(self, name: str) -> None:
        """Forget a part; nothing happens where it is not there."""

    def clear(self) -> None:
        """Forget all parts of the job, those too that no commit names."""


class InRedis:
    """Parts as keys beside the job's."""

    def __init__(self, client: Any, prefix: str) -> None:
        self._client, self._prefix = client, prefix

    def put(self, name: str, data: bytes) -> None:
        self._client.set(f"{self._prefix}part:{name}", data, ex=KEPT_SECONDS)

    def get(self, name: str) -> bytes | None:
        found: bytes | None = self._client.get(f"{self._prefix}part:{name}")
        return found

    def remove(self, name: str) -> None:
        self._client.delete(f"{self._prefix}part:{name}")

    def clear(self) -> None:
        for key in self._client.scan_iter(f"{self._prefix}part:*", count=1000):
            self._client.delete(key)


class Folder:
    """Parts as files of a shared folder, durable before they are named."""

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


class Bucket:
    """Parts as objects of a file system of pyarrow's."""

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
    """The URL as workers take it: folders absolute. Raises InputError for a URL of no known kind."""
    parts = urlsplit(url)
    if url == THROUGH_REDIS:
        return url
    if parts.scheme in ("", "file"):
        return Path(parts.path).resolve().as_uri()
    from pyarrow import fs

    try:
        fs.FileSystem.from_uri(url)
    except Exception as error:  # of many types: Arrow's own, and those of the store's client
        raise InputError(
            "--deposit: no such kind of place, or it cannot be reached",
            value=url,
            allowed="redis:, a folder that all workers share, s3://BUCKET/PREFIX",
            cause=str(error).splitlines()[0],
            then="ultrafolio sweep PLAN.toml --executor celery --deposit redis:",
        ) from None
    return url


def open_deposit(url: str, job: str, client: Any, prefix: str) -> Deposit:
    """The place for a job's parts. ``client`` and ``prefix`` are of the job in Redis."""
    parts = urlsplit(url)
    if url == THROUGH_REDIS:
        return InRedis(client, prefix)
    if parts.scheme == "file":
        return Folder(Path(parts.path) / job)
    from pyarrow import fs

    system, path = fs.FileSystem.from_uri(url)
    return Bucket(system, f"{path}/{job}")
