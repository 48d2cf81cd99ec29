"""Ways in which a cluster loses a node for a while."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from ops.benchmarks import in_network
from ops.benchmarks.network import Network
from ops.cluster_files import CONFIGURATION_FILE, node_directory
from ops.config import build, to_toml
from ops.local_cluster import NODE_COMMAND, LocalCluster

Act = Callable[[LocalCluster, str], Awaitable[None]]
"""Does something to a node."""

APART_COMMAND = (sys.executable, "-P", in_network.__file__, *NODE_COMMAND)
"""Runs a node in the network that bears its name."""


@dataclass(frozen=True, slots=True)
class Loss:
    """A way to lose a primary, and to have it again.

    Attributes:
        name: What it is called in figures.
        take: Takes the node away.
        give_back: Lets it take part again.
        raft_leader: Whether the primary that is lost leads Raft as well.
    """

    name: str
    take: Act
    give_back: Act
    raft_leader: bool = False


async def _kill(cluster: LocalCluster, node_id: str) -> None:
    await cluster.kill(node_id)


async def _start(cluster: LocalCluster, node_id: str) -> None:
    await cluster.start_node(node_id)


async def _freeze(cluster: LocalCluster, node_id: str) -> None:
    """Stop its process without a word: its connections stand, and nothing answers."""
    _signal(cluster, node_id, signal.SIGSTOP)


async def _thaw(cluster: LocalCluster, node_id: str) -> None:
    _signal(cluster, node_id, signal.SIGCONT)


def _signal(cluster: LocalCluster, node_id: str, which: signal.Signals) -> None:
    pid = cluster.pid(node_id)
    assert pid is not None, f"{node_id} runs"
    os.killpg(pid, which)


LOSSES = (
    Loss("killed", _kill, _start),
    Loss("killed_with_raft_leader", _kill, _start, raft_leader=True),
    Loss("frozen", _freeze, _thaw),
)


def partition(network: Network) -> Loss:
    """A primary is cut off from the other nodes, both ways; clients still reach it."""

    async def isolate(_cluster: LocalCluster, node_id: str) -> None:
        network.isolate(node_id)

    async def heal(_cluster: LocalCluster, _node_id: str) -> None:
        network.heal()

    return Loss("partitioned", isolate, heal)


@asynccontextmanager
async def cluster_apart(directory: Path, network: Network) -> AsyncIterator[LocalCluster]:
    """A cluster that runs with each node in a network of its own.

    Raises:
        LocalClusterError: A node ended, or was not ready in time.
    """
    nodes = network.nodes()
    settings = {
        "cluster": {"id": "apart"},
        "election": {"raft_password": "the network is the benchmark's own"},
        "nodes": nodes,
    }
    for node in nodes:
        folder = node_directory(directory, node["id"])
        folder.mkdir(parents=True)
        configuration = build(str(folder), {**settings, "node": {"id": node["id"]}})
        (folder / CONFIGURATION_FILE).write_text(to_toml(configuration), encoding="utf-8")
    cluster = LocalCluster(directory, command=APART_COMMAND)
    try:
        # start() would ask first whether the addresses are free, and this process is in another network.
        await asyncio.gather(*(cluster.start_node(node["id"]) for node in nodes))
        yield cluster
    finally:
        await cluster.stop()
