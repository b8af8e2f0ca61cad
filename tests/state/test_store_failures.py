"""A store that is full, whose clock jumps, or that lost writes: the errors, and that no data is damaged."""

import grpc
import pytest
import redis

from services.common import failures
from services.launcher import recover
from services.ultravisor.contents import Contents
from services.ultravisor.machine import KEY, Machines
from ultrafolio.redis_server import Server
from ultrafolio.rpc.errors import StatusError
from ultrafolio.state import acl
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
