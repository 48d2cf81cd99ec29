"""Which sessions hold a text: found by the index of trigrams, or by going through the list where they are many."""

from __future__ import annotations

import string
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_core.database.build import open_for_reading
from agent_core.routing import ShardLayout
from replica.reading import text_search
from replica.reading.paging import LAST_UPDATED_FIRST
from replica.reading.session_list import SessionFilter, sessions_of_shard
from replica.reading.text_search import MAX_TRIGRAMS, sessions_with, trigram_expression
from tests.reading_shards import WrittenShards

TITLES = (
    "Fix the parser",
    "fix THE Parser, again",
    'say "so" 100% of the time',
    "under_score and back\\slash",
    "été à la plage, ÉTÉ",
    "中文标题测试",
    "\N{GRINNING FACE}\N{GRINNING FACE}\N{GRINNING FACE} done",
    "a\x00b behind a zero",
    "*^ NEAR (x AND y) OR -z: {title}",
    "",
    "ab",
)


@pytest.fixture(scope="module")
def shard() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as directory:
        written = WrittenShards(Path(directory), ShardLayout(shard_count=1))
        written.create_every_shard()
        for number, title in enumerate(TITLES):
            written.create(f"session-{number}", title=title, created_at=number)
        yield written.path(0)
        written.close()


def lowered(text: str) -> str:
    """As LIKE compares: letters of ASCII in either case, nothing behind a zero."""
    return text.partition("\0")[0].translate(str.maketrans(string.ascii_uppercase, string.ascii_lowercase))


pieces = st.sampled_from(TITLES).flatmap(
    lambda title: st.tuples(*[st.integers(0, len(title))] * 2).map(lambda ends: title[min(ends) : max(ends)])
)
texts = pieces | st.text(max_size=8) | st.sampled_from(["session-", "SESSION-1", "ssion-10"])


@given(text=texts.filter(lambda text: "\0" not in text), few=st.booleans())
def test_what_is_listed_holds_the_text_however_it_is_found(shard: Path, text: str, few: bool) -> None:
    held = lowered(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_search, "FEW_SESSIONS", 256 if few else 0)
        connection = open_for_reading(shard)
        page = sessions_of_shard(connection, SessionFilter(text=text), LAST_UPDATED_FIRST, None, 100)
        connection.close()
    assert {session.session_id for session in page.sessions} == {
        f"session-{number}"
        for number, title in enumerate(TITLES)
        if held in lowered(title) or held in f"session-{number}"
    }


def test_few_sessions_are_found_by_the_index_and_many_are_left_to_the_list(
    shard: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = open_for_reading(shard)
    assert sessions_with(connection, "nowhere") == []
    assert len(sessions_with(connection, "PARSER") or ()) == 2
    monkeypatch.setattr(text_search, "FEW_SESSIONS", 1)
    assert sessions_with(connection, "PARSER") is None
    connection.close()


@pytest.mark.parametrize("text", ["", "ab", "abc\0def"])
def test_what_no_trigram_stands_for_is_left_to_the_list(text: str) -> None:
    assert trigram_expression(text) is None


def test_a_long_text_is_looked_for_by_some_of_its_trigrams() -> None:
    assert trigram_expression('abc"ef') == '"abc" AND """ef"'
    assert trigram_expression("abcd") == '"abc" AND "bcd"'
    assert (trigram_expression("x" * 256) or "").count("AND") == MAX_TRIGRAMS - 1
