"""The lab's side of its follower, the one process that fetches the results of all sweeps (services.lab.follower)."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Mapping
from pathlib import Path

MOST_DEATHS = 3
"""A sweep at which the follower ended this often is given up."""
AGAIN_S = 0.5
LEAVE_S = 2.0
"""How long the follower may go on with the step it is at, of a job that is to be left, before it is ended and started
again."""


class Following:
    """Which jobs of `folder` are followed, and the process that does so, started with the first of them."""

    def __init__(self, folder: Path, environment: Mapping[str, str], root: Path) -> None:
        self._folder, self._environment, self._root = folder, environment, root
        self._changed = threading.Condition()
        self._wanted: OrderedDict[str, None] = OrderedDict()
        self._why: dict[str, str] = {}
        self._deaths: Counter[str] = Counter()
        self._process: subprocess.Popen[str] | None = None
        self._over = False

    def follow(self, job: str) -> None:
        """Have a job's results fetched, unless they are."""
        with self._changed:
            self._why.pop(job, None)
            if job not in self._wanted and not self._over:
                self._wanted[job] = None
                if self._process is None:
                    self._start()
                else:
                    self._order(f"follow {job}")

    def leave(self, job: str) -> None:
        """Have no results of a job fetched any more; nobody touches its store from then on."""
        with self._changed:
            if job not in self._wanted:
                return
            self._order(f"leave {job}")
            if self._changed.wait_for(lambda: job not in self._wanted, LEAVE_S):
                return
            # it is in the middle of something long: the others are gone on with from where they are
            del self._wanted[job]
            process = self._process
        if process is not None:
            process.kill()
            process.wait()

    def why(self, job: str) -> str:
        """Why a job was given up, "" where it was not."""
        return self._why.get(job, "")

    @property
    def pid(self) -> int | None:
        """The process, None while there is none."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def close(self) -> None:
        """Leave all jobs to the workers."""
        with self._changed:
            self._over = True
            self._wanted.clear()
            process = self._process
        if process is not None:
            process.terminate()
            process.wait()

    def _start(self) -> None:
        """Start the process, with all that is wanted."""
        with (self._folder / "follower.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "services.lab.follower", str(self._folder)],
                cwd=self._root,
                env=dict(self._environment),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        for job in self._wanted:
            self._order(f"follow {job}")
        threading.Thread(target=self._listen, args=(self._process,), name="follower", daemon=True).start()

    def _order(self, line: str) -> None:
        """Write an order to the follower's process. One that has ended gets all orders when it is started again."""
        assert self._process is not None and self._process.stdin is not None
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        except OSError:
            pass  # it ended: the next one is told all that is wanted

    def _listen(self, process: subprocess.Popen[str]) -> None:
        """Read what the follower's process tells, until it ends."""
        assert process.stdout is not None
        for line in process.stdout:
            told = json.loads(line)
            with self._changed:
                self._wanted.pop(told["job"], None)
                if told["why"]:
                    self._why[told["job"]] = told["why"]
                self._changed.notify_all()
        process.wait()
        self._ended(process.returncode)

    def _ended(self, status: int) -> None:
        """The process ended, and nobody asked it to: the next one goes on without a sweep at which several ended."""
        at = (self._folder / "at").read_bytes().rstrip(b"\0").decode("ascii", "replace")
        time.sleep(AGAIN_S)
        with self._changed:
            self._process = None
            if at in self._wanted:
                self._deaths[at] += 1
                if self._deaths[at] >= MOST_DEATHS:
                    del self._wanted[at]
                    self._why[at] = f"the process that fetches results ended {MOST_DEATHS} times at it, status {status}"
            if self._wanted and not self._over:
                self._start()
