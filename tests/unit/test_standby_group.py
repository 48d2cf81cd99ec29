"""A standby's shards of one group, with real SQLite files, a real log and a real resync, without a network."""

import asyncio
import threading
from unittest.mock import MagicMock

import pytest

from agent_core.database.build import DatabaseError
from agent_core.log.record import Record, RecordKind
from agent_core.position import START, Position
from replica.group_shards import Keeping
from tests.unit.shard_histories import SHARD
from tests.unit.standby_harness import CODEC, GROUP, Standby
from tests.waiting import until


async def test_only_what_is_committed_is_applied(standby: Standby) -> None:
    group = await standby.open()
    for _ in range(5):
        standby.history.fill(2)
    standby.receive()
    group.commit(3)
    await until(lambda: group.applied == Position(1, 3))
    applier = group.appliers[SHARD]
    assert applier.applied == Position(1, 3)
    group.commit(6)
    await until(lambda: group.applied == Position(1, 6))
    assert standby.is_equal()


async def test_waiting_transactions_of_a_shard_merge_into_one(standby: Standby) -> None:
    group = await standby.open()
    for _ in range(7):
        standby.history.fill(1)
    standby.receive()
    group.commit(8)
    await until(lambda: group.applied == Position(1, 8))
    assert (group.appliers[SHARD].transactions_applied, group.appliers[SHARD].commits) == (8, 1)


async def test_what_is_committed_ahead_of_the_log_is_applied_when_it_arrives(standby: Standby) -> None:
    group = await standby.open()
    group.commit(2)
    assert group.committed_lsn == 0
    standby.history.fill(2)
    standby.receive()
    group.commit(2)
    await until(lambda: group.applied == Position(1, 2))


async def test_whoever_listens_hears_of_each_applied_position(standby: Standby) -> None:
    group = await standby.open()
    heard: list[Position] = []
    group.on_applied(heard.append)
    standby.receive()
    group.commit(1)
    await until(lambda: heard == [Position(1, 1)])


async def test_after_a_restart_the_applied_position_is_known_without_the_primary(standby: Standby) -> None:
    group = await standby.open()
    for _ in range(3):
        standby.history.fill(2)
    standby.receive()
    group.commit(3)
    await until(lambda: group.applied == Position(1, 3))
    await standby.close()
    group = await standby.open()
    assert group.applied == Position(1, 3)
    assert group.committed_lsn == 3


async def test_what_a_primary_left_without_a_quorum_is_not_visible_once_it_follows(standby: Standby) -> None:
    for _ in range(3):
        standby.history.fill(2)
    standby.receive()
    last = standby.log.last
    before_it = last._replace(lsn=last.lsn - 1)
    group = await standby.open()
    group.commit(before_it.lsn)
    await group.bring_up()
    assert (group.applied, group.visible) == (last, before_it)
    await standby.close()
    group = await standby.open()
    assert (group.applied, group.visible) == (last, before_it)
    told: list[Position] = []
    group.on_applied(told.append)
    group.commit(last.lsn)
    assert told[-1] == group.visible == last


async def test_a_candidate_that_applies_what_is_not_committed_shows_none_of_it(standby: Standby) -> None:
    for _ in range(3):
        standby.history.fill(2)
    standby.receive()
    group = await standby.open()
    told: list[Position] = []
    group.on_applied(told.append)
    await group.bring_up()
    assert group.applied == standby.log.last
    assert max(told, default=START) == START


async def test_a_shard_that_lost_its_last_transactions_is_replayed_from_the_log(standby: Standby) -> None:
    group = await standby.open()
    standby.history.fill(2)
    standby.receive()
    group.commit(1)
    await until(lambda: group.applied == Position(1, 1))
    await standby.close()
    older = standby.shard_path.read_bytes()
    group = await standby.open()
    group.commit(2)
    await until(lambda: group.applied == Position(1, 2))
    await standby.close()
    standby.shard_path.write_bytes(older)
    group = await standby.open()
    assert group.applied == Position(1, 1)
    group.commit(2)
    await until(lambda: group.applied == Position(1, 2))
    assert standby.is_equal()


