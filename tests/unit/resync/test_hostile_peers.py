"""What either end refuses to believe of the other, and what bounds it."""

from __future__ import annotations

import pytest
import zstandard

from agent_core.database.build import PAGE_SIZE
from agent_core.database.pages import LOCK_PAGE, MAX_PAGE_COUNT
from agent_core.errors import HeadwaterError, InvalidRequest, Overloaded, ShardDamaged, Unavailable, WrongCluster
from agent_core.position import Position
from agent_core.rpc import replication_pb2 as pb
from primary.resync_source import MAX_CONCURRENT, MAX_HASHES_BYTES
from replica.resync import MAX_PAGES_PER_MESSAGE, decompress
from tests.unit.resync.harness import (
    HASHES_END,
    Thread,
    answering,
    answers,
    each,
    end_message,
    hashes_message,
    pages_message,
    resync_of,
    snapshot_message,
    source_of,
    start_message,
)
from tests.unit.shard_histories import SHARD, History, pages_of

FOUR_NEW_PAGES = (snapshot_message(4), pages_message([1, 2, 3, 4]))

HOSTILE_ANSWERS = {
    "no snapshot": (pages_message([1]),),
    "an end first": (end_message(0),),
    "two snapshots": (snapshot_message(4), snapshot_message(4)),
    "an empty message": (snapshot_message(4), pb.ResyncResponse()),
    "no pages at all": (snapshot_message(0),),
    "too many pages": (snapshot_message(MAX_PAGE_COUNT + 1),),
    "page 0": (snapshot_message(4), pages_message([0, 1])),
    "a page past the end": (snapshot_message(4), pages_message([4, 5])),
    "the lock page": (snapshot_message(LOCK_PAGE + 1), pages_message([LOCK_PAGE])),
    "a page twice": (snapshot_message(4), pages_message([2, 2])),
    "a page again": (snapshot_message(4), pages_message([1, 2]), pages_message([2, 3])),
    "descending": (snapshot_message(4), pages_message([3, 2])),
    "no numbers": (snapshot_message(4), pages_message([])),
    "half a number": (snapshot_message(4), pb.ResyncResponse(pages=pb.ResyncPages(page_numbers=b"\0\0\1"))),
    "too many in one message": (
        snapshot_message(MAX_PAGE_COUNT),
        pages_message(list(range(1, MAX_PAGES_PER_MESSAGE + 2))),
    ),
    "fewer images than numbers": (snapshot_message(4), pages_message([1, 2], bytes(PAGE_SIZE))),
    "more images than numbers": (snapshot_message(4), pages_message([1], bytes(2 * PAGE_SIZE))),
    "not compressed": (
        snapshot_message(4),
        pb.ResyncResponse(pages=pb.ResyncPages(page_numbers=b"\0\0\0\1", pages=bytes(PAGE_SIZE))),
    ),
    "a bomb": (snapshot_message(4), pages_message([1], bytes(64 << 20))),
    "another number of pages": (*FOUR_NEW_PAGES, end_message(3)),
    "new pages missing": (snapshot_message(5), pages_message([1, 2, 3, 4]), end_message(4)),
    "something behind the end": (*FOUR_NEW_PAGES, end_message(4), end_message(4)),
    "images that are no shard": (*FOUR_NEW_PAGES, end_message(4)),
}


@pytest.mark.parametrize("messages", HOSTILE_ANSWERS.values(), ids=HOSTILE_ANSWERS.keys())
async def test_a_hostile_source_is_refused_and_nothing_changes(
    thread: Thread, history: History, messages: tuple[pb.ResyncResponse, ...]
) -> None:
    await thread.run(thread.owned.apply, history.records[:1])
    page_count = thread.owned.page_count
    before = pages_of(thread.owned.path)
    with pytest.raises(ShardDamaged):
        await resync_of(thread).run(answering(*messages))
    assert pages_of(thread.owned.path) == before
    assert (thread.owned.page_count, thread.owned.applied) == (page_count, Position(1, 1))


def test_what_would_decompress_to_more_is_not_decompressed() -> None:
    bomb = zstandard.compress(bytes(1 << 20))
    with pytest.raises(ShardDamaged, match="announce 1048576 bytes"):
        decompress(bomb, PAGE_SIZE)
    without_size = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(PAGE_SIZE))
    with pytest.raises(ShardDamaged, match="announce -1 bytes"):
        decompress(without_size, PAGE_SIZE)
    with pytest.raises(ShardDamaged, match="cannot be decompressed"):
        decompress(zstandard.compress(bytes(PAGE_SIZE)) + b"more", PAGE_SIZE)
    assert decompress(zstandard.compress(bytes(PAGE_SIZE)), PAGE_SIZE) == bytes(PAGE_SIZE)


HOSTILE_REQUESTS: dict[str, tuple[type[HeadwaterError], tuple[pb.ResyncRequest, ...]]] = {
    "no start": (InvalidRequest, (HASHES_END,)),
    "an empty message": (InvalidRequest, (pb.ResyncRequest(),)),
    "another cluster": (WrongCluster, (start_message(cluster_id="another"),)),
    "another shard": (InvalidRequest, (start_message(shard=SHARD + 1),)),
    "another group": (InvalidRequest, (start_message(group=1),)),
    "too many pages": (InvalidRequest, (start_message(MAX_PAGE_COUNT + 1),)),
    "a second start": (InvalidRequest, (start_message(1), start_message(1))),
    "hashes of page 0": (InvalidRequest, (start_message(1), hashes_message(0, bytes(16)))),
    "a gap": (InvalidRequest, (start_message(9), hashes_message(1, bytes(16)), hashes_message(3, bytes(16)))),
    "no hashes": (InvalidRequest, (start_message(1), hashes_message(1, b""))),
    "half a hash": (InvalidRequest, (start_message(1), hashes_message(1, bytes(8)))),
    "too many hashes": (
        InvalidRequest,
        (start_message(MAX_PAGE_COUNT), hashes_message(1, bytes(MAX_HASHES_BYTES + 16))),
    ),
    "more than announced": (InvalidRequest, (start_message(1), hashes_message(1, bytes(32)))),
    "fewer than announced": (InvalidRequest, (start_message(2), hashes_message(1, bytes(16)), HASHES_END)),
    "an early end": (Unavailable, (start_message(2),)),
}


@pytest.mark.parametrize(("error", "requests"), HOSTILE_REQUESTS.values(), ids=HOSTILE_REQUESTS.keys())
async def test_a_hostile_receiver_is_refused_and_leaves_no_snapshot(
    history: History, error: type[HeadwaterError], requests: tuple[pb.ResyncRequest, ...]
) -> None:
    source = source_of(history)
    with pytest.raises(error):
        await answers(source, *requests)
    assert (source.active, source.served) == (0, 0)
    assert history.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0


async def test_the_source_serves_a_bounded_number_of_receivers_at_once(history: History) -> None:
    source = source_of(history)
    calls = [source.serve(each(start_message(), HASHES_END)) for _ in range(MAX_CONCURRENT)]
    for call in calls:
        await anext(call)
    with pytest.raises(Overloaded, match=f"allowed are {MAX_CONCURRENT}"):
        await answers(source, start_message(), HASHES_END)
    for call in calls:
        assert [response.WhichOneof("message") async for response in call][-1] == "end"
    assert source.active == 0
