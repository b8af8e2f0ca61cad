"""Groups of the design guest_memfd on a running cluster: orders by natural calls, held against the interpreter."""

import random
import time

import pytest

from cluster_driver import DONE, FATAL, REFUSED, WAITS, Driven
from memfd_cases import system as system_of
from patience import HUNG
from running_cluster import running
from services.lab.replay import GroupReplay
from ultrafolio.engine.interp import to_lists, write_back
from ultrafolio.engine.load import interpreted
from ultrafolio.errors import InputError
from ultrafolio.model.designs import GUEST_MEMFD
from ultrafolio.model.guest_memfd import layout as at
from ultrafolio.model.layout import NOTHING, TOUCH, UNSHARE, VCPU, copy, pack
from ultrafolio.rpc.client import request_id
from ultrafolio.rpc.cluster import Cluster
from ultrafolio.rpc.v1 import common_pb2, guest_pb2, host_mm_pb2, ultravisor_pb2
from ultrafolio.state.events import Again, decode

PINNED = (at.DMA_STANDS, at.DMA_ASKED, at.PIPE_READ)
VMM_BOUND, PERMANENT = common_pb2.STALL_CLASS_VMM_BOUND, common_pb2.STALL_CLASS_PERMANENT


class Lab(Driven):
    """Orders to the actors of one group of guest_memfd after the other."""

    def lay_memfd(self, name, policy, machine=""):
        self.system = system_of(name, policy, machine)
        self.group = f"{name}-{policy}-{machine}-{len(self.groups)}"
        self.groups.append(self.group)
        self.cluster.lay_out(self.group, self.system, name)
        return self.group

    def convert(self, actor, page, private, *, timeout=10, request=""):
        message = guest_pb2.ConvertRequest(
            group=self.group, actor=actor, page=page, private=private, request_id=request or request_id()
        )
        return self.cluster.guest.Convert(message, timeout=timeout)

    def punch_hole(self, actor, page, *, timeout=10):
        message = guest_pb2.PunchHoleRequest(group=self.group, actor=actor, page=page, request_id=request_id())
        return self.cluster.guest.PunchHole(message, timeout=timeout)

    def release(self, actor, *, timeout=10):
        message = guest_pb2.ReleaseRequest(group=self.group, actor=actor, request_id=request_id())
        return self.cluster.guest.Release(message, timeout=timeout)

    def _ordered(self, actor, op, page, timeout):
        kind = int(self.system.state.who["kind"][actor])
        try:
            if kind == at.VMM:
                return self.convert(actor, page, op == UNSHARE, timeout=timeout).outcome
            if kind == at.HOLE:
                return self.punch_hole(actor, page, timeout=timeout).outcome
            if kind == at.SPLICE:
                return self.configure(actor, page, timeout=timeout).outcome
            return super()._ordered(actor, op, page, timeout)
        except InputError as error:
            return error.reason


class Plain:
    """The same orders, carried out by the interpreter, a thread at a time."""

    def __init__(self, system):
        self.system, self.state = system, to_lists(system.state)

    def packed(self):
        return pack(write_back(self.state, copy(self.system.state)))

    def step(self, actor, op=NOTHING, page=0):
        return interpreted(GUEST_MEMFD).step(self.state, actor, op, page)

    def order(self, actor, op, page):
        """How it ends: WAITS where it is refused, or has to wait, and nobody else takes a step."""
        task, kind, tries, told_no = self.state.task[actor], self.state.who[actor].kind, 0, False
        idle = GUEST_MEMFD.idle[kind]
        if task.pc != idle:
            return "ACTOR_BUSY"
        while True:
            pc = task.pc
            told_no = told_no or (kind == VCPU and task.back == at.REFUSED)
            outcome = self.step(actor, op, page)
            if outcome < 0 and pc == idle:
                stopped = outcome == at.W_STOPPED
                spent = "NOT_ENABLED" if self.state.actor[actor].budget else "NO_STARTS_LEFT"
                return "MACHINE_STOPPED" if stopped else spent
            if outcome < 0 and not (pc == at.VMM_UNMAPPED and self.unmapped()):
                return WAITS
            op, page, tries = NOTHING, 0, tries + (pc in (at.VMM_RETRY, at.EXITED))
            told_no = told_no or (outcome == at.E_SIGBUS and kind in GUEST_MEMFD.devices)
            if task.pc in (*PINNED, idle):
                bad = outcome != at.DONE if kind == VCPU else kind == at.VMM and outcome != at.SUCCESS
                return REFUSED if told_no else DONE if not bad else FATAL if kind == VCPU else REFUSED
            if tries > 3:
                return WAITS

    def unmapped(self):
        """The VMM ends the mappings that it is asked to end."""
        found = [t for t, task in enumerate(self.state.task) if task.pc == at.DMA_ASKED and self.step(t) > 0]
        for t in found:
            while self.step(t) > 0 and self.state.task[t].pc != at.DEVICE_IDLE:
                pass
        return found


