"""A job: one submitted plan as client and workers share it in Redis.

All keys of a job begin with ``ultrafolio:{<id>}:`` (one hash tag: one slot) and expire after a week without a commit.

    record   what to compute: nobody needs the client any more (written once, a name never means another record)
    chunks   each chunk's spans, for clients; a worker gets its chunk's with the task
    clients  who has not fetched everything yet; the last one removes the job
    state    running, paused, revoked or failed
    done     chunk -> the part that counts; the first commit of a chunk wins
    log      the commits in order, for clients to follow
    count    the sums of the commits: progress costs one HGETALL, however large the plan
    held     chunks that were delivered while the job was paused
    refused  worker -> why it does not take the job
    starts   chunk -> how often it was begun;  enters  cell -> how often, once its chunk is suspect
    lease:n  there while somebody works at chunk n

The same plan, submitted twice, is one job: ``ultrafolio:same:<digest of all that it computes>`` holds its name.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from typing import Any, Literal, cast
from urllib.parse import quote, unquote, urlsplit

import msgspec

from ultrafolio.errors import InputError
from ultrafolio.sweep.distributed.deposit import KEPT_SECONDS, Deposit, open_deposit
from ultrafolio.sweep.local.processes import Limits

TASK = "ultrafolio.chunk"
QUEUE = "ultrafolio"
"""The Redis list of waiting chunks, too: its length is what to scale workers by."""
LEASE_SECONDS = 15
VISIBILITY_SECONDS = 900
"""Celery delivers a chunk again that nobody acknowledged for so long: well above what a chunk lasts (seconds, and at
most the limit of one cell more), and what a dead machine costs when no client watches."""

AWAY_SECONDS = 60.0
"""How long Redis may be away before anybody gives up; what is fetched is stored, and a client can come back."""
RETRY_SECONDS = 0.25

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
_TAKE_BACK = """
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('HINCRBY', KEYS[2], 'chunks', -1)
redis.call('HINCRBY', KEYS[2], 'computed', -ARGV[3])
redis.call('HINCRBY', KEYS[2], 'failed', -ARGV[4])
return 1
"""


Spans = list[tuple[int, int]]
"""Spans of indices, start and stop, as they travel."""


class Record(msgspec.Struct, frozen=True):
    """What a job computes: all that a worker needs besides the recordings that the plan names."""

    plan: str
    """The path of the plan on the client's machine."""
    text: str
    engine: str
    columns: dict[str, str]
    cells: int
    chunks: int
    deposit: str
    probe: dict[str, str]
    """Some indices with their keys: a worker whose recordings or definitions differ finds other keys."""
    cell_seconds: float | None = None
    cell_megabytes: int | None = None

    @property
    def limits(self) -> Limits:
        return Limits(self.cell_seconds, self.cell_megabytes)


class Commit(msgspec.Struct, frozen=True):
    """A chunk's end, as the log tells it."""

    chunk: int
    part: str
    worker: str
    computed: int
    failed: int
    seconds: float


class Progress(msgspec.Struct, frozen=True):
    """How far a job is: one counter each, whatever its size."""

    chunks: int = 0
    computed: int = 0
    failed: int = 0


