"""The loop that follows a job and fetches its parts into the store."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from ultrafolio.durable import replace
from ultrafolio.errors import InputError
from ultrafolio.nouns import plural
from ultrafolio.sweep.distributed.broker import queued, send
from ultrafolio.sweep.distributed.job import Commit, Job, State, claim_same
from ultrafolio.sweep.distributed.own_workers import OwnWorkers
from ultrafolio.sweep.distributed.result_store import ResultStore
from ultrafolio.sweep.distributed.ticket import Ticket
from ultrafolio.sweep.distributed.worker import tallies_of
from ultrafolio.sweep.store import Store
from ultrafolio.sweep.work import NOTHING, Tally

POLL_SECONDS = 0.1


def sleep_between_polls() -> None:
    time.sleep(POLL_SECONDS)


class Fetch:
    """Follows the log of one job and stores its parts as segments.

    Chunks without a lease are queued again after ``quiet_seconds`` without a commit. ``workers``: those that this
    process started, which are restarted when they die; or None. ``say`` prints messages.
    ``pause`` is called when there is nothing new.
    """

    def __init__(
        self,
        client: Any,
        url: str,
        workers: OwnWorkers | None,
        store: Store,
        ticket: Ticket,
        quiet_seconds: float,
        say: Callable[[str], None],
        pause: Callable[[], None],
    ) -> None:
        self._client, self._url, self._workers = client, url, workers
        self._quiet_seconds, self._say = quiet_seconds, say
        self._pause = pause
        self._store, self._ticket = store, ticket
        self._job = Job(client, ticket.job)
        self._results: ResultStore = self._job.result_store(ticket.record)
        self._left = set(range(len(ticket.chunks)))
        self._next, self._last_commit, self._last_message = 0, time.monotonic(), ""
        self.stopped = False
        """Whether run() was stopped before it had fetched everything."""

    def run(self, stopped: Callable[[], bool]) -> Iterator[Tally]:
        """Yield the tallies of each part after it is stored, and NOTHING while waiting. Raises InputError for a job
        that failed or was revoked."""
        for number in sorted(self._left):
            if (path := self._path(number)).exists():
                self._left.discard(number)
                yield from tallies_of(path.read_bytes())
        self._job.add_client(self._ticket.client)
        while self._left:
            if stopped() and not self.stopped:
                self.stopped = True
                if self._workers is None:
                    return
                self._workers.finish()
            elif self._workers and not self.stopped:
                self._workers.restart_if_dead()
            found = list(self._poll())
            yield from found or [NOTHING]
            if self.stopped and not found:
                return
            if not found and not self.stopped:
                self._pause()
        self._finish()

    def _poll(self) -> Iterator[Tally]:
        """Fetch the parts of new commits; check the job if there are none."""
        log = self._job.log(self._next)
        for end in log:
            yield from self._fetch(end)
            self._next += 1
            self._last_commit = time.monotonic()
        if not log:
            self._check_job()

    def _fetch(self, end: Commit) -> Iterator[Tally]:
        """Store the result of a committed chunk and yield its tallies. A result that is lost is computed again."""
        if end.chunk not in self._left:
            return
        data = self._results.get(end.part)
        try:
            tallies = tallies_of(data or b"")
        except ValueError:  # Redis dropped the part, or the folder was cleared: compute the chunk again
            self._job.undo_commit(end)
            self._send([end.chunk])
            return
        assert data is not None
        replace(self._path(end.chunk), data)
        self._left.discard(end.chunk)
        yield from tallies

    def _check_job(self) -> None:
        """Raise InputError if the job failed or was revoked; queue lost chunks again."""
        state, why = self._job.state()
        if state == "failed":
            self._finish()
            what, value, allowed, cause, then = json.loads(why)
            raise InputError(what, value=value, allowed=allowed, cause=cause, then=then)
        if state == "revoked":
            if self._job.record() is None and not self._revoked():
                self._resubmit()
                return
            (self._store.folder / "job.json").unlink(missing_ok=True)
            raise InputError(
                f"job {self._ticket.job} was revoked",
                value=f"left: {plural(len(self._left), 'chunk')}",
                allowed="a job that runs",
                then="repeat the sweep: what was fetched is kept",
            )
        self._report_waiting(state)
        now = time.monotonic()
        if state == "running" and now - self._last_commit > self._quiet_seconds:
            self._last_commit = now
            if not queued(self._client):
                left = sorted(self._left)
                lost = [number for number, held in zip(left, self._job.leased(left), strict=True) if not held]
                lost = [number for number in lost if not self._job.done(number)]
                if lost:
                    self._say(f"queued again: {plural(len(lost), 'chunk')}, lost with the workers")
                    self._send(lost)

    def _revoked(self) -> bool:
        """Whether the job was revoked, and not lost with the data of Redis."""
        return bool(self._client.exists(f"ultrafolio:revoked:{self._ticket.job}"))

    def _resubmit(self) -> None:
        """Submit the job again, with the chunks that are left."""
        self._say("Redis has lost the job: what is left is queued again")
        self._job.submit(self._ticket.record, self._ticket.chunks)
        self._job.add_client(self._ticket.client)
        claim_same(self._client, self._ticket.same, self._ticket.job)
        self._next, self._last_commit = 0, time.monotonic()
        self._send(sorted(self._left))

    def _report_waiting(self, state: State) -> None:
        """Print why the job waits; each message once."""
        refusals = self._job.refusals()
        lines = [f"worker {worker} does not take the job: {why}" for worker, why in sorted(refusals.items())]
        if state == "paused":
            lines.append(f"the job is paused: ultrafolio sweep resume {self._store.folder}")
        if lines and (text := "\n".join(lines)) != self._last_message:
            self._last_message = text
            self._say(text)

    def _send(self, numbers: Iterable[int]) -> None:
        """Queue these chunks."""
        send(self._url, self._ticket.job, ((number, self._ticket.chunks[number]) for number in numbers))

    def _path(self, number: int) -> Path:
        """Returns the segment of a chunk."""
        return self._store.folder / "segments" / f"{self._ticket.job}.{number}-{self._ticket.run:04}.arrows"

    def _finish(self) -> None:
        """Detach after everything is fetched; the last client deletes the job and its parts."""
        if self._job.remove_client(self._ticket.client):
            self._job.delete()
            self._results.clear()
        (self._store.folder / "job.json").unlink(missing_ok=True)
