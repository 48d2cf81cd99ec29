"""A group's replication log, written once and used by primary and standby.

Threads. One thread at a time appends, cuts back and resets; any thread may sync, read, drop and ask. What is
in memory has a lock of its own that is never held over I/O, so `read` and `append` do not wait for an fsync.
`_file_lock` lets one thread at a time sync, create and remove files; `append` takes it to begin a segment only.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from agent_core.errors import HeadwaterError, LogDamaged, Unavailable
from agent_core.log.contents import Block, Extent, LogContents
from agent_core.log.durable_mark import DurableMark, LogEnd
from agent_core.log.history import HistoryBuilder, cut_to
from agent_core.log.record import Record, RecordCodec, headers
from agent_core.log.recovery import Recovery, recover, remove_segments
from agent_core.log.segment import (
    HEADER_BYTES,
    LogIdentity,
    Segment,
    SegmentHeader,
    prepare_segment,
    sync_directory,
)
from agent_core.position import EpochTable, Position

__all__ = ["SEGMENT_BYTES", "TAIL_BYTES", "Block", "ReplicationLog"]

SEGMENT_BYTES = 64 << 20
TAIL_BYTES = 64 << 20
_REPLAY_BYTES = 1 << 20


class ReplicationLog:
    """The log. Open it with `open`.

    Attributes:
        damage: What was found bad among well-written records at opening and cut off with all that followed;
            None when nothing was. A standby fetches it from its primary again.
        mark_damage: What was wrong with the mark of how far the log once reached; None when nothing was.
        torn_bytes: Bytes of a torn tail that were cut off at opening.
        syncs: How often something was made durable.
        disk_reads: How often `read` found its records no longer in memory.
    """

    def __init__(
        self,
        directory: Path,
        identity: LogIdentity,
        recovery: Recovery,
        mark: DurableMark,
        *,
        segment_bytes: int,
        tail_bytes: int,
    ) -> None:
        self._directory = directory
        self._identity = identity
        self._mark = mark
        self._segment_bytes = segment_bytes
        self._contents = LogContents(recovery.segments, recovery.table, tail_bytes=tail_bytes)
        self._generation = recovery.generation
        self._file_lock = threading.Lock()
        self._durable_lsn = recovery.table.last.lsn
        self._dropped: list[Path] = []
        self._refusal: tuple[type[HeadwaterError], str] | None = None
        self.damage = recovery.damage
        self.mark_damage = mark.damage
        self.torn_bytes = recovery.torn_bytes
        self.syncs = 0
        self.disk_reads = 0

    @classmethod
    def open(
        cls,
        directory: Path,
        *,
        cluster_id: str,
        group: int,
        segment_bytes: int = SEGMENT_BYTES,
        tail_bytes: int = TAIL_BYTES,
    ) -> ReplicationLog:
        """Open the log in `directory`, or create it; what it then holds is durable.

        Args:
            directory: Holds this log's segments and nothing else.
            cluster_id: The cluster that the log belongs to.
            group: The shard group that the log belongs to.
            segment_bytes: The size of a segment file; a larger block gets one that fits it.
            tail_bytes: How much of the end of the log is kept in memory.

        Raises:
            WrongCluster: The log belongs to another cluster or group; it was left untouched.
            LogDamaged: It was written by another version of the format; it was left untouched.
            OSError: The disk is full or failed.
        """
        if not directory.is_dir():
            directory.mkdir(parents=True)
            sync_directory(directory.parent)
        identity = LogIdentity(cluster_id, group)
        mark = DurableMark(directory, identity)
        recovery = recover(directory, identity, segment_bytes=segment_bytes)
        mark.open(recovery.table.last)
        return cls(directory, identity, recovery, mark, segment_bytes=segment_bytes, tail_bytes=tail_bytes)

    @property
    def epochs(self) -> EpochTable:
        """Which epoch wrote what the log holds, at this moment."""
        return self._contents.table

    @property
    def base(self) -> Position:
        """The position before the first record that the log holds."""
        return self.epochs.base

    @property
    def last(self) -> Position:
        """The position of the last record, durable or not; the base when there is none."""
        return self.epochs.last

    @property
    def first_lsn(self) -> int:
        """The lsn of the first record that the log holds, or will hold."""
        return self.epochs.base.lsn + 1

    @property
    def durable_lsn(self) -> int:
        """The last lsn that is known to be on the disk."""
        return self._durable_lsn

    @property
    def end(self) -> LogEnd:
        """Where the log ends, and where it once ended."""
        return LogEnd(self.last, self._mark.position)

    @property
    def refusal(self) -> str | None:
        """Why the log refuses to go on until it is opened again; None while it does go on."""
        return None if self._refusal is None else self._refusal[1]

    @property
    def noted_committed_lsn(self) -> int:
        """Everything up to here was once known to be committed, by this process or by one before it."""
        return self._mark.committed_lsn

    def note_committed(self, lsn: int) -> None:
        """Everything up to `lsn` is committed; a restart finds it again once the log has become durable next."""
        self._mark.committed_lsn = max(self._mark.committed_lsn, lsn)

    @property
    def size_bytes(self) -> int:
        """Bytes of the records that the log holds."""
        return self._contents.size_bytes

    def bytes_after(self, lsn: int) -> int:
        """Bytes of the records after `lsn`; of all that are held when `lsn` lies before them."""
        return self._contents.bytes_after(lsn)

    def has_room(self, count: int) -> bool:
        """Whether `append` would only write `count` bytes; else it begins a segment first, and waits for the disk.

        For whoever appends to ask: nobody else makes the room less.
        """
        return self._contents.last_segment.has_room(count)

    def append(self, block: bytes, *, verify: bool = True) -> None:
        """Write whole records behind the last; they are durable only after `sync`.

        Args:
            block: Encoded records, back to back. The same object is kept in memory and handed to readers.
            verify: Check each record's checksum; False for who has just encoded them.

        Raises:
            LogDamaged: A record is bad or does not follow the one before it, or an earlier sync failed. Nothing
                was appended.
            Unavailable: The log is closed.
            OSError: The disk is full or failed. Nothing was appended; a later append may succeed.
        """
        self._check_usable()
        history = HistoryBuilder(self.epochs, group=self._identity.group)
        lengths: list[int] = []
        for header, _ in headers(block, verify=verify):
            history.add(header)
            lengths.append(header.length)
        if not lengths:
            return
        segment = self._segment_with_room(len(block))
        try:
            segment.write(block)
        except OSError as error:
            self._take_back_failed_write(segment, error)
            raise
        self._contents.extend(block, lengths, history.build())

    def _segment_with_room(self, count: int) -> Segment:
        segment = self._contents.last_segment
        if segment.has_room(count):
            return segment
        file_bytes = max(self._segment_bytes, HEADER_BYTES + count)
        with self._file_lock:
            self._check_usable()
            if not segment.ends:
                segment.reserve(file_bytes)
                return segment
            # Only the last segment may have a torn tail: recovery relies on it.
            self._make_durable(segment, self.last)
            header = SegmentHeader(self._generation, self.last)
            following = self._begin_segment(header, file_bytes=file_bytes, origin=self._contents.end)
            segment.close()
            self._contents.add_segment(following)
        return following

    def _begin_segment(self, header: SegmentHeader, *, file_bytes: int, origin: int) -> Segment:
        unfinished = prepare_segment(self._directory, self._identity, header, file_bytes=file_bytes)
        try:
            return Segment.publish(unfinished, header, origin=origin)
        except OSError as error:
            self._refuse(f"the segment after {header.base} could not be put in place: {error}")
            raise

    def _take_back_failed_write(self, segment: Segment, error: OSError) -> None:
        with self._file_lock:
            try:
                segment.erase_rest(file_bytes=self._segment_bytes)
            except OSError as second:
                self._refuse(f"writing to {segment.path} failed ({error}), and so did taking it back ({second})")

    def sync(self) -> int:
        """Make everything appended before the call durable, and return the durable lsn.

        Raises:
            OSError: The disk failed. What it holds is unknown from then on, and the log refuses to go on.
            LogDamaged: An earlier sync failed.
            Unavailable: The log is closed.
        """
        with self._file_lock:
            self._check_usable()
            target = self.last
            if self._durable_lsn < target.lsn:
                self._make_durable(self._contents.last_segment, target)
            return self._durable_lsn

    def _make_durable(self, segment: Segment, last: Position) -> None:
        try:
            segment.sync()
            # Before anyone can hear of it.
            self._mark.reach(last)
        except OSError as error:
            # The kernel may drop the pages of a failed fsync and let the next one succeed: it is not retried.
            self._refuse(f"{segment.path} could not be made durable: {error}")
            raise
        self.syncs += 1
        self._durable_lsn = last.lsn

    def _refuse(self, reason: str) -> None:
        self._refusal = (LogDamaged, f"{reason}; what the disk holds is unknown until the log is opened again")

    def _check_usable(self) -> None:
        if self._refusal is not None:
            error, message = self._refusal
            raise error(message)

    def read(self, after_lsn: int, max_bytes: int) -> Block | None:
        """Whole records after `after_lsn`: as many as fit into `max_bytes`, but at least one.

        A block ends at the latest where its segment ends.

        Returns:
            The records; None when there is none after `after_lsn`.

        Raises:
            PositionCompacted: The log no longer holds the record after `after_lsn`.
            LogDamaged: The file no longer holds what was written.
            OSError: The disk failed.
        """
        while (found := self._contents.find(after_lsn, max_bytes)) is not None:
            extent, data = found
            if data is None:
                data = self._read_file(extent)
            if data is not None:
                return Block(extent.first_lsn, extent.last_lsn, data)
        return None

    def _read_file(self, extent: Extent) -> bytes | None:
        """The records of an extent; None when the log was cut or dropped there meanwhile."""
        self.disk_reads += 1
        path = extent.segment.path
        try:
            data = extent.segment.read(extent.start, extent.stop)
            for _ in headers(data):
                pass
        except (FileNotFoundError, LogDamaged) as error:
            if self._contents.still_holds(extent):
                raise LogDamaged(f"{path}, lsn {extent.first_lsn} to {extent.last_lsn}: {error}") from error
            return None
        return data if self._contents.still_holds(extent) else None

    def records(self, after_lsn: int) -> Iterator[Record]:
        """Every record after `after_lsn` up to the end of the log, for replay.

        Raises:
            PositionCompacted: As `read`, at the first step.
            LogDamaged: As `read`, or a record does not decompress.
        """
        codec = RecordCodec()
        while (block := self.read(after_lsn, _REPLAY_BYTES)) is not None:
            offset = 0
            while offset < len(block.data):
                record, offset = codec.decode(block.data, offset)
                yield record
            after_lsn = block.last_lsn

    def cut_back(self, to: Position) -> None:
        """Take every record after `to` away, durably; what is left is durable too.

        Raises:
            PositionCompacted: `to` lies before what the log still holds.
            LogDamaged: `to` is not in the log's history, or an earlier sync failed.
            Unavailable: The log is closed.
            OSError: The disk failed; the log refuses to go on.
        """
        with self._file_lock:
            self._check_usable()
            cut_to(self.epochs, to)  # raises before anything is changed
            self._lower_mark(to)
            removed = self._contents.cut_back(to)
            self._durable_lsn = min(self._durable_lsn, to.lsn)
            kept = self._contents.last_segment
            try:
                for segment in removed:
                    segment.close()
                remove_segments([segment.path for segment in reversed(removed)])
                kept.open_for_writing()
                kept.erase_rest(file_bytes=self._segment_bytes)
            except OSError as error:
                self._refuse(f"cutting the log back to {to} failed: {error}")
                raise
            self._durable_lsn = to.lsn

    def reset(self, base: Position) -> None:
        """Replace the log by an empty one that begins after `base`, durably: a crash leaves the old or the new.

        Raises:
            LogDamaged: An earlier sync failed.
            Unavailable: The log is closed.
            OSError: The disk is full, and the old log stands; or it failed, and the log refuses to go on.
        """
        with self._file_lock:
            self._check_usable()
            self._lower_mark(base)
            header = SegmentHeader(self._generation + 1, base)
            first = self._begin_segment(header, file_bytes=self._segment_bytes, origin=0)
            self._generation += 1
            removed = self._contents.begin_anew(first)
            self._durable_lsn = base.lsn
            self._mark.reach(base)
            for segment in removed:
                segment.close()
            # Recovery ignores an older generation; what cannot be removed now is removed then.
            self._dropped.clear()
            with suppress(OSError):
                remove_segments([segment.path for segment in removed if segment.path != first.path])

    def _lower_mark(self, to: Position) -> None:
        """Records past `to` are given up on purpose; those that the disk lost before are not, and stay marked."""
        if not self.end.lost:
            self._mark.lower(to)

    def drop_through(self, lsn: int) -> None:
        """Drop whole segments from the front whose every record is at most `lsn`; the last segment stays.

        Raises:
            OSError: The disk failed; the next call tries to remove what is left of the dropped files.
        """
        with self._file_lock:
            self._check_usable()
            self._dropped += [segment.path for segment in self._contents.drop_through(lsn)]
            # The oldest first and never past one that stays: what is left must be one unbroken log.
            while self._dropped:
                remove_segments(self._dropped[:1])
                del self._dropped[0]

    def close(self) -> None:
        """Close the files; what was not synced may be lost in a power cut. Closing twice does nothing more."""
        with self._file_lock:
            self._refusal = self._refusal or (Unavailable, f"the log in {self._directory} is closed")
            for segment in self._contents.segments:
                segment.close()
            self._mark.close()
