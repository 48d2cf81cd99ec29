"""The session list: what a shard gives for a page, how the shards' pages become one, and page tokens."""

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
from agent_core.errors import InvalidRequest
from agent_core.routing import ShardLayout
from replica.reading.paging import (
    LAST_UPDATED_FIRST,
    Direction,
    PageKey,
    SessionOrder,
    SessionSort,
    decode_page_token,
    encode_page_token,
)
from replica.reading.queries import SessionOverview
from replica.reading.session_list import (
    SessionFilter,
    SessionPage,
    exhausted,
    likely_share,
    merge_sessions,
    session_page,
    sessions_of_shard,
)
from tests.reading_shards import WrittenShards

ONE_SHARD = ShardLayout(shard_count=1)
ORDERS = [SessionOrder(sort, direction) for sort in SessionSort for direction in Direction]
orders = st.sampled_from(ORDERS)


@pytest.fixture
def shards(tmp_path: Path) -> Iterator[WrittenShards]:
    written = WrittenShards(tmp_path, ONE_SHARD)
    written.create_every_shard()
    yield written
    written.close()


def listed(
    shards: WrittenShards,
    order: SessionOrder = LAST_UPDATED_FIRST,
    after: PageKey | None = None,
    page_size: int = 100,
    **wanted: Any,
) -> list[str]:
    connection = open_for_reading(shards.path(0))
    try:
        page = sessions_of_shard(connection, SessionFilter(**wanted), order, after, page_size)
    finally:
        connection.close()
    return [session.session_id for session in page.sessions]


def test_sessions_come_most_recently_updated_first_and_ties_by_id(shards: WrittenShards) -> None:
    for session_id, at in (("b", 5), ("a", 5), ("c", 9), ("d", 1)):
        shards.create(session_id, created_at=at)
    shards.append("d", "{}", at=7)
    assert listed(shards) == ["c", "d", "a", "b"]


@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize(
    ("order", "expected"),
    [
        (SessionOrder.parse("", ""), ["d", "c", "a", "b"]),
        (SessionOrder.parse("updated", "asc"), ["b", "a", "c", "d"]),
        (SessionOrder.parse("created", ""), ["c", "a", "b", "d"]),
        (SessionOrder.parse("created", "asc"), ["d", "b", "a", "c"]),
        (SessionOrder.parse("title", ""), ["d", "b", "a", "c"]),
        (SessionOrder.parse("title", "desc"), ["c", "a", "b", "d"]),
    ],
)
def test_each_order_is_kept_by_shards_and_read_backwards_with_its_ties(
    shards: WrittenShards, order: SessionOrder, expected: list[str], folded: bool
) -> None:
    for session_id, at, title in (("b", 5, "beta"), ("a", 5, "Émile"), ("c", 9, "émile"), ("d", 1, "Alpha")):
        shards.create(session_id, created_at=at, title=title)
    shards.append("d", "{}", at=20)
    if folded:
        shards.fold(0)
    assert listed(shards, order) == expected
    for at in range(1, len(expected)):
        (first,) = [session for session in overviews(shards) if session.session_id == expected[at - 1]]
        assert listed(shards, order, order.key(first)) == expected[at:]


def test_titles_that_differ_in_case_only_are_ties(shards: WrittenShards) -> None:
    for session_id, title in (("c", "Parser"), ("b", "pARSER"), ("a", "parser"), ("d", "parse")):
        shards.create(session_id, created_at=1, title=title)
    by_title = SessionOrder.parse("title", "")
    assert listed(shards, by_title) == ["d", "a", "b", "c"]
    assert listed(shards, by_title, PageKey("PARSER", "a")) == ["b", "c"]


def overviews(shards: WrittenShards) -> list[SessionOverview]:
    connection = open_for_reading(shards.path(0))
    try:
        return sessions_of_shard(connection, SessionFilter(), LAST_UPDATED_FIRST, None, 1000).sessions
    finally:
        connection.close()


