"""Two hosts: what one asks of the ultravisor outside of steps is refused once the other owns the group."""

from types import SimpleNamespace

import pytest

from services.common.failures import status_of
from services.host_mm.boot import Boot
from services.host_mm.ultravisor_client import Firmware, Guests
from services.ultravisor.contents import Contents
from services.ultravisor.machine import KEY
from services.ultravisor.machine_state import decode
from services.ultravisor.servicer import Ultravisor
from store_cases import Stored
from store_faults import InRedis
from ultrafolio.conformance.suite import system_of
from ultrafolio.model.layout import NON_SECURE, PAGE_SIZE, UV_OK
from ultrafolio.redis_server import Server
from ultrafolio.rpc.client import ROLE_KEY
from ultrafolio.rpc.errors import FORMER_OWNER, NOT_THE_OWNER, StatusError
from ultrafolio.rpc.v1 import common_pb2, host_mm_pb2, ultravisor_pb2
from ultrafolio.state.requests import named
from ultrafolio.state.sections import encode_meta
from ultrafolio.state.store import NotOwner
from ultrafolio.uvcall import image, uvcb

LEASE_MS = 600_000
"""Longer than any test: a lease is over where the test says so."""
CALLER = SimpleNamespace(invocation_metadata=lambda: [(ROLE_KEY, "host")], auth_context=dict)
PLAIN = bytes(range(256)) * (2 * PAGE_SIZE // 256)


class Lab:
    """One ultravisor, and two hosts that own a group of two pages in turn."""

    def __init__(self, url, folder):
        self.place = InRedis(url, LEASE_MS)
        engine, state = Stored(self.place.stores, folder), system_of("ring", "per-page").state
        state.uv["state"][:] = NON_SECURE
        engine.load(state)
        self.group, self.hosts = engine.group, self.place.stores["host"]
        self.hosts.create(self.group, {"meta": encode_meta(engine.meta)}, b"meta")
        self.ultravisor = Ultravisor(self.place.stores["ultravisor"], Contents(folder))
        self.sealed = image.seal(PLAIN, [self.ultravisor.machine.host_key], 0)

    def take(self, replica):
        """Returns the ultravisor for this host, which has taken the group."""
        self.place.end_lease(self.group, "host")
        epoch = self.hosts.take(self.group, replica).epoch
        stub = SimpleNamespace(
            **{name: self._over(getattr(self.ultravisor, name)) for name in ("Execute", "Access", "Enter")}
        )
        return Firmware(stub, Guests(self.hosts)).under(self.group, epoch)

    @staticmethod
    def _over(method):
        def call(request):
            try:
                return method(request, CALLER)
            except Exception as error:
                raise status_of(error, method.__name__, SimpleNamespace(exception=print)) from error

        return call

    def create(self, firmware):
        asked = host_mm_pb2.CreateGuestRequest(group=self.group, vm=0, cpus=1, header=self.sealed.header)
        return Boot(firmware, firmware.guests).create(asked, 2 * PAGE_SIZE)

    def unpack(self, firmware):
        asked = host_mm_pb2.UnpackRequest(group=self.group, page=0, image=self.sealed.pages, actor=0)
        return Boot(firmware, firmware.guests).place(asked, 0)

    def start(self, firmware):
        return Boot(firmware, firmware.guests).start(self.group, 0, 0, [0])

    def destroy(self, firmware):
        return Boot(firmware, firmware.guests).destroy(self.group, 0)

    def now(self):
        """The machine, the pages' contents, and the hosts' record of the guest."""
        pages = self.ultravisor.groups[self.group]
        record = Guests(self.hosts).find(self.group, 0)
        return self.place.stores["ultravisor"].get(KEY), [pages.content(page) for page in range(2)], record


@pytest.fixture(scope="module")
def server():
    with Server.start() as server:
        yield server


@pytest.fixture
def lab(server, tmp_path):
    return Lab(server.url, tmp_path)


def test_an_owner_boots_a_guest(lab):
    first = lab.take("1st")
    assert lab.create(first).answer.rc == 1
    assert lab.unpack(first) == 2
    assert lab.destroy(first).rc == 1
    assert lab.now()[2] is None


@pytest.mark.parametrize("act", ["create", "unpack", "start", "destroy"])
def test_what_a_former_host_asks_outside_of_steps_is_refused(lab, act):
    """The first host stops before it asks; the second takes the group and boots a guest."""
    first = lab.take("1st")
    second = lab.take("2nd")
    assert lab.create(second).answer.rc == 1
    before = lab.now()
    with pytest.raises(NotOwner) as refused:
        getattr(lab, act)(first)
    assert lab.now() == before
    assert status_of(refused.value, act, None).reason == NOT_THE_OWNER, "the client of the host asks the other one"


def test_a_host_that_loses_the_group_in_the_middle_of_a_call_is_refused(lab):
    """The ultravisor has read the machine to destroy a processor; before it stores that, the second host takes the
    group, and the machine changes."""
    machine, first = lab.ultravisor.machine, lab.take("1st")
    assert lab.create(first).answer.rc == 1
    plain, after = machine._put, []

    def taken_meanwhile(*stored):
        machine._put = plain
        lab.take("2nd")
        machine.inject(uvcb.unpack(uvcb.pack("query")).command, 1, 2)
        after.append(lab.now())
        return plain(*stored)

    machine._put = taken_meanwhile
    with pytest.raises(NotOwner):
        lab.destroy(first)
    assert [lab.now()] == after


def test_the_ultravisor_names_the_reason(lab):
    first = lab.take("1st")
    lab.take("2nd")
    first.send = lambda call, request: (request.owner.CopyFrom(first.owner), call(request))[1]
    with pytest.raises(StatusError) as refused:
        lab.create(first)
    assert refused.value.reason == FORMER_OWNER


def test_another_owner_may_repeat_a_request():
    """The owner is in no request's digest; the message keeps it."""
    first, second = (
        ultravisor_pb2.ExecuteRequest(group="g", request_id="a", owner=common_pb2.Ownership(group="g", epoch=epoch))
        for epoch in (1, 2)
    )
    assert named("Execute", first, "a") == named("Execute", second, "a")
    assert (first.owner.epoch, second.owner.epoch) == (1, 2)


def test_one_of_several_ultravisors_clears_the_groups_of_all(server, tmp_path):
    """The first ultravisor owns the group of a guest, and its lease is not over. The second one clears the machine."""
    lab = Lab(server.url, tmp_path)
    store = lab.place.stores["ultravisor"]
    first, second = (Ultravisor(store, Contents(tmp_path), name) for name in ("1st", "2nd"))
    lab.ultravisor = first
    host = lab.take("1st")
    assert lab.create(host).answer.rc == 1 and lab.unpack(host) == 2
    late = first.groups[lab.group]
    assert late.call("uv_import", (0, 0, 0)).code == UV_OK
    with pytest.raises(NotOwner):
        second.groups[lab.group]
    second.Clear(ultravisor_pb2.ClearRequest(), None)
    assert not decode(store.get(KEY)).configurations
    pages = second.groups[lab.group]
    assert pages.content(0) == bytes(PAGE_SIZE) and pages.content(1) == lab.sealed.pages[PAGE_SIZE:]
    assert set(pages.view.arrays.uv["state"].tolist()) == {NON_SECURE}
    with pytest.raises(NotOwner):
        late.call("uv_import", (0, 0, 0))
    assert second.groups[lab.group] is pages
