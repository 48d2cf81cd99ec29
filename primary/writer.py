"""The group writer: from queued mutations to acknowledged ones.

One batch is in the hands of the writing thread at a time; the next one gathers meanwhile and starts while the
last one waits for its quorum, up to a bound in bytes and transactions. What is written waits, in order, until the
acknowledgement rules release it (`primary/release_queue.py`): then memory, subscribers and callers hear of it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from typing import Any

import structlog

from agent_core.database.checkpointer import Checkpointer
from agent_core.database.thread import DatabaseThread
from agent_core.errors import HeadwaterError, OutcomeUnknown, Overloaded, Unavailable, WriteFailed
from agent_core.histogram import BATCH_SIZES, LATENCY_SECONDS, Histogram
from agent_core.position import Position
from agent_core.quorum import Acknowledgement, CommitTracker
from primary.accumulator import Accumulator, BatchLimits
from primary.group_database import BatchOutcome, GroupDatabase
from primary.mutation import Append, Mutation, Transaction, Waiter
from primary.pace import BatchPace
from primary.queue_room import QueueRoom
from primary.release_queue import ReleaseQueue

log = structlog.get_logger(__name__)

LOG_RETRY_SECONDS = 0.5
EXPIRY_TICK_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class WriterSettings:
    """What an operator may choose.

    Attributes:
        acknowledgement: The cluster's mode. It also decides when entries become visible: with `local` once the
            primary's log has them, else once a quorum has.
        acknowledgement_timeout_seconds: When a caller is told that the outcome is unknown.
        uncommitted_transactions: How far writing may run ahead of what is visible, in transactions …
        uncommitted_bytes: … and in bytes of queued entries.
        limits: Bounds of a batch and of the queue.
    """

    acknowledgement: Acknowledgement = Acknowledgement.QUORUM
    acknowledgement_timeout_seconds: float = 5.0
    uncommitted_transactions: int = 16384
    uncommitted_bytes: int = 64 << 20
    limits: BatchLimits = field(default_factory=BatchLimits)


@dataclass(slots=True)
class WriterCounters:
    """What metrics tell of the writer; all only grow.

    Attributes:
        acknowledged: Mutations that were told to be safe, by mode.
        failed: Mutations whose callers got an error, by its code.
        append_seconds: From submission to acknowledgement.
    """

    transactions: int = 0
    batches: int = 0
    wal_bytes: int = 0
    acknowledged: Counter[Acknowledgement] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    append_seconds: Histogram = field(default_factory=lambda: Histogram(LATENCY_SECONDS))
    fsync_seconds: Histogram = field(default_factory=lambda: Histogram(LATENCY_SECONDS))
    batch_mutations: Histogram = field(default_factory=lambda: Histogram(BATCH_SIZES))
    batch_transactions: Histogram = field(default_factory=lambda: Histogram(BATCH_SIZES))


class GroupWriter:
    """Writes one group's mutations. Every method runs on the event loop.

    Attributes:
        failure: Why the writer has stopped for good; None while it works.
        trouble: Why the last transaction or log write failed; None once one has worked again.
        counters: For metrics.
    """

    def __init__(
        self,
        thread: DatabaseThread[GroupDatabase],
        tracker: CommitTracker,
        settings: WriterSettings,
        *,
        on_logged: Callable[[], None],
        on_released: Callable[[Mutation], None],
        on_committed: Callable[[int], None],
        on_visible: Callable[[Position], None],
        on_batch: Callable[[list[Transaction]], None] | None = None,
    ) -> None:
        """Write on `thread`; nothing begins before `start`.

        Args:
            thread: Has the group's shards and its log.
            tracker: Counts what the voters hold.
            settings: What an operator chose.
            on_logged: Called, on the loop, when the log has grown and may be streamed.
            on_released: Called for each mutation that becomes visible, before its callers hear of it.
            on_committed: Called with the committed lsn when it rises.
            on_visible: Called with the position up to which readers may see, when it rises.
            on_batch: Called with each batch before it is written.
        """
        self._thread = thread
        self._tracker = tracker
        self._settings = settings
        self._on_committed = on_committed
        self._on_visible = on_visible
        self._on_batch = on_batch
        self._loop = asyncio.get_running_loop()
        self._logged = lambda: self._loop.call_soon_threadsafe(on_logged)
        local = settings.acknowledgement is Acknowledgement.LOCAL
        self._visible_mode = Acknowledgement.LOCAL if local else Acknowledgement.QUORUM
        self._visible_lsn = 0
        self._accumulator = Accumulator(settings.limits)
        self._release_queue = ReleaseQueue(
            tracker, self._visible_mode, on_visible=on_released, on_acknowledged=self._acknowledged
        )
        self._pace = BatchPace()
        self._checkpoints = Checkpointer(
            self.database.shards,
            self.database.checkpoint_bytes,
            between_writes=lambda shard: thread.run(thread.owned.checkpoint, shard),
        )
        self._writing = False
        self._wake = asyncio.Event()
        self._may_expire = asyncio.Event()
        self._room = QueueRoom(self._accumulator)
        self._stopping = False
        self._deposed = False
        self._drained = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self.counters = WriterCounters()
        self.failure: str | None = None
        self.trouble: str | None = None

    def start(self) -> None:
        """Begin to write."""
        self._tasks = [
            asyncio.create_task(self._until_failure(self._write_batches), name="group writer"),
            asyncio.create_task(self._until_failure(self._expire), name="group writer expiry"),
        ]

    @property
    def queued(self) -> int:
        """Mutations that wait for a batch."""
        return len(self._accumulator)

    @property
    def queued_bytes(self) -> int:
        """Their bytes."""
        return self._accumulator.size_bytes

    @property
    def unreleased(self) -> int:
        """Transactions that are written and not visible yet."""
        return self._release_queue.unreleased

    @property
    def unreleased_bytes(self) -> int:
        """Bytes of the mutations that are written and not visible yet."""
        return self._release_queue.unreleased_bytes

    @property
    def full(self) -> bool:
        """Whether callers must wait for `room` before they submit; a writer that has stopped answers at once."""
        return self._accumulator.full and self.takes_writes

    @property
    def takes_writes(self) -> bool:
        """Whether `submit` queues what it is given: not after a failure, and not while the writer ends."""
        return self.failure is None and not self._stopping

    @property
    def visible_position(self) -> Position:
        """Where the group's history stands that readers may see: what a caller passes to read its own writes."""
        return Position(self.database.epoch, self._tracker.safe_lsn(self._visible_mode))

    @property
    def database(self) -> GroupDatabase:
        """The shards; for the loop to look at, never to use."""
        return self._thread.owned

    async def room(self) -> None:
        """Wait until the queue has room again, or the writer has stopped.

        Raises:
            Overloaded: It has had none for too long; nothing was written.
        """
        while self.full:
            try:
                await self._room.wait()
            except Overloaded as error:
                self.counters.failed[error.code] += 1
                raise

    def reserve(self, size_bytes: int) -> None:
        """Count a mutation that cannot be submitted yet as queued already, so that callers wait for it too."""
        self._accumulator.reserve(size_bytes)
        self._room.changed()

    def give_back(self, size_bytes: int) -> None:
        """A mutation that was reserved for is submitted now, or never."""
        self._accumulator.give_back(size_bytes)
        self._room.changed()

    def submit(self, mutation: Mutation) -> None:
        """Queue a mutation; its waiters hear of the outcome."""
        if not self.takes_writes:
            self._withdraw(mutation, Unavailable(self.failure or "the primary is stopping; nothing was written"))
            return
        mutation.expires_at = self._loop.time() + self._settings.acknowledgement_timeout_seconds
        if not self.queued:
            self._pace.first_queued(idle=not self._writing and not self.unreleased)
        self._accumulator.add(mutation)
        self._room.changed()
        self._may_expire.set()
        self._wake.set()

    def join(self, mutation: Mutation, waiter: Waiter) -> None:
        """Tell one more caller of a mutation that was made before, once it is as safe as this caller asks."""
        if not mutation.expires_at:
            mutation.expires_at = self._loop.time() + self._settings.acknowledgement_timeout_seconds
        self._release_queue.join(mutation, waiter)
        self._may_expire.set()

    def durable(self, node: str, lsn: int) -> None:
        """A node holds the log durably up to `lsn`: release what that makes safe."""
        if self._deposed:
            return
        if self._tracker.durable(node, lsn):
            self._on_committed(self._tracker.committed_lsn)
        visible_lsn = self._tracker.safe_lsn(self._visible_mode)
        if visible_lsn > self._visible_lsn:
            self._visible_lsn = visible_lsn
            self._on_visible(Position(self.database.epoch, visible_lsn))
        if self._release_queue.release():
            self._wake.set()
        if not self._busy:
            self._drained.set()

    def depose(self, reason: str) -> None:
        """Acknowledge nothing from now on: this node's own vote went to another primary.

        What waits ends as unknown. The log may still grow by the batch that is being written.
        """
        self._deposed = self._stopping = True
        self._fail_waiting(reason)

    async def drain(self, seconds: float) -> None:
        """Take no more; wait for what is queued and written to be released; the rest ends as unknown."""
        self._stopping = True
        self._drained.clear()
        if self._busy and self.failure is None and not self._deposed:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._drained.wait(), seconds)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._fail_waiting("the primary stopped before the write was acknowledged")

    async def end_checkpoints(self) -> None:
        """Wait for the checkpoint that is under way, and begin none any more: the shards may be closed then."""
        await self._checkpoints.close()

    def order_checkpoint(self, shard: int) -> None:
        """Have a shard checkpointed soon, whatever its WAL holds."""
        self._checkpoints.begin([shard])

    @property
    def _busy(self) -> bool:
        """Whether something is queued, in the hands of the writing thread, or written and not visible yet."""
        return bool(self.queued or self._writing or self.unreleased)

    @property
    def _ahead(self) -> bool:
        return (
            self.unreleased >= self._settings.uncommitted_transactions
            or self.unreleased_bytes >= self._settings.uncommitted_bytes
        )

    async def _until_failure(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            await work()
        except Exception as error:
            self.failure = f"the group writer failed: {type(error).__name__}: {error}"
            log.exception("group writer failed", group=self.database.group)
            self._fail_waiting(self.failure)

    async def _write_batches(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self.queued and not self._ahead:
                await self._gather()
                await self._write_batch()

    async def _gather(self) -> None:
        """Let the next batch grow for as long as the pace has it."""
        while (seconds := self._pace.wait_seconds(self.queued, self._loop.time())) > 0:
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._wake.wait()

    async def _write_batch(self) -> None:
        self._pace.began(self._loop.time())
        self._writing = True
        transactions = self._accumulator.close_batch()
        if self._on_batch is not None:
            self._on_batch(transactions)
        self._room.changed()
        try:
            written = await self._thread.run(self.database.write, transactions, self._logged)
        except BaseException:
            # Part of it may be in the shards; what is there will be logged at the next start.
            unknown = OutcomeUnknown("the primary failed while it wrote this; retry with the same key")
            for transaction in transactions:
                self._answer_unknown(transaction.mutations, unknown)
            raise
        self._take_note(written)
        self._writing = False
        while written.log_error is not None:
            self.trouble = f"the replication log cannot be written: {written.log_error}"
            log.error("replication log refused a block", group=self.database.group, reason=str(written.log_error))
            await asyncio.sleep(LOG_RETRY_SECONDS)
            written = await self._thread.run(self.database.log_again, self._logged)
        self.durable(self._tracker.primary, written.durable_lsn)
        if written.checkpoint_due:
            self._checkpoints.begin()

    def _take_note(self, written: BatchOutcome) -> None:
        counters = self.counters
        counters.batches += 1
        counters.wal_bytes += written.wal_bytes
        counters.fsync_seconds.observe(written.fsync_seconds)
        counters.batch_transactions.observe(len(written.transactions))
        counters.batch_mutations.observe(sum(len(transaction.mutations) for transaction in written.transactions))
        self.trouble = None
        for transaction in written.transactions:
            if transaction.error is not None:
                self._refused(transaction)
                continue
            counters.transactions += 1
            self._release_queue.add(transaction)

    def _refused(self, transaction: Transaction) -> None:
        self.trouble = f"shard {transaction.shard} refused a transaction: {transaction.error}"
        log.error("transaction failed", shard=transaction.shard, reason=str(transaction.error))
        for mutation in reversed(transaction.mutations):
            self._withdraw(
                mutation,
                WriteFailed(
                    f"shard {transaction.shard} refused the transaction, nothing was written: {transaction.error}"
                ),
            )

    def _withdraw(self, mutation: Mutation, error: HeadwaterError) -> None:
        """The mutation left no trace."""
        if isinstance(mutation, Append):
            mutation.actor.withdraw(mutation)
        self._fail(mutation, error)

    def _acknowledged(self, mutation: Mutation, mode: Acknowledgement) -> None:
        self.counters.acknowledged[mode] += 1
        submitted_at = mutation.expires_at - self._settings.acknowledgement_timeout_seconds
        self.counters.append_seconds.observe(self._loop.time() - submitted_at)

    def _fail(self, mutation: Mutation, error: HeadwaterError) -> None:
        if mutation.waiters:
            self.counters.failed[error.code] += 1
            mutation.fail(error)

    async def _expire(self) -> None:
        while True:
            if not self._busy and not self._release_queue:
                self._may_expire.clear()
            await self._may_expire.wait()
            await asyncio.sleep(EXPIRY_TICK_SECONDS)
            now = self._loop.time()
            for mutation in self._accumulator.take_expired(now):
                self._withdraw(
                    mutation,
                    Overloaded(
                        f"the write waited {self._settings.acknowledgement_timeout_seconds:g} s for its turn; "
                        "nothing was written, try again in a moment"
                    ),
                )
            self._room.changed()
            unknown = OutcomeUnknown(
                "not acknowledged by "
                f"{self._settings.acknowledgement_timeout_seconds:g} s; retry with the same idempotency key"
            )
            self._answer_unknown(self._release_queue.expired(now), unknown)

    def _answer_unknown(self, mutations: Iterable[Mutation], error: OutcomeUnknown) -> None:
        for mutation in mutations:
            self._fail(mutation, error)

    def _fail_waiting(self, reason: str) -> None:
        for mutation in self._accumulator.take_all():
            self._withdraw(mutation, Unavailable(f"{reason}; nothing was written"))
        unknown = OutcomeUnknown(f"{reason}; retry with the same idempotency key")
        self._answer_unknown(self._release_queue.waiting(), unknown)
        self._room.open()
        self._drained.set()
