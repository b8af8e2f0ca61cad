"""Health and reflection of every server, bounded, in threads of their own."""

from __future__ import annotations

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
    """A method that gRPC runs in `pool`; grpc._server defines the attributes' names."""

    def __init__(self, method: Callable[..., Any], pool: ThreadPoolExecutor, *, non_blocking: bool = False) -> None:
        self._method, self.experimental_thread_pool, self.experimental_non_blocking = method, pool, non_blocking

    def __call__(self, *arguments: Any) -> Any:
        return self._method(*arguments)


class Health(health.HealthServicer):  # type: ignore[misc]
    """Health with separate threads: it answers while all threads of the service are busy."""

    def __init__(self) -> None:
        pool = ThreadPoolExecutor(2, thread_name_prefix="health")
        super().__init__(experimental_non_blocking=True, experimental_thread_pool=pool)
        self._watchers, self._counting = 0, threading.Lock()
        self.Check = _Own(super().Check, pool)
        self._watch = super().Watch
        self.Watch = _Own(self._bounded, pool, non_blocking=True)

    def _bounded(self, request: Any, context: Any, send: Callable[[Any], None]) -> None:
        if request.service not in self._server_status:
            # a watch of a service that is not registered ends at once
            send(health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVICE_UNKNOWN))
            return send(None)
        with self._counting:
            full = self._watchers >= MOST_WATCHERS
            self._watchers += not full
        if full:
            context.set_code(grpc.StatusCode.RESOURCE_EXHAUSTED)
            context.set_details(f"{MOST_WATCHERS} watch the health of this service already")
            return send(None)
        if context.add_callback(self._left):
            self._watch(request, context, send)
        else:
            self._left()
        return None

    def _left(self) -> None:
        with self._counting:
            self._watchers -= 1


class Reflection(reflection.ReflectionServicer):  # type: ignore[misc]
    """Reflection for callers with a role: MOST_REFLECTIONS at a time, each REFLECTION_S long."""

    def __init__(self, names: tuple[str, ...]) -> None:
        super().__init__(names)
        self._streams, self._counting = 0, threading.Lock()
        # the threads beyond the bound send refusals
        pool = ThreadPoolExecutor(MOST_REFLECTIONS + 2, thread_name_prefix="reflection")
        self._answers = super().ServerReflectionInfo
        self.ServerReflectionInfo = _Own(self._bounded, pool)

    def _bounded(self, requests: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        identity.of(context)
        with self._counting:
            full = self._streams >= MOST_REFLECTIONS
            self._streams += not full
        if full:
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{MOST_REFLECTIONS} reflection streams at a time")
        end = scheduler.DEFAULT.timer.at(REFLECTION_S, lambda: _cancel(context))
        try:
            yield from self._answers(requests, context)
        finally:
            scheduler.DEFAULT.timer.cancel(end)
            with self._counting:
                self._streams -= 1


def _cancel(context: Any) -> None:
    context.cancel()
