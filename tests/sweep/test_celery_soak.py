"""The memory of a worker does not grow over thousands of chunks without cells."""

import time
from pathlib import Path

import pytest
from redis import Redis

from celery_workers import PLAN, Workers
from fake_cells import FAKE, children, make_plan, wait_for
from ultrafolio.redis_server import Server
from ultrafolio.sweep.distributed.broker import send
from ultrafolio.sweep.distributed.job import Job, Record
from ultrafolio.sweep.planfile import load

KILOBYTES_PER_CHUNK = 0.5


def resident(pid):
    """Private memory of a process in kB: what it shares with its parent is counted there."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in rollup if line.startswith(("Private_Dirty", "Private_Clean")))


def test_three_hundred_empty_chunks_leave_no_memory(tmp_path):
    grown(tmp_path, 100, 300)


@pytest.mark.slow
def test_ten_thousand_empty_chunks_leave_no_memory(tmp_path):
    print(grown(tmp_path, 2000, 10_000))


def grown(folder, first, total):
    """Send ``total`` empty chunks; what the worker's processes and Redis have grown by since the ``first``, in kB."""
    plan = load(make_plan(folder, PLAN))
    record = Record(
        str(plan.path), plan.text, "engine-1", FAKE.COLUMNS, 0, total, (folder / "parts").as_uri(), {}, None, None
    )
    with Server.start() as server, Redis.from_url(server.url) as client, Workers(server.url, folder, 2) as worker:
        empty_redis = client.info("memory")["used_memory"]
        job = Job(client, "soak")
        job.submit(record, [[(0, 0)]] * total)
        send(server.url, job.name, ((number, [(0, 0)]) for number in range(first)))
        wait_for(lambda: job.progress().chunks == first, 300)
        processes = [worker.process.pid, *children(worker.process.pid)]
        assert len(processes) == 3
        before = {pid: resident(pid) for pid in processes}
        send(server.url, job.name, ((number, [(0, 0)]) for number in range(first, total)))
        wait_for(lambda: job.progress().chunks == total, 300)
        after = {pid: resident(pid) for pid in processes}
        growth = {pid: after[pid] - before[pid] for pid in processes}
        allowed = max(2048, KILOBYTES_PER_CHUNK * (total - first))
        assert all(kilobytes <= allowed for kilobytes in growth.values()), (before, after)
        assert children(worker.process.pid) == processes[1:], "the same processes"
        assert not any(children(pid) for pid in processes[1:]), "an empty chunk starts no process"
        job.delete()
        time.sleep(0.1)
        left = (client.info("memory")["used_memory"] - empty_redis) // 1024
        assert left < 2048, f"{left} kB are left in Redis"
        return list(growth.values()), left
