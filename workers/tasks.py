"""The task of a chunk: calls ultrafolio.sweep.distributed.worker and tells Celery whether to requeue it."""

from __future__ import annotations

import os
import socket
import time
from functools import lru_cache
from pathlib import Path
from typing import Any

from celery import Task, shared_task
from celery.exceptions import Reject
from celery.utils.log import get_task_logger
from redis.exceptions import RedisError

from ultrafolio import files
from ultrafolio.redis_server import address
from ultrafolio.sweep.cells import S390, SEARCH, Cells, of, simulator
from ultrafolio.sweep.distributed.broker import TASK, connect
from ultrafolio.sweep.distributed.job import Job, Spans
from ultrafolio.sweep.distributed.worker import Outcome, Refused, Worker

log = get_task_logger(__name__)
REDIS = address(None) or "redis://127.0.0.1:6379/0"

AGAIN_SECONDS = 1.0
"""The pause before a chunk is requeued, so that other workers can take it first."""


@lru_cache(maxsize=1)
def prepare() -> tuple[Cells, str, str]:
    """(cells, digest of the code that this process runs, that of a search). Compiles; call it in the parent before the
    fork."""
    # any client of the queue may send a plan, so the files that a plan may name are limited
    files.bind(files.given(os.environ.get(files.VARIABLE, "")))
    cells = simulator()
    cells.warm()
    return cells, cells.engine_digest(), of(S390, SEARCH).engine_digest()


@lru_cache(maxsize=1)
def here(pid: int) -> tuple[Worker, Any]:
    """The worker and the Redis client of process ``pid``; neither may be shared across a fork."""
    cells, engine, searches = prepare()
    base = os.environ.get("ULTRAFOLIO_BASE")
    worker = Worker(f"{socket.gethostname()}-{pid}", cells, engine, Path(base) if base else None, searches)
    return worker, connect(REDIS)


def end() -> None:
    """End the child process of this process's worker."""
    if here.cache_info().currsize:
        here(os.getpid())[0].end()


@shared_task(name=TASK, bind=True)  # type: ignore[untyped-decorator]
def chunk(self: Task, job: str, number: int, spans: Spans) -> None:
    """Compute a chunk. Requeues it if this worker refuses the job or an error occurs; the log holds the reason."""
    worker, client = here(os.getpid())
    try:
        outcome: Outcome = worker.work(Job(client, job), number, spans)
    except Refused as why:
        log.error("job %s refused: %s", job, why)
        Job(client, job).refuse(worker.name, str(why))
        time.sleep(AGAIN_SECONDS)
        raise Reject(str(why), requeue=True) from None
    except (RedisError, OSError) as error:
        log.error("job %s chunk %s goes back to the queue: %s", job, number, error)
        time.sleep(AGAIN_SECONDS)
        raise Reject(str(error), requeue=True) from None
    except Exception as error:
        log.exception("job %s chunk %s: the worker is at fault", job, number)
        Job(client, job).refuse(worker.name, f"{type(error).__name__}: {error}")
        time.sleep(AGAIN_SECONDS)
        raise Reject(str(error), requeue=True) from None
    if outcome != "committed":
        log.warning("job %s chunk %s: %s", job, number, outcome)
