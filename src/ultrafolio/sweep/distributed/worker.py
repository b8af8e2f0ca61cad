"""Compute one chunk of a job: check the job, compute in a child process, store the part, commit.

Every step may be repeated: a chunk that is delivered twice may be computed twice, and the first commit counts.
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
from ultrafolio.sweep.cells import RUNS, S390, SEARCH, Cells, of
from ultrafolio.sweep.distributed.job import LEASE_SECONDS, Commit, Job, Record, Spans, new_part
from ultrafolio.sweep.key import KEY_BYTES
from ultrafolio.sweep.local.processes import Limits, WorkerPool
from ultrafolio.sweep.plan import Plan
from ultrafolio.sweep.planfile import parse
from ultrafolio.sweep.segment import Row, Segment, segment_schema
from ultrafolio.sweep.work import Tally, Work

Outcome = Literal["committed", "done before", "committed by another", "job is gone", "held", "failed"]
MAX_CHUNK_STARTS = 4
"""A chunk that was started more often without an end is suspect: a cell of it kills the worker and its parent (a
machine out of memory). Its cells are then computed one by one, and Redis counts the starts of each."""
KNOWN_JOBS = 16
MAX_CELL_STARTS = 3
"""A suspect cell that was started this often without an end is a failed cell."""


class Refused(Exception):
    """This worker must not compute the job; another one may."""


class Stopped(Exception):
    """The job was revoked or has failed."""


class Worker:
    """Computes chunks. ``engine``: the digest of the code that this process runs; ``searches``: that of a search.

    A digest is taken once, at the start, since the files may change later. ``base``: the folder of the plan's
    recordings, if its path differs from that on the client's machine.
    """

    def __init__(self, name: str, cells: Cells, engine: str, base: Path | None = None, searches: str = "") -> None:
        self.name, self._cells, self._base = name, cells, base
        self._engines = {RUNS: engine, SEARCH: searches}
        self._known: dict[str, tuple[Record, Plan]] = {}
        self._process: JobProcess | None = None

    def work(self, job: Job, number: int, spans: Spans) -> Outcome:
        """Compute the chunk ``number``, whose indices are ``spans``, and commit it. Returns the outcome.

        Raises Refused for a job of other rules or other inputs. Raises RedisError or OSError if Redis or the result
        store does not answer: the chunk must be delivered again.
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
        suspect = job.start(number) > MAX_CHUNK_STARTS
        try:
            tallies, rows = self._computed(job, number, [range(*span) for span in spans], record, plan, suspect)
        except Stopped:
            return "job is gone"
        except InputError as error:
            job.set_state("failed", msgspec.json.encode(error.__reduce__()[1]).decode())
            return "failed"
        except Exception:  # the worker lives: this start does not make the chunk suspect
            job.undo_start(number)
            raise
        end = Commit(
            number,
            new_part(number),
            self.name,
            sum(tally.computed for tally in tallies),
            sum(tally.failed for tally in tallies),
            sum(tally.seconds for tally in tallies),
        )
        results = job.result_store(record)
        results.put(end.part, pack(rows, self.name, record, tallies))
        ours = job.commit(end)
        job.end_lease(number)
        if not ours:
            results.remove(end.part)
            return "committed by another"
        return "committed"

    def end(self) -> None:
        """End the child process, if there is one."""
        if self._process is not None:
            self._process.end()
            self._process = None

    def _computed(
        self, job: Job, number: int, spans: list[range], record: Record, plan: Plan, suspect: bool
    ) -> tuple[list[Tally], list[pa.RecordBatch]]:
        """Compute the chunk. Returns its tallies in order, and its rows. Raises Stopped."""
        if not any(plan.cell(index) for span in spans for index in span):
            return [Tally(span, bytes(KEY_BYTES * len(span)), 0, 0, 0, 0.0) for span in spans], []
        if self._process is None or self._process.job != job.name:
            self.end()
            self._process = JobProcess(
                job.name, Work(plan, self._of(plan), {}, record.engine, forgets=True), record.limits
            )
        watch = _Watch(job, number, self.name)
        try:
            tallies = self._process.one_by_one(job, spans, watch) if suspect else self._process.run(spans, watch)
            if watch.over:
                raise Stopped
            return sorted(tallies, key=lambda tally: tally.span.start), self._process.rows()
        except BaseException:
            self.end()
            raise

    def _of(self, plan: Plan) -> Cells:
        """The cells of a plan: those that the worker was made with, or, of another design, those of that design."""
        return self._cells if (plan.design, plan.asks) == (S390, RUNS) else of(plan.design, plan.asks)

    def _accept(self, record: Record) -> Plan:
        """The plan. Raises Refused unless rules, columns and the keys of the probe equal those of the client."""
        engine = self._engines.get(record.asks, "")
        if record.engine != engine:
            raise Refused(f"its rules are {engine}, the job's are {record.engine}: update the older one")
        path = Path(record.plan)
        try:
            plan = parse(record.text, self._base / path.name if self._base else path, (record.asks,))
            work = Work(plan, self._of(plan), {}, record.engine)
            if record.columns != work.cells.COLUMNS:
                raise Refused("its result columns are others than the job's")
            found = {index: work.key(plan.cell(int(index)) or {})[0] for index in record.probe}
        except InputError as error:
            raise Refused(f"the plan does not resolve there: {' '.join(str(error).split())}") from None
        if found != record.probe:
            raise Refused(f"what the plan names differs there (recordings in {plan.base}?): other cell keys")
        return plan


