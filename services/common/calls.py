"""Wrapper of every call of a service: bounds, errors, metrics, logs, traces.

A servicer raises InputError (or StatusError, with a code of its own) for a caller's mistake; services.common.failures
says what status any other exception becomes.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, TypeAlias, cast

import grpc
from google.protobuf.message import DecodeError
from structlog.typing import FilteringBoundLogger

from services.common import failures, identity, rights, scheduler
from services.common.metrics import Metrics, PerCall
from services.common.tracing import Tracing
from ultrafolio.errors import InputError
from ultrafolio.nouns import plural
from ultrafolio.rpc.client import REQUEST_KEY
from ultrafolio.rpc.errors import StatusError, to_status
from ultrafolio.state import requests

# seconds after a call's longest time in which it may still answer; then it is cancelled
LAST_WORD_S = 1.0
STALLED_S = 10.0
"""Seconds that a client may take to read one message of a suspended call."""
Behaviour = Callable[[Any, grpc.ServicerContext], Any]
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


class Context:
    """The servicer's context: grpc.ServicerContext whose time is bounded by the service, `max_s` seconds."""

    def __init__(self, raw: grpc.ServicerContext, max_s: float) -> None:
        self.raw, self.aborted = raw, False
        self._ends = time.monotonic() + max_s

    def time_remaining(self) -> float:
        """Returns the seconds until the caller's deadline or the service's bound, whichever is earlier."""
        return max(0.0, min(self.raw.time_remaining(), self._ends - time.monotonic()))

    def abort(self, code: grpc.StatusCode, details: str) -> None:
        self.aborted = True
        self.raw.abort(code, details)

    def abort_with_status(self, status: grpc.Status) -> None:
        self.aborted = True
        self.raw.abort_with_status(status)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.raw, name)


class Calls:
    """Registers servicers with a gRPC server and wraps each method. Has the methods of grpc.Server that
    `add_XServicer_to_server` calls; `services` are the full names of the registered services."""

    def __init__(
        self, server: grpc.Server, metrics: Metrics, log: FilteringBoundLogger, tracing: Tracing | None, max_s: float
    ) -> None:
        self._server, self.metrics, self.log, self.tracing, self.max_s = server, metrics, log, tracing, max_s
        self.services: list[str] = []
        self._changed = threading.Condition()
        self.in_flight = 0
        self.closed = False
        self.every_call_logged = log.is_enabled_for(logging.DEBUG)

    def add_generic_rpc_handlers(self, handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        wrapped = []
        for handler in handlers:
            if not isinstance(handler, grpc.ServiceRpcHandler):
                raise TypeError("a handler with a service name is expected: health and reflection report it")
            self.services.append(handler.service_name())
            wrapped.append(_Service(handler, self))
        self._server.add_generic_rpc_handlers(wrapped)

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Handler]) -> None:
        surrounded = {name: surround(f"{service}/{name}", handler, self) for name, handler in handlers.items()}
        self._server.add_registered_method_handlers(service, surrounded)

    def check_open(self) -> None:
        """Raises StatusError (UNAVAILABLE, which clients retry) once the service is stopping."""
        if self.closed:
            raise StatusError(
                grpc.StatusCode.UNAVAILABLE,
                "STOPPING",
                "the service is stopping",
                cause="it was asked to, and finishes the calls it has",
                then="repeat the call with the same request id",
            )

    def entered(self) -> None:
        with self._changed:
            self.in_flight += 1

    def left(self) -> None:
        with self._changed:
            self.in_flight -= 1
            self._changed.notify_all()

    def drained(self, timeout_s: float) -> bool:
        """Wait until no call is in flight. False if `timeout_s` passes first."""
        with self._changed:
            return self._changed.wait_for(lambda: self.in_flight == 0, timeout_s)


