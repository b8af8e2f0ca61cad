"""The client's channel: a deadline for every call, retries that are safe, errors in words.

    with connect("127.0.0.1:50051", "lab", server="host") as channel:
        host = host_mm_pb2_grpc.HostMmServiceStub(channel)
        answer = host.Explain(host_mm_pb2.ExplainRequest(group="g"), timeout=2)

`connect` returns a grpc.Channel for any generated stub. Every call gets a deadline (the caller's `timeout`, else the
channel's), the caller's role and a request id. A failed call raises rpc.errors.StatusError, an InputError, instead of
grpc.RpcError. `result()` of a `future()` raises the bare grpc.RpcError; `errors.from_call` converts it.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, TypedDict, TypeVar, Unpack, cast

import grpc
from google.protobuf.message import Message

from ultrafolio.errors import InputError
from ultrafolio.state import until

from .errors import from_call

ROLE_KEY = "ultrafolio-role"
REQUEST_KEY = "ultrafolio-request-id"
TIMEOUT_S = 30.0
MESSAGE_MIB = 16
# mutating calls have a request id and run once, so a call that may have arrived can be repeated
RETRY = {
    "maxAttempts": 5, "initialBackoff": "0.1s", "maxBackoff": "2s", "backoffMultiplier": 2.5,
    "retryableStatusCodes": ["UNAVAILABLE"],
}  # fmt: skip

M = TypeVar("M", bound=Message)
Q = TypeVar("Q")
"""The type of a method's request."""
A = TypeVar("A")
"""The type of its response."""
Encode = Callable[[Q], bytes]
Decode = Callable[[bytes], A]
Pairs = tuple[tuple[str, str], ...]
Metadata = tuple[tuple[str, str | bytes], ...]


class Arguments(TypedDict):
    """What every call gets: seconds until its deadline, and its metadata."""

    timeout: float | None
    metadata: Metadata


class Rest(TypedDict, total=False):
    """What a caller of gRPC may also give."""

    credentials: grpc.CallCredentials
    wait_for_ready: bool
    compression: grpc.Compression


@dataclass(frozen=True, slots=True)
class Tls:
    """The PEM files of one role: the certificate authority's certificate, the role's certificate and key."""

    authority: bytes
    certificate: bytes
    key: bytes

    @classmethod
    def read(cls, folder: str | Path, name: str) -> Tls:
        """Read `ca.crt`, `NAME.crt`, `NAME.key` from a folder of launcher.certificates. InputError: one is missing."""
        files = [Path(folder) / file for file in ("ca.crt", f"{name}.crt", f"{name}.key")]
        try:
            return cls(*(file.read_bytes() for file in files))
        except OSError as error:
            raise InputError(
                f"{error.filename}: cannot be read",
                value=error.strerror,
                allowed="a PEM file",
                cause="the folder has no certificate of this role",
                then=f"python -m services.launcher.certificates {folder}",
            ) from None


def request_id() -> str:
    """Returns a fresh request id: 122 random bits of the operating system."""
    return str(uuid.uuid4())


def stamp(request: M, identifier: str | None = None) -> M:
    """Set the field request_id, by default to a fresh id. Returns `request`. A repeated id gets the first answer."""
    request.request_id = identifier or request_id()  # type: ignore[attr-defined]
    return request


