"""How long writing stands still when a primary is lost, or hands over on request, and what waiting for it costs."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc.aio

from agent_core.client import Client
from agent_core.rpc.control_pb2 import SwitchoverRequest
from agent_core.rpc.control_pb2_grpc import ControlStub
from ops.benchmarks.figures import Figures, Goal, Progress, judged, unheard
from ops.benchmarks.idle import measure_idle
from ops.benchmarks.load import create_sessions
from ops.benchmarks.losses import LOSSES, Loss, cluster_apart, partition
from ops.benchmarks.network import Network
from ops.benchmarks.placement import let_lead, map_of, primaries, raft_leader
from ops.benchmarks.writers import WITHIN_SECONDS, Append, Writers
from ops.cluster_files import ClusterPlan
from ops.local_cluster import LocalCluster

LONGEST_GAP_SECONDS = 15.0
"""A longer gap counts as this, so that a benchmark ends."""
SETTLE_SECONDS = 1.0
"""How long appends run before something happens to the primary, and after it handed over."""
MANY_GROUPS = 16


@dataclass(frozen=True, slots=True)
class FailoverPlan:
    """How fail-over is measured.

    Attributes:
        runs: How often each kind is measured.
        writers: Sessions that append at once while the primary hands over.
        idle_seconds: How long the processor time of an idle cluster is measured.
        no_partitions: Why no network can be cut; empty where one can: this process is in namespaces of its own.
    """

    runs: int = 20
    writers: int = 16
    idle_seconds: float = 10.0
    no_partitions: str = ""


@dataclass(frozen=True, slots=True)
class Gap:
    """One loss: the seconds until an append was acknowledged that began after it, and appends that failed."""

    seconds: float
    errors: int


def goals(failure_timeout_seconds: float, *, partitions: bool) -> list[Goal]:
    """What the figures are judged by."""
    hanging = failure_timeout_seconds + 1.0
    return [
        Goal("idle.cpu_share_worst", at_most=0.03),
        Goal(f"idle_{MANY_GROUPS}_groups.cpu_share_worst", at_most=0.03),
        Goal("killed_seconds", at_most=0.5),
        Goal("killed_seconds_worst", at_most=1.5),
        Goal("killed_with_raft_leader_seconds", at_most=1.0),
        Goal("killed_with_raft_leader_seconds_worst", at_most=2.5),
        Goal("frozen_seconds_worst", at_most=hanging),
        *([Goal("partitioned_seconds_worst", at_most=hanging)] if partitions else []),
        Goal("switchover_errors", at_most=0),
        Goal("switchover_longest_append_seconds", at_most=0.1),
        Goal("switchover_longest_append_seconds_worst", at_most=0.3),
    ]


async def measure_failover(directory: Path, plan: FailoverPlan, progress: Progress = unheard) -> Figures:
    """Seconds from the loss of a primary, or the request to hand over, until appends are acknowledged again.

    A client appends to one session without a pause; the figure ends with the first acknowledgement of an append
    that it began after the loss. Clusters have one shard group, so that a loss is felt by every session. Partitions
    are measured on a cluster of their own, whose nodes are in networks of their own.
    """
    network = None if plan.no_partitions else Network(("node-1", "node-2", "node-3"))
    figures: Figures = {"runs": plan.runs}
    # Nothing is written to this one, and what its logs preallocate of the disk no idle process feels.
    settings = {"cluster": {"shard_group_count": MANY_GROUPS}, "storage": {"segment_mib": 1}}
    progress(f"idle, {MANY_GROUPS} groups", 0.0)
    async with LocalCluster(directory / "groups", ClusterPlan(base_port=0, settings=settings)) as cluster:
        many = await measure_idle(cluster, plan.idle_seconds)
    async with LocalCluster(directory / "one", ClusterPlan(base_port=0)) as cluster:
        failure_timeout = cluster.configurations["node-1"].election.failure_timeout_seconds
        progress("idle", 0.0)
        figures["idle"] = await measure_idle(cluster, plan.idle_seconds)
        figures[f"idle_{MANY_GROUPS}_groups"] = many
        for loss in LOSSES:
            figures |= await _lose(cluster, loss, plan.runs, progress)
        figures |= await _hand_over(cluster, plan, progress)
    if network is None:
        figures["partitioned_left_out"] = plan.no_partitions
    else:
        async with cluster_apart(directory / "apart", network) as cluster:
            figures |= await _lose(cluster, partition(network), plan.runs, progress)
    return {**figures, "goals": judged(figures, goals(failure_timeout, partitions=network is not None))}


async def _lose(cluster: LocalCluster, loss: Loss, runs: int, progress: Progress) -> Figures:
    """Lose a primary again and again."""
    addresses = [node.grpc_address for node in cluster.addresses]
    async with Client(addresses, timeout_seconds=WITHIN_SECONDS) as client:
        sessions = await create_sessions(client, 1)
    gaps = []
    for run in range(runs):
        progress(f"{loss.name} {run + 1}", run / runs)
        gaps.append(await _gap(cluster, sessions[0], loss))
    return {
        **summary(f"{loss.name}_seconds", [gap.seconds for gap in gaps]),
        f"{loss.name}_errors": sum(gap.errors for gap in gaps),
    }


async def _gap(cluster: LocalCluster, session: str, loss: Loss) -> Gap:
    addresses = [node.grpc_address for node in cluster.addresses]
    async with Client(addresses, timeout_seconds=WITHIN_SECONDS) as client:
        writers = Writers(client, [session])
        try:
            primary = await _settled(cluster, writers, leads_raft=loss.raft_leader)
            lost = time.monotonic()
            await loss.take(cluster, primary)
            try:
                seconds = await writers.acknowledged_after(lost, LONGEST_GAP_SECONDS) - lost
            except TimeoutError:
                seconds = LONGEST_GAP_SECONDS
        finally:
            await writers.stop()
    await loss.give_back(cluster, primary)
    await cluster.wait_ready()
    return Gap(seconds, sum(append.failed for append in writers.ended_after(lost)))


async def _settled(cluster: LocalCluster, writers: Writers, *, leads_raft: bool) -> str:
    """The primary of all groups, once it leads Raft, or does not, and appends have run a while since.

    Raises:
        TimeoutError: The Raft leader changes again and again.
    """
    async with asyncio.timeout(WITHIN_SECONDS):
        while True:
            leader = await raft_leader(cluster)
            others = [node.node_id for node in cluster.addresses if node.node_id != leader]
            primary = leader if leads_raft else others[0]
            await let_lead(cluster, primary)
            await writers.acknowledged_after(time.monotonic() + SETTLE_SECONDS)
            if (await raft_leader(cluster) == primary) is leads_raft and await primaries(cluster) == {primary}:
                return primary


async def _hand_over(cluster: LocalCluster, plan: FailoverPlan, progress: Progress) -> Figures:
    """Let another node lead, again and again, while many sessions append."""
    longest, errors = [], 0
    addresses = [node.grpc_address for node in cluster.addresses]
    async with Client(addresses, timeout_seconds=WITHIN_SECONDS) as client:
        sessions = await create_sessions(client, plan.writers)
        for run in range(plan.runs):
            progress(f"switchover {run + 1}", run / plan.runs)
            appends = await _switch_over(cluster, client, sessions)
            longest.append(max(append.seconds for append in appends))
            errors += sum(append.failed for append in appends)
    return {**summary("switchover_longest_append_seconds", longest), "switchover_errors": errors}


async def _switch_over(cluster: LocalCluster, client: Client, sessions: Sequence[str]) -> list[Append]:
    """Hand the group over while all sessions append; the appends from the request on."""
    cluster_map, leader = await map_of(cluster.addresses[0].grpc_address)
    primary = cluster_map.placements[0].primary
    to = next(node.node_id for node in cluster.addresses if node.node_id != primary)
    writers = Writers(client, sessions)
    try:
        await writers.acknowledged_after(time.monotonic() + SETTLE_SECONDS)
        async with grpc.aio.insecure_channel(cluster.address(leader).grpc_address) as channel:
            asked = time.monotonic()
            await ControlStub(channel).Switchover(SwitchoverRequest(group=0, to=to))
        await writers.acknowledged_after(time.monotonic() + SETTLE_SECONDS)
    finally:
        await writers.stop()
    return writers.ended_after(asked)


def summary(name: str, values: Sequence[float]) -> Figures:
    """The median, the worst and all of some seconds, by names that begin alike."""
    return {
        name: round(statistics.median(values), 3),
        f"{name}_worst": round(max(values), 3),
        f"{name}_all": [round(value, 3) for value in values],
    }
