"""When a standby of a group resyncs its shards, and what it acknowledges and shows until then."""

from __future__ import annotations

import asyncio
import gc
import os
from typing import Any

import pytest

from agent_core.database.build import PAGE_SIZE
from agent_core.errors import Unavailable
from agent_core.position import Position
from replica.receiving import Reset
from replica.resync_orders import Resynced
from tests.unit.shard_histories import SHARD
from tests.unit.standby_harness import CODEC, GROUP, Standby
from tests.waiting import until


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
        standby.log.append(CODEC.encode(record._replace(group=GROUP)))
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


async def test_a_shard_that_is_missing_is_replayed_only_if_the_log_begins_at_the_beginning(
    standby: Standby,
) -> None:
    group = await standby.open()
    assert group.unfit_shards() == {}
    await standby.close()
    standby.log.reset(Position(1, 4))
    group = await standby.open()
    assert "holds nothing" in group.unfit_shards()[SHARD]


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
