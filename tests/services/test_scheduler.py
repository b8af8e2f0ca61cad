"""Calls that wait without a thread: many at once, in order, refused by name beyond the bound."""

import threading
import time
import urllib.request
from collections import Counter
from pathlib import Path

import grpc
import pytest

from patience import EARLIER, NEVER
from running_cluster import ROOT, entries, running
from services.common import scheduler
from services.common.scheduler import Scheduler, Wait, run_blocking
from ultrafolio.model import scenario
from ultrafolio.model.policies import find
from ultrafolio.rpc.client import stamp
from ultrafolio.rpc.cluster import Cluster
from ultrafolio.rpc.errors import StatusError
from ultrafolio.rpc.v1 import common_pb2, guest_pb2, host_mm_pb2


class Sink:
    def __init__(self):
        self.sent, self.ended = [], threading.Event()

    def send(self, message):
        self.sent.append(message)

    def end(self, message, error):
        self.last, self.error = message, error
        self.ended.set()

    def result(self):
        assert self.ended.wait(NEVER)
        if self.error:
            raise self.error
        return self.last


def started(place, order):
    sink = Sink()
    sink.poke = place.start(order, sink)
    return sink


def test_a_call_goes_on_after_its_wait_and_sends_what_it_yields():
    def order():
        yield Wait(0.01)
        yield "one"
        yield Wait(0.01)
        yield "two"
        return "end"

    sink = started(Scheduler(), order())
    assert sink.result() == "end" and sink.sent == ["one", "two"]


def test_what_is_raised_ends_the_call():
    def order():
        yield Wait(0.01)
        raise ValueError("mine")

    place = Scheduler()
    with pytest.raises(ValueError, match="mine"):
        started(place, order()).result()
    assert place.suspended == 0


def test_releasing_a_key_resumes_all_or_the_first():
    place, woken = Scheduler(), []
    assert place.hold("k") and not place.hold("k")

    def order(number):
        yield Wait(NEVER, behind="k")
        woken.append(number)

    sinks = [started(place, order(number)) for number in range(5)]
    assert place.suspended == 5
    place.release("k", wake_all=False)
    sinks[0].result()
    assert woken == [0] and place.suspended == 4
    place.wake_next("k")
    sinks[1].result()
    assert woken == [0, 1]
    place.hold("k")
    place.wake_next("k")
    assert place.suspended == 3, "another has it"
    place.wake("k")
    place.release("k")
    assert [sink.result() for sink in sinks] == [None] * 5 and sorted(woken) == list(range(5)) and not place.suspended


def test_a_key_released_before_the_wait_is_not_missed():
    """The interleaving is forced: the holder releases the key after the check and before the wait."""
    place = Scheduler()
    place.hold("k")

    def order():
        assert not place.hold("k")
        place.release("k")
        yield Wait(NEVER, behind="k")
        return place.hold("k")

    assert started(place, order()).result() is True


def test_a_caller_that_goes_away_before_the_wait_is_not_missed():
    place = Scheduler()

    def order():
        sink_here.poke()
        yield Wait(NEVER)
        return "looked again"

    class Early(Sink):
        pass

    sink_here = Early()
    call = scheduler._Call(order(), sink_here)
    sink_here.poke = lambda: place._wake(call)
    place._run(call)
    assert sink_here.result() == "looked again"