class _Service(grpc.ServiceRpcHandler):
    def __init__(self, inner: grpc.ServiceRpcHandler, calls: Calls) -> None:
        self._inner, self._calls = inner, calls
        self._handlers: dict[str, Handler] = {}

    def service_name(self) -> str:
        return self._inner.service_name()

    def service(self, details: grpc.HandlerCallDetails) -> Handler | None:
        known = self._handlers.get(details.method)
        if known is None:
            handler = self._inner.service(details)
            if handler is None:
                return None
            known = self._handlers[details.method] = surround(details.method.lstrip("/"), handler, self._calls)
        return known


def surround(rpc: str, handler: Handler, calls: Calls) -> Handler:
    """Returns the wrapped method. It decodes messages itself, so that undecodable bytes are the caller's mistake."""
    rule = rights.rule_of(rpc)
    instruments, decode = calls.metrics.of(rpc), handler.request_deserializer
    behaviour = cast(
        Behaviour, handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
    )

    machine_of = getattr(getattr(behaviour, "__self__", None), "machine_of", _no_machine)

    def read(request: Any, context: grpc.ServicerContext) -> Any:
        """Returns the decoded request. Raises StatusError if its caller may not make it."""
        if decode is not None and handler.request_streaming:
            decoded: Any = (_decoded(rpc, decode, message) for message in request)
        else:
            decoded = request if decode is None else _decoded(rpc, decode, request)
        if rule is not None:
            caller = rights.check(rule, None if handler.request_streaming else decoded, context, machine_of)
            if getattr(decoded, "request_id", ""):
                # inside the services a request's name holds its id and a digest of its content
                decoded.request_id = requests.named(f"{rpc} {caller}", decoded, decoded.request_id)
        return decoded

    def single(request: Any, context: grpc.ServicerContext) -> Any:
        with _Call(rpc, context, calls, instruments) as call:
            calls.check_open()
            call.request = request = read(request, context)
            return behaviour(request, call.context)

    def stream(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        with _Call(rpc, context, calls, instruments) as call:
            calls.check_open()
            call.request = request = read(request, context)
            yield from behaviour(request, call.context)

    if getattr(behaviour, "suspends", False):
        begin = _suspending(rpc, behaviour, read, calls, instruments)
        return grpc.unary_stream_rpc_method_handler(begin, response_serializer=handler.response_serializer)
    if handler.response_streaming:
        make = grpc.unary_stream_rpc_method_handler, grpc.stream_stream_rpc_method_handler
        return make[handler.request_streaming](stream, response_serializer=handler.response_serializer)
    make_single = grpc.unary_unary_rpc_method_handler, grpc.stream_unary_rpc_method_handler
    return make_single[handler.request_streaming](single, response_serializer=handler.response_serializer)


def _suspending(rpc: str, behaviour: Behaviour, read: Any, calls: Calls, instruments: PerCall) -> Any:
    """Returns the gRPC method of a servicer's method that suspends (common.scheduler). gRPC lets only a method with a
    stream of responses return before it has sent them; a single response is a stream of one, the same on the wire."""

    def begin(request: Any, context: grpc.ServicerContext, send: Callable[[Any], None]) -> None:
        call = _Call(rpc, context, calls, instruments)
        call.__enter__()

        def order() -> Any:
            calls.check_open()
            call.request = read(request, context)
            return (yield from behaviour(call.request, call.context))

        look_again = scheduler.DEFAULT.start(order(), _Sink(call, context, send))
        if not context.add_callback(look_again):
            look_again()

    begin.experimental_non_blocking = True  # type: ignore[attr-defined]
    return begin


class _Sink:
    """Sends the messages of a suspended call."""

    def __init__(self, call: _Call, raw: grpc.ServicerContext, send: Callable[[Any], None]) -> None:
        self._call, self._raw, self._send = call, raw, send

    def send(self, message: Any) -> None:
        # sending blocks while the client does not read
        stalled = scheduler.DEFAULT.timer.at(STALLED_S, self._call.cancel)
        self._send(message)
        scheduler.DEFAULT.timer.cancel(stalled)

    def end(self, message: Any | None, error: BaseException | None) -> None:
        if message is not None:
            self._send(message)
        status = self._call.ended(error)
        if status is not None:
            self._raw.set_code(status.code)
            self._raw.set_details(status.details)
            self._raw.set_trailing_metadata(status.trailing_metadata)
        self._send(None)


def _no_machine(group: str, actor: int) -> int | None:
    return None


def _decoded(rpc: str, decode: Callable[[bytes], Any], message: bytes) -> Any:
    try:
        return decode(message)
    except DecodeError:
        raise InputError(
            f"{rpc}: the bytes are not this call's request message",
            value=plural(len(message), "byte"),
            cause="truncated, or another call's message",
        ) from None


class _Call:
    """One call from arrival to end: counts, times, bounds and logs it; turns an exception into a status."""

    def __init__(self, rpc: str, raw: grpc.ServicerContext, calls: Calls, instruments: PerCall) -> None:
        self._rpc, self._raw, self._calls, self._instruments = rpc, raw, calls, instruments
        self._bounded = Context(raw, calls.max_s)
        self.request: Any = None
        self._timer: int | None = None
        self._span: Any = None

    @property
    def context(self) -> grpc.ServicerContext:
        return cast(grpc.ServicerContext, self._bounded)

    def __enter__(self) -> _Call:
        self._started = time.perf_counter()
        self._calls.entered()
        # in flight until gRPC has sent the answer, after the servicer has returned it
        if not self._raw.add_callback(self._calls.left):
            self._calls.left()
        if self._raw.time_remaining() > self._calls.max_s:
            self._timer = scheduler.DEFAULT.timer.at(self._calls.max_s + LAST_WORD_S, self.cancel)
        if self._calls.tracing is not None:
            self._span = self._calls.tracing.begin(self._rpc, self._raw.invocation_metadata())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        status = self.ended(error)
        if status is not None:
            self._raw.abort_with_status(status)

    def cancel(self) -> None:
        self._raw.cancel()

    def ended(self, error: BaseException | None) -> grpc.Status | None:
        """Count, time and log the end of the call. Returns its status if it ended with an error."""
        status = None
        if error is None:
            own = getattr(self._raw, "code", lambda: None)()
            code = "CANCELLED" if not self._raw.is_active() else own.name if own is not None else "OK"
        elif isinstance(error, GeneratorExit):
            code = "CANCELLED"
        elif self._bounded.aborted:
            code = getattr(self._raw, "code", lambda: grpc.StatusCode.UNKNOWN)().name
        else:
            failure = failures.status_of(error, self._rpc, self._calls.log)
            status = to_status(failure)
            code = status.code.name
        self._end(code, error if status is not None else None)
        return status

    def _end(self, code: str, error: BaseException | None) -> None:
        seconds = time.perf_counter() - self._started
        if self._timer is not None:
            scheduler.DEFAULT.timer.cancel(self._timer)
        if self._span is not None and self._calls.tracing is not None:
            self._calls.tracing.end(self._span, code)
        self._instruments.ended(code, seconds)
        if code != "OK" or self._calls.every_call_logged:
            level = logging.DEBUG if code == "OK" else logging.WARNING
            more = {} if error is None else {"reason": str(error).split("\n")[0]}
            self._calls.log.log(
                level,
                "rpc",
                rpc=self._rpc,
                outcome=code,
                ms=round(seconds * 1000, 3),
                **more,
                peer=self._raw.peer(),
                identity=self._who(),
                request_id=self._request_id(),
            )

    def _who(self) -> str:
        try:
            return str(identity.of(self._raw))
        except InputError as error:
            return f"refused: {error.value}"

    def _request_id(self) -> str:
        identifier = requests.split(str(getattr(self.request, "request_id", "")))[0]
        return str(identifier or dict(self._raw.invocation_metadata() or ()).get(REQUEST_KEY, ""))