@pytest.fixture(scope="module")
def where(tmp_path_factory):
    with running(tmp_path_factory.mktemp("c")) as where:
        yield where


@pytest.fixture(scope="module")
def lab(where):
    driven = Lab(where)
    yield driven
    driven.close()


@pytest.mark.parametrize("machine", GUEST_MEMFD.machines[:4])
def test_a_conversion_without_holders_is_the_interpreters(lab, machine):
    """The smallest: a vCPU, whose VMM converts the page that it asks for."""
    lab.lay_memfd("g01-to-private", "gmem-7.4", machine)
    plain = Plain(lab.system)
    assert plain.order(0, UNSHARE, 0) == lab.unshare(0, 0).outcome == DONE
    assert pack(lab.state()) == plain.packed()
    assert lab.validated().accepted


@pytest.mark.parametrize("machine", GUEST_MEMFD.machines[:4])
def test_a_conversion_under_a_long_term_pin_is_for_the_vmm_to_end(lab, machine):
    lab.lay_memfd("g16-vfio-pin", "gmem-7.4", machine)
    assert lab.configure(1, 0).outcome == DONE
    answer = lab.unshare(0, 0, timeout=3)
    assert (answer.outcome, answer.wait.stall_class) == (WAITS, VMM_BOUND)
    assert answer.wait.held_by == "pin 1's long-term pin on page 0"
    assert answer.wait.released_by == "dma-unmap of pin 1, which the VMM may take"
    assert [wait.stall_class for wait in lab.waits()] == [VMM_BOUND]
    stream = [decode(event.data) for event in lab.cluster.store.events(lab.group)]
    assert any(isinstance(entry, Again) for entry in stream), "of equal rounds only the number is kept"
    page = GroupReplay(lab.group)
    page.feed(lab.cluster.store.events(lab.group))
    assert page.error is None and page.base.machine == machine, "the lab's page shows it"
    assert [(wait.kind, wait.held) for wait in page._waits] == [("vmm-bound", answer.wait.held_by)]
    assert lab.release(1).outcome == DONE
    assert lab.unshare(0, 0).outcome == DONE and lab.state().mm["private"][0]


@pytest.mark.parametrize("policy", ["unmap-first", "unmap-on-eagain"])
def test_a_vmm_that_unmaps_first_goes_through(lab, policy):
    lab.lay_memfd("g16-vfio-pin", policy)
    assert lab.configure(1, 0).outcome == DONE
    answer = lab.unshare(0, 0)
    assert answer.outcome == DONE and "dma-unmap-asked" in [step.name for step in answer.steps]
    assert lab.state().io["dma"][0] == 0 and lab.state().mm["longs"][0] == 0


def test_a_vmm_that_gives_up_tells_its_guest_no(lab):
    lab.lay_memfd("g16-vfio-pin", "three-tries")
    lab.configure(1, 0)
    answer = lab.unshare(0, 0)
    assert answer.outcome == REFUSED and lab.state().mm["private"][0] == 0
    assert [step.word for step in answer.steps].count("told no") == 1


def test_a_split_meets_the_references_of_kvms_mappings(lab):
    """The kernel spins, with the lock: its own mapping of the other page holds what it waits for."""
    lab.lay_memfd("g17-one-reference-per-mapping", "reference-per-mapping")
    answer = lab.convert(1, 1, False, timeout=3)
    assert (answer.outcome, answer.wait.stall_class) == (WAITS, PERMANENT)
    assert answer.wait.held_by == "KVM's mapping of page 0" and answer.steps[-1].name != "convert-store"
    lab.lay_memfd("g17-one-reference-per-mapping", "gmem-hugetlb-2025-12")
    assert lab.convert(1, 1, False).outcome == DONE and lab.state().mm["order"][0] == 0


