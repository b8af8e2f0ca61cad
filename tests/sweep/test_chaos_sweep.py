"""Chaos: workers, their processes and Redis are killed (-9) at random during a sweep, and the bytes are the same.

A round is a seed. What is asserted of each: the sweep ends, every cell was run at least once, every cell is stored
exactly once, and the Parquet file is that of a sweep in one process.
"""

import os
import random
import signal
import time
from contextlib import suppress

import pyarrow.parquet as pq
import pytest

from celery_workers import CELLS, PLAN, Logged, Sweep, Workers, results
from fake_cells import children, make_plan, run, wait_for
from ultrafolio.redis_server import Server

WORKERS = 2
PROCESSES = 2
SECONDS = 3.0
"""Seconds in which processes are killed; without kills the sweep takes about one."""
SHORT_SECONDS = 1.5


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reference")
    run(make_plan(folder, SLOW), folder / "store")
    return results(folder / "store")


SLOW = PLAN.replace("sleep_ms = 5", "sleep_ms = 15")


class Chaos:
    """Kills by a seed; what it has killed is in ``deaths``."""

    def __init__(self, seed, server, folder):
        self.chance, self.server, self.folder, self.deaths = random.Random(seed), server, folder, []
        self.workers = [self.hire() for _ in range(WORKERS)]

    def hire(self):
        log = str(self.folder / "ran")
        return Workers(self.server.url, self.folder, PROCESSES, FAKE_LEASE="1", FAKE_LOG=log, ULTRAFOLIO_VISIBILITY="5")

    def strike(self):
        """One kill: a whole worker, a process of its pool, the process that computes, or Redis."""
        what = self.chance.choice(["machine", "worker", "pool", "pool", "cell", "cell", "redis"])
        number = self.chance.randrange(WORKERS)
        worker = self.workers[number]
        pool = children(worker.process.pid)
        cells = [pid for process in pool for pid in children(process)]
        self.deaths.append(what)
        if what == "redis":
            self.server.kill()
            time.sleep(self.chance.uniform(0, 0.3))
            self.server.restart()
        elif what == "machine":
            worker.kill()
            self.workers[number] = self.hire()
        else:
            victims = {"worker": [worker.process.pid], "pool": pool, "cell": cells}[what]
            if victims:
                kill(self.chance.choice(victims))

    def mend(self):
        """New workers for dead ones, as a supervisor has them."""
        for number, worker in enumerate(self.workers):
            if worker.process.poll() is not None:
                worker.kill()
                self.workers[number] = self.hire()

    def end(self):
        for worker in self.workers:
            worker.kill()


def kill(pid):
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def a_round(seed, folder, reference, seconds):
    """One seeded round; returns what was killed."""
    with Server.start(folder / "redis", append_only=True) as server:
        sweep = Sweep(make_plan(folder, SLOW), folder / "store", server.url, cells=Logged(), quiet_seconds=1.0)
        wait_for(lambda: sweep.said)  # before, a Redis that does not answer is bad input
        chaos = Chaos(seed, server, folder)
        try:
            until = time.monotonic() + seconds
            while sweep.is_alive() and time.monotonic() < until:
                time.sleep(chaos.chance.uniform(0.05, 0.5))
                chaos.strike()
                chaos.mend()
            while sweep.is_alive() and time.monotonic() < until + 60:
                chaos.mend()
                time.sleep(0.05)
            summary = sweep.end(1)
        finally:
            chaos.end()
    rows = pq.read_table(folder / "store/results.parquet")
    assert summary.computed == CELLS == len(rows) == len(set(rows["key"].to_pylist()))
    assert len(set((folder / "ran").read_text().splitlines())) == CELLS
    assert results(folder / "store") == reference, "other bytes"
    return chaos.deaths


@pytest.mark.parametrize("seed", [1, 2])
def test_the_bytes_survive_kills(tmp_path, reference, seed):
    assert a_round(seed, tmp_path, reference, SHORT_SECONDS)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 150))
def test_the_bytes_survive_kills_fifty_times(tmp_path, reference, seed):
    print(seed, *a_round(seed, tmp_path, reference, SECONDS))
