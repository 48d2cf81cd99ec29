"""Checkpoints beside a thread that writes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from agent_core.database.build import WAL_KEPT_BYTES, Connection, open_for_reading, open_for_writing
from agent_core.database.checkpointer import Checkpointer
from agent_core.database.checkpoints import WalBacklog, checkpoint, checkpoint_beside
from primary.capture import WalCapture

LIMIT = 100_000


def wal_of(path: Path) -> Path:
    return path.with_name(path.name + "-wal")


@dataclass
class Shard:
    path: Path
    connection: Connection
    capture: WalCapture
    backlog: WalBacklog = field(default_factory=lambda: WalBacklog.of_opened(0, 0))
    lsn: int = 0

    @classmethod
    def create(cls, path: Path) -> Shard:
        connection = open_for_writing(path)
        connection.execute("CREATE TABLE rows (body BLOB)")
        return cls(path, connection, WalCapture(wal_of(path)))

    @property
    def wal_bytes(self) -> int:
        return wal_of(self.path).stat().st_size

    @contextmanager
    def being_read(self) -> Iterator[None]:
        """A reader holds what the shard is now."""
        with closing(open_for_reading(self.path)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM rows").fetchone()
            yield

    def write(self, kilobytes: int = 4) -> None:
        self.backlog.begins()
        self.connection.execute(f"INSERT INTO rows VALUES (randomblob({1000 * kilobytes}))")
        captured = self.capture.capture()
        assert captured is not None
        self.lsn += 1
        self.backlog.wrote(len(captured.frames), self.lsn)


@dataclass
class Group:
    shards: dict[int, Shard]
    checkpointer: Checkpointer
    between_writes: list[int]

    async def settled(self) -> None:
        """Wait until the checkpoints that were begun have ended by themselves."""
        if self.checkpointer._task is not None:
            await asyncio.wait([self.checkpointer._task], timeout=10)


@pytest.fixture
async def group(tmp_path: Path) -> AsyncIterator[Group]:
    shards = {number: Shard.create(tmp_path / f"{number}.db") for number in range(3)}
    asked: list[int] = []

    async def between_writes(number: int) -> None:
        asked.append(number)
        checkpoint(shards[number].connection, shards[number].backlog)

    made = Group(shards, Checkpointer(shards, LIMIT, between_writes=between_writes), asked)
    yield made
    await made.checkpointer.close()
    for shard in shards.values():
        shard.capture.close()
        shard.connection.close()


async def test_every_shard_that_is_due_is_checkpointed_and_no_other(group: Group) -> None:
    group.shards[0].write(200)
    group.shards[1].write(1)
    group.shards[2].write(300)
    group.checkpointer.begin()
    await group.settled()
    assert [shard.backlog.completed for shard in group.shards.values()] == [1, 0, 1]
    assert [shard.backlog.needs_lsn for shard in group.shards.values()] == [None, 0, None]
    assert group.between_writes == []


async def test_checkpoints_called_off_before_they_began_can_be_begun_again(group: Group) -> None:
    group.shards[0].write(200)
    group.checkpointer.begin()
    await group.checkpointer.settle()
    group.checkpointer.begin()
    await group.settled()
    assert group.shards[0].backlog.completed == 1


async def test_after_a_checkpoint_the_next_transaction_begins_the_wal_anew(group: Group) -> None:
    shard = group.shards[0]
    for _ in range(50):
        shard.write(4)
        if shard.backlog.is_due(LIMIT):
            group.checkpointer.begin()
            await group.settled()
    assert shard.wal_bytes < 2 * LIMIT


async def test_a_shard_that_is_written_without_a_pause_is_finished_by_its_writer(
    group: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = group.shards[0]

    def beside_a_busy_writer(path: Path, backlog: WalBacklog) -> bool:
        moved_all = checkpoint_beside(path, backlog)
        backlog.begins()
        backlog.wrote(4096, backlog.written.lsn + 1)
        return moved_all

    monkeypatch.setattr("agent_core.database.checkpointer.checkpoint_beside", beside_a_busy_writer)
    shard.write(200)
    group.checkpointer.begin()
    await group.settled()
    assert group.between_writes == [0]
    assert shard.backlog.pending_bytes == 0


async def test_what_a_checkpoint_may_have_moved_already_is_left_to_the_writer(group: Group) -> None:
    """Beside the writer it could meet SQLite's WAL-reset bug."""
    shard = group.shards[0]
    shard.write(200)
    shard.backlog.has_run()
    group.checkpointer.begin()
    await group.settled()
    assert group.between_writes == [0]
    assert shard.backlog.pending_bytes == 0


async def test_a_reader_in_the_way_is_not_waited_for_by_the_writer_either(group: Group) -> None:
    shard = group.shards[0]
    shard.write(1)
    with shard.being_read():
        shard.write(200)
        group.checkpointer.begin()
        await group.settled()
        assert (shard.backlog.blocked, group.between_writes) == (1, [])
    group.checkpointer.begin([0])
    await group.settled()
    assert shard.backlog.pending_bytes == 0


async def test_a_wal_that_a_reader_let_grow_is_cut_once_the_reader_has_gone(group: Group) -> None:
    shard = group.shards[0]
    shard.write(1)
    with shard.being_read():
        shard.write(2 * WAL_KEPT_BYTES // 1000)
        assert shard.wal_bytes > 2 * WAL_KEPT_BYTES
    group.checkpointer.begin([0])
    await group.settled()
    shard.write(1)
    assert shard.wal_bytes == pytest.approx(WAL_KEPT_BYTES, rel=0.01)


async def test_a_file_that_cannot_be_opened_is_counted_and_keeps_no_other_from_its_checkpoint(group: Group) -> None:
    for shard in group.shards.values():
        shard.write(1)
    gone = group.shards[0].path
    gone.rename(gone.with_suffix(".away"))
    group.checkpointer.begin([0, 1])
    await group.settled()
    gone.with_suffix(".away").rename(gone)
    assert group.shards[0].backlog.failed == 1
    assert group.shards[1].backlog.completed == 1


async def test_once_closed_none_begins_and_the_one_under_way_has_ended(group: Group) -> None:
    group.shards[0].write(2000)
    group.checkpointer.begin()
    await asyncio.sleep(0)
    await group.checkpointer.close()
    done = group.shards[0].backlog.completed
    group.shards[0].write(2000)
    group.checkpointer.begin([0])
    await group.settled()
    assert group.shards[0].backlog.completed == done


async def test_one_on_the_writing_thread_is_waited_for_too(group: Group) -> None:
    """Another one beside it, begun meanwhile, would not know what it moves."""
    running, may_end = asyncio.Event(), asyncio.Event()
    ended = []

    async def between_writes(number: int) -> None:
        running.set()
        await may_end.wait()
        ended.append(number)

    checkpointer = Checkpointer(group.shards, LIMIT, between_writes=between_writes)
    checkpointer.begin([0])
    await running.wait()
    settling = asyncio.create_task(checkpointer.settle())
    await asyncio.sleep(0)
    assert not settling.done()
    may_end.set()
    await settling
    assert ended == [0]
