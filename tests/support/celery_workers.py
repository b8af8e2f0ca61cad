"""Celery workers with fake cells, for the tests of sweeps on Celery; as a program it is such a worker."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pyarrow.parquet as pq

from fake_cells import FakeCells, make_plan, run
from patience import NEVER
from ultrafolio.redis_server import VARIABLE, Server, launch
from ultrafolio.sweep import cells as cells_module
from ultrafolio.sweep.distributed import job, worker
from ultrafolio.sweep.distributed.queue import Queue

ROOT = Path(__file__).parents[2]

PLAN = """
[fixed]
sleep_ms = 5
fail = 3
[grid]
policy = ["per-page", "whole-folio"]
order = "0-3"
seed = "1-20"
[[skip]]
policy = "whole-folio"
order = 1
"""
CELLS = 140


class Logged(FakeCells):
    """Fake cells that note in a file which were run."""

    def run(self, config, base):
        if path := os.environ.get("FAKE_LOG"):
            with open(path, "a") as log:
                print(config["policy"]["preset"], config["order"], config["seed"], file=log)
        return super().run(config, base)


class Workers:
    """A Celery worker with ``count`` processes over fake cells; a context manager that kills it."""

    def __init__(self, url, folder, count=2, **env):
        self.log = folder / "worker.log"
        command = [sys.executable, __file__, "worker", "--concurrency", str(count), "--loglevel", "WARNING"]
        command += ["--without-gossip", "--without-mingle", "--without-heartbeat", "--hostname", f"{id(self)}@%h"]
        path = os.pathsep.join(map(str, (ROOT / "src", ROOT, ROOT / "tests/support", ROOT / "tests/sweep")))
        with open(self.log, "ab") as log:
            self.process = launch(
                command,
                env={**os.environ, VARIABLE: url, "PYTHONPATH": path, **env},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def kill(self):
        """SIGKILL for the whole group: a machine that is gone."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()


class Sweep(threading.Thread):
    """A sweep on Celery in a thread: ``said`` is what it tells, ``end()`` its summary, ``stop()`` a Ctrl-C."""

    def __init__(self, path, store, url, *, cells=None, **options):
        super().__init__(daemon=True)
        self.said, self.error, self.stopping = [], None, threading.Event()
        self.queue = Queue(store, url, self.said.append, **options)
        self.path, self.store, self.cells = path, store, cells or FakeCells()
        self.start()

    def run(self):
        inner = self.queue.run
        executor = SimpleNamespace(run=lambda work, span, segment, _: inner(work, span, segment, self.stopping.is_set))
        try:
            self.summary = run(self.path, self.store, executor, self.cells)
        except Exception as error:
            self.error = error

    def stop(self):
        self.stopping.set()
        return self.end()

    def end(self, seconds=NEVER):
        self.join(seconds)
        assert not self.is_alive(), (self.said, "the sweep does not end")
        if self.error:
            raise self.error
        return self.summary


def results(store):
    return (store / "results.parquet").read_bytes()


def test_the_fake_worker_works(tmp_path):
    path = make_plan(tmp_path, PLAN)
    with Server.start() as server, Workers(server.url, tmp_path, FAKE_LOG=str(tmp_path / "ran")):
        assert Sweep(path, tmp_path / "a", server.url, cells=Logged()).end().computed == CELLS
    assert len((tmp_path / "ran").read_text().splitlines()) == CELLS, "each cell is run once when nobody dies"
    assert len(pq.read_table(tmp_path / "a/results.parquet")) == CELLS


def main():
    job.LEASE_SECONDS = worker.LEASE_SECONDS = int(os.environ.get("FAKE_LEASE", job.LEASE_SECONDS))
    cells_module.simulator = Logged
    from workers.app import app

    app.worker_main(sys.argv[1:])


if __name__ == "__main__":
    main()
