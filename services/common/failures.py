"""What status each exception of a servicer becomes: one table, which the calls' interceptor applies."""

from __future__ import annotations

import secrets
from typing import NamedTuple

import grpc
from redis.exceptions import ConnectionError as StateGone
from redis.exceptions import TimeoutError as StateSlow
from structlog.typing import FilteringBoundLogger

from ultrafolio.errors import InputError
from ultrafolio.rpc.errors import FORMER_OWNER, NOT_THE_OWNER, StatusError, from_call
from ultrafolio.state import requests
from ultrafolio.state.redis import SCRIPT_KILL
from ultrafolio.state.store import FormerOwner, NoGroup, NotOwner, StoreBehind, StoreFull, StoreUnavailable
from ultrafolio.state.turn import Contended, Lost

TURN_LOST = "TURN_LOST"
NOT_FOUND = "GROUP_NOT_FOUND"
STATE_UNAVAILABLE = "STATE_UNAVAILABLE"


class Failure(NamedTuple):
    """One row: the status, and the words of the error. Its value is the exception's text; `then` may name {error}."""

    code: grpc.StatusCode
    reason: str
    what: str
    allowed: str = ""
    cause: str = ""
    then: str = "repeat the call with the same request id"


_AWAY = Failure(
    grpc.StatusCode.UNAVAILABLE,
    STATE_UNAVAILABLE,
    "the shared state does not answer",
    cause="Redis is down, starting, too slow, or runs an endless script",
    then=f"repeat the call with the same request id; if it fails again, {SCRIPT_KILL} ends a script",
)
TABLE: dict[type[Exception], Failure] = {
    requests.Reused: Failure(
        grpc.StatusCode.FAILED_PRECONDITION,
        "REQUEST_ID_REUSED",
        "the request id was used before",
        allowed="an id of its own for every request",
        cause="another call, or the same with other arguments, had this id",
        then="stamp(request) makes a fresh one",
    ),
    NoGroup: Failure(
        grpc.StatusCode.NOT_FOUND,
        NOT_FOUND,
        "no such folio group",
        cause="it was never laid out, or its data was removed",
        then="python examples/lay_out.py makes one from a scenario",
    ),
    NotOwner: Failure(
        grpc.StatusCode.ABORTED,
        NOT_THE_OWNER,
        "another replica of this service owns the folio group",
        cause="a group belongs to one replica at a time, until its lease is over",
        then="ultrafolio.rpc.replicas.connect finds the owner; or repeat the call there with the same request id",
    ),
    FormerOwner: Failure(
        grpc.StatusCode.FAILED_PRECONDITION,
        FORMER_OWNER,
        "another host owns the folio group",
        cause="the host that asks was silent for longer than its lease",
        then="none by hand: the host tells its own caller who the owner is",
    ),
    Lost: Failure(
        grpc.StatusCode.ABORTED,
        TURN_LOST,
        "the turn is over",
        cause="its lease ran out under its holder",
    ),
    Contended: Failure(
        grpc.StatusCode.UNAVAILABLE,
        "GROUP_BUSY",
        "a step of the group is under way",
        cause="another call's step is not finished; its service died, or is very slow",
        then="repeat the call with the same request id; start again a service that died",
    ),
    StoreFull: Failure(
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "STATE_FULL",
        "the shared state takes no writes",
        cause="nothing was changed",
        then="{error.then}; then repeat the call with the same request id",
    ),
    StoreBehind: Failure(
        grpc.StatusCode.FAILED_PRECONDITION,
        "STATE_WENT_BACK",
        "the shared state has lost writes",
        allowed="to go on once an operator has decided",
        cause="it was restored, or failed over to a replica that was behind",
        then="python -m services.launcher.recover URL: such groups",
    ),
    StoreUnavailable: _AWAY,
    StateGone: _AWAY,
    StateSlow: _AWAY,
}
"""Exception -> the status that its caller sees; a subclass has the row of its base. No class has two rows."""


def status_of(error: BaseException, rpc: str, log: FilteringBoundLogger) -> InputError:
    """The error that the caller sees for what a servicer raised.

    An InputError is the caller's mistake and stays as it is; a failed call to another service keeps its status. An
    exception without a row is a defect of the service: INTERNAL with a short id; the log has the traceback under it.
    """
    if isinstance(error, InputError):
        return error
    if isinstance(error, grpc.RpcError):
        return from_call(error, "a service behind this one")
    for kind in type(error).__mro__:
        if kind in TABLE:
            return failure(TABLE[kind], error)
    identifier = secrets.token_hex(4)
    log.error("internal error", rpc=rpc, error_id=identifier, exc_info=error)
    return StatusError(
        grpc.StatusCode.INTERNAL,
        "INTERNAL",
        f"internal error {identifier}",
        cause="a defect of the service; its log has the traceback under this id",
    )


def failure(row: Failure, error: BaseException) -> StatusError:
    """The row's status, about this exception."""
    return StatusError(
        row.code,
        row.reason,
        row.what,
        value=" ".join(str(error).split()) or None,
        allowed=row.allowed,
        cause=row.cause,
        then=row.then.format(error=error),
    )
