"""What a live session is made of in memory: its entries' bytes, and which keys they had."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from primary import key_index
from primary.key_index import KeyIndex
from primary.transcript import BUFFER_BYTES, Transcript


@given(st.lists(st.one_of(st.binary(max_size=50), st.integers(0, 3 * BUFFER_BYTES).map(bytes)), max_size=30))
def test_entries_come_back_as_they_were_put_in(entries: list[bytes]) -> None:
    transcript = Transcript()
    for entry in entries:
        transcript.append(entry)
    assert len(transcript) == len(entries)
    assert [transcript[index] for index in range(len(entries))] == entries
    for index in range(len(entries) + 1):
        assert list(transcript.since(index)) == entries[index:]


@pytest.mark.parametrize("index", [-1, 1])
def test_an_entry_that_is_not_there_is_an_error(index: int) -> None:
    transcript = Transcript()
    transcript.append(b"one")
    with pytest.raises(IndexError, match="allowed are 0 to 0"):
        transcript[index]


@given(st.lists(st.one_of(st.just(""), st.text(min_size=1, max_size=3)), max_size=200))
def test_a_key_leads_to_the_entries_that_had_it(keys: list[str]) -> None:
    index = KeyIndex()
    for key in keys:
        index.append(key)
    for key in {*keys, "no such key"} - {""}:
        assert sorted(index.candidates(key)) == [seq for seq, each in enumerate(keys, 1) if each == key]


def test_keys_with_one_hash_are_all_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_index, "key_hash", len)
    index = KeyIndex()
    for number in range(50):
        index.append(f"{number:02}")
    assert sorted(index.candidates("??")) == list(range(1, 51))
    assert list(index.candidates("???")) == []


def test_a_hundred_thousand_keys_are_found() -> None:
    index = KeyIndex()
    for number in range(100_000):
        index.append(f"key {number}")
    assert all(list(index.candidates(f"key {number}")) == [number + 1] for number in range(0, 100_000, 97))
    assert not any(list(index.candidates(f"other {number}")) for number in range(1000))
