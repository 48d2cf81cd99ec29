"""A cluster as its configuration names it: nodes, their addresses, and which node leads which group.

Immutable values that are right by construction. Problems speak of keys as configuration files write them
(`nodes[1].grpc`, `groups.primaries.0`), since that is where someone will mend them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

from agent_core.routing import ShardLayout

MAX_VOTERS = 7
"""More voters cost latency without making a loss noticeably less likely; further nodes join as readers."""

NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
NAME_ALLOWED = "1 to 63 letters, digits, dots, underscores or hyphens, the first a letter or digit"

ADDRESS_ALLOWED = "host:port that other nodes can reach, port 1 to 65535, for example 10.0.0.7:7101 or [::1]:7101"
_ADDRESS_PATTERN = re.compile(r"(?:\[([0-9A-Fa-f:.]{2,45})\]|([A-Za-z0-9][A-Za-z0-9._-]{0,252})):([0-9]{1,5})")
_WILDCARDS = frozenset({"0.0.0.0", "::"})  # noqa: S104 - named in order to be refused


class InvalidCluster(ValueError):
    """Nodes or placement are wrong; each of `problems` is a sentence that names key, value and what is allowed."""

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


@dataclass(frozen=True, slots=True)
class NodeAddress:
    """A node and where it is reached.

    Attributes:
        node_id: Stable for the node's life; its data directory carries it.
        grpc_address: `host:port` for clients and for other nodes.
        http_address: `host:port` for HTTP/JSON, health and metrics.
        voter: Counts for quorums and may lead groups; a reader does neither.
    """

    node_id: str
    grpc_address: str
    http_address: str
    voter: bool = True


@dataclass(frozen=True, slots=True)
class Cluster:
    """The nodes of a cluster and the placement of its groups.

    Raises:
        InvalidCluster: Something in it is wrong; every problem is named at once.

    Attributes:
        cluster_id: Chosen when the cluster is created; nothing of another cluster is ever accepted.
        layout: The shards and groups.
        nodes: Voters and readers, in the order of the configuration.
        placement: Each group's primary, by group number.
    """

    cluster_id: str
    layout: ShardLayout
    nodes: tuple[NodeAddress, ...]
    placement: Mapping[int, str]

    def __post_init__(self) -> None:
        problems = [*self._identity_problems(), *self._address_problems(), *self._placement_problems()]
        if problems:
            raise InvalidCluster(problems)
        object.__setattr__(self, "placement", MappingProxyType(dict(self.placement)))

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

    def primary_of(self, group: int) -> NodeAddress:
        """The node that leads a group.

        Raises:
            KeyError: The cluster has no such group.
        """
        return self.node(self.placement[group])

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
            for key, address in (("grpc", node.grpc_address), ("http", node.http_address)):
                try:
                    HostPort.parse(address)
                except ValueError:
                    yield f"nodes[{index}].{key} is {address!r}; allowed is {ADDRESS_ALLOWED}"
                else:
                    valid.append((f"nodes[{index}].{key}", address))
        yield from _repetitions(valid, HostPort.parse)

    def _placement_problems(self) -> Iterator[str]:
        voters = [node.node_id for node in self.voters()]
        groups = range(self.layout.shard_group_count)
        for group, primary in sorted(self.placement.items()):
            key = f"groups.primaries.{group}"
            if group not in groups:
                yield f"{key} names a group that is not there; allowed are the groups 0 to {groups[-1]}"
            elif primary not in voters:
                reason = ", a reader" if primary in self._node_ids() else ""
                yield f"{key} is {primary!r}{reason}; allowed are the voters {_listed(voters)}"
        yield from (f"groups.primaries.{group} is missing" for group in groups if group not in self.placement)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "(none)"


def _repetitions(values: Sequence[tuple[str, str]], same: Callable[[str], object]) -> Iterator[str]:
    """A problem for each `(key, value)` that an earlier one equals under `same`."""
    first: dict[object, str] = {}
    for key, value in values:
        earlier = first.setdefault(same(value), key)
        if earlier != key:
            yield f"{key} is {value!r}, as is {earlier}; each must be different"
