"""Wrapper of every call of a service: bounds, errors, metrics, logs, traces.

A servicer raises InputError (or StatusError, with a code of its own) for a caller's mistake; services.common.failures
says what status any other exception becomes.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, TypeAlias, TypeVar, cast

import grpc
from google.protobuf.message import DecodeError, Message
from structlog.typing import FilteringBoundLogger

from services.common import failures, identity, memory, rights, scheduler, sending
from services.common.context import Context
from services.common.metrics import Metrics, PerCall
from services.common.sending import STALLED_S
from services.common.tracing import Begun, Tracing
from ultrafolio.errors import InputError
from ultrafolio.nouns import plural
from ultrafolio.rpc.client import REQUEST_KEY
from ultrafolio.rpc.errors import StatusError, to_status
from ultrafolio.state import requests, until

# seconds after a call's longest time in which it may still answer; then it is cancelled
LAST_WORD_S = 1.0
LARGE_ANSWER = 1024
"""Bytes of an answer that counts among what the calls of the service hold, until it is sent."""
REPEAT_S = 4.0
"""Seconds that a channel needs to repeat a call: its longest pause, and the shortest wait for a store."""
Received: TypeAlias = bytes | Iterator[bytes]
"""What gRPC hands to a method without a decoder: a request, or a stream of requests."""
Request: TypeAlias = Message | Iterator[Message] | Received
"""A decoded request, or a stream of them; as received where gRPC has no decoder for the method."""
Work: TypeAlias = Generator[scheduler.Wait | Message, None, Message | None]
"""A call in pieces: its waits and its messages; the last message of a suspended call is the value that it returns."""
Behaviour = Callable[[Request, grpc.ServicerContext], Message | Work]
"""A servicer's method."""
Read = Callable[[Received, Context], Request]
Encode = Callable[[Any], bytes]
Send = Callable[[bytes | None], None]
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
T = TypeVar("T")
R = TypeVar("R")


class Calls:
    """Registers servicers with a gRPC server and wraps each method. Has the methods of grpc.Server that
    `add_XServicer_to_server` calls; `services` are the full names of the registered services.

    most: calls whose answer is not sent, at a time
    """

    def __init__(
        self, server: grpc.Server, metrics: Metrics, log: FilteringBoundLogger, tracing: Tracing | None, max_s: float,
        most: int = 1 << 14,
    ) -> None:  # fmt: skip
        self._server, self.metrics, self.log, self.tracing, self.max_s = server, metrics, log, tracing, max_s
        self.services: list[str] = []
        self._changed = threading.Condition()
        self._open: dict[_Call, None] = {}
        self.most, self.closed = most, False
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
        if len(self._open) > self.most:
            raise StatusError(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                "TOO_MANY_CALLS",
                "calls of this service whose answer is not sent",
                value=f"{len(self._open)}",
                allowed=f"{self.most} at a time",
                cause="clients that do not read their answers, or very many that wait",
                then="repeat the call later",
            )

    @property
    def in_flight(self) -> int:
        """How many calls have arrived whose answer gRPC has not sent."""
        return len(self._open)

    def entered(self, call: _Call) -> None:
        """Count a call that has arrived."""
        with self._changed:
            self._open[call] = None

    def left(self, call: _Call) -> None:
        """Count a call whose answer gRPC has sent."""
        with self._changed:
            self._open.pop(call, None)
            self._changed.notify_all()

    def cancel_unread(self) -> None:
        """Cancel every call whose client has made no room for its answer for STALLED_S."""
        with self._changed:
            calls, late = list(self._open), time.monotonic() - STALLED_S
        for call in calls:
            if call.answered < late:
                call.cancel()

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
    instruments, decode = calls.metrics.of(rpc), _decoder(rpc, handler.request_deserializer)
    encode: Encode = handler.response_serializer or (lambda answer: answer)  # type: ignore[return-value]
    behaviour = cast(
        Behaviour, handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
    )

    machine_of = getattr(getattr(behaviour, "__self__", None), "machine_of", _no_machine)

    def read(request: Received, context: Context) -> Request:
        """Returns the decoded request. Raises StatusError if its caller may not make it."""
        # the role first: a caller without it costs no decoding
        caller = context.caller = None if rule is None else identity.require(context.raw, rule.roles)
        decoded: Request = request
        if decode is not None and handler.request_streaming:
            decoded = (decode(message) for message in cast("Iterator[bytes]", request))
        elif decode is not None:
            decoded = decode(request)  # type: ignore[arg-type]
        if rule is not None and caller is not None:
            rights.check(rule, caller, None if handler.request_streaming else decoded, machine_of)
            if identifier := getattr(decoded, "request_id", ""):
                # inside the services a request's name holds its id and a digest of its content
                decoded.request_id = requests.named(f"{rpc} {caller}", decoded, identifier)  # type: ignore[union-attr]
        return decoded

    def single(request: Received, context: grpc.ServicerContext) -> bytes:
        with _Call(rpc, context, calls, instruments) as call:
            calls.check_open()
            with memory.HELD.during(memory.large(request)), until.Wanted(call.context.time_remaining()):
                call.request = read(request, call.bounded)
                return call.encoded(encode, behaviour(call.request, call.context))

    def stream(request: Received, context: grpc.ServicerContext) -> Iterator[scheduler.Wait | Message]:
        with _Call(rpc, context, calls, instruments) as call:
            calls.check_open()
            call.request = read(request, call.bounded)
            yield from _in_time(cast(Work, behaviour(call.request, call.context)), call.context)

    if getattr(behaviour, "suspends", False):
        begin = _suspending(rpc, behaviour, read, encode, calls, instruments)
        return grpc.unary_stream_rpc_method_handler(begin)
    if handler.response_streaming:
        make = grpc.unary_stream_rpc_method_handler, grpc.stream_stream_rpc_method_handler
        return make[handler.request_streaming](stream, response_serializer=handler.response_serializer)
    make_single = grpc.unary_unary_rpc_method_handler, grpc.stream_unary_rpc_method_handler
    return make_single[handler.request_streaming](single)


