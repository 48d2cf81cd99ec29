"""Sessions and transcripts as shards answer them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from agent_core.database.build import open_for_reading
from agent_core.errors import SessionNotFound
from agent_core.routing import ShardLayout
from replica.reading import queries
from tests.reading_shards import WrittenShards

ONE_SHARD = ShardLayout(shard_count=1)


@pytest.fixture
def shards(tmp_path: Path) -> Iterator[WrittenShards]:
    written = WrittenShards(tmp_path, ONE_SHARD)
    written.create_every_shard()
    yield written
    written.close()


def transcribed(
    shards: WrittenShards, session_id: str, after_seq: int = 0, limit: int = 1000
) -> tuple[list[int], bool]:
    connection = open_for_reading(shards.path(0))
    try:
        page = queries.transcript(connection, session_id, after_seq, limit)
    finally:
        connection.close()
    return [entry.seq for entry in page.entries], page.more


def test_the_last_entry_counts_whether_it_is_folded_or_not(shards: WrittenShards) -> None:
    shards.create("a", created_at=1)
    shards.append("a", "1", "2", at=50)
    shards.fold(0)
    shards.append("a", "3", at=60)
    connection = open_for_reading(shards.path(0))
    overview = queries.session(connection, "a")
    connection.close()
    assert (overview.entry_count, overview.updated_at_ms, overview.created_at_ms) == (3, 60, 1)
    assert overview.metadata_json == b"{}"


def test_an_unknown_session_is_named(shards: WrittenShards) -> None:
    with pytest.raises(SessionNotFound, match="'nobody'"):
        transcribed(shards, "nobody")


@pytest.mark.parametrize("folds_after", [0, 1, 4, 10])
def test_a_transcript_has_no_gap_where_the_tail_begins(shards: WrittenShards, folds_after: int) -> None:
    shards.create("other")
    shards.create("a")
    for seq in range(1, 11):
        shards.append("a", str(seq))
        shards.append("other", "{}")
        if seq == folds_after:
            shards.fold(0)
    for after_seq in range(12):
        for limit in (1, 3, 10, 11):
            expected = list(range(after_seq + 1, 11))
            assert transcribed(shards, "a", after_seq, limit) == (expected[:limit], len(expected) > limit)


def test_a_transcript_is_bounded_by_bytes_but_never_empty(shards: WrittenShards) -> None:
    shards.create("a")
    big = '"' + "x" * (3 << 20) + '"'
    shards.append("a", big, "1", big, '"' + "y" * (5 << 20) + '"', "2")
    assert transcribed(shards, "a") == ([1, 2], True)
    assert transcribed(shards, "a", after_seq=2) == ([3], True)
    assert transcribed(shards, "a", after_seq=3) == ([4], True)
    assert transcribed(shards, "a", after_seq=4) == ([5], False)


def test_a_long_transcript_is_read_through_its_index(shards: WrittenShards) -> None:
    shards.create("a")
    shards.append("a", *map(str, range(1000)))
    shards.fold(0)
    connection = open_for_reading(shards.path(0))
    for statement in (queries._FOLDED_ENTRIES, queries._TAIL_ENTRIES):
        plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}", (1, 0, 10))]
        assert not any(step.startswith("SCAN e") and "tail" not in step for step in plan), plan
        assert not any("TEMP B-TREE" in step for step in plan), plan
    connection.close()
