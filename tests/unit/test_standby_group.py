"""A standby's shards of one group, with real SQLite files, a real log and a real resync, without a network."""

import asyncio
import gc
import os
import threading
from dataclasses import replace
from typing import Any
from unittest.mock import MagicMock

import pytest

from agent_core.database.build import PAGE_SIZE, DatabaseError
from agent_core.errors import Unavailable
from agent_core.log.record import Record, RecordKind
from agent_core.position import START, Position
from replica.group_shards import Keeping
from replica.receiving import Reset
from replica.resync_orders import Resynced
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


async def test_nothing_past_a_reset_is_acknowledged_until_its_shard_is_resynced(standby: Standby) -> None:
    group = await standby.open()
    standby.history.fill(2)
    lsn = standby.reset_shard()
    standby.history.fill(2)
    group.expect_resets([Reset(SHARD, lsn)])
    standby.receive()
    assert group.acknowledgeable(4) == lsn == 3
    standby.source_is_up = False
    group.commit(3)
    await until(lambda: group.trouble == "the primary is down")
    assert group.applied == Position(1, 2)
    assert group.acknowledgeable(4) <= 3
    standby.source_is_up = True
    await until(lambda: group.applied == Position(1, 3))
    assert group.acknowledgeable(4) == 4
    assert group.needs_resync == {}
    assert group.counters.resyncs == 1
    group.commit(4)
    await until(lambda: group.applied == Position(1, 4))
    assert standby.is_equal()
    assert group.trouble is None


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


async def test_a_reset_in_the_log_is_remembered_over_a_restart(standby: Standby) -> None:
    await standby.open()
    lsn = standby.reset_shard()
    standby.history.fill(2)
    standby.receive()
    await standby.close()
    group = await standby.open()
    assert group.acknowledgeable(3) == lsn


async def test_a_shard_ahead_of_the_log_is_unfit_until_it_is_resynced(standby: Standby) -> None:
    group = await standby.open()
    for _ in range(3):
        standby.history.fill(2)
    standby.receive()
    group.commit(4)
    await until(lambda: group.applied == Position(1, 4))
    await standby.close()
    standby.log.cut_back(Position(1, 2))
    group = await standby.open()
    assert "contains 1:4" in group.unfit_shards()[SHARD]
    assert group.acknowledgeable(2) == 0
    await group.resync([SHARD])
    assert group.unfit_shards() == {}
    assert group.acknowledgeable(2) == 2
    # Another primary may not have what was fetched from the first one.
    group.begin_stream(2)
    assert SHARD in group.unfit_shards()


async def test_a_cut_takes_back_the_applied_position_and_forgets_resets_beyond_it(standby: Standby) -> None:
    group = await standby.open()
    standby.history.fill(2)
    lsn = standby.reset_shard()
    group.expect_resets([Reset(SHARD, lsn)])
    standby.receive()
    await group.cut_back(Position(1, 2))
    assert standby.log.last == Position(1, 2)
    assert group.acknowledgeable(2) == 2
    assert group.needs_resync == {}


async def test_a_reset_that_could_not_be_appended_is_not_waited_for_in_the_next_stream(standby: Standby) -> None:
    group = await standby.open()
    standby.history.fill(2)
    standby.receive()
    group.expect_resets([Reset(SHARD, 3)])
    group.begin_stream(2)
    assert group.needs_resync == {}
    assert group.acknowledgeable(9) == 9


async def test_a_log_begun_anew_follows_a_resync_of_every_shard(standby: Standby) -> None:
    group = await standby.open()
    for _ in range(5):
        standby.history.fill(2)
    await group.begin_anew(Position(1, 4))
    assert standby.is_equal()
    assert (standby.log.base, standby.log.last, group.applied) == (Position(1, 4),) * 3
    assert group.unfit_shards() == {}
    for record in standby.history.records[4:]:
        standby.log.append(CODEC.encode(replace(record, group=GROUP)))
    group.commit(6)
    await until(lambda: group.applied == Position(1, 6))
    assert group.appliers[SHARD].transactions_applied == 0


async def test_a_resync_that_fails_leaves_the_log_as_it_was(standby: Standby) -> None:
    group = await standby.open()
    standby.receive()
    standby.source_is_up = False
    with pytest.raises(Unavailable):
        await group.begin_anew(Position(1, 4))
    assert standby.log.last == Position(1, 1)
    assert group.acknowledgeable(1) == 0


