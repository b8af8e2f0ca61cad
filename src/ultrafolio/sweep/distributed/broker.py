"""The connection to Redis: its URL, a client that retries, and Celery's queue of chunks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from ultrafolio.errors import InputError, install
from ultrafolio.sweep.distributed.job import Spans

TASK = "ultrafolio.chunk"
QUEUE = "ultrafolio"
"""The name of the queue, and of the Redis list of waiting chunks; its length says how many workers are useful."""
VISIBILITY_SECONDS = 900
"""Celery delivers an unacknowledged chunk again after this time. It must exceed a chunk's time (seconds, plus the
limit of one cell). A chunk of a dead machine waits this long when no client is attached."""

AWAY_SECONDS = 60.0
"""Calls retry this long when Redis does not answer. Fetched parts are stored, and a client can attach again."""
RETRY_SECONDS = 0.25


def connect(url: str) -> Any:
    """A Redis client that retries calls for AWAY_SECONDS, also those that timed out: every call may be repeated.

    Raises InputError when redis is not installed.
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
            then=install("workers"),
        ) from None
    return Redis.from_url(
        url,
        socket_timeout=20,
        retry=Retry(ConstantBackoff(RETRY_SECONDS), int(AWAY_SECONDS / RETRY_SECONDS)),
        retry_on_error=[exceptions.ConnectionError, exceptions.TimeoutError, exceptions.BusyLoadingError],
    )


def queued(client: Any) -> int:
    """The number of chunks that wait for a worker."""
    return int(client.llen(QUEUE))


def broker_url(url: str) -> str:
    """A Redis URL in Celery's form: kombu writes a unix socket as redis+socket://."""
    parts = urlsplit(url)
    if parts.scheme != "unix":
        return url
    database = next((word[3:] for word in parts.query.split("&") if word.startswith("db=")), "0")
    user = f"{parts.netloc.rpartition('@')[0]}@" if "@" in parts.netloc else ""
    return f"redis+socket://{user}{quote(unquote(parts.path))}?virtual_host={database}"


def without_password(url: str) -> str:
    """The URL without user and password, which may be written to a file."""
    netloc = urlsplit(url).netloc
    return url.replace(netloc, netloc.rpartition("@")[2], 1) if netloc else url


def send(url: str, job: str, chunks: Iterable[tuple[int, Spans]]) -> None:
    """Queue chunks (number, spans) of a job. Tasks are sent by name, since the library cannot import workers/.

    Raises InputError when celery is not installed.
    """
    try:
        from celery import Celery
    except ImportError:
        raise InputError(
            "celery needs the packages of the extra 'workers'",
            value="celery",
            allowed="redis and celery installed",
            then=install("workers"),
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
    """Raise InputError when Redis does not answer one PING."""
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
