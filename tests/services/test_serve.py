"""The gRPC server of every service: health, errors, limits, metrics, logs, traces, stop."""

import contextlib
import json
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer

import grpc
import pytest
import redis
from google.protobuf import struct_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from patience import NEVER
from services.common import failures
from services.common.serve import serve
from services.common.settings import Settings, read
from services.ultravisor.commits import Busy
from ultrafolio.errors import InputError
from ultrafolio.rpc import client
from ultrafolio.rpc.client import connect, request_id, stamp
from ultrafolio.rpc.errors import PART_BYTES, StatusError, to_status
from ultrafolio.rpc.v1.host_mm_pb2 import RunRequest
from ultrafolio.state import requests
from ultrafolio.state.store import FormerOwner, NoGroup, NotOwner, StoreBehind, StoreFull, StoreUnavailable
from ultrafolio.state.turn import Contended, Lost

SECRET = "do not show this"
Value = struct_pb2.Value


RAISED = {
    "reused": (requests.Reused("n"), "FAILED_PRECONDITION", "REQUEST_ID_REUSED"),
    "no group": (NoGroup("g"), "NOT_FOUND", "GROUP_NOT_FOUND"),
    "lost": (Lost(), "ABORTED", "TURN_LOST"),
    "contended": (Contended("g: the turn is held by host"), "UNAVAILABLE", "GROUP_BUSY"),
    "busy": (Busy("held by host, 30 ms"), "UNAVAILABLE", "GROUP_BUSY"),
    "moved": (NotOwner("g", "host-2", 30), "ABORTED", "NOT_THE_OWNER"),
    "former": (FormerOwner("g, ownership 1"), "FAILED_PRECONDITION", "FORMER_OWNER"),
    "full": (StoreFull("give it more memory", "OOM"), "RESOURCE_EXHAUSTED", "STATE_FULL"),
    "behind": (StoreBehind("g"), "FAILED_PRECONDITION", "STATE_WENT_BACK"),
    "away": (StoreUnavailable("no answer"), "UNAVAILABLE", "STATE_UNAVAILABLE"),
    "slow": (redis.exceptions.TimeoutError("no answer"), "UNAVAILABLE", "STATE_UNAVAILABLE"),
}
"""What a servicer may raise beside InputError, and the code and reason that its caller gets."""


class Echo:
    """One method that does what its request says, one that streams, one that takes messages."""

    def __init__(self):
        self.release = threading.Event()
        self.waiting = threading.Semaphore(0)
        self.flaky = 0

    def say(self, request, context):
        match request.string_value:
            case "bad":
                raise InputError("plan: order", value=17, allowed="0 to 9", cause="a typing mistake", then="try 7")
            case "state":
                raise redis.exceptions.ConnectionError("connection refused")
            case name if name in RAISED:
                raise RAISED[name][0]
            case "defect":
                raise KeyError(SECRET)
            case "abort":
                context.abort(grpc.StatusCode.ABORTED, "the servicer's own words")
            case "wait":
                self.waiting.release()
                self.release.wait(20)
            case "left":
                return Value(number_value=context.time_remaining())
            case "hang":
                ended = threading.Event()
                context.add_callback(ended.set)
                assert ended.wait(20)
            case "flaky":
                self.flaky += 1
                if self.flaky < 3:
                    raise StatusError(grpc.StatusCode.UNAVAILABLE, "NOT_YET", "come again")
        return request

    def count(self, request, context):
        for i in range(int(request.number_value)):
            yield Value(number_value=i)
        if request.string_value == "bad" or not request.number_value:
            raise InputError("count: nothing to count", value=request.number_value)

    def add(self, servicer, server):
        handlers = {
            "Say": grpc.unary_unary_rpc_method_handler(self.say, Value.FromString, Value.SerializeToString),
            "Count": grpc.unary_stream_rpc_method_handler(self.count, Value.FromString, Value.SerializeToString),
            "Sum": grpc.stream_unary_rpc_method_handler(
                lambda requests, context: Value(number_value=sum(r.number_value for r in requests)),
                Value.FromString, Value.SerializeToString),
        }  # fmt: skip
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", handlers),))
        server.add_registered_method_handlers("test.Echo", handlers)


