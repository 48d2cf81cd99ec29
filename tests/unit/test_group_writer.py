"""From a queued append to an acknowledged one, on real shards and a real log."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from unittest.mock import MagicMock

import pytest

from agent_core.database.build import DatabaseError, open_for_reading
from agent_core.database.schema import FOLD_AFTER, MIGRATIONS, SCHEMA_VERSION, Migration, schema_version
from agent_core.errors import OutcomeUnknown, SessionNotFound, Unavailable, WriteFailed
from agent_core.log.log import ReplicationLog
from agent_core.log.record import RecordKind
from agent_core.position import Position
from agent_core.quorum import Acknowledgement
from agent_core.routing import ShardLayout
from primary.accumulator import Accumulator, BatchLimits
from primary.group_database import GroupDatabase
from primary.writer import WriterSettings
from tests.unit.primary_harness import Primary, primary

THREE = ("node-1", "node-2", "node-3")


async def test_appends_get_consecutive_numbers_and_are_in_the_shard_and_in_memory(tmp_path: Path) -> None:
    async with primary(tmp_path) as node:
        await node.create("a")
        for text in ("one", "two", "three"):
            node.submit("a", text)
        await node.answers.wait(3)
        assert [node.answers.outcomes[request].seq for request in (1, 2, 3)] == [1, 2, 3]
        assert await node.texts("a") == [b'{"text":"one"}', b'{"text":"two"}', b'{"text":"three"}']
        reader = open_for_reading(node.database.shards[node.registry._layout.shard_of("a")].path)
        assert reader.execute("SELECT seq, payload FROM transcript ORDER BY seq").fetchall() == [
            (1, '{"text":"one"}'),
            (2, '{"text":"two"}'),
            (3, '{"text":"three"}'),
        ]
        reader.close()


async def test_one_batch_is_one_transaction_per_shard_and_one_fsync(tmp_path: Path) -> None:
    async with primary(tmp_path) as node:
        for name in "abcdef":
            await node.create(name)
        shards = {node.registry._layout.shard_of(name) for name in "abcdef"}
        before = node.writer.counters.transactions, node.writer.counters.batches, node.log.syncs
        for name in "abcdef" * 5:
            node.submit(name, "x")
        await node.answers.wait(30)
        after = node.writer.counters.transactions, node.writer.counters.batches, node.log.syncs
        assert (after[0] - before[0], after[1] - before[1], after[2] - before[2]) == (len(shards), 1, 1)


async def test_nothing_is_acknowledged_or_visible_before_a_majority_holds_it(tmp_path: Path) -> None:
    async with primary(tmp_path, voters=THREE) as node:
        node.writer.durable("node-2", node.log.last.lsn)
        created = asyncio.create_task(node.create("a"))
        await _until(lambda: node.writer.unreleased == 1)
        assert not created.done()
        node.writer.durable("node-2", node.log.last.lsn)
        await created
        node.submit("a", "one")
        await _until(lambda: node.writer.unreleased == 1)
        assert node.answers.outcomes == {}
        assert await node.texts("a") == []
        node.writer.durable("node-3", node.log.last.lsn)
        await node.answers.wait(1)
        assert await node.texts("a") == [b'{"text":"one"}']


async def test_each_append_may_choose_what_acknowledges_it(tmp_path: Path) -> None:
    async with primary(tmp_path, voters=THREE) as node:
        node.writer.durable("node-2", node.log.last.lsn)
        created = asyncio.create_task(node.create("a"))
        await _until(lambda: node.writer.unreleased == 1)
        node.writer.durable("node-2", node.log.last.lsn)
        await created
        local = node.submit("a", "local", mode=Acknowledgement.LOCAL)
        quorum = node.submit("a", "quorum")
        everywhere = node.submit("a", "all", mode=Acknowledgement.ALL)
        await node.answers.wait(1)
        assert set(node.answers.outcomes) == {local}
        assert await node.texts("a") == []  # told, but shown only once a quorum has it
        node.writer.durable("node-2", node.log.last.lsn)
        await node.answers.wait(2)
        assert set(node.answers.outcomes) == {local, quorum}
        assert len(await node.texts("a")) == 3
        node.writer.durable("node-3", node.log.last.lsn)
        await node.answers.wait(3)
        assert node.answers.outcomes[everywhere].seq == 3


async def test_a_write_without_its_quorum_ends_as_outcome_unknown_and_is_there_once_the_quorum_returns(
    tmp_path: Path,
) -> None:
    settings = WriterSettings(acknowledgement_timeout_seconds=0.1)
    async with primary(tmp_path, voters=THREE, settings=settings) as node:
        node.writer.durable("node-2", node.log.last.lsn)
        created = asyncio.create_task(node.create("a"))
        await _until(lambda: node.writer.unreleased == 1)
        node.writer.durable("node-2", node.log.last.lsn)
        await created
        outcome = await node.append("a", "one", key="k")
        assert isinstance(outcome.error, OutcomeUnknown)
        assert await node.texts("a") == []
        node.writer.durable("node-2", node.log.last.lsn)
        assert await node.texts("a") == [b'{"text":"one"}']
        again = await node.append("a", "one", key="k")
        assert (again.seq, again.duplicate) == (1, True)


async def test_an_idempotency_key_makes_one_entry_also_while_the_first_is_on_its_way(tmp_path: Path) -> None:
    async with primary(tmp_path) as node:
        await node.create("a")
        first, second = node.submit("a", "one", key="k"), node.submit("a", "one", key="k")
        await node.answers.wait(2)
        third = await node.append("a", "one", key="k")
        assert [node.answers.outcomes[request].duplicate for request in (first, second)] == [False, True]
        assert (third.seq, third.duplicate) == (1, True)
        assert len(await node.texts("a")) == 1


async def test_a_refused_transaction_fails_its_callers_and_leaves_memory_as_it_was(tmp_path: Path) -> None:
    async with primary(tmp_path) as node:
        await node.create("a")
        await node.append("a", "one")
        state = node.database.shards[node.registry._layout.shard_of("a")]
        pages = state.connection.execute("PRAGMA page_count").fetchone()[0]
        state.connection.execute(f"PRAGMA max_page_count={pages}")  # the disk is full
        outcome = await node.append("a", "x" * 100_000)
        assert isinstance(outcome.error, WriteFailed)
        assert "full" in str(outcome.error)
        assert node.writer.trouble is not None
        assert await node.texts("a") == [b'{"text":"one"}']
        state.connection.execute("PRAGMA max_page_count=1000000")
        assert (await node.append("a", "two")).seq == 2
        assert node.writer.trouble is None


async def test_a_log_on_a_full_disk_is_tried_again_and_nothing_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with primary(tmp_path) as node:
        await node.create("a")
        append = node.log.append
        refusals = 2

        def full(block: bytes, *, verify: bool = True) -> None:
            nonlocal refusals
            if refusals:
                refusals -= 1
                raise OSError(28, "No space left on device")
            append(block, verify=verify)

        monkeypatch.setattr("primary.writer.LOG_RETRY_SECONDS", 0.01)
        monkeypatch.setattr(node.log, "append", full)
        assert (await node.append("a", "one")).seq == 1
        assert refusals == 0


async def test_a_writer_that_dies_fails_every_waiter_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with primary(tmp_path) as node:
        await node.create("a")

        def broken(*arguments: object) -> None:
            raise RuntimeError("the thread is gone")

        monkeypatch.setattr(type(node.database), "write", broken)
        outcome = await node.append("a", "one")
        assert isinstance(outcome.error, OutcomeUnknown)
        assert node.writer.failure is not None
        assert "the thread is gone" in node.writer.failure
        later = await node.append("a", "two")
        assert isinstance(later.error, Unavailable)
        assert not node.writer.takes_writes


async def test_a_writer_takes_no_writes_once_its_primary_is_deposed(tmp_path: Path) -> None:
    async with primary(tmp_path) as node:
        assert node.writer.takes_writes
        node.writer.depose("another node leads")
        assert not node.writer.takes_writes


@asynccontextmanager
async def slow_disk(node: Primary) -> AsyncIterator[threading.Event]:
    """The writing thread is held up until the event is set."""
    goes_on = threading.Event()
    holding = asyncio.create_task(node.writer._thread.run(goes_on.wait, 10))
    try:
        yield goes_on
    finally:
        goes_on.set()
        await holding


async def test_a_writer_that_drains_waits_for_the_batch_that_is_being_written(tmp_path: Path) -> None:
    """Else its callers are told that its outcome is unknown, and whoever hands over does not know its log's end."""
    async with primary(tmp_path) as node:
        await node.create("a")
        async with slow_disk(node) as goes_on:
            request = node.submit("a", "one")
            await _until(lambda: not node.writer.queued)
            draining = asyncio.create_task(node.writer.drain(3600))
            for _ in range(10):
                await asyncio.sleep(0)
            assert not draining.done()
            goes_on.set()
            async with asyncio.timeout(10):
                await draining
        assert node.answers.outcomes[request].seq == 1


