import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import pytest

from agent_core.errors import Unavailable
from agent_core.log.record import RecordKind
from agent_core.log.retention import StandbyNeed
from agent_core.log.segment import Segment, SegmentHeader
from agent_core.position import START, Position
from agent_core.quorum import Acknowledgement
from agent_core.routing import ShardLayout
from agent_core.rpc import replication_pb2 as pb
from agent_core.stream import to_message
from primary.progress import StandbyState
from primary.streaming import StreamSettings
from replica.following import FollowerState
from replica.receiving import RefusalReason
from tests.integration.stream_harness import CLUSTER, SETTINGS, PrimarySide, Tamper, Wire, content, same
from tests.waiting import until

SMALL_MESSAGES = StreamSettings(message_bytes=1000)


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    async with AsyncExitStack() as stack:
        yield Wire(stack)


def noise(size: int) -> bytes:
    return os.urandom(size)


async def test_a_standby_follows_acknowledges_and_applies_what_is_committed(wire: Wire, tmp_path: Path) -> None:
    primary, stub = await wire.primary(tmp_path / "a")
    standby = wire.standby(tmp_path / "b", stub)
    for _ in range(50):
        primary.append([noise(300) for _ in range(14)])
    await until(lambda: same(primary, standby) and standby.shards.applied.lsn == primary.log.last.lsn)
    assert content(standby.log) == content(primary.log)
    assert primary.tracker.committed_lsn == primary.log.last.lsn
    assert standby.follower.state is FollowerState.FOLLOWING
    await until(lambda: primary.streams.progress["standby"].applied_lsn == primary.log.last.lsn)
    assert primary.streams.lag("standby").seconds == 0.0
    await until(lambda: standby.follower.lag().transactions == 0)
    assert standby.refusals == {}


async def test_a_standby_that_was_away_goes_on_from_its_own_end(wire: Wire, tmp_path: Path) -> None:
    primary, stub = await wire.primary(tmp_path / "a")
    standby = wire.standby(tmp_path / "b", stub)
    primary.append([noise(500)] * 5)
    await until(lambda: same(primary, standby))
    await standby.stop()
    await until(lambda: primary.streams.progress["standby"].state is StandbyState.GONE)
    primary.append([noise(500) for _ in range(20)])
    before = primary.streams.counters.record_bytes
    standby.start()
    await until(lambda: same(primary, standby))
    assert primary.streams.counters.record_bytes - before == primary.log.bytes_after(6)


async def test_the_event_loop_goes_on_while_a_standby_begins_a_segment_of_its_log(
    wire: Wire, tmp_path: Path
) -> None:
    """That syncs the one before, allocates a file and syncs its directory."""
    primary, stub = await wire.primary(tmp_path / "a")
    standby = wire.standby(tmp_path / "b", stub)
    await until(lambda: same(primary, standby))
    begins, may_begin = threading.Event(), threading.Event()
    went_on: list[bool] = []
    begin_segment = standby.log._begin_segment

    def begin_slowly(header: SegmentHeader, *, file_bytes: int, origin: int) -> Segment:
        begins.set()
        went_on.append(may_begin.wait(2))
        return begin_segment(header, file_bytes=file_bytes, origin=origin)

    standby.log._begin_segment = begin_slowly  # type: ignore[method-assign]  # a slow disk
    for _ in range(25):
        primary.append([noise(50_000)])
    await until(begins.is_set)
    may_begin.set()
    await until(lambda: same(primary, standby))
    assert went_on == [True]
    assert content(standby.log) == content(primary.log)


async def test_an_idle_stream_carries_heartbeats(wire: Wire, tmp_path: Path) -> None:
    primary, stub = await wire.primary(tmp_path / "a", settings=StreamSettings(heartbeat_seconds=0.01))
    standby = wire.standby(tmp_path / "b", stub)
    await until(lambda: standby.follower.counters.messages > 10)
    assert standby.follower.silent_seconds is not None
    assert primary.streams.counters.streams == 1


