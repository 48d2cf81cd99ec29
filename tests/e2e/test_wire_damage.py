"""What the wire does to a single record never reaches a shard: refused, counted in `/metrics`, and repaired."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

from agent_core.client import Client
from agent_core.log.record import RecordCodec, headers
from agent_core.rpc import replication_pb2 as pb
from ops.benchmarks.placement import let_lead
from ops.local_cluster import LocalCluster
from replica.receiving import RefusalReason
from tests.e2e.cluster_under_load import DEADLINE_SECONDS, assert_everywhere, load
from tests.e2e.relay import relay_between
from tests.exported import exported
from tests.steady import steady_plan

PRIMARY, STANDBY = "node-1", "node-3"
SHARDS = 4

Change = Callable[[bytes], bytes]
"""Takes one record; returns what comes in its place."""


def flip_a_byte(record: bytes) -> bytes:
    return record[:-5] + bytes([record[-5] ^ 0x5A]) + record[-4:]


def replay(record: bytes) -> bytes:
    return record + record


def leave_out(_record: bytes) -> bytes:
    return b""


def send_from_a_lower_epoch(record: bytes) -> bytes:
    """As whoever led before would have written it: its checksum holds."""
    codec = RecordCodec()
    decoded, _ = codec.decode(record)
    return codec.encode(decoded._replace(position=decoded.position._replace(epoch=decoded.position.epoch - 1)))


class Damage:
    """Changes one record amid a message, once."""

    def __init__(self, change: Change) -> None:
        self._change = change
        self.done = asyncio.Event()

    def __call__(self, message: pb.FromPrimary) -> None:
        block = message.records.records
        starts = [offset for _, offset in headers(block)]
        if self.done.is_set() or len(starts) < 3:
            return
        self.done.set()
        start, end = starts[1], starts[2]
        message.records.records = block[:start] + self._change(block[start:end]) + block[end:]


async def refusals(cluster: LocalCluster) -> dict[str, float]:
    """What the standby's `/metrics` says that it refused."""
    name = 'headwater_refused_records_total{group="0",reason="'
    series = await exported(cluster, STANDBY)
    return {
        key.removeprefix(name).removesuffix('"}'): count
        for key, count in series.items()
        if key.startswith(name) and count
    }


async def test_a_record_damaged_on_the_wire_is_refused_counted_and_repaired_in_the_shards(tmp_path: Path) -> None:
    plan = steady_plan(cluster={"shard_count": SHARDS, "shard_group_count": 1})
    cluster = LocalCluster(tmp_path, plan)
    expected: dict[str, float] = {}
    written: dict[str, list[bytes]] = {}
    async with AsyncExitStack() as stack:
        relay = await stack.enter_async_context(relay_between(cluster, STANDBY, PRIMARY))
        await stack.enter_async_context(cluster)
        await let_lead(cluster, PRIMARY)
        client = await stack.enter_async_context(Client(cluster.address(PRIMARY).grpc_address, timeout_seconds=60))
        for change, reason in (
            (flip_a_byte, RefusalReason.BAD_CHECKSUM),
            (replay, RefusalReason.REPEATED),
            (leave_out, RefusalReason.OUT_OF_ORDER),
            (send_from_a_lower_epoch, RefusalReason.LOWER_EPOCH),
        ):
            relay.tamper = damage = Damage(change)
            async with load(client, writers=16, named=change.__name__) as running:
                await asyncio.wait_for(damage.done.wait(), DEADLINE_SECONDS)
                await running.more()
            written |= running.written
            expected[reason] = 1
            await assert_everywhere(cluster, written)
            assert await refusals(cluster) == expected
