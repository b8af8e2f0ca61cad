"""Sweeps on Celery give the bytes of a local sweep, also after detaching, pausing and deaths of workers."""

import json
import threading
import time

import pyarrow.parquet as pq
import pytest
from redis import Redis

from celery_workers import CELLS, PLAN, Logged, Sweep, Workers, results
from fake_cells import FakeCells, make_plan, run, wait_for
from ultrafolio.errors import InputError
from ultrafolio.redis_server import Server
from ultrafolio.sweep.distributed.broker import QUEUE, broker_url, without_password
from ultrafolio.sweep.distributed.control import pause, resume, revoke
from ultrafolio.sweep.distributed.job import Job
from ultrafolio.sweep.distributed.ticket import read_ticket
from ultrafolio.sweep.local.processes import Limits, Processes
from ultrafolio.sweep.store import open_store
from workers.app import app

SLOW = PLAN.replace("sleep_ms = 5", "sleep_ms = 12")


@pytest.fixture(scope="module")
def server():
    with Server.start() as found:
        yield found


@pytest.fixture(scope="module")
def workers(server, tmp_path_factory):
    with Workers(server.url, tmp_path_factory.mktemp("workers"), 4) as found:
        yield found


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """The results of PLAN, computed in this process."""
    folder = tmp_path_factory.mktemp("reference")
    run(make_plan(folder, PLAN), folder / "store")
    return results(folder / "store")


