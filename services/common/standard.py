"""Health and reflection of every server, bounded, in threads of their own."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2
from grpc_reflection.v1alpha import reflection

from services.common import identity, scheduler

MOST_WATCHERS = 256
"""Watch streams of a server's health at a time."""
MOST_REFLECTIONS = 8
"""Reflection streams of a server at a time."""
REFLECTION_S = 10.0
"""Seconds until a reflection stream ends; tools ask everything at once."""


class _Own:
    """A method that gRPC runs in `pool`; grpc._server defines the attribute's name."""

    def __init__(self, method: Callable[..., Any], pool: ThreadPoolExecutor) -> None:
        self._method, self.experimental_thread_pool = method, pool

    def __call__(self, *arguments: Any) -> Any:
        return self._method(*arguments)


class _Places:
    """At most `most` streams at a time."""

    def __init__(self, most: int) -> None:
        self._most, self._taken, self._counting = most, 0, threading.Lock()

    @contextlib.contextmanager
    def one(self, context: grpc.ServicerContext, refusal: str) -> Iterator[None]:
        """Takes a place until the end of the block; ends the call with RESOURCE_EXHAUSTED and `refusal` where none is
        free."""
        with self._counting:
            free = self._taken < self._most
            self._taken += free
        if not free:
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, refusal)
        try:
            yield
        finally:
            with self._counting:
                self._taken -= 1


class Health(health.HealthServicer):  # type: ignore[misc]
    """Health with separate threads: it answers while all threads of the service are busy.

    Each watcher has a thread. The library's watch without threads sends under the lock that the end of a watch takes in
    the server's only event thread: a client that cancels its watch meanwhile stops the whole server.
    """

    def __init__(self) -> None:
        super().__init__(experimental_non_blocking=False)
        self._places = _Places(MOST_WATCHERS)
        self.Check = _Own(super().Check, ThreadPoolExecutor(2, thread_name_prefix="health"))
        self._answers = super().Watch
        # the threads beyond the bound send refusals
        self.Watch = _Own(self._bounded, ThreadPoolExecutor(MOST_WATCHERS + 2, thread_name_prefix="watch"))

    def _bounded(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        """Yields the health of a service as it changes, as one of a bounded number of watchers."""
        if request.service not in self._server_status:
            # a watch of a service that is not registered ends at once
            yield health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVICE_UNKNOWN)
            return
        with self._places.one(context, f"{MOST_WATCHERS} watch the health of this service already"):
            yield from self._answers(request, context)


class Reflection(reflection.ReflectionServicer):  # type: ignore[misc]
    """Reflection for callers with a role: MOST_REFLECTIONS at a time, each REFLECTION_S long."""

    def __init__(self, names: tuple[str, ...]) -> None:
        super().__init__(names)
        self._places = _Places(MOST_REFLECTIONS)
        # the threads beyond the bound send refusals
        pool = ThreadPoolExecutor(MOST_REFLECTIONS + 2, thread_name_prefix="reflection")
        self._answers = super().ServerReflectionInfo
        self.ServerReflectionInfo = _Own(self._bounded, pool)

    def _bounded(self, requests: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        """Yields the answers of a reflection stream, which has a bounded time and is one of a bounded number."""
        identity.of(context)
        with self._places.one(context, f"{MOST_REFLECTIONS} reflection streams at a time"):
            end = scheduler.DEFAULT.timer.at(REFLECTION_S, lambda: _cancel(context))
            try:
                yield from self._answers(requests, context)
            finally:
                scheduler.DEFAULT.timer.cancel(end)


def _cancel(context: Any) -> None:
    context.cancel()
