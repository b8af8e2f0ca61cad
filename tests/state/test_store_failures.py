"""A store that is full, whose clock jumps, or that lost writes: the errors, and that no data is damaged."""

import contextlib
import threading
from functools import partial

import grpc
import pytest
import redis

from running_cluster import running
from services.common import failures
from services.launcher import recover
from services.ultravisor.contents import Contents
from services.ultravisor.machine import KEY, Machines
from ultrafolio.conformance.suite import build
from ultrafolio.redis_server import Server
from ultrafolio.rpc.client import request_id
from ultrafolio.rpc.cluster import Cluster
from ultrafolio.rpc.errors import StatusError
from ultrafolio.rpc.v1 import guest_pb2, host_mm_pb2
from ultrafolio.rpc.v1.common_pb2 import OUTCOME_DONE
from ultrafolio.state import acl, until
from ultrafolio.state.redis import RedisStore
from ultrafolio.state.store import LEASE_MS, REPLY_MS, Commit, Patch, StoreBehind, StoreFull, StoreUnavailable, Turn


@pytest.fixture
def server():
    with Server.start() as server:
        yield server


@pytest.fixture
def store(server):
    store = RedisStore(server.url, "guest", patience=0.3)
    store.create("g", {"pc": b"\0", "meta": b"m"}, b"made")
    return store


def commit(number, *, writer="w", cached=-1, **more):
    return Commit(str(number), writer, {"pc": cached}, **more)


def test_a_full_store_is_resource_exhausted_and_says_what_to_do(store):
    store._client.config_set("maxmemory", 1)
    with pytest.raises(StoreFull) as caught:
        store.commit("g", commit(1, patches=[Patch("pc", 0, b"\1")]))
    status = failures.status_of(caught.value, "rpc", None)
    assert (status.code, status.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "STATE_FULL")
    assert "maxmemory" in status.then
    store._client.config_set("maxmemory", 0)
    assert store.read("g", ["pc"]) == {"pc": b"\0"}
    assert store.commit("g", commit(1, patches=[Patch("pc", 0, b"\1")])).status == "done"


@pytest.mark.parametrize(
    ("word", "kind"),
    [
        ("MISCONF Errors writing to the AOF file", StoreFull),
        ("OOM command not allowed", StoreFull),
        ("READONLY You can't write against a read only replica", StoreUnavailable),
        ("BUSY a script", StoreUnavailable),
        ("LOADING the dataset", StoreUnavailable),
        ("MASTERDOWN link", StoreUnavailable),
        ("NOPERM no", redis.ResponseError),
    ],
)
def test_each_way_to_fail_has_its_status(store, word, kind):
    def attempt():
        raise redis.ResponseError(word)

    with pytest.raises(kind):
        store._patiently(attempt)


def test_a_clock_that_went_back_does_not_lengthen_a_lease(store):
    """After the clock went back an hour the stored turn seems to expire an hour from now."""
    store.commit("g", commit(1, take=Turn("t", "guest", 0, 0, 0)))
    key, hour = "uf:{g}:turn", 3_600_000
    held = store.turn("g")
    assert store.commit("g", commit(1, writer="other")).status == "held"
    import msgspec

    store._client.set(key, msgspec.msgpack.encode(msgspec.structs.replace(held, until=held.until + hour)))
    answer = store.commit("g", commit(2, writer="other", patches=[Patch("pc", 0, b"\1")]))
    assert answer.status == "done" and hour > LEASE_MS


def test_a_clock_that_jumps_forth_does_not_forget_answers(store):
    """After the clock jumped an hour ahead an earlier answer is still stored."""
    store.commit("g", commit(1, request=("r", b"answer")))
    store._client.hincrby("uf:{g}:did", "~seen", -3_600_000)
    store.commit("g", commit(2, request=("s", b"another")))
    assert store.reply("g", "r") == b"answer"
    # an answer of that age by the monotonic clock is forgotten
    store._client.hincrby("uf:{g}:did", "~clock", REPLY_MS + 1)
    store.commit("g", commit(3, request=("t", b"third")))
    assert [store.reply("g", name) for name in "rst"] == [None, None, b"third"]
    assert store._client.llen("uf:{g}:order:guest") == 1


def test_a_store_that_lost_writes_is_refused_until_an_operator_decides(server, store, capsys):
    first = store.commit("g", commit(1, patches=[Patch("pc", 0, b"\1")]))
    lost = store._client.dump("uf:{g}:pc")
    second = store.commit("g", commit(2, cached=first.revisions["pc"], patches=[Patch("pc", 0, b"\2")]))
    store._client.restore("uf:{g}:pc", 0, lost, replace=True)
    with pytest.raises(StoreBehind) as caught:
        store.commit("g", commit(3, cached=second.revisions["pc"], patches=[Patch("pc", 0, b"\3")]))
    assert failures.status_of(caught.value, "rpc", None).reason == "STATE_WENT_BACK"
    # also for parts that have seen nothing yet
    with pytest.raises(StoreBehind):
        store.commit("g", commit(1, writer="new"))
    recover.main.callback(server.url, "list", None)
    assert capsys.readouterr().out == "g\n"
    recover.main.callback(server.url, "accept", "g")
    answer = store.commit("g", commit(4, cached=second.revisions["pc"]))
    assert answer.sections == {"pc": b"\1"}, "who saw what was lost reads again"
    assert store.commit("g", commit(5, cached=answer.revisions["pc"], patches=[Patch("pc", 0, b"\4")])).status == "done"