@contextlib.contextmanager
def running(ready=lambda: True, echo=None, **settings):
    echo = echo or Echo()
    server = serve("host_mm", [(echo.add, echo)], Settings(**({"health_s": 0.02} | settings)), ready=ready)
    try:
        yield server, echo
    finally:
        echo.release.set()
        server.stop(0)


class Caller:
    def __init__(self, channel):
        serial = {"request_serializer": Value.SerializeToString, "response_deserializer": Value.FromString}
        self._say = channel.unary_unary("/test.Echo/Say", **serial)
        self.count = channel.unary_stream("/test.Echo/Count", **serial)
        self.sum = channel.stream_unary("/test.Echo/Sum", **serial)

    def say(self, text, **more):
        return self._say(Value(string_value=text), **more)

    def future(self, text, **more):
        return self._say.future(Value(string_value=text), **more)


@pytest.fixture
def service():
    with running(max_message_mib=1) as (server, echo), connect(server.address, "host") as channel:
        yield server, echo, Caller(channel)


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch):
    monkeypatch.setattr(client, "RETRY", client.RETRY | {"initialBackoff": "0.01s", "backoffMultiplier": 1})


def logged(capsys):
    return [json.loads(line) for line in capsys.readouterr().err.split("\n") if line.startswith("{")]


def health(channel, name=""):
    return health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=name)).status


def eventually(condition):
    end = time.monotonic() + NEVER
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_all_kinds_of_calls(service):
    _, _, caller = service
    assert caller.say("x").string_value == "x"
    assert [v.number_value for v in caller.count(Value(number_value=3))] == [0, 1, 2]
    assert caller.sum(iter([Value(number_value=1), Value(number_value=2)])).number_value == 3


def test_bad_input_comes_back_whole(service):
    with pytest.raises(StatusError) as caught:
        service[2].say("bad")
    error = caught.value
    assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "BAD_INPUT")
    same = InputError("plan: order", value=17, allowed="0 to 9", cause="a typing mistake", then="try 7")
    assert str(error) == str(same)


def test_bad_input_in_a_stream_and_bare_error_details(service):
    server, _, caller = service
    with pytest.raises(StatusError, match="nothing to count"):
        list(caller.count(Value(number_value=0)))
    with grpc.insecure_channel(server.address) as bare, pytest.raises(grpc.RpcError) as caught:
        bare.unary_unary("/test.Echo/Say")(Value(string_value="bad").SerializeToString(), timeout=NEVER)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT and caught.value.details() == "plan: order"


def test_a_defect_shows_an_id_and_nothing_else(service, capsys):
    with pytest.raises(StatusError) as caught:
        service[2].say("defect")
    assert caught.value.code is grpc.StatusCode.INTERNAL
    identifier = caught.value.what.removeprefix("internal error ")
    assert SECRET not in str(caught.value) and "Traceback" not in str(caught.value)
    found = [entry for entry in logged(capsys) if entry.get("error_id") == identifier]
    assert len(found) == 1 and "Traceback" in found[0]["exception"] and SECRET in found[0]["exception"]


def test_a_servicer_may_abort_and_a_lost_store_is_not_a_defect(service):
    with pytest.raises(StatusError) as caught:
        service[2].say("abort")
    assert caught.value.code is grpc.StatusCode.ABORTED and caught.value.value == "the servicer's own words"
    with pytest.raises(StatusError) as caught:
        service[2].say("state")
    assert (caught.value.code, caught.value.reason) == (grpc.StatusCode.UNAVAILABLE, "STATE_UNAVAILABLE")


