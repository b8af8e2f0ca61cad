"""What a worker does with one chunk of a job: check, compute in a process of its own, deposit, commit.

Every step may be repeated: a chunk that is delivered twice is computed twice at worst, and the first commit counts.
"""

from __future__ import annotations

import io
import os
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

import msgspec
import pyarrow as pa

from ultrafolio.checksums import Pieces, piece
from ultrafolio.errors import InputError
from ultrafolio.sweep.cells import Cells
from ultrafolio.sweep.distributed.job import LEASE_SECONDS, Commit, Job, Record, Spans, new_part
from ultrafolio.sweep.key import KEY_BYTES
from ultrafolio.sweep.local.processes import Crew, Limits
from ultrafolio.sweep.plan import Plan
from ultrafolio.sweep.planfile import parse
from ultrafolio.sweep.segment import Row, Segment, segment_schema
from ultrafolio.sweep.work import Tally, Work

Outcome = Literal["committed", "done before", "committed by another", "job is gone", "held", "failed"]
CHUNK_STARTS = 4
"""A chunk that was begun more often without an end has a cell that takes whole workers with it, their supervisors too
(a machine out of memory): then its cells are entered one by one, in Redis."""
KNOWN_JOBS = 16
CELL_ENTERS = 3
"""A cell that was entered so often without an end is a failed cell."""


class Refused(Exception):
    """This worker must not take the job; another one may."""


class Stopped(Exception):
    """The job was revoked, or the worker is asked to end."""


class Worker:
    """One process that works chunks. ``engine`` is the digest of the code that this process runs.

    The digest is taken once, at the start: the files may change under a running worker. ``base`` stands for the
    plan's folder where the plan lies elsewhere than on the client's machine.
    """

    def __init__(self, name: str, cells: Cells, engine: str, base: Path | None = None) -> None:
        self.name, self._cells, self._engine, self._base = name, cells, engine, base
        self._known: dict[str, tuple[Record, Plan]] = {}
        self._bench: Bench | None = None

    def work(self, job: Job, number: int, spans: Spans) -> Outcome:
        """Work the chunk ``number``, which is ``spans``.

        Raises Refused for a job of other rules or other inputs, and RedisError or OSError where the place of the
        job or of its parts does not answer: then the chunk is to be delivered again.
        """
        state, _ = job.state()
        if state in ("revoked", "failed"):
            return "job is gone"
        if job.done(number):
            return "done before"
        if state == "paused":
            job.hold(number)
            return "held"
        if job.name not in self._known:
            record = job.record()
            if record is None:
                return "job is gone"
            if len(self._known) >= KNOWN_JOBS:
                self._known.clear()
            self._known[job.name] = record, self._accept(record)
        record, plan = self._known[job.name]
        job.lease(number, self.name)
        suspect = job.start(number) > CHUNK_STARTS
        try:
            tallies, rows = self._computed(job, number, [range(*span) for span in spans], record, plan, suspect)
        except Stopped:
            return "job is gone"
        except InputError as error:
            job.set_state("failed", msgspec.json.encode(error.__reduce__()[1]).decode())
            return "failed"
        except Exception:  # an error is no death: the cells are not to blame
            job.unstart(number)
            raise
        end = Commit(
            number,
            new_part(number),
            self.name,
            sum(tally.computed for tally in tallies),
            sum(tally.failed for tally in tallies),
            sum(tally.seconds for tally in tallies),
        )
        deposit = job.deposit(record)
        deposit.put(end.part, pack(rows, self.name, record, tallies))
        ours = job.commit(end)
        job.end_lease(number)
        if not ours:
            deposit.remove(end.part)
            return "committed by another"
        return "committed"

    def end(self) -> None:
        """End the process that computes, if there is one."""
        if self._bench is not None:
            self._bench.end()
            self._bench = None

    def _computed(
        self, job: Job, number: int, spans: list[range], record: Record, plan: Plan, suspect: bool
    ) -> tuple[list[Tally], list[pa.RecordBatch]]:
        """The chunk's tallies in order, and its rows."""
        if not any(plan.cell(index) for span in spans for index in span):
            return [Tally(span, bytes(KEY_BYTES * len(span)), 0, 0, 0, 0.0) for span in spans], []
        if self._bench is None or self._bench.job != job.name:
            self.end()
            self._bench = Bench(job.name, Work(plan, self._cells, {}, record.engine, forgets=True), record.limits)
        watch = _Watch(job, number, self.name)
        try:
            tallies = self._bench.one_by_one(job, spans, watch) if suspect else self._bench.run(spans, watch)
            if watch.over:
                raise Stopped
            return sorted(tallies, key=lambda tally: tally.span.start), self._bench.rows()
        except BaseException:
            self.end()
            raise

    def _accept(self, record: Record) -> Plan:
        """The plan, once it is sure that this worker computes what the client means."""
        if record.engine != self._engine:
            raise Refused(f"its rules are {self._engine}, the job's are {record.engine}: update the older one")
        if record.columns != self._cells.COLUMNS:
            raise Refused("its result columns are others than the job's")
        path = Path(record.plan)
        try:
            plan = parse(record.text, self._base / path.name if self._base else path)
            work = Work(plan, self._cells, {}, record.engine)
            found = {index: work.key(plan.cell(int(index)) or {})[0] for index in record.probe}
        except InputError as error:
            raise Refused(f"the plan does not resolve there: {' '.join(str(error).split())}") from None
        if found != record.probe:
            raise Refused(f"what the plan names differs there (recordings in {plan.base}?): other cell keys")
        return plan


