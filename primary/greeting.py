"""How a primary answers a standby's hello: from where it streams, or that the log does not reach. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from agent_core.errors import Fenced, InvalidRequest, WrongCluster
from agent_core.position import EpochTable, Position, shared_point
from agent_core.routing import ShardLayout
from agent_core.rpc import replication_pb2 as pb
from agent_core.stream import epoch_table


@dataclass(frozen=True, slots=True)
class Identity:
    """What a hello must agree with.

    Attributes:
        cluster_id: The cluster.
        layout: Its shards and groups.
        group: The shard group of the stream.
        primary: The node that leads it.
        epoch: The epoch that it leads.
    """

    cluster_id: str
    layout: ShardLayout
    group: int
    primary: str
    epoch: int


@dataclass(frozen=True, slots=True)
class Greeting:
    """From where the standby goes on.

    Attributes:
        position: The last point that both logs hold; if there is none, the committed position at which the
            standby's log begins anew.
        resync_required: Whether there is none.
    """

    position: Position
    resync_required: bool


def check_hello(hello: pb.Hello, identity: Identity) -> EpochTable:
    """The standby's table of epochs, once its hello is found to fit.

    Raises:
        WrongCluster: It is of another cluster, or of one with other shards.
        InvalidRequest: It names another group or no node, or its epochs contradict each other.
        Fenced: It has promised to follow a higher epoch; this primary is deposed.
    """
    layout = identity.layout
    for field, said, known in (
        ("cluster_id", hello.cluster_id, identity.cluster_id),
        ("shard_count", hello.shard_count, layout.shard_count),
        ("shard_group_count", hello.shard_group_count, layout.shard_group_count),
    ):
        if said != known:
            raise WrongCluster(f"{field} is {said!r} at {hello.node_id!r} and {known!r} at {identity.primary!r}")
    if hello.group != identity.group:
        raise InvalidRequest(f"group is {hello.group}; allowed is {identity.group}")
    if not hello.node_id or hello.node_id == identity.primary:
        raise InvalidRequest(f"node_id is {hello.node_id!r}; allowed is the name of another node")
    if hello.promised_epoch > identity.epoch:
        raise Fenced(held=hello.promised_epoch, seen=identity.epoch)
    try:
        return epoch_table(hello)
    except ValueError as error:
        raise InvalidRequest(f"hello of {hello.node_id!r}: {error}") from error


def greet(ours: EpochTable, theirs: EpochTable, committed_lsn: int) -> Greeting:
    """Decide from where a standby goes on.

    Args:
        ours: The primary's table of epochs.
        theirs: The standby's.
        committed_lsn: What is committed now; 0 when that is not known yet.
    """
    shared = shared_point(ours, theirs)
    if shared is not None:
        return Greeting(shared, resync_required=False)
    lsn = max(committed_lsn, ours.base.lsn)
    epoch = ours.epoch_at(lsn)
    assert epoch is not None, "what is committed is in the primary's log"
    return Greeting(Position(epoch, lsn), resync_required=True)
