"""Read-only connections and their snapshots."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent_core.database.build import Connection
from agent_core.errors import Overloaded, ShardDamaged, Unavailable
from agent_core.routing import ShardLayout
from replica.reading import pool as pool_module
from replica.reading.pool import ReadPool
from tests.reading_shards import WrittenShards

LAYOUT = ShardLayout(shard_count=8)


@pytest.fixture
async def shards(tmp_path: Path) -> AsyncIterator[WrittenShards]:
    written = WrittenShards(tmp_path, LAYOUT)
    yield written
    written.close()


@pytest.fixture
async def pool(tmp_path: Path) -> AsyncIterator[ReadPool]:
    reads = ReadPool(tmp_path, LAYOUT, threads=2)
    yield reads
    await reads.close()


def count_sessions(connection: Connection) -> int:
    return int(connection.execute("SELECT count(*) FROM sessions").fetchone()[0])


def replace_file(new: Path, old: Path) -> None:
    for suffix in ("-wal", "-shm"):
        Path(f"{old}{suffix}").unlink()
    new.replace(old)


async def test_a_read_returns_its_result_and_the_shards_own_position(shards: WrittenShards, pool: ReadPool) -> None:
    shards.create("a")
    shard = LAYOUT.shard_of("a")
    assert await pool.read(shard, count_sessions) == (1, shards.position(shard))


async def test_a_shard_that_has_not_arrived_reads_as_empty_or_is_named(pool: ReadPool) -> None:
    assert await pool.read(3, count_sessions, empty=0) == (0, None)
    with pytest.raises(Unavailable, match="shard 3 has not arrived"):
        await pool.read(3, count_sessions)


async def test_a_file_without_tables_has_not_arrived(shards: WrittenShards, pool: ReadPool) -> None:
    shards.path(3).parent.mkdir()
    shards.path(3).touch()
    assert await pool.read(3, count_sessions, empty=0) == (0, None)


async def test_everything_within_one_read_sees_one_state(shards: WrittenShards, pool: ReadPool) -> None:
    shards.create("a")
    shard = LAYOUT.shard_of("a")

    def count_around_a_write(connection: Connection) -> tuple[int, int]:
        before = count_sessions(connection)
        with shards.writing(shard) as writer:
            writer.execute("INSERT INTO sessions (session_id, created_at, folded_updated_at) VALUES ('b', 1, 1)")
        return before, count_sessions(connection)

    assert (await pool.read(shard, count_around_a_write))[0] == (1, 1)
    assert (await pool.read(shard, count_sessions))[0] == 2


@pytest.mark.parametrize("fails", [False, True])
async def test_no_snapshot_outlives_its_read(shards: WrittenShards, pool: ReadPool, *, fails: bool) -> None:
    shards.create("a")
    shard = LAYOUT.shard_of("a")

    def leave_a_cursor_open(connection: Connection) -> None:
        cursor = connection.execute("SELECT * FROM sessions, sqlite_master")
        cursor.fetchone()
        if fails:
            raise KeyError("a bug")

    if fails:
        with pytest.raises(KeyError):
            await pool.read(shard, leave_a_cursor_open)
    else:
        await pool.read(shard, leave_a_cursor_open)
    shards.append("a", "{}")
    blocked, *_ = shards.connections[shard].execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    assert not blocked


async def test_a_read_cannot_write(shards: WrittenShards, pool: ReadPool) -> None:
    shards.create("a")
    with pytest.raises(Unavailable, match="readonly"):
        await pool.read(LAYOUT.shard_of("a"), lambda connection: connection.execute("DELETE FROM sessions"))
    assert pool.failures == 1


async def test_a_damaged_file_is_called_so(pool: ReadPool, shards: WrittenShards) -> None:
    shards.path(3).parent.mkdir()
    shards.path(3).write_bytes(b"not a database at all" * 1000)
    with pytest.raises(ShardDamaged, match="shard 3: file is not a database"):
        await pool.read(3, count_sessions)


async def test_many_shards_are_read_in_the_order_asked_for(shards: WrittenShards, pool: ReadPool) -> None:
    shards.create("a")
    found = [count for count, _ in await pool.read_each(range(8), count_sessions, empty=-1)]
    assert found == [1 if shard == LAYOUT.shard_of("a") else -1 for shard in range(8)]


async def test_a_forgotten_shard_is_opened_anew(shards: WrittenShards, pool: ReadPool, tmp_path: Path) -> None:
    shards.create("a")
    shard = LAYOUT.shard_of("a")
    await pool.read(shard, count_sessions)
    shards.close()

    other = WrittenShards(tmp_path / "other", LAYOUT)
    other.create("a")
    with other.writing(shard) as writer:
        writer.execute("INSERT INTO sessions (session_id, created_at, folded_updated_at) VALUES ('b', 1, 1)")
    other.close()

    await pool.forget(shard)
    replace_file(other.path(shard), shards.path(shard))
    assert (await pool.read(shard, count_sessions))[0] == 2
    shards.connections.clear()


async def test_forgetting_waits_for_the_reads_that_are_under_way(shards: WrittenShards, pool: ReadPool) -> None:
    shards.create("a")
    shard = LAYOUT.shard_of("a")
    begun, may_end = threading.Event(), threading.Event()

    def slow(connection: Connection) -> int:
        begun.set()
        assert may_end.wait(10)
        return count_sessions(connection)

    reading = asyncio.create_task(pool.read(shard, slow))
    await asyncio.to_thread(begun.wait, 10)
    forgetting = asyncio.create_task(pool.forget(shard))
    await asyncio.sleep(0)
    assert not forgetting.done()
    may_end.set()
    await forgetting
    assert (await reading)[0] == 1
    assert pool._idle_count == 0


async def test_reads_past_the_bound_are_turned_away(
    shards: WrittenShards, pool: ReadPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module, "MAX_WAITING_READS", 1)
    shards.create("a")
    may_end = threading.Event()
    reading = asyncio.create_task(pool.read(LAYOUT.shard_of("a"), lambda _: may_end.wait(10)))
    await asyncio.sleep(0)
    with pytest.raises(Overloaded, match="1 reads wait"):
        await pool.read(0, count_sessions)
    may_end.set()
    await reading


async def test_a_closed_pool_says_that_the_node_stops(tmp_path: Path) -> None:
    pool = ReadPool(tmp_path, LAYOUT)
    await pool.close()
    with pytest.raises(Unavailable, match="stopping"):
        await pool.read(0, count_sessions)


async def test_a_shard_whose_file_is_being_replaced_has_no_reader_and_takes_none(
    shards: WrittenShards, pool: ReadPool
) -> None:
    shards.create("a")
    shard = LAYOUT.shard_of("a")
    await pool.read(shard, count_sessions)
    async with pool.away(shard):
        assert pool._idle_count == 0
        with pytest.raises(Unavailable, match="is being replaced"):
            await pool.read(shard, count_sessions)
        with pytest.raises(Unavailable, match="is being replaced"), pool.elsewhere(shard):
            pass
    assert (await pool.read(shard, count_sessions))[0] == 1


async def test_replacing_waits_for_a_read_in_another_process(pool: ReadPool) -> None:
    with pool.elsewhere(0):
        forgetting = asyncio.create_task(pool.forget(0))
        await asyncio.sleep(0)
        assert not forgetting.done()
    await forgetting
