"""Errors on the wire: converts an InputError to a gRPC status with google.rpc.ErrorInfo, and back.

ErrorInfo.metadata has the five parts of the error (what, value, allowed, cause, then), under the domain "ultrafolio";
ErrorInfo.reason is a constant that programs may compare. Parts are cut to PART_BYTES, so that a status fits the 8 KiB
of trailers that HTTP/2 peers accept.
"""

from __future__ import annotations

from typing import Any

import grpc
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from ultrafolio.errors import InputError

DOMAIN = "ultrafolio"
BAD_INPUT = "BAD_INPUT"
NOT_THE_OWNER = "NOT_THE_OWNER"
FORMER_OWNER = "FORMER_OWNER"
"""Reason of a refusal by a replica that does not own the group: the owner is to be asked (rpc/replicas.py)."""
PART_BYTES = 500
_PARTS = ("what", "value", "allowed", "cause", "then")
_START = "python -m services"


class StatusError(InputError):
    """An InputError with a gRPC status code and a reason.

    code    a grpc.StatusCode other than OK
    reason  UPPER_SNAKE_CASE, one per kind of mistake, for programs to compare
    """

    def __init__(
        self,
        code: grpc.StatusCode,
        reason: str,
        what: str,
        *,
        value: object = None,
        allowed: str = "",
        cause: str = "",
        then: str = "",
    ) -> None:
        self.code, self.reason = code, reason
        super().__init__(what, value=value, allowed=allowed, cause=cause, then=then)

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (self.code, self.reason, self.what, self.value, self.allowed, self.cause, self.then))


def _rebuild(
    code: grpc.StatusCode, reason: str, what: str, value: object, allowed: str, cause: str, then: str
) -> StatusError:
    """Returns the error of these parts, for pickle."""
    return StatusError(code, reason, what, value=value, allowed=allowed, cause=cause, then=then)


class _Final(grpc.Status):
    """A status after which the caller's channel does not repeat the call by itself."""

    def __init__(self, status: Any) -> None:
        self.code, self.details = status.code, status.details
        self.trailing_metadata = (*status.trailing_metadata, ("grpc-retry-pushback-ms", "-1"))


def to_status(error: InputError, *, repeats: bool = True) -> grpc.Status:
    """Returns the status of an error: that of a StatusError, otherwise INVALID_ARGUMENT with reason BAD_INPUT.

    repeats: whether the caller's channel may repeat the call by itself, if the code allows it
    """
    code = error.code if isinstance(error, StatusError) else grpc.StatusCode.INVALID_ARGUMENT
    reason = error.reason if isinstance(error, StatusError) else BAD_INPUT
    value = "" if error.value is None else error.value if isinstance(error.value, str) else repr(error.value)
    texts = dict(zip(_PARTS, (error.what, value, error.allowed, error.cause, error.then), strict=True))
    info = error_details_pb2.ErrorInfo(
        reason=reason, domain=DOMAIN, metadata={name: _cut(text) for name, text in texts.items() if text}
    )
    detail = any_pb2.Any()
    detail.Pack(info)
    status: grpc.Status = rpc_status.to_status(
        status_pb2.Status(code=code.value[0], message=_cut(error.what), details=[detail])
    )
    return status if repeats else _Final(status)


def from_call(error: grpc.RpcError, address: str, method: str = "") -> StatusError:
    """Returns the error of a failed call: the service's own, or one made from the bare status and `address`."""
    info = _info(error)
    if info is not None:
        parts = {name: info.metadata.get(name, "") for name in _PARTS}
        return StatusError(
            _code(error),
            info.reason,
            parts["what"],
            value=parts["value"] or None,
            allowed=parts["allowed"],
            cause=parts["cause"],
            then=parts["then"],
        )
    return _bare(error, address, method)


def _info(error: grpc.RpcError) -> error_details_pb2.ErrorInfo | None:
    """Returns what a service of ours said about the error; None for another error."""
    try:
        status = rpc_status.from_call(error)
    except ValueError:
        return None
    for detail in status.details if status is not None else ():
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info) and info.domain == DOMAIN:
            return info
    return None


def _code(error: grpc.RpcError) -> grpc.StatusCode:
    """Returns the error's status code, UNKNOWN if it has none."""
    code = error.code() if isinstance(error, grpc.Call) else None
    return code if code is not None else grpc.StatusCode.UNKNOWN


# code: (what, cause, next command); {address} and {method} are filled in
_BARE = {
    grpc.StatusCode.UNAVAILABLE: (
        "no service answers at {address}", "it is not running, still starting, or one side speaks TLS", _START,
    ),
    grpc.StatusCode.DEADLINE_EXCEEDED: (
        "{address}: {method} did not finish in time",
        "it waits for something, the service hangs, or nothing answers there yet",
        "call HostMmService/Explain: who waits for what, and who holds it",
    ),
    grpc.StatusCode.UNIMPLEMENTED: (
        "{address}: {method} is not a call of this service", "the address is another service's",
        _START + " prints the addresses",
    ),
    grpc.StatusCode.RESOURCE_EXHAUSTED: (
        "{address}: {method} was refused", "the message is too large, or too many calls are in flight",
        "send smaller batches",
    ),
    grpc.StatusCode.CANCELLED: (
        "{address}: {method} was cancelled", "by its caller, the service's end, or its longest time for a call", "",
    ),
    grpc.StatusCode.INTERNAL: ("{address}: {method} failed inside the service", "see the service's log", ""),
}  # fmt: skip


def _bare(error: grpc.RpcError, address: str, method: str) -> StatusError:
    """Returns the error for a call that no service of ours answered."""
    code = _code(error)
    details = error.details() if isinstance(error, grpc.Call) else str(error)
    what, cause, then = _BARE.get(code, ("{address}: {method} failed", "", ""))
    name = method.rpartition(".")[2].lstrip("/") or "the call"
    return StatusError(
        code,
        code.name,
        what.format(address=address, method=name),
        value=" ".join((details or "").split()) or None,
        cause=cause,
        then=then,
    )


def _cut(text: str) -> str:
    """Returns the text, cut to PART_BYTES bytes."""
    raw = text.encode("utf-8", "replace")
    return text if len(raw) <= PART_BYTES else raw[: PART_BYTES - 3].decode("utf-8", "ignore") + "..."