@pytest.mark.parametrize("order", [order for order in ORDERS if order.sort is not SessionSort.UPDATED])
def test_a_list_by_what_does_not_change_holds_everything_once_whatever_is_appended_meanwhile(
    shards: WrittenShards, order: SessionOrder
) -> None:
    for number in range(10):
        shards.create(f"s{number}", created_at=number % 3, title=f"title {number % 4}")
    seen: list[str] = []
    after = None
    while page := [
        session for session in _page(shards, order, after, page_size=3).sessions if session.session_id not in seen
    ]:
        seen += [session.session_id for session in page]
        after = order.key(page[-1])
        for session in page:
            shards.append(session.session_id, "{}", at=100 + len(seen))
        shards.fold(0)
    assert sorted(seen) == [f"s{number}" for number in range(10)]
    assert seen == listed(shards, order)


def test_a_list_by_last_update_holds_what_rests_once_though_others_move(shards: WrittenShards) -> None:
    for number in range(9):
        shards.create(f"s{number}", created_at=number)
    seen: list[str] = []
    after = None
    while page := _page(shards, LAST_UPDATED_FIRST, after, page_size=2).sessions:
        seen += [session.session_id for session in page]
        after = LAST_UPDATED_FIRST.key(page[-1])
        shards.append("s0", "{}", at=100 + len(seen))
        shards.append("s8", "{}", at=100 + len(seen))
    assert [session_id for session_id in seen if session_id not in ("s0", "s8")] == [
        f"s{number}" for number in range(7, 0, -1)
    ]


def _page(shards: WrittenShards, order: SessionOrder, after: PageKey | None, page_size: int) -> SessionPage:
    connection = open_for_reading(shards.path(0))
    try:
        return sessions_of_shard(connection, SessionFilter(), order, after, page_size)
    finally:
        connection.close()


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
    assert listed(shards, created_before_ms=6) == ["d", "a"]
    assert listed(shards, created_after_ms=1, created_before_ms=7, updated_after_ms=5) == ["b"]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    "wanted",
    [{}, {"workspace": "w"}, {"status": "idle"}, {"model": "m"}, {"text": "a"}, {"model": "m", "status": "idle"}],
)
def test_a_page_costs_its_own_rows_and_no_sort(
    shards: WrittenShards, wanted: dict[str, Any], order: SessionOrder
) -> None:
    shards.create("a", workspace="w", status="idle", model="m")
    connection = open_for_reading(shards.path(0))
    plans: list[str] = []
    connection.set_trace_callback(plans.append)
    after = PageKey("z" if order.sort is SessionSort.TITLE else 9, "z")
    sessions_of_shard(connection, SessionFilter(**wanted), order, after, 10)
    statement = next(plan for plan in plans if "NOT IN" in plan)
    plan = " / ".join(str(row[3]) for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}"))
    connection.close()
    assert "SEARCH s USING INDEX sessions_by_" in plan
    assert "TEMP B-TREE FOR ORDER BY" not in plan


def test_a_filter_that_is_too_long_is_named() -> None:
    with pytest.raises(InvalidRequest, match="text has 257 characters; allowed are 256"):
        SessionFilter(text="x" * 257)


@pytest.mark.parametrize(
    ("sort", "order", "words"),
    [
        ("size", "", "sort is 'size'; allowed are updated, created, title"),
        ("", "up", "order is 'up'; allowed are asc, desc"),
    ],
)
def test_an_order_that_does_not_exist_is_named(sort: str, order: str, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        SessionOrder.parse(sort, order)


def test_a_list_goes_on_after_a_key(shards: WrittenShards) -> None:
    for session_id, at in (("a", 5), ("b", 5), ("c", 4), ("d", 6)):
        shards.create(session_id, created_at=at)
    assert listed(shards, after=PageKey(5, "a")) == ["b", "c"]


def overview(session_id: str, at: int, metadata_bytes: int = 2) -> SessionOverview:
    return SessionOverview(session_id, "", "aAbB"[at % 4], "idle", "", "", "", at, 7 - at, 0, b" " * metadata_bytes)


@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.integers(0, 3), st.sampled_from([2, 1_500_000, 5_000_000])), max_size=40
    ),
    st.integers(1, 7),
    orders,
)
def test_pages_of_many_shards_hold_every_session_once_and_in_order(
    sessions: list[tuple[int, int, int]], page_size: int, order: SessionOrder
) -> None:
    by_shard: list[list[SessionOverview]] = [[] for _ in range(4)]
    for number, (at, shard, size) in enumerate(sessions):
        by_shard[shard].append(overview(f"s{number:03d}", at, size))
    everything = order.sorted([each for shard in by_shard for each in shard])
    seen: list[SessionOverview] = []
    more = True
    while more:
        left = [[each for each in order.sorted(shard) if each not in seen] for shard in by_shard]
        pages = [session_page(shard, likely_share(page_size, 4)) for shard in left]
        for number in exhausted(pages, order, page_size):
            pages[number] = session_page(left[number], page_size)
        page = merge_sessions(pages, order, page_size)
        assert len(page.sessions) <= page_size
        assert page.sessions or not page.more
        full = len(page.sessions) == page_size or sum(len(each.metadata_json) for each in everything) > 4_000_000
        assert full or not page.more
        seen += page.sessions
        more = page.more
    assert seen == everything


