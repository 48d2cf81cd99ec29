"""An OpenTelemetry collector in the test's own process: takes spans over OTLP/gRPC and keeps them."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span


@dataclass(frozen=True)
class Collected:
    """A span, and which service and instance sent it."""

    service: str
    instance: str
    span: Span

    @property
    def attributes(self) -> dict[str, str | int]:
        values = {each.key: each.value for each in self.span.attributes}
        return {
            key: value.string_value if value.HasField("string_value") else value.int_value
            for key, value in values.items()
        }


@dataclass
class Collector(TraceServiceServicer):
    """The collector's state."""

    endpoint: str = ""
    spans: list[Collected] = field(default_factory=list)

    def Export(  # noqa: N802 - the name in the proto
        self, request: ExportTraceServiceRequest, context: grpc.ServicerContext
    ) -> ExportTraceServiceResponse:
        for resource in request.resource_spans:
            named = {each.key: each.value.string_value for each in resource.resource.attributes}
            for scope in resource.scope_spans:
                self.spans += [
                    Collected(named["service.name"], named["service.instance.id"], span) for span in scope.spans
                ]
        return ExportTraceServiceResponse()


@contextmanager
def collector() -> Iterator[Collector]:
    """A collector that listens on a free port of the loopback interface."""
    found = Collector()
    server = grpc.server(ThreadPoolExecutor(2))
    add_TraceServiceServicer_to_server(found, server)  # type: ignore[no-untyped-call] # generated without types
    found.endpoint = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield found
    finally:
        server.stop(None).wait()
