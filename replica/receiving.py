"""What a standby accepts from a stream: each message is checked against the end of its log. Pure.

The checks go from the message inwards: epoch, size, form, checksum, group, order. What fails one is refused
under a name of a fixed set, counted, and repaired by a new hello from the log's own end; nothing of a refused
message is kept.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum

from agent_core.errors import LogDamaged
from agent_core.log.record import RecordHeader, RecordKind, check_checksum, read_header
from agent_core.position import Position
from agent_core.rpc import replication_pb2 as pb
from agent_core.stream import MAX_RECORD_BYTES, MESSAGE_BYTES, from_message


class RefusalReason(StrEnum):
    """Why a message was refused."""

    BAD_CHECKSUM = "bad_checksum"
    OUT_OF_ORDER = "out_of_order"
    """Something between the log's end and this is missing."""
    REPEATED = "repeated"
    """The log, or the record that is being put together, holds this already."""
    LOWER_EPOCH = "lower_epoch"
    WRONG_GROUP = "wrong_group"
    OVERSIZED = "oversized"
    MALFORMED = "malformed"


MAX_BLOCK_BYTES = 4 * MESSAGE_BYTES
"""What one message may hold at most; a sender of this build stays well below."""


@dataclass(frozen=True, slots=True)
class Refused:
    """Nothing of the message may be used; the stream ends."""

    reason: RefusalReason
    detail: str


@dataclass(frozen=True, slots=True)
class Follow:
    """The welcome of a primary that may be followed.

    Attributes:
        epoch: Its epoch; if it is above what was promised, promise it durably before anything else.
        primary: Its node.
        goes_on_from: Cut the log back to this, the last point that both logs hold …
        resync_required: … or, since there is none, resync every shard and begin the log anew after it.
        committed_lsn: What the primary knows to be committed.
    """

    epoch: int
    primary: str
    goes_on_from: Position
    resync_required: bool
    committed_lsn: int


@dataclass(frozen=True, slots=True)
class Reset:
    """A record that demands a resync of its shard before anything past it is acknowledged."""

    shard: int
    lsn: int


@dataclass(frozen=True, slots=True)
class Heard:
    """What a message tells about the primary.

    Attributes:
        committed_lsn: What it knows to be committed.
        last_lsn: The end of its log.
        bytes_behind: Bytes of its log that lie behind the message.
        sent_at_us: When it was sent, by the primary's clock; goes back to it for its lease.
    """

    committed_lsn: int
    last_lsn: int
    bytes_behind: int
    sent_at_us: int = 0


@dataclass(frozen=True, slots=True)
class Append:
    """Records to append to the log.

    Attributes:
        block: Whole records that follow the log's end; empty for a heartbeat, and for a part that is not the last.
        resets: The resets among them.
        heard: What came along; None with parts.
    """

    block: bytes = b""
    resets: tuple[Reset, ...] = ()
    heard: Heard | None = None


class _Problem(Exception):
    """A message failed a check; never leaves this module."""

    def __init__(self, reason: RefusalReason, detail: str) -> None:
        super().__init__(detail)
        self.refused = Refused(reason, detail)


@dataclass(slots=True)
class _Assembly:
    """A record that arrives in parts."""

    lsn: int
    total_bytes: int
    data: bytearray = field(default_factory=bytearray)