def test_a_split_goes_on_as_a_walker_drops_its_reference(lab):
    lab.lay_memfd("g18-walker-meets-a-split", "gmem-hugetlb-2025-12")
    walker, vmm = 0, 1
    lab.cluster.step(lab.group, at.SPECULATIVE_IDLE, walker, TOUCH, 0, GUEST_MEMFD)
    waits = lab.convert(vmm, 1, False, timeout=3, request="split")
    assert waits.outcome == WAITS and waits.wait.held_by == f"speculative {walker}'s reference on page 0"
    lab.cluster.step(lab.group, at.PUT, walker, design=GUEST_MEMFD)
    assert lab.convert(vmm, 1, False, request="split").outcome == DONE
    again = lab.convert(vmm, 1, False, request="split")
    assert again.outcome == DONE and lab.state().actor["budget"][vmm] == 0, "a repeated request is answered, not done"


@pytest.mark.slow
def test_a_conversion_that_its_caller_gave_up_goes_on(lab):
    """The host has the lock: it runs the thread by itself, and the order that is repeated finds it done."""
    lab.lay_memfd("g18-walker-meets-a-split", "gmem-hugetlb-2025-12")
    lab.cluster.step(lab.group, at.SPECULATIVE_IDLE, 0, TOUCH, 0, GUEST_MEMFD)
    assert lab.convert(1, 1, False, timeout=3, request="given-up").outcome == WAITS
    lab.cluster.step(lab.group, at.PUT, 0, design=GUEST_MEMFD)
    end = time.monotonic() + HUNG
    while lab.state().task["pc"][1] != at.VMM_IDLE:
        assert time.monotonic() < end
        time.sleep(0.2)
    assert lab.convert(1, 1, False, request="given-up").outcome == DONE


# ----------------------------------------------------------------------------------------------------- what is refused
def refusal(call, message):
    with pytest.raises(InputError) as told:
        call(message, timeout=10)
    assert told.value.allowed or told.value.cause
    return told.value.reason


def test_a_call_for_the_other_design_says_so(lab):
    group = lab.lay_memfd("g16-vfio-pin", "gmem-7.4")
    guest, host, ultravisor = lab.cluster.guest, lab.cluster.host, lab.cluster.ultravisor
    for call, message in (
        (guest.Boot, guest_pb2.BootRequest(group=group, image=bytes(4096))),
        (lambda *asked, timeout: list(guest.RunWorkload(*asked)), guest_pb2.RunWorkloadRequest(group=group)),
        (host.ReadPage, host_mm_pb2.ReadPageRequest(group=group)),
        (host.CreateGuest, host_mm_pb2.CreateGuestRequest(group=group, cpus=1)),
        (ultravisor.Access, ultravisor_pb2.AccessRequest(group=group, accesses=[ultravisor_pb2.PageAccess()])),
        (ultravisor.Shares, ultravisor_pb2.SharesRequest(group=group)),
    ):
        assert refusal(call, message) == "OTHER_DESIGN", message
    lab.lay("03", "per-page")
    assert refusal(guest.Release, guest_pb2.ReleaseRequest(group=lab.group, actor=1)) == "OTHER_DESIGN"
    assert refusal(guest.Convert, guest_pb2.ConvertRequest(group=lab.group)) == "NO_SUCH_ACTOR"


def test_what_the_rules_do_not_allow_is_refused(lab):
    group, guest = lab.lay_memfd("g16-vfio-pin", "gmem-7.4"), lab.cluster.guest
    touch = guest_pb2.TouchRequest(group=group, length=4)
    assert refusal(guest.Touch, touch) == "NO_CONTENT"
    assert refusal(guest.Unshare, guest_pb2.UnshareRequest(group=group, request_id="a")) == "NOT_ENABLED"
    assert refusal(guest.Release, guest_pb2.ReleaseRequest(group=group, actor=1, request_id="b")) == "NOT_ENABLED"
    lab.configure(1, 0)
    assert refusal(guest.Configure, guest_pb2.ConfigureRequest(group=group, actor=1, request_id="c")) == "ACTOR_BUSY"


