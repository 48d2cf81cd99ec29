"""Sessions leave memory when nobody uses them, and when all together take too much."""

from __future__ import annotations

import pytest

from agent_core.rpc.session_pb2 import Entry, Session
from primary.actor import SESSION_OVERHEAD_BYTES, SessionActor
from primary.residency import PREPARED_SECONDS, Residency, ResidencySettings

SIZE = 10_000
IDLE = 300.0


def session(name: str, size: int = SIZE, group: int = 0) -> SessionActor:
    """A session that takes a little more than `size` bytes."""
    actor = SessionActor(Session(session_id=name), shard=0, group=group)
    actor.remember([Entry(seq=1, kind="message", payload_json=b"x" * (size - SESSION_OVERHEAD_BYTES))])
    return actor


def residency(room_for: float) -> Residency:
    return Residency(ResidencySettings(idle_seconds=IDLE, memory_budget_bytes=int(room_for * SIZE * 1.1)))


def live(sessions: Residency) -> list[str]:
    """The names of live sessions."""
    return sorted(sessions.in_use(0, limit=100))


def test_the_longest_unused_go_for_those_that_come_up() -> None:
    sessions = residency(room_for=3)
    for now, name in enumerate("abc"):
        sessions.add(session(name), now)
    assert sessions.find("a", 3) is not None
    sessions.add(session("d"), 4)
    assert sessions.find("b", 5) is None
    sessions.add(session("e"), 6)
    assert live(sessions) == ["a", "d", "e"]
    assert sessions.evicted_for_memory == 2


def test_a_session_that_nobody_used_goes() -> None:
    sessions = residency(room_for=3)
    for now, name in enumerate("abc"):
        sessions.add(session(name), now)
    sessions.find("a", 3)
    sessions.evict(IDLE + 2)
    assert live(sessions) == ["a"]
    assert (sessions.evicted_idle, sessions.evicted_for_memory) == (2, 0)


def test_a_session_with_a_write_on_its_way_stays_and_the_next_one_goes() -> None:
    sessions = residency(room_for=2)
    busy = session("busy")
    busy.outstanding = 1
    sessions.add(busy, 0)
    for now, name in enumerate("ab", 1):
        sessions.add(session(name), now)
    assert live(sessions) == ["b", "busy"]
    sessions.evict(10 * IDLE)
    assert live(sessions) == ["busy"]


def test_a_session_that_just_came_up_stays_even_if_no_other_can_go() -> None:
    sessions = residency(room_for=1)
    for now, name in enumerate("ab"):
        actor = session(name)
        actor.outstanding = 1
        sessions.add(actor, now)
    sessions.add(session("c"), 2)
    assert live(sessions) == ["a", "b", "c"]


def test_sessions_that_grew_are_counted_again() -> None:
    sessions = residency(room_for=3)
    actors = [session(name) for name in "abc"]
    for now, actor in enumerate(actors):
        sessions.add(actor, now)
    actors[2].remember([Entry(seq=2, kind="message", payload_json=b"x" * SIZE)])
    sessions.evict(4)
    assert live(sessions) == ["b", "c"]


def test_a_session_larger_than_the_budget_stays_beside_the_others() -> None:
    sessions = residency(room_for=2)
    sessions.add(session("large", 5 * SIZE), 0)
    for now, name in enumerate("abc", 1):
        sessions.add(session(name), now)
    sessions.evict(4)
    assert live(sessions) == ["b", "c", "large"]


def test_of_several_sessions_larger_than_the_budget_the_one_used_last_stays() -> None:
    sessions = residency(room_for=2)
    sessions.add(session("a"), 0)
    sessions.add(session("large", 5 * SIZE), 1)
    sessions.add(session("larger", 6 * SIZE), 2)
    assert live(sessions) == ["a", "larger"]
    sessions.evict(IDLE + 3)
    assert live(sessions) == []


def test_a_group_that_is_no_longer_led_leaves_memory_and_its_room_is_free() -> None:
    sessions = residency(room_for=2)
    sessions.add(session("a", group=1), 0)
    sessions.add(session("b", group=1), 1)
    sessions.drop_group(1)
    for now, name in enumerate("cd", 2):
        sessions.add(session(name), now)
    assert live(sessions) == ["c", "d"]
    assert sessions.memory_bytes < 3 * SIZE
    assert sessions.evicted_for_memory == 0


@pytest.mark.parametrize(("after", "kept"), [(PREPARED_SECONDS - 1, True), (PREPARED_SECONDS, False)])
def test_what_was_read_for_a_hand_over_that_does_not_come_is_let_go(after: float, kept: bool) -> None:
    sessions = residency(room_for=2)
    assert sessions.prepare(session("a"), 0)
    sessions.evict(after)
    assert (sessions.take_prepared("a") is not None) == kept
