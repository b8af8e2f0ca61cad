"""Endless streams, dead clients, services without a free thread: other callers still get answers."""

import contextlib
import itertools
import socket
import threading
import time
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from patience import NEVER
from running_cluster import running as cluster
from services.common import standard
from services.common.probe import serving
from test_serve import Caller, running
from ultrafolio.conformance.suite import build
from ultrafolio.model.layout import RUN, TOUCH
from ultrafolio.rpc.client import connect
from ultrafolio.rpc.cluster import Cluster
from ultrafolio.rpc.v1 import lab_pb2 as pb


def until(what, seconds=NEVER):
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.02)


def silent(over):
    over.wait(NEVER)
    yield reflection_pb2.ServerReflectionRequest(list_services="")


def test_idle_reflection_holds_no_thread_of_the_service(monkeypatch):
    monkeypatch.setattr(standard, "REFLECTION_S", 2.0)
    over = threading.Event()
    with running(threads=2) as (server, _), grpc.insecure_channel(server.address) as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        streams = [stub.ServerReflectionInfo(silent(over)) for _ in range(200)]
        with connect(server.address, "host") as other:
            assert Caller(other).say("hello", timeout=NEVER).string_value == "hello"
        codes = []
        for stream in streams:
            with pytest.raises(grpc.RpcError):
                next(stream)
            codes.append(stream.code())
        over.set()
        # a few were accepted and ended; their places are free again
        assert codes.count(grpc.StatusCode.RESOURCE_EXHAUSTED) >= 200 - 2 * standard.MOST_REFLECTIONS
        assert codes.count(grpc.StatusCode.CANCELLED) >= 1
        answer = next(stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")])))
        assert "test.Echo" in [one.name for one in answer.list_services_response.service]


def test_reflection_can_be_switched_off():
    with running(reflection=False) as (server, _), grpc.insecure_channel(server.address) as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            next(stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")])))
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
        assert serving(server.address)


def test_watchers_of_health_have_a_bound(monkeypatch):
    monkeypatch.setattr(standard, "MOST_WATCHERS", 5)
    with running(threads=2) as (server, _), grpc.insecure_channel(server.address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        streams = [stub.Watch(health_pb2.HealthCheckRequest()) for _ in range(5)]
        for stream in streams:
            next(stream)
        with pytest.raises(grpc.RpcError) as caught:
            next(stub.Watch(health_pb2.HealthCheckRequest()))
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert len(list(stub.Watch(health_pb2.HealthCheckRequest(service="x" * 1000)))) == 1, "it is told, and ends"
        streams[0].cancel()

        def again():
            with contextlib.suppress(grpc.RpcError):
                return next(stub.Watch(health_pb2.HealthCheckRequest(), timeout=5))

        until(again)


def test_clients_that_cancel_their_watch_do_not_stop_the_server():
    """The end of a watch waits for no other watcher's message."""
    over = threading.Event()
    with running(threads=2) as (server, _), grpc.insecure_channel(server.address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)

        def change():
            statuses = health_pb2.HealthCheckResponse
            while not over.is_set():
                for status in (statuses.NOT_SERVING, statuses.SERVING):
                    server._health.set("", status)

        changes = threading.Thread(target=change)
        changes.start()
        try:
            for _ in range(20):
                streams = [stub.Watch(health_pb2.HealthCheckRequest(), timeout=NEVER) for _ in range(5)]
                for stream in streams:
                    next(stream)
                for stream in streams:
                    stream.cancel()
        finally:
            over.set()
            changes.join(NEVER)
        assert stub.Check(health_pb2.HealthCheckRequest(), timeout=NEVER).status in (1, 2)


def test_a_service_without_a_thread_for_a_short_call_does_not_serve():
    with running(threads=2) as (server, echo), connect(server.address, "host") as channel:
        caller = Caller(channel)
        until(lambda: serving(server.address))
        waiting = [caller.future("wait") for _ in range(2)]
        until(lambda: not serving(server.address))
        echo.release.set()
        for call in waiting:
            call.result(NEVER)
        until(lambda: serving(server.address))


class Wire:
    """A proxy that can stop forwarding without closing its connections."""

    def __init__(self, address):
        host, _, port = address.rpartition(":")
        self._to, self._silent = (host, int(port)), threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._open = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                near, far = self._listener.accept()[0], socket.create_connection(self._to)
                self._open += [near, far]
                for one, other in ((near, far), (far, near)):
                    threading.Thread(target=self._pump, args=(one, other), daemon=True).start()

    def _pump(self, one, other):
        with contextlib.suppress(OSError):
            while data := one.recv(65536):
                if not self._silent.is_set():
                    other.sendall(data)

    def silence(self):
        self._silent.set()

    def close(self):
        for one in (self._listener, *self._open):
            one.close()


def test_a_dead_client_is_noticed():
    with running(keepalive_s=1) as (server, echo):
        wire = Wire(server.address)
        with grpc.insecure_channel(wire.address) as channel:
            hung = Caller(channel).future("hang", timeout=NEVER)
            until(lambda: server.calls.in_flight == 1)
            wire.silence()
            until(lambda: server.calls.in_flight == 0, 12)
            hung.cancel()
        wire.close()


# ------------------------------------------------------------------------------------------------------ watchers
def test_a_thousand_watchers_of_a_group_share_one_reader(tmp_path):
    with cluster(tmp_path) as where, Cluster.at(where) as lab:
        lab.lay_out_state("seen", build("per-page", vcpu=[{}]).state, [], "a test")
        streams = [lab.lab.Watch(pb.WatchRequest(group="seen"), timeout=NEVER) for _ in range(1000)]
        first = [[next(stream) for _ in range(3)] for stream in streams]
        assert all(some == first[0] for some in first)
        assert lab.lab.ListGroups(pb.ListGroupsRequest(), timeout=NEVER).groups == ["seen"]
        (address, process) = [(p["address"], p["pid"]) for p in where["services"] if p["service"] == "lab"][0]
        assert serving(address) and len(list(Path(f"/proc/{process}/task").iterdir())) < 250
        assert lab.store._client.info("clients")["connected_clients"] < 200
        lab.step("seen", RUN, 0, TOUCH, 0)
        told = [next(stream) for stream in streams]
        assert all(one == told[0] for one in told) and b"steps" in told[0].event
        # from an entry on, and to the end
        rest = list(lab.lab.Watch(pb.WatchRequest(group="seen", after=first[0][0].id, once=True)))
        assert rest == [*first[0][1:], told[0]]
        for stream in streams:
            stream.cancel()


def test_a_watcher_that_is_behind_the_window_misses_nothing(tmp_path, monkeypatch):
    from services.common import scheduler
    from services.lab import watch
    from ultrafolio.state.events import StepEvent, Steps, encode
    from ultrafolio.state.memory import Memory, MemoryStore

    monkeypatch.setattr(watch, "WINDOW", 4)
    monkeypatch.setattr(watch, "BLOCK_MS", 1)
    memory = Memory()
    store = MemoryStore(memory, "lab")
    store.create("g", {"pc": b"\0"}, encode(Steps("host", [])))

    def more(number):
        for _ in range(number):
            memory.groups["g"].events.append(encode(Steps("host", [StepEvent(0, 0, 0, 1, [])])))

    seen, follower = [], watch.Watchers(store).follow("g", "", False)

    def take(number):
        for told in follower:
            if isinstance(told, scheduler.Wait):
                time.sleep(0.005)
            else:
                seen.append(told.id)
                if len(seen) == number:
                    return

    take(1)
    for number in (3, 4, 5, 40, 1):
        more(number)
        time.sleep(0.05)
        take(len(seen) + number)
    assert len(seen) == len(set(seen)) == 54
    assert seen == sorted(seen, key=watch._order)
    assert list(itertools.islice(watch.Watchers(store).follow("g", seen[-1], True), 1)) == []
