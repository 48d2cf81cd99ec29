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
from agent_core.database.checkpointer import Checkpointer
from agent_core.database.thread import DatabaseThread
from agent_core.errors import HeadwaterError, ShardDamaged
from agent_core.log.log import ReplicationLog
from agent_core.position import Position
from agent_core.routing import ShardLayout
from agent_core.uninterrupted import to_its_end
from replica.apply import ShardApplier
from replica.fitness import is_ahead
from replica.group_shards import GroupShards, Keeping, Round
from replica.pace import ApplyPace
from replica.receiving import Reset
from replica.reset_patience import ResetPatience
from replica.resync import Exchange, ReadersAway, ShardResync, nobody_reads
from replica.resync_needs import ResyncNeeds
from replica.resync_orders import Resynced, ResyncOrders
from replica.staging import StagedPages
from replica.visibility import Visibility

log = structlog.get_logger(__name__)

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


class StandbyGroup:
    """One group's shards on a standby. Open it with `open`; every method runs on the event loop.

    Attributes:
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
        self._orders = ResyncOrders(self._needs)
        self._visibility = Visibility(replication_log, applied, is_staged=lambda: bool(self._staged()))
        self._tidied_at_bytes = 0
        self._checkpoints = Checkpointer(
            thread.owned.appliers,
            thread.owned.keeping.checkpoint_bytes,
            between_writes=lambda shard: thread.run(thread.owned.checkpoint, shard),
        )
        self._lock = asyncio.Lock()
        self._loop = asyncio.get_running_loop()
        self._pace = ApplyPace()
        self._wake = asyncio.Event()
        self._patience = ResetPatience(self._needs, on_lost=self._wake.set)
        self._task: asyncio.Task[None] | None = None
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
        contained: Position | None = None,
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
            contained: See `GroupShards.survey`.

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
            survey = await thread.run(thread.owned.survey, contained)
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
        self._orders.close()
        await self._checkpoints.close()
        await self._thread.close()

    @property
    def appliers(self) -> Mapping[int, ShardApplier]:
        """The shards; for the event loop to look at, never to use."""
        return self._thread.owned.appliers

    @property
    def applied(self) -> Position:
        """The shards contain everything up to here."""
        return self._visibility.applied

    @property
    def committed_lsn(self) -> int:
        """The highest lsn of this node's log that is known to be committed."""
        return self._visibility.committed_lsn

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
        self._visibility.on_applied(listener)

    def on_committed(self, listener: Callable[[Position], None]) -> None:
        """Call `listener` with the position up to which the group is known to be committed, when it rises."""
        self._visibility.on_committed(listener)

    @property
    def visible(self) -> Position:
        """What all the shards contain, as far as it is known to be committed; see `Visibility`."""
        return self._visibility.visible

    def is_lost(self, position: Position) -> bool:
        """Whether a shard at `position` holds what is not in the history that is followed; a resync will undo it.

        A shard that a resync brought further than the log counts as lost, until the log has come so far, if what
        it holds was written in an earlier epoch.
        """
        return position.epoch < self._needs.epoch and self._visibility.is_outside(position)

    def never_comes(self, position: Position) -> bool:
        """Whether the log has gone past `position` without containing it: nobody will ever reach it."""
        return self._visibility.never_comes(position)

    def begin_stream(self, epoch: int, *, resync_required: bool = False) -> None:
        """From now on the primary of `epoch` is followed.

        Args:
            epoch: Its epoch.
            resync_required: Its log no longer reaches this one, which will have to begin anew.
        """
        self._needs.epoch = epoch
        # A reset that was expected and could not be appended may never come: this primary may know another history.
        self._needs.cut_back(self._log.last.lsn)
        self._visibility.begin_stream(resync_required=resync_required)
        for shard in self._needs.resets:
            self._patience.begin(shard)

    def commit(self, lsn: int) -> None:
        """Everything up to `lsn` is committed, whether this log holds it already or not."""
        self._visibility.commit(Position(self._needs.epoch, lsn))
        if self._may_apply:
            self._wake.set()

    def expect_resets(self, resets: Iterable[Reset]) -> None:
        """Resets are about to be appended to the log. One that its shard contains already demands nothing."""
        for reset in resets:
            if self._needs.expect(reset, self.appliers[reset.shard].holds):
                self._patience.begin(reset.shard)

    def acknowledgeable(self, durable_lsn: int) -> int:
        """The part of what is durable in the log that this node could also bring into its shards."""
        return self._needs.acknowledgeable(durable_lsn)

    @property
    def complete(self) -> bool:
        """Whether the log leads every shard to its end, so that this node could lead the group."""
        return self._needs.complete(self.appliers.values(), self._log.epochs)

    async def bring_up(self) -> frozenset[int]:
        """Apply the whole log, committed or not: this node leads it now, and nobody else does.

        From now on the shards are checkpointed by whoever writes them as the primary.

        Returns:
            The shards that contain more than the log: what this node committed to them as the primary of the log's
            last epoch, and did not get to log before it stopped.

        Raises:
            ShardDamaged: A shard cannot be brought to the end of the log.
        """
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._checkpoints.close()
        async with self._lock:
            while self._staged() or self.applied.lsn < self._log.last.lsn:
                outcome: Round = await self._thread.run(self._thread.owned.apply, self.applied, self._log.last.lsn)
                if outcome.resync_shard is not None:
                    raise ShardDamaged(
                        f"shard {outcome.resync_shard} cannot be brought to the end of the log: {outcome.reason}"
                    )
                self._visibility.reach(outcome.applied)
        return frozenset(shard for shard, one in self.appliers.items() if is_ahead(one.applied, self._log.last))

    def _staged(self) -> dict[int, StagedPages]:
        """What resyncs brought and is not installed yet, by shard."""
        return {shard: one.staged for shard, one in self.appliers.items() if one.staged is not None}

    @property
    def _may_apply(self) -> bool:
        """Whether there is something to apply, or to install. While something staged waits, nothing is."""
        staged = self._staged().values()
        if not all(self._visibility.is_committed(one.position) for one in staged):
            return False
        return bool(staged) or self.applied.lsn < self.committed_lsn

    def unfit_shards(self) -> Mapping[int, str]:
        """Shards that the log cannot continue, with the reason; they need a resync before the stream goes on."""
        return self._needs.unfit(self.appliers.values(), self._log.epochs)

    def on_resync_ordered(self, listener: Callable[[], None]) -> None:
        """Call `listener` when a resync is ordered: whoever follows ends the stream and begins anew."""
        self._orders.on_ordered(listener)

    async def order_resync(self, shard: int) -> Resynced:
        """Have a shard made equal to the primary's, whatever it holds now; returns once it is.

        Until its resync nothing is acknowledged, and readers see the old state. Who stops waiting does not call it
        off.

        Raises:
            Unavailable: The group was closed before; the shard was not resynced.
        """
        return await self._orders.place(shard)

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
        self._visibility.begin_anew(base)

    async def _cut_log(self, to: Position) -> None:
        await asyncio.to_thread(self._log.cut_back, to)
        self._needs.cut_back(to.lsn)
        if self.applied.lsn > to.lsn:
            self._visibility.reach(to)

    async def _resync(self, shard: int) -> None:
        applier = self.appliers[shard]
        await self._checkpoints.settle()
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
            self._orders.fulfil(shard, Resynced(position, resync.pages_received))
            # The row of a shard that still parted from this history is of a lower epoch, and must stay unseen.
            if not self.unfit_shards():
                self._visibility.tell_committed(position)
        if self._may_apply:
            self._wake.set()
        self._visibility.tell_applied()

    async def _apply_for_ever(self) -> None:
        backoff = Backoff()
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                while self._may_apply:
                    await self._rest()
                    await self._apply_round()
                    self.trouble = None
                    backoff.reset()
                for shard in self._patience.overdue():
                    await self.resync([shard])
                    self._patience.resynced(shard)
            except Exception as error:
                known = isinstance(error, HeadwaterError | OSError)
                self.trouble = str(error) if known else f"{type(error).__name__}: {error}"
                self.counters.failed_rounds += 1
                log.warning("applying failed", reason=self.trouble, exc_info=not known)
                await asyncio.sleep(backoff.next_delay())
                self._wake.set()

    async def _rest(self) -> None:
        """Let committed records gather for as long as the pace has it."""
        waiting_bytes = self._log.bytes_after(self.applied.lsn)
        if (seconds := self._pace.rest_seconds(waiting_bytes, self._loop.time())) > 0:
            await asyncio.sleep(seconds)

    async def _apply_round(self) -> None:
        async with self._lock:
            if not self._may_apply:
                return  # The log was cut meanwhile, or a resync staged something.
            shards = self._thread.owned
            staged, began = self._staged(), self._loop.time()
            outcome: Round = await self._thread.run(shards.apply, self.applied, self.committed_lsn)
            self._pace.worked(began, outcome.transactions)
            self.counters.rounds += 1
            for shard in staged.keys() - self._staged().keys() - {outcome.resync_shard}:
                log.info("staged resync installed", shard=shard, position=str(staged[shard].position))
                self._orders.fulfil(shard, Resynced(staged[shard].position, staged[shard].pages))
                self._visibility.tell_applied()
            if outcome.applied != self.applied:
                self._visibility.reach(outcome.applied)
            if outcome.checkpoint_due:
                self._checkpoints.begin()
            if outcome.resync_shard is not None:
                self._needs.demand(outcome.resync_shard, outcome.reason)
                await self._resync(outcome.resync_shard)
            if abs(self._log.size_bytes - self._tidied_at_bytes) >= TIDY_EVERY_BYTES:
                self._checkpoints.begin(await self._thread.run(shards.tidy, self.applied.lsn))
                self._tidied_at_bytes = self._log.size_bytes