class _Watch:
    """Whether the job is over: asked often, it looks now and then, and renews the chunk's lease."""

    def __init__(self, job: Job, number: int, name: str) -> None:
        self._job, self._number, self._name, self._asked, self.over = job, number, name, time.monotonic(), False

    def __call__(self) -> bool:
        now = time.monotonic()
        if not self.over and now - self._asked > LEASE_SECONDS / 10:
            self._asked = now
            with suppress(Exception):  # Redis may be away for a while; the chunk goes on
                self.over = self._job.state()[0] in ("revoked", "failed")
                self._job.lease(self._number, self._name)
        return self.over


class Bench:
    """A process that computes one job's cells, and the files in which it leaves their rows."""

    def __init__(self, job: str, work: Work, limits: Limits) -> None:
        self.job, self._work = job, work
        self._folder = tempfile.TemporaryDirectory(prefix="ultrafolio-chunk-")
        self._own = self._files("own")
        self._crew = Crew(1, limits, work, self._files, self._own)

    def run(self, spans: list[range], watch: _Watch) -> list[Tally]:
        """Compute the spans."""
        return [tally for tally in self._crew.run(spans, watch) if tally.span]

    def one_by_one(self, job: Job, spans: list[range], watch: _Watch) -> list[Tally]:
        """Compute the spans, each cell entered in Redis; one that was entered too often fails without being run."""
        tallies = []
        for index in (index for span in spans for index in span):
            if not self._work.plan.cell(index):
                tallies.append(Tally(range(index, index + 1), bytes(KEY_BYTES), 0, 0, 0, 0.0))
            elif job.enter(index) > CELL_ENTERS:
                reason = f"WorkerDied: {CELL_ENTERS} workers ended in this cell, and what watched over them"
                tallies.append(self._work.condemn(index, reason, self._own))
            else:
                try:
                    tallies += self.run([range(index, index + 1)], watch)
                finally:
                    job.leave(index)
        return tallies

    def rows(self) -> list[pa.RecordBatch]:
        """The rows that were computed since the last call."""
        batches = []
        for path in sorted(Path(self._folder.name).glob("*.rows"), key=lambda path: path.stat().st_mtime_ns):
            with pa.ipc.open_stream(path.read_bytes()) as stream:
                batches += [batch.replace_schema_metadata(None) for batch in stream]
            path.unlink()
        return batches

    def end(self) -> None:
        """End the process and remove the files."""
        self._crew.dismiss()
        self._folder.cleanup()

    def _files(self, writer: str) -> Segment:
        return _Files(Path(self._folder.name), 0, writer, self._work.cells.COLUMNS, self._work.engine)


class _Files(Segment):
    """A segment of a file per batch, each there whole or not at all; nothing that survives a power cut."""

    def append(self, rows: Sequence[Row]) -> None:
        batch = self.batch(rows)
        folder = self.path.parent.parent
        handle, partial = tempfile.mkstemp(dir=folder)
        with os.fdopen(handle, "wb") as file, pa.ipc.new_stream(file, batch.schema) as stream:
            stream.write_batch(batch)
        os.rename(partial, partial + ".rows")


def pack(rows: list[pa.RecordBatch], writer: str, record: Record, tallies: list[Tally]) -> bytes:
    """A part: the rows as a segment of one piece, each cell's once, with the tallies in its metadata."""
    schema = segment_schema(record.columns, writer, record.engine)
    told = [[t.span.start, t.span.stop, t.keys, t.computed, t.stored, t.failed, t.seconds] for t in tallies]
    table = pa.Table.from_batches(rows, schema.remove_metadata())
    last = {index: place for place, index in enumerate(table["index"].to_pylist())}
    table = table.take(pa.array([last[index] for index in sorted(last)], pa.int64())).combine_chunks()
    schema = schema.with_metadata({**schema.metadata, b"tallies": msgspec.msgpack.encode(told)})
    sink = io.BytesIO()
    options = pa.ipc.IpcWriteOptions(compression="zstd", use_threads=False)
    with pa.ipc.new_stream(sink, schema, options=options) as stream:
        for batch in table.replace_schema_metadata(schema.metadata).to_batches():
            stream.write_batch(batch)
    return piece(sink.getvalue())


def tallies_of(data: bytes) -> list[Tally]:
    """The tallies in a part's metadata. Raises ValueError for bytes that are no whole part."""
    try:
        part = Pieces(io.BytesIO(data), "part").read()
        told = msgspec.msgpack.decode(pa.ipc.read_schema(pa.py_buffer(part)).metadata[b"tallies"])
    except (InputError, pa.ArrowInvalid, KeyError, TypeError, msgspec.DecodeError) as error:
        raise ValueError(f"not a part: {error}") from None
    return [Tally(range(start, stop), *rest) for start, stop, *rest in told]
