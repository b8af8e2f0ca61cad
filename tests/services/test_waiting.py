"""Calls that wait: their deadline and end, and what Explain returns; the checker judges the same states.

One cluster serves all tests of this file. Each test has a group of its own.
"""

import random
import threading
import time

import msgspec
import pytest

from cluster_driver import DONE, ROOT, STOPPED, WAITS, Driven, Interpreted
from patience import NEVER
from running_cluster import entries
from services.common.settings import Settings
from services.host_mm.unfinished import KEY
from services.launcher.cluster import Cluster, State, parts
from ultrafolio.check.search.graph import explore
from ultrafolio.check.verdicts.components import Lookup, judge
from ultrafolio.check.verdicts.liveness import components_of
from ultrafolio.engine.interp import to_lists
from ultrafolio.errors import InputError
from ultrafolio.model.layout import DISK, IMPORT_MAP, RING, TOUCH, UNSHARE, VCPU, WB_END, WB_IDLE, pack
from ultrafolio.model.policies import PRESETS, find
from ultrafolio.model.scenario import System, read, system
from ultrafolio.rpc.client import request_id
from ultrafolio.rpc.v1 import common_pb2, guest_pb2, host_mm_pb2
from ultrafolio.waits.words import stalls

SCENARIOS = sorted(path.stem for path in (ROOT / "scenarios").glob("*.toml"))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A cluster without a lab, whose parts can be killed and restarted."""
    folder = tmp_path_factory.mktemp("w")
    todo = [part for part in parts(1) if part.service != "lab"]
    with State.own(folder) as state, Cluster(folder, Settings(), todo, state) as cluster:
        yield cluster


@pytest.fixture
def lab(cluster):
    services = [{"service": name, "address": cluster.address(name)} for name in ("ultravisor", "host_mm", "guest")]
    lab = Driven({"services": services, "redis": cluster.state.admin_url})
    yield lab
    lab.close()


class Caller(threading.Thread):
    """Another client, with a call in a thread."""

    def __init__(self, call, *arguments, **more):
        super().__init__()
        self.call, self.answer = lambda: call(*arguments, **more), None
        self.start()

    def run(self):
        self.answer = self.call()

    def end(self):
        self.join(NEVER)
        assert not self.is_alive(), "the call did not end"
        return self.answer


def until(what, seconds=20):
    """Returns the first true value of `what`, called until `seconds` have passed."""
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.02)
    return found


def flying(lab):
    """Whether I/O is in flight."""
    return lab.state().io["flying"].any()


def stalled(lab):
    """The seed's hang: a ring is pinned, the next page exported, and a vCPU touches that for ever."""
    lab.lay("25", "whole-folio")
    lab.configure(1, 0)


# ------------------------------------------------------------------------------------------- when a wait ends
def test_at_the_deadline_the_answer_says_what_it_waits_for(lab):
    stalled(lab)
    answer = lab.touch(0, 1, timeout=0.6)
    assert answer.outcome == WAITS and answer.exceptions > 2
    assert answer.wait.waiter == "vcpu 0 (touch page 1)"
    assert answer.wait.waits_for == "the extra references of the folio of page 1"
    assert answer.wait.held_by == "virtio 1's long-term pin on page 0, another page of the folio"
    assert answer.wait.released_by.startswith("ring-teardown of virtio 1, which comes only with the guest's reboot")
    assert answer.wait.stall_class == common_pb2.STALL_CLASS_PERMANENT
    assert lab.waits() == [answer.wait]
    with pytest.raises(InputError) as error:
        lab.touch(0, 0)
    assert (error.value.reason, error.value.value) == ("ACTOR_BUSY", "touch page 1")


def quiet(lab):
    """Whether the group does not change for half a second."""
    before = entries(lab.cluster.store, lab.group)
    time.sleep(0.5)
    return entries(lab.cluster.store, lab.group) == before


