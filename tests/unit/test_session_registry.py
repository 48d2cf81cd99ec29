"""Sessions come up, are let go, and are followed without gap or duplicate."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent_core.database.build import Connection
from agent_core.errors import (
    InvalidRequest,
    NotPrimary,
    OutcomeUnknown,
    SessionNotFound,
    ShardDamaged,
    Unavailable,
    WriteFailed,
)
from agent_core.rpc.session_pb2 import Session, SubscribeEvent
from primary.electing.lease import Lease
from primary.loader import SessionLoader
from primary.residency import ResidencySettings
from primary.subscription import subscribe
from primary.writer import WriterSettings
from tests.unit.primary_harness import primary
from tests.waiting import until

NEVER = float("inf")
SESSION_BYTES = 40_000
"""More than a session of the tests takes."""


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        ("UPDATE entries SET payload = NULL WHERE seq = 2", "NoneType"),
        ("UPDATE entries SET payload = x'00ff' WHERE seq = 2", "bytes"),
        ("UPDATE entries SET kind = x'ff' WHERE seq = 2", "utf-8"),
        ("UPDATE entries SET seq = 'two' WHERE seq = 2", "str"),
        ("UPDATE entries SET seq = 12 WHERE seq = 3", "entry 12 stands where 3 entries end"),
        ("UPDATE sessions SET metadata = NULL", "NoneType"),
        ("UPDATE sessions SET created_at = 'once'", "str"),
    ],
)
async def test_a_session_whose_row_is_damaged_is_answered_with_what_is_wrong(
    tmp_path: Path, damage: str, what: str
) -> None:
    async with primary(tmp_path) as node:
        await node.create("a")
        for text in ("one", "two", "three"):
            await node.append("a", text)
        node.registry.residency.evict(NEVER)
        state = node.database.shards[node.registry._layout.shard_of("a")]
        _damage(state.connection, damage)
        async with asyncio.timeout(10):
            with pytest.raises(ShardDamaged, match=what):
                await node.registry.actor("a")
        outcome = await node.append("a", "four")
        assert isinstance(outcome.error, ShardDamaged)
        assert f"shard {state.shard}" in str(outcome.error)
        assert not node.writer.full


async def test_a_session_that_cannot_be_read_for_a_reason_nobody_thought_of_is_answered_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with primary(tmp_path) as node:
        await node.create("a")
        node.registry.residency.evict(NEVER)

        def broken(*arguments: object) -> None:
            raise RuntimeError("nobody thought of this")

        monkeypatch.setattr(SessionLoader, "load", broken)
        async with asyncio.timeout(10):
            with pytest.raises(Unavailable, match="nobody thought of this"):
                await node.registry.actor("a")


def _damage(connection: Connection, statement: str) -> None:
    """Change a row behind the schema's back, as rot in a page would."""
    connection.execute("PRAGMA writable_schema=ON")
    connection.execute("UPDATE sqlite_schema SET sql = replace(sql, ' NOT NULL', '') WHERE type = 'table'")
    connection.execute("PRAGMA writable_schema=RESET")
    connection.execute(statement)


async def test_an_evicted_session_comes_back_with_everything(tmp_path: Path) -> None:
    async with primary(tmp_path) as node:
        await node.create("a")
        await node.append("a", "one", key="k")
        node.registry.residency.evict(NEVER)
        assert len(node.registry.residency) == 0
        assert node.registry.residency.evicted_idle == 1
        again = await node.append("a", "one", key="k")
        assert (again.seq, again.duplicate) == (1, True)
        assert (await node.append("a", "two")).seq == 2
        assert await node.texts("a") == [b'{"text":"one"}', b'{"text":"two"}']


async def test_appends_that_wait_for_a_session_to_come_up_keep_their_order(tmp_path: Path) -> None:
    async with primary(tmp_path) as node:
        await node.create("a")
        node.registry.residency.evict(NEVER)
        for number in range(20):
            node.submit("a", str(number))
        await node.answers.wait(20)
        assert await node.texts("a") == [b'{"text":"%d"}' % number for number in range(20)]


