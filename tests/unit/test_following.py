"""What a standby makes of a primary that does not answer, that ends its stream, or that does not lead."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, cast

import grpc
import grpc.aio
import pytest
from grpc.aio import Metadata

from agent_core.errors import HandedOver, HeadwaterError, NotPrimary
from agent_core.log.log import ReplicationLog
from agent_core.position import START
from agent_core.rpc import replication_pb2 as pb
from agent_core.rpc_errors import ERROR_CODE_KEY
from agent_core.stream import to_message
from replica.following import Follower
from replica.incoming import FollowerSettings
from replica.promises import PromiseFile
from replica.voter import Voter
from tests.integration.stream_harness import CLUSTER, LAYOUT, Shards
from tests.waiting import until

PRIMARY = "node-1"
LEASE_SECONDS = 3600.0


@contextmanager
def follower_in(
    directory: Path, connect: Callable[[str], Any], *, presume: Callable[[bool], str] = lambda _misled: PRIMARY
) -> Iterator[Follower]:
    log = ReplicationLog.open(directory / "log", cluster_id=CLUSTER, group=0, segment_bytes=1 << 20)
    promises = PromiseFile(directory / "promise", cluster_id=CLUSTER, group=0)
    voter = Voter(
        promises, node_id="standby", cluster_id=CLUSTER, group=0, last=lambda: log.last, lease_seconds=LEASE_SECONDS
    )
    yield Follower(
        node_id="standby",
        cluster_id=CLUSTER,
        layout=LAYOUT,
        group=0,
        replication_log=log,
        voter=voter,
        shards=Shards(log),
        presume=presume,
        connect=connect,
        settings=FollowerSettings(silence_seconds=3600, longest_delay_seconds=0.01),
        chance=random.Random(1),
    )
    log.close()


@asynccontextmanager
async def following(directory: Path, connect: Callable[[str], Any], **options: Any) -> AsyncIterator[Follower]:
    with follower_in(directory, connect, **options) as follower:
        task = asyncio.create_task(follower.run())
        try:
            yield follower
        finally:
            task.cancel()
            await asyncio.wait([task], timeout=5)
            assert task.done(), "following did not end when it was cancelled"


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
    async with following(tmp_path, lambda _node: cast("Any", silent)) as follower:
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
    async with following(tmp_path, lambda _node: cast("Any", forgetful)):
        await until(lambda: forgetful.hellos == 1)
    assert forgetful.hellos == 1


async def test_the_event_loop_goes_on_while_the_end_of_following_waits_for_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An election pauses following while the log is being synced, which takes as long as the disk does."""
    begun, may_end, ended = threading.Event(), threading.Event(), threading.Event()

    def sync_slowly(_log: ReplicationLog) -> None:
        begun.set()
        may_end.wait(2)
        ended.set()

    monkeypatch.setattr(ReplicationLog, "sync", sync_slowly)
    with follower_in(tmp_path, lambda _node: cast("Any", Silent())) as follower:
        task = asyncio.create_task(follower.run())
        await until(begun.is_set)
        for _ in range(3):
            task.cancel()
            for _ in range(5):
                await asyncio.sleep(0)
            assert not ended.is_set(), "the event loop has waited for the disk"
            assert not task.done(), "whoever waits for it would not be alone with the log"
        may_end.set()
        await asyncio.wait([task], timeout=5)
        assert task.cancelled()
        assert ended.is_set()


class Primary:
    """A node that welcomes a standby once and beats once, then ends the stream, and leads nothing any more.

    Args:
        end: What the standby hears of the stream's end.
    """

    def __init__(self, end: grpc.aio.AioRpcError) -> None:
        self._ends = [end]

    def Stream(self) -> Call:  # noqa: N802 - gRPC's name
        if self._ends:
            welcome = pb.Welcome(epoch=5, primary=PRIMARY, shared=to_message(START))
            beat = pb.Records(epoch=5, sent_at_us=1)
            return Call([pb.FromPrimary(welcome=welcome), pb.FromPrimary(records=beat)], self._ends.pop())
        return Call([], ended(NotPrimary("group 0 is not led by this node")))


class Call:
    """A stream that brings some messages, then its end."""

    def __init__(self, messages: list[pb.FromPrimary], end: grpc.aio.AioRpcError) -> None:
        self._messages, self._end = messages, end

    async def write(self, _message: object) -> None:
        """It is taken."""

    async def read(self) -> pb.FromPrimary:
        if not self._messages:
            raise self._end
        return self._messages.pop(0)

    def cancel(self) -> None:
        """It has ended already."""


def ended(error: HeadwaterError) -> grpc.aio.AioRpcError:
    """What a stream ends with that a node ended with `error`."""
    return grpc.aio.AioRpcError(error.status, Metadata(), Metadata((ERROR_CODE_KEY, error.code)), str(error))


def reason_lost() -> grpc.aio.AioRpcError:
    """What gRPC makes of a stream's end, whatever it was, when something is being written at that moment."""
    return grpc.aio.AioRpcError(grpc.StatusCode.INTERNAL, Metadata(), Metadata(), "Internal error from Core")


def bound(follower: Follower) -> bool:
    return follower._voter.watch.binding_seconds(asyncio.get_running_loop().time()) > 0


@pytest.mark.parametrize("end", [ended(HandedOver("node-1 handed over")), reason_lost()])
async def test_a_primary_that_handed_over_binds_no_vote_also_when_the_reason_of_its_streams_end_was_lost(
    tmp_path: Path, end: grpc.aio.AioRpcError
) -> None:
    """It says itself that it leads nothing. Else its successor could not stand before the lease has run out."""
    primary = Primary(end)
    async with following(tmp_path, lambda _node: cast("Any", primary)) as follower:
        await until(lambda: follower.counters.hellos == 3)
        assert not bound(follower)


async def test_a_node_that_leads_nothing_says_nothing_of_the_lease_of_another(tmp_path: Path) -> None:
    """The primary may answer reads under it though the standby asks elsewhere meanwhile."""
    primary, asked = Primary(reason_lost()), iter((PRIMARY, "node-2", "node-3"))
    async with following(
        tmp_path, lambda _node: cast("Any", primary), presume=lambda _misled: next(asked, "node-2")
    ) as follower:
        await until(lambda: follower.counters.hellos == 3)
        assert bound(follower)
