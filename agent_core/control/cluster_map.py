"""The map of a cluster that the Raft members agree on. Immutable values."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Self

import orjson


@dataclass(frozen=True, slots=True)
class Member:
    """A node of the cluster.

    Attributes:
        node_id: Its name.
        grpc_address: Where nodes and clients reach it.
        http_address: HTTP/JSON, health and metrics.
        voter: Counts for quorums and may lead; a reader does neither.
        raft_address: Where the other Raft members reach it; None when it is no Raft member.
        draining: It shall lead nothing that another voter can lead.
    """

    node_id: str
    grpc_address: str
    http_address: str
    voter: bool
    raft_address: str | None
    draining: bool = False


@dataclass(frozen=True, slots=True)
class Placement:
    """Who leads a group, and since which epoch; epoch 0 while nobody ever did."""

    epoch: int = 0
    primary: str | None = None


@dataclass(frozen=True, slots=True)
class ClusterMap:
    """Everything that the Raft members agree on.

    Attributes:
        version: Raised by each change; 0 before the cluster is formed.
        cluster_id: The cluster.
        shard_count: Its shards.
        members: Its nodes, in the order of the configuration.
        placements: By group number.
    """

    version: int
    cluster_id: str
    shard_count: int
    members: tuple[Member, ...]
    placements: tuple[Placement, ...]

    def member(self, node_id: str) -> Member:
        """The node of this name.

        Raises:
            KeyError: There is none.
        """
        for member in self.members:
            if member.node_id == node_id:
                return member
        raise KeyError(node_id)

    def voters(self) -> tuple[str, ...]:
        """The nodes that count for quorums."""
        return tuple(member.node_id for member in self.members if member.voter)

    def led_by(self, node_id: str) -> tuple[int, ...]:
        """The groups that a node leads."""
        return tuple(group for group, placement in enumerate(self.placements) if placement.primary == node_id)

    def to_json(self) -> bytes:
        """The map as it travels and is kept."""
        return orjson.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: bytes | str) -> Self:
        """Read a map."""
        held = orjson.loads(text)
        return cls(
            version=held["version"],
            cluster_id=held["cluster_id"],
            shard_count=held["shard_count"],
            members=tuple(Member(**member) for member in held["members"]),
            placements=tuple(Placement(**placement) for placement in held["placements"]),
        )


EMPTY = ClusterMap(0, "", 0, (), ())
"""Before the cluster is formed."""
