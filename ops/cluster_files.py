"""Lays out the directory of a local cluster: a folder per node, each as it could be copied to another machine.

`DIR/node-1/headwater.toml` configures the node, `DIR/node-1/data/` is its data, `DIR/node-1/log.jsonl` its log
(see `ops.node_log`).
"""

from __future__ import annotations

import secrets
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import SystemRandom
from typing import Any

from agent_core.cluster import MAX_VOTERS, RAFT_MEMBERS, HostPort
from ops.config import build, load, to_toml
from ops.config_problems import InvalidConfiguration
from ops.settings import NodeConfiguration

CONFIGURATION_FILE = "headwater.toml"
LOG_FILE = "log.jsonl"

DEFAULT_VOTERS = 3
DEFAULT_BASE_PORT = 7101
HTTP_PORT_OFFSET = 100
"""node-1's HTTP port is its gRPC port plus this, and so on."""
RAFT_PORT_OFFSET = 200
"""The same for the Raft port."""

MAX_NODES = 64
_FREE_PORT_RANGE = range(15_000, 32_000)
"""Below the ports that Linux gives to outgoing connections, which could take one before its server starts."""


@dataclass(frozen=True, slots=True)
class ClusterPlan:
    """What someone wants of a local cluster. None: the default for a new one, whatever it is for one that stands.

    Attributes:
        voters: Nodes that vote; 1 to 7, default 3.
        readers: Further nodes that only follow; default 0.
        base_port: The gRPC port of node-1, the others follow; HTTP is 100 above, Raft 200. 0: any free ports.
        settings: Further settings of all nodes, nested as in the file, for example
            `{"cluster": {"shard_count": 8}}`.
    """

    voters: int | None = None
    readers: int | None = None
    base_port: int | None = None
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def node_directory(directory: Path, node_id: str) -> Path:
    """A node's folder."""
    return directory / node_id


def lay_out(directory: Path, plan: ClusterPlan) -> dict[str, NodeConfiguration]:
    """Write a new cluster's files, or read those that stand; returns the configurations by node id.

    Raises:
        InvalidConfiguration: The plan is impossible, contradicts the cluster that stands there, or that one's
            files are incomplete or wrong.
        OSError: The directory cannot be read or written.
    """
    standing = sorted(directory.glob(f"*/{CONFIGURATION_FILE}"))
    if standing:
        return _read(directory, standing[0], plan)
    _write(directory, plan)
    return _read(directory, node_directory(directory, "node-1") / CONFIGURATION_FILE, plan)


def free_ports(count: int) -> list[int]:
    """Ports of the loopback interface on which nothing listens at this moment, all different."""
    found: list[int] = []
    for port in SystemRandom().sample(_FREE_PORT_RANGE, len(_FREE_PORT_RANGE)):
        if len(found) == count:
            break
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
    return found


def _write(directory: Path, plan: ClusterPlan) -> None:
    voters = DEFAULT_VOTERS if plan.voters is None else plan.voters
    readers = plan.readers or 0
    if not 1 <= voters <= MAX_VOTERS:
        raise InvalidConfiguration(str(directory), [f"nodes is {voters}; allowed are 1 to {MAX_VOTERS}"])
    if not 0 <= readers <= MAX_NODES - voters:
        raise InvalidConfiguration(
            str(directory), [f"readers is {readers}; allowed are 0 to {MAX_NODES - voters} beside {voters} nodes"]
        )
    nodes = list(_nodes(voters, readers, plan.base_port))
    # Random, so that the nodes of two local clusters never take each other for their own.
    cluster = {"id": f"local-{secrets.token_hex(4)}", **plan.settings.get("cluster", {})}
    for node in nodes:
        settings = {**plan.settings, "cluster": cluster, "node": {"id": node["id"]}, "nodes": nodes}
        configuration = build(str(directory), settings)
        folder = node_directory(directory, node["id"])
        folder.mkdir(parents=True, exist_ok=True)
        (folder / CONFIGURATION_FILE).write_text(to_toml(configuration), encoding="utf-8")


def _nodes(voters: int, readers: int, base_port: int | None) -> Iterator[dict[str, Any]]:
    count = voters + readers
    if base_port == 0:
        ports = free_ports(3 * count)
    else:
        base = DEFAULT_BASE_PORT if base_port is None else base_port
        ports = [
            port
            for offset in (0, HTTP_PORT_OFFSET, RAFT_PORT_OFFSET)
            for port in range(base + offset, base + offset + count)
        ]
    raft_members = max(members for members in RAFT_MEMBERS if members <= count)
    for index in range(count):
        node: dict[str, Any] = {
            "id": f"node-{index + 1}",
            "grpc": f"127.0.0.1:{ports[index]}",
            "http": f"127.0.0.1:{ports[count + index]}",
        }
        if index < raft_members:
            node["raft"] = f"127.0.0.1:{ports[2 * count + index]}"
        yield {**node, "voter": index < voters}


def _read(directory: Path, first: Path, plan: ClusterPlan) -> dict[str, NodeConfiguration]:
    configurations = {
        entry.id: load(node_directory(directory, entry.id) / CONFIGURATION_FILE) for entry in load(first).nodes
    }
    one = load(first)
    problems = [
        *_contradictions(one, plan),
        *(
            f"{node_id}/{CONFIGURATION_FILE} describes another cluster than {first.relative_to(directory)}"
            for node_id, other in configurations.items()
            if (other.cluster, other.nodes) != (one.cluster, one.nodes) or other.node.id != node_id
        ),
    ]
    if problems:
        raise InvalidConfiguration(f"The cluster in {directory}", problems)
    return configurations


def _contradictions(standing: NodeConfiguration, plan: ClusterPlan) -> Iterator[str]:
    voters = len(standing.cluster_map.voters())
    first_port = HostPort.parse(standing.nodes[0].grpc).port
    facts: list[tuple[str, Any, Any]] = [
        ("the number of voting nodes", voters, plan.voters),
        ("the number of readers", len(standing.nodes) - voters, plan.readers),
        ("the first port", first_port, plan.base_port or None),
    ]
    values = standing.model_dump(mode="json")
    for section, settings in plan.settings.items():
        facts += [(f"{section}.{key}", values.get(section, {}).get(key), value) for key, value in settings.items()]
    for name, there, wanted in facts:
        if wanted is not None and there != wanted:
            yield f"{name} is {there} there, and {wanted} was asked for; leave it out, or take another directory"
