"""Sends traces to an OpenTelemetry collector.

Needs `headwater[tracing]`, and is imported only where an endpoint is configured.
"""

from __future__ import annotations

from collections.abc import Mapping

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import Sampler
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from agent_core.tracing import Span, SpanKind

_KINDS: Mapping[SpanKind, trace.SpanKind] = {
    "client": trace.SpanKind.CLIENT,
    "server": trace.SpanKind.SERVER,
    "internal": trace.SpanKind.INTERNAL,
    "producer": trace.SpanKind.PRODUCER,
    "consumer": trace.SpanKind.CONSUMER,
}
_CONTEXT = TraceContextTextMapPropagator()


class OpenTelemetryTracer:
    """Sends spans over OTLP/gRPC, in batches, from a thread of its own; what cannot be sent is dropped.

    Everything else about it is set by OpenTelemetry's own environment variables, for example
    `OTEL_TRACES_SAMPLER=parentbased_traceidratio` with `OTEL_TRACES_SAMPLER_ARG=0.01`.

    Args:
        endpoint: The collector, as `http://host:port` or `https://host:port`.
        service: What `service.name` says.
        instance: What `service.instance.id` says: the node's id.
        timeout_seconds: How long sending may take; None: as the environment says, and 10 s by default.
        sampler: Which traces that begin here are recorded; None: as the environment says, and all by default.
    """

    def __init__(
        self,
        endpoint: str,
        *,
        service: str,
        instance: str = "",
        timeout_seconds: int | None = None,
        sampler: Sampler | None = None,
    ) -> None:
        resource = Resource.create({"service.name": service, "service.instance.id": instance})
        self._provider = TracerProvider(sampler=sampler, resource=resource)
        self._provider.add_span_processor(
            BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint, timeout=timeout_seconds))
        )
        self._tracer = self._provider.get_tracer("headwater")

    def begin(self, name: str, kind: SpanKind, parent: str = "") -> Span | None:
        """See `agent_core.tracing.Tracer`."""
        context = _CONTEXT.extract({"traceparent": parent}) if parent else None
        span = self._tracer.start_span(name, context=context, kind=_KINDS[kind])
        return _Recorded(span) if span.is_recording() else None

    def close(self) -> None:
        """Send what waits and stop; blocks for as long as sending may take."""
        self._provider.shutdown()


class _Recorded:
    def __init__(self, span: trace.Span) -> None:
        self._span = span
        carrier: dict[str, str] = {}
        _CONTEXT.inject(carrier, trace.set_span_in_context(span))
        self.traceparent = carrier["traceparent"]

    def note(self, **attributes: str | int) -> None:
        for name, value in attributes.items():
            self._span.set_attribute(f"headwater.{name}", value)

    def end(self, error: str = "") -> None:
        if error:
            self._span.set_status(trace.StatusCode.ERROR, error)
        self._span.end()
