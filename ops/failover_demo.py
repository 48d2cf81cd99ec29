"""The demonstration of a fail-over: a primary is killed under load, comes back, and everything is counted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from agent_core.client import Client
from agent_core.control.cluster_map import ClusterMap
from agent_core.errors import Unavailable
from ops.cluster_files import ClusterPlan
from ops.demo import DemoOutcome, DemoProgress, load, settle
from ops.local_cluster import LocalCluster
from ops.operating import Operator

GROUP = 0
"""The one group of the demonstration's cluster."""
CLIENT_SECONDS = 60.0
"""How long the load's client repeats an append before it gives up."""
ELECTION_SECONDS = 20.0
POLL_SECONDS = 0.02

DEFAULT_SECONDS = 4.0
"""How long the load runs before the kill, while the node is away, and after its return."""


@dataclass(frozen=True, slots=True)
class FailoverOutcome:
    """What the demonstration came to; the last line says it.

    Attributes:
        killed: The primary that was killed.
        elected: The node that leads since.
        pause_seconds: The longest time without an acknowledgement around the kill.
        count: What was acknowledged, and what the nodes hold.
    """

    killed: str
    elected: str
    pause_seconds: float
    count: DemoOutcome

    @property
    def held(self) -> bool:
        """Another node took over, and every node holds exactly what was acknowledged, in identical shards."""
        return self.elected != self.killed and self.count.held

    def __str__(self) -> str:
        """The demonstration's last line."""
        counts = "/".join(map(str, sorted(set(self.count.entries_by_node.values()))))
        return (
            f"failover-demo: {self.killed} killed, {self.elected} took over, {self.pause_seconds:.2f} s without an "
            f"acknowledgement; {self.count.acknowledged} entries acknowledged, {counts} on each node, shards "
            f"identical: {'yes' if self.count.identical else 'no'}"
        )


async def run_failover_demo(
    directory: Path, *, plan: ClusterPlan, seconds: float, say: Callable[[str], None]
) -> FailoverOutcome:
    """Run the whole demonstration in `directory`.

    Args:
        directory: Where the cluster's files go.
        plan: What the cluster is like.
        seconds: How long the load runs before the kill, while the node is away, and after its return.
        say: Told each step in a sentence.

    Raises:
        HeadwaterError: The cluster refused a write, or elected nobody.
        LocalClusterError: A node did not start.
    """
    async with LocalCluster(directory, plan) as cluster:
        progress, stop = DemoProgress(), asyncio.Event()
        async with Client(
            [node.grpc_address for node in cluster.addresses], timeout_seconds=CLIENT_SECONDS
        ) as client:
            loading = asyncio.create_task(load(client, progress, stop))
            try:
                killed, elected, pause_seconds = await _fail_over(cluster, progress, loading, seconds, say)
            finally:
                stop.set()
                await loading
        say("The load has ended; waiting until all nodes hold everything.")
        return FailoverOutcome(killed, elected, pause_seconds, await settle(cluster, progress.acknowledged))


async def _fail_over(
    cluster: LocalCluster,
    progress: DemoProgress,
    loading: asyncio.Task[None],
    seconds: float,
    say: Callable[[str], None],
) -> tuple[str, str, float]:
    """Kill the primary and bring it back: who that was, who was elected, and the pause in seconds."""
    await _run_on(loading, seconds)
    placement = (await _map(cluster, *cluster.configurations)).placements[GROUP]
    killed = placement.primary
    if killed is None:
        raise Unavailable(f"group {GROUP} has no primary, though the load runs")
    say(
        f"{progress.acknowledged} entries acknowledged, append p50 {progress.percentile(0.5) * 1e3:.1f} ms. "
        f"Killing {killed} (kill -9), which leads epoch {placement.epoch}."
    )
    before = progress.acknowledged
    progress.watch_for_pause()
    await cluster.kill(killed)
    others = [node for node in cluster.configurations if node != killed]
    elected, epoch = await _elected(cluster, others, placement.epoch)
    await _run_on(loading, seconds)
    pause_seconds = progress.longest_pause
    say(
        f"{elected} leads epoch {epoch}. No append was acknowledged for {pause_seconds:.2f} s; none failed, and "
        f"{progress.acknowledged - before} were acknowledged since the kill."
    )
    started = time.monotonic()
    await cluster.start_node(killed)
    say(f"{killed} is back and follows {elected}, {time.monotonic() - started:.1f} s after its start.")
    await _run_on(loading, seconds)
    return killed, elected, pause_seconds


async def _run_on(loading: asyncio.Task[None], seconds: float) -> None:
    """Let the load run; it ends by itself only when a write fails, and then raises that."""
    ended, _ = await asyncio.wait([loading], timeout=seconds)
    if ended:
        await loading


async def _elected(cluster: LocalCluster, nodes: list[str], old_epoch: int) -> tuple[str, int]:
    try:
        async with asyncio.timeout(ELECTION_SECONDS):
            while True:
                placement = (await _map(cluster, *nodes)).placements[GROUP]
                if placement.epoch > old_epoch and placement.primary is not None:
                    return placement.primary, placement.epoch
                await asyncio.sleep(POLL_SECONDS)
    except TimeoutError:
        raise Unavailable(f"nobody was elected within {ELECTION_SECONDS:g} s") from None


async def _map(cluster: LocalCluster, *nodes: str) -> ClusterMap:
    """The newest map that these nodes know."""
    maps = []
    for node in nodes:
        async with Operator(cluster.address(node).grpc_address) as operator:
            maps.append((await operator.ask()).map)
    return max(maps, key=lambda one: one.version)
