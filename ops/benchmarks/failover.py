"""How long writing stands still when a primary is lost, or hands over on request, and what waiting for it costs."""

from __future__ import annotations

import asyncio
import os
import signal
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc.aio

from agent_core.client import Client
from agent_core.errors import HeadwaterError
from agent_core.rpc.control_pb2 import SwitchoverRequest
from agent_core.rpc.control_pb2_grpc import ControlStub
from ops.benchmarks.figures import Figures, Progress, unheard
from ops.benchmarks.load import create_sessions, payloads
from ops.benchmarks.node_metrics import CPU_SECONDS, read_metrics
from ops.benchmarks.placement import let_lead, map_of
from ops.cluster_files import ClusterPlan
from ops.local_cluster import LocalCluster

WITHIN_SECONDS = 60.0
LONGEST_GAP_SECONDS = 15.0
"""A longer gap counts as this, so that a benchmark ends."""
SETTLE_SECONDS = 1.0
"""How long appends run before something happens to the primary, and how long a cluster rests before it is idle."""

Loss = Callable[[LocalCluster, str], Awaitable[None]]
"""Takes a node away."""


@dataclass(frozen=True, slots=True)
class FailoverPlan:
    """How fail-over is measured.

    Attributes:
        runs: How often each kind is measured.
        writers: Sessions that append at once while the primary hands over.
        idle_seconds: How long the processor time of an idle cluster is measured.
    """

    runs: int = 20
    writers: int = 16
    idle_seconds: float = 10.0


@dataclass(frozen=True, slots=True)
class Append:
    """One append: when it was begun and ended, in seconds of the monotonic clock, and whether it failed."""

    began: float
    ended: float
    failed: bool

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.ended - self.began


