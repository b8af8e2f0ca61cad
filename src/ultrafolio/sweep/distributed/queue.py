"""The executor ``celery``: chunks go to a queue, workers anywhere compute them, and their parts come back here.

Everything that is needed to come back is in the store: ``job.json`` names the job, and each part that was fetched is a
segment of its own. So a client may leave (Ctrl-C), die, or find a Redis that has forgotten everything.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from ultrafolio.durable import replace
from ultrafolio.errors import InputError
from ultrafolio.redis_server import Server
from ultrafolio.sweep.distributed.chunking import cut, joined, measure, spread
from ultrafolio.sweep.distributed.deposit import THROUGH_REDIS, Deposit, checked
from ultrafolio.sweep.distributed.job import (
    AWAY_SECONDS,
    QUEUE,
    TASK,
    VISIBILITY_SECONDS,
    Commit,
    Job,
    Record,
    Spans,
    broker_url,
    claim_same,
    connect,
    find_same,
    queued,
    without_password,
)
from ultrafolio.sweep.distributed.own_workers import OwnWorkers, checkout
from ultrafolio.sweep.distributed.worker import tallies_of
from ultrafolio.sweep.key import KEY_BYTES, digest
from ultrafolio.sweep.local.processes import NO_LIMITS, Limits
from ultrafolio.sweep.segment import Segment
from ultrafolio.sweep.store import Store, open_store
from ultrafolio.sweep.work import NOTHING, Tally, Work

POLL_SECONDS = 0.1
QUIET_SECONDS = 20.0
"""After so long without a commit, with nothing queued, chunks that nobody holds a lease for are queued again."""
PROBED = 16
TICKET_VERSION = 1


class Ticket(msgspec.Struct, frozen=True):
    """What job.json says: enough to come back to a job, or to make it again. stop: where the sweep's span ends.
    version: of the file's form."""

    job: str
    same: str
    client: str
    run: int
    redis: str
    record: Record
    chunks: list[Spans]
    stop: int
    version: int = 1


def read_ticket(folder: Path) -> Ticket | None:
    """The job that the store's sweep is in; None when there is none. Raises InputError for a damaged file."""
    path = folder / "job.json"
    try:
        ticket = msgspec.json.decode(path.read_bytes(), type=Ticket)
    except FileNotFoundError:
        return None
    except msgspec.DecodeError as error:
        raise InputError(
            f"{path}: damaged",
            value=str(error),
            allowed="the file as the sweep wrote it",
            then=f"delete only {path}, then repeat the sweep: what was fetched is kept",
        ) from None
    if ticket.version != TICKET_VERSION:
        raise InputError(
            f"{path}: a job of another version",
            value=ticket.version,
            allowed=str(TICKET_VERSION),
            cause="another ultrafolio wrote it",
            then=f"delete only {path}, then repeat the sweep: what was fetched is kept",
        )
    return ticket