async def test_a_writer_has_drained_when_its_last_batch_is_refused(tmp_path: Path) -> None:
    async with primary(tmp_path) as node:
        await node.create("a")
        state = node.database.shards[node.registry._layout.shard_of("a")]
        pages = state.connection.execute("PRAGMA page_count").fetchone()[0]
        state.connection.execute(f"PRAGMA max_page_count={pages}")  # the disk is full
        async with slow_disk(node) as goes_on:
            request = node.submit("a", "x" * 100_000)
            await _until(lambda: not node.writer.queued)
            draining = asyncio.create_task(node.writer.drain(3600))
            await asyncio.sleep(0)
            goes_on.set()
            async with asyncio.timeout(10):
                await draining
        assert isinstance(node.answers.outcomes[request].error, WriteFailed)


async def test_a_full_queue_makes_callers_wait(tmp_path: Path) -> None:
    settings = WriterSettings(limits=BatchLimits(queue_mutations=2))
    async with primary(tmp_path, settings=settings) as node:
        await node.create("a")
        node.submit("a", "one")
        assert not node.writer.full
        node.submit("a", "two")
        assert node.writer.full
        async with asyncio.timeout(5):
            await node.writer.room()
        assert not node.writer.full


async def test_writing_runs_ahead_of_the_quorum_only_so_far(tmp_path: Path) -> None:
    settings = WriterSettings(uncommitted_transactions=2, acknowledgement_timeout_seconds=60)
    async with primary(tmp_path, voters=THREE, settings=settings) as node:
        creations = []
        for number in range(5):
            creations.append(asyncio.create_task(node.create(f"s{number}")))
            await _until(lambda n=number: node.writer.unreleased == min(n + 1, 2))
        await _until(lambda: node.writer.queued == 3)
        assert node.writer.unreleased == 2
        assert node.writer.queued == 3
        node.writer.durable("node-2", node.log.last.lsn)
        await asyncio.gather(*creations[:2])
        for creation in creations[2:]:
            creation.cancel()
        await asyncio.gather(*creations, return_exceptions=True)


