"""What traced appends may hold open, and what a stage says when it ends badly; no collector needed."""

from __future__ import annotations

from dataclasses import dataclass, field

from agent_core.errors import HeadwaterError, OutcomeUnknown
from agent_core.position import Position
from agent_core.rpc import replication_pb2 as pb
from agent_core.tracing import MAX_OPEN_SPANS, SpanKind
from primary.tracing import TracedOutcome, traced
from replica.tracing import ApplyTraces

CONTEXT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@dataclass
class FakeSpan:
    name: str
    parent: str
    traceparent: str = CONTEXT
    ended: list[str] = field(default_factory=list)

    def note(self, **attributes: str | int) -> None:
        """Nothing here asks for attributes."""

    def end(self, error: str = "") -> None:
        self.ended.append(error)


@dataclass
class FakeTracer:
    spans: list[FakeSpan] = field(default_factory=list)

    def begin(self, name: str, kind: SpanKind, parent: str = "") -> FakeSpan:
        self.spans.append(FakeSpan(name, parent))
        return self.spans[-1]


@dataclass
class FakeSink:
    outcomes: list[object] = field(default_factory=list)

    def appended(self, request_id: int, group: int, seq: int, position: Position, *, duplicate: bool) -> None:
        self.outcomes.append(seq)

    def failed(self, request_id: int, error: HeadwaterError) -> None:
        self.outcomes.append(error)


def test_an_untraced_append_keeps_its_own_sink() -> None:
    sink = FakeSink()
    assert traced(FakeTracer(), CONTEXT[:-1] + "0", sink) is sink
    assert traced(FakeTracer(), "rubbish", sink) is sink


def test_a_failed_append_ends_its_stage_with_the_error_and_tells_its_caller() -> None:
    tracer, sink = FakeTracer(), FakeSink()
    outcome = traced(tracer, CONTEXT, sink)
    assert isinstance(outcome, TracedOutcome)
    outcome.batched(shard=3, entries=2)
    error = OutcomeUnknown("too late")
    outcome.failed(7, error)
    assert sink.outcomes == [error]
    assert [(span.name, span.ended) for span in tracer.spans] == [
        ("actor", [""]),
        ("writer", ["outcome_unknown: too late"]),
    ]


def test_a_standby_holds_a_bounded_number_of_spans_and_ends_each_once_it_is_applied() -> None:
    tracer = FakeTracer()
    traces = ApplyTraces(tracer, group=0)
    traces.received(pb.TracedRecord(lsn=lsn, traceparent=CONTEXT) for lsn in range(1, 2 * MAX_OPEN_SPANS))
    assert len(tracer.spans) == MAX_OPEN_SPANS
    traces.applied(Position(1, 10))
    assert [span.ended for span in tracer.spans[:11]] == [[""]] * 10 + [[]]


def test_a_standby_passes_over_contexts_that_are_not_well_formed() -> None:
    tracer = FakeTracer()
    ApplyTraces(tracer, group=0).received([pb.TracedRecord(lsn=1, traceparent="rubbish")])
    assert tracer.spans == []