def test_a_client_that_goes_away_ends_the_wait(lab):
    stalled(lab)
    request = guest_pb2.TouchRequest(group=lab.group, actor=0, page=1, request_id=request_id())
    call = lab.cluster.guest.Touch.future(request, timeout=NEVER)
    until(lab.waits)
    assert not quiet(lab)
    call.cancel()
    until(lambda: quiet(lab))


def test_a_retrying_vcpu_always_shows_its_wait(lab):
    stalled(lab)
    caller = Caller(lab.touch, 0, 1, timeout=NEVER)
    wait = until(lab.waits)
    before = entries(lab.cluster.store, lab.group)
    seen = [lab.waits() for _ in range(200)]
    until(lambda: seen.append(lab.waits()) or entries(lab.cluster.store, lab.group) > before + 10)  # it tries again
    assert seen == [wait] * len(seen)
    assert lab.reboot(2).outcome == DONE
    assert caller.end().outcome == STOPPED and lab.waits() == []


def test_an_old_obstacle_is_not_reported_for_the_next_instruction(lab):
    lab.lay(
        "mine",
        "whole-folio",
        {
            "memory": {"folios": [1], "state": ["shared", "exported"]},
            "vcpu": [{}],
            "virtio": [{"page": 0}],
            "reboot": [{"starts": 1}],
        },
    )
    lab.configure(1, 0)
    assert lab.touch(0, 1, timeout=0.5).outcome == WAITS and lab.waits()
    assert lab.reboot(2).outcome == DONE
    lab.cluster.guest.Step(guest_pb2.GuestServiceStepRequest(group=lab.group, actor=0, op=TOUCH, page=1))
    assert lab.state().task["pc"][0] == IMPORT_MAP and lab.waits() == []


def test_a_reboot_by_another_client_ends_the_touch(lab):
    stalled(lab)
    caller = Caller(lab.touch, 0, 1, timeout=NEVER)
    until(lab.waits)
    assert lab.reboot(2).outcome == DONE
    ended = caller.end()
    assert ended.outcome == STOPPED and not ended.HasField("wait")
    assert lab.waits() == []
    assert lab.touch(0, 1).outcome == DONE


def test_the_end_of_the_io_ends_the_wait(lab):
    lab.lay("01", "whole-folio")
    io = Caller(lab.direct_io, 1, 0, hold_us=1_500_000)
    until(lambda: flying(lab))
    caller = Caller(lab.touch, 0, 1, timeout=NEVER)
    (wait,) = until(lab.waits)
    assert wait.held_by == "disk 1's pin for direct I/O on page 0, another page of the folio"
    assert (wait.released_by, wait.stall_class) == ("io-end and unpin of disk 1", common_pb2.STALL_CLASS_WAITING)
    assert caller.end().outcome == DONE and io.end().outcome == DONE
    assert lab.waits() == []


def test_io_goes_on_without_its_caller_and_happens_once(lab):
    lab.lay("01", "whole-folio")
    request = guest_pb2.DirectIoRequest(group=lab.group, actor=1, page=0, hold_us=700_000, request_id=request_id())
    call = lab.cluster.guest.DirectIo.future(request, timeout=NEVER)
    until(lambda: flying(lab))
    call.cancel()
    assert lab.cluster.guest.DirectIo(request).outcome == DONE
    assert not flying(lab) and lab.state().actor["budget"][1] == 0
    assert lab.cluster.guest.DirectIo(request).outcome == DONE


def test_a_reboot_waits_for_io_in_flight(lab):
    lab.lay("26", "per-page")
    who = lab.system.state.who["kind"].tolist()
    io = Caller(lab.direct_io, who.index(DISK), 0, hold_us=1_500_000)
    until(lambda: flying(lab))
    early = lab.reboot(len(who) - 1, shutdown=True, timeout=0.4, request="down")
    assert early.outcome == WAITS and not early.HasField("wait"), "a reboot stalls for nothing that another holds"
    assert io.end().outcome == DONE
    assert lab.reboot(len(who) - 1, shutdown=True, request="down").outcome == DONE