@dataclass
class Queue:
    """Workers behind the Redis at ``url``. Messages for people go to ``say``.

    ``workers`` are started by us, with a Redis where there is no ``url``, and end with us. ``fresh`` computes anew
    what the same job, submitted before, may have computed.
    """

    folder: Path
    url: str | None
    say: Callable[[str], None]
    workers: int = 0
    deposit: str = THROUGH_REDIS
    limits: Limits = NO_LIMITS
    fresh: bool = False
    quiet_seconds: float = QUIET_SECONDS
    detached: bool = field(default=False, init=False)
    """Whether run() ended early, and the job goes on or waits for workers."""

    def run(
        self, work: Work, span: range, segment: Callable[[str], Segment], stopped: Callable[[], bool]
    ) -> Iterator[Tally]:
        """As the protocol says, but that ``stopped()`` leaves the job to the workers, unless they are our own."""
        from redis.exceptions import RedisError

        with ExitStack() as stack:
            if self.workers:
                checkout(self.url or "URL")
            url = self.url or stack.enter_context(Server.start()).url
            client = stack.enter_context(connect(url))
            check_answer(url)
            if self.url is None:  # Redis ends with us: nobody can come back to it
                stack.callback((self.folder / "job.json").unlink, missing_ok=True)
            store, ticket = open_store(self.folder), read_ticket(self.folder)
            try:
                if ticket is None:
                    spans, before = missing(work, span)
                    yield from before
                    if not spans:
                        return
                    ticket = self._submit(client, url, store, work, spans, span.stop, stopped)
                    if ticket is None:
                        return
                else:
                    self._check(ticket, work)
                    _, before = missing(work, span, but=[s for chunk in ticket.chunks for s in chunk])
                    yield from before
                # Workers come last: what measured the cells has compiled what they load.
                private = self.url is None
                own = OwnWorkers(self.workers, url, self.folder, private=private) if self.workers else None
                crew = stack.enter_context(own) if own else None
                yield from _Fetch(self, client, url, crew, store, ticket).run(stopped)
            except RedisError as error:
                raise unreachable(url, error) from None

    def _submit(
        self,
        client: Any,
        url: str,
        store: Store,
        work: Work,
        spans: list[range],
        stop: int,
        stopped: Callable[[], bool],
    ) -> Ticket | None:
        """Make the job, or join the one that computes the same; returns once everything is queued.

        None when it was stopped before there was a job.
        """
        probe = {str(index): work.key(cell)[0] for index in spread(spans, PROBED) if (cell := work.plan.cell(index))}
        told = {
            "plan": work.plan.digest, "engine": work.engine, "probe": probe,
            "spans": [[span.start, span.stop] for span in spans],
            "limits": [self.limits.seconds, self.limits.megabytes], "fresh": secrets.token_hex(8) if self.fresh else "",
        }  # fmt: skip
        same, name = digest(json.dumps(told, sort_keys=True)), f"{work.plan.digest[:8]}-{secrets.token_hex(4)}"
        job = find_same(client, same)
        if job is None:
            job, chunks = Job(client, name), _chunks(work, spans, stopped)
            if stopped():
                return None
            record = Record(
                str(work.plan.path.resolve()),
                work.plan.text,
                work.engine,
                work.cells.COLUMNS,
                _count(work, spans),
                len(chunks),
                checked(self.deposit),
                probe,
                self.limits.seconds,
                self.limits.megabytes,
            )
            job.submit(record, chunks)
            if first := claim_same(client, same, name):  # two clients in one moment: the first one's job it is
                job.forget()
                job = first
        known = job.record()
        assert known is not None, "the job was there a moment ago"
        ticket = Ticket(
            job.name,
            same,
            secrets.token_hex(8),
            store.next_run(),
            without_password(url),
            known,
            job.chunks(),
            stop,
        )
        job.join(ticket.client)
        replace(self.folder / "job.json", msgspec.json.encode(ticket))
        if job.name == name:
            send(url, name, enumerate(ticket.chunks))
            self.say(f"job {name}: {known.cells} cells in {known.chunks} chunks are queued")
        else:
            self.say(f"the same sweep is under way as job {job.name}: joining it")
        return ticket

    def _check(self, ticket: Ticket, work: Work) -> None:
        if ticket.record.engine != work.engine:
            raise InputError(
                f"{self.folder}: its job runs other rules",
                value=ticket.record.engine,
                allowed=work.engine,
                cause="this installation changed since the sweep was submitted",
                then=f"ultrafolio sweep revoke {self.folder}, or come back with the former version",
            )
        if self.fresh:
            raise InputError(
                f"{self.folder}: a sweep of this store is under way",
                value=f"job {ticket.job}",
                allowed="--rerun when it is done",
                then=f"ultrafolio sweep attach {self.folder}",
            )
        self.say(f"coming back to job {ticket.job}")