@pytest.fixture(scope="module")
def slow_reference(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slow")
    run(make_plan(folder, SLOW), folder / "store", Processes(4))
    return results(folder / "store")


def job_of(store, server):
    return Job(Redis.from_url(server.url), read_ticket(store).job)


def test_one_worker_gives_the_same_bytes(tmp_path, reference):
    with Server.start(tcp=True) as server, Workers(server.url, tmp_path, 1):
        summary = Sweep(make_plan(tmp_path, PLAN), tmp_path / "a", server.url).end()
    assert (summary.computed, summary.failed) == (CELLS, 7)
    assert results(tmp_path / "a") == reference


@pytest.mark.parametrize("deposit", ["redis:", "folder"])
def test_four_workers_give_the_same_bytes_and_leave_nothing_behind(tmp_path, server, workers, reference, deposit):
    place = tmp_path / "shared"
    url = place.as_uri() if deposit == "folder" else deposit
    path = make_plan(tmp_path, PLAN)
    assert Sweep(path, tmp_path / "a", server.url, results_url=url).end().computed == CELLS
    assert results(tmp_path / "a") == reference
    assert read_ticket(tmp_path / "a") is None and not list(place.glob("*/*"))
    with Redis.from_url(server.url) as client:
        assert not [key for key in client.keys("ultrafolio:{*") if b":lease:" not in key], "the last client cleans up"
    again = Sweep(path, tmp_path / "a", server.url).end()
    assert (again.computed, again.stored) == (0, CELLS) and results(tmp_path / "a") == reference


def test_only_what_is_missing_is_queued(tmp_path, server, workers, reference):
    path = make_plan(tmp_path, PLAN)
    run(path, tmp_path / "a", limit=33)
    summary = Sweep(path, tmp_path / "a", server.url).end()
    assert (summary.stored, summary.computed) == (33, CELLS - 33) and results(tmp_path / "a") == reference


def test_a_cell_that_kills_its_process_is_the_same_failed_row(tmp_path, server, workers):
    path = make_plan(tmp_path, PLAN.replace("fail = 3", "fail = 3\nkill = 4").replace("1-20", "1-6"))
    local = run(path, tmp_path / "a", Processes(2))
    remote = Sweep(path, tmp_path / "b", server.url).end()
    assert remote.failed == local.failed == 14 and results(tmp_path / "a") == results(tmp_path / "b")
    assert {row["error"] for row in rows_of(tmp_path / "b") if row["seed"] == 4} == {
        "WorkerDied: signal 9 (SIGKILL) ended 2 workers in this cell"
    }


@pytest.mark.parametrize("where", ["local", "celery"])
def test_a_cell_that_takes_too_long_is_a_failed_row(tmp_path, server, workers, where):
    text = '[fixed]\nsleep_ms = 5\nhang = 2\n[grid]\npolicy = ["per-page"]\nseed = "1-4"'
    path, limits = make_plan(tmp_path, text), Limits(seconds=0.4)
    if where == "local":
        run(path, tmp_path / "a", Processes(2, limits))
    else:
        Sweep(path, tmp_path / "a", server.url, limits=limits).end()
    rows = rows_of(tmp_path / "a")
    assert [row["error"] for row in rows] == [None, "CellLimit: more than 0.4 s in this cell", None, None]


@pytest.mark.parametrize("where", ["local", pytest.param("celery", marks=pytest.mark.slow)])
def test_a_cell_that_takes_too_much_memory_is_a_failed_row(tmp_path, server, workers, where):
    text = '[fixed]\nsleep_ms = 1\nmegabytes = 512\n[grid]\npolicy = ["per-page"]\nseed = "1-4"'
    path, limits = make_plan(tmp_path, text), Limits(megabytes=256)
    if where == "local":
        run(path, tmp_path / "a", Processes(1, limits))
    else:
        Sweep(path, tmp_path / "a", server.url, limits=limits).end()
    assert [row["error"] for row in rows_of(tmp_path / "a")] == [None, "MemoryError: ", None, None]


def rows_of(store):
    return sorted(pq.read_table(store / "results.parquet").to_pylist(), key=lambda row: row["seed"])


def test_leaving_and_coming_back(tmp_path, server, workers, slow_reference):
    path, store = make_plan(tmp_path, SLOW), tmp_path / "a"
    first = Sweep(path, store, server.url)
    wait_for(lambda: list((store / "segments").glob("*.arrows")))
    summary = first.stop()
    assert summary.interrupted and first.queue.detached and summary.results is None
    fetched = len(open_store(store).segments())
    job = job_of(store, server)
    wait_for(lambda: job.progress().chunks == job.record().chunks)  # the workers go on alone
    second = Sweep(path, store, server.url)
    assert second.end().computed == CELLS and results(store) == slow_reference
    assert any("coming back to job" in text for text in second.said)
    assert len(open_store(store).segments()) > fetched and read_ticket(store) is None


def test_pause_and_resume(tmp_path, server, workers, slow_reference):
    path, store = make_plan(tmp_path, SLOW), tmp_path / "a"
    sweep = Sweep(path, store, server.url)
    wait_for(lambda: list((store / "segments").glob("*.arrows")))
    pause(store, None)
    job = job_of(store, server)
    with Redis.from_url(server.url) as client:
        wait_for(lambda: client.llen(QUEUE) == 0 and not client.hlen("unacked"))
    before = job.progress()
    assert 0 < before.chunks < job.record().chunks == before.chunks + len(job.held())
    wait_for(lambda: any("paused" in text for text in sweep.said))
    assert job.progress() == before, "nothing goes on"
    resume(store, None)
    assert sweep.end().computed == CELLS and results(store) == slow_reference


def test_revoke_ends_the_job_and_keeps_what_was_fetched(tmp_path, server, workers, slow_reference):
    path, store = make_plan(tmp_path, SLOW), tmp_path / "a"
    sweep = Sweep(path, store, server.url)
    wait_for(lambda: list((store / "segments").glob("*.arrows")))
    revoke(store, server.url)
    with pytest.raises(InputError, match="was revoked"):
        sweep.end()
    with pytest.raises(InputError, match="no job is under way"):
        pause(store, None)
    assert 0 < len(open_store(store).keys([])) < CELLS
    summary = Sweep(path, store, server.url).end()
    assert 0 < summary.stored == CELLS - summary.computed and results(store) == slow_reference


def test_two_clients_of_one_plan_share_one_job(tmp_path, slow_reference):
    log = tmp_path / "ran"
    path = make_plan(tmp_path, SLOW)
    with Server.start() as server:
        one = Sweep(path, tmp_path / "a", server.url)
        wait_for(lambda: any("queued" in text for text in one.said))
        two = Sweep(path, tmp_path / "b", server.url)
        wait_for(lambda: any("joining it" in text for text in two.said))
        with Workers(server.url, tmp_path, 2, FAKE_LOG=str(log)):
            assert one.end().computed == two.end().computed == CELLS
    assert results(tmp_path / "a") == results(tmp_path / "b") == slow_reference
    assert len(log.read_text().splitlines()) == CELLS, "computed once for both"


def test_a_worker_with_other_rules_refuses_and_says_so(tmp_path, reference):
    with Server.start() as server, Workers(server.url, tmp_path, 1, FAKE_ENGINE="engine-0"):
        sweep = Sweep(make_plan(tmp_path, PLAN), tmp_path / "a", server.url)
        wait_for(lambda: any("its rules are engine-0, the job's are engine-1" in text for text in sweep.said))
        assert job_of(tmp_path / "a", server).progress().chunks == 0
        with Workers(server.url, tmp_path, 2):
            assert sweep.end().computed == CELLS
    assert results(tmp_path / "a") == reference


@pytest.mark.slow
def test_a_worker_with_another_recording_refuses(tmp_path):
    """The client's plan lies beside a recording; the worker's folder for plans has another one."""
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here, there):
        folder.mkdir()
        (folder / "recording.txt").write_text(folder.name)
    with Server.start() as server, Workers(server.url, tmp_path, 1, ULTRAFOLIO_BASE=str(there)):
        sweep = Sweep(make_plan(here, PLAN), tmp_path / "a", server.url)
        wait_for(lambda: any("what the plan names differs there" in text for text in sweep.said))
        (there / "recording.txt").write_text("here")
        assert sweep.end().computed == CELLS


