"""What the project's parts need of a tracer, whoever makes it; `agent_core.open_telemetry` does.

Whether an append is traced is decided once, by its client. Its context travels with it, as the W3C's traceparent:
in the append, and with the record that holds it. Appends that nobody traces carry nothing, and cost nothing.
"""

from __future__ import annotations

import re
from typing import Literal, Protocol

SpanKind = Literal["client", "server", "internal", "producer", "consumer"]

MAX_OPEN_SPANS = 256
"""Spans that one part holds open; further ones are not recorded. Contexts come from outside: they need a bound."""

_SAMPLED = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-0[13579bdf]")


def is_sampled(traceparent: str) -> bool:
    """Whether this is the well-formed context of a trace that is recorded.

    Source: https://www.w3.org/TR/trace-context/#traceparent-header
    """
    return _SAMPLED.fullmatch(traceparent) is not None


class Span(Protocol):
    """A stage of one append that has begun.

    Attributes:
        traceparent: The context for stages within it, wherever they run.
    """

    traceparent: str

    def note(self, **attributes: str | int) -> None:
        """Say more about the stage; names get the prefix `headwater.`."""

    def end(self, error: str = "") -> None:
        """The stage is over; `error` says what went wrong."""


class Tracer(Protocol):
    """Begins spans."""

    def begin(self, name: str, kind: SpanKind, parent: str = "") -> Span | None:
        """Begin a stage now.

        Args:
            name: The stage.
            kind: OpenTelemetry's kind of span.
            parent: The sampled context that it belongs to; empty: a trace of its own begins.

        Returns:
            None: The trace is not recorded.
        """
