"""A simulated node while it follows or stands for election, around the product's decisions.

The order of steps is that of `ops/membership.py`, `replica/following.py` and `replica/incoming.py`.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from agent_core.rpc import replication_pb2 as pb
from agent_core.stream import to_message
from primary.opening import Vote
from replica.fitness import is_ahead
from replica.receiving import Follow, Receiver, Refused
from tests.simulation.candidacy import SimulatedCandidacy
from tests.simulation.network import Stream
from tests.simulation.standby import SimulatedStandby
from tests.simulation.storage import GROUP, SHARD
from tests.simulation.world import Violation

if TYPE_CHECKING:
    from tests.simulation.node import SimulatedNode

HEARTBEAT_SECONDS = 0.1
SILENCE_SECONDS = 20 * HEARTBEAT_SECONDS
LONGEST_DELAY_SECONDS = 2.0


class SimulatedFollowing:
    """One node's time as a standby, from its start or the end of its lead to the next.

    Attributes:
        standby: Its shard.
        primary: The node that was followed last.
        heard_at: When it was heard, on the node's clock; None when it never was.
        receiving: The stream is open, and records are taken from it.
    """

    def __init__(self, node: SimulatedNode) -> None:
        self.node = node
        self.log = node.disk.log
        self.primary = ""
        self.heard_at: float | None = None
        self.resyncing = False
        self._over = False
        self._candidacy: SimulatedCandidacy | None = None
        self._nomination: int | None = None
        self._receiver = Receiver(group=GROUP, shards=frozenset({SHARD}))
        self._epoch = 0
        self._stream: Stream | None = None
        self.receiving = False
        self._waiting: list[pb.Records] = []
        self._attempt = 0
        self._misled = False
        self._delay = 0.05
        self._syncing = False
        self._echo_due = False
        self._told = (-1, -1)
        self._heard_us = self._told_heard_us = 0
        self.standby = SimulatedStandby(node, self)
        node.voter.on_raised.append(self._fence)
        self._retry(0.0)
        node.after(HEARTBEAT_SECONDS, self._watch)

    # What the node asks

    @property
    def able(self) -> bool:
        """Whether this node could lead."""
        return self.standby.complete

    @property
    def standing(self) -> bool:
        """Whether it stands for election, or has ended: nothing may come into the shard."""
        return self._over or self._candidacy is not None

    def stop(self) -> None:
        """Follow no more."""
        self._over = True
        if self._candidacy is not None:
            self._candidacy.give_up()
        self._end_stream("stopped")
        self.standby.stop()
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
        self.try_now(elsewhere=False)
        self._candidacy.begin(able=self.able)

    def _pause(self) -> None:
        self._end_stream("standing for election")

    def _elected(self, epoch: int) -> None:
        """Apply the whole log, committed or not, and lead."""
        if self.standby.bring_up():
            self.node.lead(epoch, unlogged=is_ahead(self.standby.shard.contains, self.log.last))
        else:
            self.node.fail_group()

    def _not_elected(self) -> None:
        self._candidacy = None
        self._retry(0.0)
        if self._nomination is not None:
            self._stand(self._nomination)

    # Following

    def _fence(self, epoch: int) -> None:
        if self._stream is not None and self.receiving and self._epoch < self.node.decisions.floor(epoch):
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
        self.receiving = self._welcomed = False
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
            committed_lsn=self.standby.committed_lsn,
            base=to_message(epochs.base),
        )
        self._stream.send(node, "hello", hello)

    def stream_ended(self, stream: Stream, reason: str) -> None:
        """The primary ended the stream, or it broke."""
        if self.standby.stream_ended(stream):
            return
        if stream is self._stream:
            self._misled = reason == "not primary"
            watch = self.node.voter.watch
            if reason == "handed over" or (self._misled and stream.other(self.node).name == watch.primary):
                watch.released()
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
        self.receiving = False

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
        if follow.goes_on_from.lsn < self.standby.committed_lsn:
            raise Violation(
                f"{node.name} knows {self.standby.committed_lsn} to be committed; {follow.primary} of epoch "
                f"{follow.epoch} shares its history only up to {follow.goes_on_from}"
            )
        self._epoch = follow.epoch
        self.standby.begin_stream(follow.epoch)
        if not follow.resync_required and follow.goes_on_from != self.log.last and node.decisions.cuts_back:
            node.note("cuts its log back from", self.log.last, "to", follow.goes_on_from)
            self.standby.cut_back(follow.goes_on_from)
        if follow.resync_required:
            self._end_stream("resyncs")
            self.standby.begin_anew(self.primary, follow.goes_on_from)
        elif self.standby.why_unfit() is not None:
            self._end_stream("resyncs")
            self.standby.resync_broken(self.primary)
        else:
            self.standby.broken = False
            self._receive(stream, follow)

    def _receive(self, stream: Stream, follow: Follow) -> None:
        self.receiving = True
        self._told = (-1, -1)
        self._heard_us = self._told_heard_us = 0
        self.standby.commit(follow.committed_lsn)
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
        if not self.receiving:
            self._waiting.append(message)
            return
        judged = self._receiver.records(message, promised_epoch=node.decisions.floor(node.voter.floor))
        if isinstance(judged, Refused):
            self._fail(f"refused as {judged.reason}: {judged.detail}")
            return
        self.standby.expect_resets(judged.resets)
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
        self.standby.commit(judged.heard.committed_lsn)
        if self._heard_us - self._told_heard_us >= HEARTBEAT_SECONDS * 1e6 / 2 and not self._syncing:
            self._acknowledge()

    def heartbeat(self, message: pb.Heartbeat) -> list[pb.LedGroup]:
        """A heartbeat came beside the stream: the groups that take it."""
        return [led for led in message.groups if self._beat(led.epoch)]

    def _beat(self, epoch: int) -> bool:
        node = self.node
        stands = self._stream is not None and self.receiving and self._heard_us > 0
        if not stands or epoch != self._epoch or epoch < node.decisions.floor(node.voter.floor):
            return False
        self._quiet_since = node.clock()
        node.voter.watch.heard(node.clock())
        self._delay = 0.05
        self.heard_at = node.clock()
        return True

    def _sync(self) -> None:
        if not self._syncing and self.log.durable_lsn < self.log.last.lsn:
            self._syncing = True
            self.node.after(self.node.sync_seconds(), self._synced, self.log.begin_sync(), self._stream)

    def _synced(self, began: tuple[int, int], stream: Stream | None) -> None:
        self._syncing = False
        if self._over:
            return
        self.log.end_sync(began)
        if self._stream is not None and self.receiving:
            if stream is self._stream:
                self._acknowledge()
            self._sync()

    def _acknowledge(self) -> None:
        if self._stream is None or not self.receiving:
            return
        node = self.node
        if self._epoch < node.decisions.floor(node.voter.floor):
            self._fail("fenced")
            return
        durable_lsn = max(self._told[0], self.standby.acknowledgeable)
        applied_lsn = max(self._told[1], min(self.standby.applied.lsn, self.log.durable_lsn))
        self._told = (durable_lsn, applied_lsn)
        self._told_heard_us = self._heard_us
        self._stream.send(node, "progress", durable_lsn, applied_lsn, self._heard_us)

    # Resyncs

    def resync_begins(self) -> None:
        """The shard is being resynced: without a stream none is opened meanwhile."""
        self.resyncing = self._stream is None

    def resync_ends(self, *, done: bool) -> bool:
        """The resync is over; whether the follower waited for it, and goes on now."""
        if not self.resyncing:
            return False
        self.resyncing = False
        if done:
            self._retry(0.0)
        else:
            self._back_off()
        return True
