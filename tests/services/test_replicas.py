"""Several ultravisors and hosts: contents move with a group, what a former owner writes late is lost, clients find the
owner."""

import threading
from types import SimpleNamespace

import grpc
import pytest

from services.common.disk import SECTOR, Disk
from services.common.groups import Groups, Held
from services.common.moved import prepare
from services.host_mm.swap import Swap
from services.host_mm.ultravisor_client import Created, Guests, gone_guest
from services.ultravisor.contents import Contents
from services.ultravisor.servicer import Ultravisor
from store_cases import Stored
from store_faults import InMemory, InRedis
from ultrafolio.conformance.suite import system_of
from ultrafolio.errors import InputError
from ultrafolio.model.layout import ALLOWED, UV_OK
from ultrafolio.redis_server import Server
from ultrafolio.rpc import replicas
from ultrafolio.rpc.errors import NOT_THE_OWNER, StatusError
from ultrafolio.rpc.v1 import host_mm_pb2, ultravisor_pb2
from ultrafolio.state.owner import Ownership
from ultrafolio.state.redis import RedisStore
from ultrafolio.state.sections import encode_meta
from ultrafolio.state.store import NotOwner

LEASE_MS = 600_000
"""Longer than any test: a lease is over where the test says so."""
PATIENCE_S = 300
OLD, NEW = b"\1" * 4096, b"\2" * 4096


@pytest.fixture(scope="module")
def server():
    with Server.start() as server:
        yield server


@pytest.fixture(params=["memory", "redis"])
def place(request):
    server = request.getfixturevalue("server") if request.param == "redis" else None
    return InRedis(server.url, LEASE_MS) if server else InMemory(LEASE_MS)


@pytest.fixture
def stores(place):
    return place.stores


@pytest.fixture
def lease_over(laid_out, place):
    """A function: the owner of the group among a role's replicas has sent nothing for a lease."""
    return lambda role="ultravisor": place.end_lease(laid_out.group, role)


@pytest.fixture
def laid_out(stores, tmp_path):
    """A group of two secure pages, of which a lone ultravisor wrote the second."""
    engine = Stored(stores, tmp_path)
    engine.load(system_of("ring", "per-page").state)
    stores["host"].create(engine.group, {"meta": encode_meta(engine.meta)}, b"meta")
    assert write(engine.pages, OLD) == OLD
    return engine


class Pair:
    """Two ultravisors in one folder. Each call takes the group first, as every call of a client does."""

    def __init__(self, engine, folder):
        self.group = engine.group
        self.first, self.second = (Ultravisor(engine.stores["ultravisor"], Contents(folder), n) for n in ("1st", "2nd"))

    def pages(self, which):
        return getattr(self, which).groups[self.group]


@pytest.fixture
def pair(laid_out, tmp_path):
    return Pair(laid_out, tmp_path)


def write(pages, data):
    assert pages.access(0, [(1, 0, 0, data)])[0].exception == ALLOWED
    return read(pages)


def read(pages):
    return pages.access(0, [(1, 0, 4096, b"")])[0].data


class Paused:
    """A thread that runs `act`, and stops just before the next write of `pages` to its file."""

    def __init__(self, pages, act):
        self._pages, self._act, self.ended = pages, act, None
        self._stands, self._go_on = threading.Event(), threading.Event()
        plain, pages.contents = pages.contents, SimpleNamespace()
        for name in ("read", "encrypt", "decrypt"):
            setattr(pages.contents, name, getattr(plain, name))
        pages.contents.write = lambda *written: self._write(plain, written)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        assert self._stands.wait(PATIENCE_S)

    def _write(self, plain, written):
        self._stands.set()
        assert self._go_on.wait(PATIENCE_S)
        plain.write(*written)

    def _run(self):
        try:
            self.ended = self._act(self._pages)
        except NotOwner as error:
            self.ended = error

    def go_on(self):
        """Returns what the thread came to."""
        self._go_on.set()
        self._thread.join(PATIENCE_S)
        return self.ended


# ------------------------------------------------------------------------------------------------- contents
def test_contents_move_with_a_group(pair, tmp_path, lease_over):
    assert read(pair.pages("first")) == OLD, "those of the lone process that had the group before"
    write(pair.pages("first"), NEW)
    with pytest.raises(NotOwner, match="1st"):
        pair.pages("second")
    assert pair.pages("first").call("uv_export", [1]).code == UV_OK
    lease_over()
    assert pair.pages("second").call("uv_import", [0, 1, 0]).code == UV_OK
    assert read(pair.pages("second")) == NEW
    assert [file.name for file in (tmp_path / "owned").iterdir()] == [f"2-{pair.group}"], "older files are gone"


def test_a_write_in_place_that_comes_late_is_not_acknowledged_and_is_not_seen(pair, lease_over):
    """The first was allowed to write, and is paused before it does; no commit follows that the store could refuse."""
    paused = Paused(pair.pages("first"), lambda pages: pages.access(0, [(1, 0, 0, OLD)]))
    lease_over()
    write(pair.pages("second"), NEW)
    assert isinstance(paused.go_on(), NotOwner)
    assert read(pair.pages("second")) == NEW


