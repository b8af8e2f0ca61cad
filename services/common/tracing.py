"""OpenTelemetry traces, if ULTRAFOLIO_OTLP names a collector: a span per call, child of the caller's span."""

from __future__ import annotations

from collections.abc import Iterable
from contextvars import Token
from typing import TYPE_CHECKING, TypeAlias

from services.common.settings import Settings
from ultrafolio.errors import InputError, install

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span

Begun: TypeAlias = "tuple[Span, Token[Context]]"
"""A span, and what makes the span before it the thread's current one again."""


class Tracing:
    """Spans of one service. Pass `outgoing` to `ultrafolio.rpc.client.connect(metadata=...)`."""

    def __init__(self, service: str, settings: Settings) -> None:
        try:
            from opentelemetry import context, propagate, trace
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ImportError as error:
            raise InputError(
                "ULTRAFOLIO_OTLP: traces need a package that is not installed",
                value=error.name,
                then=install("otel"),
            ) from None
        self._context, self._propagate, self._trace = context, propagate, trace
        self._provider = TracerProvider(
            resource=Resource.create({"service.name": service, "service.instance.id": settings.instance})
        )
        exporter = OTLPSpanExporter(endpoint=settings.otlp.rstrip("/") + "/v1/traces", timeout=2)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("ultrafolio")

    def begin(self, rpc: str, metadata: Iterable[tuple[str, str | bytes]] | None) -> Begun:
        """Start the span of an incoming call, and make it this thread's current span."""
        carrier = {key: value for key, value in metadata or () if isinstance(value, str)}
        span = self._tracer.start_span(
            rpc,
            self._propagate.extract(carrier),
            kind=self._trace.SpanKind.SERVER,
            attributes={"rpc.system": "grpc", "rpc.method": rpc},
        )
        return span, self._context.attach(self._trace.set_span_in_context(span))

    def end(self, begun: Begun, code: str) -> None:
        """End the span with the name of the call's status; the span before it is the thread's current one again."""
        span, token = begun
        self._context.detach(token)
        span.set_attribute("rpc.grpc.status", code)
        if code != "OK":
            span.set_status(self._trace.StatusCode.ERROR)
        span.end()

    def outgoing(self) -> tuple[tuple[str, str], ...]:
        """Returns the metadata that makes a call to another service a child of the current span."""
        carrier: dict[str, str] = {}
        self._propagate.inject(carrier)
        return tuple(carrier.items())

    def close(self) -> None:
        self._provider.shutdown()
