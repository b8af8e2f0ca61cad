"""A job: the state of one submitted plan in Redis, shared by clients and workers.

All keys of a job begin with ``ultrafolio:{<id>}:`` (one hash tag: one slot) and expire after a week without a commit.

    record   the input of the job, so that workers do not need the client; written once
    chunks   the spans of each chunk, for clients; a task carries those of its chunk
    clients  the clients that have not fetched everything; the last one deletes the job
    state    running, paused, revoked or failed
    done     chunk -> the part of its first commit, which counts
    log      the commits in order, for clients
    count    the sums of the commits: progress costs one HGETALL for a plan of any size
    held     chunks that were delivered while the job was paused
    refused  worker -> the reason why it does not take the job
    starts   chunk -> number of starts;  enters  cell of a suspect chunk -> number of starts
    lease:n  the worker that computes chunk n; expires after LEASE_SECONDS

A plan that is submitted twice is one job: ``ultrafolio:same:<digest of its input>`` holds the job's name.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from typing import Any, Literal, cast

import msgspec

from ultrafolio.sweep.cells import RUNS
from ultrafolio.sweep.distributed.result_store import EXPIRE_SECONDS, ResultStore, open_result_store
from ultrafolio.sweep.local.processes import Limits

LEASE_SECONDS = 15

State = Literal["running", "paused", "revoked", "failed"]

_COMMIT = """
if redis.call('EXISTS', KEYS[1]) == 0 then return -1 end
if redis.call('HSETNX', KEYS[2], ARGV[1], ARGV[2]) == 0 then return 0 end
redis.call('RPUSH', KEYS[3], ARGV[3])
redis.call('HINCRBY', KEYS[4], 'chunks', 1)
redis.call('HINCRBY', KEYS[4], 'computed', ARGV[4])
redis.call('HINCRBY', KEYS[4], 'failed', ARGV[5])
for _, key in ipairs(KEYS) do redis.call('EXPIRE', key, ARGV[6]) end
return 1
"""
_UNDO_COMMIT = """
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('HINCRBY', KEYS[2], 'chunks', -1)
redis.call('HINCRBY', KEYS[2], 'computed', -ARGV[3])
redis.call('HINCRBY', KEYS[2], 'failed', -ARGV[4])
return 1
"""


Spans = list[tuple[int, int]]
"""Spans of indices (start, stop), in the form of messages."""


class Record(msgspec.Struct, frozen=True):
    """The input of a job: all that a worker needs, except for the recordings that the plan names."""

    plan: str
    """The path of the plan on the client's machine."""
    text: str
    engine: str
    columns: dict[str, str]
    cells: int
    chunks: int
    results_url: str = msgspec.field(name="deposit")
    probe: dict[str, str]
    """Index -> key of some cells: a worker whose recordings or definitions differ computes other keys."""
    cell_seconds: float | None = None
    cell_megabytes: int | None = None
    asks: str = RUNS
    """What a cell is, one of cells.ASKS."""

    @property
    def limits(self) -> Limits:
        return Limits(self.cell_seconds, self.cell_megabytes)


class Commit(msgspec.Struct, frozen=True):
    """An entry of the log: a chunk and the part with its results."""

    chunk: int
    part: str
    worker: str
    computed: int
    failed: int
    seconds: float


class Progress(msgspec.Struct, frozen=True):
    """The counts of a job's commits."""

    chunks: int = 0
    computed: int = 0
    failed: int = 0


