"""Which pages differ, and how hashes and pages are put into bounded messages."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent_core.database.build import PAGE_SIZE
from agent_core.database.pages import LOCK_PAGE, PAGE_HASH_BYTES, RUN_PAGES, page_hashes
from primary.resync_source import MAX_HASHES_BYTES, check_hashes, differing
from replica.resync import HASHES_PER_MESSAGE, IncomingResync, requests_for
from tests.unit.resync.harness import (
    HASHES_END,
    answers,
    end_message,
    hashes_message,
    pages_message,
    snapshot_message,
    source_of,
    start_message,
)
from tests.unit.shard_histories import CLUSTER, SHARD, History


async def test_a_receiver_with_a_larger_file_is_told_only_the_pages_that_remain(history: History) -> None:
    page_count = history.records[-1].page_count
    responses = await answers(
        source_of(history),
        start_message(page_count + 3),
        hashes_message(1, bytes((page_count + 3) * PAGE_HASH_BYTES)),
        HASHES_END,
    )
    assert responses[-1].end.pages_sent == page_count
    incoming = IncomingResync(page_count + 3)
    for response in responses:
        incoming.accept(response)
    assert incoming.ended


async def test_no_message_carries_more_than_a_mebibyte_of_pages(history: History) -> None:
    history.fill(2 * RUN_PAGES + 50)
    responses = await answers(source_of(history), start_message(), HASHES_END)
    sizes = [len(response.pages.page_numbers) // 4 for response in responses if response.HasField("pages")]
    assert max(sizes) == RUN_PAGES
    assert sum(sizes) == history.records[-1].page_count


@given(
    ours=st.lists(st.integers(0, 3), min_size=1, max_size=60),
    theirs=st.lists(st.one_of(st.none(), st.integers(0, 3)), max_size=60),
    first=st.integers(1, 1000),
)
def test_a_page_differs_if_and_only_if_its_hash_does(ours: list[int], theirs: list[int | None], first: int) -> None:
    theirs = (theirs + [None] * len(ours))[: len(ours)]
    images = b"".join([bytes([value]) * PAGE_SIZE for value in ours])
    hashes = [
        b"" if value is None else page_hashes(bytes([value]) * PAGE_SIZE, first + index)
        for index, value in enumerate(theirs)
    ]
    assert differing(first, images, hashes) == [
        first + index for index, value in enumerate(ours) if value != theirs[index]
    ]


def test_the_lock_page_never_differs() -> None:
    assert differing(LOCK_PAGE - 1, bytes(3 * PAGE_SIZE), [b""] * 3) == [LOCK_PAGE - 1, LOCK_PAGE + 1]
    incoming = IncomingResync(LOCK_PAGE - 1)
    incoming.accept(snapshot_message(LOCK_PAGE + 1))
    incoming.accept(pages_message([LOCK_PAGE + 1]))
    incoming.accept(end_message(1))
    assert incoming.ended


@given(st.integers(0, 3 * HASHES_PER_MESSAGE))
def test_the_requests_of_a_receiver_carry_each_hash_once_in_bounded_messages(page_count: int) -> None:
    hashes = b"".join([number.to_bytes(PAGE_HASH_BYTES, "big") for number in range(page_count)])
    start, *messages, end = requests_for(hashes, cluster_id=CLUSTER, node_id="n", group=0, shard=SHARD)
    assert start.start.page_count == page_count
    assert end.WhichOneof("message") == "hashes_end"
    received: list[bytes] = []
    for message in messages:
        assert message.ByteSize() <= MAX_HASHES_BYTES
        received += check_hashes(message, len(received), page_count)
    assert b"".join(received) == hashes