class _Watch:
    """Whether the job is revoked or has failed. A call asks Redis, and renews the chunk's lease, at most every
    LEASE_SECONDS / 10."""

    def __init__(self, job: Job, number: int, name: str) -> None:
        self._job, self._number, self._name, self._asked, self.over = job, number, name, time.monotonic(), False

    def __call__(self) -> bool:
        now = time.monotonic()
        if not self.over and now - self._asked > LEASE_SECONDS / 10:
            self._asked = now
            with suppress(Exception):  # Redis may not answer for a while; the chunk continues
                self.over = self._job.state()[0] in ("revoked", "failed")
                self._job.lease(self._number, self._name)
        return self.over


class JobProcess:
    """A child process that computes the cells of one job, and the files in which it stores their rows."""

    def __init__(self, job: str, work: Work, limits: Limits) -> None:
        self.job, self._work = job, work
        self._folder = tempfile.TemporaryDirectory(prefix="ultrafolio-chunk-")
        self._own = self._files("own")
        self._pool = WorkerPool(1, limits, work, self._files, self._own)

    def run(self, spans: list[range], watch: _Watch) -> list[Tally]:
        """Compute the spans."""
        return [tally for tally in self._pool.run(spans, watch) if tally.span]

    def one_by_one(self, job: Job, spans: list[range], watch: _Watch) -> list[Tally]:
        """Compute the spans cell by cell; Redis counts the starts of each. A cell with too many starts fails unrun."""
        tallies = []
        for index in (index for span in spans for index in span):
            if not self._work.plan.cell(index):
                tallies.append(Tally(range(index, index + 1), bytes(KEY_BYTES), 0, 0, 0, 0.0))
            elif job.enter_cell(index) > MAX_CELL_STARTS:
                reason = f"WorkerDied: {MAX_CELL_STARTS} workers ended in this cell, and what watched over them"
                tallies.append(self._work.store_failure(index, reason, self._own))
            else:
                try:
                    tallies += self.run([range(index, index + 1)], watch)
                finally:
                    job.leave_cell(index)
        return tallies

    def rows(self) -> list[pa.RecordBatch]:
        """The rows since the last call, in the order of their computation; deletes their files."""
        batches = []
        for path in sorted(Path(self._folder.name).glob("*.rows"), key=lambda path: path.stat().st_mtime_ns):
            with pa.ipc.open_stream(path.read_bytes()) as stream:
                batches += [batch.replace_schema_metadata(None) for batch in stream]
            path.unlink()
        return batches

    def end(self) -> None:
        """End the process and remove the files."""
        self._pool.close()
        self._folder.cleanup()

    def _files(self, writer: str) -> Segment:
        return _FilePerBatch(Path(self._folder.name), 0, writer, self._work.cells.COLUMNS, self._work.engine)


class _FilePerBatch(Segment):
    """A segment with one file per batch, written atomically, without fsync."""

    def append(self, rows: Sequence[Row]) -> None:
        """Write the rows as one file, which is there whole or not at all."""
        batch = self.batch(rows)
        folder = self.path.parent.parent
        handle, partial = tempfile.mkstemp(dir=folder)
        with os.fdopen(handle, "wb") as file, pa.ipc.new_stream(file, batch.schema) as stream:
            stream.write_batch(batch)
        os.rename(partial, partial + ".rows")


def pack(rows: list[pa.RecordBatch], writer: str, record: Record, tallies: list[Tally]) -> bytes:
    """A part: the newest row of each cell as a segment of one piece, sorted by index; metadata hold the tallies."""
    schema = segment_schema(record.columns, writer, record.engine)
    packed = [[t.span.start, t.span.stop, t.keys, t.computed, t.stored, t.failed, t.seconds] for t in tallies]
    table = pa.Table.from_batches(rows, schema.remove_metadata())
    last = {index: place for place, index in enumerate(table["index"].to_pylist())}
    table = table.take(pa.array([last[index] for index in sorted(last)], pa.int64())).combine_chunks()
    schema = schema.with_metadata({**schema.metadata, b"tallies": msgspec.msgpack.encode(packed)})
    sink = io.BytesIO()
    options = pa.ipc.IpcWriteOptions(compression="zstd", use_threads=False)
    with pa.ipc.new_stream(sink, schema, options=options) as stream:
        for batch in table.replace_schema_metadata(schema.metadata).to_batches():
            stream.write_batch(batch)
    return piece(sink.getvalue())


def tallies_of(data: bytes) -> list[Tally]:
    """The tallies in a part's metadata. Raises ValueError for bytes that are not a complete part."""
    try:
        part = Pieces(io.BytesIO(data), "part").read()
        packed = msgspec.msgpack.decode(pa.ipc.read_schema(pa.py_buffer(part)).metadata[b"tallies"])
    except (InputError, pa.ArrowInvalid, KeyError, TypeError, msgspec.DecodeError) as error:
        raise ValueError(f"not a part: {error}") from None
    return [Tally(range(start, stop), *rest) for start, stop, *rest in packed]