@pytest.mark.parametrize(
    ("role", "vm", "verb", "arguments", "token", "reason"),
    [
        ("host", None, "guest_access", [0, 0], "t", "NO_SUCH_VERB"),
        ("guest", 0, "make_shared", [0], "t", "NO_SUCH_VERB"),
        ("guest", None, "is_reachable", [0], "t", "NOT_YOUR_VIEW"),
        ("host", 0, "unmap", [0], "t", "NOT_YOUR_VIEW"),
        ("guest:1", 1, "is_reachable", [0], "t", "NO_SUCH_MACHINE"),
        ("host", None, "unmap", [1], "t", "BAD_ARGUMENTS"),
        ("host", None, "unmap", [0, 0], "t", "BAD_ARGUMENTS"),
        ("host", None, "unmap", [], "t", "BAD_ARGUMENTS"),
        ("host", None, "host_access", [0, at.BY_DEVICE], "t", "BAD_ARGUMENTS"),
        ("device", None, "host_access", [0, at.BY_USER], "t", "BAD_ARGUMENTS"),
        ("host", None, "unmap", [0], "", "NO_TURN"),
        ("host", None, "unmap", [0], "a turn that nobody holds", "TURN_LOST"),
        ("lab", None, "unmap", [0], "t", "ROLE_NOT_ALLOWED"),
    ],
)
def test_the_hardware_answers_a_part_of_a_step_only(lab, where, role, vm, verb, arguments, token, reason):
    group = lab.lay_memfd("g16-vfio-pin", "gmem-7.4")
    message = ultravisor_pb2.EnforceRequest(group=group, verb=verb, arguments=arguments, vm=vm)
    if token:
        message.turn.token = token
    with Cluster.at(where, role=role) as cluster:
        assert refusal(cluster.ultravisor.Enforce, message) == reason


@pytest.mark.parametrize("design", ["s390", "guest_memfd"])
def test_a_step_with_an_operation_that_is_none_is_refused(lab, design):
    lab.lay_memfd("g16-vfio-pin", "gmem-7.4") if design == "guest_memfd" else lab.lay("03", "per-page")
    for op in (len(at.OPS), 1 << 31):
        step = guest_pb2.GuestServiceStepRequest(group=lab.group, op=op)
        assert refusal(lab.cluster.guest.Step, step) == "NO_SUCH_OPERATION"
        step = host_mm_pb2.HostMmServiceStepRequest(group=lab.group, op=op)
        assert refusal(lab.cluster.host.Step, step) == "NO_SUCH_OPERATION"


def test_a_refusal_shows_the_first_of_many_arguments(lab, where):
    group = lab.lay_memfd("g16-vfio-pin", "gmem-7.4")
    message = ultravisor_pb2.EnforceRequest(group=group, verb="unmap", arguments=[1] * 1_000_000)
    message.turn.token = "t"
    with Cluster.at(where, role="host") as cluster, pytest.raises(InputError) as told:
        cluster.ultravisor.Enforce(message, timeout=60)
    assert told.value.value == "1, 1, ..."


ORDERS = [
    ("g05-each-alone", "gmem-7.4", "software"),
    ("g06-mixed-range", "gmem-7.4", "snp"),
    ("g11-two-processes", "gmem-7.4", "tdx"),
    ("g15-hole", "gmem-7.4", "cca"),
    ("g18-walker-meets-a-split", "gmem-hugetlb-2025-12", "tdx"),
    ("g22-no-memory-for-the-entry", "gmem-hugetlb-2025-12", "cca"),
    ("g30-access-of-the-other-kind", "gmem-7.4", "software"),
    ("g38-removal-fails", "gmem-7.4", "tdx"),
    ("g45-host-touches-a-delegated-page", "gmem-7.4", "cca"),
    ("g46-unshare-under-dma", "pkvm", "pkvm"),
    ("g47-kernel-takes-a-page", "pkvm", "pkvm"),
    ("page-in-a-pipe", "gmem-7.4", "software"),
]


@pytest.mark.parametrize(("name", "policy", "machine"), ORDERS)
def test_orders_end_as_the_interpreters_do(lab, name, policy, machine):
    """All that the scenario's actors may choose, once each: equal outcomes, and equal states until somebody waits."""
    lab.lay_memfd(name, policy, machine)
    plain, waited = Plain(lab.system), False
    orders = [(actor, *choice) for actor, some in enumerate(lab.system.choices) for choice in some]
    random.Random(1).shuffle(orders)
    for actor, op, page in orders:
        wanted = plain.order(actor, op, page)
        assert lab.order(actor, op, page, 1 if wanted == WAITS else 10) == wanted, (actor, op, page)
        if wanted == WAITS:
            waited = True
            break
    assert waited or pack(lab.state()) == plain.packed()
    verdict = lab.validated()
    assert verdict.accepted, (verdict.at, verdict.why)