class Job:
    """A job in Redis. Methods raise redis.exceptions.RedisError when it does not answer."""

    def __init__(self, client: Any, name: str) -> None:
        self.name, self._client, self._prefix = name, client, f"ultrafolio:{{{name}}}:"

    def _key(self, name: str) -> str:
        return self._prefix + name

    def submit(self, record: Record, chunks: list[Spans]) -> None:
        """Make the job, or make it again as it was. Chunks are not queued by this."""
        with self._client.pipeline() as pipe:
            pipe.set(self._key("chunks"), msgspec.json.encode(chunks), ex=KEPT_SECONDS)
            pipe.set(self._key("state"), "running", ex=KEPT_SECONDS)
            pipe.set(self._key("record"), msgspec.json.encode(record), ex=KEPT_SECONDS)
            pipe.execute()

    def record(self) -> Record | None:
        """What to compute; None where the job is not known (any more)."""
        found = self._client.get(self._key("record"))
        return msgspec.json.decode(found, type=Record) if found else None

    def chunks(self) -> list[Spans]:
        """Each chunk's spans."""
        return msgspec.json.decode(self._client.get(self._key("chunks")) or b"[]", type=list[Spans])

    def join(self, client: str) -> None:
        """Note a client that wants the results."""
        self._client.sadd(self._key("clients"), client)
        self._client.expire(self._key("clients"), KEPT_SECONDS)

    def depart(self, client: str) -> bool:
        """The client has all it wants; whether nobody else wants anything."""
        self._client.srem(self._key("clients"), client)
        return not self._client.scard(self._key("clients"))

    def deposit(self, record: Record) -> Deposit:
        """Where the job's parts lie."""
        return open_deposit(record.deposit, self.name, self._client, self._prefix)

    def state(self) -> tuple[State, str]:
        """The state, and what made it fail; a job that is gone is revoked."""
        found = (self._client.get(self._key("state")) or b"revoked").decode()
        state, _, why = found.partition(" ")
        return cast(State, state), why

    def set_state(self, state: State, why: str = "") -> None:
        """Change the state where the job still exists."""
        self._client.set(self._key("state"), f"{state} {why}".rstrip(), xx=True, keepttl=True)

    def commit(self, end: Commit) -> bool:
        """Count a chunk as done, its part being deposited; False when another part counts, or the job is gone."""
        keys = [self._key(name) for name in ("record", "done", "log", "count", "state")]
        values = [end.chunk, end.part, msgspec.json.encode(end), end.computed, end.failed, KEPT_SECONDS]
        return bool(self._client.eval(_COMMIT, len(keys), *keys, *values) == 1)

    def take_back(self, end: Commit) -> None:
        """Undo a commit whose part is lost, unless the chunk was committed anew since."""
        keys = [self._key("done"), self._key("count")]
        self._client.eval(_TAKE_BACK, 2, *keys, end.chunk, end.part, end.computed, end.failed)

    def done(self, chunk: int) -> bool:
        return bool(self._client.hexists(self._key("done"), chunk))

    def log(self, start: int, number: int = 64) -> list[Commit]:
        """The commits from the ``start``-th on."""
        found = self._client.lrange(self._key("log"), start, start + number - 1)
        return [msgspec.json.decode(entry, type=Commit) for entry in found]

    def progress(self) -> Progress:
        """The sums of the commits; the cost does not depend on the plan."""
        found = self._client.hgetall(self._key("count"))
        return Progress(**{name.decode(): int(value) for name, value in found.items()})

    def hold(self, chunk: int) -> None:
        """Keep a chunk that was delivered while the job is paused."""
        self._client.sadd(self._key("held"), chunk)

    def held(self) -> list[int]:
        return sorted(map(int, self._client.smembers(self._key("held"))))

    def release(self, chunks: Iterable[int]) -> None:
        """Forget held chunks that were queued again."""
        for chunk in chunks:
            self._client.srem(self._key("held"), chunk)

    def refuse(self, worker: str, why: str) -> None:
        """Note that a worker does not take the job, for clients to tell."""
        self._client.hset(self._key("refused"), worker, why)
        self._client.expire(self._key("refused"), KEPT_SECONDS)

    def refusals(self) -> dict[str, str]:
        return {name.decode(): why.decode() for name, why in self._client.hgetall(self._key("refused")).items()}

    def start(self, chunk: int) -> int:
        """Count a begin of the chunk; the number of begins."""
        return self._counted("starts", chunk)

    def unstart(self, chunk: int) -> None:
        """The begin has ended, if not well."""
        self._client.hincrby(self._key("starts"), chunk, -1)

    def enter(self, index: int) -> int:
        """Count that a suspect chunk's cell is begun; how often it was, without an end."""
        return self._counted("enters", index)

    def leave(self, index: int) -> None:
        """The cell has ended, and its worker has not."""
        self._client.hdel(self._key("enters"), index)

    def _counted(self, name: str, field: int) -> int:
        number = int(self._client.hincrby(self._key(name), field, 1))
        self._client.expire(self._key(name), KEPT_SECONDS)
        return number

    def lease(self, chunk: int, worker: str) -> None:
        """Say that the chunk is being worked at, for LEASE_SECONDS from now."""
        self._client.set(self._key(f"lease:{chunk}"), worker, ex=LEASE_SECONDS)

    def end_lease(self, chunk: int) -> None:
        self._client.delete(self._key(f"lease:{chunk}"))

    def leased(self, chunks: list[int]) -> list[bool]:
        """Which of the chunks are being worked at."""
        found = self._client.mget([self._key(f"lease:{chunk}") for chunk in chunks]) if chunks else []
        return [worker is not None for worker in found]

    def forget(self) -> None:
        """Remove the job: workers drop what they still get of it."""
        names = ("record", "chunks", "clients", "state", "done", "log", "count", "held", "refused", "starts", "enters")
        self._client.delete(*map(self._key, names))