async def test_sessions_that_come_up_in_a_burst_keep_to_the_memory_budget(tmp_path: Path) -> None:
    residency = ResidencySettings(memory_budget_bytes=3 * SESSION_BYTES)
    names = [f"s{number}" for number in range(10)]
    async with primary(tmp_path, residency=residency) as node:
        for name in names:
            await node.create(name)
            await node.append(name, "x" * 20_000)
            await node.append(name, "one more")
        node.registry.residency.evict(NEVER)
        actors = await asyncio.gather(*map(node.registry.actor, names))
        assert [actor.visible_seq for actor in actors] == [2] * len(names)
        assert node.registry.residency.memory_bytes <= residency.memory_budget_bytes


async def test_a_session_larger_than_the_memory_budget_is_read_once(tmp_path: Path) -> None:
    residency = ResidencySettings(memory_budget_bytes=3 * SESSION_BYTES)
    async with primary(tmp_path, residency=residency) as node:
        await node.create("large")
        await node.append("large", "x" * 5 * SESSION_BYTES)
        await node.create("small")
        node.registry.residency.evict(NEVER)
        for _ in range(5):
            for name in ("large", "small"):
                await node.registry.actor(name)
            node.registry.residency.evict(asyncio.get_running_loop().time())
        assert node.registry.arrivals.loads == 2


async def test_a_session_with_a_write_on_its_way_is_not_evicted(tmp_path: Path) -> None:
    async with primary(tmp_path) as node:
        await node.create("a")
        node.submit("a", "one")
        node.registry.residency.evict(NEVER)
        assert len(node.registry.residency) == 1
        await node.answers.wait(1)


async def test_a_session_is_created_once(tmp_path: Path) -> None:
    async with primary(tmp_path) as node:
        outcomes = await asyncio.gather(*(node.create("a") for _ in range(5)))
        assert len({session.created_at_ms for session in outcomes}) == 1
        assert len(node.registry.residency) == 1


async def test_a_subscriber_gets_the_backfill_then_each_entry_across_evictions(tmp_path: Path) -> None:
    async with primary(tmp_path) as node:
        await node.create("a")
        for text in ("0", "1", "2"):
            await node.append("a", text)
        events = subscribe(node.registry, "a", 1)
        assert await _seqs(events) == [2, 3]
        assert (await anext(events)).caught_up.seq == 3
        for number in range(4, 10):
            following = asyncio.ensure_future(_seqs(events))
            await asyncio.sleep(0)
            node.registry.residency.evict(NEVER)
            await node.append("a", str(number))
            assert await following == [number]
        await events.aclose()  # type: ignore[attr-defined] # it is an asynchronous generator
        assert node.registry.subscribers == 0


async def test_a_subscriber_that_falls_too_far_behind_is_told_where_to_resume(tmp_path: Path) -> None:
    async with primary(tmp_path) as node:
        await node.create("a")
        await node.append("a", "0")
        events = subscribe(node.registry, "a", 0, max_behind=3)
        assert await _seqs(events) == [1]
        assert (await anext(events)).caught_up.seq == 1
        for number in range(5):
            await node.append("a", str(number))
        resume = (await anext(events)).resume
        assert resume.after_seq == 1
        assert "5 entries behind" in resume.reason


async def test_a_subscriber_is_sent_elsewhere_when_the_node_steps_down(tmp_path: Path) -> None:
    async with primary(tmp_path) as node:
        await node.create("a")
        events = subscribe(node.registry, "a", 0)
        assert (await anext(events)).caught_up.seq == 0
        waiting = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0)
        node.registry.step_down(0)
        assert "no longer leads" in (await waiting).resume.reason


async def test_what_cannot_be_subscribed_to_is_refused(tmp_path: Path) -> None:
    async with primary(tmp_path) as node:
        await node.create("a")
        with pytest.raises(SessionNotFound, match="nobody"):
            await anext(subscribe(node.registry, "nobody", 0))
        with pytest.raises(InvalidRequest, match="after_seq is 7; the session ends at 0"):
            await anext(subscribe(node.registry, "a", 7))


async def _seqs(events: AsyncIterator[SubscribeEvent]) -> list[int]:
    event = await anext(events)
    return [entry.seq for entry in event.entries.entries]


