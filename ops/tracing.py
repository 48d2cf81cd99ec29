"""The tracer of a node or a command, where a collector is named; else OpenTelemetry is not even imported."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from agent_core.errors import HeadwaterError

if TYPE_CHECKING:
    from agent_core.open_telemetry import OpenTelemetryTracer


def endpoint_problem(endpoint: str) -> str | None:
    """Why this cannot be a collector's endpoint; None: it can, or it is empty."""
    if not endpoint or re.fullmatch(r"https?://[^\s/]{1,280}", endpoint):
        return None
    return (
        f"is {endpoint[:120]!r}; allowed are http://HOST:PORT and "
        "https://HOST:PORT of a collector that takes OTLP over gRPC, or nothing"
    )


def open_tracer(
    endpoint: str, *, service: str, instance: str = "", timeout_seconds: int | None = None
) -> OpenTelemetryTracer | None:
    """A tracer that sends to a collector, to be closed by the caller; None: no collector is named.

    Args:
        endpoint: The collector's.
        service: What `service.name` says.
        instance: What `service.instance.id` says.
        timeout_seconds: How long sending may take; None: as OpenTelemetry's environment variables say.

    Raises:
        HeadwaterError: OpenTelemetry is not installed.
    """
    if not endpoint:
        return None
    try:
        from agent_core.open_telemetry import OpenTelemetryTracer  # noqa: PLC0415
    except ImportError as error:
        raise HeadwaterError(
            f"traces are to go to {endpoint}, and {error.name} is not installed; install headwater[tracing], "
            "or leave the endpoint empty"
        ) from error
    return OpenTelemetryTracer(endpoint, service=service, instance=instance, timeout_seconds=timeout_seconds)
