"""Start a Celery worker from this checkout, restart it when it dies, and end it with this process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from ultrafolio import errors, files
from ultrafolio.errors import InputError
from ultrafolio.nouns import plural
from ultrafolio.redis_server import VARIABLE, launch

FINISH_SECONDS = 15.0
"""Seconds that a worker may take to finish its chunks before it is killed."""
MAX_STARTS = 20
"""After this number of starts an InputError is raised: a new worker would die of the same cause."""


class OwnWorkers:
    """One Celery worker with ``count`` processes; a context manager that ends it.

    ``private``: only this process reaches the queue, so the plan may name any file, as in a local sweep.
    The worker's log is ``folder/workers.log``. Raises InputError outside a checkout: the library lacks its code.
    """

    def __init__(self, count: int, url: str, folder: Path, *, private: bool = False) -> None:
        self._count, self._url, self._log, self._started = count, url, folder / "workers.log", 0
        self._root = checkout(url)
        self._files = {files.VARIABLE: "/"} if private else {}
        self._process = self._start()

    @property
    def pid(self) -> int:
        """The process id of the worker's parent process."""
        return self._process.pid

    def restart_if_dead(self) -> None:
        """Start the worker again if it died. Raises InputError after MAX_STARTS starts."""
        if self._process.poll() is None:
            return
        if self._started > MAX_STARTS:
            tail = self._log.read_text(errors="replace").splitlines()[-8:]
            raise InputError(
                "the workers end again and again\n" + "\n".join(tail),
                value=plural(self._started, "time"),
                allowed="a worker that stays",
                cause="the last lines of their log are above",
                then=f"less {self._log}",
            )
        self._process = self._start()

    def finish(self) -> None:
        """End the worker after its current chunks; kill it after FINISH_SECONDS."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(FINISH_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:  # after an error no client fetches their results
            self._process.kill()
        self.finish()
        self._process.wait()

    def _start(self) -> subprocess.Popen[bytes]:
        self._started += 1
        path = os.pathsep.join(filter(None, [str(self._root), os.environ.get("PYTHONPATH")]))
        with open(self._log, "ab") as log:
            # A session of its own: Ctrl-C reaches only the client, which then ends the worker.
            return launch(
                [*worker_command(self._count), "--hostname", f"own-{os.getpid()}-{self._started}@%h"],
                env={**os.environ, VARIABLE: self._url, "PYTHONPATH": path, **self._files},
                cwd=self._root,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )


def worker_command(count: int) -> list[str]:
    """The command of a Celery worker with ``count`` processes, without messages between workers."""
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel", "WARNING"]
    return [sys.executable, "-m", "celery", "-A", "workers.app", "worker", "--concurrency", str(count), *quiet]


def checkout(url: str) -> Path:
    """The checkout's folder, which holds the workers' code. Raises InputError where only the library is installed.
    ``url``: Redis, for the error's command."""
    root = Path(errors.__file__).resolve().parents[2]
    if not (root / "workers" / "app.py").exists():
        raise InputError(
            "--workers: the workers' code is not installed with the library",
            value=str(root),
            allowed="a checkout",
            then=f"in a checkout, or in the image: {VARIABLE}={url} celery -A workers.app worker",
        )
    return root
