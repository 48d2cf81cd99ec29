"""Reading on any node, primary or standby: what dashboards and the command line use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import orjson

from agent_core.client.calls import call_unary
from agent_core.client.endpoints import Endpoints
from agent_core.client.model import position_from_wire
from agent_core.client.reads import SessionReads, position_to_wire
from agent_core.errors import HeadwaterError, InvalidRequest
from agent_core.position import Position
from agent_core.rpc import cluster_pb2, read_pb2
from agent_core.rpc.cluster_pb2_grpc import ClusterReadingStub
from agent_core.rpc.read_pb2_grpc import ReadingStub

DEFAULT_TIMEOUT_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class QueryResult:
    """What a query brought, and where it was read.

    Attributes:
        columns: The columns' names.
        rows: JSON values; a blob is `{"base64": "…"}`.
        truncated: A bound on rows or bytes cut the result.
        shard: The shard that was read; None: all of them.
        positions: By group, what was read contained at least this.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    truncated: bool
    shard: int | None
    positions: Mapping[int, Position]


class Reader(SessionReads):
    """Reads from the shard files of one node, or of the first of several that answers.

    A standby shows what it has applied; the position in an answer, or `min_position` in a question, tells or says
    how much that is.

    Args:
        addresses: One node or several, each `host:port`.
        timeout_seconds: How long a call may take, all of its attempts together.
        discover: Learn the cluster's other nodes from the one that was reached, beside the work, and turn to them
            when those that were given do not serve. Not by default: who reads chooses the node, and a heavy query
            that takes long there should not wander to the primary.

    Raises:
        ValueError: An address is not `host:port`.
    """

    def __init__(
        self,
        addresses: str | Sequence[str],
        *,
        timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
        discover: bool = False,
    ) -> None:
        super().__init__(Endpoints(addresses, discover=discover), ReadingStub, timeout_seconds)

    async def __aenter__(self) -> Reader:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._endpoints.close()

    async def cluster(self) -> cluster_pb2.GetClusterResponse:
        """Nodes, and the groups of the node that answers with their roles, positions and lag, as it sees them.

        Raises:
            Unavailable: No node answered in time.
        """
        return await call_unary(
            self._endpoints,
            ClusterReadingStub,
            "GetCluster",
            cluster_pb2.GetClusterRequest(),
            cluster_pb2.GetClusterResponse,
            timeout_seconds=self._timeout_seconds,
        )

    async def lag(self) -> cluster_pb2.GetLagResponse:
        """Every lag that the node which answers measures: its own, and the standbys' of what it leads.

        Raises:
            Unavailable: No node answered in time.
        """
        return await call_unary(
            self._endpoints,
            ClusterReadingStub,
            "GetLag",
            cluster_pb2.GetLagRequest(),
            cluster_pb2.GetLagResponse,
            timeout_seconds=self._timeout_seconds,
        )

    async def query(
        self,
        sql: str,
        *,
        shard: int | None = None,
        session_id: str | None = None,
        workspace: bool = False,
        parameters: Sequence[Any] | Mapping[str, Any] = (),
        max_rows: int = 0,
        timeout_ms: int = 0,
        min_position: Position | None = None,
    ) -> QueryResult:
        """Run one read-only SQL statement: over all shards with DuckDB, or over one of them with SQLite.

        Args:
            sql: The statement.
            shard: Read this shard only.
            session_id: Read the shard that holds this session.
            workspace: Read the workspace shard.
            parameters: Values for `?` in the statement, or for `:name` (over all shards: `$name`).
            max_rows: Where to cut the result; 0: the server's default.
            timeout_ms: How long the statement may run; 0: the server's default.
            min_position: Wait until the node has applied this position of the shard's group; over all shards only
                where the cluster has one group.

        Raises:
            QueryRefused: The SQL is wrong, or does anything but read.
            QueryLimit: It ran out of its time, memory or size.
            PositionNotReached: The node did not reach `min_position` in time.
            PositionLost: It never will: another primary's history has replaced that one.
            Unavailable: No node answered in time.
        """
        try:
            request = read_pb2.QueryRequest(sql=sql, max_rows=max_rows, timeout_ms=timeout_ms)
            if workspace:
                request.workspace = True
            elif session_id is not None:
                request.session_id = session_id
            elif shard is not None:
                request.shard = shard
        except ValueError as error:
            raise InvalidRequest(f"a field of the query cannot be sent: {error}") from error
        if parameters:
            request.parameters_json = orjson.dumps(parameters)
        if min_position is not None:
            request.min_position.CopyFrom(position_to_wire(min_position))
        response = await call_unary(
            self._endpoints,
            ReadingStub,
            "Query",
            request,
            read_pb2.QueryResponse,
            timeout_seconds=self._timeout_seconds,
        )
        try:
            rows = orjson.loads(response.rows_json or b"[]")
        except orjson.JSONDecodeError as error:
            raise HeadwaterError(f"the node's answer is not JSON: {error}") from error
        return QueryResult(
            columns=tuple(response.columns),
            rows=tuple(tuple(row) for row in rows),
            truncated=response.truncated,
            shard=response.shard if response.HasField("shard") else None,
            positions={at.group: position_from_wire(at.position) for at in response.positions},
        )
