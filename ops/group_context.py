"""What both roles of a group need from the node that they run on."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import grpc.aio

from agent_core.cluster import Cluster
from agent_core.log.log import ReplicationLog
from agent_core.rpc.replication_pb2_grpc import ReplicationStub
from agent_core.stream import CHANNEL_OPTIONS
from agent_core.tracing import Tracer
from ops.settings import MIB, NodeConfiguration
from replica.promises import PromiseFile
from replica.reading.positions import AppliedPositions
from replica.voter import Voter

if TYPE_CHECKING:
    # The asynchronous stub exists for type checkers only.
    from agent_core.rpc.replication_pb2_grpc import ReplicationAsyncStub


@dataclass(slots=True)
class Peers:
    """Channels to the other nodes, opened on first use."""

    cluster: Cluster
    _stubs: dict[str, ReplicationAsyncStub] = field(default_factory=dict)
    _channels: list[grpc.aio.Channel] = field(default_factory=list)

    def stub(self, node_id: str) -> ReplicationAsyncStub:
        """The Replication service of a node."""
        stub = self._stubs.get(node_id)
        if stub is None:
            channel = grpc.aio.insecure_channel(self.cluster.node(node_id).grpc_address, options=CHANNEL_OPTIONS)
            self._channels.append(channel)
            stub = ReplicationStub(channel)
            self._stubs[node_id] = stub
        return stub

    async def close(self) -> None:
        """Close every channel."""
        for channel in self._channels:
            await channel.close()


@dataclass(slots=True)
class GroupContext:
    """One group on this node: its log and its vote, whatever the role.

    Attributes:
        configuration: The node's.
        cluster: The nodes and the placement.
        group: The group's number.
        log: The group's replication log.
        voter: Keeps this node's promises for the group.
        peers: Reaches the other nodes.
        positions: Told how far the group's shards are.
        tracer: Records traced appends; None: nothing is traced.
    """

    configuration: NodeConfiguration
    cluster: Cluster
    group: int
    log: ReplicationLog
    voter: Voter
    peers: Peers
    positions: AppliedPositions
    tracer: Tracer | None = None

    @classmethod
    def open(
        cls,
        configuration: NodeConfiguration,
        group: int,
        peers: Peers,
        positions: AppliedPositions,
        executor: ThreadPoolExecutor,
        *,
        tracer: Tracer | None = None,
    ) -> GroupContext:
        """Open the group's log and promise.

        Raises:
            HeadwaterError: Either is damaged, or another cluster's.
        """
        directory = configuration.node.data_directory
        cluster_id = configuration.cluster.id
        log = ReplicationLog.open(
            directory / "log" / f"group-{group:03d}",
            cluster_id=cluster_id,
            group=group,
            segment_bytes=configuration.storage.segment_mib * MIB,
            tail_bytes=configuration.storage.log_tail_mib * MIB,
        )
        voter = Voter(
            PromiseFile(directory / "promises" / f"group-{group:03d}", cluster_id=cluster_id, group=group),
            node_id=configuration.node.id,
            cluster_id=cluster_id,
            group=group,
            last=lambda: log.last,
            executor=executor,
        )
        return cls(configuration, configuration.cluster_map, group, log, voter, peers, positions, tracer)

    @property
    def node_id(self) -> str:
        """This node."""
        return self.configuration.node.id

    @property
    def data_directory(self) -> Path:
        """This node's data."""
        return self.configuration.node.data_directory

    @property
    def primary(self) -> str:
        """The node that leads the group."""
        return self.cluster.primary_of(self.group).node_id
