"""Cluster state and lag are the same over HTTP and over gRPC, in each field, so that the two cannot part."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import httpx
import pytest

from agent_core.client import Reader
from agent_core.cluster import Cluster, NodeAddress
from agent_core.control.cluster_map import Placement
from agent_core.lag import Lag
from agent_core.routing import ShardLayout
from agent_core.rpc.cluster_pb2_grpc import add_ClusterReadingServicer_to_server
from ops.cluster_routes import cluster_routes
from ops.cluster_service import ClusterReadingService
from ops.cluster_view import ClusterView
from ops.http import build_app
from ops.node_snapshot import (
    ControlSnapshot,
    ElectionSnapshot,
    FollowingSnapshot,
    GroupSnapshot,
    NodeSnapshot,
    PrimarySnapshot,
    ShardSnapshot,
    StandbySnapshot,
)
from tests.interfaces import asked_over_http, serving_grpc
from tests.message_content import content_of

CLUSTER = Cluster(
    "test",
    ShardLayout(shard_count=4, shard_group_count=2),
    (
        NodeAddress("node-1", "host-1:7101", "host-1:7201", raft_address="host-1:7301"),
        NodeAddress("node-2", "host-2:7101", "host-2:7201"),
        NodeAddress("reader-1", "host-3:7101", "host-3:7201", voter=False),
    ),
)
PLACEMENTS = {0: Placement(4, "node-1"), 1: Placement(3, "node-2"), 2: Placement()}
AGES = {0: 0.0, 1: 1.23456, 2: 9.5}

LED = GroupSnapshot(
    group=0,
    role="primary",
    epoch=4,
    durable_lsn=1 << 40,
    committed_lsn=41,
    applied_lsn=40,
    log_bytes=9000,
    log_first_lsn=7,
    primary=PrimarySnapshot(
        appends_by_acknowledgement={"quorum": 100, "local": 7},
        standbys=(
            StandbySnapshot(
                node_id="node-2", connected=True, durable_lsn=39, applied_lsn=38, lag=Lag(2, 300, 0.002)
            ),
            StandbySnapshot(node_id="reader-1", connected=False, lag=Lag(40, 4000, 8.5)),
        ),
    ),
)
FOLLOWED = GroupSnapshot(
    group=1,
    role="standby",
    epoch=3,
    durable_lsn=12,
    committed_lsn=11,
    applied_lsn=10,
    following=FollowingSnapshot(connected=True, state="following", lag=Lag(3, 900, 0.25)),
)
FULL = NodeSnapshot(
    cluster_id="test",
    node_id="node-1",
    version="1.2.3",
    groups=(LED, FOLLOWED),
    control=ControlSnapshot(
        raft_leader="node-2",
        map_version=7,
        draining=("node-2",),
        elections=(
            ElectionSnapshot(
                group=0,
                primary="node-1",
                epoch=4,
                promised_epoch=5,
                promised_to="node-2",
                lease_remaining_seconds=0.5,
                won=2,
                lost=1,
                step_downs=3,
            ),
            ElectionSnapshot(group=1),
        ),
    ),
    shards=(ShardSnapshot(shard=3, group=1, file_bytes=8192, wal_bytes=4152),),
)
EMPTY = NodeSnapshot(cluster_id="test", node_id="node-1", version="1.2.3")
FAILED = replace(
    EMPTY,
    not_ready=("the node is stopping",),
    ended_tasks=("the sweep of idle sessions ended",),
    groups=(
        replace(LED, primary=PrimarySnapshot(failure="the disk is full")),
        replace(FOLLOWED, group=2, following=FollowingSnapshot(connected=False, failure="the histories parted")),
    ),
)


class Node:
    """A node that tells of one snapshot, asked over both interfaces."""

    def __init__(self, http: httpx.AsyncClient, reader: Reader) -> None:
        self._http = http
        self._reader = reader

    async def by_http(self, what: str) -> dict[str, Any]:
        answer = await self._http.get(f"/v1/{what}")
        assert answer.status_code == httpx.codes.OK, answer.text
        told: dict[str, Any] = answer.json()
        return told

    async def by_grpc(self, what: str) -> dict[str, Any]:
        if what == "lag":
            return content_of(await self._reader.lag())
        return content_of(await self._reader.cluster())


@asynccontextmanager
async def node_in(snapshot: NodeSnapshot) -> AsyncIterator[Node]:
    view = ClusterView(lambda: snapshot, CLUSTER, PLACEMENTS.__getitem__, AGES.__getitem__)
    app = build_app(lambda: snapshot, routes=cluster_routes(view))
    service = ClusterReadingService(view)
    async with (
        asked_over_http(app) as http,
        serving_grpc(partial(add_ClusterReadingServicer_to_server, service)) as address,
        Reader(address) as reader,
    ):
        yield Node(http, reader)


@pytest.mark.parametrize("snapshot", [FULL, EMPTY, FAILED], ids=["full", "empty", "failed"])
@pytest.mark.parametrize("what", ["cluster", "lag"])
async def test_both_interfaces_tell_the_same_in_each_field(what: str, snapshot: NodeSnapshot) -> None:
    async with node_in(snapshot) as node:
        assert await node.by_grpc(what) == await node.by_http(what)


async def test_grpc_tells_roles_positions_lags_and_ages() -> None:
    async with node_in(FULL) as node:
        cluster, lag = await node.by_grpc("cluster"), await node.by_grpc("lag")
    led, followed = cluster["groups"]
    assert (led["role"], led["durable_lsn"], led["acknowledged_appends"]) == ("primary", 1 << 40, 107)
    assert (led["connected"], led["lag"], led["age_seconds"]) == (None, None, 0.0)
    assert (followed["connected"], followed["age_seconds"]) == (True, 1.235)
    assert followed["lag"] == {"transactions": 3, "bytes": 900, "seconds": 0.25}
    assert [(one["group"], one["node_id"], one["measured_by"]) for one in lag["lags"]] == [
        (0, "node-2", "node-1"),
        (0, "reader-1", "node-1"),
        (1, "node-1", "node-1"),
    ]
    assert [one["age_seconds"] for one in lag["lags"]] == [0.0, 0.0, 1.235]


async def test_an_epoch_that_a_node_only_promised_is_not_told_beside_the_old_primary() -> None:
    promised = replace(EMPTY, groups=(replace(FOLLOWED, epoch=9),))
    async with node_in(promised) as node:
        (group,) = (await node.by_http("cluster"))["groups"]
    assert (group["primary"], group["epoch"]) == ("node-2", 3)
