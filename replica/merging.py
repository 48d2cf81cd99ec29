"""Waiting records of one shard become the pages to write, checked before anything is written. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

from agent_core.database.pages import LOCK_PAGE, MAX_PAGE_COUNT, PageImages, images_in_frames
from agent_core.database.wal import FRAME_SIZE
from agent_core.errors import ShardDamaged
from agent_core.log.record import Record, RecordKind
from agent_core.position import Position


def newer_than(contains: Position, records: Sequence[Record], shard: int) -> list[Record]:
    """The records that a shard does not contain yet.

    Raises:
        ShardDamaged: A record is none that this shard applies, or not in the order of positions.
    """
    last = contains
    newer = []
    for record in records:
        if record.kind is not RecordKind.TRANSACTION or record.shard != shard:
            raise ShardDamaged(
                f"record {record.position} is a {record.kind.name} of shard {record.shard}; "
                f"shard {shard} applies its own transactions"
            )
        if record.position.lsn > last.lsn:
            if record.position < last:
                raise ShardDamaged(f"record {record.position} follows {last} with a lower epoch")
            newer.append(record)
            last = record.position
    return newer


def merged_pages(records: Sequence[Record], *, shard: int, page_count: int) -> list[PageImages]:
    """The records' pages as they are after the last of them, in pieces to be written in order.

    Pages past the end are left out: the file shrank, or a cache spilled them before it did.

    Args:
        records: At least one, all of this shard.
        shard: Named in errors.
        page_count: The pages that the shard has before them.

    Raises:
        ShardDamaged: The records do not lead from that many pages to a whole shard.
    """
    try:
        return _checked_pages(records, page_count)
    except ShardDamaged as error:
        first, last = records[0].position, records[-1].position
        raise ShardDamaged(f"shard {shard}, records {first} to {last}: {error}") from error


def _checked_pages(records: Sequence[Record], page_count: int) -> list[PageImages]:
    reached = records[-1].page_count
    for record in records:
        if not record.frames or len(record.frames) % FRAME_SIZE:
            raise ShardDamaged(f"{len(record.frames)} bytes of frames are no multiple of {FRAME_SIZE}")
    if not 1 <= reached <= MAX_PAGE_COUNT:
        raise ShardDamaged(f"page_count is {reached}; allowed are 1 to {MAX_PAGE_COUNT}")
    frames = b"".join([record.frames for record in records])
    pieces = [images.within(reached) for images in images_in_frames(frames)]
    for piece in pieces:
        if 0 in piece.starts or LOCK_PAGE in piece.starts:
            raise ShardDamaged(f"page numbers 0 and {LOCK_PAGE} are never written")
    if reached > page_count:
        _check_growth(pieces, page_count, reached)
    return pieces


def _check_growth(pieces: Sequence[PageImages], page_count: int, reached: int) -> None:
    written = sum(len(piece.starts) for piece in pieces)
    numbers = set(chain.from_iterable(piece.starts for piece in pieces)) | {LOCK_PAGE}
    grown = range(page_count + 1, reached + 1)
    if len(grown) > written + 1 or not numbers.issuperset(grown):
        raise ShardDamaged(
            f"the shard would grow from {page_count} to {reached} pages, but not every new page is there"
        )
