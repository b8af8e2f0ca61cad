"""The gRPC server of every service: health, reflection, limits, graceful stop.

def start(settings: Settings) -> Running:
    parts = Ultravisor(...)
    register = [(add_UltravisorServiceServicer_to_server, parts)]
    return serve("ultravisor", register, settings, ready=parts.ready)

if __name__ == "__main__":
    main(start)
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from services.common import logs, scheduler, standard
from services.common.calls import Calls
from services.common.metrics import Metrics
from services.common.sending import STALLED_S
from services.common.settings import Settings, read
from services.common.tracing import Tracing
from ultrafolio.errors import InputError
from ultrafolio.rpc.client import Tls
from ultrafolio.state.roles import ROLE_OF_SERVICE

LAST_NEWS_S = 0.1
SHORT_S = 2.0
"""A service in which a short call gets no thread for this many seconds reports NOT_SERVING."""
Register = Sequence[tuple[Callable[[Any, grpc.Server], None], Any]]
Gauges = Mapping[str, tuple[str, Callable[[], float]]]


class Running:
    """A service that listens. `address` and `metrics` are host:port; `metrics` is "" without metrics."""

    def __init__(self, name: str, settings: Settings, tracing: Tracing | None, gauges: Gauges) -> None:
        self.name, self.settings, self.tracing = name, settings, tracing
        self.log = logs.logger(name, settings)
        self.address = self.metrics = ""
        self._pool = ThreadPoolExecutor(settings.threads, thread_name_prefix=name)
        # a full queue refuses a call at once; otherwise it would wait until its deadline
        self._server = grpc.server(self._pool, options=_limits(settings), maximum_concurrent_rpcs=queue(settings))
        self._measures = Metrics(name, gauges)
        most = queue(settings)
        self.calls = Calls(self._server, self._measures, self.log, tracing, settings.max_call_s, most)
        self._health = standard.Health()
        self._serving = False
        self._ending = threading.Event()
        self._ended = threading.Event()
        self._stop_once = threading.Lock()

    def listen(self, register: Register) -> None:
        """Register, bind, start. Raises InputError if the address cannot be bound or a certificate is missing."""
        for add, servicer in register:
            add(servicer, cast(grpc.Server, self.calls))
        self._set(False)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        if self.settings.reflection:
            names = (*self.calls.services, health.SERVICE_NAME, reflection.SERVICE_NAME)
            reflection_pb2_grpc.add_ServerReflectionServicer_to_server(standard.Reflection(names), self._server)
        self.address = _bind(self._server, self.name, self.settings)
        self._measures.gauge("ultrafolio_serving", "1 while health is SERVING", lambda: float(self._serving))
        self._measures.gauge(
            "ultrafolio_rpc_waiting", "calls that wait without a thread", lambda: scheduler.DEFAULT.suspended
        )
        self._measures.gauge("ultrafolio_rpc_in_flight", "calls at work or waiting", lambda: self.calls.in_flight)
        if self.settings.metrics_port >= 0:
            try:
                self.metrics = self._measures.listen(self.settings.host, self.settings.metrics_port)
            except OSError as error:
                raise _taken("ULTRAFOLIO_METRICS_PORT", self.settings.metrics_port, error.strerror) from None
        self._server.start()
        self._tidy()

    def _tidy(self) -> None:
        """Cancel calls whose answers are not read, again and again until the stop."""
        self.calls.cancel_unread()
        if not self._ended.is_set():
            scheduler.DEFAULT.timer.at(STALLED_S / 2, self._tidy)

    def watch(self, ready: Callable[[], bool]) -> None:
        """Call `ready` every `health_s` seconds until the stop, and set health to its answer."""
        said = ""
        while not self._ending.is_set():
            try:
                now, why = ready(), ""
                if now and not self._answers():
                    now, why = False, f"no thread was free for a short call for {SHORT_S:g} s"
            except Exception as error:
                now, why = False, " ".join(str(error).split()) or type(error).__name__
            if now != self._serving and not self._ending.is_set():
                self._set(now)
                self.log.info("serving" if now else "not serving", reason=why)
            elif why != said and why:
                self.log.warning("not ready", reason=why)
            said = why
            self._ending.wait(self.settings.health_s if now else min(0.1, self.settings.health_s))

    def _answers(self) -> bool:
        """Whether a call would get a thread within SHORT_S, to start on and to be resumed on."""
        end = time.monotonic() + SHORT_S
        for free in (self._pool.submit(int), scheduler.DEFAULT.idle()):
            try:
                free.result(max(0.0, end - time.monotonic()))
            except TimeoutError:
                return False
        return True

    def stop(self, grace_s: float | None = None) -> None:
        """Set NOT_SERVING, refuse new calls, give calls in flight `grace_s` seconds, then stop. Idempotent."""
        with self._stop_once:
            if self._ended.is_set():
                return
            grace_s = self.settings.grace_s if grace_s is None else grace_s
            self._ending.set()
            self._serving = False
            self._health.enter_graceful_shutdown()
            self.log.info("stopping", in_flight=self.calls.in_flight, grace_s=grace_s)
            # this service refuses new calls itself: gRPC would cancel calls that cross its GOAWAY, and clients do not
            # retry CANCELLED
            self.calls.closed = True
            self.calls.drained(grace_s)
            cut_off = self.calls.in_flight
            # calls past their time remain, and health watchers, whose last message may not be sent yet
            self._server.stop(0 if cut_off else LAST_NEWS_S).wait()
            self._pool.shutdown(wait=False)
            self._measures.close()
            if self.tracing is not None:
                self.tracing.close()
            self.log.info("stopped", cut_off=cut_off)
            self._ended.set()

    def wait(self) -> None:
        """Block until SIGTERM, SIGINT, or the end of the launcher; then stop. Call it in the main thread."""
        asked = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: asked.set())
        if self.settings.with_parent:
            threading.Thread(target=_until_parent_ends, args=(asked,), daemon=True).start()
        asked.wait()
        self.stop()

    def announcement(self) -> dict[str, Any]:
        """Returns the JSON object with the service's addresses, for the launcher and for users."""
        return {
            "service": self.name,
            "instance": self.settings.instance,
            "address": self.address,
            "metrics": self.metrics,
            "tls": bool(self.settings.tls),
            "pid": os.getpid(),
        }

    def _set(self, serving: bool) -> None:
        """Set the health of the service and of each of its gRPC services."""
        self._serving = serving
        status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        for name in ("", *self.calls.services):
            self._health.set(name, status)


