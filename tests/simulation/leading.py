"""A simulated node while it leads, around the product's decisions.

The order of steps is that of `ops/leading.py`, `primary/streaming.py` and `primary/writer.py`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from agent_core.errors import Fenced, InvalidRequest
from agent_core.log.record import RecordKind
from agent_core.position import Position
from agent_core.quorum import Acknowledgement, CommitTracker, quorum_needs
from agent_core.routing import ShardLayout
from agent_core.rpc import replication_pb2 as pb
from agent_core.stream import to_message
from primary.electing.supervisor import PREPARING_SECONDS
from primary.electing.tenure import Tenure
from primary.greeting import Identity, check_hello, greet
from primary.progress import StandbyProgress, StandbyState
from primary.resync_source import COMMIT_WAIT_SECONDS
from tests.simulation.candidacy import FAILURE_TIMEOUT_SECONDS
from tests.simulation.checkers import Acknowledged
from tests.simulation.following import HEARTBEAT_SECONDS
from tests.simulation.network import Stream
from tests.simulation.sessions import Actors, Answer, Append, Transaction
from tests.simulation.storage import GROUP, Entry, LogRecord
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
        self._resyncing: dict[Stream, str] = {}
        self._identity = Identity("simulated", ShardLayout(1, 1), GROUP, node.name, epoch)
        self._tracker: CommitTracker | None = None
        self._streams: dict[str, Stream] = {}
        self._progress: dict[str, StandbyProgress] = {}
        self._told_committed: dict[str, int] = {}
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
        for stream in (*self._streams.values(), *self._resyncing):
            stream.end(self.node, "handed over")
        self._streams.clear()
        self._resyncing.clear()
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
        progress = self._progress.get(to)
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
        for name in self._resyncing.values():
            self._tenure.heard(name, now)
        if self._tenure.is_over(now):
            self._step_down("no majority was heard")
            return
        for name in list(self._streams):
            self._pump(name)
            self._send(name)
        node.after(HEARTBEAT_SECONDS, self._beat)

    # Streams

    def hello(self, stream: Stream, hello: pb.Hello) -> None:
        """A standby wants to follow."""
        node = self.node
        if self._over or self._tracker is None:
            stream.end(node, "unavailable")
            return
        try:
            theirs = check_hello(hello, self._identity)
        except Fenced as error:
            stream.end(node, "fenced")
            self._fenced(error.held)
            return
        name = hello.node_id
        before = self._streams.pop(name, None)
        if before is not None:
            before.end(node, "a newer stream took its place")
        progress = self._progress.setdefault(
            name, StandbyProgress(name, node.clock(), window_bytes=node.window_bytes)
        )
        greeting = greet(self.log.epochs, theirs, self._tracker.committed_lsn)
        progress.become_probing(node.clock())
        position = to_message(greeting.position)
        welcome = pb.Welcome(
            epoch=self.epoch,
            primary=node.name,
            shared=None if greeting.resync_required else position,
            resync_required=greeting.resync_required,
            base=position if greeting.resync_required else None,
            committed_lsn=self._tracker.committed_lsn,
        )
        self._streams[name] = stream
        self._told_committed[name] = self._tracker.committed_lsn
        if greeting.resync_required:
            progress.become_resyncing(greeting.position.lsn, node.clock())
        else:
            progress.become_streaming(greeting.position.lsn, node.clock())
        stream.send(node, "welcome", welcome)
        self._pump(name)

    def stream_ended(self, stream: Stream, _reason: str) -> None:
        """A standby's stream ended, or it broke."""
        self._resyncing.pop(stream, None)
        for name, open_stream in list(self._streams.items()):
            if open_stream is stream:
                del self._streams[name]
                if self._progress[name].state is not StandbyState.RESYNCING:
                    self._progress[name].become_gone(self.node.clock())

    def progress(self, stream: Stream, durable_lsn: int, applied_lsn: int, heard_us: int) -> None:
        """A standby told how far it is."""
        name = stream.other(self.node).name
        if self._over or self._streams.get(name) is not stream:
            return
        try:
            self._progress[name].acknowledge(durable_lsn, applied_lsn)
        except InvalidRequest as error:
            self.node.note("ends the stream of", name, error)
            del self._streams[name]
            stream.end(self.node, "invalid")
            return
        self.durable(name, durable_lsn)
        sent_at = min(heard_us / 1e6, self.node.clock())
        self._lease.echoed(name, sent_at)
        self._tenure.heard(name, sent_at)
        if name in self._streams:
            self._pump(name)

    def _pump(self, name: str) -> None:
        progress, tracker = self._progress[name], self._tracker
        assert tracker is not None, "there are streams"
        while progress.state is StandbyState.STREAMING and progress.sent_lsn < self.log.last.lsn:
            if progress.sent_lsn < self.log.base.lsn:
                self._streams.pop(name).end(self.node, "position compacted")
                progress.become_gone(self.node.clock())
                return
            records = self.log.after(progress.sent_lsn, self.node.message_records)
            block = b"".join(record.encoded for record in records)
            if not progress.may_send(len(block)):
                return
            progress.sent(records[-1].position.lsn, len(block))
            self._send(name, records[0].position.lsn, block)
        if tracker.committed_lsn > self._told_committed[name]:
            self._send(name)

    def _send(self, name: str, first_lsn: int = 0, block: bytes = b"") -> None:
        stream, tracker = self._streams.get(name), self._tracker
        if stream is None or tracker is None:
            return
        self._told_committed[name] = tracker.committed_lsn
        message = pb.Records(
            epoch=self.epoch,
            first_lsn=first_lsn,
            records=block,
            committed_lsn=tracker.committed_lsn,
            last_lsn=self.log.last.lsn,
            bytes_behind=0,
            sent_at_us=int(self.node.clock() * 1e6),
        )
        stream.send(self.node, "records", message)

    def resync(self, stream: Stream, number: int) -> None:
        """A standby wants the whole shard; it gets what is in it now, once that is committed."""
        if self._over or self._tracker is None:
            stream.end(self.node, "unavailable")
            return
        self._resyncing[stream] = stream.other(self.node).name
        give_up_at = self.node.clock() + COMMIT_WAIT_SECONDS
        self._answer_resync(stream, number, self.shard.contains, self.shard.entries(), give_up_at)

    def _answer_resync(
        self, stream: Stream, number: int, position: Position | None, entries: tuple[Entry, ...], give_up_at: float
    ) -> None:
        if self._over or self._tracker is None or stream not in self._resyncing:
            return
        committed = position is None or position.lsn <= self._tracker.committed_lsn
        if not committed and self.node.clock() < give_up_at:
            self.node.after(0.05, self._answer_resync, stream, number, position, entries, give_up_at)
            return
        if not committed and not self._quorum_needs(stream.other(self.node).name):
            del self._resyncing[stream]
            stream.end(self.node, "not committed in time")
            return
        del self._resyncing[stream]
        stream.send(self.node, "resynced", number, position, entries, committed)

    def _quorum_needs(self, name: str) -> bool:
        assert self._tracker is not None, "there is an epoch to commit in"
        next_lsn = max(self._tracker.opening_lsn, self._tracker.committed_lsn + 1)
        holding = [
            standby
            for standby, one in self._progress.items()
            if one.state is StandbyState.STREAMING and one.durable_lsn >= next_lsn
        ]
        resyncing = frozenset(self._resyncing.values())
        return quorum_needs(name, self.node.voters, {self.node.name, *holding}, resyncing)

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
        for name in list(self._streams):
            self._pump(name)
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
            for stream_name in list(self._streams):
                self._pump(stream_name)
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
