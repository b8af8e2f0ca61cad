"""Answers for which a client makes no room: they hold no thread, have a bound, and end their call."""

import contextlib
import threading

import grpc
import pytest
from google.protobuf import struct_pb2

from no_room import NoRoom
from patience import EARLIER, NEVER
from running_cluster import running as cluster
from services.common import calls, memory, sending
from services.common.probe import serving
from services.common.scheduler import Wait, suspends
from services.common.serve import serve
from services.common.settings import Settings
from test_standard import until
from ultrafolio.conformance.suite import build
from ultrafolio.rpc.client import connect
from ultrafolio.rpc.cluster import Cluster
from ultrafolio.rpc.errors import StatusError
from ultrafolio.rpc.v1 import guest_pb2, lab_pb2

Value = struct_pb2.Value
SAY, TELL, COUNT = (f"/test.Sent/{name}" for name in ("Say", "Tell", "Count"))


class Sent:
    """Methods that answer at once, after a wait, and with a stream of so many messages."""

    def __init__(self):
        self.closed = threading.Event()

    def say(self, request, context):
        return Value(string_value="x" * int(request.number_value))

    @suspends
    def tell(self, request, context):
        yield Wait(0.001)
        return self.say(request, context)

    @suspends
    def count(self, request, context):
        try:
            for number in range(int(request.number_value)):
                yield Value(number_value=number)
        finally:
            self.closed.set()
        return Value(string_value="end")

    def add(self, servicer, server):
        serial = Value.FromString, Value.SerializeToString
        handlers = {
            "Say": grpc.unary_unary_rpc_method_handler(self.say, *serial),
            "Tell": grpc.unary_unary_rpc_method_handler(self.tell, *serial),
            "Count": grpc.unary_stream_rpc_method_handler(self.count, *serial),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Sent", handlers),))
        server.add_registered_method_handlers("test.Sent", handlers)


@contextlib.contextmanager
def running(**settings):
    sent = Sent()
    server = serve("host_mm", [(sent.add, sent)], Settings(**({"health_s": 0.02} | settings)))
    try:
        yield server, sent
    finally:
        server.stop(0)


@contextlib.contextmanager
def without_room(address, window=0):
    client = NoRoom(address, window)
    try:
        yield client
    finally:
        client.close()


def callers(channel):
    serial = Value.SerializeToString, Value.FromString
    count = channel.unary_stream(COUNT, *serial)
    tell = channel.unary_unary(TELL, *serial)
    return (
        lambda n: tell(Value(number_value=n), timeout=NEVER).string_value,
        lambda n: list(count(Value(number_value=n), timeout=NEVER)),
    )


def test_this_version_of_grpc_has_the_parts():
    assert sending.has_parts()


@pytest.mark.parametrize("parts", [True, False])
def test_answers_and_streams_arrive_whole(monkeypatch, parts):
    monkeypatch.setattr(sending, "_HAS_PARTS", parts)
    with running() as (server, _), connect(server.address, "host") as channel:
        tell, count = callers(channel)
        assert tell(5) == "xxxxx" and tell(100_000) == "x" * 100_000
        assert [one.number_value for one in count(300)[:-1]] == list(range(300))
        assert [one.string_value for one in count(0)] == ["end"]
        until(lambda: server.calls.in_flight == 0)


@pytest.mark.parametrize(("method", "role"), [(SAY, "host"), (TELL, "host"), (COUNT, "host")])
def test_a_client_without_room_holds_no_thread(method, role):
    with running(threads=2) as (server, _), without_room(server.address) as silent:
        for _ in range(60):
            silent.call(method, Value(number_value=9), role)
        until(lambda: server.calls.in_flight == 60)
        with connect(server.address, "host") as channel:
            tell, count = callers(channel)
            assert tell(3) == "xxx" and len(count(3)) == 4
        until(lambda: server.calls.in_flight == 60)


@pytest.mark.parametrize("method", [SAY, TELL, COUNT])
def test_a_call_whose_answer_nobody_reads_ends(monkeypatch, method):
    monkeypatch.setattr(calls, "STALLED_S", 0.3)
    with running() as (server, sent), without_room(server.address) as silent:
        silent.call(method, Value(number_value=9), "host")
        until(lambda: server.calls.in_flight == 1)

        def ended():
            server.calls.cancel_unread()
            return server.calls.in_flight == 0

        until(ended)
        assert method != COUNT or sent.closed.wait(NEVER)


@pytest.mark.parametrize("method", [TELL, COUNT])
def test_without_the_parts_a_call_ends_that_nobody_reads(monkeypatch, method):
    monkeypatch.setattr(sending, "_HAS_PARTS", False)
    monkeypatch.setattr(sending, "STALLED_S", 0.3)
    with running() as (server, _), without_room(server.address) as silent:
        silent.call(method, Value(number_value=9), "host")
        until(lambda: server.calls.in_flight == 1)
        until(lambda: silent.resets == 1 and server.calls.in_flight == 0)


def test_the_service_ends_such_calls_by_itself(monkeypatch):
    monkeypatch.setattr("services.common.serve.STALLED_S", 0.2)
    monkeypatch.setattr(calls, "STALLED_S", 0.2)
    with running() as (server, _), without_room(server.address) as silent:
        silent.call(SAY, Value(number_value=9), "host")
        until(lambda: server.calls.in_flight == 1)
        until(lambda: silent.resets == 1 and server.calls.in_flight == 0)


@pytest.mark.parametrize("method", [SAY, TELL])
def test_large_answers_that_nobody_reads_are_held_within_the_bound(monkeypatch, method):
    held = memory.Held(100_000)
    monkeypatch.setattr(memory, "HELD", held)
    with running() as (server, _), without_room(server.address) as silent:
        for number in (1, 2, 3):
            silent.call(method, Value(number_value=30_000), "host")
            until(lambda number=number: held.bytes > number * 30_000)
        with connect(server.address, "host") as channel, pytest.raises(StatusError) as caught:
            callers(channel)[0](30_000)
        assert caught.value.reason == "TOO_MUCH_HELD"
        silent.close()
        until(lambda: held.bytes == 0)
        with connect(server.address, "host") as channel:
            assert len(callers(channel)[0](30_000)) == 30_000
        until(lambda: held.bytes == 0)


def test_a_stream_that_nobody_reads_holds_one_message(monkeypatch):
    held = memory.Held()
    monkeypatch.setattr(memory, "HELD", held)
    with running() as (server, _), without_room(server.address) as silent:
        silent.call(COUNT, Value(number_value=1000), "host")
        until(lambda: held.bytes > 0)
        assert held.bytes < 20
        silent.close()
        until(lambda: held.bytes == 0 and server.calls.in_flight == 0)


def test_calls_whose_answer_is_not_sent_have_a_bound():
    with running(threads=2, waiting=1) as (server, _), without_room(server.address) as silent:
        for _ in range(server.calls.most):
            silent.call(SAY, Value(number_value=9), "host")
        until(lambda: server.calls.in_flight == server.calls.most)
        with connect(server.address, "host") as channel, pytest.raises(StatusError) as caught:
            callers(channel)[0](3)
        assert (caught.value.reason, caught.value.code) == ("TOO_MANY_CALLS", grpc.StatusCode.RESOURCE_EXHAUSTED)


def test_clients_without_room_stop_neither_a_guest_nor_the_lab(tmp_path):
    with cluster(tmp_path) as where, Cluster.at(where) as lab:
        lab.lay_out_state("seen", build("per-page", state=["secure"], vcpu=[{}]).state, [], "a test")
        address = {part["service"]: part["address"] for part in where["services"]}
        touch, watch = guest_pb2.TouchRequest(group="seen", actor=0, page=0), lab_pb2.WatchRequest(group="seen")
        with without_room(address["guest"]) as first, without_room(address["lab"]) as second:
            for _ in range(200):
                first.call("/ultrafolio.rpc.v1.GuestService/Touch", touch, "guest")
                second.call("/ultrafolio.rpc.v1.LabService/Watch", watch, "lab")
            assert lab.guest.Touch(touch, timeout=EARLIER).steps == []
            assert list(lab.lab.Watch(lab_pb2.WatchRequest(group="seen", once=True), timeout=EARLIER))
            assert serving(address["guest"]) and serving(address["lab"])