# ------------------------------------------------------------------------------------- what Explain says of it
def told(lab):
    """Returns the group's state, and Explain's answer: fields of Wait by actor."""
    while True:
        before, waits, state = lab.state(), lab.waits(), lab.state()
        if pack(before) == pack(state):
            return state, {wait.actor: in_fields(wait) for wait in waits}


def in_fields(wait):
    kind = common_pb2.StallClass.Name(wait.stall_class).removeprefix("STALL_CLASS_").lower()
    return wait.waiter, wait.waits_for, wait.held_by, wait.released_by, kind


def of_state(lists):
    """Returns the same for a state (as lists), by the definition."""
    return {
        one.actor: (one.wait.waiter, one.wait.waits_for, one.wait.held_by, one.wait.released_by, one.kind)
        for one in stalls(lists)
    }


def orders(choices, seed):
    """Returns one order (actor, op, page) for each choice of each actor, in a random order."""
    found = [(actor, *choice) for actor, some in enumerate(choices) for choice in some]
    random.Random(seed).shuffle(found)
    return found


def ordered(lab, name, preset, seed, document=None):
    """Give orders to all actors in a random order. Returns the state and Explain's answer."""
    lab.lay(name, preset, document)
    for actor, op, page in orders(lab.system.choices, seed):
        lab.order(actor, op, page, timeout=0.3)
    return told(lab)


def waits_after(name, preset, seed):
    """Whether an actor waits in the state to which the same orders lead the interpreter."""
    story = read(ROOT / "scenarios" / f"{name}.toml")
    plain = Interpreted(system(story, find(preset, story.tables)))
    for order in orders(plain.system.choices, seed):
        plain.order(*order)
    return bool(stalls(plain.state))


def chosen(preset, seed):
    """Returns the scenarios in which an actor waits, and every tenth of the others: another tenth for each preset."""
    busy = [name for name in SCENARIOS if waits_after(name, preset, seed)]
    others = [name for name in SCENARIOS if name not in busy]
    return busy, others[list(PRESETS).index(preset) % 10 :: 10]


def classes(waits):
    return {actor: fields[-1] for actor, fields in waits.items()}


@pytest.mark.parametrize(
    ("name", "preset", "kind"),
    [
        ("03", "whole-folio", "permanent"),
        ("10", "split", "permanent"),
        ("17", "split", "waiting"),
        ("03", "refuse-large", "fatal"),
    ],
)
def test_a_stall_of_each_class(lab, name, preset, kind):
    lab.lay(name, preset)
    for actor, which in reversed(list(enumerate(lab.system.state.who["kind"]))):
        lab.order(actor, *lab.system.choices[actor][0], timeout=0.5) if which in (VCPU, RING) else None
    assert kind in classes(told(lab)[1]).values()


def test_an_unshare_of_a_pinned_page_is_expected_to_wait(lab):
    lab.lay(
        "mine",
        "per-page",
        {"memory": {"folios": [0], "state": ["shared"]}, "vcpu": [{"unshare": [0]}], "pin": [{"page": 0}]},
    )
    lab.configure(1, 0)
    wait = lab.unshare(0, 0, timeout=0.5).wait
    assert wait.stall_class == common_pb2.STALL_CLASS_EXPECTED and wait.waiter == "vcpu 0 (unshare page 0)"
    assert wait.held_by == "pin 1's long-term pin on page 0" and lab.waits() == [wait]


