"""What a caller can make a primary keep in memory has a bound, whatever it sends and whether it reads or not."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from agent_core.errors import OutcomeUnknown, Overloaded
from agent_core.rpc.session_pb2 import Session
from primary import append_answers, queue_room
from primary.accumulator import BatchLimits
from primary.actor import SessionActor
from primary.loader import SessionLoader
from primary.writer import WriterSettings
from tests.unit.append_stream import Stream
from tests.unit.primary_harness import Primary, primary
from tests.waiting import until

THREE = ("node-1", "node-2", "node-3")
QUEUE = 500
BATCH = 100


def send_all(stream: Stream, session_id: str, count: int, *, key: str = "") -> None:
    for first in range(1, count + 1, BATCH):
        stream.send(
            *((number, session_id, b'"%d"' % number) for number in range(first, first + BATCH)),
            key=key,
        )


async def with_a_quorum(node: Primary, *tasks: asyncio.Task[Any]) -> None:
    """Let a second voter hold everything until these are done."""

    def all_done() -> bool:
        node.writer.durable("node-2", node.log.last.lsn)
        return all(task.done() for task in tasks)

    await until(all_done)


async def test_a_stream_whose_results_nobody_reads_is_not_read_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(append_answers, "MAX_UNANSWERED_APPENDS", QUEUE)
    async with primary(tmp_path) as node:
        await node.create("a")
        stream = Stream(node)
        send_all(stream, "a", 3000)
        await stream.answered(1)
        actor = await node.registry.actor("a")
        told = len(stream.results)
        await until(lambda: actor.visible_seq == told + QUEUE)
        assert (node.writer.queued, node.writer.unreleased) == (0, 0)
        assert stream.appends_read <= told + QUEUE + BATCH
        await stream.answered(3000 - told)
        assert actor.visible_seq == 3000


async def test_repeats_of_an_append_on_its_way_count_towards_their_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(append_answers, "MAX_UNANSWERED_APPENDS", QUEUE)
    async with primary(tmp_path, voters=THREE) as node:
        creating = asyncio.create_task(node.create("a"))
        await until(lambda: node.writer.unreleased == 1)
        node.writer.durable("node-2", node.log.last.lsn)
        await creating
        stream = Stream(node)
        send_all(stream, "a", 3000, key="the same")
        answered = asyncio.create_task(stream.answered(3000))
        await until(lambda: node.registry.repeated_appends == QUEUE - 1)
        await until(lambda: node.writer.unreleased == 1)
        assert stream.appends_read <= QUEUE + BATCH
        node.writer.durable("node-2", node.log.last.lsn)
        await answered
        assert (await node.registry.actor("a")).visible_seq == 1


async def test_appends_to_a_session_that_is_not_up_yet_count_towards_their_groups_queue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_load = threading.Event()
    load = SessionLoader.load

    def slow(loader: SessionLoader, session_id: str, prepared: SessionActor | None) -> SessionActor | None:
        assert may_load.wait(10)
        return load(loader, session_id, prepared)

    monkeypatch.setattr(SessionLoader, "load", slow)
    settings = WriterSettings(limits=BatchLimits(queue_mutations=QUEUE))
    async with primary(tmp_path, settings=settings) as node:
        creating = asyncio.create_task(node.create("a"))
        may_load.set()
        await creating
        node.registry.residency.evict(float("inf"))
        may_load.clear()
        stream = Stream(node)
        send_all(stream, "a", 10_000)
        answered = asyncio.create_task(stream.answered(10_000))
        await until(lambda: node.writer.full)
        assert node.writer.queued == 0
        assert stream.appends_read <= QUEUE + BATCH
        may_load.set()
        await answered
        assert not any(result.error_code for result in stream.results.values())
        assert await node.texts("a") == [b'"%d"' % number for number in range(1, 10_001)]
        assert not node.writer.full


async def test_appends_to_a_session_whose_creation_waits_for_its_quorum_count_in_bytes_too(tmp_path: Path) -> None:
    settings = WriterSettings(
        acknowledgement_timeout_seconds=0.2, limits=BatchLimits(queue_bytes=100_000, batch_bytes=50_000)
    )
    async with primary(tmp_path, voters=THREE, settings=settings) as node:
        creating = asyncio.create_task(node.create("a"))
        await until(lambda: node.writer.unreleased == 1)
        for _ in range(10):
            assert not node.writer.full
            node.submit("a", "x" * 10_000)
        assert node.writer.full
        await asyncio.gather(creating, return_exceptions=True)
        await node.answers.wait(10)
        assert not node.writer.full


async def test_creations_wait_for_room_in_the_queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = WriterSettings(uncommitted_transactions=1, limits=BatchLimits(queue_mutations=2))
    async with primary(tmp_path, voters=THREE, settings=settings) as node:
        waiting = 0
        room = node.writer.room

        async def counted() -> None:
            nonlocal waiting
            waiting += 1
            await room()

        monkeypatch.setattr(node.writer, "room", counted)
        creating = [asyncio.create_task(node.create("a"))]
        await until(lambda: node.writer.unreleased == 1)
        creating += [asyncio.create_task(node.create(name)) for name in "bc"]
        await until(lambda: node.writer.queued == 2)
        creating += [asyncio.create_task(node.create(name)) for name in "defgh"]
        await until(lambda: waiting == 5)
        assert node.writer.queued == 2
        await with_a_quorum(node, *creating)
        sessions: list[Session] = await asyncio.gather(*creating)
        assert [session.session_id for session in sessions] == list("abcdefgh")


async def test_a_caller_that_waits_in_vain_for_room_is_told_that_the_primary_is_overloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue_room, "OVERLOADED_SECONDS", 0.1)
    settings = WriterSettings(uncommitted_transactions=1, limits=BatchLimits(queue_mutations=2))
    async with primary(tmp_path, voters=THREE, settings=settings) as node:
        creating = [asyncio.create_task(node.create("a"))]
        await until(lambda: node.writer.unreleased == 1)
        creating += [asyncio.create_task(node.create(name)) for name in "bc"]
        await until(lambda: node.writer.queued == 2)
        with pytest.raises(Overloaded, match="queue has been full"):
            await node.create("d")
        stream = Stream(node)
        stream.send((1, "a", b'"one"'), (2, "a", b'"two"'))
        await stream.answered(2)
        assert [stream.results[number].error_code for number in (1, 2)] == ["overloaded", "unavailable"]
        assert node.writer.counters.failed["overloaded"] == 2
        await with_a_quorum(node, *creating)
        await asyncio.gather(*creating)
        stream.send((1, "a", b'"one"'), (2, "a", b'"two"'))
        await with_a_quorum(node, asyncio.create_task(stream.answered(2)))
        assert [stream.results[number].seq for number in (1, 2)] == [1, 2]


async def test_a_write_that_waits_in_vain_for_its_turn_is_told_that_the_primary_is_overloaded(
    tmp_path: Path,
) -> None:
    settings = WriterSettings(uncommitted_transactions=1, acknowledgement_timeout_seconds=0.1)
    async with primary(tmp_path, voters=THREE, settings=settings) as node:
        first = asyncio.create_task(node.create("a"))
        await until(lambda: node.writer.unreleased == 1)
        with pytest.raises(Overloaded, match="nothing was written"):
            await node.create("b")
        with pytest.raises(OutcomeUnknown):
            await first
