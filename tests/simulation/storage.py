"""What a node keeps on its disk: the log, the promise and the shard, and what a crash leaves of each."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import NamedTuple

from agent_core.log.record import HEADER_BYTES, Record, RecordCodec, RecordKind, read_header
from agent_core.position import START, EpochStart, EpochTable, Position
from replica.voting import Promise

GROUP = 0
SHARD = 0


class Entry(NamedTuple):
    """One append of a session."""

    session: str
    key: str


class Transaction(NamedTuple):
    """What one transaction added to a shard."""

    position: Position
    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True, eq=False)
class LogRecord:
    """A record of the log, and the bytes that the real codec makes of it. Compared by identity.

    Attributes:
        entries: What a transaction adds; for a reset: all that the shard holds.
    """

    kind: RecordKind
    position: Position
    entries: tuple[Entry, ...]
    encoded: bytes


class RecordMint:
    """Makes records, and finds them again by their bytes. No two records have the same bytes."""

    def __init__(self) -> None:
        self._codec = RecordCodec()
        self._records: list[LogRecord] = []

    def make(self, kind: RecordKind, position: Position, entries: tuple[Entry, ...] = ()) -> LogRecord:
        """A new record."""
        number = len(self._records)
        frames = number.to_bytes(8, "big") if kind is RecordKind.TRANSACTION else b""
        # The time of commit tells records without frames apart.
        encoded = self._codec.encode(Record(kind, GROUP, SHARD, position, 1, number, frames))
        record = LogRecord(kind, position, entries, encoded)
        self._records.append(record)
        return record

    def read(self, block: bytes) -> list[LogRecord]:
        """The records of a block."""
        records, offset = [], 0
        while offset < len(block):
            header = read_header(block, offset)
            record = self._records[header.committed_at_ms]
            assert len(record.encoded) == header.length >= HEADER_BYTES, "a block holds records of this mint"
            records.append(record)
            offset += header.length
        return records


class SimulatedLog:
    """A replication log whose unsynced tail a power cut takes away.

    Attributes:
        base: The position before the first record.
        marked: The furthest position that it held durably and was not cut back from.
        noted_committed_lsn: What was known to be committed at some sync.
        records: What it holds.
        durable_lsn: What is safe from a power cut.
    """

    def __init__(self) -> None:
        self.base = START
        self.records: list[LogRecord] = []
        self.durable_lsn = 0
        self.marked = START
        self.noted_committed_lsn = 0
        self._to_note = 0
        self._starts: list[EpochStart] = []
        self._cuts = 0

    @property
    def last(self) -> Position:
        """The end of the log."""
        return self.records[-1].position if self.records else self.base

    @property
    def epochs(self) -> EpochTable:
        """Its table of epochs."""
        return EpochTable(self.base, tuple(self._starts), self.last)

    def at(self, lsn: int) -> LogRecord:
        """The record of this number."""
        return self.records[lsn - self.base.lsn - 1]

    def after(self, lsn: int, count: int) -> list[LogRecord]:
        """At most `count` records after `lsn`."""
        start = lsn - self.base.lsn
        return self.records[start : start + count]

    def append(self, record: LogRecord) -> None:
        """Write a record, not durably yet."""
        assert record.position.lsn == self.last.lsn + 1, f"{record.position} follows {self.last}"
        if not self.records or record.position.epoch != self.last.epoch:
            self._starts.append(EpochStart(*record.position))
        self.records.append(record)

    def begin_sync(self) -> tuple[int, int]:
        """What a sync that begins now will have made durable; for `end_sync`."""
        return self._cuts, self.last.lsn

    def end_sync(self, began: tuple[int, int]) -> None:
        """A sync has ended; it counts unless the log was cut meanwhile."""
        cuts, lsn = began
        if cuts == self._cuts:
            self.durable_lsn = max(self.durable_lsn, lsn)
            if self.durable_lsn > self.base.lsn:
                self.marked = max(self.marked, self.at(self.durable_lsn).position)
            self.noted_committed_lsn = self._to_note

    def note_committed(self, lsn: int) -> None:
        """Everything up to `lsn` is committed; a restart finds it again after the next sync."""
        self._to_note = max(self._to_note, lsn)

    def forget(self) -> None:
        """The process is gone, and what it only had in memory."""
        self._to_note = self.noted_committed_lsn

    def cut_back(self, to: Position) -> None:
        """Cut the log back, durably."""
        self.marked = min(self.marked, to)
        del self.records[to.lsn - self.base.lsn :]
        self._starts = [start for start in self._starts if start.first_lsn <= to.lsn]
        self.durable_lsn = to.lsn
        self._cuts += 1

    def reset(self, base: Position) -> None:
        """Begin anew after `base`, durably."""
        self.marked = base
        self.base, self.durable_lsn = base, base.lsn
        self.records.clear()
        self._starts.clear()
        self._cuts += 1

    def drop_through(self, lsn: int) -> None:
        """Forget the records up to `lsn`."""
        if self.base.lsn < lsn <= self.last.lsn:
            base = self.at(lsn).position
            del self.records[: lsn - self.base.lsn]
            self._starts = [start for start in self._starts if start.first_lsn > lsn]
            if self.records and (not self._starts or self._starts[0].first_lsn != lsn + 1):
                self._starts.insert(0, EpochStart(self.records[0].position.epoch, lsn + 1))
            self.base = base

    def lose_power(self, random: Random) -> None:
        """Of what was not synced some part remains, from its beginning."""
        lsn = random.randint(self.durable_lsn, self.last.lsn)
        if lsn < self.last.lsn:
            self.cut_back(self.at(lsn).position if lsn > self.base.lsn else self.base)


class SimulatedShard:
    """A shard file: transactions in the order of their commit, the last ones lost in a power cut.

    Attributes:
        transactions: What it contains; a resync or a reset makes one of all.
        checkpointed: How many of them survive a power cut.
        staged: What a resync brought and is not committed yet, durably beside the shard.
    """

    def __init__(self) -> None:
        self.transactions: list[Transaction] = []
        self.checkpointed = 0
        self.staged: Transaction | None = None

    @property
    def contains(self) -> Position | None:
        """The position of its last transaction; None while it is empty."""
        return self.transactions[-1].position if self.transactions else None

    @property
    def holds(self) -> Position | None:
        """The position that it contains, or will once what is staged is installed."""
        return self.contains if self.staged is None else self.staged.position

    @property
    def lsn(self) -> int:
        """The lsn that it contains."""
        return self.transactions[-1].position.lsn if self.transactions else 0

    @property
    def needs_after_lsn(self) -> int:
        """The log is needed from here on should the power be cut."""
        return self.transactions[self.checkpointed - 1].position.lsn if self.checkpointed else 0

    def entries(self) -> tuple[Entry, ...]:
        """Everything that it contains, in order."""
        return tuple(entry for transaction in self.transactions for entry in transaction.entries)

    def commit(self, position: Position, entries: tuple[Entry, ...]) -> None:
        """One more transaction."""
        self.transactions.append(Transaction(position, entries))

    def replace(self, position: Position, entries: tuple[Entry, ...]) -> None:
        """Contain just this, checkpointed."""
        self.transactions = [Transaction(position, entries)]
        self.checkpointed = 1
        self.staged = None

    def clear(self) -> None:
        """Contain nothing."""
        self.transactions.clear()
        self.checkpointed = 0
        self.staged = None

    def stage(self, position: Position, entries: tuple[Entry, ...]) -> None:
        """Keep this beside the shard, which is made safe from a power cut as it is."""
        self.checkpoint()
        self.staged = Transaction(position, entries)

    def install(self) -> None:
        """Contain what is staged."""
        if self.staged is not None:
            self.replace(*self.staged)

    def checkpoint(self) -> None:
        """Make all of it safe from a power cut."""
        self.checkpointed = len(self.transactions)

    def lose_power(self, random: Random) -> None:
        """The last transactions may be gone."""
        del self.transactions[random.randint(self.checkpointed, len(self.transactions)) :]


@dataclass(slots=True)
class SimulatedDisk:
    """A node's disk. It outlives the node's process.

    Attributes:
        promise: The durable one.
        writing: A promise that is being written; a crash may leave it or not.
        slowness: Multiplies the time of every sync.
    """

    log: SimulatedLog = field(default_factory=SimulatedLog)
    shard: SimulatedShard = field(default_factory=SimulatedShard)
    promise: Promise = field(default_factory=Promise)
    writing: Promise | None = None
    slowness: float = 1.0

    def crash(self, random: Random, *, power_cut: bool) -> None:
        """The process is gone, and with a power cut what was not synced."""
        if self.writing is not None and random.random() < 0.5:
            self.promise = self.writing
        self.writing = None
        self.log.forget()
        if power_cut:
            self.log.lose_power(random)
            self.shard.lose_power(random)