@pytest.mark.parametrize(("op", "kinds"), [(TOUCH, {}), (UNSHARE, {0: "expected"})])
def test_an_instruction_that_would_complete_does_not_wait(lab, op, kinds):
    """A pin is an obstacle to a vCPU that exited only if its instruction would exit again."""
    lab.lay(
        "mine",
        "per-page",
        {
            "memory": {"folios": [0], "state": ["exported_shared"]},
            "vcpu": [{"touch": [0], "unshare": [0]}, {}],
            "pin": [{"page": 0}],
        },
    )
    lab.cluster.guest.Step(guest_pb2.GuestServiceStepRequest(group=lab.group, actor=0, op=op, page=0))
    assert lab.touch(1, 0).outcome == DONE and lab.configure(2, 0).outcome == DONE
    state, waits = told(lab)
    assert state.task["pc"][0] == IMPORT_MAP and state.mm["longs"][0] == 1
    assert classes(waits) == kinds and waits == of_state(to_lists(state))


def judged(state, choices):
    """Returns the checker's verdict on each component reachable from the group's present state."""
    graph = explore(System(state, choices))
    lookup = Lookup(graph)
    return lookup, [judge(lookup, component) for component in components_of(graph)]


def disagreement(lab, state, waits):
    """Returns the first difference of Explain, definition and checker about the present state, or "".

    If a state is permanent, fatal or expected, each fair component with it is, too. If a component is permanent, each
    of its states is.
    """
    if waits != of_state(to_lists(state)):
        return f"Explain says {waits}, the definition {of_state(to_lists(state))}"
    lookup, found = judged(state, lab.system.choices)
    for one in found:
        t, word = one.component.waiter, "expected" if one.expected else one.kind
        here = classes(waits).get(t)
        if 0 in one.component.members and here in ("permanent", "fatal", "expected") and here != word:
            return f"actor {t}: {here} of the state, {word} of the component"
        for number in one.component.members[:50] if one.kind == "permanent" else ():
            if classes(of_state(lookup.state(int(number)))).get(t) != word:
                return f"actor {t}: {word} of the component, not of its state {number}"
    return ""


def agree(lab, preset, names, seed):
    """Give the orders of each scenario; Explain, definition and checker agree. Returns the scenarios with a wait."""
    seen, wrong = set(), {}
    for name in names:
        state, waits = ordered(lab, name, preset, seed)
        if waits:
            seen.add(name)
        if said := disagreement(lab, state, waits):
            wrong[name] = said
    assert wrong == {}
    return seen


@pytest.mark.parametrize("preset", PRESETS)
def test_the_definition_and_the_checker_agree(lab, preset):
    busy, others = chosen(preset, 2)
    assert agree(lab, preset, [*busy, *others], 2) & set(busy)


@pytest.mark.slow
@pytest.mark.parametrize("preset", PRESETS)
def test_they_agree_in_every_scenario(lab, preset):
    assert agree(lab, preset, SCENARIOS, 3)


CROWD = {
    "memory": {"folios": [1, 0], "state": ["shared", "secure", "exported"]},
    "vcpu": [{"touch": [1, 2]}, {"unshare": [0], "touch": [1], "cpu": 1}], "virtio": [{"page": 0}],
    "disk": [{"page": 2, "completes": False}], "writeback": [{"page": [0], "completes": False}, {"page": [1]}],
    "pin": [{"page": 2}], "interrupt": [{"page": 0}], "access": [{"read": [1], "write": [2]}],
}  # fmt: skip


@pytest.mark.parametrize("policy", ["per-page", "whole-folio", "linux-6.12", "linux-6.18", "linux-7.0", "linux-7.2"])
def test_they_agree_on_pins_interrupts_and_accesses(lab, policy):
    for seed in range(3):
        state, waits = ordered(lab, "mine", policy, seed, CROWD)
        assert disagreement(lab, state, waits) == ""


# -------------------------------------------------------------------------------------------- services start again
def restart(cluster, name):
    cluster.children[name].kill()
    cluster.start(name)


def test_after_a_restart_of_the_host_the_waits_are_known_again(cluster, lab):
    stalled(lab)
    caller = Caller(lab.touch, 0, 1, timeout=NEVER)
    before = until(lab.waits)
    restart(cluster, "host_mm")
    assert until(lab.waits) == before, "the vCPU polls, and meets the same"
    assert lab.reboot(2).outcome == DONE
    assert caller.end().outcome == STOPPED


