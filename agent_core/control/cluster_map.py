"""The cluster's map: who its members are and who leads which shard group. Immutable values with a JSON form.

Changed by `agent_core.control.machine` only, one version at a time, in the same order on every Raft member.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from agent_core.cluster import ADDRESS_ALLOWED, MAX_VOTERS, NAME_ALLOWED, NAME_PATTERN, RAFT_MEMBERS, HostPort
from agent_core.errors import InvalidRequest
from agent_core.routing import MAX_SHARD_COUNT

MAX_MEMBERS = 64
MAX_JSON_BYTES = 256 * 1024
"""The largest map, with every name and address at its longest, is below 128 KiB."""

Epoch = Annotated[int, Field(ge=0, lt=2**63)]
STRICT = ConfigDict(strict=True, extra="forbid")


@dataclass(frozen=True, slots=True)
class Member:
    """A node of the cluster and where it is reached.

    Attributes:
        node_id: Stable for the node's life.
        grpc_address: `host:port` for clients and for other nodes.
        http_address: `host:port` for HTTP/JSON, health and metrics.
        voter: Counts for quorums and may lead groups; a reader does neither.
        raft_address: `host:port` of its part in the Raft group that keeps this map; None when it has none.
        draining: Its groups are to move to other nodes, and none may come to it.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    node_id: str
    grpc_address: str
    http_address: str
    voter: bool
    raft_address: str | None
    draining: bool = False


@dataclass(frozen=True, slots=True)
class Placement:
    """Who leads one group.

    Attributes:
        epoch: The last epoch that the map heard of; 0 before the first.
        primary: The node that leads it; None before the first epoch.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    epoch: Epoch = 0
    primary: str | None = None


@dataclass(frozen=True, slots=True)
class ClusterMap:
    """What all nodes agree on.

    Attributes:
        version: Rises by one with each change; 0 until the cluster is formed.
        cluster_id: Chosen when the cluster is created; empty until it is formed.
        shard_count: Session shards.
        members: Voters and readers, in the order of the configuration.
        placements: One for each shard group, by group number.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    version: Annotated[int, Field(ge=0, lt=2**63)]
    cluster_id: str
    shard_count: Annotated[int, Field(ge=0, le=MAX_SHARD_COUNT)]
    members: Annotated[tuple[Member, ...], Field(max_length=MAX_MEMBERS)]
    placements: Annotated[tuple[Placement, ...], Field(max_length=MAX_SHARD_COUNT)]

    @property
    def formed(self) -> bool:
        """Whether the cluster's members were ever agreed on."""
        return self.version > 0

    def member(self, node_id: str) -> Member:
        """The member of this name.

        Raises:
            KeyError: There is none.
        """
        for member in self.members:
            if member.node_id == node_id:
                return member
        raise KeyError(f"no node {node_id!r}; the cluster has {', '.join(one.node_id for one in self.members)}")

    def voters(self) -> tuple[str, ...]:
        """The names of the nodes that count for quorums and may lead."""
        return tuple(member.node_id for member in self.members if member.voter)

    def led_by(self, node_id: str) -> tuple[int, ...]:
        """The groups that the map gives to a node."""
        return tuple(group for group, placement in enumerate(self.placements) if placement.primary == node_id)

    def problems(self) -> Iterator[str]:
        """What is wrong with it, one sentence each; nothing for an unformed map that is empty."""
        if not self.formed:
            if self != EMPTY:
                yield "version is 0; a map that is not formed is empty"
            return
        if not NAME_PATTERN.fullmatch(self.cluster_id):
            yield f"cluster_id is {self.cluster_id!r}; allowed are {NAME_ALLOWED}"
        if not 1 <= self.shard_count <= MAX_SHARD_COUNT:
            yield f"shard_count is {self.shard_count}; allowed are 1 to {MAX_SHARD_COUNT}"
        if not 1 <= len(self.placements) <= self.shard_count:
            yield f"there are {len(self.placements)} groups; allowed are 1 to shard_count ({self.shard_count})"
        yield from self._member_problems()
        voters = self.voters()
        for group, placement in enumerate(self.placements):
            if (placement.epoch == 0) != (placement.primary is None):
                yield f"group {group} has epoch {placement.epoch} and primary {placement.primary!r}"
            elif placement.primary is not None and placement.primary not in voters:
                yield f"group {group} is led by {placement.primary!r}; allowed are the voters {', '.join(voters)}"

    def _member_problems(self) -> Iterator[str]:
        if len(self.members) > MAX_MEMBERS:
            yield f"there are {len(self.members)} members; allowed are 1 to {MAX_MEMBERS}"
        for member in self.members:
            if not NAME_PATTERN.fullmatch(member.node_id):
                yield f"a member is named {member.node_id!r}; allowed are {NAME_ALLOWED}"
            for address in addresses(member):
                if not _is_address(address):
                    yield f"member {member.node_id} has the address {address!r}; allowed is {ADDRESS_ALLOWED}"
        yield from _repetitions("member", (member.node_id for member in self.members))
        yield from _repetitions("address", (address for member in self.members for address in addresses(member)))
        if not 1 <= len(self.voters()) <= MAX_VOTERS:
            yield f"there are {len(self.voters())} voters; allowed are 1 to {MAX_VOTERS}"
        raft_members = sum(member.raft_address is not None for member in self.members)
        if raft_members not in RAFT_MEMBERS:
            yield f"there are {raft_members} Raft members; allowed are 1, 3 or 5"


EMPTY = ClusterMap(version=0, cluster_id="", shard_count=0, members=(), placements=())
"""The map before the cluster is formed."""

_JSON = TypeAdapter(ClusterMap)


def addresses(member: Member) -> tuple[str, ...]:
    """Every address that a member has."""
    return (
        member.grpc_address,
        member.http_address,
        *(() if member.raft_address is None else (member.raft_address,)),
    )


def to_json(cluster_map: ClusterMap) -> str:
    """The map as one line of JSON."""
    return _JSON.dump_json(cluster_map).decode()


def from_json(text: str) -> ClusterMap:
    """Read what `to_json` wrote.

    Raises:
        InvalidRequest: It is not a map, or one that contradicts itself.
    """
    if len(text) > MAX_JSON_BYTES:
        raise InvalidRequest(f"a cluster map of {len(text)} characters; allowed are {MAX_JSON_BYTES}")
    try:
        cluster_map = _JSON.validate_json(text)
    except ValidationError as error:
        raise InvalidRequest(f"not a cluster map: {describe(error)}") from error
    problems = list(cluster_map.problems())
    if problems:
        raise InvalidRequest(f"not a cluster map: {'; '.join(problems[:5])}")
    return cluster_map


def describe(error: ValidationError) -> str:
    """The first few things that a check of JSON found, without what was given."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    return "; ".join(f"{'.'.join(map(str, one['loc'])) or 'content'}: {one['msg']}" for one in found[:5])


def _is_address(text: str) -> bool:
    try:
        HostPort.parse(text)
    except ValueError:
        return False
    return True


def _repetitions(what: str, values: Iterable[str]) -> Iterator[str]:
    for value, times in Counter(values).items():
        if times > 1:
            yield f"the {what} {value!r} is there {times} times; each must be different"
