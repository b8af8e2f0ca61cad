"""``ultrafolio sweep --executor celery`` for a user: exit codes, messages, detaching, attaching again."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from redis import Redis

from celery_workers import CELLS, PLAN, ROOT, Workers, results
from fake_cells import make_plan, run, start, wait_for
from patience import NEVER
from ultrafolio.redis_server import VARIABLE, Server
from ultrafolio.sweep.distributed import own_workers
from ultrafolio.sweep.distributed.ticket import read_ticket
from ultrafolio.sweep.store import open_store

SLOW = PLAN.replace("sleep_ms = 5", "sleep_ms = 20")
OWN = """
[fixed]
duration_us = 500
[grid]
policy = ["per-page", "whole-folio"]
order = "0-4"
seed = "1-{seeds}"
"""


def ultrafolio(*words, cwd):
    program = Path(sys.executable).with_name("ultrafolio")
    return subprocess.run([program, *map(str, words)], cwd=cwd, capture_output=True, text=True)


def test_without_a_broker_a_server_and_workers_are_started_and_ended(tmp_path):
    """The simulator's cells, in processes forked from a worker that had compiled them."""
    make_plan(tmp_path, OWN.format(seeds=10))
    words = ("sweep", "plan.toml", "--no-report", "--workers", 2)
    local = ultrafolio(*words, "-o", "a", cwd=tmp_path)
    own = ultrafolio(*words, "-o", "b", "--executor", "celery", cwd=tmp_path)
    assert (local.returncode, own.returncode) == (0, 0), own.stderr
    assert "100 of 100 cells (100 computed, 0 stored before)" in own.stdout and "queued are 100 cells in" in own.stderr
    assert results(tmp_path / "a") == results(tmp_path / "b")
    assert not (tmp_path / "b/job.json").exists()
    log = (tmp_path / "b/workers.log").read_text()
    assert "Warm shutdown" in log and "Traceback" not in log
    left = subprocess.run(["pgrep", "-f", str(tmp_path)], capture_output=True, text=True).stdout
    assert not left, "nothing goes on"


def test_ctrl_c_detaches_and_attach_comes_back(tmp_path):
    reference = tmp_path / "reference"
    run(path := make_plan(tmp_path, SLOW), reference)
    store = tmp_path / "store"
    with Server.start() as server, Workers(server.url, tmp_path, 2):
        client = start(path, "-o", store, "--executor", "celery", "--redis", server.url, "--no-report")
        wait_for(lambda: list((store / "segments").glob("*.arrows")))
        os.killpg(client.pid, signal.SIGINT)
        out, err = client.communicate(timeout=NEVER)
        assert client.returncode == 130, err
        assert f"detached; the job goes on. To come back: ultrafolio sweep attach {store}" in out
        assert read_ticket(store).redis == server.url
        for word, told in (("pause", "is paused"), ("resume", "goes on")):
            out, err = start(word, store).communicate(timeout=NEVER)
            assert told in out, err
        out, err = start("status", store).communicate(timeout=NEVER)
        assert f"job {read_ticket(store).job} is running: " in out, err
        back = start("attach", store, "--no-report", "--json")
        out, err = back.communicate(timeout=NEVER)
        assert back.returncode == 3, err
        assert json.loads(out)["computed"] == CELLS
        assert results(store) == results(reference)
        again = start("attach", store)
        assert "no job is under way" in again.communicate(timeout=NEVER)[1] and again.returncode == 2
        with Redis.from_url(server.url) as redis:
            assert not redis.keys("ultrafolio:{*}:part*")


def test_a_sweep_of_first_cells_is_done_when_these_are(tmp_path):
    store, path = tmp_path / "store", make_plan(tmp_path, SLOW)
    with Server.start() as server, Workers(server.url, tmp_path, 2):
        flags = ("--executor", "celery", "--redis", server.url, "--no-report", "--limit", CELLS - 8)
        client = start(path, "-o", store, *flags)
        wait_for(lambda: list((store / "segments").glob("*.arrows")))
        os.killpg(client.pid, signal.SIGINT)
        client.communicate(timeout=NEVER)
        back = start("attach", store, "--no-report")
        out, err = back.communicate(timeout=NEVER)
    assert f"{CELLS - 8} of {CELLS - 8} cells" in out and back.returncode in (0, 3), err
    assert f"To compute all: ultrafolio sweep {path} -o {store} --executor celery\n" in out