SLEEPER = {"sleeper": {"base": "whole-folio", "on_busy": "sleep"}}


def test_a_sleeper_needs_nobody_to_be_remembered(cluster, lab):
    lab.lay(
        "mine",
        "sleeper",
        {
            "memory": {"folios": [1], "state": ["shared", "secure"]},
            "vcpu": [{"touch": [1]}],
            "virtio": [{"page": 0}],
            "policy": SLEEPER,
        },
    )
    lab.configure(1, 0)
    told = lab.touch(0, 1, timeout=0.5).wait
    restart(cluster, "host_mm")
    assert lab.waits() == [told]
    assert told.stall_class == common_pb2.STALL_CLASS_PERMANENT


def test_io_of_a_guest_service_that_died_comes_to_its_end(cluster, lab):
    """A repeated request id continues the I/O in flight, and does not start another."""
    lab.lay("01", "whole-folio")
    request = guest_pb2.DirectIoRequest(group=lab.group, actor=1, page=0, hold_us=1_500_000, request_id="the-one")
    call = lab.cluster.guest.DirectIo.future(request, timeout=NEVER)
    until(lambda: flying(lab))
    cluster.children["guest"].kill()
    assert flying(lab) and lab.state().mm["refs"][0] == 1, "in flight, and its page pinned, whoever died"
    cluster.start("guest")
    answer = lab.cluster.guest.DirectIo(request, timeout=NEVER)
    assert call.exception() or call.result() == answer, "the channel asks again by itself, if the start is quick"
    assert answer.outcome == DONE and "io-start" not in [step.name for step in answer.steps]
    assert not flying(lab) and lab.state().actor["budget"][1] == 0


# ------------------------------------------------------------------------------ threads that nobody runs any more
FOLIO = {
    "memory": {"folios": [0, 0], "state": ["secure", "exported"]},
    "vcpu": [{}, {}],
    "writeback": [{"page": [0]}, {"page": [0]}],
}
FIRST, SECOND = 2, 3
"""The two writebacks."""


def in_writeback(lab, policy="import-lock"):
    """A page whose writeback is in flight until `ended`."""
    lab.lay("mine", policy, FOLIO)
    at_host(lab, FIRST, WB_IDLE)
    while lab.state().task["pc"][FIRST] != WB_END:
        at_host(lab, FIRST)


def at_host(lab, actor, *choice):
    request = host_mm_pb2.HostMmServiceStepRequest(
        group=lab.group, actor=actor, op=TOUCH if choice else 0, page=0, request_id=request_id()
    )
    return lab.cluster.host.Step(request)


def test_a_vcpu_whose_caller_went_away_does_not_keep_the_import_mutex(lab):
    in_writeback(lab)
    assert lab.touch(0, 0, timeout=0.6).wait.waits_for == "the end of the folio's writeback"
    assert lab.state().vm["mutex"][0] == 1
    at_host(lab, FIRST)
    assert lab.touch(1, 1, timeout=NEVER).outcome == DONE, "another vCPU, another page, the same mutex"


def test_a_thread_that_a_dead_host_left_goes_on_by_itself(cluster, lab):
    in_writeback(lab)
    early = lab.start(SECOND, 0, timeout=0.5, request="back")
    assert early.wait.waits_for == "the end of the folio's writeback"
    restart(cluster, "host_mm")
    assert lab.state().task["pc"][FIRST] == WB_END, "one that was ordered step by step stays where it is"
    at_host(lab, FIRST)
    until(lambda: lab.state().task["pc"][SECOND] == WB_IDLE)
    told = lab.start(SECOND, 0, request="back")
    assert [step.name for step in told.steps][-1] == "writeback-end" and told.steps[0].name == "writeback-start"
    assert lab.validated().accepted and lab.state().mm["locked"].sum() == 0
    until(lambda: lab.group not in {group for group, *_ in msgspec.msgpack.decode(lab.cluster.store.get(KEY))})
