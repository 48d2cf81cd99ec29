"""A simulated node while it leads, around the product's decisions.

The order of steps is that of `ops/leading.py` and `primary/writer.py`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from agent_core.log.record import RecordKind
from agent_core.position import Position
from agent_core.quorum import Acknowledgement, CommitTracker
from agent_core.routing import ShardLayout
from agent_core.rpc import replication_pb2 as pb
from primary.electing.supervisor import PREPARING_SECONDS
from primary.electing.tenure import Tenure
from primary.greeting import Identity
from tests.simulation.candidacy import FAILURE_TIMEOUT_SECONDS
from tests.simulation.checkers import Acknowledged
from tests.simulation.following import HEARTBEAT_SECONDS
from tests.simulation.network import Stream
from tests.simulation.resync_source import SimulatedResyncSource
from tests.simulation.sessions import Actors, Answer, Append, Transaction
from tests.simulation.storage import GROUP, Entry, LogRecord
from tests.simulation.streaming import SimulatedStreams
from tests.simulation.voter import LEASE_SECONDS

if TYPE_CHECKING:
    from tests.simulation.node import SimulatedNode

HAND_OVER_SECONDS = 1.0
DRAIN_SECONDS = 5.0
BATCH_ENTRIES = 4
UNCOMMITTED_TRANSACTIONS = 32


class SimulatedLeading:
    """One node's lead of one epoch.

    Attributes:
        epoch: The epoch.
        serving: Sessions are served: the record that opened the epoch is committed.
    """

    def __init__(self, node: SimulatedNode, epoch: int, *, unlogged: bool) -> None:
        self.node = node
        self.epoch = epoch
        self.serving = False
        self.log, self.shard = node.disk.log, node.disk.shard
        self._unlogged = unlogged
        self._lease = node.decisions.lease(node.name, node.voters, LEASE_SECONDS)
        self._tenure = Tenure(node.name, node.voters, node.clock(), FAILURE_TIMEOUT_SECONDS)
        self._tracker: CommitTracker | None = None
        self._streams = SimulatedStreams(
            node,
            Identity("simulated", ShardLayout(1, 1), GROUP, node.name, epoch),
            committed=lambda: self._tracker.committed_lsn if self._tracker is not None else 0,
            on_durable=self.durable,
            on_hello=self._goes_on_from,
            on_heard=self._heard,
            on_fenced=self._fenced,
        )
        self._source = SimulatedResyncSource(node, self._streams.progress)
        self._actors = Actors()
        self._queue: deque[Append] = deque()
        self._unreleased: deque[Transaction] = deque()
        self._writing = False
        self._deposed = False
        self._preparing = False
        self._stopping = False
        self._over = False
        self._stopped: Callable[[], None] | None = None
        self._drained: Callable[[], None] | None = None
        self._checked_lsn = 0
        node.voter.on_raised.append(self._own_voter_sealed)
        node.after(0.0, self._own_voter_sealed, node.voter.floor)
        node.after(node.world.between(0.001, 0.01), self._begin)
        node.after(HEARTBEAT_SECONDS, self._beat)

    # From the opening of the epoch to the step down

    def _begin(self) -> None:
        if self._over:
            return
        node = self.node
        opening = self._append(RecordKind.EPOCH)
        if self._unlogged:
            # The shard's own new position is checkpointed before the log has the record.
            entries = self.shard.entries()
            self.shard.replace(Position(self.epoch, self.log.last.lsn + 1), entries)
            self._append(RecordKind.RESET, entries)
            self._append(RecordKind.EPOCH)
        self._writing = True
        node.after(node.sync_seconds(), self._begun, opening, self.log.last.lsn, self.log.begin_sync())

    def _begun(self, opening: LogRecord, last_lsn: int, began: tuple[int, int]) -> None:
        self._writing = False
        self.log.end_sync(began)
        if self._over:
            self._finish_stop()
            return
        self._tracker = self.node.decisions.tracker(self.node.name, self.node.voters, opening.position.lsn)
        self._serves_at_lsn = last_lsn
        self.durable(self.node.name, self.log.durable_lsn)

    def _append(self, kind: RecordKind, entries: tuple[Entry, ...] = ()) -> LogRecord:
        record = self.node.mint.make(kind, Position(self.epoch, self.log.last.lsn + 1), entries)
        self.node.checkers.appends(self.node.name, record, self.log.last)
        self.log.append(record)
        return record

    @property
    def begins(self) -> bool:
        """Whether its epoch is not open yet: standbys wait for that."""
        return self._tracker is None and not self._over

    def _lead(self) -> None:
        self.serving = True
        self.node.succession_ends()
        for entry in self.shard.entries():
            self._actors.show(entry)
        self.node.note("serves epoch", self.epoch)
        self.node.on_serving(self.node)

    def _own_voter_sealed(self, epoch: int) -> None:
        if self.node.decisions.steps_down_when_its_voter_seals:
            self._fenced(epoch)

    def _fenced(self, promised_epoch: int) -> None:
        if promised_epoch > self.epoch:
            self._deposed = True
            self._step_down(f"epoch {promised_epoch} was promised to another")

    def placed(self, epoch: int) -> None:
        """The map names the primary of `epoch`."""
        if epoch > self.epoch:
            self._deposed = True
            self._step_down(f"epoch {epoch} has another primary")

    def _step_down(self, reason: str) -> None:
        if not self._over:
            self.node.note("steps down:", reason)
            self.stop(self.node.follow)

    def stop(self, then: Callable[[], None]) -> None:
        """End the streams, leave what waits as unknown; `then` once nothing writes any more."""
        if self._over:
            return
        self._over = self._stopping = True
        self.serving = False
        self.node.sealed_epoch = 0
        self.node.attending.news()
        self.node.voter.on_raised.remove(self._own_voter_sealed)
        self.node.voter.watch.released()
        self._streams.close()
        self._source.close()
        self._fail_waiting()
        self._stopped = then
        if not self._writing:
            self._finish_stop()

    def _finish_stop(self) -> None:
        if self._stopped is not None:
            then, self._stopped = self._stopped, None
            self.node.after(0.0, then)

    def hand_over(self, to: str, number: int) -> None:
        """Let `to` prepare; take no more, have everything acknowledged, wait for `to`, step down."""
        if self._stopping or self._preparing:
            self.node.answer(number)
            return
        self._preparing = True
        # Its successor reads sessions meanwhile; this node serves on.
        self.node.after(self.node.world.between(0.0, PREPARING_SECONDS), self._take_no_more, to)

    def _take_no_more(self, to: str) -> None:
        if self._stopping:
            return
        self.node.note("hands over to", to)
        self.node.succession_begins()
        self._stopping = True
        self.serving = False
        self._drained = lambda: self._wait_for_heir(to, self.node.clock() + HAND_OVER_SECONDS)
        self.node.after(DRAIN_SECONDS, self._drain_over)
        self._check_drained()

    def _drain_over(self) -> None:
        if self._drained is not None and not self._over:
            drained, self._drained = self._drained, None
            drained()

    def _check_drained(self) -> None:
        if not self._unreleased and not self._queue and not self._writing:
            self._drain_over()

    def _wait_for_heir(self, to: str, deadline: float) -> None:
        if self._over:
            return
        progress = self._streams.progress.get(to)
        held = progress is not None and progress.durable_lsn >= self.log.last.lsn
        if not held and self.node.clock() < deadline:
            self.node.after(0.02, self._wait_for_heir, to, deadline)
            return
        self._step_down("handed over")

    def _beat(self) -> None:
        if self._over:
            return
        node, now = self.node, self.node.clock()
        if self._lease.valid(now):
            node.voter.watch.heard(now)
        for name in self._source.receivers:
            self._tenure.heard(name, now)
        if self._tenure.is_over(now):
            self._step_down("no majority was heard")
            return
        self._streams.beat()
        node.after(HEARTBEAT_SECONDS, self._beat)

    # Streams

    def hello(self, stream: Stream, hello: pb.Hello) -> None:
        """A standby wants to follow."""
        if self._over or self._tracker is None:
            stream.end(self.node, "unavailable")
        else:
            self._streams.hello(stream, hello)

    def stream_ended(self, stream: Stream, _reason: str) -> None:
        """A standby's stream ended, or it broke."""
        self._source.ended(stream)
        self._streams.ended(stream)

    def progress(self, stream: Stream, durable_lsn: int, applied_lsn: int, heard_us: int) -> None:
        """A standby told how far it is."""
        if not self._over:
            self._streams.reported(stream, durable_lsn, applied_lsn, heard_us)

    def echoed(self, name: str, echo: pb.Echo) -> None:
        """A standby heard a shared heartbeat."""
        if not self._over:
            self._streams.echoed(name, echo)

    def resync(self, stream: Stream, number: int) -> None:
        """A standby wants the whole shard."""
        if self._over or self._tracker is None:
            stream.end(self.node, "unavailable")
        else:
            self._source.serve(stream, number, self._tracker)

    def _heard(self, name: str, sent_at: float) -> None:
        sent_at = min(sent_at, self.node.clock())
        self._lease.echoed(name, sent_at)
        self._tenure.heard(name, sent_at)

    # Sessions

    def append(self, entry: Entry, answer: Answer) -> None:
        """A caller wants to append."""
        if not self.serving:
            answer("not primary", 0, Position(0, 0))
            return
        seq = self._actors.seqs.get(entry)
        if seq is not None:
            tracker = self._tracker
            assert tracker is not None, "sessions are served"
            self._acknowledge(Append(entry, [answer], seq), Position(self.epoch, tracker.committed_lsn))
            return
        on_its_way = self._actors.on_their_way.get(entry)
        if on_its_way is not None:
            on_its_way.waiters.append(answer)
            return
        append = Append(entry, [answer])
        self._actors.on_their_way[entry] = append
        self._queue.append(append)
        self._write()

    def read(self, session: str) -> tuple[str, ...] | None:
        """A session's entries if this node may show them without asking anybody."""
        if not self.serving or not self._lease.valid(self.node.clock()):
            return None
        return tuple(self._actors.visible.get(session, ()))

    def _write(self) -> None:
        if self._writing or not self._queue or len(self._unreleased) >= UNCOMMITTED_TRANSACTIONS or self._over:
            return
        self._writing = True
        count = min(BATCH_ENTRIES, len(self._queue))
        batch = [self._queue.popleft() for _ in range(count)]
        position = Position(self.epoch, self.log.last.lsn + 1)
        entries = tuple(append.entry for append in batch)
        self.shard.commit(position, entries)
        self.node.after(self.node.world.between(0.0001, 0.001), self._log, batch, entries)

    def _log(self, batch: list[Append], entries: tuple[Entry, ...]) -> None:
        record = self._append(RecordKind.TRANSACTION, entries)
        self._streams.pump_all()
        self.node.after(self.node.sync_seconds(), self._written, batch, record, self.log.begin_sync())
        if not self._over:
            self._unreleased.append(Transaction(record.position, batch))

    def _written(self, batch: list[Append], record: LogRecord, began: tuple[int, int]) -> None:
        self._writing = False
        self.log.end_sync(began)
        if self._over:
            for append in batch:
                self._tell(append, "unknown", record.position)
            self._finish_stop()
            return
        self.durable(self.node.name, self.log.durable_lsn)
        self._write()

    def _goes_on_from(self, name: str, lsn: int) -> None:
        if self._tracker is not None:
            self._tracker.goes_on_from(name, lsn)

    def durable(self, name: str, lsn: int) -> None:
        """A node holds the log durably up to `lsn`: release what that makes safe."""
        tracker = self._tracker
        if self._deposed or tracker is None:
            return
        if tracker.durable(name, lsn):
            count = tracker.committed_lsn - self._checked_lsn
            after = max(self._checked_lsn, self.log.base.lsn)
            self.node.checkers.commits(
                self.node.name, self.epoch, self.log.after(after, count), tracker.committed_lsn
            )
            self._checked_lsn = tracker.committed_lsn
            self.log.note_committed(tracker.committed_lsn)
            self.node.publish(Position(self.epoch, tracker.committed_lsn))
            if not self.serving and not self._stopping and tracker.committed_lsn >= self._serves_at_lsn:
                self._lead()
            self._streams.pump_all()
        visible_lsn = tracker.safe_lsn(Acknowledgement.QUORUM)
        while self._unreleased and self._unreleased[0].position.lsn <= visible_lsn:
            transaction = self._unreleased.popleft()
            for append in transaction.appends:
                append.seq = self._actors.show(append.entry)
                self._actors.on_their_way.pop(append.entry, None)
                self._acknowledge(append, transaction.position)
        self._check_drained()
        self._write()

    def _acknowledge(self, append: Append, position: Position) -> None:
        node = self.node
        acknowledged = Acknowledged(append.entry, append.seq, position)
        node.checkers.acknowledges(node.name, self.epoch, node.voter.floor, acknowledged)
        self._tell(append, "acknowledged", position)

    def _tell(self, append: Append, outcome: str, position: Position) -> None:
        waiters, append.waiters = append.waiters, []
        for answer in waiters:
            answer(outcome, append.seq, position)

    def _fail_waiting(self) -> None:
        for append in self._queue:
            self._tell(append, "not primary", Position(0, 0))
        self._queue.clear()
        for transaction in self._unreleased:
            for append in transaction.appends:
                self._tell(append, "unknown", transaction.position)

    def tidy(self, keep: int) -> None:
        """Checkpoint, and drop the log but for its last `keep` committed records."""
        if self._tracker is not None and not self._over:
            self.shard.checkpoint()
            self.log.drop_through(min(self._tracker.committed_lsn, self.shard.lsn) - keep)
