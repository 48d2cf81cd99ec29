"""A cluster as its configuration names it: nodes, their addresses, and what each takes part in.

Immutable values that are right by construction. Problems speak of keys as configuration files write them
(`nodes[1].grpc`), since that is where someone will mend them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import NamedTuple

from agent_core.routing import ShardLayout

MAX_VOTERS = 7
"""More voters cost latency without making a loss noticeably less likely; further nodes join as readers."""

RAFT_MEMBERS = (1, 3, 5)
"""How many nodes may keep the cluster's map."""

NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
NAME_ALLOWED = "1 to 63 letters, digits, dots, underscores or hyphens, the first a letter or digit"

ADDRESS_ALLOWED = "host:port that other nodes can reach, port 1 to 65535, for example 10.0.0.7:7101 or [::1]:7101"
_ADDRESS_PATTERN = re.compile(r"(?:\[([0-9A-Fa-f:.]{2,45})\]|([A-Za-z0-9][A-Za-z0-9._-]{0,252})):([0-9]{1,5})")
_WILDCARDS = frozenset({"0.0.0.0", "::"})  # noqa: S104 - named in order to be refused


class InvalidCluster(ValueError):
    """The nodes are wrong; each of `problems` is a sentence that names key, value and what is allowed."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = tuple(problems)


class HostPort(NamedTuple):
    """An address taken apart. An IPv6 host stands without its brackets."""

    host: str
    port: int

    @classmethod
    def parse(cls, address: str) -> HostPort:
        """Read `host:port`, an IPv6 host in brackets.

        Raises:
            ValueError: It is not of that form, or no other node could reach it.
        """
        match = _ADDRESS_PATTERN.fullmatch(address)
        if match is not None:
            host, port = match[1] or match[2], int(match[3])
            if 1 <= port <= 65535 and host not in _WILDCARDS:
                return cls(host, port)
        raise ValueError(f"{address!r} is not an address; allowed is {ADDRESS_ALLOWED}")


def is_loopback(address: str) -> bool:
    """Whether `host:port` names this machine only; a host name other than localhost is taken to be another's."""
    try:
        host = HostPort.parse(address).host
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True, slots=True)
class NodeAddress:
    """A node and where it is reached.

    Attributes:
        node_id: Stable for the node's life; its data directory carries it.
        grpc_address: `host:port` for clients and for other nodes.
        http_address: `host:port` for HTTP/JSON, health and metrics.
        voter: Counts for quorums and may lead groups; a reader does neither.
        raft_address: `host:port` for the other Raft members; None for a node that is none of them.
    """

    node_id: str
    grpc_address: str
    http_address: str
    voter: bool = True
    raft_address: str | None = None


@dataclass(frozen=True, slots=True)
class Cluster:
    """The nodes of a cluster.

    Raises:
        InvalidCluster: Something in it is wrong; every problem is named at once.

    Attributes:
        cluster_id: Chosen when the cluster is created; nothing of another cluster is ever accepted.
        layout: The shards and groups.
        nodes: Voters and readers, in the order of the configuration.
    """

    cluster_id: str
    layout: ShardLayout
    nodes: tuple[NodeAddress, ...]

    def __post_init__(self) -> None:
        problems = [*self._identity_problems(), *self._address_problems(), *self._raft_problems()]
        if problems:
            raise InvalidCluster(problems)

    def voters(self) -> tuple[NodeAddress, ...]:
        """The nodes that count for quorums."""
        return tuple(node for node in self.nodes if node.voter)

    def node(self, node_id: str) -> NodeAddress:
        """The node of this name.

        Raises:
            KeyError: The cluster has no such node.
        """
        for node in self.nodes:
            if node.node_id == node_id:
                return node
        raise KeyError(f"no node {node_id!r}; the cluster has {_listed(self._node_ids())}")

    def _node_ids(self) -> list[str]:
        return [node.node_id for node in self.nodes]

    def _identity_problems(self) -> Iterator[str]:
        if not NAME_PATTERN.fullmatch(self.cluster_id):
            yield f"cluster.id is {self.cluster_id!r}; allowed are {NAME_ALLOWED}"
        for index, node in enumerate(self.nodes):
            if not NAME_PATTERN.fullmatch(node.node_id):
                yield f"nodes[{index}].id is {node.node_id!r}; allowed are {NAME_ALLOWED}"
        yield from _repetitions(
            [(f"nodes[{index}].id", node.node_id) for index, node in enumerate(self.nodes)], lambda name: name
        )
        voter_count = len(self.voters())
        if not 1 <= voter_count <= MAX_VOTERS:
            yield (
                f"nodes names {voter_count} voters; allowed are 1 to {MAX_VOTERS} (an odd number is best: an even "
                "one survives no more failures than the odd one below it); further nodes take voter = false"
            )

    def _address_problems(self) -> Iterator[str]:
        valid = []
        for index, node in enumerate(self.nodes):
            addresses = (("grpc", node.grpc_address), ("http", node.http_address), ("raft", node.raft_address))
            for key, address in addresses:
                if address is None:
                    continue
                try:
                    HostPort.parse(address)
                except ValueError:
                    yield f"nodes[{index}].{key} is {address!r}; allowed is {ADDRESS_ALLOWED}"
                else:
                    valid.append((f"nodes[{index}].{key}", address))
        yield from _repetitions(valid, HostPort.parse)

    def _raft_problems(self) -> Iterator[str]:
        count = sum(node.raft_address is not None for node in self.nodes)
        if count not in RAFT_MEMBERS:
            yield (
                f"nodes names {count} raft addresses; allowed: {', '.join(map(str, RAFT_MEMBERS))}: these keep the "
                "map of who leads which group, and an even number survives no more failures than one less"
            )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "(none)"


def _repetitions(values: Sequence[tuple[str, str]], same: Callable[[str], object]) -> Iterator[str]:
    """A problem for each `(key, value)` that an earlier one equals under `same`."""
    first: dict[object, str] = {}
    for key, value in values:
        earlier = first.setdefault(same(value), key)
        if earlier != key:
            yield f"{key} is {value!r}, as is {earlier}; each must be different"
