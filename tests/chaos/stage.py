"""Three real nodes, each in a network and on a disk of its own, and what faults need to do to them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path
from random import Random

import grpc.aio

from agent_core.client.endpoints import open_channel
from agent_core.control import cluster_map as maps
from agent_core.control.cluster_map import EMPTY, ClusterMap
from agent_core.rpc.control_pb2 import GetMapRequest, SwitchoverRequest
from agent_core.rpc.control_pb2_grpc import ControlStub
from ops.benchmarks import in_network
from ops.benchmarks.network import Network, run
from ops.cluster_files import CONFIGURATION_FILE, node_directory
from ops.config import build, to_toml
from ops.local_cluster import LocalCluster
from tests.chaos import weak_node
from tests.chaos.weak_node import CLOCK_FILE, SYNC_FILE

NODES = ("node-1", "node-2", "node-3")
NODE_COMMAND = (sys.executable, "-P", in_network.__file__, sys.executable, "-P", weak_node.__file__)
GROUPS = 2
DISK_MIB = 96
ASK_SECONDS = 1.0
FIND_SECONDS = 30.0
READY_SECONDS = 60.0

SETTINGS = {
    "cluster": {"id": "chaos", "shard_count": 4, "shard_group_count": GROUPS},
    "election": {"raft_password": "the network is the test's own"},
    # A small log: a node that was away for long needs a resync.
    "storage": {"segment_mib": 1, "log_retention_mib": 4, "log_tail_mib": 2, "checkpoint_mib": 1},
}


class Stage:
    """The cluster under test, and the faults' hands.

    Attributes:
        cluster: Its processes.
        network: Between them.
        chance: Everything random comes from it.
        addresses: Where clients reach the nodes.
    """

    def __init__(self, directory: Path, network: Network, chance: Random) -> None:
        """Lay out a cluster in a directory; starts nothing."""
        self.network = network
        self.chance = chance
        self._directory = directory
        _lay_out(directory, network)
        self.cluster = LocalCluster(directory, command=NODE_COMMAND)
        self.addresses = {node.node_id: node.grpc_address for node in self.cluster.addresses}

    async def start(self, *nodes: str) -> None:
        """Start nodes, or all, and wait until they are ready.

        Raises:
            LocalClusterError: One ended, or was not ready in time.
        """
        await asyncio.gather(*(self.cluster.start_node(node, READY_SECONDS) for node in nodes or NODES))

    async def kill(self, *nodes: str) -> None:
        """Kill them (SIGKILL), all at once."""
        await asyncio.gather(*(self.cluster.kill(node) for node in nodes))

    def freeze(self, node: str) -> None:
        """Stop a node's process without a word: its connections stand, and nothing answers."""
        self._signal(node, signal.SIGSTOP)

    def thaw(self, node: str) -> None:
        """Let a frozen node go on."""
        self._signal(node, signal.SIGCONT)

    def fill_disk(self, node: str) -> None:
        """Take all that is free on a node's disk."""
        with self._ballast(node).open("wb", buffering=0) as ballast:
            for block in (bytes(1 << 20), bytes(4096)):
                with contextlib.suppress(OSError):
                    while ballast.write(block) == len(block):
                        pass

    def free_disk(self, node: str) -> None:
        """Give it back."""
        self._ballast(node).unlink(missing_ok=True)

    def slow_disk(self, node: str, sync_seconds: float) -> None:
        """Let each sync of a node's log, promises and marks take this much longer."""
        self._tell(node, SYNC_FILE, f"{sync_seconds}")

    def step_clock(self, node: str, seconds: int) -> None:
        """Set a node's wall clock this far from the true time; its monotonic clock goes on."""
        self._tell(node, CLOCK_FILE, f"{seconds}")

    async def primary(self, group: int | None = None) -> str:
        """The primary of a group, or of any."""
        wanted = self.chance.randrange(GROUPS) if group is None else group
        async with asyncio.timeout(FIND_SECONDS):
            while True:
                cluster_map, _ = await self._newest_map()
                if cluster_map.version and (primary := cluster_map.placements[wanted].primary):
                    return primary
                await asyncio.sleep(0.05)

    async def raft_leader(self) -> str:
        """The Raft leader."""
        async with asyncio.timeout(FIND_SECONDS):
            while not (leader := (await self._newest_map())[1]):
                await asyncio.sleep(0.05)
        return leader

    async def standby(self) -> str:
        """A node that does not lead group 0."""
        primary = await self.primary(0)
        return self.chance.choice([node for node in NODES if node != primary])

    async def switch_over(self, group: int, to: str) -> None:
        """Let another node lead a group.

        Raises:
            grpc.aio.AioRpcError: It was refused, or nobody could be asked.
        """
        leader = await self.raft_leader()
        async with open_channel(self.addresses[leader]) as channel:
            await ControlStub(channel).Switchover(SwitchoverRequest(group=group, to=to))

    async def _newest_map(self) -> tuple[ClusterMap, str]:
        """The newest map that any node knows, and the Raft leader that most nodes name."""
        answers = await asyncio.gather(*map(_map_of, self.addresses.values()))
        leaders = [leader for _, leader in answers if leader]
        newest = max((cluster_map for cluster_map, _ in answers), key=lambda known: known.version)
        return newest, max(leaders, key=leaders.count, default="")

    def _signal(self, node: str, which: signal.Signals) -> None:
        pid = self.cluster.pid(node)
        if pid is not None:
            os.killpg(pid, which)

    def _tell(self, node: str, file: str, text: str) -> None:
        told = node_directory(self._directory, node) / file
        new = told.with_suffix(".new")
        new.write_text(text, encoding="ascii")
        new.replace(told)

    def _ballast(self, node: str) -> Path:
        return self.cluster.configurations[node].node.data_directory / "ballast"


def _lay_out(directory: Path, network: Network) -> None:
    for node in NODES:
        folder = node_directory(directory, node)
        data = folder / "data"
        data.mkdir(parents=True)
        run("mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "disk", data)
        (folder / SYNC_FILE).write_text("0", encoding="ascii")
        (folder / CLOCK_FILE).write_text("0", encoding="ascii")
        configuration = build(str(folder), {**SETTINGS, "node": {"id": node}, "nodes": network.nodes()})
        (folder / CONFIGURATION_FILE).write_text(to_toml(configuration), encoding="utf-8")


async def _map_of(address: str) -> tuple[ClusterMap, str]:
    async with open_channel(address) as channel:
        try:
            answer = await ControlStub(channel).GetMap(GetMapRequest(), timeout=ASK_SECONDS)
        except grpc.aio.AioRpcError:
            return EMPTY, ""
    return maps.from_json(answer.cluster_map.decode()), answer.raft_leader