class _Fetch:
    """Follows one job and brings its parts into the store."""

    def __init__(
        self, queue: Queue, client: Any, url: str, crew: OwnWorkers | None, store: Store, ticket: Ticket
    ) -> None:
        self._queue, self._client, self._url, self._crew = queue, client, url, crew
        self._store, self._ticket = store, ticket
        self._job = Job(client, ticket.job)
        self._deposit: Deposit = self._job.deposit(ticket.record)
        self._left = set(range(len(ticket.chunks)))
        self._next, self._news, self._told = 0, time.monotonic(), ""

    def run(self, stopped: Callable[[], bool]) -> Iterator[Tally]:
        for number in sorted(self._left):
            if (path := self._path(number)).exists():
                self._left.discard(number)
                yield from tallies_of(path.read_bytes())
        self._job.join(self._ticket.client)
        ending = False
        while self._left:
            if stopped() and not ending:
                ending = True
                self._queue.detached = self._queue.url is not None
                if self._crew is None:
                    return
                self._crew.finish()
            elif self._crew and not ending:
                self._crew.tend()
            found = list(self._look())
            yield from found or [NOTHING]
            if ending and not found:
                return
            if not found and not ending:
                time.sleep(POLL_SECONDS)
        self._end()

    def _look(self) -> Iterator[Tally]:
        """What was committed since."""
        log = self._job.log(self._next)
        for end in log:
            yield from self._fetched(end)
            self._next += 1
            self._news = time.monotonic()
        if not log:
            self._look_after()

    def _fetched(self, end: Commit) -> Iterator[Tally]:
        if end.chunk not in self._left:
            return
        data = self._deposit.get(end.part)
        try:
            tallies = tallies_of(data or b"")
        except ValueError:  # dropped by Redis, or cleared from the folder: once more
            self._job.take_back(end)
            self._send([end.chunk])
            return
        assert data is not None
        replace(self._path(end.chunk), data)
        self._left.discard(end.chunk)
        yield from tallies

    def _look_after(self) -> None:
        """Nothing new: is the job well, and is every chunk in somebody's hands?"""
        state, why = self._job.state()
        if state == "failed":
            self._end()
            what, value, allowed, cause, then = json.loads(why)
            raise InputError(what, value=value, allowed=allowed, cause=cause, then=then)
        if state == "revoked":
            if self._job.record() is None and not self._revoked():
                self._again()
                return
            (self._queue.folder / "job.json").unlink(missing_ok=True)
            raise InputError(
                f"job {self._ticket.job} was revoked",
                value=f"{len(self._left)} chunks were left",
                allowed="a job that runs",
                then="repeat the sweep: what was fetched is kept",
            )
        self._tell(state)
        now = time.monotonic()
        if state == "running" and now - self._news > self._queue.quiet_seconds:
            self._news = now
            if not queued(self._client):
                left = sorted(self._left)
                lost = [number for number, held in zip(left, self._job.leased(left), strict=True) if not held]
                lost = [number for number in lost if not self._job.done(number)]
                if lost:
                    self._queue.say(f"{len(lost)} chunks were lost with their workers: they are queued again")
                    self._send(lost)

    def _revoked(self) -> bool:
        """Whether somebody revoked the job, rather than Redis having lost its memory."""
        return bool(self._client.exists(f"ultrafolio:revoked:{self._ticket.job}"))

    def _again(self) -> None:
        self._queue.say("Redis has lost the job: what is left is queued again")
        self._job.submit(self._ticket.record, self._ticket.chunks)
        self._job.join(self._ticket.client)
        claim_same(self._client, self._ticket.same, self._ticket.job)
        self._next, self._news = 0, time.monotonic()
        self._send(sorted(self._left))

    def _tell(self, state: str) -> None:
        """Say what keeps the job waiting, once."""
        refusals = self._job.refusals()
        lines = [f"worker {worker} does not take the job: {why}" for worker, why in sorted(refusals.items())]
        if state == "paused":
            lines.append(f"the job is paused: ultrafolio sweep resume {self._queue.folder}")
        if lines and (text := "\n".join(lines)) != self._told:
            self._told = text
            self._queue.say(text)

    def _send(self, numbers: Iterable[int]) -> None:
        send(self._url, self._ticket.job, ((number, self._ticket.chunks[number]) for number in numbers))

    def _path(self, number: int) -> Path:
        return self._store.folder / "segments" / f"{self._ticket.job}.{number}-{self._ticket.run:04}.arrows"

    def _end(self) -> None:
        """Everything is fetched: the last client clears the place."""
        if self._job.depart(self._ticket.client):
            self._job.forget()
            self._deposit.clear()
        (self._queue.folder / "job.json").unlink(missing_ok=True)


def missing(work: Work, span: range, but: Sequence[tuple[int, int]] = ()) -> tuple[list[range], list[Tally]]:
    """The spans to compute, and tallies of what needs no computing; ``but`` are spans that are somebody's already.

    Without stored cells nothing is resolved: that takes 0.1 ms a cell, which a plan of a million is not made to wait
    for.
    """
    others = joined([range(*pair) for pair in sorted(but)])
    if not others and not work.stored:
        return [span], []
    spans: list[range] = []
    tallies: list[Tally] = []
    edges = [span.start, *(edge for other in others for edge in (other.start, other.stop)), span.stop]
    for start, stop in zip(edges[::2], edges[1::2], strict=True):
        for index in range(start, stop):
            cell = work.plan.cell(index)
            key = work.key(cell)[0] if cell else None
            if key is None or key in work.stored:
                one = range(index, index + 1)
                failed = int(key is not None and work.stored[key])
                tallies.append(Tally(one, bytes.fromhex(key or "00" * KEY_BYTES), 0, int(key is not None), failed, 0.0))
            else:
                spans.append(range(index, index + 1))
    return joined(spans), tallies


