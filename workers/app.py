"""The Celery app: ``celery -A workers.app worker`` runs a worker for the Redis that ULTRAFOLIO_REDIS names.

A worker needs the same version of the library as the client, and the recordings that a plan names: at the path the
client has them, or in ULTRAFOLIO_BASE, a folder that stands for the plan's.
"""

from __future__ import annotations

import multiprocessing
import os
from typing import Any

from celery import Celery, signals

from ultrafolio.sweep.distributed.job import QUEUE, VISIBILITY_SECONDS, broker_url
from workers import tasks

RESTORE_SECONDS = 10

app = Celery("ultrafolio", broker=broker_url(tasks.REDIS))
app.conf.update(
    task_default_queue=QUEUE,
    # Nobody unpickles what a queue holds.
    task_serializer="json",
    accept_content=["json"],
    # Results are parts in a deposit, and commits in the job: a result backend would keep them twice.
    task_ignore_result=True,
    # A chunk leaves the queue when it is committed, not when it is taken: whoever dies with it, it comes again.
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    # A worker holds the chunk that it computes and no other: the rest stays for workers that are free, or new.
    worker_prefetch_multiplier=1,
    broker_transport_options={
        # A chunk whose worker vanished with its machine comes again after this; an attached client is quicker.
        "visibility_timeout": float(os.environ.get("ULTRAFOLIO_VISIBILITY", VISIBILITY_SECONDS)),
        # Look for such chunks every ten seconds, and not every tenth time.
        "unacked_restore_throttle": 1,
        # A worker that is killed while it looks leaves this lock. The default, 300 s, would keep every other worker
        # from looking for that long.
        "unacked_mutex_expire": RESTORE_SECONDS,
    },
    # Redis may come up after the workers, and go away for a while; a worker waits as long as it takes.
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    # What is being computed when the connection breaks is finished: its commit counts whoever acknowledges.
    worker_cancel_long_running_tasks_on_connection_loss=False,
    # The parent has compiled everything (below); a child that is not up after this is not coming.
    worker_proc_alive_timeout=60.0,
    # Each chunk is computed by a process of its own that ends with it, so children need no replacing.
    worker_max_tasks_per_child=None,
    # No dates are sent, and no events.
    enable_utc=True,
    worker_send_task_events=False,
)


@signals.worker_init.connect  # type: ignore[untyped-decorator]
def compile_before_the_fork(**_: Any) -> None:
    """Children inherit what is compiled: several that compile at once would write one cache."""
    tasks.prepare()


@signals.worker_process_init.connect  # type: ignore[untyped-decorator]
def may_have_children(**_: Any) -> None:
    """A pool's process is a daemon to multiprocessing, which then lets it have no children; ours end with it."""
    vars(multiprocessing.current_process())["_config"]["daemon"] = False


@signals.worker_process_shutdown.connect  # type: ignore[untyped-decorator]
def end_the_children(**_: Any) -> None:
    """The computing process ends before the pool's, which the parent waits for."""
    tasks.end()
