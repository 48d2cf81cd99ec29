"""Session lists and transcripts as shards answer them."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_core.database.build import open_for_reading
from agent_core.errors import InvalidRequest, SessionNotFound
from agent_core.routing import ShardLayout
from replica.reading import queries
from replica.reading.paging import PageKey, decode_page_token, encode_page_token
from replica.reading.queries import SessionFilter, SessionOverview, SessionPage, merge_sessions
from tests.reading_shards import WrittenShards

ONE_SHARD = ShardLayout(shard_count=1)


@pytest.fixture
def shards(tmp_path: Path) -> Iterator[WrittenShards]:
    written = WrittenShards(tmp_path, ONE_SHARD)
    written.create_every_shard()
    yield written
    written.close()


def listed(shards: WrittenShards, after: PageKey | None = None, page_size: int = 100, **wanted: Any) -> list[str]:
    connection = open_for_reading(shards.path(0))
    try:
        page = queries.sessions_of_shard(connection, SessionFilter(**wanted), after, page_size)
    finally:
        connection.close()
    return [session.session_id for session in page.sessions]


def transcribed(
    shards: WrittenShards, session_id: str, after_seq: int = 0, limit: int = 1000
) -> tuple[list[int], bool]:
    connection = open_for_reading(shards.path(0))
    try:
        page = queries.transcript(connection, session_id, after_seq, limit)
    finally:
        connection.close()
    return [entry.seq for entry in page.entries], page.more


def test_sessions_come_most_recently_updated_first_and_ties_by_id(shards: WrittenShards) -> None:
    for session_id, at in (("b", 5), ("a", 5), ("c", 9), ("d", 1)):
        shards.create(session_id, created_at=at)
    shards.append("d", "{}", at=7)
    assert listed(shards) == ["c", "d", "a", "b"]


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


def test_filters_narrow_the_list_together(shards: WrittenShards) -> None:
    shards.create("a", workspace="w", status="idle", model="m")
    shards.create("b", workspace="w", status="running", model="m")
    shards.create("c", workspace="v", status="idle", model="m")
    assert listed(shards, workspace="w", status="idle", model="m") == ["a"]
    assert listed(shards, model="m") == ["a", "b", "c"]
    assert listed(shards, model="' OR 1=1 --") == []


def test_text_is_found_in_titles_and_ids_and_means_itself(shards: WrittenShards) -> None:
    shards.create("fix-login", title="100% of tests")
    shards.create("other", title="1000 tests")
    shards.create("third", title="back\\slash a_b")
    shards.create("fourth", title="axb")
    assert listed(shards, text="LOGIN") == ["fix-login"]
    assert listed(shards, text="100%") == ["fix-login"]
    assert listed(shards, text="a_b") == ["third"]
    assert listed(shards, text="k\\s") == ["third"]


@pytest.mark.parametrize("folded", [False, True])
def test_a_list_is_cut_to_a_time(shards: WrittenShards, folded: bool) -> None:
    for session_id, at in (("a", 5), ("b", 6), ("c", 7), ("d", 1)):
        shards.create(session_id, created_at=at)
    shards.append("d", "{}", at=6)
    if folded:
        shards.fold(0)
    assert listed(shards, updated_after_ms=5, updated_before_ms=7) == ["b", "d"]
    assert listed(shards, after=PageKey(6, "b"), updated_after_ms=5) == ["d"]


def test_a_page_costs_its_own_rows_and_no_sort(shards: WrittenShards) -> None:
    shards.create("a", workspace="w", status="idle", model="m")
    connection = open_for_reading(shards.path(0))
    plans: list[str] = []
    connection.set_trace_callback(plans.append)
    filters: list[dict[str, Any]] = [{}, {"workspace": "w"}, {"status": "idle"}, {"model": "m"}, {"text": "a"}]
    for wanted in filters:
        plans.clear()
        queries.sessions_of_shard(connection, SessionFilter(**wanted), PageKey(9, "z"), 10)
        statement = next(plan for plan in plans if "NOT IN" in plan)
        plan = " / ".join(str(row[3]) for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}"))
        assert "INDEX sessions_by_" in plan
        assert "TEMP B-TREE FOR ORDER BY" not in plan
    connection.close()


def test_a_filter_that_is_too_long_is_named() -> None:
    with pytest.raises(InvalidRequest, match="text has 257 characters; allowed are 256"):
        SessionFilter(text="x" * 257)


def test_a_list_goes_on_after_a_key(shards: WrittenShards) -> None:
    for session_id, at in (("a", 5), ("b", 5), ("c", 4), ("d", 6)):
        shards.create(session_id, created_at=at)
    assert listed(shards, after=PageKey(5, "a")) == ["b", "c"]


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


def overview(session_id: str, at: int, metadata_bytes: int = 2) -> SessionOverview:
    return SessionOverview(session_id, "", "", "idle", "", "", "", at, at, 0, b" " * metadata_bytes)


@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.integers(0, 3), st.sampled_from([2, 1_500_000, 5_000_000])), max_size=40
    ),
    st.integers(1, 7),
)
def test_pages_of_many_shards_hold_every_session_once_and_in_order(
    sessions: list[tuple[int, int, int]], page_size: int
) -> None:
    by_shard: list[list[SessionOverview]] = [[] for _ in range(4)]
    for number, (at, shard, size) in enumerate(sessions):
        by_shard[shard].append(overview(f"s{number:03d}", at, size))
    everything = sorted((each for shard in by_shard for each in shard), key=queries._order)
    seen: list[SessionOverview] = []
    more = True
    while more:
        after = queries._order(seen[-1]) if seen else (-100, "")
        pages = [
            queries._session_page(
                (each for each in sorted(shard, key=queries._order) if queries._order(each) > after), page_size
            )
            for shard in by_shard
        ]
        page = merge_sessions(pages, page_size)
        assert len(page.sessions) <= page_size
        assert page.sessions or not page.more
        seen += page.sessions
        more = page.more
    assert seen == everything


def test_a_full_page_without_more_ends_the_list() -> None:
    assert merge_sessions([SessionPage([overview("a", 1)], more=False)], 1) == SessionPage(
        [overview("a", 1)], False
    )


@given(
    st.builds(
        PageKey,
        st.integers(-(2**63) + 1, 2**63 - 1),
        st.from_regex(r"[a-z0-9][A-Za-z0-9._:-]{0,127}", fullmatch=True),
    )
)
def test_page_tokens_come_back_as_they_went(key: PageKey) -> None:
    assert decode_page_token(encode_page_token(key)) == key


def test_no_token_is_the_first_page() -> None:
    assert decode_page_token("") is None


def encoded(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    "token",
    [
        "!",
        "a",
        "x" * 513,
        encoded("{}"),
        encoded("[1]"),
        encoded('["1","a"]'),
        encoded('[true,"a"]'),
        encoded('[1,"a b"]'),
        encoded('[1.5,"a"]'),
        encoded('[99999999999999999999,"a"]'),
        encoded("[" * 400),
        "é",
    ],
)
def test_foreign_page_tokens_are_refused(token: str) -> None:
    with pytest.raises(InvalidRequest, match="page_token"):
        decode_page_token(token)


@given(st.text(max_size=100))
def test_no_page_token_does_worse_than_be_refused(token: str) -> None:
    with contextlib.suppress(InvalidRequest):
        decode_page_token(token)