def serve(
    name: str,
    register: Register,
    settings: Settings,
    *,
    ready: Callable[[], bool] = lambda: True,
    gauges: Gauges | None = None,
    tracing: Tracing | None = None,
) -> Running:
    """Start the service `name` (a key of ROLE_OF_SERVICE); returns when its port answers.

    register  (add_XServicer_to_server, servicer) pairs
    ready     called every `settings.health_s`: True is SERVING; False or an exception is NOT_SERVING
    gauges    metric name -> (meaning, function that returns the present value)
    tracing   from `traced(name, settings)`, if the servicers need it for their own calls
    Raises InputError if the address is taken or a certificate is missing.
    """
    settings = settings if settings.instance else replace(settings, instance=f"{name}-{os.getpid()}")
    scheduler.DEFAULT.most = settings.waiting
    running = Running(name, settings, tracing or traced(name, settings), gauges or {})
    running.listen(register)
    log = running.log
    log.info("listening", address=running.address, metrics=running.metrics, tls=bool(settings.tls))
    if not settings.tls:
        log.warning(
            "identities are unverified",
            reason="TLS is off: callers are taken at their word",
            loopback=settings.loopback,
        )
    if not settings.loopback:
        log.warning("listens beyond this machine", host=settings.host)
    threading.Thread(target=running.watch, args=(ready,), name="readiness", daemon=True).start()
    return running


def traced(name: str, settings: Settings) -> Tracing | None:
    """Returns the tracing of a service, None without a collector."""
    return Tracing(name, settings) if settings.otlp else None


def main(start: Callable[[Settings], Running]) -> None:
    """Main program of a service: read settings from the environment, print one JSON line, serve until the stop."""
    try:
        running = start(read())
    except InputError as error:
        print(f"services.{Path(sys.argv[0]).parent.name}: {error}", file=sys.stderr)
        sys.exit(2)
    print(json.dumps(running.announcement()), flush=True)
    running.wait()
    # do not join threads of cancelled calls, which may still sleep
    sys.stdout.flush()
    os._exit(0)


def queue(settings: Settings) -> int:
    """Returns the bound of calls that no thread has started, and of those whose answer is not sent: all calls that may
    be suspended may arrive at once."""
    return 8 * settings.threads + settings.waiting


def _limits(settings: Settings) -> list[tuple[str, Any]]:
    """Returns gRPC's options for the largest message, the queue of new calls, and keepalive."""
    largest = settings.max_message_mib << 20
    return [
        ("grpc.max_receive_message_length", largest),
        ("grpc.max_send_message_length", largest),
        # gRPC's own bounds before a call reaches this process are 1,000 and 3,000, and it answers CANCELLED
        ("grpc.server.max_pending_requests", queue(settings)),
        ("grpc.server.max_pending_requests_hard_limit", queue(settings)),
        # keepalive notices a dead client, and its calls end
        ("grpc.keepalive_time_ms", int(1000 * settings.keepalive_s)),
        ("grpc.keepalive_timeout_ms", int(1000 * settings.keepalive_s)),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.http2.ping_timeout_ms", int(1000 * settings.keepalive_s)),
        # two services on one port are an error; SO_REUSEPORT would share it between them
        ("grpc.so_reuseport", 0),
    ]


def _bind(server: grpc.Server, name: str, settings: Settings) -> str:
    """Listen with or without TLS, as the settings say. Returns the address. Raises InputError if the port is taken."""
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    try:
        if settings.tls:
            tls = Tls.read(settings.tls, ROLE_OF_SERVICE[name])
            pair = (tls.key, tls.certificate)
            credentials = grpc.ssl_server_credentials([pair], tls.authority, require_client_auth=True)
            port = server.add_secure_port(f"{host}:{settings.port}", credentials)
        else:
            port = server.add_insecure_port(f"{host}:{settings.port}")
    except RuntimeError as error:
        raise _taken("ULTRAFOLIO_PORT", settings.port, str(error)) from None
    return f"{host}:{port}"


def _taken(variable: str, port: int, reason: str | None) -> InputError:
    """Returns the error for an address on which the service cannot listen."""
    return InputError(
        f"{variable}: cannot listen there",
        value=port,
        allowed="a free port, or 0",
        cause=reason or "",
        then=f"ss -ltnp | grep :{port}",
    )


def _until_parent_ends(asked: threading.Event) -> None:
    """Set `asked` when standard input ends, as it does with the parent process."""
    while os.read(0, 4096):
        continue
    asked.set()