@pytest.mark.parametrize("again", [False, True], ids=["at the second", "and at the first again"])
def test_a_frame_that_is_written_late_is_not_seen(pair, again, lease_over):
    """The first has encrypted the page for its export; meanwhile the second writes, exports and imports it."""
    paused = Paused(pair.pages("first"), lambda pages: pages.call("uv_export", [1]))
    lease_over()
    write(pair.pages("second"), NEW)
    assert pair.pages("second").call("uv_export", [1]).code == UV_OK
    now = "second"
    if again:
        lease_over()
        now = "first"
        pair.first.groups._lost(pair.group, 1)  # another of its calls was told
        assert pair.pages(now).view.arrays.uv is not paused._pages.view.arrays.uv, "made anew with each ownership"
    assert pair.pages(now).call("uv_import", [0, 1, 0]).code == UV_OK
    assert pair.pages(now).call("uv_export", [1]).code == UV_OK
    assert isinstance(paused.go_on(), NotOwner)
    assert pair.pages(now).call("uv_import", [0, 1, 0]).code == UV_OK and read(pair.pages(now)) == NEW


def test_an_owner_that_died_while_it_took_a_group_leaves_the_contents_with_the_last(pair, tmp_path, stores, lease_over):
    write(pair.pages("first"), NEW)
    lease_over()
    assert stores["ultravisor"].take(pair.group, "died") == Ownership(2, 1)
    (tmp_path / "owned" / f"2-{pair.group}").write_bytes(b"half of it")
    lease_over()
    assert read(pair.pages("second")) == NEW
    assert [file.name for file in (tmp_path / "owned").iterdir()] == [f"3-{pair.group}"]


def test_a_missing_file_is_an_error_and_not_zeros(pair, tmp_path, lease_over):
    pair.pages("first")
    lease_over()
    (tmp_path / "owned" / f"1-{pair.group}").unlink()
    with pytest.raises(StatusError) as refused:
        pair.pages("second")
    assert (refused.value.reason, refused.value.code) == ("CONTENTS_MISSING", grpc.StatusCode.DATA_LOSS)


def test_a_lone_process_does_not_work_in_the_folder_of_several(pair, tmp_path):
    prepare(tmp_path, "")
    pair.pages("first")
    with pytest.raises(InputError, match="several replicas"):
        prepare(tmp_path, "")


def test_the_secret_is_made_once(tmp_path):
    made, threads = [], []
    for _ in range(8):
        threads.append(threading.Thread(target=lambda: made.append(Contents(tmp_path).secret("handles"))))
        threads[-1].start()
    for thread in threads:
        thread.join()
    assert len(made) == 8 and len(set(made)) == 1
    assert sorted(file.name for file in tmp_path.iterdir()) == ["key", "memory", "seen"]


def test_swap_moves_with_a_group_and_late_writes_stay_behind(laid_out, tmp_path, lease_over):
    """A host was about to write a page to swap, and is paused until another one has swapped it out."""
    store, meta, swap = laid_out.stores["host"], laid_out.meta, Swap(Disk(tmp_path / "disk"))

    def take(name):
        owned = store.take(laid_out.group, name)
        return swap.of(laid_out.group, meta, Held(store.under(owned.epoch, lambda: None), owned))

    swap.write(meta.origin, 0, OLD)
    first = take("first")
    assert first.read(meta.origin, 0) == OLD
    first.write(meta.origin, 1, OLD)
    lease_over("host")
    second = take("second")
    assert second.read(meta.origin, 1) == OLD
    second.write(meta.origin, 1, NEW)
    first.write(meta.origin, 1, OLD)
    assert second.read(meta.origin, 1) == NEW and second.read(meta.origin, 0) == OLD
    assert len(OLD) == SECTOR


def test_a_guest_is_not_recorded_by_a_former_owner(server):
    guests = Guests(RedisStore(server.url, "host"))
    guest = Created(5, [6], 7, "r", epoch=1)
    guests.keep("booted", 0, guest)
    guests.keep("booted", 0, gone_guest(2))
    assert guests.find("booted", 0) is None
    with pytest.raises(NotOwner):
        guests.keep("booted", 0, guest)
    assert guests.find("booted", 0) is None and gone_guest(0) is None


def test_another_replicas_group_is_left_alone_by_those_whom_nobody_asks(laid_out, lease_over):
    groups = Groups(laid_out.stores["host"], lambda name, meta, held: held.of.epoch, "second")
    laid_out.stores["host"].take(laid_out.group, "first")
    lease_over("host")
    with pytest.raises(NotOwner):
        groups.unasked(laid_out.group)
    assert groups[laid_out.group] == 2 and groups.unasked(laid_out.group) == 2


