"""A simulated node while it follows or stands for election, around the product's decisions.

The order of steps is that of `ops/membership.py`, `replica/following.py`, `replica/incoming.py` and
`replica/standby_group.py`.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from agent_core.log.record import RecordKind
from agent_core.position import START, Position
from agent_core.rpc import replication_pb2 as pb
from agent_core.stream import to_message
from primary.opening import Vote
from replica.fitness import is_ahead, why_unfit
from replica.receiving import Follow, Receiver, Refused
from replica.reset_patience import RESET_PATIENCE_SECONDS
from tests.simulation.candidacy import SimulatedCandidacy
from tests.simulation.network import Stream
from tests.simulation.storage import GROUP, SHARD, Entry
from tests.simulation.world import Violation

if TYPE_CHECKING:
    from tests.simulation.node import SimulatedNode

HEARTBEAT_SECONDS = 0.1
SILENCE_SECONDS = 20 * HEARTBEAT_SECONDS
LONGEST_DELAY_SECONDS = 2.0
RESYNC_TIMEOUT_SECONDS = 12.0


class SimulatedFollowing:
    """One node's time as a standby, from its start or the end of its lead to the next.

    Attributes:
        applied: The shard contains everything up to here.
        primary: The node that was followed last.
        heard_at: When it was heard, on the node's clock; None when it never was.
    """

    def __init__(self, node: SimulatedNode) -> None:
        self.node = node
        self.log, self.shard = node.disk.log, node.disk.shard
        self.primary = ""
        self.heard_at: float | None = None
        self.resyncing = False
        self._over = False
        self._candidacy: SimulatedCandidacy | None = None
        self._nomination: int | None = None
        self._receiver = Receiver(group=GROUP, shards=frozenset({SHARD}))
        self._known_committed_lsn = max(self.log.base.lsn, self.log.noted_committed_lsn)
        self._broken = False
        self._reset_lsn: int | None = None
        self._resynced_in: int | None = None
        self._epoch = 0
        self._stream: Stream | None = None
        self._receiving = False
        self._waiting: list[pb.Records] = []
        self._attempt = 0
        self._misled = False
        self._delay = 0.05
        self._syncing = False
        self._applying = False
        self._echo_due = False
        self._told = (-1, -1)
        self._heard_us = self._told_heard_us = 0
        self.applied = self._survey()
        self._resync_number = -1
        self._resync_stream: Stream | None = None
        node.voter.on_raised.append(self._fence)
        self._retry(0.0)
        node.after(HEARTBEAT_SECONDS, self._watch)

    # What the node asks

    @property
    def able(self) -> bool:
        """Whether this node could lead."""
        if self._broken or self._reset_lsn is not None:
            return False
        fit = why_unfit(self.shard.holds, self.log.epochs, resynced_in_this_epoch=False) is None
        return fit or is_ahead(self.shard.holds, self.log.last)

    def stop(self) -> None:
        """Follow no more."""
        self._over = True
        if self._candidacy is not None:
            self._candidacy.give_up()
        self._end_stream("stopped")
        self._end_resync_stream()
        self.node.voter.on_raised.remove(self._fence)

    def try_now(self, *, elsewhere: bool) -> None:
        """There may be another primary."""
        self._delay = 0.05
        if elsewhere and self._stream is not None and not self._welcomed:
            self._end_stream("there may be another primary")
        if self._stream is None and not self.resyncing:
            self._retry(0.0)

    # Standing for election

    def nominate(self, number: int) -> None:
        """The supervisor wants this node to lead."""
        self._nomination = number
        if self._candidacy is None:
            self._stand(number)

    def answered(self, voter: str, epoch: int, number: int, vote: Vote) -> None:
        """A voter answered."""
        if self._candidacy is not None:
            self._candidacy.answered(voter, epoch, number, vote)

    @property
    def asks(self) -> bool:
        """Whether it asks for seals."""
        return self._paused

    @property
    def _paused(self) -> bool:
        return self._candidacy is not None and self._candidacy.asks

    def _stand(self, number: int) -> None:
        self._nomination = None
        self._candidacy = SimulatedCandidacy(self.node, number, self._pause, self._elected, self._not_elected)
        self._candidacy.begin(able=self.able)

    def _pause(self) -> None:
        self._end_stream("standing for election")

    def _elected(self, epoch: int) -> None:
        """Apply the whole log, committed or not, and lead."""
        self.shard.install()
        for record in self.log.after(self.applied.lsn, len(self.log.records)):
            if not self._contains(record.kind, record.position):
                if record.kind is RecordKind.RESET:
                    self.node.fail_group()
                    return
                self.shard.commit(record.position, record.entries)
        self.node.lead(epoch, unlogged=is_ahead(self.shard.contains, self.log.last))

    def _not_elected(self) -> None:
        self._candidacy = None
        self._retry(0.0)
        if self._nomination is not None:
            self._stand(self._nomination)

    # Following

    def _fence(self, epoch: int) -> None:
        if self._stream is not None and self._receiving and self._epoch < self.node.decisions.floor(epoch):
            self._fail("fenced")

    def _retry(self, delay: float) -> None:
        self._attempt += 1
        self.node.after(delay, self._try, self._attempt)

    def _try(self, attempt: int) -> None:
        if attempt != self._attempt or self._over or self._paused or self._stream is not None or self.resyncing:
            return
        primary = self.node.presumed_primary(misled=self._misled)
        if primary is None:
            self._misled = False
            self._back_off()
            return
        began = self.log.begin_sync()
        self.node.after(self.node.sync_seconds(), self._say_hello, attempt, primary, began)

    def _say_hello(self, attempt: int, primary: str, began: tuple[int, int]) -> None:
        if attempt != self._attempt or self._over or self._paused:
            return
        self.log.end_sync(began)
        node, epochs = self.node, self.log.epochs
        self._stream = node.open_stream(node.peers[primary])
        self._receiving = self._welcomed = False
        self._waiting = []
        self._quiet_since = node.clock()
        self._held = epochs.last
        self._receiver.begin(epochs.last)
        hello = pb.Hello(
            cluster_id="simulated",
            node_id=node.name,
            group=GROUP,
            shard_count=1,
            shard_group_count=1,
            promised_epoch=node.decisions.floor(node.voter.floor),
            last=to_message(epochs.last),
            epochs=[pb.EpochStart(epoch=start.epoch, first_lsn=start.first_lsn) for start in epochs.starts],
            committed_lsn=self.committed_lsn,
            base=to_message(epochs.base),
        )
        self._stream.send(node, "hello", hello)

    def stream_ended(self, stream: Stream, reason: str) -> None:
        """The primary ended the stream, or it broke."""
        if stream is self._resync_stream:
            self._resync_failed(self._resync_number)
        elif stream is self._stream:
            self._misled = reason == "not primary"
            if reason == "handed over":
                self.node.voter.watch.released()
            self._stream = None
            self._back_off()

    def _fail(self, reason: str) -> None:
        self.node.note("ends its stream:", reason)
        self._misled = False
        self._end_stream(reason)
        self._back_off()

    def _end_stream(self, reason: str) -> None:
        if self._stream is not None:
            stream, self._stream = self._stream, None
            stream.end(self.node, reason)
        self._receiving = False

    def _back_off(self) -> None:
        self._retry(self._delay * self.node.world.between(0.5, 1.0))
        self._delay = min(2 * self._delay, LONGEST_DELAY_SECONDS)

    def _watch(self) -> None:
        if self._over:
            return
        if self._stream is not None and self.node.clock() - self._quiet_since > SILENCE_SECONDS:
            self._fail("silence")
        self.node.after(HEARTBEAT_SECONDS * 5, self._watch)

    def welcome(self, stream: Stream, message: pb.Welcome) -> None:
        """The primary's first message."""
        if stream is not self._stream:
            return
        if self._welcomed:
            self._fail("a second welcome came")
            return
        self._welcomed = True
        self._quiet_since = self.node.clock()
        floor = self.node.decisions.floor(self.node.voter.floor)
        follow = self._receiver.welcome(message, promised_epoch=floor, held=self._held)
        if isinstance(follow, Refused):
            self._fail(f"welcome refused: {follow.detail}")
            return
        self.node.voter.adopt(follow.epoch, follow.primary, partial(self._go_back, stream, follow))

    def _go_back(self, stream: Stream, follow: Follow) -> None:
        node = self.node
        if stream is not self._stream or self._over:
            return
        if follow.epoch < node.decisions.floor(node.voter.floor):
            self._fail("fenced")
            return
        self.primary = node.voter.watch.primary = follow.primary
        if follow.goes_on_from.lsn < self.committed_lsn:
            raise Violation(
                f"{node.name} knows {self.committed_lsn} to be committed; {follow.primary} of epoch {follow.epoch} "
                f"shares its history only up to {follow.goes_on_from}"
            )
        self._epoch = follow.epoch
        if self._reset_lsn is not None:
            node.after(RESET_PATIENCE_SECONDS, self._lose_patience)
        if not follow.resync_required and follow.goes_on_from != self.log.last and node.decisions.cuts_back:
            node.note("cuts its log back from", self.log.last, "to", follow.goes_on_from)
            self.log.cut_back(follow.goes_on_from)
            if self._reset_lsn is not None and self._reset_lsn > follow.goes_on_from.lsn:
                self._reset_lsn = None
            if self.applied.lsn > follow.goes_on_from.lsn:
                self.applied = follow.goes_on_from
        if follow.resync_required:
            self._end_stream("resyncs")
            self._broken = True
            self._resync(partial(self._begin_anew, follow.goes_on_from))
        elif self._why_unfit() is not None:
            self._broken = True
            self._end_stream("resyncs")
            self._resync(lambda: None)
        else:
            self._broken = False
            self._receive(stream, follow)

    def _receive(self, stream: Stream, follow: Follow) -> None:
        self._receiving = True
        self._told = (-1, -1)
        self._heard_us = self._told_heard_us = 0
        self._commit(follow.committed_lsn)
        self._sync()
        waiting, self._waiting = self._waiting, []
        for message in waiting:
            self.records(stream, message)
        if stream is self._stream:
            self._acknowledge()

    def records(self, stream: Stream, message: pb.Records) -> None:
        """Records, or a heartbeat."""
        if stream is not self._stream:
            return
        node = self.node
        self._quiet_since = node.clock()
        if not self._receiving:
            self._waiting.append(message)
            return
        judged = self._receiver.records(message, promised_epoch=node.decisions.floor(node.voter.floor))
        if isinstance(judged, Refused):
            self._fail(f"refused as {judged.reason}: {judged.detail}")
            return
        for reset in judged.resets:
            if self._reset_lsn is None and (self.shard.holds or START).lsn < reset.lsn:
                self._reset_lsn = reset.lsn
                node.after(RESET_PATIENCE_SECONDS, self._lose_patience)
        for record in node.mint.read(judged.block):
            if not node.decisions.cuts_back and record.position.lsn <= self.log.last.lsn:
                continue
            node.checkers.appends(node.name, record, self.log.last)
            self.log.append(record)
        if judged.block:
            self._sync()
        assert judged.heard is not None, "whole records tell of the primary"
        self._delay = 0.05
        node.voter.watch.heard(node.clock())
        self.heard_at = node.clock()
        self._heard_us = judged.heard.sent_at_us
        self._commit(judged.heard.committed_lsn)
        if self._heard_us - self._told_heard_us >= HEARTBEAT_SECONDS * 1e6 / 2 and not self._syncing:
            self._acknowledge()

    def _sync(self) -> None:
        if not self._syncing and self.log.durable_lsn < self.log.last.lsn:
            self._syncing = True
            self.node.after(self.node.sync_seconds(), self._synced, self.log.begin_sync(), self._stream)

    def _synced(self, began: tuple[int, int], stream: Stream | None) -> None:
        self._syncing = False
        if self._over:
            return
        self.log.end_sync(began)
        if self._stream is not None and self._receiving:
            if stream is self._stream:
                self._acknowledge()
            self._sync()

    def _acknowledge(self) -> None:
        if self._stream is None or not self._receiving:
            return
        node = self.node
        if self._epoch < node.decisions.floor(node.voter.floor):
            self._fail("fenced")
            return
        reachable = min(self.log.durable_lsn, self.log.last.lsn)
        if self._reset_lsn is not None:
            reachable = min(reachable, self._reset_lsn)
        durable_lsn = max(self._told[0], 0 if self._broken else reachable)
        applied_lsn = max(self._told[1], min(self.applied.lsn, self.log.durable_lsn))
        self._told = (durable_lsn, applied_lsn)
        self._told_heard_us = self._heard_us
        self._stream.send(node, "progress", durable_lsn, applied_lsn, self._heard_us)

    # The shard

    @property
    def committed_lsn(self) -> int:
        """The highest lsn of the log that is known to be committed."""
        return min(self._known_committed_lsn, self.log.last.lsn)

    @property
    def visible(self) -> Position:
        """What the shard contains, as far as it is known to be committed; not known while a resync is staged."""
        if self.shard.staged is not None:
            return START
        lsn = min(self.applied.lsn, self.committed_lsn)
        epoch = self.applied.epoch if lsn == self.applied.lsn else self.log.epochs.epoch_at(lsn)
        return self.log.base if epoch is None else Position(epoch, lsn)

    def _survey(self) -> Position:
        applied, complete = self.log.base, True
        for record in self.log.records:
            contained = self._contains(record.kind, record.position)
            held = record.position.lsn <= (self.shard.holds or START).lsn
            if record.kind is RecordKind.RESET and not held and self._reset_lsn is None:
                self._reset_lsn = record.position.lsn
            complete = complete and contained
            if complete:
                applied = record.position
        return applied

    def _contains(self, kind: RecordKind, position: Position) -> bool:
        return kind is RecordKind.EPOCH or position.lsn <= self.shard.lsn

    def _why_unfit(self) -> str | None:
        return why_unfit(self.shard.holds, self.log.epochs, resynced_in_this_epoch=self._resynced_in == self._epoch)

    def _commit(self, lsn: int) -> None:
        self._known_committed_lsn = max(self._known_committed_lsn, lsn)
        self.log.note_committed(lsn)
        self.node.publish(self.visible)
        self._wake()

    def _wake(self) -> None:
        if not self._applying and self._may_apply:
            self._applying = True
            self.node.after(self.node.world.between(0.0002, 0.003), self._apply)

    @property
    def _may_apply(self) -> bool:
        staged = self.shard.staged
        if staged is not None:
            return self.node.decisions.may_install(committed=self._is_committed(staged.position))
        reachable = self.node.decisions.applicable_lsn(self.committed_lsn, self.log.last.lsn)
        return self.applied.lsn < reachable

    def _is_committed(self, position: Position) -> bool:
        epochs = self.log.epochs
        return position.lsn <= epochs.base.lsn or (
            position.lsn <= self.committed_lsn and epochs.epoch_at(position.lsn) == position.epoch
        )

    def _apply(self) -> None:
        self._applying = False
        if self._over or not self._may_apply:
            return
        node = self.node
        if self.shard.staged is not None:
            node.checkers.applies(node.name, *self.shard.staged)
            self.shard.install()
        through = node.decisions.applicable_lsn(self.committed_lsn, self.log.last.lsn)
        for record in self.log.after(self.applied.lsn, through - self.applied.lsn):
            if not self._contains(record.kind, record.position):
                if record.kind is RecordKind.RESET:
                    self._applying = self._broken = True
                    self._resync(self._after_reset)
                    return
                node.checkers.applies(node.name, record.position, record.entries)
                self.shard.commit(record.position, record.entries)
            self.applied = record.position
        node.publish(self.visible)
        self._wake()

    def _lose_patience(self) -> None:
        """A reset was not committed for long: its resync comes first."""
        standing = self._over or self._candidacy is not None
        if self._reset_lsn is not None and not standing and not self._applying and self._receiving:
            self._applying = True
            self._resync(self._after_reset)

    def _after_reset(self) -> None:
        self._applying = False
        self._wake()

    def _begin_anew(self, base: Position) -> None:
        self.log.reset(base)
        self._reset_lsn = None
        self._known_committed_lsn = max(self._known_committed_lsn, base.lsn)
        self.applied = base
        self.node.publish(self.visible)

    def _resync(self, then: Any) -> None:
        node = self.node
        node.note("resyncs from", self.primary)
        self.resyncing = self._stream is None
        self._resync_epoch = self._epoch
        self._resync_then = then
        self._resync_number = node.world.events
        self._resync_stream = node.open_stream(node.peers[self.primary])
        self._resync_stream.send(node, "resync", self._resync_number)
        node.after(RESYNC_TIMEOUT_SECONDS, self._resync_failed, self._resync_number)

    def resynced(
        self, number: int, position: Position | None, entries: tuple[Entry, ...], *, committed: bool
    ) -> None:
        """The primary's shard as it was at `position`."""
        if self._over or self._candidacy is not None or number != self._resync_number:
            return
        self._resync_number = -1
        self._end_resync_stream()
        node = self.node
        if position is None:
            self.shard.clear()
        elif committed:
            node.checkers.applies(node.name, position, entries)
            self.shard.replace(position, entries)
        else:
            node.note("stages", position)
            self.shard.stage(position, entries)
        self._resynced_in = self._resync_epoch
        self._broken = False
        if self._reset_lsn is not None and self._reset_lsn <= (self.shard.holds or START).lsn:
            self._reset_lsn = None
        self._resync_then()
        self._wake()
        if self.resyncing:
            self.resyncing = False
            self._retry(0.0)

    def _end_resync_stream(self) -> None:
        if self._resync_stream is not None:
            stream, self._resync_stream = self._resync_stream, None
            stream.end(self.node, "done")

    def _resync_failed(self, number: int) -> None:
        if self._over or number < 0 or number != self._resync_number:
            return
        self._resync_number = -1
        self._end_resync_stream()
        self._applying = False
        if self.resyncing:
            self.resyncing = False
            self._back_off()
        else:
            self._wake()
