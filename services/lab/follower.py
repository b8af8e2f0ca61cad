"""The process that fetches the results of all sweeps of a lab: python -m services.lab.follower FOLDER

FOLDER has the jobs (services.lab.jobs); ULTRAFOLIO_REDIS says where the workers listen. Orders are lines of standard
input, `follow JOB` and `leave JOB`; the end of standard input ends the process, and the sweeps stay with the workers.
It tells of a job that it is done with by a line of JSON, {"job", "why"}: "" where the results are there, or the job was
left. FOLDER/at has the name of the job that it is at, so that whoever finds it dead knows where that happened.

One thread advances one sweep after the other; a sweep that has no news is looked at less often, up to once a second.
"""

from __future__ import annotations

import json
import mmap
import os
import sys
import threading
import time
import traceback
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ultrafolio.errors import InputError
from ultrafolio.redis_server import address
from ultrafolio.sweep import cells, planfile, run
from ultrafolio.sweep.distributed.queue import Queue
from ultrafolio.sweep.progress import Silent
from ultrafolio.sweep.work import Tally

MOST_OPEN = 64
"""Sweeps that are looked at in turn; further ones wait until one of these is done."""
MOST_POINTS = 40_000_000
"""Points of all plans that are looked at in turn, 16 bytes each; a larger plan is looked at alone."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 1.0
JOB_BYTES = 16
"""Of a job's name."""


@dataclass
class Going:
    """A sweep under way: its steps, what ends it early, when to look again, and the points of its plan."""

    job: str
    steps: Iterator[Tally]
    points: int
    stop: threading.Event = field(default_factory=threading.Event)
    pause: float = FIRST_PAUSE_S
    due: float = 0.0


class Follower:
    """Follows the jobs in `folder`, whose workers are behind `url`. tell: of each job that it is done with, and why."""

    def __init__(self, folder: Path, url: str, tell: Callable[[str, str], None]) -> None:
        self._folder, self._url, self._tell = folder, url, tell
        self._changed = threading.Condition()
        self._waiting: OrderedDict[str, None] = OrderedDict()
        self._open: dict[str, Going] = {}
        with (folder / "at").open("wb") as file:
            file.write(bytes(JOB_BYTES))
        with (folder / "at").open("r+b") as file:
            self._at = mmap.mmap(file.fileno(), JOB_BYTES)

    def follow(self, job: str) -> None:
        """Fetch a job's results, once it is its turn."""
        with self._changed:
            if job not in self._open:
                self._waiting[job] = None
            self._changed.notify()

    def leave(self, job: str) -> None:
        """Fetch no results of a job any more: it is told of at once, or when the step at hand is done."""
        with self._changed:
            going = self._open.get(job)
            if going is None:
                self._waiting.pop(job, None)
                self._tell(job, "")
                return
            going.stop.set()
            going.due = 0.0
            self._changed.notify()

    def run(self) -> None:
        """Advance the sweeps, for ever."""
        while True:
            self._advance(self._next())

    def _next(self) -> Going:
        """The sweep to look at now; waits for it."""
        with self._changed:
            while True:
                self._admit()
                going = min(self._open.values(), key=lambda one: one.due, default=None)
                now = time.monotonic()
                if going is not None and going.due <= now:
                    return going
                self._changed.wait(going.due - now if going is not None else None)

    def _admit(self) -> None:
        """Open sweeps that wait, as far as there is room for them."""
        while self._waiting and len(self._open) < MOST_OPEN:
            job = next(iter(self._waiting))
            try:
                points = planfile.load(self._folder / job / "plan.toml").size
            except InputError as error:
                self._waiting.pop(job)
                self._tell(job, str(error))
                continue
            if self._open and points + sum(going.points for going in self._open.values()) > MOST_POINTS:
                return
            self._waiting.pop(job)
            stop = threading.Event()
            self._open[job] = Going(job, self._steps(job, stop), points, stop)

    def _steps(self, job: str, stop: threading.Event) -> Iterator[Tally]:
        """What `ultrafolio sweep run --executor celery` does for the job, in pieces."""
        folder = self._folder / job

        def say(text: str) -> None:
            with (folder / "log").open("a") as log:
                log.write(text + "\n")

        queue = Queue(folder / "store", self._url, say, pause=lambda: None)
        plan = planfile.load(folder / "plan.toml")
        return run.steps(plan, folder / "store", cells.of(plan.design), queue, Silent(), stop=stop)

    def _advance(self, going: Going) -> None:
        """Take one step of a job's fetch. A job that ends or fails is told of and not followed any more."""
        job = going.job
        self._at[:] = job.encode().ljust(JOB_BYTES, b"\0")
        try:
            news = bool(next(going.steps).span)
        except StopIteration:
            self._done(job, "")
        except InputError as error:
            self._done(job, str(error))
        except Exception:  # one sweep is at fault, the others are not
            self._done(job, traceback.format_exc())
        else:
            going.pause = FIRST_PAUSE_S if news else min(2 * going.pause, LONGEST_PAUSE_S)
            # in turn: who had news comes after those who are due
            going.due = time.monotonic() + (0.0 if going.stop.is_set() or news else going.pause)
        self._at[:] = bytes(JOB_BYTES)

    def _done(self, job: str, why: str) -> None:
        """End following a job, log why (unless ""), and tell it."""
        with self._changed:
            del self._open[job]
        if why:
            with (self._folder / job / "log").open("a") as log:
                log.write(why + "\n")
        self._tell(job, why)


def tell(job: str, why: str) -> None:
    """Say on standard output that a job is done with."""
    os.write(1, json.dumps({"job": job, "why": why[-400:]}).encode() + b"\n")


def take_orders(follower: Follower) -> None:
    """Do what standard input says; its end ends the process. Read without Python's buffers, whose locks a fork of the
    other thread would inherit."""
    rest = b""
    while data := os.read(0, 4096):
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            order, _, job = line.decode().partition(" ")
            {"follow": follower.follow, "leave": follower.leave}[order](job)
    os._exit(0)


def main() -> None:
    """Follow jobs until standard input ends: the folder is the first argument, orders come as lines."""
    url = address(None)
    assert url is not None, "the lab says where the workers listen"
    follower = Follower(Path(sys.argv[1]), url, tell)
    threading.Thread(target=take_orders, args=(follower,), name="orders", daemon=True).start()
    follower.run()


if __name__ == "__main__":
    main()
