"""The shards of one group as a standby's database thread sees them.

Everything here runs on that thread: reading committed records from the standby's own log, applying them, many
of a shard in one local transaction, and letting go of the log that nothing needs any more.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from agent_core.database.schema import shard_path
from agent_core.errors import ShardDamaged
from agent_core.log.log import ReplicationLog
from agent_core.log.record import Record, RecordCodec, RecordHeader, RecordKind, headers, read_header
from agent_core.log.retention import droppable_through
from agent_core.position import START, Position
from agent_core.routing import ShardLayout
from replica.apply import ShardApplier

READ_BYTES = 8 << 20
ROUND_BYTES = 32 << 20
"""Frames that one round applies at most, unless a single record holds more."""


@dataclass(frozen=True, slots=True)
class Keeping:
    """What an operator may choose.

    Attributes:
        checkpoint_bytes: A shard is checkpointed when its WAL has grown past this.
        log_bytes: Applied log that is kept for others, in case this node comes to lead them.
    """

    checkpoint_bytes: int = 16 << 20
    log_bytes: int = 256 << 20


@dataclass(frozen=True, slots=True)
class Round:
    """What one round came to.

    Attributes:
        applied: The shards contain everything up to here.
        resync_shard: The shard that must be resynced before the next round gets any further; None: there is none.
        reason: Why.
        checkpoint_due: Some shard's WAL is past its limit.
        transactions: How many it brought into the shards.
    """

    applied: Position
    resync_shard: int | None = None
    reason: str = ""
    checkpoint_due: bool = False
    transactions: int = 0


@dataclass(frozen=True, slots=True)
class Survey:
    """What the log holds that the shards do not.

    Attributes:
        applied: The shards contain everything up to here.
        resets: For each shard that a reset beyond what it contains demands to resync, that record's lsn.
    """

    applied: Position
    resets: Mapping[int, int]


class GroupShards:
    """A group's shard files, open for applying.

    Attributes:
        appliers: By shard.
        keeping: What an operator chose.
    """

    def __init__(self, appliers: Mapping[int, ShardApplier], log: ReplicationLog, keeping: Keeping) -> None:
        self.appliers = appliers
        self._log = log
        self.keeping = keeping
        self._codec = RecordCodec()

    @classmethod
    def open(
        cls,
        data_directory: Path,
        *,
        cluster_id: str,
        layout: ShardLayout,
        group: int,
        log: ReplicationLog,
        keeping: Keeping,
    ) -> GroupShards:
        """Open every shard of the group; a missing file is created empty.

        Raises:
            WrongCluster: A file belongs to another cluster, or is another shard.
            Unavailable: A file cannot be opened now.
        """
        appliers: dict[int, ShardApplier] = {}
        try:
            for shard in layout.shards_of(group):
                path = shard_path(data_directory, layout.shard_file_name(shard))
                path.parent.mkdir(parents=True, exist_ok=True)
                appliers[shard] = ShardApplier.open(path, cluster_id=cluster_id, shard=shard)
        except BaseException:
            for applier in appliers.values():
                applier.close()
            raise
        return cls(appliers, log, keeping)

    def survey(self, contained: Position | None) -> Survey:
        """Look through the log for what the shards lack. A reset asks nothing of a shard whose resync is staged.

        Args:
            contained: A position in the log up to which the shards contained everything when they were closed;
                None: not known.
        """
        intact = all(one.damage is None and one.applied is not None for one in self.appliers.values())
        known = contained if contained is not None and intact else START
        applied, complete = max(self._log.base, known), True
        resets: dict[int, int] = {}
        seen_lsn = applied.lsn
        while (block := self._log.read(seen_lsn, READ_BYTES)) is not None:
            for header, _ in headers(block.data, verify=False):
                if header.kind is RecordKind.RESET and not self._holds(header):
                    resets.setdefault(header.shard, header.position.lsn)
                complete = complete and self._contains(header)
                if complete:
                    applied = header.position
            seen_lsn = block.last_lsn
        return Survey(applied, resets)

    def apply(self, after: Position, through_lsn: int) -> Round:
        """Apply what the log holds after `after` up to `through_lsn`, or a bounded part of it.

        What is staged for shards is installed first: the caller knows that it is committed, or leads.

        Raises:
            WriteFailed: SQLite refused a transaction; other shards may have got theirs, which the next round skips.
            LogDamaged: The log does not hold what was written.
        """
        for applier in self.appliers.values():
            if applier.staged is not None:
                try:
                    applier.install_staged()
                except ShardDamaged as error:
                    return Round(after, applier.shard, str(error))
        block = self._log.read(after.lsn, READ_BYTES)
        if block is None:
            return Round(after)
        records, reached, awaited = self._choose(block.data, after, through_lsn)
        transactions = 0
        damaged: Round | None = None
        for shard, waiting in records.items():
            try:
                transactions += self.appliers[shard].apply(waiting)
            except ShardDamaged as error:
                damaged = Round(after, shard, str(error))
        if damaged is not None:
            return damaged
        due = any(self.appliers[shard].backlog.is_due(self.keeping.checkpoint_bytes) for shard in records)
        if awaited is not None:
            return Round(reached, awaited.shard, f"record {awaited.position} resets it", checkpoint_due=due)
        return Round(reached, checkpoint_due=due, transactions=transactions)

    def checkpoint(self, shard: int) -> bool:
        """Checkpoint a shard between two rounds; False when a reader is in the way.

        Raises:
            DatabaseError: SQLite could not; nothing is lost.
            ShardDamaged: SQLite cannot work with the file.
        """
        return self.appliers[shard].checkpoint()

    def tidy(self, applied_lsn: int) -> list[int]:
        """Drop the log that neither a shard after a power cut nor another node needs.

        Returns:
            Shards that hold log back which is kept for nobody else. One that is written rarely would do so for
            ever: a checkpoint frees it, and the next tidying drops the log.
        """
        held = range(self._log.base.lsn, applied_lsn)
        # The last lsn with more than the chosen bytes after it; the bytes fall as lsns rise.
        keep_after = max(
            held.start,
            held.start
            + bisect_left(held, -self.keeping.log_bytes, key=lambda lsn: -self._log.bytes_after(lsn))
            - 1,
        )
        needs = {shard: _needed_after(applier) for shard, applier in self.appliers.items()}
        self._log.drop_through(
            droppable_through(
                committed_lsn=applied_lsn,
                checkpointed_lsns=needs.values(),
                standbys=(),
                holds=(keep_after,),
                standby_bytes=0,
            )
        )
        return [shard for shard, lsn in needs.items() if lsn is not None and lsn < keep_after]

    def close(self) -> None:
        """Checkpoint what no reader holds, and close every file."""
        for applier in self.appliers.values():
            applier.close()

    def _choose(
        self, data: bytes, after: Position, through_lsn: int
    ) -> tuple[dict[int, list[Record]], Position, RecordHeader | None]:
        """The records to apply by shard, how far that reaches, and the reset that it stopped at."""
        chosen: dict[int, list[Record]] = {}
        reached, offset, size = after, 0, 0
        while offset < len(data):
            header = read_header(data, offset)
            if header.position.lsn > through_lsn:
                break
            if not self._contains(header):
                if header.kind is RecordKind.RESET:
                    return chosen, reached, header
                if size and size + header.uncompressed_length > ROUND_BYTES:
                    break
                size += header.uncompressed_length
                record, _ = self._codec.decode(data, offset)
                chosen.setdefault(header.shard, []).append(record)
            reached = header.position
            offset += header.length
        return chosen, reached, None

    def _contains(self, header: RecordHeader) -> bool:
        if header.kind is RecordKind.EPOCH:
            return True
        return header.position.lsn <= (self.appliers[header.shard].applied or START).lsn

    def _holds(self, header: RecordHeader) -> bool:
        return header.position.lsn <= (self.appliers[header.shard].holds or START).lsn


def _needed_after(applier: ShardApplier) -> int | None:
    """After which lsn a shard needs the log after a power cut; None: it does not, or needs a resync anyway."""
    return applier.backlog.needs_lsn if applier.damage is None else None
