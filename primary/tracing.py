"""The stages of traced appends on the primary: actor, writer, stream and acknowledgement.

Many appends share a batch, a transaction and a message, and few of them are traced. Each traced one gets spans of
its own, side by side below its client's span; those that shared a transaction bear the same `headwater.lsn`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from agent_core.errors import HeadwaterError
from agent_core.position import START, Position
from agent_core.rpc import replication_pb2 as pb
from agent_core.tracing import MAX_OPEN_SPANS, Span, Tracer, is_sampled
from primary.mutation import OutcomeSink, Transaction

MAX_TRACES_PER_MESSAGE = 32


class TracedOutcome:
    """Stands before an append's sink, and ends one stage where the next begins."""

    def __init__(self, tracer: Tracer, traceparent: str, sink: OutcomeSink) -> None:
        self.traceparent = traceparent
        self._tracer = tracer
        self._sink = sink
        self._stage = tracer.begin("actor", "server", traceparent)

    def batched(self, shard: int, entries: int) -> None:
        """The writer has taken it into a transaction of so many entries."""
        self._next("writer")
        if self._stage is not None:
            self._stage.note(shard=shard, entries=entries)

    def logged(self, position: Position) -> None:
        """Its transaction is committed in SQLite and written to the log."""
        if self._stage is not None:
            self._stage.note(epoch=position.epoch, lsn=position.lsn)
        self._next("acknowledgement")

    def appended(self, request_id: int, group: int, seq: int, position: Position, *, duplicate: bool) -> None:
        """It is safe."""
        if self._stage is not None:
            self._stage.note(group=group, seq=seq)
            self._stage.end()
        self._sink.appended(request_id, group, seq, position, duplicate=duplicate)

    def failed(self, request_id: int, error: HeadwaterError) -> None:
        """It was not acknowledged."""
        if self._stage is not None:
            self._stage.end(f"{error.code}: {error}")
        self._sink.failed(request_id, error)

    def _next(self, name: str) -> None:
        if self._stage is not None:
            self._stage.end()
        self._stage = self._tracer.begin(name, "internal", self.traceparent)


def traced(tracer: Tracer, traceparent: str, sink: OutcomeSink) -> OutcomeSink:
    """Where the outcome of an append with this context goes: `sink` itself if its trace is not recorded."""
    return TracedOutcome(tracer, traceparent, sink) if is_sampled(traceparent) else sink


class GroupTraces:
    """Follows one group's traced appends through its writer and its streams."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        self._batch: list[tuple[Transaction, list[TracedOutcome]]] = []
        # Also those that are being written: a stream may read their records before `logged` is called.
        self._recent: deque[tuple[Transaction, list[TracedOutcome]]] = deque(maxlen=MAX_OPEN_SPANS)
        self._streamed: dict[str, deque[tuple[int, Span]]] = {}

    def batched(self, transactions: Sequence[Transaction]) -> None:
        """A batch was closed, and is about to be written."""
        self._batch.clear()
        for transaction in transactions:
            outcomes = [
                waiter.sink
                for mutation in transaction.mutations
                for waiter in mutation.waiters
                if isinstance(waiter.sink, TracedOutcome)
            ]
            if outcomes:
                self._batch.append((transaction, outcomes))
                for outcome in outcomes:
                    outcome.batched(transaction.shard, len(transaction.mutations))
        self._recent.extend(self._batch)

    def logged(self) -> None:
        """The batch is in the log, but for what SQLite refused."""
        for transaction, outcomes in self._batch:
            if transaction.position != START:
                for outcome in outcomes:
                    outcome.logged(transaction.position)
        self._batch.clear()

    def sent(self, standby: str, first_lsn: int, last_lsn: int) -> list[pb.TracedRecord]:
        """Records are about to be sent to a standby: what has to go along for the traced ones among them."""
        traced: list[pb.TracedRecord] = []
        streamed = self._streamed.setdefault(standby, deque(maxlen=MAX_OPEN_SPANS))
        for transaction, outcomes in self._recent:
            lsn = transaction.position.lsn
            if not first_lsn <= lsn <= last_lsn:
                continue
            for outcome in outcomes[: MAX_TRACES_PER_MESSAGE - len(traced)]:
                span = self._tracer.begin("stream", "producer", outcome.traceparent)
                if span is not None:
                    span.note(standby=standby, lsn=lsn)
                    streamed.append((lsn, span))
                    traced.append(pb.TracedRecord(lsn=lsn, traceparent=span.traceparent))
        return traced

    def durable(self, standby: str, lsn: int) -> None:
        """A standby holds the log durably up to `lsn`."""
        streamed = self._streamed.get(standby)
        while streamed and streamed[0][0] <= lsn:
            streamed.popleft()[1].end()
