"""The executor ``celery``: chunks go to a queue, workers anywhere compute them, and their parts come back here.

Everything that is needed to come back is in the store: ``job.json`` names the job, and each part that was fetched is a
segment of its own. So a client may leave (Ctrl-C), die, or find a Redis that has forgotten everything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from ultrafolio.errors import InputError
from ultrafolio.redis_server import Server
from ultrafolio.sweep.distributed.broker import check_answer, connect, unreachable
from ultrafolio.sweep.distributed.fetch import Fetch
from ultrafolio.sweep.distributed.own_workers import OwnWorkers, checkout
from ultrafolio.sweep.distributed.result_store import THROUGH_REDIS
from ultrafolio.sweep.distributed.submit import Submission, missing
from ultrafolio.sweep.distributed.ticket import Ticket, read_ticket
from ultrafolio.sweep.local.processes import NO_LIMITS, Limits
from ultrafolio.sweep.segment import Segment
from ultrafolio.sweep.store import open_store
from ultrafolio.sweep.work import Tally, Work

QUIET_SECONDS = 20.0
"""After so long without a commit, with nothing queued, chunks that nobody holds a lease for are queued again."""


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
    results_url: str = THROUGH_REDIS
    limits: Limits = NO_LIMITS
    fresh: bool = False
    quiet_seconds: float = QUIET_SECONDS
    _fetch: Fetch | None = field(default=None, init=False)

    @property
    def detached(self) -> bool:
        """Whether run() ended early, and the job goes on or waits for workers."""
        return self.url is not None and self._fetch is not None and self._fetch.stopped

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
                    made = Submission(client, url, store, self.limits, self.results_url, self.fresh, self.say)
                    ticket = made.submit(work, spans, span.stop, stopped)
                    if ticket is None:
                        return
                else:
                    self._check(ticket, work)
                    _, before = missing(work, span, but=[s for chunk in ticket.chunks for s in chunk])
                    yield from before
                # Workers come last: what measured the cells has compiled what they load.
                private = self.url is None
                own = OwnWorkers(self.workers, url, self.folder, private=private) if self.workers else None
                if own:
                    stack.enter_context(own)
                self._fetch = Fetch(client, url, own, store, ticket, self.quiet_seconds, self.say)
                yield from self._fetch.run(stopped)
            except RedisError as error:
                raise unreachable(url, error) from None

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