def test_a_revision_that_another_part_told_is_no_sign_of_lost_writes(store):
    first = store.commit("g", commit(1, patches=[Patch("pc", 0, b"\1")]))
    late = first.revisions["pc"] + 9
    looked = store.commit("g", commit(2, cached=late, told=["pc"], expect=["pc"]))
    assert looked.status == "stale" and looked.revisions == first.revisions and looked.sections["pc"][:1] == b"\1"
    with pytest.raises(StoreBehind):
        store.commit("g", commit(3, cached=late, told=["vm"]))


def test_a_machine_that_lost_changes_is_refused_until_an_operator_decides(server, tmp_path, capsys):
    def machines():
        return Machines(RedisStore(server.url, "ultravisor"), Contents(tmp_path), {})

    one = machines()
    one.inject(0x0100, 1, 2)
    kept = one._store.get(KEY)
    one.inject(0x0200, 1, 2)
    one._store._client.set(KEY, kept)
    # also for a process that is started again
    for other in (one, machines()):
        with pytest.raises(StoreBehind):
            other.inject(0x0101, 1, 2)
    recover.main.callback(server.url, "list", None)
    assert capsys.readouterr().out == "the ultravisor's machine\n"
    recover.main.callback(server.url, "accept-machine", None)
    one.inject(0x0101, 1, 2)
    assert machines()._kept()[1].injections.keys() == {0x0100, 0x0101}
    with pytest.raises(SystemExit):
        recover.main.callback(server.url, "accept-machine", None)
    # and a store that lost everything
    one._store._client.delete(KEY)
    with pytest.raises(StoreBehind):
        one.inject(0x0101, 1, 2)
    recover.main.callback(server.url, "accept-machine", None)
    one.inject(0x0101, 1, 2)
    assert one._kept()[1].seed and one._kept()[1].injections.keys() == {0x0101}


def test_only_the_parts_mark_a_group():
    assert "uf:{*}:behind" in acl.RIGHTS["guest"].write and StatusError
    assert not any("behind" in pattern for pattern in acl.RIGHTS["lab"].write)


# ------------------------------------------------------------------------------------------ a script without an end
@contextlib.contextmanager
def endless(url):
    """A script that does not end, until it is killed."""
    runs, kills = redis.Redis.from_url(url, socket_timeout=60), redis.Redis.from_url(url)
    ended = []

    def run():
        with pytest.raises(redis.ResponseError):
            runs.eval("while true do end", 0)
        ended.append(True)

    thread = threading.Thread(target=run)
    thread.start()
    while not ended:
        try:
            kills.ping()
        except redis.ResponseError as error:
            assert "BUSY" in str(error)
            break
    yield
    kills.script_kill()
    thread.join(20)
    assert ended


def test_an_endless_script_is_said_within_the_callers_deadline_and_what_to_do(tmp_path):
    """Within the deadline: what comes after it is DEADLINE_EXCEEDED, by the caller's own clock."""
    with running(tmp_path) as where, Cluster.at(where) as cluster:
        cluster.lay_out("busy", build("per-page", [0, 0], ["secure", "exported"], vcpu=[{}], writeback=[{"page": [0]}]))

        def orders(timeout):
            touch = guest_pb2.TouchRequest(group="busy", actor=0, page=1, request_id=request_id())
            start = host_mm_pb2.StartRequest(group="busy", actor=1, page=0, request_id=request_id())
            plain = guest_pb2.TouchRequest(group="busy", actor=0, page=0)
            calls = (cluster.guest.Touch, touch), (cluster.host.Start, start), (cluster.guest.Touch, plain)
            return [partial(call, request, timeout=timeout) for call, request in calls]

        cluster.guest.Touch(guest_pb2.TouchRequest(group="busy", actor=0, page=0))
        with endless(where["redis"]):
            for timeout in (3, 7):
                for order in orders(timeout):
                    with pytest.raises(StatusError) as caught:
                        order()
                    told = caught.value
                    assert (told.code, told.reason) == (grpc.StatusCode.UNAVAILABLE, "STATE_UNAVAILABLE"), timeout
                    assert "SCRIPT KILL" in told.then and "script of somebody's" in told.value
        assert [order().outcome for order in orders(20)] == [OUTCOME_DONE] * 3


def test_a_piece_of_work_knows_its_callers_deadline():
    assert until.left(10.0) == 10.0
    with until.Wanted(5.0):
        assert 4.0 < until.left(10.0) < 5.0 and until.left(2.0) == 2.0
        with until.Wanted(0.1):
            assert until.left(10.0) == until.SHORTEST_S, "what goes on when nobody waits is not cut short"
    assert until.left(10.0) == 10.0
