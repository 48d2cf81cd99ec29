"""Nothing gets in front of a refused append of its session."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from agent_core.quorum import Acknowledgement
from agent_core.rpc.session_pb2 import Session
from primary.accumulator import Accumulator, BatchLimits
from primary.actor import SessionActor
from primary.append_order import AppendOrder
from primary.loader import SessionLoader
from primary.mutation import Append, Waiter
from primary.writer import WriterSettings
from tests.unit.append_stream import Stream
from tests.unit.primary_harness import Answers, primary
from tests.waiting import until


def test_what_follows_a_refused_append_is_refused_until_one_comes_again() -> None:
    order = AppendOrder()
    assert order.admits("a", 1)
    order.refused("a", 1)
    assert not order.admits("a", 2)
    assert order.admits("b", 3)
    assert not order.admits("a", 4)
    assert order.admits("a", 1)
    assert order.admits("a", 2)
    assert order.admits("a", 4)


def test_a_caller_that_gave_the_first_up_gets_on_with_the_next() -> None:
    order = AppendOrder()
    order.refused("a", 1)
    assert not order.admits("a", 2)
    assert order.admits("a", 2)
    assert order.admits("a", 3)


def test_a_refusal_that_comes_late_does_not_take_back_a_later_one() -> None:
    order = AppendOrder()
    order.refused("a", 3)
    order.refused("a", 2)
    assert order.admits("a", 3)


async def test_a_refused_append_is_not_overtaken_by_one_of_its_batch_or_of_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with primary(tmp_path) as node:
        await node.create("a")
        await node.create("b")
        node.registry.residency.evict(float("inf"))
        load = SessionLoader.load

        def refuse(loader: SessionLoader, session_id: str, prepared: SessionActor | None) -> SessionActor | None:
            if session_id == "a":
                raise ValueError("the shard cannot be read at this moment")
            return load(loader, session_id, prepared)

        stream = Stream(node)
        with monkeypatch.context() as patched:
            patched.setattr(SessionLoader, "load", refuse)
            stream.send((1, "a", b'"one"'), (2, "b", b'"one"'))
            await stream.answered(2)
        assert (stream.results[1].error_code, stream.results[2].seq) == ("unavailable", 1)
        # Sent before the refusal of 1 was seen.
        stream.send((3, "a", b'"two"'), (4, "a", b'"three"'), (5, "b", b'"two"'))
        await stream.answered(3)
        assert [stream.results[number].error_code for number in (3, 4)] == ["unavailable"] * 2
        assert "earlier append" in stream.results[3].error_message
        assert stream.results[5].seq == 2
        stream.send((1, "a", b'"one"'), (3, "a", b'"two"'), (4, "a", b'"three"'))
        await stream.answered(3)
        assert await node.texts("a") == [b'"one"', b'"two"', b'"three"']


async def test_what_follows_an_append_of_unknown_outcome_is_refused_until_that_comes_again(tmp_path: Path) -> None:
    settings = WriterSettings(acknowledgement_timeout_seconds=0.1)
    async with primary(tmp_path, voters=("node-1", "node-2", "node-3"), settings=settings) as node:
        node.writer.durable("node-2", node.log.last.lsn)
        created = asyncio.create_task(node.create("a"))
        await until(lambda: node.writer.unreleased == 1)
        node.writer.durable("node-2", node.log.last.lsn)
        await created
        stream = Stream(node)
        stream.send((1, "a", b'"one"'), key="k")
        await stream.answered(1)
        assert stream.results[1].error_code == "outcome_unknown"
        stream.send((2, "a", b'"two"'))
        await stream.answered(1)
        assert stream.results[2].error_code == "unavailable"
        node.writer.durable("node-2", node.log.last.lsn)
        stream.send((1, "a", b'"one"'), key="k")
        await stream.answered(1)
        assert stream.results[1].duplicate
        stream.send((2, "a", b'"two"'))
        await until(lambda: node.writer.unreleased == 1)
        node.writer.durable("node-2", node.log.last.lsn)
        await stream.answered(1)
        assert await node.texts("a") == [b'"one"', b'"two"']


async def test_what_waits_for_room_does_not_take_that_of_a_refused_append_before_it(tmp_path: Path) -> None:
    settings = WriterSettings(uncommitted_transactions=1, limits=BatchLimits(queue_mutations=3))
    async with primary(tmp_path, voters=("node-1", "node-2", "node-3"), settings=settings) as node:
        for session_id in ("a", "b"):
            created = asyncio.create_task(node.create(session_id))
            await until(lambda: node.writer.unreleased == 1)
            node.writer.durable("node-2", node.log.last.lsn)
            await created
        node.submit("b", "nothing more is written while this waits for its quorum")
        await until(lambda: node.writer.unreleased == 1)
        stream = Stream(node)
        answered = asyncio.create_task(stream.answered(2))
        stream.send((1, "a", b'"one"'))
        await until(lambda: node.writer.queued == 1)
        node.submit("b", "fills the queue")
        node.submit("b", "to its end")
        stream.send((2, "a", b'"two"'))
        await until(lambda: stream.appends_read == 2)
        # The first of the queue has waited for long enough; the others have time left.
        node.writer._accumulator._waiting[0].expires_at = 0.0
        await answered
        assert [stream.results[number].error_code for number in (1, 2)] == ["overloaded", "unavailable"]


def test_what_waits_behind_an_expired_append_goes_with_it() -> None:
    accumulator = Accumulator()
    sessions = {name: SessionActor(Session(session_id=name), 0, 0) for name in "ab"}
    appends = [
        append_to(sessions[name], expires_at) for name, expires_at in (("a", 1), ("b", 2), ("a", 3), ("b", 4))
    ]
    for append in appends:
        accumulator.add(append)
    assert accumulator.take_expired(now=1.5) == [appends[0], appends[2]]
    assert (len(accumulator), accumulator.size_bytes) == (2, appends[1].size_bytes + appends[3].size_bytes)
    assert accumulator.take_expired(now=1.5) == []
    assert accumulator.take_expired(now=2) == [appends[1], appends[3]]
    assert accumulator.size_bytes == 0


def append_to(actor: SessionActor, expires_at: float) -> Append:
    append = Append(
        actor,
        Waiter(Acknowledgement.QUORUM, Answers(), 0),
        kind="message",
        payload=b"{}",
        created_at_ms=0,
        idempotency_key="",
    )
    append.expires_at = expires_at
    return append