class Receiver:
    """Judges one group's incoming messages, over all streams of the node's life.

    Attributes:
        refusals: How often each reason applied.
        last: The end of the log as accepted so far; the owner appends what is accepted, in order.
    """

    def __init__(self, *, group: int, shards: frozenset[int]) -> None:
        self._group = group
        self._shards = shards
        self._epoch = 0
        self._assembly: _Assembly | None = None
        self.last = Position(0, 0)
        self.refusals: Counter[RefusalReason] = Counter(dict.fromkeys(RefusalReason, 0))

    def begin(self, last: Position) -> None:
        """A stream begins; the log ends at `last`."""
        self.last = last
        self._epoch = 0
        self._assembly = None

    def welcome(self, message: pb.Welcome, *, promised_epoch: int, held: Position) -> Follow | Refused:
        """Judge the first message of a stream.

        Args:
            message: The welcome.
            promised_epoch: The highest epoch that this node has promised to follow.
            held: The end of the log that the hello spoke of.
        """
        try:
            _check_epoch(message.epoch, promised_epoch)
            goes_on_from = _checked_start(message, held)
        except _Problem as problem:
            return self._refuse(problem)
        self._epoch = message.epoch
        self.last = goes_on_from
        return Follow(message.epoch, message.primary, goes_on_from, message.resync_required, message.committed_lsn)

    def records(self, message: pb.Records, *, promised_epoch: int) -> Append | Refused:
        """Judge whole records, or a heartbeat."""
        try:
            self._check_stream_epoch(message.epoch, promised_epoch)
            last, resets = self._check_block(message.records, message.first_lsn, MAX_BLOCK_BYTES)
            _check_log_end(message, last)
        except _Problem as problem:
            return self._refuse(problem)
        self.last = last
        heard = Heard(message.committed_lsn, message.last_lsn, message.bytes_behind, message.sent_at_us)
        return Append(message.records, resets, heard)

    def part(self, message: pb.RecordPart, *, promised_epoch: int) -> Append | Refused:
        """Judge a piece of one large record; the last piece makes it whole."""
        try:
            self._check_stream_epoch(message.epoch, promised_epoch)
            self._check_part(message)
            assembly = self._assembly or _Assembly(message.lsn, message.total_bytes)
            assembly.data += message.data
            if len(assembly.data) < assembly.total_bytes:
                self._assembly = assembly
                return Append()
            self._assembly = None
            block = bytes(assembly.data)
            last, resets = self._check_block(block, assembly.lsn, MAX_RECORD_BYTES)
        except _Problem as problem:
            return self._refuse(problem)
        self.last = last
        return Append(block, resets)

    def refuse(self, reason: RefusalReason, detail: str) -> Refused:
        """Count a refusal that someone else decided on."""
        return self._refuse(_Problem(reason, detail))

    def _refuse(self, problem: _Problem) -> Refused:
        self.refusals[problem.refused.reason] += 1
        self._assembly = None
        return problem.refused

    def _check_stream_epoch(self, epoch: int, promised_epoch: int) -> None:
        _check_epoch(epoch, max(promised_epoch, self._epoch))
        if epoch != self._epoch:
            raise _Problem(RefusalReason.MALFORMED, f"epoch is {epoch}; this stream is of epoch {self._epoch}")

    def _check_block(self, block: bytes, first_lsn: int, limit_bytes: int) -> tuple[Position, tuple[Reset, ...]]:
        """The end of the log with the block, and the resets in the block."""
        if not block:
            return self.last, ()
        if self._assembly is not None:
            raise _Problem(
                RefusalReason.OUT_OF_ORDER,
                f"records came after {len(self._assembly.data)} of the {self._assembly.total_bytes} bytes of "
                f"record {self._assembly.lsn}",
            )
        if len(block) > limit_bytes:
            raise _Problem(RefusalReason.OVERSIZED, f"records take {len(block)} bytes; allowed are {limit_bytes}")
        last, resets, offset = self.last, [], 0
        while offset < len(block):
            header = _checked_header(block, offset)
            offset += header.length
            self._check_follows(header, last)
            if header.kind is RecordKind.RESET:
                resets.append(Reset(header.shard, header.position.lsn))
            last = header.position
        if first_lsn != self.last.lsn + 1:
            raise _Problem(
                RefusalReason.MALFORMED, f"first_lsn is {first_lsn}; the first record is {self.last.lsn + 1}"
            )
        return last, tuple(resets)

    def _check_follows(self, header: RecordHeader, last: Position) -> None:
        position = header.position
        if header.group != self._group:
            raise _Problem(
                RefusalReason.WRONG_GROUP, f"record {position} is of group {header.group}, not of {self._group}"
            )
        if header.kind is not RecordKind.EPOCH and header.shard not in self._shards:
            raise _Problem(
                RefusalReason.WRONG_GROUP,
                f"record {position} changes shard {header.shard}, which is not in group {self._group}",
            )
        _check_next(position.lsn, last.lsn)
        if position.epoch < last.epoch:
            raise _Problem(RefusalReason.LOWER_EPOCH, f"record {position} follows {last}")
        if position.epoch > self._epoch:
            raise _Problem(RefusalReason.MALFORMED, f"record {position} is later than the stream's {self._epoch}")

    def _check_part(self, message: pb.RecordPart) -> None:
        if not 0 < message.total_bytes <= MAX_RECORD_BYTES or len(message.data) > MAX_BLOCK_BYTES:
            raise _Problem(
                RefusalReason.OVERSIZED,
                f"a part of {len(message.data)} bytes of a record of {message.total_bytes}; allowed are up to "
                f"{MAX_BLOCK_BYTES} of 1 to {MAX_RECORD_BYTES}",
            )
        _check_next(message.lsn, self.last.lsn)
        held = len(self._assembly.data) if self._assembly else 0
        total_bytes = self._assembly.total_bytes if self._assembly else message.total_bytes
        if message.offset != held:
            reason = RefusalReason.REPEATED if message.offset < held else RefusalReason.OUT_OF_ORDER
            raise _Problem(reason, f"record {message.lsn}: a part at {message.offset} came; {held} must come next")
        if message.total_bytes != total_bytes or not 0 < len(message.data) <= total_bytes - held:
            raise _Problem(
                RefusalReason.MALFORMED,
                f"record {message.lsn}: {len(message.data)} bytes at {held} of {message.total_bytes} do not fit "
                f"a record of {total_bytes}",
            )


