"""How far a standby's shards of one group are in its history, and what of that may be seen."""

from __future__ import annotations

from collections.abc import Callable

from agent_core.log.log import ReplicationLog
from agent_core.position import START, Position


class Visibility:
    """Looks at the log only; whoever applies tells it how far the shards are. Everything runs on the event loop.

    Attributes:
        applied: The shards contain everything up to here.
    """

    def __init__(self, log: ReplicationLog, applied: Position, *, is_staged: Callable[[], bool]) -> None:
        """Begin with what the log, and a process before this one, knew.

        Args:
            log: The group's log on this node.
            applied: See the attribute.
            is_staged: Whether the resync of a shard is staged beside it.
        """
        self._log = log
        self._is_staged = is_staged
        self._known_committed_lsn = max(log.base.lsn, log.noted_committed_lsn)
        self._trusted_lsn: int | None = None
        """How far this log tells the primary's history, as long as it has to begin anew; None: to its end."""
        self._listeners: list[Callable[[Position], None]] = []
        self._commit_listeners: list[Callable[[Position], None]] = []
        self.applied = applied

    def on_applied(self, listener: Callable[[Position], None]) -> None:
        """Call `listener` with what is applied and may be seen whenever either changes."""
        self._listeners.append(listener)

    def on_committed(self, listener: Callable[[Position], None]) -> None:
        """Call `listener` with the position up to which the group is known to be committed, when it rises."""
        self._commit_listeners.append(listener)

    @property
    def committed_lsn(self) -> int:
        """The highest lsn of the log that is known to be committed."""
        return min(self._known_committed_lsn, self._log.last.lsn)

    @property
    def visible(self) -> Position:
        """What all the shards contain, as far as it is known to be committed, by this process or by one before it.

        Shards contain more where this node led: SQLite commits before a quorum does. While the resync of one is
        staged, how far they all are is not known.
        """
        return START if self._is_staged() else self._settled

    @property
    def _settled(self) -> Position:
        lsn = min(self.applied.lsn, self.committed_lsn)
        epoch = self.applied.epoch if lsn == self.applied.lsn else self._log.epochs.epoch_at(lsn)
        return self._log.base if epoch is None else Position(epoch, lsn)

    def is_committed(self, position: Position) -> bool:
        """Whether a position is known to be committed in the history that the log tells."""
        epochs = self._log.epochs
        return position.lsn <= max(epochs.base.lsn, self.committed_lsn) and epochs.contains(position)

    def is_outside(self, position: Position) -> bool:
        """Whether `position` is not in the history that is followed, as far as the log tells that."""
        trusted_lsn = position.lsn if self._trusted_lsn is None else self._trusted_lsn
        return position.lsn > trusted_lsn or not self._log.epochs.contains(position)

    def never_comes(self, position: Position) -> bool:
        """Whether the log has gone past `position` without containing it: nobody will ever reach it."""
        return self._log.epochs.replaces(position)

    def begin_stream(self, *, resync_required: bool) -> None:
        """Another stream begins; whether its primary's log no longer reaches this one."""
        self._trusted_lsn = self._settled.lsn if resync_required else None

    def commit(self, position: Position) -> None:
        """Everything up to `position` is committed, whether the log holds it already or not."""
        self._log.note_committed(position.lsn)
        if position.lsn > self._known_committed_lsn:
            before, self._known_committed_lsn = self.visible, position.lsn
            self.tell_committed(position)
            if self.visible != before:
                self.tell_applied()

    def reach(self, position: Position) -> None:
        """The shards contain everything up to `position` now."""
        self.applied = position
        self.tell_applied()

    def begin_anew(self, base: Position) -> None:
        """The log begins after `base` now, which the shards contain."""
        self._trusted_lsn = None
        self._known_committed_lsn = max(self._known_committed_lsn, base.lsn)
        self.reach(base)

    def tell_committed(self, position: Position) -> None:
        """Tell who listens that the group is committed up to `position`."""
        for listener in self._commit_listeners:
            listener(position)

    def tell_applied(self) -> None:
        """Tell who listens what may be seen; nothing while that is not known."""
        if self._is_staged():
            return
        visible = self.visible
        for listener in self._listeners:
            listener(visible)