def _suspending(
    rpc: str, behaviour: Behaviour, read: Read, encode: Encode, calls: Calls, instruments: PerCall
) -> Callable[[Received, grpc.ServicerContext, Send], None]:
    """Returns the gRPC method of a servicer's method that suspends (common.scheduler). gRPC lets only a method with a
    stream of responses return before it has sent them; a single response is a stream of one, the same on the wire."""

    def begin(request: Received, context: grpc.ServicerContext, send: Send) -> None:
        call = _Call(rpc, context, calls, instruments)
        call.__enter__()
        received = [request]

        def order() -> Work:
            calls.check_open()
            with memory.HELD.during(memory.size(received[0])):
                # the call holds the decoded request only
                call.request = read(received.pop(), call.bounded)
                work: Work = behaviour(call.request, call.context)  # type: ignore[assignment]
                return (yield from work)

        look_again = scheduler.DEFAULT.start(_in_time(order(), call.context), _Sink(call, encode, context, send))
        if not context.add_callback(look_again):
            look_again()

    begin.experimental_non_blocking = True  # type: ignore[attr-defined]
    return begin


def _in_time(work: Generator[T, None, R], context: grpc.ServicerContext) -> Generator[T, None, R]:
    """A call's work in pieces, each of which knows how long its caller waits."""
    refusal: BaseException | None = None
    while True:
        with until.Wanted(context.time_remaining()):
            try:
                told = work.throw(refusal) if refusal else next(work)
            except StopIteration as end:
                returned: R = end.value
                return returned
        refusal = None
        try:
            yield told
        except GeneratorExit:
            work.close()
            raise
        except StatusError as error:
            refusal = error


class _Sink:
    """Sends the messages of a suspended call."""

    def __init__(self, call: _Call, encode: Encode, raw: grpc.ServicerContext, send: Send) -> None:
        self._call, self._encode, self._raw, self._sender = call, encode, raw, sending.sender(raw, send)
        self._unsent = 0
        """Bytes of the message that is being sent, and 1."""

    def send(self, message: Message) -> scheduler.Wait | None:
        if self._unsent:
            # its client has made no room for the last message in STALLED_S
            self._call.cancel()
            raise scheduler.Gone
        data = self._encode(message)
        memory.HELD.take(len(data))
        self._unsent = len(data) + 1
        scheduler.DEFAULT.hold(self)
        if not self._sender.next(data, self._sent):
            self._sent()
            raise scheduler.Gone
        return scheduler.Wait(STALLED_S, behind=self) if self._unsent else None

    def _sent(self) -> None:
        """The message is sent, or the call has ended."""
        held, self._unsent = self._unsent - 1, 0
        memory.HELD.give(held)
        scheduler.DEFAULT.release(self)

    def end(self, message: Message | None, error: BaseException | None) -> None:
        """Send the last message, or the status of the exception that ended the call."""
        data = None
        if message is not None:
            try:
                data = self._call.encoded(self._encode, message)
            except Exception as refusal:
                error = refusal
        status = self._call.ended(error)
        if status is not None:
            self._raw.set_code(status.code)
            self._raw.set_details(status.details)
            self._raw.set_trailing_metadata(status.trailing_metadata)
        self._sender.last(data)