async def test_a_raised_committed_lsn_goes_out_at_once(wire: Wire, tmp_path: Path) -> None:
    primary, stub = await wire.primary(tmp_path / "a", settings=StreamSettings(heartbeat_seconds=30))
    standby = wire.standby(tmp_path / "b", stub)
    standby.shards.may_acknowledge = False
    await until(lambda: same(primary, standby))
    assert standby.shards.applied == START
    primary.tracker.durable("third", primary.log.last.lsn)
    primary.streams.doorbell.ring()
    await until(lambda: standby.shards.applied == primary.log.last, seconds=1)


def more_messages_than(primary: PrimarySide, count: int) -> bool:
    return primary.streams.counters.messages > count


def once(change: Tamper) -> Tamper:
    """Apply `change` to the first message with records (or a part), and leave all others alone."""
    done = False

    def tamper(message: pb.FromPrimary) -> list[pb.FromPrimary]:
        nonlocal done
        if done or not (message.records.records or message.HasField("part")):
            return [message]
        done = True
        return change(message)

    return tamper


def overwrite_a_byte(message: pb.FromPrimary) -> list[pb.FromPrimary]:
    records = bytearray(message.records.records)
    records[-5] ^= 0xFF
    message.records.records = bytes(records)
    return [message]


def replay(message: pb.FromPrimary) -> list[pb.FromPrimary]:
    return [message, message]


def leave_out(_message: pb.FromPrimary) -> list[pb.FromPrimary]:
    return []


def from_a_lower_epoch(message: pb.FromPrimary) -> list[pb.FromPrimary]:
    message.records.epoch -= 1
    return [message]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (overwrite_a_byte, RefusalReason.BAD_CHECKSUM),
        (replay, RefusalReason.REPEATED),
        (leave_out, RefusalReason.OUT_OF_ORDER),
        (from_a_lower_epoch, RefusalReason.LOWER_EPOCH),
    ],
)
async def test_what_the_wire_does_to_a_message_is_refused_counted_and_repaired(
    wire: Wire, tmp_path: Path, change: Tamper, reason: RefusalReason
) -> None:
    primary, direct = await wire.primary(tmp_path / "a", epoch=5)
    between, stub = await wire.between(direct)
    standby = wire.standby(tmp_path / "b", stub)
    await until(lambda: same(primary, standby))
    between.tamper = once(change)
    for _ in range(4):
        sent = primary.streams.counters.messages
        primary.append([noise(200), noise(200)])
        await until(partial(more_messages_than, primary, sent))
    await until(lambda: same(primary, standby))
    assert standby.refusals == {reason: 1}
    assert content(standby.log) == content(primary.log)
    assert primary.streams.counters.streams == 2


async def test_a_stream_cut_in_the_middle_of_a_record_in_parts_is_repaired(wire: Wire, tmp_path: Path) -> None:
    primary, direct = await wire.primary(tmp_path / "a", settings=SMALL_MESSAGES)
    between, stub = await wire.between(direct)
    parts = 0

    def cut(message: pb.FromPrimary) -> list[pb.FromPrimary]:
        nonlocal parts
        parts += message.HasField("part")
        if parts == 5:
            parts += 1
            raise ConnectionAbortedError
        return [message]

    between.tamper = cut
    standby = wire.standby(tmp_path / "b", stub)
    primary.append([noise(20_000)])
    await until(lambda: same(primary, standby))
    assert content(standby.log) == content(primary.log)
    assert primary.streams.counters.streams == 2


async def test_a_part_left_out_is_refused_counted_and_repaired(wire: Wire, tmp_path: Path) -> None:
    primary, direct = await wire.primary(tmp_path / "a", settings=SMALL_MESSAGES)
    between, stub = await wire.between(direct)
    standby = wire.standby(tmp_path / "b", stub)
    await until(lambda: same(primary, standby))
    between.tamper = once(leave_out)
    primary.append([noise(20_000)])
    await until(lambda: same(primary, standby))
    assert standby.refusals == {RefusalReason.OUT_OF_ORDER: 1}


