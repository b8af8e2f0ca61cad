"""Workers of our own: a Celery worker from this checkout."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from ultrafolio import errors, files
from ultrafolio.errors import InputError
from ultrafolio.redis_server import VARIABLE, launch

FINISH_SECONDS = 15.0
"""How long a worker may take to end the chunks it is in."""
REPLACED = 20
"""A worker that has died so often dies of something that a new one would die of, too."""


class OwnWorkers:
    """``count`` processes of one Celery worker that ends with this process; a context manager that ends it in order.

    private: nobody else reaches the queue, so the plan may name any file, as in a sweep without one.
    Its log is ``folder/workers.log``. Raises InputError outside of a checkout, where the workers' code is not.
    """

    def __init__(self, count: int, url: str, folder: Path, *, private: bool = False) -> None:
        self._count, self._url, self._log, self._started = count, url, folder / "workers.log", 0
        self._root = checkout(url)
        self._files = {files.VARIABLE: "/"} if private else {}
        self._process = self._start()

    @property
    def pid(self) -> int:
        """The parent of the worker's processes."""
        return self._process.pid

    def tend(self) -> None:
        """Start the worker again if it died. InputError when that helps nobody."""
        if self._process.poll() is None:
            return
        if self._started > REPLACED:
            tail = self._log.read_text(errors="replace").splitlines()[-8:]
            raise InputError(
                "the workers end again and again\n" + "\n".join(tail),
                value=f"{self._started} times",
                allowed="a worker that stays",
                cause="the last lines of their log are above",
                then=f"less {self._log}",
            )
        self._process = self._start()

    def finish(self) -> None:
        """Let the worker end its chunks, and end it."""
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
        if kind is not None:  # nobody waits for what they are at
            self._process.kill()
        self.finish()
        self._process.wait()

    def _start(self) -> subprocess.Popen[bytes]:
        self._started += 1
        path = os.pathsep.join(filter(None, [str(self._root), os.environ.get("PYTHONPATH")]))
        with open(self._log, "ab") as log:
            # A session of its own: Ctrl-C is for the client, which then says what to do.
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
    """A Celery worker with ``count`` processes, without the chatter between workers that nobody listens to."""
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel", "WARNING"]
    return [sys.executable, "-m", "celery", "-A", "workers.app", "worker", "--concurrency", str(count), *quiet]


def checkout(url: str) -> Path:
    """The folder that holds the workers' code. Raises InputError where there is only the library."""
    root = Path(errors.__file__).resolve().parents[2]
    if not (root / "workers" / "app.py").exists():
        raise InputError(
            "--workers: the workers' code is not installed with the library",
            value=str(root),
            allowed="a checkout",
            then=f"in a checkout, or in the image: {VARIABLE}={url} celery -A workers.app worker",
        )
    return root