def _chunks(work: Work, spans: list[range], stopped: Callable[[], bool]) -> list[Spans]:
    return [[(s.start, s.stop) for s in chunk] for chunk in cut(spans, measure(work, spans, stopped))]


def _count(work: Work, spans: list[range]) -> int:
    if not work.plan.skips:
        return sum(map(len, spans))
    if spans == [range(work.plan.size)]:
        return work.plan.count
    return sum(1 for span in spans for _ in work.plan.cells(span))


def send(url: str, job: str, chunks: Iterable[tuple[int, Spans]]) -> None:
    """Queue chunks of a job, by the task's name: the library does not know the workers' code."""
    try:
        from celery import Celery
    except ImportError:
        raise InputError(
            "celery needs the packages of the extra 'workers'",
            value="celery",
            allowed="redis and celery installed",
            then="pip install 'ultrafolio[workers]'",
        ) from None
    app = Celery("ultrafolio", broker=broker_url(url), set_as_current=False)
    app.conf.update(
        task_ignore_result=True,
        task_serializer="json",
        accept_content=["json"],
        task_default_queue=QUEUE,
        broker_transport_options={"visibility_timeout": VISIBILITY_SECONDS},
        task_publish_retry_policy={"max_retries": int(AWAY_SECONDS), "interval_start": 0, "interval_max": 1},
    )
    with app, app.producer_pool.acquire(block=True) as producer:
        for number, spans in chunks:
            app.send_task(TASK, args=(job, number, spans), queue=QUEUE, producer=producer)


def check_answer(url: str) -> None:
    """Raise InputError when Redis does not answer at the first try."""
    from redis import Redis
    from redis.exceptions import RedisError

    try:
        with Redis.from_url(url, socket_timeout=5) as client:
            client.ping()
    except (RedisError, ValueError) as error:
        raise unreachable(url, error) from None


def unreachable(url: str, error: Exception) -> InputError:
    """The error for a Redis that does not answer."""
    return InputError(
        "Redis does not answer",
        value=without_password(url),
        allowed="a Redis or Valkey server that is up",
        cause=str(error),
        then="ultrafolio sweep PLAN --executor celery --workers N starts one, and workers",
    )


def find(folder: Path, url: str | None) -> tuple[Ticket, Job, Any, str]:
    """The job of a store, on the Redis that the caller or else the store names. InputError when there is none."""
    store = open_store(folder)
    ticket = read_ticket(store.folder)
    if ticket is None:
        raise InputError(
            f"{folder}: no job is under way",
            value="there is no job.json",
            allowed="a store whose sweep was detached",
            then=f"ultrafolio sweep status {folder}",
        )
    check_answer(url or ticket.redis)
    client = connect(url or ticket.redis)
    return ticket, Job(client, ticket.job), client, url or ticket.redis


def watch(folder: Path, url: str | None) -> str:
    """How far the job of a store is, by its counters; or that Redis does not say."""
    try:
        ticket, job, client, _ = find(folder, url)
    except InputError as error:
        return f"a job is under way, but: {error.what} ({error.value})"
    with client:
        done, (state, _) = job.progress(), job.state()
    chunks = f"{done.chunks} of {ticket.record.chunks} chunks"
    return f"job {ticket.job} is {state}: {chunks}, {done.computed} of {ticket.record.cells} cells"


def pause(folder: Path, url: str | None) -> str:
    """Let workers finish the chunks they are in and take no more; returns the job's name."""
    ticket, job, _, _ = find(folder, url)
    job.set_state("paused")
    return ticket.job


def resume(folder: Path, url: str | None) -> str:
    """Let a paused job go on; returns its name."""
    ticket, job, _, where = find(folder, url)
    job.set_state("running")
    held = job.held()
    send(where, ticket.job, ((number, ticket.chunks[number]) for number in held))
    job.release(held)
    return ticket.job


def revoke(folder: Path, url: str | None) -> str:
    """End the job: workers stop after the cell they are in. What was fetched stays stored. Returns its name."""
    ticket, job, client, _ = find(folder, url)
    with suppress(InputError):
        job.deposit(ticket.record).clear()
    client.set(f"ultrafolio:revoked:{ticket.job}", 1, ex=3600)
    job.forget()
    (folder / "job.json").unlink(missing_ok=True)
    return ticket.job
