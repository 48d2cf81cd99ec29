"""The shard of a simulated standby: the order of steps of `replica/standby_group.py`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING

from agent_core.log.record import RecordKind
from agent_core.position import START, Position
from replica.fitness import is_ahead, why_unfit
from replica.receiving import Reset
from replica.reset_patience import RESET_PATIENCE_SECONDS
from tests.simulation.network import Stream
from tests.simulation.storage import Entry

if TYPE_CHECKING:
    from tests.simulation.following import SimulatedFollowing
    from tests.simulation.node import SimulatedNode

RESYNC_TIMEOUT_SECONDS = 12.0


class SimulatedStandby:
    """Applies what is committed, and resyncs.

    Attributes:
        applied: The shard contains everything up to here.
        broken: The log cannot continue the shard: nothing is acknowledged before its resync.
    """

    def __init__(self, node: SimulatedNode, following: SimulatedFollowing) -> None:
        """Begin with what is on the node's disk; `following` keeps the log."""
        self.node = node
        self.log, self.shard = node.disk.log, node.disk.shard
        self._following = following
        self._known_committed_lsn = max(self.log.base.lsn, self.log.noted_committed_lsn)
        self._reset_lsn: int | None = None
        self._resynced_in: int | None = None
        self._epoch = 0
        self._applying = False
        self._over = False
        self._resync_number = -1
        self._resync_stream: Stream | None = None
        self.broken = False
        self.applied = self._survey()

    def stop(self) -> None:
        """Apply no more."""
        self._over = True
        self._end_resync_stream()

    # What the follower asks

    @property
    def complete(self) -> bool:
        """Whether the log leads the shard to its end, so that this node could lead."""
        if self.broken or self._reset_lsn is not None:
            return False
        fit = why_unfit(self.shard.holds, self.log.epochs, resynced_in_this_epoch=False) is None
        return fit or is_ahead(self.shard.holds, self.log.last)

    @property
    def acknowledgeable(self) -> int:
        """The part of what is durable that may be acknowledged."""
        if self.broken:
            return 0
        reachable = min(self.log.durable_lsn, self.log.last.lsn)
        return reachable if self._reset_lsn is None else min(reachable, self._reset_lsn)

    def begin_stream(self, epoch: int) -> None:
        """From now on the primary of `epoch` is followed."""
        self._epoch = epoch
        if self._reset_lsn is not None:
            self.node.after(RESET_PATIENCE_SECONDS, self._lose_patience)

    def expect_resets(self, resets: Iterable[Reset]) -> None:
        """Resets are about to be appended to the log."""
        for reset in resets:
            if self._reset_lsn is None and (self.shard.holds or START).lsn < reset.lsn:
                self._reset_lsn = reset.lsn
                self.node.after(RESET_PATIENCE_SECONDS, self._lose_patience)

    def cut_back(self, to: Position) -> None:
        """Cut the log back."""
        self.log.cut_back(to)
        if self._reset_lsn is not None and self._reset_lsn > to.lsn:
            self._reset_lsn = None
        if self.applied.lsn > to.lsn:
            self.applied = to

    def begin_anew(self, source: str, base: Position) -> None:
        """Resync the shard, then begin the log after `base`."""
        self.broken = True
        self._resync(source, partial(self._log_begins, base))

    def resync_broken(self, source: str) -> None:
        """Resync the shard, which the log cannot continue."""
        self.broken = True
        self._resync(source, lambda: None)

    def stream_ended(self, stream: Stream) -> bool:
        """A stream ended, or it broke; whether it was that of a resync."""
        if stream is not self._resync_stream:
            return False
        self._resync_failed(self._resync_number)
        return True

    def bring_up(self) -> bool:
        """Apply the whole log, committed or not; False when a reset stands in the way."""
        self.shard.install()
        for record in self.log.after(self.applied.lsn, len(self.log.records)):
            if not self._contains(record.kind, record.position):
                if record.kind is RecordKind.RESET:
                    return False
                self.shard.commit(record.position, record.entries)
        return True

    # Applying

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

    def why_unfit(self) -> str | None:
        """Why the log cannot continue the shard; None when it can."""
        return why_unfit(self.shard.holds, self.log.epochs, resynced_in_this_epoch=self._resynced_in == self._epoch)

    def commit(self, lsn: int) -> None:
        """Everything up to `lsn` is committed."""
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
                    self._applying = self.broken = True
                    self._resync(self._following.primary, self._after_reset)
                    return
                node.checkers.applies(node.name, record.position, record.entries)
                self.shard.commit(record.position, record.entries)
            self.applied = record.position
        node.publish(self.visible)
        self._wake()

    def _lose_patience(self) -> None:
        """A reset was not committed for long: its resync comes first."""
        following = self._following
        if self._reset_lsn is not None and not following.standing and not self._applying and following.receiving:
            self._applying = True
            self._resync(following.primary, self._after_reset)

    def _after_reset(self) -> None:
        self._applying = False
        self._wake()

    def _log_begins(self, base: Position) -> None:
        self.log.reset(base)
        self._reset_lsn = None
        self._known_committed_lsn = max(self._known_committed_lsn, base.lsn)
        self.applied = base
        self.node.publish(self.visible)

    def _resync(self, source: str, then: Callable[[], None]) -> None:
        node = self.node
        node.note("resyncs from", source)
        self._following.resync_begins()
        self._resync_epoch = self._epoch
        self._resync_then = then
        self._resync_number = node.world.events
        self._resync_stream = node.open_stream(node.peers[source])
        self._resync_stream.send(node, "resync", self._resync_number)
        node.after(RESYNC_TIMEOUT_SECONDS, self._resync_failed, self._resync_number)

    def resynced(
        self, number: int, position: Position | None, entries: tuple[Entry, ...], *, committed: bool
    ) -> None:
        """The primary's shard as it was at `position`."""
        if self._following.standing or number != self._resync_number:
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
        self.broken = False
        if self._reset_lsn is not None and self._reset_lsn <= (self.shard.holds or START).lsn:
            self._reset_lsn = None
        self._resync_then()
        self._wake()
        self._following.resync_ends(done=True)

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
        if not self._following.resync_ends(done=False):
            self._wake()
