"""The Celery app: ``celery -A workers.app worker`` runs a worker for the Redis that ULTRAFOLIO_REDIS names.

A worker needs the same version of the library as the client, and the recordings that a plan names: at the client's
path, or in the folder ULTRAFOLIO_BASE, which replaces the plan's folder.
"""

from __future__ import annotations

import multiprocessing
import os
from typing import Any

from celery import Celery, signals

from ultrafolio.sweep.distributed.broker import QUEUE, VISIBILITY_SECONDS, broker_url
from workers import tasks

RESTORE_SECONDS = 10

app = Celery("ultrafolio", broker=broker_url(tasks.REDIS))
app.conf.update(
    task_default_queue=QUEUE,
    # JSON only: unpickling a message could run code.
    task_serializer="json",
    accept_content=["json"],
    # Results are parts in the result store, and commits in the job: a result backend would be a second copy.
    task_ignore_result=True,
    # A chunk is acknowledged after its commit, so a chunk of a dead worker is delivered again.
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    # A worker takes only the chunk that it computes; other chunks stay available for idle and new workers.
    worker_prefetch_multiplier=1,
    broker_transport_options={
        # A chunk of a dead machine is delivered again after this time; an attached client queues it earlier.
        "visibility_timeout": float(os.environ.get("ULTRAFOLIO_VISIBILITY", VISIBILITY_SECONDS)),
        # Look for such chunks at each poll (every ten seconds), not at each tenth.
        "unacked_restore_throttle": 1,
        # A worker that is killed while it looks leaves this lock, which stops all other workers from looking until it
        # expires. The default is 300 s.
        "unacked_mutex_expire": RESTORE_SECONDS,
    },
    # Redis may start after the workers, or not answer for a while; a worker retries without end.
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    # A chunk that is computed when the connection breaks is finished: its commit does not need the acknowledgement.
    worker_cancel_long_running_tasks_on_connection_loss=False,
    # The parent has compiled the code (below), so a child starts within seconds.
    worker_proc_alive_timeout=60.0,
    # Cells are computed in a child of the pool's process, so the pool's processes need no replacement.
    worker_max_tasks_per_child=None,
    # Tasks carry no dates; workers send no events.
    enable_utc=True,
    worker_send_task_events=False,
)


@signals.worker_init.connect  # type: ignore[untyped-decorator]
def compile_before_the_fork(**_: Any) -> None:
    """Compile in the parent, so that the pool's processes inherit the code and do not compile at the same time."""
    tasks.prepare()


@signals.worker_process_init.connect  # type: ignore[untyped-decorator]
def may_have_children(**_: Any) -> None:
    """Let a pool's process start children: the pool makes it daemonic, and multiprocessing forbids daemonic processes
    to have children. Ours end with their parent (die_with)."""
    vars(multiprocessing.current_process())["_config"]["daemon"] = False


@signals.worker_process_shutdown.connect  # type: ignore[untyped-decorator]
def end_the_children(**_: Any) -> None:
    """End the computing child before its parent, the pool's process, ends."""
    tasks.end()
