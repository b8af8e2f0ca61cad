"""The lab service: a plan submitted over gRPC runs on a worker and comes back as the same bytes as a local sweep."""

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import redis

from running_cluster import Clustered, running
from ultrafolio.conformance.suite import build
from ultrafolio.errors import InputError
from ultrafolio.rpc.client import connect
from ultrafolio.rpc.v1 import lab_pb2 as pb
from ultrafolio.rpc.v1 import lab_pb2_grpc

ROOT = Path(__file__).parents[2]
PLAN = """
title = "eight cells"
[fixed]
duration_us = 1000
seed = 1
[grid]
policy = ["per-page", "whole-folio"]
order = [0, 1, 2, 3]
"""


@pytest.fixture(scope="module")
def where(tmp_path_factory):
    with running(tmp_path_factory.mktemp("lab")) as where:
        yield where


@pytest.fixture(scope="module")
def lab(where):
    (address,) = [part["address"] for part in where["services"] if part["service"] == "lab"]
    with connect(address, "lab") as channel:
        yield lab_pb2_grpc.LabServiceStub(channel)


@pytest.fixture(scope="module")
def worker(where):
    """A Celery worker with the rights of admin; the lab's own rights are tested with Celery in test_acl."""
    words = [sys.executable, "-m", "celery", "-A", "workers.app", "worker", "-c", "1", "--loglevel", "warning"]
    words += ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    process = subprocess.Popen(words, cwd=ROOT, env=os.environ | {"ULTRAFOLIO_REDIS": where["redis"]})
    yield process
    process.terminate()
    process.wait()


def test_a_plan_runs_on_the_workers_and_comes_back_the_same(lab, worker, tmp_path):
    made = lab.SubmitSweep(pb.SubmitSweepRequest(plan=PLAN, name="eight.toml"))
    assert made.cells == 8
    assert lab.SubmitSweep(pb.SubmitSweepRequest(plan=PLAN, name="eight.toml")).sweep == made.sweep
    last = list(lab.WatchSweep(pb.WatchSweepRequest(sweep=made.sweep), timeout=120))[-1]
    assert (last.state, last.done, last.cells, last.quarantined) == (pb.SWEEP_STATE_DONE, 8, 8, 0)
    fetched = b"".join(piece.piece for piece in lab.FetchResults(pb.FetchResultsRequest(sweep=made.sweep)))
    (tmp_path / "plan.toml").write_text(PLAN)
    words = [sys.executable, "-m", "ultrafolio", "sweep", "plan.toml", "-o", "local", "--no-report", "--quiet"]
    subprocess.run(words, cwd=tmp_path, check=True)
    assert fetched == (tmp_path / "local/results.parquet").read_bytes()
    (sweep,) = lab.ListSweeps(pb.ListSweepsRequest()).sweeps
    assert (sweep.name, sweep.state) == ("eight.toml", pb.SWEEP_STATE_DONE)


def test_the_example_submits_watches_and_fetches(where, worker, tmp_path):
    (tmp_path / "where.json").write_text(json.dumps(where))
    (tmp_path / "few.toml").write_text(PLAN.replace("[0, 1, 2, 3]", "[0, 1]"))
    words = [sys.executable, str(ROOT / "examples/sweep_lab.py"), "few.toml", "where.json", "few.parquet"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].endswith(": 4 cells") and lines[-2:] == ["4 of 4 cells, SWEEP_STATE_DONE", "results  few.parquet"]
    assert (tmp_path / "few.parquet").read_bytes()[:4] == b"PAR1"


def test_a_bad_plan_says_what_is_wrong(lab):
    with pytest.raises(InputError, match="polcy"):
        lab.SubmitSweep(pb.SubmitSweepRequest(plan=PLAN.replace("policy", "polcy"), name="x"))


def cancelled(lab, sweep):
    asked = pb.ControlSweepRequest(sweep=sweep, state=pb.SWEEP_STATE_CANCELLED)
    assert lab.ControlSweep(asked).state == pb.SWEEP_STATE_CANCELLED
    (*_, last) = lab.WatchSweep(pb.WatchSweepRequest(sweep=sweep), timeout=60)
    return last.state == pb.SWEEP_STATE_CANCELLED


def test_a_shipped_plan_finds_the_shipped_recordings(where, lab):
    plan = (ROOT / "sweeps/costs.toml").read_text()
    made = lab.SubmitSweep(pb.SubmitSweepRequest(plan=plan, name="costs.toml"))
    assert made.cells == 900
    # long before it is queued
    with pytest.raises(InputError, match="not queued yet"):
        lab.ControlSweep(pb.ControlSweepRequest(sweep=made.sweep, state=pb.SWEEP_STATE_PAUSED))
    assert cancelled(lab, made.sweep)
    wrong = pb.SubmitSweepRequest(plan=plan.replace("sqlite-update", "nothing"), name="costs.toml")
    with pytest.raises(InputError, match=r"^plan.toml: ../traces/nothing.lackey.gz: recording cannot be read") as found:
        lab.SubmitSweep(wrong)
    assert where["folder"] not in str(found.value)
    assert all((job / "plan.toml").exists() for job in Path(where["folder"]).glob("lab/sweeps/" + "[0-9a-f]" * 16))


def test_a_sweep_under_way_is_paused_and_cancelled(lab, where):
    plan = PLAN.replace("seed = 1", "").replace("[grid]", '[grid]\nseed = "1-40"')
    made = lab.SubmitSweep(pb.SubmitSweepRequest(plan=plan, name="many.toml"))
    asked = pb.ControlSweepRequest(sweep=made.sweep, state=pb.SWEEP_STATE_PAUSED)
    end = time.monotonic() + 60
    while True:
        with contextlib.suppress(InputError):
            assert lab.ControlSweep(asked).state == pb.SWEEP_STATE_PAUSED
            break
        assert time.monotonic() < end
        time.sleep(0.05)
    assert cancelled(lab, made.sweep)
    with redis.Redis.from_url(where["redis"]) as queue:
        assert not [key for key in queue.scan_iter("ultrafolio:{*}:record")]


def test_an_unknown_sweep_names_those_there_are(lab):
    with pytest.raises(InputError, match="no such sweep"):
        next(iter(lab.WatchSweep(pb.WatchSweepRequest(sweep="../../etc"))))


def test_a_groups_steps_can_be_watched(where, lab):
    engine = Clustered(where)
    engine.load(build("per-page", vcpu=[{}]).state)
    engine.step(0, 1, 0)
    seen = list(lab.Watch(pb.WatchRequest(group=engine.group, once=True)))
    kinds = [event.event.split(b'"')[3] for event in seen]
    assert kinds[:3] == [b"made", b"made", b"made"] and kinds[3:] == [b"steps"]
    assert engine.group in lab.ListGroups(pb.ListGroupsRequest()).groups
    engine.cluster.close()
