"""Bounds: a request at the limit is accepted, one above is refused in words; the table in the docs is the code's."""

import contextlib
import gzip
import os
import signal
import time
from pathlib import Path

import grpc
import pytest

from patience import NEVER
from running_cluster import ROOT, running
from services import limits
from services.guest import servicer as guest
from services.lab import follower, following, jobs
from services.lab.jobs import Jobs
from services.ultravisor import servicer as ultravisor
from ultrafolio.conformance.suite import build
from ultrafolio.errors import InputError
from ultrafolio.redis_server import Server
from ultrafolio.rpc.cluster import Cluster
from ultrafolio.rpc.v1 import guest_pb2, lab_pb2, ultravisor_pb2
from ultrafolio.sweep import planfile
from ultrafolio.sweep.work import NOTHING


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
    "a key of 50,000 names": "seed = [1]\n[x]\na" + ".a" * 50_000 + " = 1",
    "a key of quoted names": "seed = [1]\n[x]\na" + '."\\"."' * 20_000 + " = 1",
    "many keys of 500 names": "seed = [1]\n[x]\n" + "".join("a." * 500 + f"a{n} = 1\n" for n in range(800)),
    "a table in 900 tables": "seed = [1]\n[x]\na" + ".a" * 900 + " = 1",
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
    monkeypatch.setattr(following.Following, "follow", lambda self, job: None)
    for n in (9, 10):
        place.submit(PLAN + f'seed = "1-{n}"\n', "p")
    with pytest.raises(InputError) as caught:
        place.submit(PLAN + 'seed = "1-8"\n', "p")
    assert caught.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    place.submit(PLAN + 'seed = "1-9"\n', "p")


@contextlib.contextmanager
def followed(folder, url, plans):
    """A lab's sweeps without any worker: they wait, and what follows them."""
    place = Jobs(folder / "sweeps", url)
    try:
        names = [place.submit(PLAN + f'seed = "1-{n}"\n', "p")[0] for n in range(2, 2 + plans)]
        yield place, names
    finally:
        place.close()


def until(what):
    end = time.monotonic() + 5 * NEVER
    while not what():
        assert time.monotonic() < end
        time.sleep(0.05)


def followers():
    """Processes of this one that follow sweeps; without those that they have forked for a while."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parent = int(status.read_text().rpartition(")")[2].split()[1])
            if parent == os.getpid() and b"services.lab.follower" in (status.parent / "cmdline").read_bytes():
                found.append(int(status.parent.name))
    return found


def test_one_process_follows_all_sweeps_that_wait(tmp_path, monkeypatch):
    monkeypatch.setattr(following, "AGAIN_S", 0.0)
    with Server.start() as server, followed(tmp_path, server.url, 3) as (place, names):
        queued = [tmp_path / "sweeps" / name / "store/job.json" for name in names]
        until(lambda: all(file.exists() for file in queued))
        first = followers()
        assert len(first) == 1 == len({place.following.pid})
        place._cancel(names[0])
        assert not queued[0].exists() and followers() == first, "the others are followed as before"
        os.kill(first[0], signal.SIGKILL)
        until(lambda: followers() not in ([], first))
        assert place.submit(PLAN + 'seed = "1-3"\n', "p")[0] == names[1]
        until(lambda: all("coming back to job" in (file.parent.parent / "log").read_text() for file in queued[1:]))
        assert [place.failure(name) for name in names] == [""] * 3 and len(followers()) == 1
    assert followers() == []


def test_a_sweep_that_ends_its_follower_is_given_up_and_the_others_go_on(tmp_path, monkeypatch):
    monkeypatch.setattr(following, "AGAIN_S", 0.0)
    with Server.start() as server, followed(tmp_path, server.url, 2) as (place, (bad, good)):
        for _ in range(following.MOST_DEATHS):
            until(lambda: place.following.pid)
            pid = place.following.pid
            (tmp_path / "sweeps/at").write_bytes(bad.encode())
            os.kill(pid, signal.SIGKILL)
            until(lambda pid=pid: place.following.pid != pid)
        until(lambda: place.following.why(bad))
        assert "ended 3 times at it" in place.failure(bad) and not place.failure(good)
        until((tmp_path / "sweeps" / good / "store/job.json").exists)


def test_a_sweep_without_a_queue_says_so(tmp_path):
    with followed(tmp_path, "unix:///nowhere", 1) as (place, (name,)):
        until(lambda: place.following.why(name))
        assert "Redis does not answer" in (tmp_path / "sweeps" / name / "log").read_text()


def test_sweeps_beyond_the_followers_room_wait_for_their_turn(tmp_path, monkeypatch):
    monkeypatch.setattr(follower, "MOST_POINTS", 20)
    monkeypatch.setattr(follower, "MOST_OPEN", 3)
    monkeypatch.setattr(follower.Follower, "_steps", lambda self, job, stop: iter([NOTHING]))
    told = []
    one = follower.Follower(tmp_path, "unix:///nowhere", lambda job, why: told.append((job, why)))
    for job, seeds in (("a", 8), ("b", 8), ("c", 1), ("d", 100), ("e", 2)):
        (tmp_path / job).mkdir()
        (tmp_path / job / "plan.toml").write_text(PLAN + f'x = [1, 2]\nseed = "1-{seeds}"\n')
        one.follow(job)
    order = []
    for _ in range(10):
        going = one._next()
        order.append((going.job, sorted(one._open)))
        one._advance(going)
    points = {"a": 16, "b": 16, "c": 2, "d": 200, "e": 4}
    assert sorted(told) == [(job, "") for job in "abcde"]
    assert all(len(there) == 1 or sum(points[job] for job in there) <= 20 for _, there in order)
    assert ("d", ["d"]) in order and any(len(there) > 1 for _, there in order), order
    one.follow("a")
    one.leave("a")
    assert told[-1] == ("a", "") and not one._waiting
