"""What a client sends next, and what becomes of each append."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from agent_core.backoff import Backoff
from agent_core.client.append_queue import MAX_BATCH_APPENDS, AppendQueue, PendingAppend
from agent_core.client.model import Appended
from agent_core.errors import InvalidRequest, OutcomeUnknown, Overloaded, Unavailable
from agent_core.position import Position
from agent_core.rpc.session_pb2 import AppendRequest

TIMEOUT = 10.0
LONGEST_PAUSE = 1.0


@dataclass
class Outcome:
    """Records how an append ended, and that it ended once."""

    result: Appended | None = None
    error: BaseException | None = None

    def done(self) -> bool:
        return self.result is not None or self.error is not None

    def set_result(self, result: Appended, /) -> None:
        assert not self.done()
        self.result = result

    def set_exception(self, error: BaseException, /) -> None:
        assert not self.done()
        self.error = error


def make_queue(max_in_flight: int = 4096, max_in_flight_bytes: int = 64 << 20) -> AppendQueue:
    return AppendQueue(
        max_in_flight=max_in_flight,
        max_in_flight_bytes=max_in_flight_bytes,
        new_backoff=lambda: Backoff(first_seconds=LONGEST_PAUSE, longest_seconds=LONGEST_PAUSE),
    )


def put(queue: AppendQueue, session: str, payload: bytes = b"{}", now: float = 0.0) -> PendingAppend:
    request = AppendRequest(session_id=session, kind="message", payload_json=payload, idempotency_key="key")
    append = PendingAppend(request, now + TIMEOUT, Outcome())
    queue.put(append)
    return append


def outcome(append: PendingAppend) -> Outcome:
    assert isinstance(append.completion, Outcome)
    return append.completion


def acknowledge(queue: AppendQueue, append: PendingAppend, now: float = 0.0) -> None:
    queue.succeed(append.request_id, Appended(append.request_id, Position(1, 1), 0, duplicate=False), now)


def test_everything_that_waits_leaves_in_one_batch() -> None:
    queue = make_queue()
    appends = [put(queue, f"s{number}") for number in range(64)]
    assert queue.drain() == appends
    assert queue.drain() == []


def test_a_batch_is_bounded_in_appends() -> None:
    queue = make_queue()
    for number in range(MAX_BATCH_APPENDS + 1):
        put(queue, f"s{number}")
    assert len(queue.drain()) == MAX_BATCH_APPENDS
    assert len(queue.drain()) == 1


def test_a_batch_is_bounded_in_bytes_but_takes_one_append_of_any_size() -> None:
    queue = make_queue()
    large, small = put(queue, "a", b"x" * (3 << 20)), put(queue, "b")
    assert queue.drain() == [large]
    assert queue.drain() == [small]


def test_appends_past_the_bound_in_flight_wait_until_one_is_answered() -> None:
    queue = make_queue(max_in_flight=2)
    first, second, third = (put(queue, session) for session in "abc")
    assert queue.drain() == [first, second]
    assert not queue.sendable
    acknowledge(queue, first)
    assert queue.drain() == [third]


def test_appends_past_the_bound_in_bytes_wait_until_one_is_answered() -> None:
    queue = make_queue(max_in_flight_bytes=1000)
    first, second = put(queue, "a", b"x" * 1000), put(queue, "b")
    assert queue.drain() == [first]
    assert not queue.sendable
    acknowledge(queue, first)
    assert queue.drain() == [second]


def test_a_session_has_one_batch_in_flight_at_a_time() -> None:
    queue = make_queue()
    first, second = put(queue, "a"), put(queue, "a")
    assert queue.drain() == [first, second]
    third, other = put(queue, "a"), put(queue, "b")
    assert queue.drain() == [other]
    acknowledge(queue, first)
    assert queue.drain() == []
    acknowledge(queue, second)
    assert queue.drain() == [third]


def test_a_refused_append_is_sent_again_before_later_ones_of_its_session() -> None:
    queue = make_queue()
    first = put(queue, "a")
    queue.drain()
    second, other = put(queue, "a"), put(queue, "b")
    queue.refuse(first.request_id, Overloaded("full"), 0.0)
    assert queue.drain() == [other]
    queue.elapse(LONGEST_PAUSE)
    assert queue.drain() == [first, second]
    assert queue.sent_again == 1


def test_an_append_that_a_later_one_overtook_is_not_repeated_behind_it() -> None:
    queue = make_queue()
    first, second = put(queue, "a"), put(queue, "a")
    queue.drain()
    queue.refuse(first.request_id, Overloaded("full"), 0.0)
    assert not outcome(first).done()
    acknowledge(queue, second)
    assert isinstance(outcome(first).error, Overloaded)
    assert len(queue) == 0


def test_a_write_of_unknown_outcome_is_repeated_even_after_a_later_one_was_acknowledged() -> None:
    queue = make_queue()
    first, second = put(queue, "a"), put(queue, "a")
    queue.drain()
    queue.refuse(first.request_id, OutcomeUnknown("no quorum"), 0.0)
    acknowledge(queue, second)
    queue.elapse(LONGEST_PAUSE)
    assert queue.drain() == [first]


def test_a_broken_stream_sends_what_is_unanswered_again_in_the_original_order() -> None:
    queue = make_queue()
    first, answered, third = put(queue, "a"), put(queue, "b"), put(queue, "a")
    queue.drain()
    fourth = put(queue, "a")
    acknowledge(queue, answered)
    queue.disconnect()
    assert queue.drain() == [first, third, fourth]


def test_a_refusal_that_may_not_be_repeated_ends_the_append() -> None:
    queue = make_queue()
    append = put(queue, "a")
    queue.drain()
    queue.refuse(append.request_id, InvalidRequest("kind is empty"), 0.0)
    assert isinstance(outcome(append).error, InvalidRequest)
    assert queue.next_due() is None


def test_an_append_that_was_sent_and_not_answered_ends_as_unknown_at_its_deadline() -> None:
    queue = make_queue()
    append = put(queue, "a")
    queue.drain()
    assert queue.elapse(TIMEOUT - 0.001) == 0
    assert queue.elapse(TIMEOUT) == 1
    assert isinstance(outcome(append).error, OutcomeUnknown)
    acknowledge(queue, append)
    assert queue.acknowledged == 0


def test_an_append_that_was_never_sent_ends_as_unavailable_at_its_deadline() -> None:
    queue = make_queue()
    append = put(queue, "a")
    assert queue.elapse(TIMEOUT) == 0
    assert isinstance(outcome(append).error, Unavailable)
    assert queue.drain() == []


def test_an_append_that_was_lost_once_stays_unknown_whatever_its_later_refusals_say() -> None:
    queue = make_queue()
    append = put(queue, "a")
    queue.drain()
    queue.disconnect()
    queue.drain()
    queue.refuse(append.request_id, Overloaded("full"), 0.0)
    queue.elapse(TIMEOUT)
    assert isinstance(outcome(append).error, OutcomeUnknown)


def test_an_append_that_was_only_ever_refused_ends_with_its_refusal() -> None:
    queue = make_queue()
    append = put(queue, "a")
    queue.drain()
    queue.refuse(append.request_id, Overloaded("full"), 0.0)
    queue.elapse(TIMEOUT)
    assert isinstance(outcome(append).error, Overloaded)


def test_an_append_past_its_deadline_lets_the_next_of_its_session_go() -> None:
    queue = make_queue()
    put(queue, "a")
    queue.drain()
    later = put(queue, "a", now=1.0)
    assert queue.drain() == []
    queue.elapse(TIMEOUT)
    assert queue.drain() == [later]


def test_an_abandoned_append_that_was_not_sent_is_never_sent() -> None:
    queue = make_queue()
    append, other = put(queue, "a"), put(queue, "a")
    queue.abandon(append)
    assert queue.drain() == [other]


def test_an_abandoned_append_in_flight_keeps_its_place_and_is_not_sent_again() -> None:
    queue = make_queue()
    append = put(queue, "a")
    queue.drain()
    queue.abandon(append)
    later = put(queue, "a")
    assert queue.drain() == []
    queue.refuse(append.request_id, Overloaded("full"), 0.0)
    assert queue.drain() == [later]


def test_closing_tells_each_caller_what_is_known_of_its_append() -> None:
    queue = make_queue()
    sent = put(queue, "a")
    queue.drain()
    unsent = put(queue, "b")
    queue.close("the client is closed")
    assert isinstance(outcome(sent).error, OutcomeUnknown)
    assert isinstance(outcome(unsent).error, Unavailable)
    assert len(queue) == 0
    assert queue.drain() == []


@pytest.mark.parametrize("request_id", [0, 99])
def test_an_answer_to_nothing_is_passed_over(request_id: int) -> None:
    queue = make_queue()
    append = put(queue, "a")
    queue.succeed(request_id, Appended(1, Position(1, 1), 0, duplicate=False), 0.0)
    queue.refuse(request_id, Overloaded("full"), 0.0)
    queue.succeed(append.request_id, Appended(1, Position(1, 1), 0, duplicate=False), 0.0)
    assert not outcome(append).done()


class AppendHistories(RuleBasedStateMachine):
    """A primary that writes, refuses and loses: each session's entries come out once, in the order of the calls."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = make_queue(max_in_flight=6)
        self.now = 0.0
        self.appends: list[PendingAppend] = []
        self.wire: list[list[PendingAppend]] = []
        self.written: dict[str, list[int]] = {"a": [], "b": []}

    @rule(session=st.sampled_from("ab"), count=st.integers(1, 4))
    def call(self, session: str, count: int) -> None:
        self.appends += [put(self.queue, session, now=self.now) for _ in range(count)]

    @rule()
    def send(self) -> None:
        if batch := self.queue.drain():
            self.wire.append(batch)

    @precondition(lambda self: self.wire)
    @rule(data=st.data())
    def answer(self, data: st.DataObject) -> None:
        """The primary takes a batch as one: from the first refusal on, a session's appends are refused."""
        refused: set[str] = set()
        for append in self.wire.pop(0):
            written = self.written[append.session_id]
            if append.request_id not in written:
                if append.session_id in refused or data.draw(st.booleans(), label="refused"):
                    refused.add(append.session_id)
                    self.queue.refuse(append.request_id, Overloaded("full"), self.now)
                    continue
                written.append(append.request_id)
            acknowledge(self.queue, append, self.now)

    @rule(taken=st.integers(0, 8))
    def break_stream(self, taken: int) -> None:
        for append in [append for batch in self.wire for append in batch][:taken]:
            written = self.written[append.session_id]
            if append.request_id not in written:
                written.append(append.request_id)
        self.wire.clear()
        self.queue.disconnect()

    @rule(seconds=st.sampled_from([0.1, LONGEST_PAUSE, TIMEOUT]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.queue.elapse(self.now)

    @rule(data=st.data())
    def abandon(self, data: st.DataObject) -> None:
        waiting = [append for append in self.appends if not outcome(append).done()]
        if waiting:
            append = data.draw(st.sampled_from(waiting))
            outcome(append).error = Unavailable("the caller went away")
            self.queue.abandon(append)

    @invariant()
    def every_session_is_in_order(self) -> None:
        for written in self.written.values():
            assert written == sorted(written)

    @invariant()
    def acknowledged_means_written_and_never_sent_means_not_written(self) -> None:
        for append in self.appends:
            ended = outcome(append)
            written = append.request_id in self.written[append.session_id]
            if ended.result is not None:
                assert written
            if isinstance(ended.error, Overloaded):
                assert not written

    @invariant()
    def the_bound_holds(self) -> None:
        assert 0 <= self.queue.in_flight <= 6

    def teardown(self) -> None:
        """Once the primary takes everything, nothing stays behind."""
        self.queue.disconnect()
        for _ in range(len(self.appends) + 1):
            for append in self.queue.drain():
                acknowledge(self.queue, append, self.now)
        assert len(self.queue) == 0


AppendHistories.TestCase.settings = settings(max_examples=60, stateful_step_count=40)
TestAppendHistories = AppendHistories.TestCase