async def test_no_more_than_a_window_is_sent_and_not_durable(wire: Wire, tmp_path: Path) -> None:
    window = 20_000
    primary, direct = await wire.primary(
        tmp_path / "a", settings=StreamSettings(window_bytes=window, message_bytes=4000)
    )
    between, stub = await wire.between(direct)
    standby = wire.standby(tmp_path / "b", stub)
    await until(lambda: primary.acknowledged and primary.acknowledged[-1] == 1)
    between.hold.clear()
    for _ in range(100):
        primary.append([noise(900)])
    progress = primary.streams.progress["standby"]
    await until(lambda: standby.log.last.lsn == progress.sent_lsn > 10)
    messages = standby.follower.counters.messages
    await until(lambda: standby.follower.counters.messages > messages + 2)
    assert 0 < progress.in_flight_bytes <= window
    assert progress.sent_lsn < primary.log.last.lsn
    assert standby.log.last.lsn == progress.sent_lsn
    between.hold.set()
    await until(lambda: same(primary, standby))
    await until(lambda: progress.in_flight_bytes == 0)


async def test_a_standby_that_the_log_no_longer_reaches_is_told_to_resync(wire: Wire, tmp_path: Path) -> None:
    primary, stub = await wire.primary(tmp_path / "a", segment_bytes=10_000)
    standby = wire.standby(tmp_path / "b", stub)
    await until(lambda: same(primary, standby))
    await standby.stop()
    primary.tracker.durable("third", primary.append([noise(900)]))
    for _ in range(40):
        primary.tracker.durable("third", primary.append([noise(900)]))
    primary.log.drop_through(30)
    assert primary.log.base.lsn > 2
    committed = Position(1, primary.tracker.committed_lsn)
    standby.start()
    await until(lambda: same(primary, standby))
    assert standby.shards.bases == [committed]
    primary.append([noise(900)])
    await until(lambda: same(primary, standby))
    assert standby.log.base == committed


@pytest.mark.parametrize("reached", [True, False])
async def test_what_a_standby_told_before_its_disk_was_replaced_counts_no_more_from_its_hello_on(
    wire: Wire, tmp_path: Path, *, reached: bool
) -> None:
    """It reports nothing before it has fetched something, and nothing at all during a whole resync."""
    primary, stub = await wire.primary(tmp_path / "a", segment_bytes=10_000)
    standby = wire.standby(tmp_path / "b", stub)
    last_lsn = primary.append([noise(900)] * 40)
    await until(lambda: same(primary, standby) and primary.tracker.committed_lsn == last_lsn)
    primary.tracker.durable("third", last_lsn)
    assert primary.tracker.safe_lsn(Acknowledgement.ALL) == last_lsn
    await standby.stop()
    if not reached:
        primary.append([noise(900)])
        primary.log.drop_through(30)
    call = stub.Stream()
    layout = primary.streams._identity.layout
    hello = pb.Hello(
        cluster_id=CLUSTER,
        node_id="standby",
        group=0,
        shard_count=layout.shard_count,
        shard_group_count=layout.shard_group_count,
    )
    await call.write(pb.FromStandby(hello=hello))
    welcome = await call.read()
    assert isinstance(welcome, pb.FromPrimary)
    assert welcome.welcome.resync_required is not reached
    assert primary.tracker.safe_lsn(Acknowledgement.ALL) == 0
    assert primary.tracker.committed_lsn == last_lsn
    call.cancel()


async def test_the_log_is_held_for_a_standby_that_resyncs(wire: Wire, tmp_path: Path) -> None:
    primary, stub = await wire.primary(tmp_path / "a", segment_bytes=10_000)
    for _ in range(40):
        primary.tracker.durable("third", primary.append([noise(900)]))
    primary.log.drop_through(30)
    standby = wire.standby(tmp_path / "b", stub, start=False)
    resync = asyncio.Event()
    begin_anew = standby.shards.begin_anew

    async def slow(base: Position) -> None:
        await resync.wait()
        await begin_anew(base)

    standby.shards.begin_anew = slow  # type: ignore[method-assign]  # a resync that takes its time
    standby.start()
    await until(lambda: standby.follower.state is FollowerState.RESYNCING)
    assert primary.streams.progress["standby"].state is StandbyState.RESYNCING
    assert primary.streams.holds() == [41]
    primary.append([noise(900)])
    resync.set()
    await until(lambda: same(primary, standby))
    await until(lambda: StandbyNeed(42, 0) in primary.streams.needs())
    assert primary.streams.holds() == []


