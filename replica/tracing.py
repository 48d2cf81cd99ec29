"""The last stage of traced appends: from a record's arrival at a standby until its shards contain it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from agent_core.position import Position
from agent_core.rpc import replication_pb2 as pb
from agent_core.tracing import MAX_OPEN_SPANS, Span, Tracer, is_sampled


class ApplyTraces:
    """Follows one group's traced records on a standby."""

    def __init__(self, tracer: Tracer, group: int) -> None:
        self._tracer = tracer
        self._group = group
        self._open: deque[tuple[int, Span]] = deque()

    def received(self, records: Iterable[pb.TracedRecord]) -> None:
        """Records were accepted, these traced ones among them."""
        for record in records:
            if len(self._open) >= MAX_OPEN_SPANS:
                return
            if is_sampled(record.traceparent):
                span = self._tracer.begin("apply", "consumer", record.traceparent)
                if span is not None:
                    span.note(group=self._group, lsn=record.lsn)
                    self._open.append((record.lsn, span))

    def applied(self, position: Position) -> None:
        """The shards contain everything up to `position`."""
        while self._open and self._open[0][0] <= position.lsn:
            self._open.popleft()[1].end()