def connect(
    address: str,
    role: str,
    *,
    tls: Tls | None = None,
    server: str = "",
    timeout_s: float = TIMEOUT_S,
    message_mib: int = MESSAGE_MIB,
    metadata: Callable[[], Pairs] | None = None,
    retry: bool = True,
) -> Channel:
    """Returns a channel to the service at `address` ("host:port"). It connects at the first call.

    role      of the caller: "host", "guest", "guest:VM", "ultravisor", "lab", "device"
    tls       certificates; None: no TLS, and the service does not verify `role`
    server    role that the service must prove with its certificate, e.g. "ultravisor"; only with `tls`
    metadata  called for each call: returns further metadata (trace context)
    retry     repeat a call that failed with UNAVAILABLE, up to 4 times
    Raises InputError if `address` is not host:port, or `role` cannot be sent.
    """
    host, colon, port = address.rpartition(":")
    if not (host and colon and port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise InputError(
            "address of a service",
            value=address,
            allowed="host:port",
            cause="no port, or port 0",
            then="python -m services prints the addresses",
        )
    if not (role.isascii() and role.isprintable()):
        raise InputError("role of the caller", value=role, allowed="printable ASCII")
    options: list[tuple[str, int | str]] = [
        ("grpc.enable_retries", int(retry)),
        ("grpc.service_config", json.dumps({"methodConfig": [{"name": [{}], "retryPolicy": RETRY}]})),
        ("grpc.max_receive_message_length", message_mib << 20),
        ("grpc.max_send_message_length", message_mib << 20),
        # reconnect to a restarted service within a second; gRPC's default is two minutes
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1000),
    ]
    if tls is None:
        raw = grpc.insecure_channel(address, options)
    else:
        credentials = grpc.ssl_channel_credentials(tls.authority, tls.key, tls.certificate)
        if server:
            options.append(("grpc.ssl_target_name_override", server_name(server)))
        raw = grpc.secure_channel(address, credentials, options)
    return Channel(raw, address, role, timeout_s, metadata)


def server_name(role: str) -> str:
    """Returns the DNS name in the certificate of a service of this role, which a client verifies."""
    return f"{role}.ultrafolio"


class Channel(grpc.Channel):
    """A grpc.Channel with the defaults and errors of this module."""

    def __init__(
        self, raw: grpc.Channel, address: str, role: str, timeout_s: float, metadata: Callable[[], Pairs] | None
    ) -> None:
        self._raw, self.address, self.role, self.timeout_s = raw, address, role, timeout_s
        self._role: Pairs = ((ROLE_KEY, role),)
        self._more = metadata

    def pairs(self, request: object) -> Pairs:
        """Returns the metadata of a call: role, a request id if the request has none, and the caller's pairs."""
        pairs = self._role
        if not getattr(request, "request_id", ""):
            pairs = (*pairs, (REQUEST_KEY, request_id()))
        return pairs if self._more is None else (*pairs, *self._more())

    def unary_unary(
        self, method: str, request_serializer: Encode[Q] | None = None, response_deserializer: Decode[A] | None = None,
        **known: bool,
    ) -> grpc.UnaryUnaryMultiCallable[Q, A]:  # fmt: skip
        raw = self._raw.unary_unary(method, request_serializer, response_deserializer, **known)
        return cast("grpc.UnaryUnaryMultiCallable[Q, A]", _Single(self, method, raw))

    def stream_unary(
        self, method: str, request_serializer: Encode[Q] | None = None, response_deserializer: Decode[A] | None = None,
        **known: bool,
    ) -> grpc.StreamUnaryMultiCallable[Q, A]:  # fmt: skip
        raw = self._raw.stream_unary(method, request_serializer, response_deserializer, **known)
        return cast("grpc.StreamUnaryMultiCallable[Q, A]", _Single(self, method, raw))

    def unary_stream(
        self, method: str, request_serializer: Encode[Q] | None = None, response_deserializer: Decode[A] | None = None,
        **known: bool,
    ) -> grpc.UnaryStreamMultiCallable[Q, A]:  # fmt: skip
        raw = self._raw.unary_stream(method, request_serializer, response_deserializer, **known)
        return cast("grpc.UnaryStreamMultiCallable[Q, A]", _Stream(self, method, raw))

    def stream_stream(
        self, method: str, request_serializer: Encode[Q] | None = None, response_deserializer: Decode[A] | None = None,
        **known: bool,
    ) -> grpc.StreamStreamMultiCallable[Q, A]:  # fmt: skip
        raw = self._raw.stream_stream(method, request_serializer, response_deserializer, **known)
        return cast("grpc.StreamStreamMultiCallable[Q, A]", _Stream(self, method, raw))

    def subscribe(self, callback: Callable[[grpc.ChannelConnectivity], None], try_to_connect: bool = False) -> None:
        self._raw.subscribe(callback, try_to_connect)

    def unsubscribe(self, callback: Callable[[grpc.ChannelConnectivity], None]) -> None:
        self._raw.unsubscribe(callback)

    def close(self) -> None:
        self._raw.close()

    def __enter__(self) -> Channel:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Call:
    """One method of a service: the deadline, the metadata and the errors of its calls."""

    def __init__(self, channel: Channel, method: str) -> None:
        self.channel, self.method = channel, method.replace("/", ".").lstrip(".")

    def arguments(self, request: object, timeout: float | None, metadata: Metadata | None) -> Arguments:
        """Returns the deadline and the metadata of a call; the caller's own come after those of the channel."""
        pairs = self.channel.pairs(request)
        # a service that asks another does not wait for it longer than its own caller does
        return {
            "timeout": until.left(self.channel.timeout_s) if timeout is None else timeout,
            "metadata": pairs if metadata is None else (*pairs, *metadata),
        }

    def readable(self, error: grpc.RpcError) -> InputError:
        """Returns the StatusError of a failed call."""
        return from_call(error, self.channel.address, self.method)


