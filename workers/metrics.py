"""Metrics of the queue and its sweeps for Prometheus, at GET :9464/metrics. ULTRAFOLIO_REDIS names the Redis,
ULTRAFOLIO_HOST the address to listen on: 127.0.0.1, if it is not set.

Each scrape reads Redis once; when Redis does not answer, the scrape fails, and Prometheus reports the target as down.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from typing import Any

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import GaugeMetricFamily
from redis import Redis

from ultrafolio.errors import InputError
from ultrafolio.redis_server import address
from ultrafolio.sweep.distributed.broker import QUEUE
from ultrafolio.sweep.distributed.job import Job

PORT = 9464
# the hash in which Celery's transport keeps tasks that were taken and not acknowledged
TAKEN = "unacked"


class Sweeps:
    """A collector: the queue's length, and each sweep's cells."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def collect(self) -> Iterator[GaugeMetricFamily]:
        queue = GaugeMetricFamily("ultrafolio_queue_chunks", "chunks that wait for a worker")
        queue.add_metric([], self._client.llen(QUEUE))
        taken = GaugeMetricFamily("ultrafolio_taken_chunks", "chunks that a worker has taken and not finished")
        taken.add_metric([], self._client.hlen(TAKEN))
        cells = GaugeMetricFamily("ultrafolio_sweep_cells", "cells of a sweep under way", labels=["sweep"])
        done = GaugeMetricFamily("ultrafolio_sweep_cells_done", "of them computed", labels=["sweep"])
        failed = GaugeMetricFamily("ultrafolio_sweep_cells_failed", "of them failed", labels=["sweep"])
        for key in self._client.scan_iter("ultrafolio:{*}:record", count=1000):
            job = Job(self._client, name := key.decode().partition("{")[2].rpartition("}")[0])
            record, now = job.record(), job.progress()
            if record is not None:
                cells.add_metric([name], record.cells)
                done.add_metric([name], now.computed)
                failed.add_metric([name], now.failed)
        yield from (queue, taken, cells, done, failed)


def main() -> None:
    """Listen until SIGTERM."""
    try:
        url = address(None)
    except InputError as error:
        sys.exit(f"workers.metrics: {error}")
    if url is None:
        sys.exit("workers.metrics: ULTRAFOLIO_REDIS: no Redis is given")
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Sweeps(Redis.from_url(url, socket_timeout=5)))
    start_http_server(PORT, os.environ.get("ULTRAFOLIO_HOST", "127.0.0.1"), registry=registry)
    signal.sigwait({signal.SIGTERM, signal.SIGINT})


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    main()