async def test_the_tail_is_folded_into_the_index_and_reads_see_all_of_it(tmp_path: Path) -> None:
    async with primary(tmp_path) as node:
        await node.create("a")
        count = FOLD_AFTER + 10
        for number in range(count):
            await node.append("a", str(number))
        state = node.database.shards[node.registry._layout.shard_of("a")]
        reader = open_for_reading(state.path)
        assert reader.execute("SELECT count(*) FROM entry_index").fetchone()[0] >= FOLD_AFTER
        assert reader.execute("SELECT count(*) FROM transcript").fetchone()[0] == count
        assert reader.execute("SELECT entry_count FROM session_overview").fetchone()[0] == count
        reader.close()


async def test_a_session_that_is_not_there_is_named(tmp_path: Path) -> None:
    async with primary(tmp_path) as node:
        outcome = await node.append("nobody", "one")
        assert isinstance(outcome.error, SessionNotFound)
        assert "nobody" in str(outcome.error)


async def test_what_a_crash_left_unlogged_is_logged_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with primary(tmp_path) as node:
        await node.create("a")
        last = node.log.last.lsn

        def killed(*arguments: object, **keywords: object) -> None:
            raise SystemError("killed between the shard and the log")

        monkeypatch.setattr(node.log, "append", killed)
        await node.append("a", "one")
        assert node.log.last.lsn == last
        # What the kill leaves: WAL and log as they are now. Closing would empty the WAL, so copy it first.
        copy = tmp_path / "crashed"
        _copy_tree(tmp_path, copy)
    async with primary(copy, epoch=2) as node:
        assert await node.texts("a") == [b'{"text":"one"}']
        record = next(record for record in node.log.records(last) if record.position.lsn == last + 1)
        assert (record.kind, record.position.epoch) == (RecordKind.TRANSACTION, 1)
        assert (await node.append("a", "two")).seq == 2


async def test_a_shard_that_stays_ahead_is_reset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with primary(tmp_path) as node:
        await node.create("a")
        await node.append("a", "one")
        last = node.log.last
    # A power cut took the log's end; the shard was checkpointed and kept all.
    log = ReplicationLog.open(tmp_path / "log", cluster_id="test", group=0)
    log.cut_back(Position(last.epoch, last.lsn - 1))
    log.close()
    async with primary(tmp_path, epoch=2) as node:
        kinds = [record.kind for record in node.log.records(last.lsn - 1)]
        assert kinds == [RecordKind.EPOCH, RecordKind.RESET, RecordKind.EPOCH]
        assert await node.texts("a") == [b'{"text":"one"}']
        assert (await node.append("a", "two")).seq == 2


