"""A standby's side of one group: brings what is committed from its log into its shards, and resyncs shards.

Applying runs beside following: while one round is on the database thread further committed records gather, and
go into the next one. One lock keeps rounds, resyncs and cuts of the log apart.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import structlog

from agent_core.backoff import Backoff
from agent_core.database.thread import DatabaseThread
from agent_core.errors import HeadwaterError, ShardDamaged
from agent_core.log.log import ReplicationLog
from agent_core.position import START, Position
from agent_core.routing import ShardLayout
from agent_core.uninterrupted import to_its_end
from replica.apply import ShardApplier
from replica.fitness import is_ahead
from replica.group_shards import GroupShards, Keeping, Round
from replica.receiving import Reset
from replica.resync import Exchange, ReadersAway, ShardResync, nobody_reads
from replica.resync_needs import ResyncNeeds
from replica.staging import StagedPages

log = structlog.get_logger(__name__)

RESET_PATIENCE_SECONDS = 1.0
"""How long a reset's resync waits for the reset to be committed.

Nothing past a reset is acknowledged before its resync. So where another epoch was opened behind a reset that was
not committed, that opening, and with it the reset, could never be: then the resync must come first.
"""
TIDY_EVERY_BYTES = 16 << 20
"""How much the log grows before what can be dropped is looked for again."""


@dataclass(slots=True)
class StandbyCounters:
    """What metrics tell of a standby's shards in one group; all only grow."""

    rounds: int = 0
    resyncs: int = 0
    resync_pages: int = 0
    resync_bytes: int = 0
    failed_rounds: int = 0


@dataclass(frozen=True, slots=True)
class Resynced:
    """What a resync came to: the position that the shard contains, and how many of its pages differed."""

    position: Position
    pages: int


