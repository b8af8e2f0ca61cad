"""Prometheus metrics of one service, on a separate port."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

# seconds: a call takes about half a millisecond, a wait as long as its deadline
BUCKETS = (0.00025, 0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.25, 1.0, 4.0, 16.0, 64.0)


class Metrics:
    """Counts and times every call. `gauges`: name -> (meaning, function that returns the present value)."""

    def __init__(self, service: str, gauges: Mapping[str, tuple[str, Callable[[], float]]]) -> None:
        self.registry = CollectorRegistry()
        self._calls = Counter(
            "ultrafolio_rpc",
            "calls that ended, by status code",
            registry=self.registry,
            labelnames=("service", "rpc", "code"),
        )
        self._seconds = Histogram(
            "ultrafolio_rpc_seconds",
            "time of a call, seconds",
            buckets=BUCKETS,
            registry=self.registry,
            labelnames=("service", "rpc"),
        )
        self._service = service
        for name, (meaning, function) in gauges.items():
            self.gauge(name, meaning, function)
        self._http: tuple[WSGIServer, threading.Thread] | None = None

    def of(self, rpc: str) -> PerCall:
        """Returns the instruments of one rpc."""
        return PerCall(self._calls, self._seconds.labels(self._service, rpc), (self._service, rpc))

    def gauge(self, name: str, meaning: str, function: Callable[[], float]) -> None:
        """Add a gauge; `function` is called at each scrape."""
        gauge = Gauge(name, meaning, registry=self.registry, labelnames=("service",))
        gauge.labels(self._service).set_function(function)

    def listen(self, host: str, port: int) -> str:
        """Start answering GET /metrics; returns the address."""
        self._http = start_http_server(port, host, registry=self.registry)
        return f"{host}:{self._http[0].server_port}"

    def close(self) -> None:
        """Stop listening, within half a second. Returns at once."""
        if self._http is not None:
            threading.Thread(target=_shut, args=(self._http[0],), daemon=True).start()


def _shut(server: WSGIServer) -> None:
    server.shutdown()
    server.server_close()


class PerCall:
    """Counter by code, and histogram, of one rpc."""

    def __init__(self, calls: Counter, seconds: Histogram, labels: tuple[str, str]) -> None:
        self._calls, self._seconds, self._labels = calls, seconds, labels
        self._by_code: dict[str, Counter] = {}

    def ended(self, code: str, seconds: float) -> None:
        """Count a call that ended with this status code, and record its time."""
        counter = self._by_code.get(code)
        if counter is None:
            counter = self._by_code[code] = self._calls.labels(*self._labels, code)
        counter.inc()
        self._seconds.observe(seconds)