@pytest.mark.parametrize("name", RAISED)
def test_each_exception_of_the_table_has_its_status(service, name):
    error, code, reason = RAISED[name]
    with pytest.raises(StatusError) as caught:
        service[2].say(name)
    assert (caught.value.code.name, caught.value.reason) == (code, reason)
    assert caught.value.then and str(error) in str(caught.value)


def test_the_table_has_no_row_without_a_test():
    raised = [type(error) for error, _, _ in RAISED.values()]
    assert set(failures.TABLE) <= {*raised, redis.exceptions.ConnectionError}


@pytest.mark.parametrize("garbage", [b"\xff" * 40, Value(string_value="x" * 99).SerializeToString()[:50]])
def test_garbage_and_truncated_messages(service, garbage):
    server, _, caller = service
    with connect(server.address, "host") as channel:
        with pytest.raises(StatusError) as caught:
            channel.unary_unary("/test.Echo/Say")(garbage)
        assert caught.value.code is grpc.StatusCode.INVALID_ARGUMENT and f"{len(garbage)} bytes" in str(caught.value)
        with pytest.raises(StatusError, match="not this call's request"):
            list(channel.unary_stream("/test.Echo/Count")(garbage))
        with pytest.raises(StatusError, match="not this call's request"):
            channel.stream_unary("/test.Echo/Sum")(iter([garbage]))
    assert caller.say("alive").string_value == "alive"


def test_oversized_messages_and_unknown_calls(service):
    server, _, caller = service
    with pytest.raises(StatusError) as caught:
        caller.say("x" * (1 << 20))
    assert caught.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED and "too large" in caught.value.cause
    with connect(server.address, "host") as channel, pytest.raises(StatusError) as caught:
        channel.unary_unary("/test.Echo/Shout")(b"")
    assert caught.value.code is grpc.StatusCode.UNIMPLEMENTED and "Shout is not a call" in caught.value.what


