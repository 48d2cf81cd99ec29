"""A resync that the quorum needs brings what is not committed yet: it stays beside the shard until it is."""

import asyncio

import pytest

from agent_core.database.build import PAGE_SIZE
from agent_core.errors import ShardDamaged
from agent_core.position import START, Position
from replica.receiving import Reset
from replica.resync_orders import Resynced
from replica.staging import STAGED_SUFFIX
from replica.standby_group import StandbyGroup
from tests.unit.shard_histories import SHARD, pages_of
from tests.unit.standby_harness import CODEC, GROUP, Standby
from tests.waiting import until


async def staged(standby: Standby, *, applied: int = 2, ahead: int = 2) -> StandbyGroup:
    """A standby that applied so many transactions, and then was resynced with so many more, not committed."""
    group = await standby.open()
    for _ in range(applied - 1):
        standby.history.fill(3)
    standby.receive()
    group.commit(applied)
    await until(lambda: group.applied.lsn == applied)
    for _ in range(ahead):
        standby.history.fill(3)
    standby.quorum_needs_it = True
    await group.resync([SHARD])
    return group


def shard_pages(standby: Standby) -> bytes:
    return pages_of(standby.shard_path)


async def test_pages_that_are_not_committed_do_not_reach_the_shard_file(standby: Standby) -> None:
    group = await staged(standby)
    applier = group.appliers[SHARD]
    assert (applier.applied, applier.holds) == (Position(1, 2), Position(1, 4))
    assert not standby.is_equal()
    assert group.awaits_commit == {SHARD: Position(1, 4)}
    standby.receive()
    # Everything is acknowledged, which is what brings the commit about.
    assert (group.unfit_shards(), group.acknowledgeable(4)) == ({}, 4)
    group.commit(3)
    assert (applier.applied, group.applied) == (Position(1, 2), Position(1, 2))
    group.commit(4)
    await until(lambda: group.applied == Position(1, 4))
    assert group.awaits_commit == {}
    assert standby.is_equal()
    assert list(standby.shard_path.parent.glob(f"*{STAGED_SUFFIX}")) == []


async def test_the_committed_lsn_alone_installs_nothing_before_the_log_is_there(standby: Standby) -> None:
    group = await staged(standby)
    group.commit(4)  # the primary's, while the records are still on their way
    assert group.committed_lsn == 2
    assert group.appliers[SHARD].staged is not None
    standby.receive()
    group.commit(4)
    await until(lambda: group.applied == Position(1, 4))


@pytest.mark.parametrize("logged", [True, False])
async def test_what_is_staged_outlives_the_process(standby: Standby, logged: bool) -> None:
    group = await staged(standby)
    before = shard_pages(standby)
    if logged:
        standby.receive()
    await standby.close()
    assert shard_pages(standby) == before
    group = await standby.open()
    assert group.appliers[SHARD].holds == Position(1, 4)
    # Past the log's end this process cannot know whose history it is: it asks for another resync.
    assert (SHARD in group.unfit_shards()) is not logged
    if not logged:
        await group.resync([SHARD])
        standby.receive()
    assert group.acknowledgeable(4) == 4
    assert shard_pages(standby) == before
    group.commit(4)
    await until(lambda: group.applied == Position(1, 4))
    assert standby.is_equal()


async def test_what_another_history_has_overtaken_is_never_installed(standby: Standby) -> None:
    group = await staged(standby)
    standby.receive()
    await standby.close()
    standby.log.cut_back(Position(1, 3))
    group = await standby.open()
    record = standby.history.records[3]._replace(group=GROUP, position=Position(2, 4))
    standby.log.append(CODEC.encode(record))
    group.begin_stream(2)
    group.commit(4)
    assert "contains 1:4" in group.unfit_shards()[SHARD]
    assert group.acknowledgeable(4) == 0
    await asyncio.sleep(0)
    assert group.appliers[SHARD].applied == Position(1, 2)
    assert not group.complete


async def test_a_candidate_installs_what_its_log_leads_to(standby: Standby) -> None:
    group = await staged(standby)
    standby.receive()
    assert group.complete
    assert await group.bring_up() == frozenset()
    assert group.applied == Position(1, 4)
    assert standby.is_equal()


async def test_a_primary_that_was_resynced_past_its_log_in_an_epoch_resets_the_shard(standby: Standby) -> None:
    """As if it had committed it itself: the log may lack what nobody was told of."""
    group = await staged(standby)
    assert group.complete
    assert await group.bring_up() == {SHARD}
    assert standby.is_equal()


