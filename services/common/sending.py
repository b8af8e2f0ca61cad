"""Messages of a call, sent without a thread that waits until the client has room for them.

A client grants room for so many bytes, or for none. gRPC's own callback for a method that returns before its end
(experimental_non_blocking) blocks until there is room: clients that grant none would hold every thread. So the batches
are begun here with the parts of grpc._server of which gRPC makes its own. With a version of gRPC that has not all of
these parts, its callback is used.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import grpc
from grpc import _server  # type: ignore[attr-defined]
from grpc._cython import cygrpc  # type: ignore[attr-defined]

from services.common import scheduler

STALLED_S = 10.0
"""Seconds that a client may take to make room for one message, or for an answer; then its call is cancelled."""
PARTS = (
    "_get_initial_metadata_operation", "_get_send_message_op_flags_from_state", "_is_rpc_state_active", "_send_message",
    "_status", "_SEND_INITIAL_METADATA_AND_SEND_MESSAGE_TOKEN", "_SEND_MESSAGE_TOKEN",
)  # fmt: skip


class Sender(Protocol):
    """Sends the messages of one call."""

    def next(self, data: bytes, sent: Callable[[], None]) -> bool:
        """Begin to send a message that is not the last. False: the call has ended.

        sent: called once the client has room for the message, or the call has ended; no other message before
        """

    def last(self, data: bytes | None) -> None:
        """Begin to send the last message, None for none, and the call's status."""


class Batches:
    """A Sender that returns at once. raw: gRPC's context of the call."""

    def __init__(self, raw: Any) -> None:
        self._call, self._state = raw._rpc_event.call, raw._state
        self._event = raw._rpc_event

    def next(self, data: bytes, sent: Callable[[], None]) -> bool:
        state = self._state
        with state.condition:
            if not _server._is_rpc_state_active(state):
                return False
            flags = _server._get_send_message_op_flags_from_state(state)
            operations, token = [cygrpc.SendMessageOperation(data, flags)], _server._SEND_MESSAGE_TOKEN
            if state.initial_metadata_allowed:
                operations.insert(0, _server._get_initial_metadata_operation(state, None))
                state.initial_metadata_allowed = False
                token = _server._SEND_INITIAL_METADATA_AND_SEND_MESSAGE_TOKEN
            done = _server._send_message(state, token)

            def told(event: Any) -> Any:
                """What gRPC's event thread calls at the end of the batch. Returns what ends with it."""
                ended = done(event)
                sent()
                return ended

            self._call.start_server_batch(operations, told)
            state.due.add(token)
        return True

    def last(self, data: bytes | None) -> None:
        _server._status(self._event, self._state, data)


class Callback:
    """A Sender that blocks until there is room, STALLED_S at most. send: gRPC's callback, which ends the messages with
    None;  cancel: ends the call."""

    def __init__(self, send: Callable[[bytes | None], None], cancel: Callable[[], object]) -> None:
        self._send, self._cancel = send, cancel

    def next(self, data: bytes, sent: Callable[[], None]) -> bool:
        stalled = scheduler.DEFAULT.timer.at(STALLED_S, self._cancel)
        self._send(data)
        scheduler.DEFAULT.timer.cancel(stalled)
        sent()
        return True

    def last(self, data: bytes | None) -> None:
        if data is not None:
            self.next(data, lambda: None)
        self._send(None)


def has_parts() -> bool:
    """Whether this version of gRPC has what Batches is made of."""
    return all(hasattr(_server, name) for name in PARTS)


def sender(raw: grpc.ServicerContext, send: Callable[[bytes | None], None]) -> Sender:
    """Returns the sender of a call. raw: gRPC's context;  send: gRPC's callback."""
    return Batches(raw) if _HAS_PARTS and hasattr(raw, "_rpc_event") else Callback(send, raw.cancel)


_HAS_PARTS = has_parts()
