"""The executor ``celery``: queues chunks, lets workers on any machine compute them, and fetches their parts.

The store holds all that a client needs to attach again: ``job.json`` names the job, and each fetched part is a segment
of its own. So a client may detach (Ctrl-C) or die, and Redis may lose its data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from ultrafolio.errors import InputError
from ultrafolio.redis_server import Server
from ultrafolio.sweep.distributed.broker import check_answer, connect, unreachable
from ultrafolio.sweep.distributed.fetch import Fetch, sleep_between_polls
from ultrafolio.sweep.distributed.own_workers import OwnWorkers, checkout
from ultrafolio.sweep.distributed.result_store import THROUGH_REDIS
from ultrafolio.sweep.distributed.submit import Submission, missing
from ultrafolio.sweep.distributed.ticket import Ticket, read_ticket
from ultrafolio.sweep.local.processes import NO_LIMITS, Limits
from ultrafolio.sweep.segment import Segment
from ultrafolio.sweep.store import open_store
from ultrafolio.sweep.work import Tally, Work

QUIET_SECONDS = 20.0
"""After this time without a commit, with an empty queue, chunks without a lease are queued again."""


@dataclass
class Queue:
    """An executor that uses the Redis at ``url`` and its workers.

    ``url`` None starts a Redis. ``workers``: number of worker processes to start. Both end with this process.
    ``fresh``: submit a new job even if an equal one is running. ``say`` prints messages.
    """

    folder: Path
    url: str | None
    say: Callable[[str], None]
    workers: int = 0
    results_url: str = THROUGH_REDIS
    limits: Limits = NO_LIMITS
    fresh: bool = False
    quiet_seconds: float = QUIET_SECONDS
    pause: Callable[[], None] = sleep_between_polls
    """Called when there is nothing new."""
    _fetch: Fetch | None = field(default=None, init=False)

    @property
    def detached(self) -> bool:
        """Whether run() ended early, and the job goes on or waits for workers."""
        return self.url is not None and self._fetch is not None and self._fetch.stopped

    def run(
        self, work: Work, span: range, segment: Callable[[str], Segment], stopped: Callable[[], bool]
    ) -> Iterator[Tally]:
        """See ``Executor.run``; but ``stopped()`` detaches: the job continues, except on workers started here."""
        from redis.exceptions import RedisError

        with ExitStack() as stack:
            if self.workers:
                checkout(self.url or "URL")
            url = self.url or stack.enter_context(Server.start()).url
            client = stack.enter_context(connect(url))
            check_answer(url)
            if self.url is None:  # Redis ends with this process, and the job with it
                stack.callback((self.folder / "job.json").unlink, missing_ok=True)
            store, ticket = open_store(self.folder), read_ticket(self.folder)
            try:
                if ticket is None:
                    spans, before = missing(work, span)
                    yield from before
                    if not spans:
                        return
                    made = Submission(client, url, store, self.limits, self.results_url, self.fresh, self.say)
                    ticket = made.submit(work, spans, span.stop, stopped)
                    if ticket is None:
                        return
                else:
                    self._check(ticket, work)
                    _, before = missing(work, span, but=[s for chunk in ticket.chunks for s in chunk])
                    yield from before
                # Start workers after the cells were timed: that compiled the code, and workers load it from the cache.
                private = self.url is None
                own = OwnWorkers(self.workers, url, self.folder, private=private) if self.workers else None
                if own:
                    stack.enter_context(own)
                self._fetch = Fetch(client, url, own, store, ticket, self.quiet_seconds, self.say, self.pause)
                yield from self._fetch.run(stopped)
            except RedisError as error:
                raise unreachable(url, error) from None

    def _check(self, ticket: Ticket, work: Work) -> None:
        """Raise InputError if the job that the store's ticket names runs other rules, or a fresh one is wanted."""
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
