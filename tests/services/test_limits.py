"""Bounds: a request at the limit is accepted, one above is refused in words; the table in the docs is the code's."""

import gzip
import subprocess
import time
from pathlib import Path

import grpc
import pytest

from running_cluster import ROOT, running
from services import limits
from services.guest import servicer as guest
from services.lab import jobs
from services.lab.jobs import Jobs
from services.ultravisor import servicer as ultravisor
from ultrafolio.conformance.suite import build
from ultrafolio.errors import InputError
from ultrafolio.rpc.cluster import Cluster
from ultrafolio.rpc.v1 import guest_pb2, lab_pb2, ultravisor_pb2
from ultrafolio.sweep import planfile


def test_the_table_in_the_docs_is_the_codes():
    assert (ROOT / "docs/limits.md").read_text() == limits.text(), "python -m services.limits > docs/limits.md"


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    with running(tmp_path_factory.mktemp("c")) as where, Cluster.at(where) as cluster:
        cluster.lay_out_state("g", build("per-page", vcpu=[{"touch": [0]}]).state, [], "limits")
        cluster.where = where
        yield cluster


def reason(call, message):
    """Returns the reason of a call's refusal, "" if it is accepted."""
    try:
        answer = call(message, timeout=30)
        if hasattr(answer, "__next__"):
            list(answer)
    except InputError as error:
        assert error.allowed or error.cause, error
        return error.reason
    return ""


def workload(**more):
    return guest_pb2.RunWorkloadRequest(group="g", actor=0, **more)


def access(number):
    return ultravisor_pb2.AccessRequest(group="g", accesses=[ultravisor_pb2.PageAccess(page=0)] * number)


def test_what_a_message_may_hold(lab):
    assert reason(lab.guest.RunWorkload, workload(pages=[0] * 2000, batch=guest.MOST_BATCH)) == ""
    assert reason(lab.guest.RunWorkload, workload(pages=[0], batch=guest.MOST_BATCH + 1)) == "TOO_MANY"
    assert reason(lab.guest.RunWorkload, workload(pages=[0] * (guest.MOST_PAGES + 1))) == "TOO_MANY"
    assert reason(lab.ultravisor.Access, access(ultravisor.MOST_ACCESSES)) == ""
    assert reason(lab.ultravisor.Access, access(ultravisor.MOST_ACCESSES + 1)) == "TOO_MANY"
    instructions = [ultravisor_pb2.Instruction(page=0)] * (ultravisor.MOST_ACCESSES + 1)
    asked = ultravisor_pb2.WouldEndRequest(group="g", instructions=instructions)
    assert reason(lab.ultravisor.WouldEnd, asked) == "TOO_MANY"
    name = "n" * jobs.LONGEST_NAME
    plan = '[grid]\npolicy = ["per-page"]\n[fixed]\nduration_us = 10\n'
    assert reason(lab.lab.SubmitSweep, lab_pb2.SubmitSweepRequest(plan=plan, name=name)) == ""
    assert reason(lab.lab.SubmitSweep, lab_pb2.SubmitSweepRequest(plan=plan, name=name + "n")) == "TOO_MANY"
    for job in ("a\0b", "../x", "x" * 5000, "0" * 16):
        assert reason(lab.lab.WatchSweep, lab_pb2.WatchSweepRequest(sweep=job)) == "SWEEP_NOT_FOUND"
    for after in ("x", "1-", "9" * 21, "-1"):
        assert reason(lab.lab.Watch, lab_pb2.WatchRequest(group="g", after=after, once=True)) == "BAD_INPUT"


def peak(lab, service):
    """Returns the peak memory of a service, MiB."""
    pid = next(part["pid"] for part in lab.where["services"] if part["service"] == service)
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) >> 10