async def test_a_damaged_shard_is_unfit_and_repaired_by_a_resync(standby: Standby) -> None:
    group = await standby.open()
    standby.history.fill(20)
    standby.receive()
    group.commit(2)
    await until(lambda: group.applied == Position(1, 2))
    await standby.close()
    data = bytearray(standby.shard_path.read_bytes())
    data[PAGE_SIZE : 8 * PAGE_SIZE] = os.urandom(7 * PAGE_SIZE)
    standby.shard_path.write_bytes(data)
    group = await standby.open()
    unfit = group.unfit_shards()
    assert SHARD in unfit
    await group.resync(unfit)
    assert standby.is_equal()
    assert group.unfit_shards() == {}


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


async def test_a_shard_that_is_missing_is_replayed_only_if_the_log_begins_at_the_beginning(
    standby: Standby,
) -> None:
    group = await standby.open()
    assert group.unfit_shards() == {}
    await standby.close()
    standby.log.reset(Position(1, 4))
    group = await standby.open()
    assert "holds nothing" in group.unfit_shards()[SHARD]


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


async def test_an_ordered_resync_holds_acknowledgements_until_it_is_done(standby: Standby) -> None:
    group = await standby.open()
    standby.history.fill(30)
    standby.receive()
    group.commit(2)
    await until(lambda: group.applied == Position(1, 2))
    heard: list[str] = []
    group.on_resync_ordered(lambda: heard.append("make way"))
    order = asyncio.create_task(group.order_resync(SHARD))
    await until(lambda: heard)
    assert group.acknowledgeable(2) == 0
    assert group.unfit_shards() == {SHARD: "an operator ordered its resync"}
    standby.source_is_up = False
    with pytest.raises(Unavailable):
        await group.resync([SHARD])
    assert SHARD in group.unfit_shards()
    standby.source_is_up = True
    await group.resync(group.unfit_shards())
    assert await order == Resynced(Position(1, 2), 0)
    assert (group.unfit_shards(), group.acknowledgeable(2), group.needs_resync) == ({}, 2, {})


async def test_whoever_stops_waiting_for_an_ordered_resync_does_not_call_it_off(standby: Standby) -> None:
    group = await standby.open()
    standby.history.fill(3)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await group.order_resync(SHARD)
    assert SHARD in group.unfit_shards()


async def test_whoever_waits_for_an_ordered_resync_is_told_that_its_node_follows_no_more(standby: Standby) -> None:
    """One that orders it just after that too. A bare cancellation would end an operator's call without a word."""
    group = await standby.open()
    order = asyncio.create_task(group.order_resync(SHARD))
    await until(group.unfit_shards)
    await standby.close()
    for ordered in (order, group.order_resync(SHARD)):
        with pytest.raises(Unavailable, match="no longer follows the group; the shard was not resynced"):
            async with asyncio.timeout(2):
                await ordered


async def test_that_nobody_waits_any_more_for_a_resync_that_will_not_come_is_no_error(standby: Standby) -> None:
    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    group = await standby.open()
    order = asyncio.create_task(group.order_resync(SHARD))
    await until(group.unfit_shards)
    order.cancel()
    await asyncio.wait([order])
    await standby.close()
    del group
    gc.collect()
    assert reported == []


async def test_what_a_resync_brings_is_told_as_committed_once_it_is(
    standby: Standby, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Position] = []
    committed = asyncio.Event()

    async def wait_committed(_: int) -> None:
        await committed.wait()

    monkeypatch.setattr(standby.source, "_wait_committed", wait_committed)
    group = await standby.open()
    group.on_committed(told.append)
    standby.history.fill(2)
    resync = asyncio.create_task(group.resync([SHARD]))
    await until(lambda: standby.source.active)
    assert told == []
    committed.set()
    await resync
    assert (group.appliers[SHARD].applied, told) == (standby.history.position, [standby.history.position])


async def test_a_reset_that_a_resync_has_brought_along_demands_nothing(standby: Standby) -> None:
    """A shard that was ahead of the log is resynced before the record that resets it arrives."""
    group = await standby.open()
    standby.history.fill(2)
    standby.receive()
    lsn = standby.reset_shard()
    await group.resync([SHARD])
    group.expect_resets([Reset(SHARD, lsn)])
    standby.receive()
    assert group.acknowledgeable(lsn + 5) == lsn + 5
    assert group.needs_resync == {}


async def test_a_reset_that_stays_uncommitted_is_resynced_all_the_same(
    standby: Standby, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another epoch may have been opened behind it, which is not committed before this node acknowledges it."""
    monkeypatch.setattr("replica.reset_patience.RESET_PATIENCE_SECONDS", 0.01)
    group = await standby.open()
    standby.history.fill(2)
    lsn = standby.reset_shard()
    group.expect_resets([Reset(SHARD, lsn)])
    standby.receive()
    assert group.acknowledgeable(lsn + 1) == lsn
    await until(lambda: group.acknowledgeable(lsn + 1) == lsn + 1)
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