def _check_epoch(epoch: int, lowest: int) -> None:
    if epoch < lowest:
        raise _Problem(RefusalReason.LOWER_EPOCH, f"epoch is {epoch}; {lowest} is promised")


def _checked_start(message: pb.Welcome, held: Position) -> Position:
    if message.resync_required:
        base = from_message(message.base)
        if base.epoch > message.epoch:
            raise _Problem(RefusalReason.MALFORMED, f"base {base} is of a later epoch than {message.epoch}")
        return base
    shared = from_message(message.shared)
    if shared > held:
        raise _Problem(RefusalReason.MALFORMED, f"shared {shared} lies past the end of this log, {held}")
    return shared


def _check_log_end(message: pb.Records, last: Position) -> None:
    lowest = max(last.lsn, message.committed_lsn)
    if message.last_lsn < lowest:
        raise _Problem(
            RefusalReason.MALFORMED,
            f"last_lsn is {message.last_lsn}; allowed is at least {lowest}: the records end at {last.lsn} and "
            f"{message.committed_lsn} is committed",
        )


def _check_next(lsn: int, last_lsn: int) -> None:
    if lsn <= last_lsn:
        raise _Problem(RefusalReason.REPEATED, f"record {lsn} came again; the log ends at {last_lsn}")
    if lsn > last_lsn + 1:
        raise _Problem(RefusalReason.OUT_OF_ORDER, f"record {lsn} came; {last_lsn + 1} must come next")


def _checked_header(block: bytes, offset: int) -> RecordHeader:
    try:
        header = read_header(block, offset)
    except LogDamaged as error:
        raise _Problem(RefusalReason.MALFORMED, str(error)) from error
    try:
        check_checksum(block, offset, header)
    except LogDamaged as error:
        raise _Problem(RefusalReason.BAD_CHECKSUM, str(error)) from error
    return header