class StandbyGroup:
    """One group's shards on a standby. Open it with `open`; every method runs on the event loop.

    Attributes:
        applied: The shards contain everything up to here.
        trouble: Why the last round or resync failed; None once one has worked again.
        counters: For metrics.
    """

    def __init__(
        self,
        thread: DatabaseThread[GroupShards],
        replication_log: ReplicationLog,
        *,
        resync: Callable[[ShardApplier, DatabaseThread[GroupShards]], ShardResync],
        exchange: Exchange,
        applied: Position,
        resets: Mapping[int, int],
    ) -> None:
        self._thread = thread
        self._log = replication_log
        self._resync_of = resync
        self._exchange = exchange
        self._needs = ResyncNeeds(resets)
        self._orders: dict[int, asyncio.Future[Resynced]] = {}
        self._order_listeners: list[Callable[[], None]] = []
        self._overdue: set[int] = set()
        self._known_committed_lsn = max(replication_log.base.lsn, replication_log.noted_committed_lsn)
        self._tidied_at_bytes = 0
        self._lock = asyncio.Lock()
        self._wake = asyncio.Event()
        self._listeners: list[Callable[[Position], None]] = []
        self._commit_listeners: list[Callable[[Position], None]] = []
        self._trusted_lsn: int | None = None
        """How far this log tells the primary's history, as long as it has to begin anew; None: to its end."""
        self._task: asyncio.Task[None] | None = None
        self.applied = applied
        self.trouble: str | None = None
        self.counters = StandbyCounters()

    @classmethod
    async def open(
        cls,
        data_directory: Path,
        *,
        cluster_id: str,
        node_id: str,
        layout: ShardLayout,
        group: int,
        log: ReplicationLog,
        exchange: Exchange,
        readers_away: ReadersAway = nobody_reads,
        keeping: Keeping | None = None,
    ) -> StandbyGroup:
        """Open the group's shards in their own thread and begin to apply.

        Args:
            data_directory: The node's; shards are under `shards/`.
            cluster_id: The cluster.
            node_id: This node.
            layout: The cluster's shards and groups.
            group: The shard group.
            log: The group's log on this node; it stays the caller's to close.
            exchange: The `Resync` call of the group's present primary.
            readers_away: See `replica.resync.ShardResync`.
            keeping: What an operator chose.

        Raises:
            HeadwaterError: As `GroupShards.open`.
        """
        thread = await DatabaseThread.start(
            lambda: GroupShards.open(
                data_directory,
                cluster_id=cluster_id,
                layout=layout,
                group=group,
                log=log,
                keeping=keeping or Keeping(),
            ),
            name=f"standby-group-{group}",
        )
        try:
            survey = await thread.run(thread.owned.survey)
        except BaseException:
            await thread.close()
            raise

        def resync(applier: ShardApplier, thread: DatabaseThread[GroupShards]) -> ShardResync:
            return ShardResync(
                applier,
                thread,
                cluster_id=cluster_id,
                node_id=node_id,
                group=group,
                readers_away=readers_away,
            )

        opened = cls(thread, log, resync=resync, exchange=exchange, applied=survey.applied, resets=survey.resets)
        opened._task = asyncio.create_task(opened._apply_for_ever(), name=f"apply group {group}")
        return opened

    async def close(self) -> None:
        """Stop applying and close the shards."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for order in self._orders.values():
            order.cancel()
        await self._thread.close()

    @property
    def appliers(self) -> Mapping[int, ShardApplier]:
        """The shards; for the event loop to look at, never to use."""
        return self._thread.owned.appliers

    @property
    def committed_lsn(self) -> int:
        """The highest lsn of this node's log that is known to be committed."""
        return min(self._known_committed_lsn, self._log.last.lsn)

    @property
    def needs_resync(self) -> Mapping[int, str]:
        """Shards that wait for a resync, with the reason."""
        return self._needs.reasons

    @property
    def awaits_commit(self) -> Mapping[int, Position]:
        """Shards whose resync is staged, with the position that must be committed before they show it."""
        return {shard: staged.position for shard, staged in self._staged().items()}

    def on_applied(self, listener: Callable[[Position], None]) -> None:
        """Call `listener` with what is applied and may be seen whenever either changes."""
        self._listeners.append(listener)

    def on_committed(self, listener: Callable[[Position], None]) -> None:
        """Call `listener` with the position up to which the group is known to be committed, when it rises."""
        self._commit_listeners.append(listener)

    @property
    def visible(self) -> Position:
        """What all the shards contain, as far as it is known to be committed, by this process or by one before it.

        Shards contain more where this node led: SQLite commits before a quorum does. While the resync of one is
        staged, how far they all are is not known.
        """
        return START if self._staged() else self._settled

    @property
    def _settled(self) -> Position:
        lsn = min(self.applied.lsn, self.committed_lsn)
        epoch = self.applied.epoch if lsn == self.applied.lsn else self._log.epochs.epoch_at(lsn)
        return self._log.base if epoch is None else Position(epoch, lsn)

    def is_lost(self, position: Position) -> bool:
        """Whether a shard at `position` holds what is not in the history that is followed; a resync will undo it.

        A shard that a resync brought further than the log counts as lost, until the log has come so far, if what
        it holds was written in an earlier epoch.
        """
        if position.epoch >= self._needs.epoch:
            return False
        trusted_lsn = position.lsn if self._trusted_lsn is None else self._trusted_lsn
        return position.lsn > trusted_lsn or not self._log.epochs.contains(position)

    def never_comes(self, position: Position) -> bool:
        """Whether the log has gone past `position` without containing it: nobody will ever reach it."""
        return self._log.epochs.replaces(position)

    def begin_stream(self, epoch: int, *, resync_required: bool = False) -> None:
        """From now on the primary of `epoch` is followed.

        Args:
            epoch: Its epoch.
            resync_required: Its log no longer reaches this one, which will have to begin anew.
        """
        self._needs.epoch = epoch
        self._trusted_lsn = self._settled.lsn if resync_required else None
        for shard in self._needs.resets:
            self._await_commit(shard)

    def commit(self, lsn: int) -> None:
        """Everything up to `lsn` is committed, whether this log holds it already or not."""
        self._log.note_committed(lsn)
        if lsn > self._known_committed_lsn:
            before, self._known_committed_lsn = self.visible, lsn
            self._tell_committed(Position(self._needs.epoch, lsn))
            if self.visible != before:
                self._notify()
        if self._may_apply:
            self._wake.set()

    def expect_resets(self, resets: Iterable[Reset]) -> None:
        """Resets are about to be appended to the log. One that its shard contains already demands nothing."""
        for reset in resets:
            if self._needs.expect(reset, self.appliers[reset.shard].holds):
                self._await_commit(reset.shard)

    def _await_commit(self, shard: int) -> None:
        asyncio.get_running_loop().call_later(RESET_PATIENCE_SECONDS, self._lose_patience, shard)

    def _lose_patience(self, shard: int) -> None:
        if shard in self._needs.resets:
            self._overdue.add(shard)
            self._wake.set()

    def acknowledgeable(self, durable_lsn: int) -> int:
        """The part of what is durable in the log that this node could also bring into its shards."""
        return self._needs.acknowledgeable(durable_lsn)

    @property
    def complete(self) -> bool:
        """Whether the log leads every shard to its end, so that this node could lead the group."""
        return self._needs.complete(self.appliers.values(), self._log.epochs)

    async def bring_up(self) -> frozenset[int]:
        """Apply the whole log, committed or not: this node leads it now, and nobody else does.

        Returns:
            The shards that contain more than the log: what this node committed to them as the primary of the log's
            last epoch, and did not get to log before it stopped.

        Raises:
            ShardDamaged: A shard cannot be brought to the end of the log.
        """
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        async with self._lock:
            while self._staged() or self.applied.lsn < self._log.last.lsn:
                outcome: Round = await self._thread.run(self._thread.owned.apply, self.applied, self._log.last.lsn)
                if outcome.resync_shard is not None:
                    raise ShardDamaged(
                        f"shard {outcome.resync_shard} cannot be brought to the end of the log: {outcome.reason}"
                    )
                self._reached(outcome.applied)
        return frozenset(shard for shard, one in self.appliers.items() if is_ahead(one.applied, self._log.last))

    def _staged(self) -> dict[int, StagedPages]:
        """What resyncs brought and is not installed yet, by shard."""
        return {shard: one.staged for shard, one in self.appliers.items() if one.staged is not None}

    @property
    def _may_apply(self) -> bool:
        """Whether there is something to apply, or to install. While something staged waits, nothing is."""
        staged = self._staged().values()
        if not all(self._is_committed(one.position) for one in staged):
            return False
        return bool(staged) or self.applied.lsn < self.committed_lsn

    def _is_committed(self, position: Position) -> bool:
        epochs = self._log.epochs
        return position.lsn <= max(epochs.base.lsn, self.committed_lsn) and epochs.contains(position)

    def unfit_shards(self) -> Mapping[int, str]:
        """Shards that the log cannot continue, with the reason; they need a resync before the stream goes on."""
        return self._needs.unfit(self.appliers.values(), self._log.epochs)

    def on_resync_ordered(self, listener: Callable[[], None]) -> None:
        """Call `listener` when a resync is ordered: whoever follows ends the stream and begins anew."""
        self._order_listeners.append(listener)

    async def order_resync(self, shard: int) -> Resynced:
        """Have a shard made equal to the primary's, whatever it holds now; returns once it is.

        Until its resync nothing is acknowledged, and readers see the old state. Who stops waiting does not call it
        off.
        """
        if shard not in self._orders:
            self._orders[shard] = asyncio.get_running_loop().create_future()
            self._needs.order(shard)
            for listener in self._order_listeners:
                listener()
        return await asyncio.shield(self._orders[shard])

    async def resync(self, shards: Iterable[int]) -> None:
        """Make these shards equal to the primary's, one after the other.

        Raises:
            HeadwaterError: One of them failed, as `ShardResync.run`; those before it are done.
        """
        async with self._lock:
            for shard in shards:
                await self._resync(shard)

    async def begin_anew(self, base: Position) -> None:
        """Resync every shard, then begin the log after `base`.

        Raises:
            HeadwaterError: A resync failed; the log is as it was.
        """
        async with self._lock:
            for shard in self.appliers:
                self._needs.demand(shard, "the primary's log no longer reaches this node's")
            for shard in self.appliers:
                await self._resync(shard)
            await to_its_end(self._reset_log(base))

    async def cut_back(self, to: Position) -> None:
        """Cut the log back to `to`, which is not below what is committed.

        Raises:
            HeadwaterError: The log could not be cut.
        """
        async with self._lock:
            await to_its_end(self._cut_log(to))

    async def _reset_log(self, base: Position) -> None:
        await asyncio.to_thread(self._log.reset, base)
        self._needs.resets.clear()
        self._trusted_lsn = None
        self._known_committed_lsn = max(self._known_committed_lsn, base.lsn)
        self._reached(base)

    async def _cut_log(self, to: Position) -> None:
        await asyncio.to_thread(self._log.cut_back, to)
        self._needs.cut_back(to.lsn)
        if self.applied.lsn > to.lsn:
            self._reached(to)

    async def _resync(self, shard: int) -> None:
        applier = self.appliers[shard]
        log.info("resync begins", shard=shard, reason=self.needs_resync.get(shard, "asked for"))
        epoch = self._needs.epoch
        resync = self._resync_of(applier, self._thread)
        position = await resync.run(self._exchange)
        self._needs.resynced(shard, position, epoch)
        self.counters.resyncs += 1
        self.counters.resync_pages += resync.pages_received
        self.counters.resync_bytes += resync.bytes_received
        log.info(
            "resync ended",
            shard=shard,
            position=str(position),
            pages=resync.pages_received,
            committed=resync.committed,
        )
        if resync.committed:
            self._is_equal(shard, Resynced(position, resync.pages_received))
            # The row of a shard that still parted from this history is of a lower epoch, and must stay unseen.
            if not self.unfit_shards():
                self._tell_committed(position)
        if self._may_apply:
            self._wake.set()
        self._notify()

    def _is_equal(self, shard: int, resynced: Resynced) -> None:
        self._needs.fulfilled(shard)
        order = self._orders.pop(shard, None)
        if order is not None:
            order.set_result(resynced)

    async def _apply_for_ever(self) -> None:
        backoff = Backoff()
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                while self._may_apply:
                    await self._apply_round()
                    self.trouble = None
                    backoff.reset()
                # In their order: the resync of a later one is not committed before that of an earlier one.
                resets = dict(self._needs.resets)
                for shard in sorted(self._overdue & resets.keys(), key=lambda shard: resets[shard]):
                    await self.resync([shard])
                self._overdue.clear()
            except Exception as error:
                known = isinstance(error, HeadwaterError | OSError)
                self.trouble = str(error) if known else f"{type(error).__name__}: {error}"
                self.counters.failed_rounds += 1
                log.warning("applying failed", reason=self.trouble, exc_info=not known)
                await asyncio.sleep(backoff.next_delay())
                self._wake.set()

    async def _apply_round(self) -> None:
        async with self._lock:
            if not self._may_apply:
                return  # The log was cut meanwhile, or a resync staged something.
            shards = self._thread.owned
            staged = self._staged()
            outcome: Round = await self._thread.run(shards.apply, self.applied, self.committed_lsn)
            self.counters.rounds += 1
            for shard in staged.keys() - self._staged().keys() - {outcome.resync_shard}:
                log.info("staged resync installed", shard=shard, position=str(staged[shard].position))
                self._is_equal(shard, Resynced(staged[shard].position, staged[shard].pages))
                self._notify()
            if outcome.applied != self.applied:
                self._reached(outcome.applied)
            if outcome.resync_shard is not None:
                self._needs.demand(outcome.resync_shard, outcome.reason)
                await self._resync(outcome.resync_shard)
            if abs(self._log.size_bytes - self._tidied_at_bytes) >= TIDY_EVERY_BYTES:
                await self._thread.run(shards.tidy, self.applied.lsn)
                self._tidied_at_bytes = self._log.size_bytes

    def _reached(self, position: Position) -> None:
        self.applied = position
        self._notify()

    def _tell_committed(self, position: Position) -> None:
        for listener in self._commit_listeners:
            listener(position)

    def _notify(self) -> None:
        if self._staged():
            return
        visible = self.visible
        for listener in self._listeners:
            listener(visible)
