"""Orders resyncs: of named shards on one standby, and of whatever a comparison found to differ."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import grpc
import grpc.aio

from agent_core.errors import HeadwaterError, Unavailable
from agent_core.routing import ShardLayout
from agent_core.rpc.administration_pb2 import ResyncedShard, ResyncShardsRequest, StatusRequest, StatusResponse
from agent_core.rpc.administration_pb2_grpc import AdministrationStub
from agent_core.rpc_errors import from_rpc_error
from ops.verify import STATUS_SECONDS, ShardComparison

RESYNC_SECONDS = 600.0
"""How long whoever orders a resync waits for its end; the node goes on with it afterwards."""


@dataclass(frozen=True, slots=True)
class Order:
    """The resync of these shards on one standby."""

    node: str
    shards: tuple[int, ...]


async def resync_shards(
    channel: grpc.aio.Channel, *, shards: Iterable[int] = (), groups: Iterable[int] = (), seconds: float
) -> list[ResyncedShard]:
    """Order resyncs on a standby and wait for their end, at most `seconds`.

    Raises:
        HeadwaterError: The node refused, or they did not end in time; what was ordered goes on all the same.
    """
    request = ResyncShardsRequest(shards=shards, groups=groups)
    try:
        answer = await AdministrationStub(channel).ResyncShards(request, timeout=seconds)
    except grpc.aio.AioRpcError as error:
        if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
            raise HeadwaterError(
                f"the resync did not end within {seconds:g} s; the node goes on with it, and `headwater status` "
                "says what it waits for"
            ) from error
        raise from_rpc_error(error, unanswered=Unavailable) from error
    return list(answer.shards)


def choose_orders(
    comparisons: Iterable[ShardComparison], statuses: Mapping[str, StatusResponse]
) -> tuple[list[Order], list[str]]:
    """Which standbys must resync which shards, and why other differences cannot be repaired so. Pure.

    Args:
        comparisons: What was found.
        statuses: What each compared node says of itself.
    """
    any_status = next(iter(statuses.values()))
    layout = ShardLayout(any_status.shard_count, any_status.shard_group_count)
    primaries = {
        group.group: node for node, status in statuses.items() for group in status.groups if group.role == "primary"
    }
    wanted: dict[str, list[int]] = {}
    beyond: list[str] = []
    for comparison in comparisons:
        if comparison.problem is None:
            continue
        primary = primaries.get(layout.group_of(comparison.shard))
        if primary is None:
            beyond.append(f"shard {comparison.shard}: its primary is not among the nodes; name it in --nodes")
        elif comparison.digests[primary] is None:
            beyond.append(f"shard {comparison.shard}: its primary, {primary}, could not read it")
        else:
            for node in comparison.differing_from(primary):
                wanted.setdefault(node, []).append(comparison.shard)
    return [Order(node, tuple(shards)) for node, shards in wanted.items()], beyond


async def repair(
    channels: Mapping[str, grpc.aio.Channel], comparisons: Iterable[ShardComparison], *, seconds: float
) -> tuple[list[Order], list[str]]:
    """Make each standby's differing shards equal to the primary's; what was ordered, and what could not be.

    Raises:
        HeadwaterError: As `resync_shards`.
        grpc.aio.AioRpcError: A node cannot be reached.
    """
    statuses = {
        node: await AdministrationStub(channel).Status(StatusRequest(), timeout=STATUS_SECONDS)
        for node, channel in channels.items()
    }
    orders, beyond = choose_orders(comparisons, statuses)
    await asyncio.gather(
        *(resync_shards(channels[order.node], shards=order.shards, seconds=seconds) for order in orders)
    )
    return orders, beyond