def test_one_more_than_the_bound_is_refused_by_name():
    place = Scheduler(most=3)
    place.hold("k")
    cleaned = []

    def order():
        try:
            yield Wait(NEVER, behind="k")
        finally:
            cleaned.append(1)

    sinks = [started(place, order()) for _ in range(3)]
    with pytest.raises(StatusError) as caught:
        started(place, order()).result()
    assert (caught.value.code, caught.value.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_WAITING")
    assert cleaned == [1] and place.suspended == 3
    place.release("k")
    assert [sink.result() for sink in sinks] == [None] * 3


def test_many_wait_with_few_threads():
    place, before = Scheduler(most=20_000), threading.active_count()
    place.hold("k")

    def order():
        yield Wait(NEVER, behind="k")

    sinks = [started(place, order()) for _ in range(20_000)]
    assert threading.active_count() <= before + 1
    place.release("k")
    for sink in sinks:
        sink.result()
    assert place.suspended == 0 and threading.active_count() <= before + 1 + scheduler.THREADS


def test_timers_run_in_order_and_not_when_cancelled():
    timer, rung, over = scheduler.Timer(), [], threading.Event()
    late = timer.at(0.15, lambda: rung.append("late"))
    for number in (3, 1, 2):
        timer.at(number / 50, lambda number=number: rung.append(number))
    timer.at(0.2, over.set)
    timer.cancel(late)
    assert over.wait(NEVER) and rung == [1, 2, 3]


def test_blocking_runs_to_the_end():
    def order():
        yield Wait(0.001)
        return 7

    assert run_blocking(order()) == 7


# ---------------------------------------------------------------------------------------------------- a cluster
@pytest.fixture(scope="module")
def where(tmp_path_factory):
    with running(tmp_path_factory.mktemp("c")) as where:
        yield where


def hung(lab, name):
    """The hang of a pinned ring: the touch of page 1 by actor 0 waits until actor 2 reboots the guest."""
    story = scenario.read(ROOT / "scenarios/25-reboot-with-device.toml")
    lab.lay_out(name, scenario.system(story, find("whole-folio", story.tables)), "hung")
    lab.guest.Configure(stamp(guest_pb2.ConfigureRequest(group=name, actor=1, page=0)))


def pending(lab, name, number):
    touch = guest_pb2.TouchRequest(group=name, actor=0, page=1)
    return [lab.guest.Touch.future(touch, timeout=NEVER) for _ in range(number)]


def test_the_reboot_that_releases_is_answered_while_5000_touches_wait(where):
    """And so are Explain and a touch of another group: each before the deadline of the touches."""
    with Cluster.at(where) as lab, Cluster.at(where) as crowd:
        hung(lab, "crowd")
        story = scenario.read(ROOT / "scenarios/01-direct-io.toml")
        lab.lay_out("other", scenario.system(story, find("per-page", story.tables)), "other")
        calls = pending(crowd, "crowd", 5000)
        guest = next(s["pid"] for s in where["services"] if s["service"] == "guest")
        end = time.monotonic() + NEVER
        while guest_waiting(where) < 4990:
            assert time.monotonic() < end and not any(call.done() for call in calls)
            time.sleep(0.1)
        assert len(list(Path(f"/proc/{guest}/task").iterdir())) < 250
        assert lab.host.Explain(host_mm_pb2.ExplainRequest(group="crowd"), timeout=EARLIER).waits
        other = lab.guest.Touch(guest_pb2.TouchRequest(group="other", actor=0, page=0), timeout=EARLIER)
        assert other.outcome == common_pb2.OUTCOME_DONE
        reboot = lab.guest.Reboot(stamp(guest_pb2.RebootRequest(group="crowd", actor=2)), timeout=EARLIER)
        assert reboot.outcome == common_pb2.OUTCOME_DONE
        ended = Counter(common_pb2.Outcome.Name(call.result(NEVER).outcome) for call in calls)
        assert sum(ended.values()) == 5000 and set(ended) <= {"OUTCOME_DONE", "OUTCOME_STOPPED"}, ended


def guest_waiting(where):
    metrics = next(s["metrics"] for s in where["services"] if s["service"] == "guest")
    with urllib.request.urlopen(f"http://{metrics}/metrics") as page:
        return next(
            float(line.split()[-1])
            for line in page.read().decode().splitlines()
            if line.startswith("ultrafolio_rpc_waiting")
        )


def test_touches_at_their_deadline_return_their_wait(where):
    with Cluster.at(where) as lab:
        hung(lab, "late")
        touch = guest_pb2.TouchRequest(group="late", actor=0, page=1)
        calls = [lab.guest.Touch.future(touch, timeout=3) for _ in range(200)]
        told = [call.result(NEVER) for call in calls]
        assert {one.outcome for one in told} == {common_pb2.OUTCOME_WAITS}
        assert {one.wait.waiter for one in told} == {"vcpu 0 (touch page 1)"}


def test_another_call_runs_the_vcpu_after_a_cancel(where):
    with Cluster.at(where) as lab:
        hung(lab, "heirs")
        first, *others = pending(lab, "heirs", 20)
        while not lab.host.Explain(host_mm_pb2.ExplainRequest(group="heirs")).waits:
            time.sleep(0.02)
        first.cancel()
        before = entries(lab.store, "heirs")
        end = time.monotonic() + NEVER
        while entries(lab.store, "heirs") <= before:
            assert time.monotonic() < end, "nobody runs the vCPU"
            time.sleep(0.05)
        lab.guest.Reboot(stamp(guest_pb2.RebootRequest(group="heirs", actor=2)))
        assert all(call.result(NEVER).outcome != common_pb2.OUTCOME_WAITS for call in others)
