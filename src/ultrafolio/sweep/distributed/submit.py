"""Submit a sweep as a job: write its chunks, record and ticket. If an equal job is running, join that."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from ultrafolio.durable import replace
from ultrafolio.nouns import plural
from ultrafolio.sweep.distributed.broker import send, without_password
from ultrafolio.sweep.distributed.chunking import cut, joined, measure, spread
from ultrafolio.sweep.distributed.job import Job, Record, Spans, claim_same, find_same
from ultrafolio.sweep.distributed.result_store import checked
from ultrafolio.sweep.distributed.ticket import Ticket
from ultrafolio.sweep.key import KEY_BYTES, digest
from ultrafolio.sweep.local.processes import Limits
from ultrafolio.sweep.store import Store
from ultrafolio.sweep.work import Tally, Work

PROBED_CELLS = 16


@dataclass(frozen=True)
class Submission:
    """Submits the sweep of ``store`` to the Redis at ``url``.

    ``results_url``: URL of the result store. ``fresh``: do not join an equal job. ``say`` prints messages.
    """

    client: Any
    url: str
    store: Store
    limits: Limits
    results_url: str
    fresh: bool
    say: Callable[[str], None]

    def submit(self, work: Work, spans: list[range], stop: int, stopped: Callable[[], bool]) -> Ticket | None:
        """Submit the job and queue its chunks, or join an equal job. ``stop``: the end of the sweep's span.

        Returns the ticket, or None if ``stopped()`` before the job was created.
        """
        probe = {
            str(index): work.key(cell)[0] for index in spread(spans, PROBED_CELLS) if (cell := work.plan.cell(index))
        }
        same, name = self._same(work, spans, probe), f"{work.plan.digest[:8]}-{secrets.token_hex(4)}"
        job = find_same(self.client, same)
        if job is None:
            job, chunks = Job(self.client, name), _chunks(work, spans, stopped)
            if stopped():
                return None
            job.submit(self._record(work, spans, len(chunks), probe), chunks)
            if first := claim_same(self.client, same, name):  # another client was first: join its job
                job.delete()
                job = first
        ticket = self._ticket(job, same, stop)
        if job.name == name:
            send(self.url, name, enumerate(ticket.chunks))
            cells, count = ticket.record.cells, ticket.record.chunks
            self.say(f"job {name}: queued are {plural(cells, 'cell')} in {plural(count, 'chunk')}")
        else:
            self.say(f"the same sweep is under way as job {job.name}: joining it")
        return ticket

    def _same(self, work: Work, spans: list[range], probe: dict[str, str]) -> str:
        """The digest of the job's input. Jobs with equal digests are one job."""
        content = {
            "plan": work.plan.digest, "engine": work.engine, "probe": probe,
            "spans": [[span.start, span.stop] for span in spans],
            "limits": [self.limits.seconds, self.limits.megabytes],
            "fresh": secrets.token_hex(8) if self.fresh else "",
        }  # fmt: skip
        return digest(json.dumps(content, sort_keys=True))

    def _record(self, work: Work, spans: list[range], chunks: int, probe: dict[str, str]) -> Record:
        """Returns what the job's record says: plan, engine, columns, cells, chunks, results and limits."""
        return Record(
            str(work.plan.path.resolve()),
            work.plan.text,
            work.engine,
            work.cells.COLUMNS,
            _count(work, spans),
            chunks,
            checked(self.results_url),
            probe,
            self.limits.seconds,
            self.limits.megabytes,
            work.plan.asks,
        )

    def _ticket(self, job: Job, same: str, stop: int) -> Ticket:
        """Add this client to the job and write job.json. Returns the ticket."""
        record = job.record()
        assert record is not None, "the job exists"
        client, url = secrets.token_hex(8), without_password(self.url)
        ticket = Ticket(job.name, same, client, self.store.next_run(), url, record, job.chunks(), stop)
        job.add_client(ticket.client)
        replace(self.store.folder / "job.json", msgspec.json.encode(ticket))
        return ticket


def missing(work: Work, span: range, but: Sequence[tuple[int, int]] = ()) -> tuple[list[range], list[Tally]]:
    """The spans to compute, and tallies of the points that are stored or dropped. ``but``: spans of the job's chunks.

    Without stored cells and ``but`` no cell is resolved: that takes 0.1 ms a cell, 100 s for a million.
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
    """Returns the spans, cut into chunks by the measured time of their cells."""
    return [[(s.start, s.stop) for s in chunk] for chunk in cut(spans, measure(work, spans, stopped))]


def _count(work: Work, spans: list[range]) -> int:
    """Returns the number of cells in the spans; skipped points are no cells."""
    if not work.plan.skips:
        return sum(map(len, spans))
    if spans == [range(work.plan.size)]:
        return work.plan.count
    return sum(1 for span in spans for _ in work.plan.cells(span))