def find_same(client: Any, digest: str) -> Job | None:
    """The job under way that computes what the digest stands for, if there is one."""
    found = client.get(f"ultrafolio:same:{digest}")
    job = Job(client, found.decode()) if found else None
    return job if job and job.state()[0] in ("running", "paused") else None


def claim_same(client: Any, digest: str, name: str) -> Job | None:
    """Say that job ``name`` computes what the digest stands for; the job that was first, where one was."""
    key = f"ultrafolio:same:{digest}"
    if client.set(key, name, nx=True, ex=KEPT_SECONDS):
        return None
    first = find_same(client, digest)
    if first is None:  # it is long done, or revoked
        client.set(key, name, ex=KEPT_SECONDS)
    return first if first and first.name != name else None


def new_part(chunk: int) -> str:
    """A name for a chunk's results that no other attempt at it has."""
    return f"{chunk}-{secrets.token_hex(6)}"


def connect(url: str) -> Any:
    """A Redis client whose calls ride out a Redis that is away for AWAY_SECONDS.

    Every call of this module may be repeated. Raises InputError when redis is not installed.
    """
    try:
        from redis import Redis, exceptions
        from redis.backoff import ConstantBackoff
        from redis.retry import Retry
    except ImportError:
        raise InputError(
            "celery needs the packages of the extra 'workers'",
            value="redis",
            allowed="redis and celery installed",
            then="pip install 'ultrafolio[workers]'",
        ) from None
    return Redis.from_url(
        url,
        socket_timeout=20,
        retry=Retry(ConstantBackoff(RETRY_SECONDS), int(AWAY_SECONDS / RETRY_SECONDS)),
        retry_on_error=[exceptions.ConnectionError, exceptions.TimeoutError, exceptions.BusyLoadingError],
    )


def queued(client: Any) -> int:
    """How many chunks wait for a worker."""
    return int(client.llen(QUEUE))


def broker_url(url: str) -> str:
    """A Redis URL as Celery takes it: kombu has its own way to write a unix socket."""
    parts = urlsplit(url)
    if parts.scheme != "unix":
        return url
    database = next((word[3:] for word in parts.query.split("&") if word.startswith("db=")), "0")
    user = f"{parts.netloc.rpartition('@')[0]}@" if "@" in parts.netloc else ""
    return f"redis+socket://{user}{quote(unquote(parts.path))}?virtual_host={database}"


def without_password(url: str) -> str:
    """A URL that may be written to a file."""
    netloc = urlsplit(url).netloc
    return url.replace(netloc, netloc.rpartition("@")[2], 1) if netloc else url
