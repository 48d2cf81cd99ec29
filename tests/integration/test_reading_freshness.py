"""Every read of sessions says how fresh it is and takes demands for freshness, over HTTP and over gRPC alike."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import grpc.aio
import httpx
import pytest

from agent_core.errors import HeadwaterError, PositionNotReached, TooStale, from_code
from agent_core.position import Position
from agent_core.routing import ShardLayout
from agent_core.rpc import read_pb2, read_pb2_grpc, replication_pb2, session_pb2
from agent_core.rpc_errors import from_rpc_error
from ops.http import build_app
from ops.node_snapshot import NodeSnapshot
from replica.reading.http import reading_routes
from replica.reading.positions import AppliedPositions
from replica.reading.reading import Reading
from replica.reading.service import ReadingService
from tests.interfaces import asked_over_http, served_over_grpc
from tests.reading_shards import WrittenShards

LAYOUT = ShardLayout(shard_count=2, shard_group_count=1)
SESSION = "session-1"
APPLIED = Position(3, 40)
AGE_SECONDS = 1.5


class Node:
    """A node that is 1.5 s old, asked over both interfaces."""

    def __init__(self, http: httpx.AsyncClient, channel: grpc.aio.Channel) -> None:
        self._http = http
        self._stub = read_pb2_grpc.ReadingStub(channel)

    async def by_http(self, read: str, position: Position, **demand: Any) -> list[tuple[Position, float]]:
        """The positions and ages of an answer."""
        path, params = {
            "sessions": ("/v1/sessions", {}),
            "session": (f"/v1/sessions/{SESSION}", {}),
            "transcript": (f"/v1/sessions/{SESSION}/transcript", {}),
            "tool calls": (f"/v1/sessions/{SESSION}/tool-calls", {}),
            "query of a shard": ("/v1/query", {"sql": "SELECT 1", "session_id": SESSION}),
            "query of all shards": ("/v1/query", {"sql": "SELECT 1"}),
        }[read]
        answer = await self._http.get(path, params={**params, **demand, "min_position": str(position)})
        told = answer.json()
        if answer.status_code != httpx.codes.OK:
            raise from_code(told["error"]["code"], told["error"]["message"])
        positions = told["positions"] if "positions" in told else [told["position"]]
        assert answer.headers["Headwater-Position"] == ", ".join(
            f"{at['group']}={at['position']}" for at in positions
        )
        assert float(answer.headers["Headwater-Age-Seconds"]) == max(at["age_seconds"] for at in positions)
        return [(Position.parse(at["position"]), at["age_seconds"]) for at in positions]

    async def by_grpc(self, read: str, position: Position, **demand: Any) -> list[tuple[Position, float]]:
        """The positions and ages of an answer."""
        wanted = replication_pb2.Position(epoch=position.epoch, lsn=position.lsn)
        of_group = [session_pb2.GroupPosition(group=0, position=wanted)]
        stub = self._stub
        one: dict[str, Any] = {"session_id": SESSION, "min_position": wanted, **demand}
        calls: dict[str, Any] = {
            "sessions": lambda: stub.ListSessions(
                session_pb2.ListSessionsRequest(min_positions=of_group, **demand)
            ),
            "session": lambda: stub.GetSession(session_pb2.GetSessionRequest(**one)),
            "transcript": lambda: stub.GetTranscript(session_pb2.GetTranscriptRequest(**one)),
            "tool calls": lambda: stub.GetToolCalls(read_pb2.GetToolCallsRequest(**one)),
            "query of a shard": lambda: stub.Query(read_pb2.QueryRequest(sql="SELECT 1", **one)),
            "query of all shards": lambda: stub.Query(
                read_pb2.QueryRequest(sql="SELECT 1", min_position=wanted, **demand)
            ),
        }
        try:
            answer = await calls[read]()
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error
        positions = answer.positions if hasattr(answer, "positions") else [answer.position]
        return [(Position(at.position.epoch, at.position.lsn), at.age_seconds) for at in positions]


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    shards = WrittenShards(tmp_path, LAYOUT)
    shards.create_every_shard()
    shards.create(SESSION)
    applied = AppliedPositions(1)
    applied.advance(0, APPLIED)
    reading = Reading.open(tmp_path, LAYOUT, applied, age_of=lambda _group: AGE_SECONDS)
    snapshot = NodeSnapshot(cluster_id="test", node_id="node-1", version="1.2.3")
    app = build_app(lambda: snapshot, routes=reading_routes(reading))
    service = ReadingService(reading)
    async with (
        asked_over_http(app) as http,
        served_over_grpc(partial(read_pb2_grpc.add_ReadingServicer_to_server, service)) as channel,
    ):
        yield Node(http, channel)
    await reading.close()
    shards.close()


READS = ["sessions", "session", "transcript", "tool calls", "query of a shard", "query of all shards"]


@pytest.mark.parametrize("interface", [Node.by_http, Node.by_grpc], ids=["HTTP", "gRPC"])
@pytest.mark.parametrize("read", READS)
async def test_every_read_tells_its_position_and_age_and_meets_demands_or_says_why_not(
    node: Node, interface: Any, read: str
) -> None:
    told = await interface(node, read, APPLIED, max_staleness_ms=2000, wait_ms=1000)
    assert told == [(APPLIED, AGE_SECONDS)]
    for error, position, max_staleness_ms in (
        (PositionNotReached, Position(3, 41), 2000),
        (TooStale, APPLIED, 1000),
    ):
        with pytest.raises(HeadwaterError) as caught:
            await interface(node, read, position, max_staleness_ms=max_staleness_ms, wait_ms=10)
        assert type(caught.value) is error
        assert caught.value.retry