async def test_who_is_told_to_end_while_the_log_is_cut_waits_for_that_and_keeps_count(
    standby: Standby, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a candidate would name a log's end that is still being cut, and later records would not be applied."""
    group = await standby.open()
    for _ in range(3):
        standby.history.fill(2)
    standby.receive()
    group.commit(2)
    await until(lambda: group.applied == Position(1, 2))
    begun, may_end, cut = threading.Event(), threading.Event(), standby.log.cut_back

    def cut_slowly(to: Position) -> None:
        begun.set()
        assert may_end.wait(10)
        cut(to)

    monkeypatch.setattr(standby.log, "cut_back", cut_slowly)
    cutting = asyncio.create_task(group.cut_back(Position(1, 1)))
    await until(begun.is_set)
    cutting.cancel()
    for _ in range(10):
        await asyncio.sleep(0)
    assert not cutting.done()
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await cutting
    assert standby.log.last == group.applied == Position(1, 1)


async def test_applying_goes_on_after_any_error(standby: Standby, monkeypatch: pytest.MonkeyPatch) -> None:
    group = await standby.open()
    standby.history.fill(2)
    standby.receive()
    with monkeypatch.context() as broken:
        broken.setattr(group._thread.owned, "apply", MagicMock(side_effect=DatabaseError("disk is full")))
        group.commit(2)
        await until(lambda: group.trouble == "Error: disk is full")
    await until(lambda: group.applied == Position(1, 2))
    assert group.trouble is None


async def applied_and_closed(standby: Standby, transactions: int) -> Position:
    """Where the log and its shard end."""
    group = await standby.open()
    for _ in range(transactions):
        standby.history.fill(2)
    standby.receive()
    group.commit(standby.log.last.lsn)
    await until(lambda: group.applied == standby.log.last)
    await standby.close()
    return standby.log.last


async def test_what_the_shards_are_known_to_contain_is_not_looked_through_again(
    standby: Standby, monkeypatch: pytest.MonkeyPatch
) -> None:
    end = await applied_and_closed(standby, 5)
    read = MagicMock(wraps=standby.log.read)
    monkeypatch.setattr(standby.log, "read", read)
    group = await standby.open(contained=end)
    assert group.applied == end
    assert [call.args[0] for call in read.call_args_list] == [end.lsn]


async def test_what_lies_behind_that_is_looked_through(standby: Standby) -> None:
    end = await applied_and_closed(standby, 5)
    standby.history.fill(2)
    reset_lsn = standby.reset_shard()
    standby.receive()
    group = await standby.open(contained=end)
    assert group.applied == end
    assert group.needs_resync == {SHARD: f"record {reset_lsn} resets it"}


@pytest.mark.parametrize("content", [None, b"no database"], ids=["missing", "damaged"])
async def test_a_shard_that_was_lost_since_contains_nothing(standby: Standby, content: bytes | None) -> None:
    end = await applied_and_closed(standby, 5)
    standby.shard_path.unlink()
    if content is not None:
        standby.shard_path.write_bytes(content)
    group = await standby.open(contained=end)
    assert group.applied == standby.log.base


async def test_applied_log_is_dropped_down_to_what_is_kept_for_others(
    standby: Standby, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("replica.standby_group.TIDY_EVERY_BYTES", 50_000)
    group = await standby.open(Keeping(checkpoint_bytes=1 << 30, log_bytes=300_000))

    async def go_on() -> None:
        lsn = standby.history.fill(10).position.lsn
        standby.receive()
        group.commit(lsn)
        await until(lambda: group.applied.lsn == lsn)

    for _ in range(40):
        await go_on()
    assert standby.log.base > START
    async with asyncio.timeout(10):
        while standby.log.size_bytes > 300_000 + 2 * 100_000:  # a checkpoint is still under way
            await go_on()
    assert standby.log.size_bytes >= 300_000
    await standby.close()
    assert standby.is_equal()


async def test_a_wal_that_has_grown_is_checkpointed(standby: Standby) -> None:
    group = await standby.open(Keeping(checkpoint_bytes=100_000))
    for _ in range(10):
        lsn = standby.history.fill(10).position.lsn
        standby.receive()
        group.commit(lsn)
    await until(lambda: group.applied.lsn == 11 and group.appliers[SHARD].backlog.completed > 0)
    await standby.close()
    assert standby.is_equal()


async def test_what_a_standby_missed_of_an_earlier_epoch_is_not_lost(standby: Standby) -> None:
    group = await standby.open()
    group.begin_stream(3)
    assert group.is_lost(Position(1, 2))  # nothing tells yet that it will come …
    assert not group.never_comes(Position(1, 2))  # … nor that it will not
    standby.history.fill(2)
    standby.receive()
    assert not group.is_lost(Position(1, 2))
    assert not group.is_lost(Position(3, 3))


async def test_what_was_cut_from_the_log_is_lost(standby: Standby) -> None:
    group = await standby.open()
    standby.history.fill(2)
    standby.history.fill(2)
    standby.receive()
    group.begin_stream(3)
    await group.cut_back(Position(1, 2))
    assert group.is_lost(Position(1, 3))
    assert not group.is_lost(Position(1, 2))
    standby.log.append(CODEC.encode(Record(RecordKind.EPOCH, GROUP, 0, Position(3, 3), 0, 0, b"")))
    assert group.is_lost(Position(1, 3))
    assert group.never_comes(Position(1, 3))
    assert not group.never_comes(Position(1, 2))


async def test_a_log_that_has_to_begin_anew_tells_only_what_is_committed(standby: Standby) -> None:
    group = await standby.open()
    for _ in range(5):
        standby.history.fill(2)
    standby.receive()
    group.commit(2)
    await until(lambda: group.applied == Position(1, 2))
    group.begin_stream(3, resync_required=True)
    assert not group.is_lost(Position(1, 2))
    assert group.is_lost(Position(1, 4))
    await group.begin_anew(Position(1, 5))
    assert not group.is_lost(Position(1, 4))