def test_recordings_that_unpack_to_much_stay_within_the_containers_memory(lab):
    """Four at once, each at the limit, and more than it: 512 MiB are the guest's in docker-compose.yml."""
    lines = b" L 1ffe000000,8\n" * ((64 << 20) // 16)
    within, beyond = gzip.compress(lines, 1), gzip.compress(lines + b" L 0,8\n", 1)
    calls = [lab.guest.RunWorkload(workload(recording=within, touches=1), timeout=100) for _ in range(4)]
    for call in calls:
        assert list(call)[-1].total == 1
    assert reason(lab.guest.RunWorkload, workload(recording=beyond, touches=1)) == "BAD_INPUT"
    assert peak(lab, "guest") < 512


# -------------------------------------------------------------------------------------------------------- plans
PLAN = 'title = "s"\n[fixed]\npolicy = "per-page"\nduration_us = 100\n[grid]\n'
BOMBS = {
    "a range of two thousand million in a skip": 'seed = "0-2000000000"\n[[skip]]\nseed = "0-1999999990"\n',
    "skips that overlap": 'a = "0-999"\n' + "".join(f'[[skip]]\na = "{n}-{999 - n}"\nseed = {n}\n' for n in range(60)),
    "a deep list": "seed = " + "[" * 20_000 + "]" * 20_000,
    "a long number": "seed = [" + "9" * 5000 + "]",
    "a long range": f'seed = "0-{"9" * 5000}"',
    "too many points": "".join(f'a{n} = "0-9999999"\n' for n in range(3)),
    "too many skips": 'seed = "0-99"\n' + "".join(f"[[skip]]\nseed = {n}\n" for n in range(65)),
    "too long": "seed = [1]\n#" + "x" * planfile.LARGEST,
}


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
def test_a_plan_that_would_hold_the_lab_is_refused_at_once(bomb):
    begun = time.process_time()
    with pytest.raises(InputError):
        plan = planfile.parse(PLAN + bomb, Path("p.toml"))
        assert plan.count > jobs.MOST_CELLS, "it is small enough"
        raise InputError("cells")
    assert time.process_time() - begun < 20, "processor seconds: it is a matter of hours without the bound"


def test_a_range_skips_a_range():
    parsed = planfile.parse(PLAN + 'seed = "0-1000"\n[[skip]]\nseed = "10-990"\n', Path("p.toml"))
    assert parsed.count == 20 and [parsed.cell(at) is None for at in (9, 10, 990, 991)] == [False, True, True, False]


def test_plans_at_the_limit_and_beyond(tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "MOST_CELLS", 10)
    place = Jobs(tmp_path / "sweeps", "unix:///nowhere")
    with pytest.raises(InputError, match="cells"):
        place.submit(PLAN + 'seed = "1-11"\n', "p")
    monkeypatch.setattr(jobs, "MOST_JOBS", 2)
    monkeypatch.setattr(Jobs, "_follow", lambda self, job: None)
    for n in (9, 10):
        place.submit(PLAN + f'seed = "1-{n}"\n', "p")
    with pytest.raises(InputError) as caught:
        place.submit(PLAN + 'seed = "1-8"\n', "p")
    assert caught.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    place.submit(PLAN + 'seed = "1-9"\n', "p")


def test_waiting_sweeps_are_queued_and_not_a_process_each(tmp_path, monkeypatch):
    started, real = [], subprocess.Popen

    def counted(words, **more):
        started.append(real(["sleep", "60"]))
        return started[-1]

    monkeypatch.setattr(jobs.subprocess, "Popen", counted)
    place = Jobs(tmp_path / "sweeps", "unix:///nowhere")
    names = [place.submit(PLAN + f'seed = "1-{n}"\n', "p")[0] for n in range(2, 9)]
    assert len(started) == jobs.MOST_FOLLOWERS
    started[0].terminate()
    started[0].wait()
    end = time.monotonic() + 20
    while len(started) == jobs.MOST_FOLLOWERS:
        assert time.monotonic() < end
        time.sleep(0.05)
    place._cancel(names[-1])
    assert len(started) == jobs.MOST_FOLLOWERS + 1
    place.close()
    assert all(one.poll() is not None for one in started)