async def test_a_shard_that_is_reset_is_migrated_by_its_reset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A record of its own behind the reset would wait for a quorum that waits for the resync of just this shard."""
    async with primary(tmp_path) as node:
        await node.create("a")
        shards = len(node.database.shards)
        last = node.log.last
    log = ReplicationLog.open(tmp_path / "log", cluster_id="test", group=0)
    log.cut_back(Position(last.epoch, last.lsn - 1))
    log.close()
    monkeypatch.setattr("agent_core.database.schema.MIGRATIONS", (*MIGRATIONS, Migration("CREATE TABLE later (a)")))
    for module in ("agent_core.database.schema", "primary.group_database"):
        monkeypatch.setattr(f"{module}.SCHEMA_VERSION", SCHEMA_VERSION + 1)
    async with primary(tmp_path, epoch=2) as node:
        records = list(node.log.records(last.lsn - 1))
        kinds = [record.kind for record in records]
        migrations = [RecordKind.TRANSACTION] * (shards - 1)
        assert kinds == [RecordKind.EPOCH, *migrations, RecordKind.RESET, RecordKind.EPOCH]
        reset = node.database.shards[records[-2].shard]
        assert reset.position == records[-2].position
        for state in node.database.shards.values():
            assert schema_version(state.connection) == SCHEMA_VERSION + 1


def test_a_workspace_shard_that_is_reset_gets_its_own_tables(tmp_path: Path) -> None:
    layout = ShardLayout(shard_count=4)
    log = ReplicationLog.open(tmp_path / "log", cluster_id="test", group=0)
    database = GroupDatabase.open(tmp_path, layout, group=0, epoch=1, log=log, checkpoint_bytes=1 << 20)
    database.begin_epoch("test", {0, layout.workspace_shard})
    has_documents = {
        shard: bool(state.connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'documents'").fetchall())
        for shard, state in database.shards.items()
    }
    assert has_documents == {shard: shard == layout.workspace_shard for shard in database.shards}
    database.close()
    log.close()


def test_the_errors_of_this_sqlite_build_are_not_the_standard_librarys() -> None:
    import sqlite3

    assert not issubclass(DatabaseError, sqlite3.Error)


def _copy_tree(source: Path, target: Path) -> None:
    for path in list(source.rglob("*")):
        relative = path.relative_to(source)
        if path.is_file() and not path.name.endswith("-shm"):
            (target / relative).parent.mkdir(parents=True, exist_ok=True)
            (target / relative).write_bytes(path.read_bytes())


async def _until(condition: object) -> None:
    async with asyncio.timeout(10):
        while not condition():  # type: ignore[operator] # a lambda
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("mode", [Acknowledgement.LOCAL, Acknowledgement.QUORUM])
async def test_what_readers_may_see_follows_the_acknowledgement_of_the_cluster(
    tmp_path: Path, mode: Acknowledgement
) -> None:
    async with primary(tmp_path, voters=THREE, settings=WriterSettings(acknowledgement=mode)) as node:
        created = asyncio.create_task(node.create("a"))
        await _until(lambda: node.writer.counters.transactions == 1 and node.log.durable_lsn == node.log.last.lsn)
        if mode is Acknowledgement.QUORUM:
            assert node.visible == []
            node.writer.durable("node-3", node.log.last.lsn)
        await created
        assert node.visible[-1] == node.log.last


async def test_a_checkpoint_that_fails_is_counted_and_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with primary(tmp_path, checkpoint_bytes=1) as node:
        await node.create("a")
        state = node.database.shards[node.registry._layout.shard_of("a")]
        with monkeypatch.context() as full_disk:
            full_disk.setattr(
                "agent_core.database.checkpoints.open_for_checkpoints",
                MagicMock(side_effect=DatabaseError("database or disk is full")),
            )
            failed = state.backlog.failed
            assert (await node.append("a", "one")).seq == 1
            await _until(lambda: state.backlog.failed > failed)
            assert (await node.append("a", "two")).seq == 2
            assert node.writer.failure is None
        node.writer.order_checkpoint(state.shard)
        await _until(lambda: state.backlog.pending_bytes == 0)


async def test_a_reader_that_stays_holds_up_no_append(tmp_path: Path) -> None:
    """SQLite's other checkpoints wait for readers, and every append of the group would wait with them."""
    async with primary(tmp_path, checkpoint_bytes=1) as node:
        await node.create("a")
        state = node.database.shards[node.registry._layout.shard_of("a")]
        with closing(open_for_reading(state.path)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT * FROM sessions").fetchall()
            async with asyncio.timeout(3):  # a connection waits for 5 s unless told otherwise
                for number in range(20):
                    await node.append("a", f"{number}")
            await _until(lambda: state.backlog.blocked > 0)
        node.writer.order_checkpoint(state.shard)
        await _until(lambda: state.backlog.pending_bytes == 0)


async def test_a_writer_whose_look_for_expired_writes_fails_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without it a caller whose quorum does not come would wait for ever."""
    async with primary(tmp_path) as node:
        odd = MagicMock(side_effect=[ValueError("an odd value"), []])
        with monkeypatch.context() as broken:
            broken.setattr(Accumulator, "take_expired", odd)
            await node.create("a")
            await _until(lambda: node.writer.failure is not None)
        assert node.writer.failure == "the group writer failed: ValueError: an odd value"
