"""The context that a servicer's method gets: its call's time is bounded by the service, and its caller is known."""

from __future__ import annotations

import time
from typing import Any

import grpc

from services.common.identity import Identity


class Context:
    """The servicer's context: grpc.ServicerContext whose time is bounded by the service, `max_s` seconds.

    late: whether the caller's deadline is later than that bound;  caller: once it is known (identity.of)
    """

    def __init__(self, raw: grpc.ServicerContext, max_s: float) -> None:
        known: Identity | None = None
        self.raw, self.aborted, self.caller = raw, False, known
        asked = raw.time_remaining()
        self.late = asked > max_s
        self._ends = time.monotonic() + (max_s if self.late else asked)

    def time_remaining(self) -> float:
        """Returns the seconds until the caller's deadline or the service's bound, whichever is earlier."""
        left = self._ends - time.monotonic()
        return left if left > 0.0 else 0.0

    def abort(self, code: grpc.StatusCode, details: str) -> None:
        self.aborted = True
        self.raw.abort(code, details)

    def abort_with_status(self, status: grpc.Status) -> None:
        self.aborted = True
        self.raw.abort_with_status(status)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.raw, name)
