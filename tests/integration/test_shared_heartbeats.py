"""Heartbeats that the streams of two nodes share, over real gRPC on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from agent_core.errors import HeadwaterError, WrongCluster
from agent_core.rpc import replication_pb2 as pb
from agent_core.rpc_errors import abort
from primary.heartbeats import Heartbeats
from primary.streaming import StreamSettings
from replica.listening import Listening
from tests.integration.stream_harness import CLUSTER, PrimarySide, StandbySide, Wire, same
from tests.waiting import until

HEARTBEAT_SECONDS = 0.05


class Shared(PrimarySide):
    """A primary whose stream leaves its heartbeats to the shared ones while it rests.

    Attributes:
        heard: When each heartbeat was sent that an echo came for.
        served: Cleared: a standby that listens hears nothing, though it is not told that.
    """

    def __init__(self, directory: Path) -> None:
        self.heard: list[float] = []
        self.served = asyncio.Event()
        self.served.set()
        self.heartbeats = Heartbeats(CLUSTER, heartbeat_seconds=HEARTBEAT_SECONDS)
        super().__init__(
            directory,
            settings=StreamSettings(heartbeat_seconds=HEARTBEAT_SECONDS),
            heartbeats=self.heartbeats,
            on_heard=lambda _node, at: self.heard.append(at),
        )

    async def Heartbeats(  # noqa: N802 - gRPC's name
        self, request_iterator: AsyncIterator[pb.FromListener], context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[pb.Heartbeat]:
        first = await anext(aiter(request_iterator))
        try:
            async for heartbeat in self.heartbeats.serve(first.listen, request_iterator):
                if self.served.is_set():
                    yield heartbeat
        except HeadwaterError as error:
            await abort(context, error)


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    async with AsyncExitStack() as stack:
        yield Wire(stack)


async def pair(wire: Wire, directory: Path, *, cluster_id: str = CLUSTER) -> tuple[Shared, StandbySide]:
    primary = Shared(directory / "a")
    stub = await wire.serve(primary)
    wire.close_with(primary.close)
    listening = Listening(cluster_id=cluster_id, node_id="standby", connect=lambda _primary: stub)
    standby = wire.standby(directory / "b", stub, listening=listening)
    await until(lambda: same(primary, standby))
    return primary, standby


async def heartbeats_go_on(primary: Shared) -> None:
    """Wait for echoes of several heartbeats more."""
    count = len(primary.heard)
    await until(lambda: len(primary.heard) >= count + 5)


async def test_a_stream_that_rests_is_silent_and_its_primary_is_heard_all_the_same(
    wire: Wire, tmp_path: Path
) -> None:
    primary, standby = await pair(wire, tmp_path)

    async def silent() -> bool:
        before = primary.streams.counters.messages
        await heartbeats_go_on(primary)
        return primary.streams.counters.messages == before

    async with asyncio.timeout(10):
        while not await silent():
            pass
    silent_seconds = standby.follower.silent_seconds
    assert silent_seconds is not None
    assert silent_seconds < 1
    assert standby.follower.lag().seconds < 1


async def test_the_primary_that_a_resting_stream_belongs_to_binds_the_voter(wire: Wire, tmp_path: Path) -> None:
    primary, standby = await pair(wire, tmp_path)
    await heartbeats_go_on(primary)
    standby.voter.watch.heard_at = float("-inf")
    await until(lambda: standby.voter.watch.heard_at > float("-inf"))


async def test_records_go_out_at_once_while_their_stream_rests(wire: Wire, tmp_path: Path) -> None:
    primary, standby = await pair(wire, tmp_path)
    await heartbeats_go_on(primary)
    primary.append([b"more"])
    await until(lambda: same(primary, standby))
    await heartbeats_go_on(primary)


async def test_a_stream_beats_by_itself_when_what_is_shared_does_not_arrive(wire: Wire, tmp_path: Path) -> None:
    primary, _ = await pair(wire, tmp_path)
    await heartbeats_go_on(primary)
    primary.served.clear()
    before = primary.streams.counters.messages
    await until(lambda: primary.streams.counters.messages >= before + 5)
    await heartbeats_go_on(primary)


async def test_a_standby_that_acknowledges_nothing_is_not_spoken_for(wire: Wire, tmp_path: Path) -> None:
    """Its own echo tells that its disk goes on."""
    primary, standby = await pair(wire, tmp_path)
    standby.shards.may_acknowledge = False
    primary.append([b"more"])
    before = primary.streams.counters.messages
    await until(lambda: primary.streams.counters.messages >= before + 5)
    assert not primary.streams.progress["standby"].holds(primary.log.last.lsn)


async def test_a_standby_of_another_cluster_hears_nothing_shared(wire: Wire, tmp_path: Path) -> None:
    primary, _ = await pair(wire, tmp_path, cluster_id="another")
    before = primary.streams.counters.messages
    await until(lambda: primary.streams.counters.messages >= before + 5)
    with pytest.raises(WrongCluster):
        await anext(primary.heartbeats.serve(pb.Listen(cluster_id="another", node_id="x"), nobody()))


async def nobody() -> AsyncIterator[pb.FromListener]:
    return
    yield


async def test_a_voter_that_sealed_another_echoes_nothing_for_the_group(wire: Wire, tmp_path: Path) -> None:
    primary, standby = await pair(wire, tmp_path)
    await heartbeats_go_on(primary)
    await standby.voter.adopt(9, "third")
    sealed_at = asyncio.get_running_loop().time()
    # The stream ends by the promise, and every later hello is refused.
    await until(lambda: 9 in primary.fenced_by)
    assert all(at <= sealed_at for at in primary.heard)
