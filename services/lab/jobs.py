"""Sweeps as jobs: each has a folder with its plan and its store, and one process follows them all.

    FOLDER/NAME/plan.toml   the plan as it was submitted;  FOLDER/NAME/name  what its file was called
    FOLDER/NAME/store       the sweep's store; results.parquet stands there in the end
    FOLDER/NAME/cancelled   there when it was

A job's name is a digest of the plan and of the code that computes it, so that the same plan submitted twice is one job.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc

from services.lab.following import Following
from services.lab.recordings import Recordings
from ultrafolio import files
from ultrafolio.durable import replace
from ultrafolio.engine.load import digest
from ultrafolio.errors import InputError
from ultrafolio.redis_server import VARIABLE
from ultrafolio.rpc.errors import StatusError
from ultrafolio.rpc.v1 import lab_pb2
from ultrafolio.sweep import cells, planfile, run
from ultrafolio.sweep.distributed import control
from ultrafolio.sweep.distributed.ticket import read_ticket
from ultrafolio.sweep.plan import Plan
from ultrafolio.sweep.work import Work

ROOT = Path(__file__).parent.parent.parent
RUNNING, PAUSED = lab_pb2.SWEEP_STATE_RUNNING, lab_pb2.SWEEP_STATE_PAUSED
NEWS_S = 0.2
JOB = re.compile("[0-9a-f]{16}")
MOST_JOBS = 1024
"""Sweeps of a lab, finished ones included."""
MOST_CELLS = 10**8
"""Cells of a submitted plan."""
LONGEST_NAME = 256
CANCELLED, DONE = lab_pb2.SWEEP_STATE_CANCELLED, lab_pb2.SWEEP_STATE_DONE


@dataclass(frozen=True, slots=True)
class Progress:
    """done: cells computed;  quarantined: cells given up after repeated failures."""

    state: lab_pb2.SweepState.ValueType
    cells: int
    done: int
    quarantined: int


class Jobs:
    """The jobs in `folder`; `redis` is where the workers listen; `given`: folders for files, as ULTRAFOLIO_FILES."""

    def __init__(self, folder: Path, redis: str, given: str = "") -> None:
        self._folder, self._redis = folder, redis
        self.recordings = Recordings(folder / "recordings")
        self.files = (*files.given(given), self.recordings.folder)
        # a password on a command line could be read by everybody
        environment = os.environ | {VARIABLE: redis, files.VARIABLE: ":".join(map(str, self.files))}
        self.following = Following(folder, environment, ROOT)
        self._lock = threading.Lock()
        self._cells: dict[str, int] = {}
        self._news: dict[str, tuple[float, tuple[Progress, str]]] = {}
        folder.mkdir(parents=True, exist_ok=True)
        # plans name recordings beside themselves, and are kept here
        for name in ("traces", "profiles"):
            link = folder / name
            if not link.is_symlink():
                link.symlink_to(ROOT / name)
        for name in self.names():
            if self.progress(name).state == RUNNING:
                self.following.follow(name)

    def names(self) -> list[str]:
        """All jobs, sorted."""
        return sorted(path.parent.name for path in self._folder.glob("*/plan.toml"))

    def submit(self, plan: str, name: str) -> tuple[str, int]:
        """Submit a plan. Returns its job's name, new or existing, and its cells. Raises InputError for a bad plan."""
        job = hashlib.blake2b(f"{digest()}\0{plan}".encode(), digest_size=8).hexdigest()
        folder = self._folder / job
        if not folder.exists() and len(self.names()) >= MOST_JOBS:
            raise _too_many("sweeps", MOST_JOBS, "remove the folders of sweeps that nobody needs from the lab's data")
        parsed = self._tried(plan, folder)
        with self._lock:
            if not (folder / "plan.toml").exists():
                replace(folder / "name", name.encode())
                replace(folder / "plan.toml", plan.encode())
            (folder / "cancelled").unlink(missing_ok=True)
        if self.progress(job).state == RUNNING:
            self.following.follow(job)
        return job, parsed.count

    def folder(self, job: str) -> Path:
        """Where a job's files are. StatusError if there is no such job."""
        folder = self._folder / job
        if not JOB.fullmatch(job) or not (folder / "plan.toml").is_file():
            raise StatusError(
                grpc.StatusCode.NOT_FOUND,
                "SWEEP_NOT_FOUND",
                "no such sweep",
                value=job,
                allowed=", ".join(self.names()) or "none yet",
            )
        return folder

    def name(self, job: str) -> str:
        """Returns the file name of the plan."""
        return (self.folder(job) / "name").read_text()

    def progress(self, job: str) -> Progress:
        """Returns the job's progress, in constant time."""
        folder = self.folder(job)
        cells = self._cells.get(job) or planfile.load(folder / "plan.toml").count
        self._cells[job] = cells
        if (folder / "store/results.parquet").exists():
            return Progress(DONE, cells, cells, 0)
        if (folder / "cancelled").exists():
            return Progress(CANCELLED, cells, 0, 0)
        try:
            _, shared, _, _ = control.find(folder / "store", self._redis)
        except InputError:
            return Progress(RUNNING, cells, 0, 0)
        state = PAUSED if shared.state()[0] == "paused" else RUNNING
        count = shared.progress()
        return Progress(state, cells, count.computed, count.failed)

    def news(self, job: str) -> tuple[Progress, str]:
        """Returns `progress` and `failure`, refreshed a few times a second for all callers together."""
        known = self._news.get(job)
        if known is None or time.monotonic() - known[0] > NEWS_S:
            known = self._news[job] = time.monotonic(), (self.progress(job), self.failure(job))
        return known[1]

    def failure(self, job: str) -> str:
        """Why nobody fetches a job's results any more, though there are none yet; "" otherwise."""
        why = self.following.why(job)
        return why if why and self.progress(job).state == RUNNING else ""

    def control(self, job: str, wanted: lab_pb2.SweepState.ValueType) -> lab_pb2.SweepState.ValueType:
        """Pause, resume or cancel a job. Raises StatusError for another state."""
        store, now = self.folder(job) / "store", self.progress(job).state
        if wanted not in (PAUSED, RUNNING, CANCELLED):
            raise StatusError(
                grpc.StatusCode.INVALID_ARGUMENT,
                "NO_SUCH_STATE",
                "state of a sweep",
                value=wanted,
                allowed="PAUSED, RUNNING, CANCELLED",
            )
        if now in (DONE, CANCELLED) or now == wanted:
            return now
        if wanted == CANCELLED:
            self._cancel(job)
        elif read_ticket(store) is None:
            raise StatusError(
                grpc.StatusCode.FAILED_PRECONDITION,
                "NOT_QUEUED",
                "the sweep is not queued yet",
                value=job,
                then="ask again in a second, or cancel it",
            )
        else:
            {PAUSED: control.pause, RUNNING: control.resume}[wanted](store, self._redis)
            # nothing comes while it is paused, and another sweep may have its follower's place
            {PAUSED: self.following.leave, RUNNING: self.following.follow}[wanted](job)
        return wanted

    def _cancel(self, job: str) -> None:
        """Cancel a job, even while its follower queues it. Without the queue raises InputError, and the job goes on."""
        folder = self.folder(job)
        (folder / "cancelled").touch()
        self.following.leave(job)
        try:
            if read_ticket(folder / "store"):
                control.revoke(folder / "store", self._redis)
        except InputError:
            (folder / "cancelled").unlink()
            self.following.follow(job)
            raise

    def results(self, job: str) -> Iterator[bytes]:
        """The Parquet file in pieces. StatusError while there is none."""
        file = self.folder(job) / "store/results.parquet"
        if not file.exists():
            raise StatusError(
                grpc.StatusCode.FAILED_PRECONDITION,
                "NOT_DONE",
                "the sweep has no results yet",
                value=job,
                then="watch it to its end",
            )
        with file.open("rb") as parts:
            while piece := parts.read(1 << 20):
                yield piece

    def close(self) -> None:
        """Leave the jobs to the workers; whoever opens the folder again follows them again."""
        self.following.close()

    def _tried(self, text: str, folder: Path) -> Plan:
        """Read the plan as it will be in `folder`. It may name files of this lab only.

        Raises InputError, without this machine's paths, and removes the folder.
        """
        # its paths lead through the folder: ../traces
        folder.mkdir(exist_ok=True)
        try:
            with files.bound(self.files):
                plan = planfile.parse(text, folder / "plan.toml")
                work = Work(plan, cells.of(plan.design), {})
                if plan.count > MOST_CELLS:
                    raise InputError(f"{plan.path}: cells", value=plan.count, allowed=f"at most {MOST_CELLS}")
                run.check_columns(plan, work.cells)
                run.probe(work)
        except InputError as error:
            with contextlib.suppress(OSError):
                folder.rmdir()
            error.what, error.then = (words.replace(f"{folder}/", "") for words in (error.what, error.then))
            raise
        return plan


def _too_many(what: str, most: int, then: str) -> StatusError:
    return StatusError(
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "TOO_MANY",
        what,
        value=f"{most} are there",
        allowed=f"at most {most}",
        cause="bounds keep the lab within its memory and its disk: docs/limits.md",
        then=then,
    )
