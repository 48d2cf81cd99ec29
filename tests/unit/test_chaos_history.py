"""What chaos checks can find: a checker that finds nothing proves nothing."""

from __future__ import annotations

import pytest

from tests.chaos.history import Attempt, Outcome, ReaderView, SessionHistory, SubscriberView

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


def judged(*brought: tuple[int, bytes]) -> list[str]:
    """What is found wrong with entries that a subscriber of `HISTORY` was brought."""
    history = SessionHistory(HISTORY.session_id, HISTORY.attempts)
    view = SubscriberView(history)
    for seq, payload in brought:
        view.brought(seq, payload)
    return [*history.violations, *view.judge()]


def test_a_subscriber_may_be_brought_what_was_acknowledged_and_what_may_have_been_written() -> None:
    assert judged((1, b"1"), (2, b"2"), (3, b"4")) == []
    assert judged((1, b"1"), (2, b"2"), (3, b"4"), (4, b"5")) == []


@pytest.mark.parametrize(
    ("brought", "problem"),
    [
        ([(1, b"1"), (3, b"4")], "was brought entry 3 after entry 1"),
        ([(1, b"1"), (2, b"2"), (2, b"2"), (3, b"4")], "was brought entry 2 after entry 2"),
        ([(1, b"1"), (2, b"2")], "was brought 2 entries of the 3 that were acknowledged"),
        ([(1, b"1"), (2, b"3"), (3, b"4")], "a subscriber: s: Attempt(payload=b'3'"),
        ([(1, b"1"), (2, b"cut back"), (3, b"4")], "a subscriber: s: nobody appended b'cut back'"),
    ],
)
def test_a_subscriber_that_loses_repeats_or_invents_an_entry_is_found(
    brought: list[tuple[int, bytes]], problem: str
) -> None:
    assert any(problem in found for found in judged(*brought))
