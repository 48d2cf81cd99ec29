"""What a successor read before a hand-over stays true; when it leads, it reads only what came since."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from agent_core.database.build import open_for_reading
from agent_core.database.schema import FOLD_AFTER, shard_path
from agent_core.routing import ShardLayout
from primary import loader
from primary.actor import SESSION_OVERHEAD_BYTES, SessionActor
from primary.residency import PREPARED_SECONDS, ResidencySettings
from tests.unit.primary_harness import Primary, primary

LAYOUT = ShardLayout(shard_count=4)


def read(directory: Path, session_id: str) -> SessionActor:
    """The session as a successor reads it from its own shard."""
    shard = LAYOUT.shard_of(session_id)
    connection = open_for_reading(shard_path(directory, LAYOUT.shard_file_name(shard)))
    try:
        actor = loader.read_session(connection, session_id, shard, 0)
    finally:
        connection.close()
    assert actor is not None
    return actor


def now() -> float:
    return asyncio.get_running_loop().time()


async def written(node: Primary, first: int, last: int) -> None:
    for number in range(first, last + 1):
        node.submit("a", str(number), key=f"key {number}")
    await node.answers.wait(node.requests)


@pytest.mark.parametrize("since", [0, 3, 2 * FOLD_AFTER])
async def test_a_prepared_session_is_served_with_what_came_since(tmp_path: Path, since: int) -> None:
    async with primary(tmp_path, layout=LAYOUT) as node:
        await node.create("a")
        await written(node, 1, 10)
        assert node.registry.residency.prepare(read(tmp_path, "a"), now())
        await written(node, 11, 10 + since)
        node.registry.residency.evict(float("-inf"))
        node.registry.residency.drop_group(0)
        assert await node.texts("a") == [b'{"text":"%d"}' % number for number in range(1, 11 + since)]
        again = await node.append("a", "2", key="key 2")
        assert (again.seq, again.duplicate) == (2, True)
        assert (await node.append("a", "new")).seq == 11 + since


async def test_what_was_prepared_in_vain_is_let_go(tmp_path: Path) -> None:
    async with primary(tmp_path, layout=LAYOUT) as node:
        await node.create("a")
        actor = read(tmp_path, "a")
        assert node.registry.residency.prepare(actor, now())
        node.registry.residency.evict(actor.used_at + PREPARED_SECONDS)
        assert node.registry.residency.take_prepared("a") is None


async def test_no_more_is_prepared_than_there_is_room_for(tmp_path: Path) -> None:
    for_one = ResidencySettings(memory_budget_bytes=SESSION_OVERHEAD_BYTES * 3 // 2)
    async with primary(tmp_path, layout=LAYOUT, residency=for_one) as node:
        await node.create("a")
        await node.create("b")
        assert node.registry.residency.prepare(read(tmp_path, "a"), now())
        assert not node.registry.residency.prepare(read(tmp_path, "b"), now())


async def test_the_sessions_in_use_are_named_most_recently_used_first(tmp_path: Path) -> None:
    async with primary(tmp_path, layout=LAYOUT) as node:
        for name in ("a", "b", "c"):
            await node.create(name)
        for name in ("b", "c", "a"):
            await node.append(name, "x")
        assert node.registry.residency.in_use(0, 2) == ["a", "c"]