def test_a_full_page_without_more_ends_the_list() -> None:
    page = SessionPage([overview("a", 1)], more=False)
    assert merge_sessions([page], LAST_UPDATED_FIRST, 1) == page


def test_a_shard_is_asked_again_only_when_the_page_swallows_all_that_it_gave() -> None:
    gave_all = SessionPage([overview(f"a{number}", 1) for number in range(3)], more=False)
    gave_some = SessionPage([overview(f"b{number}", 3) for number in range(3)], more=True)
    newest_last = SessionPage([overview(f"c{number}", 5) for number in range(3)], more=True)
    assert exhausted([gave_all, gave_some, newest_last], LAST_UPDATED_FIRST, 5) == []
    assert exhausted([gave_all, gave_some, newest_last], LAST_UPDATED_FIRST, 6) == [1]
    assert exhausted([gave_all, gave_some, newest_last], LAST_UPDATED_FIRST, 9) == [1, 2]


def test_a_likely_share_is_never_more_than_the_page() -> None:
    assert likely_share(50, 16) == 15
    assert likely_share(1000, 16) == 99
    assert likely_share(3, 16) == 3
    assert likely_share(50, 1) == 50


session_ids = st.from_regex(r"[a-z0-9][A-Za-z0-9._:-]{0,127}", fullmatch=True)


@given(st.sampled_from(Direction), st.integers(-(2**63) + 1, 2**63 - 1), st.text(max_size=1024), session_ids)
def test_page_tokens_come_back_as_they_went(direction: Direction, at: int, title: str, session_id: str) -> None:
    for sort in SessionSort:
        order = SessionOrder(sort, direction)
        key = PageKey(title if sort is SessionSort.TITLE else at, session_id)
        assert decode_page_token(encode_page_token(order, key), order) == key


def test_the_longest_title_fits_into_a_token() -> None:
    order = SessionOrder(SessionSort.TITLE, Direction.ASCENDING)
    for character in ("\x01", "𝄞"):
        key = PageKey(character * 1024, "x" * 128)
        assert decode_page_token(encode_page_token(order, key), order) == key


def test_no_token_is_the_first_page() -> None:
    assert decode_page_token("", LAST_UPDATED_FIRST) is None


def test_a_token_continues_no_other_order() -> None:
    token = encode_page_token(LAST_UPDATED_FIRST, PageKey(5, "a"))
    with pytest.raises(InvalidRequest, match="does not continue a list with sort title and order asc"):
        decode_page_token(token, SessionOrder.parse("title", ""))


def encoded(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    "token",
    [
        "!",
        "a",
        "x" * 20_000,
        encoded("{}"),
        encoded("[1]"),
        encoded('["updated","desc","1","a"]'),
        encoded('["updated","desc",true,"a"]'),
        encoded('["updated","desc",1,"a b"]'),
        encoded('["updated","desc",1.5,"a"]'),
        encoded('["updated","desc",99999999999999999999,"a"]'),
        encoded('["updated","desc",1,"a",2]'),
        encoded("[" * 400),
        "é",
    ],
)
def test_foreign_page_tokens_are_refused(token: str) -> None:
    with pytest.raises(InvalidRequest, match="page_token"):
        decode_page_token(token, LAST_UPDATED_FIRST)


@given(st.text(max_size=100), orders)
def test_no_page_token_does_worse_than_be_refused(token: str, order: SessionOrder) -> None:
    with contextlib.suppress(InvalidRequest):
        decode_page_token(token, order)