class Job:
    """A job in Redis. Methods raise redis.exceptions.RedisError when Redis does not answer."""

    def __init__(self, client: Any, name: str) -> None:
        self.name, self._client, self._prefix = name, client, f"ultrafolio:{{{name}}}:"

    def _key(self, name: str) -> str:
        return self._prefix + name

    def submit(self, record: Record, chunks: list[Spans]) -> None:
        """Create the job, or create it again. Does not queue the chunks."""
        with self._client.pipeline() as pipe:
            pipe.set(self._key("chunks"), msgspec.json.encode(chunks), ex=EXPIRE_SECONDS)
            pipe.set(self._key("state"), "running", ex=EXPIRE_SECONDS)
            pipe.set(self._key("record"), msgspec.json.encode(record), ex=EXPIRE_SECONDS)
            pipe.execute()

    def record(self) -> Record | None:
        """The input of the job; None if Redis does not hold the job."""
        found = self._client.get(self._key("record"))
        return msgspec.json.decode(found, type=Record) if found else None

    def chunks(self) -> list[Spans]:
        """The spans of each chunk."""
        return msgspec.json.decode(self._client.get(self._key("chunks")) or b"[]", type=list[Spans])

    def add_client(self, client: str) -> None:
        """Add a client that fetches the results."""
        self._client.sadd(self._key("clients"), client)
        self._client.expire(self._key("clients"), EXPIRE_SECONDS)

    def remove_client(self, client: str) -> bool:
        """Remove a client that has fetched everything. Returns whether it was the last one."""
        self._client.srem(self._key("clients"), client)
        return not self._client.scard(self._key("clients"))

    def result_store(self, record: Record) -> ResultStore:
        """The store of the job's parts."""
        return open_result_store(record.results_url, self.name, self._client, self._prefix)

    def state(self) -> tuple[State, str]:
        """(state, reason of a failure). A job that Redis does not hold is "revoked"."""
        found = (self._client.get(self._key("state")) or b"revoked").decode()
        state, _, why = found.partition(" ")
        return cast(State, state), why

    def set_state(self, state: State, why: str = "") -> None:
        """Set the state if the job exists."""
        self._client.set(self._key("state"), f"{state} {why}".rstrip(), xx=True, keepttl=True)

    def commit(self, end: Commit) -> bool:
        """Commit a chunk whose part is stored. Returns False if the chunk has a commit or the job does not exist."""
        keys = [self._key(name) for name in ("record", "done", "log", "count", "state")]
        values = [end.chunk, end.part, msgspec.json.encode(end), end.computed, end.failed, EXPIRE_SECONDS]
        return bool(self._client.eval(_COMMIT, len(keys), *keys, *values) == 1)

    def undo_commit(self, end: Commit) -> None:
        """Undo a commit whose part is lost, unless the chunk has a newer commit."""
        keys = [self._key("done"), self._key("count")]
        self._client.eval(_UNDO_COMMIT, 2, *keys, end.chunk, end.part, end.computed, end.failed)

    def done(self, chunk: int) -> bool:
        """Whether a chunk is committed."""
        return bool(self._client.hexists(self._key("done"), chunk))

    def log(self, start: int, number: int = 64) -> list[Commit]:
        """Up to ``number`` commits from position ``start`` on."""
        found = self._client.lrange(self._key("log"), start, start + number - 1)
        return [msgspec.json.decode(entry, type=Commit) for entry in found]

    def progress(self) -> Progress:
        """The sums of the commits; takes the same time for any plan."""
        found = self._client.hgetall(self._key("count"))
        return Progress(**{name.decode(): int(value) for name, value in found.items()})

    def hold(self, chunk: int) -> None:
        """Record a chunk that was delivered while the job is paused."""
        self._client.sadd(self._key("held"), chunk)

    def held(self) -> list[int]:
        """Returns the chunks that were delivered while the job is paused, ascending."""
        return sorted(map(int, self._client.smembers(self._key("held"))))

    def release(self, chunks: Iterable[int]) -> None:
        """Remove held chunks that were queued again."""
        for chunk in chunks:
            self._client.srem(self._key("held"), chunk)

    def refuse(self, worker: str, why: str) -> None:
        """Record why a worker does not take the job; clients print it."""
        self._client.hset(self._key("refused"), worker, why)
        self._client.expire(self._key("refused"), EXPIRE_SECONDS)

    def refusals(self) -> dict[str, str]:
        """Returns worker -> why it does not take the job."""
        return {name.decode(): why.decode() for name, why in self._client.hgetall(self._key("refused")).items()}

    def start(self, chunk: int) -> int:
        """Count a start of the chunk. Returns the number of starts."""
        return self._increment("starts", chunk)

    def undo_start(self, chunk: int) -> None:
        """Uncount a start that ended with an error."""
        self._client.hincrby(self._key("starts"), chunk, -1)

    def enter_cell(self, index: int) -> int:
        """Count a start of a suspect chunk's cell. Returns the number of starts without an end."""
        return self._increment("enters", index)

    def leave_cell(self, index: int) -> None:
        """Reset the count of a cell that ended while its worker lives."""
        self._client.hdel(self._key("enters"), index)

    def _increment(self, name: str, field: int) -> int:
        """Add 1 to a counter of the job. Returns its value."""
        number = int(self._client.hincrby(self._key(name), field, 1))
        self._client.expire(self._key(name), EXPIRE_SECONDS)
        return number

    def lease(self, chunk: int, worker: str) -> None:
        """Set or renew the lease of a chunk for LEASE_SECONDS."""
        self._client.set(self._key(f"lease:{chunk}"), worker, ex=LEASE_SECONDS)

    def end_lease(self, chunk: int) -> None:
        """End the lease of a chunk, which another worker may then take."""
        self._client.delete(self._key(f"lease:{chunk}"))

    def leased(self, chunks: list[int]) -> list[bool]:
        """For each chunk, whether a worker holds its lease."""
        found = self._client.mget([self._key(f"lease:{chunk}") for chunk in chunks]) if chunks else []
        return [worker is not None for worker in found]

    def delete(self) -> None:
        """Delete the job. Workers drop chunks of it that are still delivered."""
        names = ("record", "chunks", "clients", "state", "done", "log", "count", "held", "refused", "starts", "enters")
        self._client.delete(*map(self._key, names))


def find_same(client: Any, digest: str) -> Job | None:
    """The running or paused job whose input has this digest, or None."""
    found = client.get(f"ultrafolio:same:{digest}")
    job = Job(client, found.decode()) if found else None
    return job if job and job.state()[0] in ("running", "paused") else None


def claim_same(client: Any, digest: str, name: str) -> Job | None:
    """Register job ``name`` for the digest of its input. Returns the job that was registered before, or None."""
    key = f"ultrafolio:same:{digest}"
    if client.set(key, name, nx=True, ex=EXPIRE_SECONDS):
        return None
    first = find_same(client, digest)
    if first is None:  # it is done or revoked
        client.set(key, name, ex=EXPIRE_SECONDS)
    return first if first and first.name != name else None


def new_part(chunk: int) -> str:
    """A unique name for the results of one attempt at a chunk."""
    return f"{chunk}-{secrets.token_hex(6)}"
