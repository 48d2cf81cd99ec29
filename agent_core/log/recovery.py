"""What a directory of segments holds after a crash.

Segments are scanned in order. A segment is begun only after the one before it is durable, so a torn tail is
found in the last one: everything from its first bad record on is cut off. Where valid records lie beyond the
bad one, bytes went bad that were once written well; the log is cut there too, and `Recovery.damage` says so.
(That is a strong suspicion, not a proof: a power cut may have kept a later page of the last batch and lost an
earlier one.)
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from agent_core.errors import LogDamaged
from agent_core.log.history import HistoryBuilder
from agent_core.log.record import MAGIC, check_checksum, read_header
from agent_core.log.segment import (
    HEADER_BYTES,
    NAME_PATTERN,
    UNFINISHED_SUFFIX,
    LogIdentity,
    Segment,
    SegmentHeader,
    prepare_segment,
    read_segment_header,
    segment_name,
    sync_directory,
)
from agent_core.position import START, EpochTable

_SEARCH_FACTOR = 4
"""The search for records beyond a bad one may read its segment this often: what it meets may be made up."""


@dataclass(frozen=True, slots=True)
class Recovery:
    """What was found; everything in it is durable.

    Attributes:
        segments: In order, at least one; all but the last are closed.
        table: The epochs of their records.
        generation: Of the segments.
        torn_bytes: Bytes of a torn tail that were cut off.
        damage: What went bad among records that had been written well; None when nothing did.
    """

    segments: list[Segment]
    table: EpochTable
    generation: int
    torn_bytes: int
    damage: str | None


class _Found(NamedTuple):
    path: Path
    header: SegmentHeader | None


def remove_segments(paths: Sequence[Path]) -> None:
    """Remove files one after the other, durably: after a crash a tail of `paths` is left, never a part amid it."""
    for path in paths:
        path.unlink(missing_ok=True)
        sync_directory(path.parent)


def recover(directory: Path, identity: LogIdentity, *, segment_bytes: int) -> Recovery:
    """Read, repair and make durable what `directory` holds; an empty one gets its first segment.

    Raises:
        WrongCluster: It is the log of another cluster or group; it was left untouched.
        LogDamaged: It was written by another version of the format; it was left untouched.
        OSError: The disk is full or failed.
    """
    found = [
        _Found(path, _header_of(path, identity))
        for path in sorted(directory.iterdir())
        if NAME_PATTERN.fullmatch(path.name)
    ]
    remove_segments([path for path in directory.iterdir() if path.suffix == UNFINISHED_SUFFIX])
    generation = max((each.header.generation for each in found if each.header is not None), default=0)
    is_stale = [each.header is not None and each.header.generation < generation for each in found]
    remove_segments([each.path for each, stale in zip(found, is_stale, strict=True) if stale])
    chain = [each for each, stale in zip(found, is_stale, strict=True) if not stale]
    return _recover_chain(directory, identity, chain, generation, segment_bytes)


def _header_of(path: Path, identity: LogIdentity) -> SegmentHeader | None:
    header = read_segment_header(path, identity)
    return header if header is not None and path.name == segment_name(header.base) else None


def _recover_chain(
    directory: Path, identity: LogIdentity, chain: Sequence[_Found], generation: int, segment_bytes: int
) -> Recovery:
    segments: list[Segment] = []
    table = EpochTable(START, (), START)
    torn_bytes = 0
    damage: str | None = None
    for index, (path, header) in enumerate(chain):
        lost = [each.path for each in reversed(chain[index:])]
        if header is None:
            damage = f"{path.name} has a damaged header"
            remove_segments(lost)
            break
        if segments and header.base != table.last:
            damage = f"{path.name} begins after {header.base}, but the log before it ends at {table.last}"
            remove_segments(lost)
            break
        if not segments:
            table = EpochTable(header.base, (), header.base)
        data = path.read_bytes()
        history = HistoryBuilder(table, group=identity.group)
        scan = _scan(data, history)
        table = history.build()
        origin = segments[-1].origin + segments[-1].used_bytes if segments else 0
        segment = Segment(path, header.base, origin=origin, ends=scan.ends)
        segments.append(segment)
        if scan.bad is not None:
            if lost[:-1] or _holds_record_beyond(data, scan.end, table.last.lsn):
                damage = f"{path.name}: {scan.bad}; records that were written later lie beyond"
            torn_bytes = scan.written_end - scan.end
            remove_segments(lost[:-1])
            segment.erase_rest(file_bytes=segment_bytes)
            break
        segment.sync()
        segment.close()
    if not segments:
        generation += 1
        first = SegmentHeader(generation, START)
        unfinished = prepare_segment(directory, identity, first, file_bytes=segment_bytes)
        segments.append(Segment.publish(unfinished, first, origin=0))
    segments[-1].open_for_writing()
    return Recovery(segments, table, generation, torn_bytes, damage)


class _Scan(NamedTuple):
    """The good records at the beginning of a segment.

    Attributes:
        ends: Where each of them ends, as `Segment.ends`.
        end: Where the last of them ends in the file.
        written_end: Where the zeros at the end of the file begin.
        bad: Why what stands at `end` is no good record; None when only zeros follow.
    """

    ends: array[int]
    end: int
    written_end: int
    bad: str | None


def _scan(data: bytes, history: HistoryBuilder) -> _Scan:
    ends = array("Q")
    end = HEADER_BYTES
    written_end = len(data.rstrip(b"\0"))
    while end < written_end:
        try:
            header = read_header(data, end)
            check_checksum(data, end, header)
            history.add(header)
        except LogDamaged as error:
            return _Scan(ends, end, written_end, str(error))
        end += header.length
        ends.append(end - HEADER_BYTES)
    return _Scan(ends, end, written_end, None)


def _holds_record_beyond(data: bytes, bad_offset: int, last_lsn: int) -> bool:
    """Whether a whole record of a later lsn stands anywhere behind the bad one."""
    budget = _SEARCH_FACTOR * len(data)
    offset = data.find(MAGIC, bad_offset + 1)
    while offset >= 0 and budget > 0:
        with suppress(LogDamaged):
            header = read_header(data, offset)
            budget -= header.length
            check_checksum(data, offset, header)
            # An earlier record may stand there too: as content of a frame.
            if header.position.lsn > last_lsn:
                return True
        offset = data.find(MAGIC, offset + 1)
    return False
