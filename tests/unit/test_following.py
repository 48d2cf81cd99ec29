"""When a standby stops waiting for the answer of a node that it takes for its primary."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import grpc
import grpc.aio
from grpc.aio import Metadata

from agent_core.log.log import ReplicationLog
from replica.following import Follower
from replica.incoming import FollowerSettings
from replica.promises import PromiseFile
from replica.voter import Voter
from tests.integration.stream_harness import CLUSTER, LAYOUT, Shards
from tests.waiting import until


@asynccontextmanager
async def following(directory: Path, connect: Callable[[bool], Any]) -> AsyncIterator[Follower]:
    log = ReplicationLog.open(directory / "log", cluster_id=CLUSTER, group=0, segment_bytes=1 << 20)
    promises = PromiseFile(directory / "promise", cluster_id=CLUSTER, group=0)
    follower = Follower(
        node_id="standby",
        cluster_id=CLUSTER,
        layout=LAYOUT,
        group=0,
        replication_log=log,
        voter=Voter(promises, node_id="standby", cluster_id=CLUSTER, group=0, last=lambda: log.last),
        shards=Shards(log),
        connect=connect,
        settings=FollowerSettings(silence_seconds=3600, longest_delay_seconds=0.01),
        chance=random.Random(1),
    )
    task = asyncio.create_task(follower.run())
    try:
        yield follower
    finally:
        task.cancel()
        await asyncio.wait([task], timeout=5)
        assert task.done(), "following did not end when it was cancelled"
        log.close()


class Silent:
    """A node whose connection stands and that never answers."""

    def __init__(self) -> None:
        self.hellos = 0

    def Stream(self) -> Silent:  # noqa: N802 - gRPC's name
        return self

    async def write(self, _message: object) -> None:
        self.hellos += 1

    async def read(self) -> object:
        return await asyncio.get_running_loop().create_future()

    def cancel(self) -> None:
        """Nobody waits for it."""


async def test_a_new_placement_ends_the_wait_for_a_node_that_does_not_answer(tmp_path: Path) -> None:
    silent = Silent()
    async with following(tmp_path, lambda _misled: cast("Any", silent)) as follower:
        await until(lambda: silent.hellos == 1)
        follower.try_now(elsewhere=True)
        await until(lambda: silent.hellos == 2)


class Forgetful(Silent):
    """gRPC's streams, when their end comes as they are cancelled while they wait for the first answer."""

    async def read(self) -> object:
        try:
            return await super().read()
        except asyncio.CancelledError:
            raise grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, Metadata(), Metadata()) from None


async def test_following_ends_when_it_is_cancelled_although_grpc_forgets_that(tmp_path: Path) -> None:
    forgetful = Forgetful()
    async with following(tmp_path, lambda _misled: cast("Any", forgetful)):
        await until(lambda: forgetful.hellos == 1)
    assert forgetful.hellos == 1