async def test_a_log_dropped_under_a_stream_ends_it_and_leads_to_a_resync(wire: Wire, tmp_path: Path) -> None:
    primary, direct = await wire.primary(
        tmp_path / "a", segment_bytes=10_000, settings=StreamSettings(window_bytes=5000, message_bytes=2000)
    )
    between, stub = await wire.between(direct)
    standby = wire.standby(tmp_path / "b", stub)
    await until(lambda: same(primary, standby))
    between.hold.clear()
    for _ in range(60):
        primary.tracker.durable("third", primary.append([noise(900)]))
    primary.log.drop_through(50)
    between.hold.set()
    await until(lambda: same(primary, standby))
    assert standby.shards.bases == [Position(1, 61)]


async def test_a_standby_that_went_another_way_is_cut_back_to_the_shared_point(wire: Wire, tmp_path: Path) -> None:
    older, _ = await wire.primary(tmp_path / "a", epoch=1)
    older.append([noise(100)] * 4)
    shared = content(older.log)
    older.append([noise(100)] * 3)
    newer, stub = await wire.primary(tmp_path / "b", epoch=3, holds=shared)
    newer.append([noise(100)] * 2)
    standby = wire.standby(tmp_path / "c", stub, start=False)
    standby.log.append(content(older.log))
    standby.start()
    await until(lambda: same(newer, standby))
    assert content(standby.log) == content(newer.log)
    assert newer.log.epochs.starts == ((1, 1), (3, 6))
    assert standby.follower.counters.cuts == 1
    assert standby.promises.promise.epoch == 3


async def test_what_is_committed_is_never_cut_away(wire: Wire, tmp_path: Path) -> None:
    primary, stub = await wire.primary(tmp_path / "a")
    standby = wire.standby(tmp_path / "b", stub)
    primary.append([noise(100)] * 4)
    await until(lambda: standby.shards.committed_lsn == 5)
    _, empty = await wire.primary(tmp_path / "c", epoch=2)
    standby.primary = empty
    await primary.streams.close(Unavailable("another node leads now"))
    await until(lambda: standby.follower.state is FollowerState.DIVERGED)
    assert "lsn 5 is committed here" in (standby.follower.reason or "")
    assert standby.log.last == Position(1, 5)


async def test_a_primary_below_the_promised_epoch_is_deposed(wire: Wire, tmp_path: Path) -> None:
    primary, stub = await wire.primary(tmp_path / "a")
    standby = wire.standby(tmp_path / "b", stub)
    await until(lambda: same(primary, standby))
    request = pb.SealRequest(
        cluster_id=CLUSTER, group=0, epoch=9, candidate="third", last=to_message(standby.log.last)
    )
    answer = await standby.voter.seal(request)
    assert answer.sealed
    primary.append([noise(100)])
    await until(lambda: primary.fenced_by)
    assert primary.fenced_by[0] == 9
    await until(lambda: "9 is promised" in (standby.follower.reason or ""))
    assert max(primary.acknowledged) <= 1
    assert standby.log.last.lsn == 1


async def test_a_seal_stops_the_stream_before_it_is_answered(wire: Wire, tmp_path: Path) -> None:
    primary, stub = await wire.primary(tmp_path / "a")
    standby = wire.standby(tmp_path / "b", stub)
    stop = asyncio.Event()

    async def write() -> None:
        while not stop.is_set():
            primary.append([noise(100)])
            await asyncio.sleep(0)

    writing = asyncio.create_task(write())
    await until(lambda: standby.log.last.lsn > 100)
    request = pb.SealRequest(
        cluster_id=CLUSTER, group=0, epoch=9, candidate="third", last=pb.Position(epoch=1, lsn=1 << 40)
    )
    answer = await standby.voter.seal(request)
    sealed_at = answer.last.lsn
    await until(lambda: primary.fenced_by)
    stop.set()
    await writing
    assert primary.acknowledged[-1] <= sealed_at