def test_ctrl_c_ends_own_workers_after_their_chunks_and_the_sweep_resumes(tmp_path):
    make_plan(tmp_path, OWN.format(seeds=200).replace("500", "5000"))
    words = ("sweep", "plan.toml", "--no-report", "--workers", "2", "--executor", "celery", "-o", "store")
    program = str(Path(sys.executable).with_name("ultrafolio"))
    client = subprocess.Popen(
        [program, *words],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    wait_for(lambda: list((tmp_path / "store/segments").glob("*.arrows")), 60)
    os.killpg(client.pid, signal.SIGINT)
    out, err = client.communicate(timeout=NEVER)
    assert client.returncode == 130 and "To resume: ultrafolio sweep plan.toml -o store --executor celery" in out, err
    assert not (tmp_path / "store/job.json").exists()
    before = len(open_store(tmp_path / "store").keys([]))
    local = ultrafolio("sweep", "plan.toml", "--no-report", "-o", "store", "--json", cwd=tmp_path)
    assert 0 < json.loads(local.stdout)["stored"] == before < 2000


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--executor", "celery"], "no Redis is named, and no workers"),
        (["--executor", "celery", "--redis", "radis://x"], "did you mean 'redis'"),
        (["--executor", "celery", "--redis", "unix:///nowhere/s"], "Redis does not answer"),
        (["--executor", "celery", "--workers", "1", "--deposit", "pigeon://loft"], "unknown kind of result store"),
        (["--workers", "0", "--cell-seconds", "3"], "this process cannot end its own cells"),
    ],
)
def test_bad_input_says_what_to_type(tmp_path, monkeypatch, words, says):
    monkeypatch.delenv(VARIABLE, raising=False)
    process = start(make_plan(tmp_path, PLAN), "-o", tmp_path / "store", "--no-report", *words)
    _, err = process.communicate(timeout=NEVER)
    assert process.returncode == 2 and says in err and "next" in err and "Traceback" not in err, err


def test_outside_a_checkout_the_error_names_the_workers_command(tmp_path, monkeypatch):
    monkeypatch.setattr(own_workers.errors, "__file__", str(tmp_path / "site-packages/ultrafolio/errors.py"))
    with pytest.raises(own_workers.InputError, match=f"{VARIABLE}=URL celery -A workers.app worker"):
        own_workers.checkout("URL")


def test_workers_that_end_again_and_again_end_the_sweep(tmp_path, monkeypatch):
    monkeypatch.setattr(own_workers, "worker_command", lambda count: ["/bin/false"])
    monkeypatch.setattr(own_workers, "MAX_STARTS", 2)
    with pytest.raises(own_workers.InputError, match="the workers end again and again"):  # noqa: SIM117
        with own_workers.OwnWorkers(1, "unix:///nowhere/s", tmp_path) as workers:
            wait_for(workers.restart_if_dead)


def test_a_worker_forks_before_anything_is_compiled_by_two_and_without_grpc():
    code = """
import os, sys
from workers import tasks
from workers.app import app, compile_before_the_fork
assert not {'grpc', 'numba'} & set(sys.modules)
class Cells:
    engine_digest = str
    def warm(self):
        print('compiled by', os.getpid(), flush=True)
tasks.simulator = Cells
compile_before_the_fork()
if not os.fork():
    compile_before_the_fork()
    os._exit(0)
os.wait()
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    assert len(done.stdout.splitlines()) == 1, "the child finds it ready"


def test_the_library_imports_neither_celery_nor_redis_before_they_are_asked_for():
    code = "import sys, ultrafolio.commands.sweep; sys.exit(bool({'redis', 'celery', 'numba'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", code], check=True)