def _no_machine(group: str, actor: int) -> int | None:
    """The machine_of of a servicer without actors."""
    return None


def _decoder(rpc: str, decode: Callable[[bytes], Message] | None) -> Callable[[bytes], Message] | None:
    """Returns the decoder of a method's requests, None if gRPC has none. It raises InputError for bytes that are no
    such message, or that would take too much memory."""
    if decode is None:
        return None
    shape = memory.shape_of(decode)

    def decoded(message: bytes) -> Message:
        if shape is not None:
            memory.check(rpc, message, shape)
        try:
            return decode(message)
        except DecodeError:
            raise InputError(
                f"{rpc}: the bytes are not this call's request message",
                value=plural(len(message), "byte"),
                cause="truncated, or another call's message",
            ) from None

    return decoded


class _Call:
    """One call from arrival to end: counts, times, bounds and logs it; turns an exception into a status."""

    _holding = threading.Lock()

    def __init__(self, rpc: str, raw: grpc.ServicerContext, calls: Calls, instruments: PerCall) -> None:
        self._rpc, self._raw, self._calls, self._instruments = rpc, raw, calls, instruments
        self.bounded = Context(raw, calls.max_s)
        self.context: grpc.ServicerContext = self.bounded  # type: ignore[assignment]
        self.request: Request | None = None
        self.answered = math.inf
        """Monotonic seconds at which its answer was made."""
        self._held, self._left = 0, False
        self._timer: int | None = None
        self._span: Begun | None = None

    def __enter__(self) -> _Call:
        self._started = time.perf_counter()
        self._calls.entered(self)
        # in flight until gRPC has sent the answer, after the servicer has returned it
        if not self._raw.add_callback(self._gone):
            self._gone()
        if self.bounded.late:
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

    def encoded(self, encode: Encode, answer: Any) -> bytes:
        """Returns the bytes of the call's answer. A large one is held until it is sent, within what a service holds:
        raises StatusError (RESOURCE_EXHAUSTED) beyond it."""
        data = encode(answer)
        if len(data) > LARGE_ANSWER:
            memory.HELD.take(len(data))
            with self._holding:
                self._held += len(data)
            if self._left:
                self._give()
        return data

    def _gone(self) -> None:
        """The answer is sent, or the call has ended without."""
        self._calls.left(self)
        self._left = True
        if self._held:
            self._give()

    def _give(self) -> None:
        """Give back what is held, once."""
        with self._holding:
            held, self._held = self._held, 0
        memory.HELD.give(held)

    def ended(self, error: BaseException | None) -> grpc.Status | None:
        """Count, time and log the end of the call. Returns its status if it ended with an error."""
        status = None
        if error is None:
            own = getattr(self._raw, "code", lambda: None)()
            code = "CANCELLED" if not self._raw.is_active() else own.name if own is not None else "OK"
        elif isinstance(error, GeneratorExit):
            code = "CANCELLED"
        elif self.bounded.aborted:
            code = getattr(self._raw, "code", lambda: grpc.StatusCode.UNKNOWN)().name
        else:
            failure = failures.status_of(error, self._rpc, self._calls.log)
            status = to_status(failure, repeats=not self._too_late(failure))
            code = status.code.name
        self._end(code, error if status is not None else None)
        return status

    def _too_late(self, failure: InputError) -> bool:
        """Whether the caller's channel is not to repeat the call by itself: the store was waited for, and another try
        would end at the deadline, which says nothing of the store."""
        reason = getattr(failure, "reason", "")
        return reason == failures.STATE_UNAVAILABLE and self.context.time_remaining() < REPEAT_S

    def _end(self, code: str, error: BaseException | None) -> None:
        """Stop the timer, end the span, count the call, log it: an error as a warning, a success at level DEBUG."""
        seconds = time.perf_counter() - self._started
        self.answered = time.monotonic()
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
        """Returns the caller for the log; a claim that is not allowed as "refused: CLAIM"."""
        try:
            return str(identity.of(self._raw))
        except InputError as error:
            return f"refused: {error.value}"

    def _request_id(self) -> str:
        """Returns the request id for the log: of the request, else of the metadata; "" if there is none."""
        identifier = requests.split(str(getattr(self.request, "request_id", "")))[0]
        return str(identifier or dict(self._raw.invocation_metadata() or ()).get(REQUEST_KEY, ""))
