"""What chaos checks can find: a checker that finds nothing proves nothing."""

from __future__ import annotations

import pytest

from tests.chaos.history import Attempt, Outcome, ReaderView, SessionHistory

HISTORY = SessionHistory(
    "s",
    [
        Attempt(b"1", Outcome.ACKNOWLEDGED, 1),
        Attempt(b"2", Outcome.UNKNOWN),
        Attempt(b"3", Outcome.REFUSED),
        Attempt(b"4", Outcome.ACKNOWLEDGED, 3),
        Attempt(b"5", Outcome.UNKNOWN),
    ],
)


@pytest.mark.parametrize("transcript", [[b"1", b"2", b"4"], [b"1", b"2", b"4", b"5"]])
def test_an_unknown_append_may_be_there_or_not(transcript: list[bytes]) -> None:
    assert list(HISTORY.judge(transcript)) == []


@pytest.mark.parametrize(
    ("transcript", "problem"),
    [
        ([b"1", b"2"], "is lost"),
        ([b"2", b"1", b"4"], "not at its seq"),
        ([b"1", b"2", b"4", b"4"], "is there 2 times"),
        ([b"1", b"3", b"4"], "was refused and is there"),
        ([b"1", b"6", b"4"], "nobody appended"),
    ],
)
def test_a_transcript_that_breaks_a_promise_is_found(transcript: list[bytes], problem: str) -> None:
    assert any(problem in found for found in HISTORY.judge(transcript))


def test_seqs_that_do_not_rise_are_found() -> None:
    twice = SessionHistory("s", [Attempt(b"1", Outcome.ACKNOWLEDGED, 1), Attempt(b"2", Outcome.ACKNOWLEDGED, 1)])
    assert any("do not rise" in found for found in twice.judge([b"1", b"2"]))


def test_a_read_that_goes_back_or_shows_too_little_is_found() -> None:
    history = SessionHistory("s")
    view = ReaderView(history, "a reader")
    view.read([b"1", b"2"], at_least=2, where="a")
    view.read([b"1", b"2", b"3"], at_least=2, where="b")
    assert history.violations == []
    view.read([b"1", b"2"], at_least=2, where="a")
    view.read([b"1", b"2"], at_least=3, where="b")
    assert ["goes back" in found for found in history.violations] == [True, False]
    assert "shows 2 entries after 3" in history.violations[1]
