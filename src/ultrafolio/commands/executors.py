"""Where a sweep or a search is computed: the options that say it, and the executor `celery`."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from pathlib import Path
from typing import TypeVar

import click

from ultrafolio.errors import InputError
from ultrafolio.redis_server import VARIABLE, address
from ultrafolio.sweep.distributed.queue import Queue
from ultrafolio.sweep.distributed.result_store import THROUGH_REDIS, checked
from ultrafolio.sweep.local.processes import MOST_WORKERS, Limits

F = TypeVar("F", bound=Callable[..., object])


def options(more: str = "") -> Callable[[F], F]:
    """Returns the options --workers, --executor, --redis and --deposit of a command, in this order. more: what the help
    of --executor says at its end."""
    made = [
        click.option(
            "--workers",
            type=click.IntRange(0, MOST_WORKERS),
            help="Processes [one per core]; 0 computes in this process, for debuggers.",
        ),
        click.option(
            "--executor",
            "kind",
            type=click.Choice(["local", "celery"]),
            default="local",
            show_default=True,
            help=f"Processes of this machine, or Celery workers{more}.",
        ),
        click.option(
            "--redis", metavar="URL", help=f"The workers' Redis [{VARIABLE}]; with neither, --workers starts one."
        ),
        click.option(
            "--deposit",
            "results_url",
            metavar="URL",
            default=THROUGH_REDIS,
            show_default=True,
            help="Where workers leave results: redis:, a shared folder, s3://BUCKET/PREFIX.",
        ),
    ]
    return lambda command: reduce(lambda one, option: option(one), reversed(made), command)


def queue_of(
    folder: Path, redis: str | None, workers: int | None, results_url: str, limits: Limits, *, fresh: bool, quiet: bool
) -> Queue:
    """The executor ``celery``. Raises InputError when neither --redis nor --workers is given."""
    url = address(redis)
    if url is None and not workers:
        raise InputError(
            "--executor celery: no Redis is named, and no workers",
            value="",
            allowed=f"--redis URL, or {VARIABLE}=URL",
            cause="with --workers N a Redis and N workers are started here",
            then="repeat with --workers 2",
        )
    tell = (lambda text: None) if quiet else (lambda text: click.echo(text, err=True))
    return Queue(folder, url, tell, workers or 0, checked(results_url), limits, fresh)
