"""A resync is what repairs a damaged file, and it never makes one worse."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agent_core.database.build import PAGE_SIZE
from agent_core.database.pages import PageSnapshot
from agent_core.errors import ShardDamaged, Unavailable
from agent_core.position import Position
from agent_core.rpc import replication_pb2 as pb
from replica.resync import discard_shard_files
from tests.unit.resync.harness import Thread, answering, assert_identical, open_thread, resync_of, source_of
from tests.unit.shard_histories import SHARD, History, pages_of

DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "garbage": lambda data: os.urandom(len(data)),
    "another magic": lambda data: b"X" + data[1:],
    "other pages": lambda data: data[:16] + b"\x08\x00" + data[18:],
    "cut short": lambda data: data[:5000],
    "too short": lambda data: data[:50],
    "nothing": lambda _: b"",
    "a page overwritten": lambda data: data[: 9 * PAGE_SIZE] + os.urandom(PAGE_SIZE) + data[10 * PAGE_SIZE :],
    "the replication row overwritten": lambda data: (
        data[:PAGE_SIZE] + os.urandom(PAGE_SIZE) + data[2 * PAGE_SIZE :]
    ),
    "a smaller page count": lambda data: data[:28] + b"\0\0\0\x05" + data[32:],
    "a larger page count": lambda data: data[:28] + b"\0\xff\0\0" + data[32:],
    "pages behind the end": lambda data: data + os.urandom(3 * PAGE_SIZE),
    "another encoding": lambda data: data[:56] + b"\0\0\0\x02" + data[60:],
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
async def test_a_damaged_file_is_repaired(
    tmp_path: Path, history: History, damage: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / "standby.db"
    thread = await open_thread(path)
    await thread.run(thread.owned.apply, history.records)
    await thread.close()
    path.write_bytes(damage(path.read_bytes()))
    history.fill(10)

    thread = await open_thread(path)
    resync = resync_of(thread)
    assert await resync.run(source_of(history).serve) == history.position
    assert thread.owned.damage is None
    await assert_identical(thread, history)
    assert await thread.run(thread.owned.checkpoint)
    await assert_identical(thread, history)
    await thread.close()


async def test_a_flipped_bit_costs_one_page(tmp_path: Path, history: History) -> None:
    path = tmp_path / "standby.db"
    thread = await open_thread(path)
    await thread.run(thread.owned.apply, history.records)
    await thread.close()
    data = bytearray(path.read_bytes())
    data[20 * PAGE_SIZE + 1234] ^= 4
    path.write_bytes(data)
    thread = await open_thread(path)
    resync = resync_of(thread)
    await resync.run(source_of(history).serve)
    assert (resync.pages_received, resync.started_anew) == (1, False)
    await assert_identical(thread, history)
    await thread.close()


async def test_a_file_that_becomes_unreadable_while_it_is_open_starts_anew(
    thread: Thread, history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    await thread.run(thread.owned.apply, history.records)
    own_path = thread.owned.path
    open_snapshot = PageSnapshot.open

    def open_or_fail(path: Path) -> PageSnapshot:
        if path == own_path:
            raise ShardDamaged("disk I/O error")
        return open_snapshot(path)

    monkeypatch.setattr(PageSnapshot, "open", open_or_fail)
    resync = resync_of(thread)
    await resync.run(source_of(history).serve)
    monkeypatch.undo()
    assert resync.started_anew
    await assert_identical(thread, history)


async def test_an_unreadable_file_is_kept_until_a_source_answers(tmp_path: Path) -> None:
    path = tmp_path / "standby.db"
    path.write_bytes(garbage := os.urandom(3 * PAGE_SIZE))
    thread = await open_thread(path)
    with pytest.raises(Unavailable):
        await resync_of(thread).run(answering())
    assert path.read_bytes() == garbage
    await thread.close()


async def test_a_file_is_replaced_only_when_no_connection_is_open(tmp_path: Path, history: History) -> None:
    path = tmp_path / "standby.db"
    path.write_bytes(os.urandom(3 * PAGE_SIZE))
    thread = await open_thread(path)
    with path.open("rb") as reader:
        with pytest.raises(Unavailable, match=r"standby\.db cannot be replaced while"):
            await resync_of(thread).run(source_of(history).serve)

        @asynccontextmanager
        async def readers_away(shard: int) -> AsyncIterator[None]:
            assert shard == SHARD
            reader.close()
            yield

        await resync_of(thread, readers_away).run(source_of(history).serve)
    await assert_identical(thread, history)
    await thread.close()


def test_discarding_takes_the_wal_along(tmp_path: Path) -> None:
    path = tmp_path / "shard.db"
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).write_bytes(b"x")
    discard_shard_files(path)
    discard_shard_files(path)
    assert list(tmp_path.iterdir()) == []


async def test_pages_that_do_not_lead_to_the_announced_position_are_rolled_back(
    thread: Thread, history: History
) -> None:
    await thread.run(thread.owned.apply, history.records)
    before = pages_of(thread.owned.path)
    history.fill(60)
    source = source_of(history)

    async def serve_with_another_position(
        requests: AsyncIterator[pb.ResyncRequest],
    ) -> AsyncIterator[pb.ResyncResponse]:
        async for response in source.serve(requests):
            if response.WhichOneof("message") == "snapshot":
                response.snapshot.position.lsn += 1
            yield response

    with pytest.raises(ShardDamaged, match="announced"):
        await resync_of(thread).run(serve_with_another_position)
    assert pages_of(thread.owned.path) == before
    assert thread.owned.applied == Position(1, 2)
    await resync_of(thread).run(source.serve)
    await assert_identical(thread, history)


async def test_the_shard_of_another_number_is_rolled_back(thread: Thread, history: History) -> None:
    history.commit("UPDATE replication SET shard = 9")
    with pytest.raises(ShardDamaged, match="announced"):
        await resync_of(thread).run(source_of(history).serve)
    assert thread.owned.applied is None