def test_a_dead_machines_chunk_is_delivered_again_after_the_visibility_timeout(tmp_path, slow_reference):
    """No client republishes here (it waits an hour for that): it is Celery that delivers the chunk again."""
    with Server.start() as server:
        sweep = Sweep(make_plan(tmp_path, SLOW), tmp_path / "a", server.url, quiet_seconds=3600)
        with Workers(server.url, tmp_path, 2, ULTRAFOLIO_VISIBILITY="1"):
            wait_for(lambda: list((tmp_path / "a/segments").glob("*.arrows")))
        with Redis.from_url(server.url) as client:
            assert client.hlen("unacked") > 0, "it died with a chunk in hand"
            # as if it had died while it looked for chunks; 300 s is Kombu's own
            expire = app.conf.broker_transport_options.get("unacked_mutex_expire", 300)
            client.set("unacked_mutex", "dead", ex=expire)
        time.sleep(1.1)
        with Workers(server.url, tmp_path, 2, ULTRAFOLIO_VISIBILITY="1"):
            assert sweep.end().computed == CELLS
        assert not any("lost" in text for text in sweep.said)
    assert results(tmp_path / "a") == slow_reference


@pytest.mark.slow
def test_an_attached_client_is_quicker_than_the_visibility_timeout(tmp_path, slow_reference):
    with Server.start() as server:
        sweep = Sweep(make_plan(tmp_path, SLOW), tmp_path / "a", server.url, quiet_seconds=0.5)
        with Workers(server.url, tmp_path, 2, FAKE_LEASE="1"):
            wait_for(lambda: list((tmp_path / "a/segments").glob("*.arrows")))
        with Workers(server.url, tmp_path, 2, FAKE_LEASE="1"):
            assert sweep.end().computed == CELLS
        assert any("were lost with their workers" in text for text in sweep.said)
    assert results(tmp_path / "a") == slow_reference


def test_a_redis_that_forgets_everything_is_told_again(tmp_path, slow_reference):
    with Server.start() as server, Workers(server.url, tmp_path, 2):
        sweep = Sweep(make_plan(tmp_path, SLOW), tmp_path / "a", server.url)
        wait_for(lambda: list((tmp_path / "a/segments").glob("*.arrows")))
        server.kill()
        server.restart()
        assert sweep.end().computed == CELLS
        assert any("Redis has lost the job" in text for text in sweep.said)
    assert results(tmp_path / "a") == slow_reference


def test_a_part_that_is_gone_is_computed_again(tmp_path, server, slow_reference):
    path, store = make_plan(tmp_path, SLOW), tmp_path / "a"
    first = Sweep(path, store, server.url, results_url=(tmp_path / "shared").as_uri())
    wait_for(lambda: any("queued" in text for text in first.said))
    assert first.stop().computed == 0
    job = job_of(store, server)
    with Workers(server.url, tmp_path, 2):
        wait_for(lambda: job.progress().chunks == job.record().chunks)
        for part in list((tmp_path / "shared").glob("*/*"))[::2]:
            part.unlink()
        assert Sweep(path, store, server.url).end().computed == CELLS
    assert results(store) == slow_reference


def test_bad_input_that_a_worker_finds_ends_the_sweep_for_the_client(tmp_path, server, workers):
    path = make_plan(tmp_path, PLAN.replace("fail = 3", "fail = 3\nwrong = 17"))
    with pytest.raises(InputError, match="seed 17 is wrong") as caught:
        Sweep(path, tmp_path / "a", server.url).end()
    assert "seed=17" in str(caught.value) and read_ticket(tmp_path / "a") is None


def test_a_redis_that_is_not_there_is_bad_input(tmp_path):
    with pytest.raises(InputError, match="Redis does not answer"):
        Sweep(make_plan(tmp_path, PLAN), tmp_path / "a", f"unix://{tmp_path}/s").end()


def test_a_job_of_other_rules_is_not_come_back_to(tmp_path, server):
    path = make_plan(tmp_path, PLAN)
    first = Sweep(path, tmp_path / "a", server.url)
    wait_for(lambda: any("queued" in text for text in first.said))
    first.stop()
    with pytest.raises(InputError, match="runs other rules"):
        Sweep(path, tmp_path / "a", server.url, cells=FakeCells("engine-2")).end()
    revoke(tmp_path / "a", None)


def test_addresses():
    assert broker_url("redis://a:1/2") == "redis://a:1/2"
    assert broker_url("unix:///run/s?db=3") == "redis+socket:///run/s?virtual_host=3"
    assert broker_url("unix://me:pw@/run/s") == "redis+socket://me:pw@/run/s?virtual_host=0"
    assert without_password("redis://me:pw@a:1/2") == "redis://a:1/2"
    assert without_password("unix:///run/s?db=0") == "unix:///run/s?db=0"


def test_the_ticket_holds_no_password(tmp_path, server):
    first = Sweep(make_plan(tmp_path, PLAN), tmp_path / "a", server.url.replace("unix://", "unix://default:none@"))
    wait_for(lambda: first.error or any("queued" in text for text in first.said))
    first.stop()
    assert "none@" not in (tmp_path / "a/job.json").read_text()
    assert json.loads((tmp_path / "a/job.json").read_text())["redis"] == server.url
    revoke(tmp_path / "a", None)


def test_nothing_is_left_running():
    assert not [thread for thread in threading.enumerate() if isinstance(thread, Sweep)]
    assert Logged.COLUMNS == FakeCells.COLUMNS
