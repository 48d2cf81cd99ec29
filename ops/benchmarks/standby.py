"""The standby that benchmarks stop and start again, as its primary sees it."""

from __future__ import annotations

from types import TracebackType
from typing import Self

import grpc.aio

from agent_core.rpc.administration_pb2 import StatusRequest, StatusResponse
from agent_core.rpc.administration_pb2_grpc import AdministrationStub
from ops.benchmarks.load import until
from ops.local_cluster import LocalCluster

PRIMARY = "node-1"
STANDBY = "node-3"

ASK_SECONDS = 0.02
WITHIN_SECONDS = 600.0


class StandbyWatch:
    """Asks the primary about `STANDBY`; use it as `async with StandbyWatch(cluster) as watch:`."""

    def __init__(self, cluster: LocalCluster) -> None:
        self._channel = grpc.aio.insecure_channel(cluster.address(PRIMARY).grpc_address)
        self._primary = AdministrationStub(self._channel)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._channel.close()

    async def until_connected(self) -> None:
        """Wait until it has said hello for every group.

        Raises:
            TimeoutError: It has not for ten minutes.
        """
        await until(self._connected, every_seconds=ASK_SECONDS, within_seconds=WITHIN_SECONDS)

    async def until_caught_up(self) -> None:
        """Wait until it has applied everything that the primary's log holds.

        Raises:
            TimeoutError: It has not for ten minutes.
        """
        await until(self._caught_up, every_seconds=ASK_SECONDS, within_seconds=WITHIN_SECONDS)

    async def _connected(self) -> bool:
        return is_connected(await self._primary.Status(StatusRequest()))

    async def _caught_up(self) -> bool:
        return is_caught_up(await self._primary.Status(StatusRequest()))


async def stop_standby(cluster: LocalCluster) -> None:
    """Stop it once it has applied everything: the quorum goes on without it, so it may be behind.

    Raises:
        TimeoutError: It has not for ten minutes.
    """
    async with StandbyWatch(cluster) as watch:
        await watch.until_caught_up()
    await cluster.stop_node(STANDBY)


def is_connected(status: StatusResponse) -> bool:
    """Whether the standby has a stream of every group."""
    return all(
        standby.connected for group in status.groups for standby in group.standbys if standby.node_id == STANDBY
    )


def is_caught_up(status: StatusResponse) -> bool:
    """Whether the standby has a stream of every group, and its shards hold all that the primary's log holds."""
    return is_connected(status) and all(
        standby.applied_lsn >= group.durable.lsn
        for group in status.groups
        for standby in group.standbys
        if standby.node_id == STANDBY
    )