class Writers:
    """Sessions that append without a pause, each waiting for its own acknowledgement."""

    def __init__(self, client: Client, sessions: Sequence[str]) -> None:
        self.appends: list[Append] = []
        self._tasks = [asyncio.create_task(self._write(client, session)) for session in sessions]

    async def acknowledged_after(self, moment: float, within_seconds: float = WITHIN_SECONDS) -> float:
        """Wait for the first acknowledgement of an append that was begun after a moment; when it came.

        Raises:
            TimeoutError: None came in time.
        """
        seen = 0
        async with asyncio.timeout(within_seconds):
            while True:
                for append in self.appends[seen:]:
                    if append.began >= moment and not append.failed:
                        return append.ended
                seen = len(self.appends)
                await asyncio.sleep(0.005)

    async def stop(self) -> None:
        """Append no more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _write(self, client: Client, session: str) -> None:
        text = payloads(500)[0]
        while True:
            began, failed = time.monotonic(), False
            try:
                await client.append(session, "message", text)
            except HeadwaterError:
                failed = True
            self.appends.append(Append(began, time.monotonic(), failed))


async def measure_failover(directory: Path, plan: FailoverPlan, progress: Progress = unheard) -> Figures:
    """Seconds from the loss of a primary, or the request to hand over, until appends are acknowledged again.

    A client appends to one session without a pause; the figure ends with the first acknowledgement of an append
    that it began after the loss. Clusters have one shard group, so that a loss is felt by every session.
    """
    figures: Figures = {"runs": plan.runs}
    async with LocalCluster(directory, ClusterPlan(base_port=0)) as cluster:
        addresses = [node.grpc_address for node in cluster.addresses]
        async with Client(addresses, timeout_seconds=WITHIN_SECONDS) as client:
            sessions = await create_sessions(client, plan.writers)
            progress("idle", 0.0)
            figures["idle_cpu_share_by_node"] = await _idle_cpu(cluster, plan.idle_seconds)
            for name, raft_leader, loss in (
                ("killed", False, _kill),
                ("killed_with_raft_leader", True, _kill),
                ("frozen", False, _freeze),
            ):
                gaps = []
                for run in range(plan.runs):
                    progress(f"{name} {run + 1}", run / plan.runs)
                    gaps.append(await _gap(cluster, sessions[0], loss, raft_leader=raft_leader))
                figures |= _summary(f"{name}_seconds", gaps)
            # Of their own: the one that appended through all losses holds more than a session does.
            sessions = await create_sessions(client, plan.writers)
            longest, errors = [], 0
            for run in range(plan.runs):
                progress(f"switchover {run + 1}", run / plan.runs)
                appends = await _switch_over(cluster, client, sessions)
                longest.append(max(append.seconds for append in appends))
                errors += sum(append.failed for append in appends)
    return {**figures, **_summary("switchover_longest_append_seconds", longest), "switchover_errors": errors}


async def _gap(cluster: LocalCluster, session: str, loss: Loss, *, raft_leader: bool) -> float:
    leader = await _raft_leader(cluster)
    others = [node.node_id for node in cluster.addresses if node.node_id != leader]
    primary = leader if raft_leader else others[0]
    await let_lead(cluster, primary)
    addresses = [node.grpc_address for node in cluster.addresses]
    async with Client(addresses, timeout_seconds=WITHIN_SECONDS) as client:
        writers = Writers(client, [session])
        try:
            await writers.acknowledged_after(time.monotonic() + SETTLE_SECONDS)
            lost = time.monotonic()
            await loss(cluster, primary)
            try:
                gap = await writers.acknowledged_after(lost, LONGEST_GAP_SECONDS) - lost
            except TimeoutError:
                gap = LONGEST_GAP_SECONDS
        finally:
            await writers.stop()
    await _restore(cluster, primary)
    return gap


async def _switch_over(cluster: LocalCluster, client: Client, sessions: Sequence[str]) -> list[Append]:
    """Hand the group over while all sessions append; the appends from shortly before on."""
    cluster_map, leader = await map_of(cluster.addresses[0].grpc_address)
    primary = cluster_map.placements[0].primary
    to = next(node.node_id for node in cluster.addresses if node.node_id != primary)
    writers = Writers(client, sessions)
    try:
        began = time.monotonic()
        await writers.acknowledged_after(began + SETTLE_SECONDS)
        async with grpc.aio.insecure_channel(cluster.address(leader).grpc_address) as channel:
            asked = time.monotonic()
            await ControlStub(channel).Switchover(SwitchoverRequest(group=0, to=to))
        await writers.acknowledged_after(time.monotonic() + SETTLE_SECONDS)
    finally:
        await writers.stop()
    return [append for append in writers.appends if append.ended >= asked]


async def _kill(cluster: LocalCluster, node_id: str) -> None:
    await cluster.kill(node_id)


async def _freeze(cluster: LocalCluster, node_id: str) -> None:
    """Stop its process without a word: its connections stand, and nothing answers."""
    os.killpg(_running(cluster, node_id), signal.SIGSTOP)


async def _restore(cluster: LocalCluster, node_id: str) -> None:
    if cluster.pid(node_id) is None:
        await cluster.start_node(node_id)
    else:
        os.killpg(_running(cluster, node_id), signal.SIGCONT)
    await cluster.wait_ready()


def _running(cluster: LocalCluster, node_id: str) -> int:
    pid = cluster.pid(node_id)
    assert pid is not None, f"{node_id} runs"
    return pid


async def _raft_leader(cluster: LocalCluster) -> str:
    """The Raft leader, once all nodes name the same."""
    async with asyncio.timeout(WITHIN_SECONDS):
        while True:
            named = {(await map_of(node.grpc_address))[1] for node in cluster.addresses}
            if len(named) == 1 and (leader := named.pop()):
                return leader
            await asyncio.sleep(0.05)


async def _idle_cpu(cluster: LocalCluster, seconds: float) -> dict[str, float]:
    """The share of one core that each node's process takes while nobody asks for anything."""
    await asyncio.sleep(SETTLE_SECONDS)
    before = await _cpu_seconds(cluster)
    began = time.monotonic()
    await asyncio.sleep(seconds)
    after, passed = await _cpu_seconds(cluster), time.monotonic() - began
    return {node: round((after[node] - before[node]) / passed, 4) for node in after}


async def _cpu_seconds(cluster: LocalCluster) -> dict[str, float]:
    return {node.node_id: (await read_metrics(node.http_address))[CPU_SECONDS] for node in cluster.addresses}


def _summary(name: str, values: Sequence[float]) -> Figures:
    return {
        name: round(statistics.median(values), 3),
        f"{name}_worst": round(max(values), 3),
        f"{name}_all": [round(value, 3) for value in values],
    }