class _Single(_Call, Generic[Q, A]):
    """A call with one response. Its request is a message, or an iterator of messages."""

    def __init__(
        self,
        channel: Channel,
        method: str,
        raw: grpc.UnaryUnaryMultiCallable[Q, A] | grpc.StreamUnaryMultiCallable[Q, A],
    ) -> None:
        super().__init__(channel, method)
        self.raw = cast("grpc.UnaryUnaryMultiCallable[object, A]", raw)

    def __call__(
        self, request: object, timeout: float | None = None, metadata: Metadata | None = None, **rest: Unpack[Rest]
    ) -> A:
        try:
            return self.raw(request, **self.arguments(request, timeout, metadata), **rest)
        except grpc.RpcError as error:
            raise self.readable(error) from None

    def with_call(
        self, request: object, timeout: float | None = None, metadata: Metadata | None = None, **rest: Unpack[Rest]
    ) -> tuple[A, grpc.Call]:
        try:
            return self.raw.with_call(request, **self.arguments(request, timeout, metadata), **rest)
        except grpc.RpcError as error:
            raise self.readable(error) from None

    def future(
        self, request: object, timeout: float | None = None, metadata: Metadata | None = None, **rest: Unpack[Rest]
    ) -> grpc.Future[A]:
        return self.raw.future(request, **self.arguments(request, timeout, metadata), **rest)


class _Stream(_Call, Generic[Q, A]):
    """A call with a stream of responses. Its request is a message, or an iterator of messages."""

    def __init__(
        self,
        channel: Channel,
        method: str,
        raw: grpc.UnaryStreamMultiCallable[Q, A] | grpc.StreamStreamMultiCallable[Q, A],
    ) -> None:
        super().__init__(channel, method)
        self.raw = cast("grpc.UnaryStreamMultiCallable[object, A]", raw)

    def __call__(
        self, request: object, timeout: float | None = None, metadata: Metadata | None = None, **rest: Unpack[Rest]
    ) -> Responses[A]:
        return Responses(self, self.raw(request, **self.arguments(request, timeout, metadata), **rest))


class Responses(Generic[A]):
    """The responses of a streaming call, in order. `cancel()` ends it; other attributes are grpc.Call's."""

    def __init__(self, call: _Call, raw: Iterator[A]) -> None:
        self._call, self._raw = call, raw

    def __iter__(self) -> Iterator[A]:
        return self

    def __next__(self) -> A:
        try:
            return next(self._raw)
        except grpc.RpcError as error:
            raise self._call.readable(error) from None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)
