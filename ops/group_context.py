"""What both roles of a group need from the node that they run on."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self

import grpc.aio
import structlog

from agent_core.cluster import Cluster, NodeAddress
from agent_core.errors import Unavailable
from agent_core.log.log import ReplicationLog
from agent_core.rpc.control_pb2_grpc import ControlStub
from agent_core.rpc.replication_pb2_grpc import ReplicationStub
from agent_core.rpc.session_pb2_grpc import SessionsStub
from agent_core.rpc.workspace_pb2_grpc import WorkspaceWritingStub
from agent_core.tracing import Tracer
from agent_core.transport import NODE_CHANNEL_OPTIONS, client_options, close_channel
from ops.control.ports import refuses
from ops.control.view import MapView
from ops.settings import MIB, NodeConfiguration
from primary.heartbeats import Heartbeats
from replica.listening import Listening
from replica.promises import PromiseFile
from replica.reading.pool import ReadPool
from replica.reading.positions import AppliedPositions
from replica.voter import Voter
from replica.voting import presumed_primary

if TYPE_CHECKING:
    # The asynchronous stubs exist for type checkers only.
    from agent_core.rpc.control_pb2_grpc import ControlAsyncStub
    from agent_core.rpc.replication_pb2_grpc import ReplicationAsyncStub
    from agent_core.rpc.session_pb2_grpc import SessionsAsyncStub
    from agent_core.rpc.workspace_pb2_grpc import WorkspaceWritingAsyncStub


logger = structlog.get_logger(__name__)


@dataclass(slots=True)
class Peers:
    """Channels to the other nodes, opened on first use."""

    cluster: Cluster
    _channels: dict[str, grpc.aio.Channel] = field(default_factory=dict)
    _client_channels: dict[str, grpc.aio.Channel] = field(default_factory=dict)

    def stub(self, node_id: str) -> ReplicationAsyncStub:
        """The Replication service of a node."""
        return ReplicationStub(self.channel(node_id))

    def control(self, node_id: str) -> ControlAsyncStub:
        """The Control service of a node."""
        return ControlStub(self.channel(node_id))

    def channel(self, node_id: str) -> grpc.aio.Channel:
        """The one channel to a node."""
        channel = self._channels.get(node_id)
        if channel is None:
            address = self.cluster.node(node_id).grpc_address
            channel = grpc.aio.insecure_channel(address, options=NODE_CHANNEL_OPTIONS)
            self._channels[node_id] = channel
        return channel

    def sessions(self, node: NodeAddress) -> SessionsAsyncStub:
        """The Sessions service of a node."""
        return SessionsStub(self._client_channel(node))

    def workspaces(self, node: NodeAddress) -> WorkspaceWritingAsyncStub:
        """The service of a node that writes workspaces."""
        return WorkspaceWritingStub(self._client_channel(node))

    def _client_channel(self, node: NodeAddress) -> grpc.aio.Channel:
        """A channel of its own for what clients ask: its messages may be larger."""
        channel = self._client_channels.get(node.node_id)
        if channel is None:
            channel = grpc.aio.insecure_channel(node.grpc_address, options=client_options())
            self._client_channels[node.node_id] = channel
        return channel

    async def close(self) -> None:
        """Close every channel."""
        for channel in (*self._channels.values(), *self._client_channels.values()):
            await close_channel(channel)


@dataclass(frozen=True, slots=True)
class SharedHeartbeats:
    """The heartbeats that the streams of all groups between two nodes share.

    Attributes:
        given: To standbys of the groups that this node leads.
        heard: From primaries of the groups that it follows.
    """

    given: Heartbeats
    heard: Listening

    @classmethod
    def of(cls, configuration: NodeConfiguration, peers: Peers) -> Self:
        """Those of the node that `configuration` describes."""
        cluster_id = configuration.cluster.id
        return cls(
            Heartbeats(cluster_id, heartbeat_seconds=configuration.replication.heartbeat_seconds),
            Listening(cluster_id=cluster_id, node_id=configuration.node.id, connect=peers.stub),
        )


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
        heartbeats: What this node's groups share.
        positions: Told how far the group's shards are.
        view: Who leads the group, as the Raft members agreed.
        pool: This node's own readers of the group's shards.
        tracer: Records traced appends; None: nothing is traced.
        presumed: The node that was named last as the one to follow.
    """

    configuration: NodeConfiguration
    cluster: Cluster
    group: int
    log: ReplicationLog
    voter: Voter
    peers: Peers
    heartbeats: SharedHeartbeats
    positions: AppliedPositions
    view: MapView
    pool: ReadPool
    tracer: Tracer | None = None
    presumed: str = ""

    @classmethod
    def open(
        cls,
        configuration: NodeConfiguration,
        group: int,
        *,
        peers: Peers,
        heartbeats: SharedHeartbeats,
        positions: AppliedPositions,
        view: MapView,
        pool: ReadPool,
        executor: ThreadPoolExecutor,
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
        if log.end.lost:
            logger.error("the log lost records that were durable", group=group, end=str(log.end))
        for damage in filter(None, (log.damage, log.mark_damage)):
            logger.error("the log was damaged", group=group, damage=damage)
        voter = Voter(
            PromiseFile(directory / "promises" / f"group-{group:03d}", cluster_id=cluster_id, group=group),
            node_id=configuration.node.id,
            cluster_id=cluster_id,
            group=group,
            last=lambda: log.last,
            lease_seconds=configuration.election.lease_seconds,
            once_held=lambda: log.end.marked,
            executor=executor,
        )
        return cls(
            configuration,
            configuration.cluster_map,
            group,
            log,
            voter,
            peers,
            heartbeats,
            positions,
            view,
            pool,
            tracer,
        )

    @property
    def node_id(self) -> str:
        """This node."""
        return self.configuration.node.id

    @property
    def data_directory(self) -> Path:
        """This node's data."""
        return self.configuration.node.data_directory

    def presumed_primary(self, *, misled: bool = False) -> str:
        """The node to follow: who was promised the highest epoch, or else whom the map names.

        Args:
            misled: The one that was presumed last does not lead: name another one, if any comes into question.

        Raises:
            Unavailable: Nobody but this node comes into question.
        """
        name = presumed_primary(
            self.voter.promise,
            self.view.placement(self.group),
            node_id=self.node_id,
            misled_by=self.presumed if misled else "",
        )
        if name is None:
            raise Unavailable(f"group {self.group} has no primary yet")
        self.presumed = name
        return name

    async def primary_is_gone(self) -> bool:
        """Whether the process of the primary that was heard last has ended for certain: its port refuses."""
        heard = self.voter.watch.primary or self.voter.promise.candidate
        if heard == self.node_id:
            return True
        try:
            return await refuses(self.cluster.node(heard).grpc_address)
        except KeyError:
            return False