# ------------------------------------------------------------------------------------------------- the way to the owner
NOT_OWNER = StatusError(grpc.StatusCode.ABORTED, NOT_THE_OWNER, "not the owner")
DEAD = StatusError(grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE", "no service answers")
LATE = StatusError(grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED", "not in time")
BUSY = StatusError(grpc.StatusCode.UNAVAILABLE, "GROUP_BUSY", "busy")
WRONG = StatusError(grpc.StatusCode.INVALID_ARGUMENT, "NO_SUCH_PAGE", "page")
NAMES = ["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"]


class One:
    """A channel to one replica."""

    def __init__(self, unary_unary):
        self.unary_unary = unary_unary


class Answering:
    """A channel to the replicas NAMES that answers what `says` has for an address; records who was asked."""

    def __init__(self, **says):
        self.says, self.asked, self.given = {NAMES[int(n[1])]: answer for n, answer in says.items()}, [], []
        self.replicas = replicas.Replicas(NAMES, self._channel, 30.0)
        self.call = self.replicas.unary_unary("/ultrafolio.rpc.v1.HostMmService/Step")

    def _channel(self, address):
        return One(lambda method: lambda request, **more: self._answer(address, **more))

    def _answer(self, address, timeout, **more):
        self.asked.append(address)
        self.given.append(timeout)
        said = self.says[address]
        said = said.pop(0) if isinstance(said, list) else said
        if isinstance(said, Exception):
            raise said
        return said

    def ask(self, group="g", timeout=5):
        self.asked.clear()
        return self.call(host_mm_pb2.HostMmServiceStepRequest(group=group), timeout=timeout)


def test_the_owner_is_found_and_then_asked_first():
    it = Answering(_0=NOT_OWNER, _1="mine", _2=DEAD)
    assert it.ask() == "mine"
    assert it.ask() == "mine" and it.asked == NAMES[1:2]


def test_all_clients_begin_with_the_same_replica_and_groups_are_spread():
    first, second = Answering(_0="a", _1="b", _2="c"), Answering(_0="a", _1="b", _2="c")
    groups = [f"g{n}" for n in range(300)]
    found = [first.ask(group) for group in groups]
    assert found == [second.ask(group) for group in groups]
    assert all(found.count(answer) > 60 for answer in "abc")


@pytest.mark.parametrize("ends", [DEAD, LATE, NOT_OWNER])
def test_a_group_moves_when_its_owner_does_not_answer(ends):
    it = Answering(_0=NOT_OWNER, _1="mine", _2=NOT_OWNER)
    it.ask()
    it.says = {NAMES[0]: [NOT_OWNER, "moved", "moved"], NAMES[1]: ends, NAMES[2]: NOT_OWNER}
    assert it.ask() == "moved" and it.asked[0] == NAMES[1], "asked until its lease is over, and another has the group"
    assert it.ask() == "moved" and it.asked == NAMES[:1]


def test_a_paused_replica_is_given_a_part_of_the_time_and_then_asked_last():
    it = Answering(_0=LATE, _1=LATE, _2=[LATE, "mine"])
    assert it.ask(timeout=60) == "mine"
    assert it.given[0] == pytest.approx(replicas.ATTEMPT_S) and max(it.given) <= 2 * replicas.ATTEMPT_S + 0.1


def test_a_method_that_waits_has_all_its_time():
    it = Answering(_0="a", _1="a", _2="a")
    it.call = it.replicas.unary_unary("/ultrafolio.rpc.v1.HostMmService/Start")
    it.ask(timeout=60)
    assert it.given[0] > 59


def test_an_error_of_the_owner_is_the_answer():
    it = Answering(_0=WRONG, _1=WRONG, _2=WRONG)
    with pytest.raises(StatusError, match="page"):
        it.ask()
    assert len(it.asked) == 1


def test_a_busy_group_is_tried_a_few_times_at_its_owner():
    it = Answering(_0=BUSY, _1=BUSY, _2=BUSY)
    with pytest.raises(StatusError, match="busy"):
        it.ask()
    assert len(it.asked) == replicas.TRIES and len(set(it.asked)) == 1


def test_the_search_for_an_owner_ends_with_the_calls_time():
    it = Answering(_0=NOT_OWNER, _1=DEAD, _2=DEAD)
    with pytest.raises(StatusError):
        it.ask(timeout=0.3)
    assert len(it.asked) > 3


def test_names_stand_for_all_their_addresses():
    made = replicas.Replicas(["localhost:7", "127.0.0.1:8", "no.such.name.invalid:9"], lambda address: address, 1.0)
    assert sorted(made.order("g")) == ["127.0.0.1:7", "127.0.0.1:8"]


def test_a_bad_address_is_refused():
    with pytest.raises(InputError, match="address of a service"):
        replicas.connect("127.0.0.1", "host")


def test_the_messages_of_both_services_name_their_group():
    """The router reads the field `group`; what has none is about the machine, which every ultravisor knows."""
    without = {"Enter", "HostKey", "Inject", "Clear"}
    for file in (host_mm_pb2, ultravisor_pb2):
        (service,) = file.DESCRIPTOR.services_by_name.values()
        found = {m.name for m in service.methods if "group" not in m.input_type.fields_by_name}
        assert found <= without, found - without