def test_a_long_error_is_cut_to_fit():
    much = "→" * 9999
    error = StatusError(grpc.StatusCode.NOT_FOUND, "X", much, value=much, allowed=much, cause=much, then=much)
    status = to_status(error)
    assert len(status.details.encode()) <= PART_BYTES
    assert sum(len(k) + len(v) * 4 // 3 for k, v in status.trailing_metadata) + 3 * PART_BYTES < 8192


def test_health_follows_readiness(capsys):
    answer = [False]

    def ready():
        if answer[0] is None:
            raise RuntimeError("no shared state")
        return answer[0]

    with running(ready) as (server, _), connect(server.address, "lab") as channel:
        assert health(channel) == health(channel, "test.Echo") == health_pb2.HealthCheckResponse.NOT_SERVING
        answer[0] = True
        eventually(lambda: health(channel) == health(channel, "test.Echo") == health_pb2.HealthCheckResponse.SERVING)
        answer[0] = None
        eventually(lambda: health(channel) == health_pb2.HealthCheckResponse.NOT_SERVING)
        with pytest.raises(StatusError) as caught:
            health(channel, "no.Such")
        assert caught.value.code is grpc.StatusCode.NOT_FOUND
    assert "no shared state" in [entry.get("reason") for entry in logged(capsys) if entry["event"] == "not serving"]


def test_a_graceful_stop_reports_first_and_lets_calls_finish():
    with running(grace_s=20) as (server, echo), connect(server.address, "host") as channel:
        eventually(lambda: health(channel) == health_pb2.HealthCheckResponse.SERVING)
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        waiting = Caller(channel).future("wait")
        assert echo.waiting.acquire(timeout=NEVER)
        ending = threading.Thread(target=server.stop)
        ending.start()
        assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert not waiting.done() and ending.is_alive()
        with connect(server.address, "host") as late, pytest.raises(StatusError, match="is stopping"):
            Caller(late).say("too late")
        echo.release.set()
        assert waiting.result(timeout=NEVER).string_value == "wait"
        ending.join(10)
        assert not ending.is_alive()


def test_calls_that_do_not_end_are_cut_off_after_the_grace_period(capsys):
    with running() as (server, echo), connect(server.address, "host") as channel:
        waiting = Caller(channel).future("wait")
        assert echo.waiting.acquire(timeout=NEVER)
        server.stop(0.05)
        assert waiting.code() in (grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE)
        echo.release.set()
        seen = []
        eventually(lambda: seen.extend(logged(capsys)) or "CANCELLED" in [entry.get("outcome") for entry in seen])
        assert [entry["cut_off"] for entry in seen if entry["event"] == "stopped"] == [1]


def test_health_answers_while_every_thread_waits():
    with running(threads=2) as (server, echo), connect(server.address, "host") as channel:
        eventually(lambda: health(channel) == health_pb2.HealthCheckResponse.SERVING)
        calls = [Caller(channel).future("wait") for _ in range(3)]
        assert echo.waiting.acquire(timeout=NEVER) and echo.waiting.acquire(timeout=NEVER)
        assert health(channel) == health_pb2.HealthCheckResponse.SERVING
        echo.release.set()
        assert [call.result(timeout=NEVER).string_value for call in calls] == ["wait"] * 3


def test_the_servers_own_longest_time(monkeypatch):
    monkeypatch.setattr("services.common.calls.LAST_WORD_S", 0.0)
    with running(max_call_s=0.2) as (server, _), grpc.insecure_channel(server.address) as bare:
        say = bare.unary_unary("/test.Echo/Say", Value.SerializeToString, Value.FromString)
        assert 0 < say(Value(string_value="left")).number_value <= 0.2
        assert 0 < say(Value(string_value="left"), timeout=0.1).number_value <= 0.101
        with pytest.raises(grpc.RpcError) as caught:
            say(Value(string_value="hang"))
        assert caught.value.code() is grpc.StatusCode.CANCELLED


def test_the_client_always_sets_a_deadline_and_retries_what_was_unavailable():
    with running() as (server, echo), connect(server.address, "host", timeout_s=7) as channel:
        caller = Caller(channel)
        assert 0 < caller.say("left").number_value <= 7.1
        assert caller.say("flaky").string_value == "flaky" and echo.flaky == 3
        with pytest.raises(StatusError) as caught:
            caller.say("wait", timeout=0.05)
        assert caught.value.code is grpc.StatusCode.DEADLINE_EXCEEDED and "Explain" in caught.value.then


def test_no_service_at_the_address():
    with connect("127.0.0.1:1", "host") as channel, pytest.raises(StatusError) as caught:
        Caller(channel).say("x")
    assert caught.value.code is grpc.StatusCode.UNAVAILABLE
    assert "127.0.0.1:1" in caught.value.what and "python -m services" in caught.value.then
    for address in ("localhost", "localhost:", ":5", "localhost:0", "localhost:70000", "localhost:http"):
        with pytest.raises(InputError, match="address of a service"):
            connect(address, "host")


def test_request_ids():
    assert len({request_id() for _ in range(1000)}) == 1000
    first, second = stamp(RunRequest()), stamp(RunRequest())
    assert first.request_id and first.request_id != second.request_id
    assert stamp(RunRequest(), first.request_id) == first
    with connect("127.0.0.1:1", "host") as channel:
        assert channel.pairs(first) == ((client.ROLE_KEY, "host"),)
        assert dict(channel.pairs(RunRequest()))[client.REQUEST_KEY]


def test_reflection_names_the_services(service):
    with connect(service[0].address, "lab") as channel:
        ask = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo
        answer = next(ask(iter([reflection_pb2.ServerReflectionRequest(list_services="")])))
    assert "test.Echo" in {s.name for s in answer.list_services_response.service}


def test_metrics_count_every_call_by_its_code(service):
    server, _, caller = service
    for text in ("a", "b", "bad", "defect"):
        with contextlib.suppress(InputError):
            caller.say(text)
    eventually(lambda: server.calls.in_flight == 0)
    with urllib.request.urlopen(f"http://{server.metrics}/metrics", timeout=NEVER) as answer:
        text = answer.read().decode()
    for code, count in (("OK", 2), ("INVALID_ARGUMENT", 1), ("INTERNAL", 1)):
        assert f'ultrafolio_rpc_total{{code="{code}",rpc="test.Echo/Say",service="host_mm"}} {count}.0' in text
    assert 'ultrafolio_rpc_seconds_count{rpc="test.Echo/Say",service="host_mm"} 4.0' in text
    assert 'ultrafolio_rpc_in_flight{service="host_mm"} 0.0' in text


def test_logs_of_calls(capsys):
    with running(log="debug") as (server, _), connect(server.address, "guest:7") as channel:
        caller = Caller(channel)
        caller.say("x", metadata=((client.REQUEST_KEY, "id-1"),))
        with pytest.raises(InputError):
            caller.say("bad")
    calls = [entry for entry in logged(capsys) if entry["event"] == "rpc"]
    good, bad = calls
    assert (good["service"], good["rpc"], good["outcome"], good["identity"], good["request_id"]) == (
        "host_mm",
        "test.Echo/Say",
        "OK",
        "guest:7",
        "id-1",
    )
    assert (bad["outcome"], bad["level"], bad["reason"]) == ("INVALID_ARGUMENT", "warning", "plan: order")
    assert good["ms"] >= 0 and good["peer"].startswith("ipv4:127.0.0.1")


def test_a_taken_port_is_an_input_error():
    with running() as (server, _), pytest.raises(InputError, match="ULTRAFOLIO_PORT"):
        serve("guest", [], Settings(port=int(server.address.rpartition(":")[2])))


def test_traces_join_the_callers_span():
    received = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self):
            received.append((self.path, self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    with HTTPServer(("127.0.0.1", 0), Collector) as collector, ThreadPoolExecutor(1) as pool:
        pool.submit(collector.serve_forever, 0.01)
        try:
            with running(otlp=f"http://127.0.0.1:{collector.server_port}") as (server, _):
                parent = ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
                with connect(server.address, "host", metadata=lambda: (parent,)) as channel:
                    Caller(channel).say("x")
        finally:
            collector.shutdown()
    ((path, body),) = received
    (resource,) = ExportTraceServiceRequest.FromString(body).resource_spans
    (span,) = resource.scope_spans[0].spans
    assert path == "/v1/traces" and span.name == "test.Echo/Say"
    assert span.trace_id.hex() == parent[1].split("-")[1] and span.parent_span_id.hex() == parent[1].split("-")[2]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ULTRAFOLIO_PORT", "x"),
        ("ULTRAFOLIO_PORT", "65536"),
        ("ULTRAFOLIO_LOG", "loud"),
        ("ULTRAFOLIO_PROT", "1"),
        ("ULTRAFOLIO_GRACE_S", "-1"),
        ("ULTRAFOLIO_GRACE_S", "nan"),
        ("ULTRAFOLIO_WITH_PARENT", "yes"),
    ],
)
def test_settings_refuse_what_they_do_not_know(name, value):
    with pytest.raises(InputError, match=name):
        read({name: value})


def test_settings_round_trip(tmp_path):
    (tmp_path / "password").write_text("s3cret/\n")
    settings = read(
        {
            "ULTRAFOLIO_PORT": "4000",
            "ULTRAFOLIO_WITH_PARENT": "1",
            "ULTRAFOLIO_REDIS": "redis://localhost:6379/0",
            "ULTRAFOLIO_REDIS_PASSWORD_FILE": str(tmp_path / "password"),
            "HOME": "x",
        }
    )
    assert read(settings.environment()) == settings and Settings().environment() == {}
    assert settings.redis_url("host") == "redis://host:s3cret%2F@localhost:6379/0"
    with pytest.raises(InputError, match="no shared state"):
        Settings().redis_url("host")