async def test_a_session_whose_creation_is_not_safe_is_not_shown_to_others(tmp_path: Path) -> None:
    settings = WriterSettings(acknowledgement_timeout_seconds=0.1)
    async with primary(tmp_path, voters=("node-1", "node-2", "node-3"), settings=settings) as node:
        created = asyncio.create_task(node.create("a"))
        async with asyncio.timeout(10):
            while not node.writer.unreleased:
                await asyncio.sleep(0.001)
        reading = asyncio.create_task(node.registry.actor("a"))
        with pytest.raises(OutcomeUnknown):
            await created
        with pytest.raises(Unavailable, match="not acknowledged yet"):
            await reading
        with pytest.raises(Unavailable, match="not acknowledged yet"):
            await node.registry.actor("a")
        with pytest.raises(Unavailable, match="not acknowledged yet"):
            await node.create("a")
        outcome = await node.append("a", "one")
        assert isinstance(outcome.error, Unavailable)
        node.writer.durable("node-2", node.log.last.lsn)
        assert (await node.registry.actor("a")).session.session_id == "a"
        _, _, new = await node.registry.create(Session(session_id="a"), None)
        assert not new


async def test_a_creation_whose_caller_went_away_is_not_shown_before_it_is_safe(tmp_path: Path) -> None:
    async with primary(tmp_path, voters=("node-1", "node-2", "node-3")) as node:
        created = asyncio.create_task(node.create("a"))
        async with asyncio.timeout(10):
            while not node.writer.unreleased:
                await asyncio.sleep(0.001)
        created.cancel()
        reading = asyncio.create_task(node.registry.actor("a"))
        await asyncio.gather(created, return_exceptions=True)
        assert not reading.done()
        node.writer.durable("node-2", node.log.last.lsn)
        assert (await reading).session.session_id == "a"


async def test_a_session_whose_creation_was_refused_can_be_created_again(tmp_path: Path) -> None:
    async with primary(tmp_path) as node:
        state = node.database.shards[node.registry._layout.shard_of("a")]
        pages = state.connection.execute("PRAGMA page_count").fetchone()[0]
        state.connection.execute(f"PRAGMA max_page_count={pages}")  # the disk is full
        huge = Session(session_id="a", metadata_json=b'{"x":"%s"}' % (b"x" * 50_000))
        with pytest.raises(WriteFailed):
            await node.registry.create(huge, None)
        with pytest.raises(SessionNotFound):
            await node.registry.actor("a")
        state.connection.execute("PRAGMA max_page_count=1000000")
        await node.create("a")


async def test_a_primary_that_may_have_been_replaced_denies_no_session(tmp_path: Path) -> None:
    async with primary(tmp_path) as node:
        unheard = Lease("node-1", frozenset({"node-1", "node-2", "node-3"}), lease_seconds=1.0)
        node.registry.lead(0, node.writer, unheard)
        with pytest.raises(Unavailable, match="not heard a majority"):
            await node.registry.actor("elsewhere")
        outcome = await node.append("elsewhere", "one")
        assert isinstance(outcome.error, Unavailable)


async def test_a_session_that_is_read_while_its_primary_steps_down_is_not_denied(tmp_path: Path) -> None:
    async with primary(tmp_path) as node:
        await node.create("a")
        node.registry.residency.evict(float("inf"))
        reading = asyncio.create_task(node.registry.actor("a"))
        await asyncio.sleep(0)
        node.registry.step_down(0)
        with pytest.raises(NotPrimary):
            await reading


async def test_a_session_that_is_created_while_its_primary_steps_down_is_served_when_it_leads_again(
    tmp_path: Path,
) -> None:
    async with primary(tmp_path, voters=("node-1", "node-2", "node-3")) as node:
        node.writer.durable("node-2", node.log.last.lsn)
        created = asyncio.create_task(node.create("a"))
        await until(lambda: node.writer.unreleased == 1)
        early = node.submit("a", "early")
        node.registry.step_down(0)
        assert isinstance(node.answers.outcomes[early].error, Unavailable)
        node.writer.durable("node-2", node.log.last.lsn)
        await created
        node.registry.lead(0, node.writer, Lease("node-1", frozenset({"node-1"}), lease_seconds=1.0))
        async with asyncio.timeout(10):
            assert (await node.registry.actor("a")).session.session_id == "a"