async def test_a_standby_of_another_cluster_or_with_other_shards_is_refused(wire: Wire, tmp_path: Path) -> None:
    _, stub = await wire.primary(tmp_path / "a")
    standby = wire.standby(tmp_path / "b", stub, layout=ShardLayout(shard_count=8, shard_group_count=1))
    await until(lambda: "shard_count is 8" in (standby.follower.reason or ""))
    assert standby.log.last == START


async def test_the_newest_of_two_streams_of_one_node_wins(wire: Wire, tmp_path: Path) -> None:
    primary, stub = await wire.primary(tmp_path / "a")
    older = wire.standby(tmp_path / "b", stub)
    await until(lambda: same(primary, older))
    newer = wire.standby(tmp_path / "c", stub, start=False)
    newer.start()
    await until(lambda: "newer stream" in (older.follower.reason or ""))
    await older.stop()
    primary.append([noise(100)])
    await until(lambda: same(primary, newer))


async def test_a_standby_goes_on_after_its_primary_was_silent(wire: Wire, tmp_path: Path) -> None:
    primary, direct = await wire.primary(tmp_path / "a")
    between, stub = await wire.between(direct)
    standby = wire.standby(tmp_path / "b", stub)
    await until(lambda: same(primary, standby))
    between.tamper = lambda _message: []
    await until(lambda: "nothing was heard" in (standby.follower.reason or ""))
    between.tamper = lambda message: [message]
    primary.append([noise(100)])
    await until(lambda: same(primary, standby))


async def test_shards_that_the_log_cannot_continue_are_resynced_before_the_stream(
    wire: Wire, tmp_path: Path
) -> None:
    primary, stub = await wire.primary(tmp_path / "a")
    standby = wire.standby(tmp_path / "b", stub, start=False)
    standby.shards.unfit = {2: "ahead"}
    standby.start()
    await until(lambda: same(primary, standby))
    assert standby.shards.resyncs == [[2]]
    assert primary.streams.counters.streams == 2


async def test_a_reset_is_announced_before_it_can_be_acknowledged(wire: Wire, tmp_path: Path) -> None:
    primary, stub = await wire.primary(tmp_path / "a")
    standby = wire.standby(tmp_path / "b", stub)
    await until(lambda: same(primary, standby))
    lsn = primary.append([b""], kind=RecordKind.RESET)
    await until(lambda: same(primary, standby))
    assert [(reset.shard, reset.lsn) for reset in standby.shards.resets] == [(lsn % 4, lsn)]


async def test_an_acknowledgement_comes_within_milliseconds(wire: Wire, tmp_path: Path) -> None:
    primary, stub = await wire.primary(tmp_path / "a")
    standby = wire.standby(tmp_path / "b", stub)
    await until(lambda: same(primary, standby))
    took = []
    for _ in range(100):
        block = [noise(4300) for _ in range(14)]
        started = time.perf_counter()
        lsn = primary.append(block)
        while primary.acknowledged[-1] < lsn:
            await asyncio.sleep(0)
        took.append(time.perf_counter() - started)
    took.sort()
    # Generous: the machine may be busy. What is asserted is that no timer stands in the way.
    assert took[50] < 0.02


async def test_a_node_that_was_stalled_itself_does_not_take_that_for_silence(wire: Wire, tmp_path: Path) -> None:
    primary, stub = await wire.primary(tmp_path / "a")
    standby = wire.standby(tmp_path / "b", stub)
    await until(lambda: same(primary, standby))
    time.sleep(SETTINGS.silence_seconds + 0.2)  # noqa: ASYNC251  # the stall is the point
    primary.append([noise(100)])
    await until(lambda: same(primary, standby))
    assert primary.streams.counters.streams == 1