async def test_who_holds_what_its_log_does_not_lead_to_does_not_stand_for_election(standby: Standby) -> None:
    group = await standby.open()
    standby.receive()
    group.begin_stream(2)
    standby.history.records[-1] = standby.history.records[-1]._replace(position=Position(2, 1))
    standby.quorum_needs_it = True
    standby.history.commit("UPDATE replication SET epoch = 2", "CREATE TABLE other (a)")
    standby.history.connection.execute("UPDATE replication SET epoch = 2")
    await group.resync([SHARD])
    assert group.appliers[SHARD].holds == Position(2, 2)
    assert group.unfit_shards() == {}
    assert not group.complete


async def test_a_reset_shard_is_installed_when_its_reset_is_committed(
    standby: Standby, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("replica.reset_patience.RESET_PATIENCE_SECONDS", 0.01)
    group = await standby.open()
    standby.history.fill(2)
    standby.receive()
    group.commit(2)
    await until(lambda: group.applied.lsn == 2)
    standby.quorum_needs_it = True
    lsn = standby.reset_shard()
    group.expect_resets([Reset(SHARD, lsn)])
    standby.receive()
    assert group.acknowledgeable(lsn + 1) == lsn
    await until(lambda: group.acknowledgeable(lsn + 1) == lsn + 1)
    assert group.appliers[SHARD].applied == Position(1, 2)
    await standby.close()
    group = await standby.open()
    assert group.needs_resync == {}
    group.commit(lsn)
    await until(lambda: group.applied.lsn == lsn)
    assert standby.is_equal()


async def test_a_log_begun_anew_tells_no_position_before_every_shard_has_it(standby: Standby) -> None:
    group = await standby.open()
    for _ in range(5):
        standby.history.fill(2)
    standby.quorum_needs_it = True
    told: list[Position] = []
    group.on_applied(told.append)
    await group.begin_anew(Position(1, 4))
    assert (standby.log.last, group.visible, told) == (Position(1, 4), START, [])
    for record in standby.history.records[4:]:
        standby.log.append(CODEC.encode(record._replace(group=GROUP)))
    assert group.acknowledgeable(6) == 6
    await standby.close()
    group = await standby.open()
    assert group.visible == START
    group.on_applied(told.append)
    group.commit(6)
    await until(lambda: group.applied == Position(1, 6))
    assert told[-1] == Position(1, 6)
    assert standby.is_equal()


async def test_an_ordered_resync_is_done_when_it_is_installed(standby: Standby) -> None:
    group = await staged(standby)
    standby.receive()
    order = asyncio.create_task(group.order_resync(SHARD))
    await asyncio.sleep(0)
    assert not order.done()
    assert group.unfit_shards() == {}
    group.commit(4)
    assert await order == Resynced(Position(1, 4), group.counters.resync_pages)
    assert standby.is_equal()


@pytest.mark.parametrize("where", ["header", "block", "end"])
async def test_staged_pages_that_rot_are_fetched_again(standby: Standby, where: str) -> None:
    group = await staged(standby)
    standby.receive()
    await standby.close()
    path = standby.shard_path.with_name(standby.shard_path.name + STAGED_SUFFIX)
    data = bytearray(path.read_bytes())
    if where == "end":
        del data[-PAGE_SIZE:]
    else:
        data[20 if where == "header" else 5000] ^= 1
    path.write_bytes(data)
    group = await standby.open()
    standby.quorum_needs_it = False
    if where == "header":
        assert "contradicts its checksum" in group.unfit_shards()[SHARD]
        await group.resync([SHARD])
    group.commit(4)
    await until(lambda: group.applied == Position(1, 4))
    assert standby.is_equal()
    assert not path.exists()
    assert group.unfit_shards() == {}


async def test_staged_pages_are_not_installed_into_a_shard_that_has_changed(standby: Standby) -> None:
    group = await standby.open()
    await standby.close()
    older = standby.shard_path.read_bytes()
    group = await staged(standby)
    standby.receive()
    await standby.close()
    standby.shard_path.write_bytes(older)
    group = await standby.open()
    with pytest.raises(ShardDamaged, match="another state"):
        await group._thread.run(group.appliers[SHARD].install_staged)
    assert SHARD in group.unfit_shards()
    standby.quorum_needs_it = False
    await group.resync([SHARD])
    assert standby.is_equal()
