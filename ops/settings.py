"""The settings of a node: every key of its configuration file, with its default, its bounds and its meaning.

The sections are the tables of the file. What one value may be stands at the value; what several values must
be to each other stands in the validators below them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator
from pydantic_core import PydanticCustomError

from agent_core.cluster import Cluster, InvalidCluster, NodeAddress, is_loopback
from agent_core.quorum import Acknowledgement
from agent_core.routing import MAX_SHARD_COUNT, ShardLayout
from ops.tracing import endpoint_problem

KIB = 1024
MIB = 1024 * KIB

RELATION_ERROR = "relation"
"""The type of validation errors about several values; `problems` in their context are whole sentences."""

Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]
Mebibytes = Annotated[int, Field(ge=1, le=1024 * 1024)]


class Section(BaseModel):
    """A table of the file: unknown keys are refused, and nothing changes once it is loaded."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def _require(problems: Sequence[str]) -> None:
    if problems:
        raise PydanticCustomError(RELATION_ERROR, "{problems}", {"problems": tuple(problems)})


class ClusterSection(Section):
    """What all nodes of the cluster share; id and counts are fixed when it is created."""

    id: str
    shard_count: int = Field(default=16, ge=1, le=MAX_SHARD_COUNT)
    shard_group_count: int = Field(default=1, ge=1, le=MAX_SHARD_COUNT)
    acknowledgement: Acknowledgement = Acknowledgement.QUORUM

    @model_validator(mode="after")
    def _groups_fit_shards(self) -> Self:
        if self.shard_group_count > self.shard_count:
            _require(
                [
                    f"cluster.shard_group_count is {self.shard_group_count}; "
                    f"allowed are 1 to cluster.shard_count ({self.shard_count})"
                ]
            )
        return self


class NodeSection(Section):
    """Which of the nodes this one is, and where it keeps its data."""

    id: str
    data_directory: Path = Path("data")


class NodeEntry(Section):
    """One `[[nodes]]` table: a member of the cluster."""

    id: str
    grpc: str
    http: str
    raft: str | None = None
    voter: bool = True


class LimitsSection(Section):
    """Bounds on what callers may send, queue and ask."""

    entry_bytes: int = Field(default=16 * MIB, ge=KIB, le=256 * MIB)
    queue_entries: int = Field(default=8192, ge=1, le=1_000_000)
    queue_bytes: int = Field(default=64 * MIB, ge=64 * KIB, le=4096 * MIB)
    batch_bytes: int = Field(default=16 * MIB, ge=64 * KIB, le=1024 * MIB)
    uncommitted_bytes: int = Field(default=64 * MIB, ge=64 * KIB, le=4096 * MIB)
    request_bytes: int = Field(default=1 * MIB, ge=KIB, le=64 * MIB)
    sql_workers: int = Field(default=2, ge=1, le=64)
    sql_seconds: float = Field(default=30.0, gt=0, le=600, allow_inf_nan=False)
    sql_rows: int = Field(default=100_000, ge=1, le=10_000_000)
    sql_result_bytes: int = Field(default=8 * MIB, ge=KIB, le=32 * MIB)
    sql_memory_mib: int = Field(default=256, ge=16, le=16 * 1024)

    @model_validator(mode="after")
    def _one_batch_fits_the_queues(self) -> Self:
        problems = []
        if self.entry_bytes > self.batch_bytes:
            problems.append(
                f"limits.batch_bytes is {self.batch_bytes}; allowed is limits.entry_bytes ({self.entry_bytes}) "
                "or more: a batch must be able to take the largest entry"
            )
        for key, value in (("queue_bytes", self.queue_bytes), ("uncommitted_bytes", self.uncommitted_bytes)):
            if value < self.batch_bytes:
                problems.append(
                    f"limits.{key} is {value}; allowed is limits.batch_bytes ({self.batch_bytes}) or more"
                )
        _require(problems)
        return self


class SessionsSection(Section):
    """How long and how many sessions stay in memory."""

    idle_seconds: Seconds = 300.0
    memory_budget_mib: Mebibytes = 512


class StorageSection(Section):
    """The replication log and the checkpoints of the shards."""

    segment_mib: int = Field(default=64, ge=1, le=1024)
    log_retention_mib: Mebibytes = 1024
    log_tail_mib: Mebibytes = 32
    checkpoint_mib: Mebibytes = 4
    """Of a shard's WAL. Checkpoints run beside the writers: more makes them rarer, less keeps WALs small."""

    @model_validator(mode="after")
    def _retention_spans_segments(self) -> Self:
        problems = []
        if self.log_retention_mib < 2 * self.segment_mib:
            problems.append(
                f"storage.log_retention_mib is {self.log_retention_mib}; allowed is twice storage.segment_mib "
                f"({2 * self.segment_mib}) or more: only whole segments are dropped"
            )
        if self.log_tail_mib > self.log_retention_mib:
            problems.append(
                f"storage.log_tail_mib is {self.log_tail_mib}; allowed are 1 to storage.log_retention_mib "
                f"({self.log_retention_mib})"
            )
        _require(problems)
        return self


class ReplicationSection(Section):
    """The streams to the standbys and the wait for their acknowledgement."""

    heartbeat_seconds: Seconds = 0.1
    acknowledgement_timeout_seconds: Seconds = 5.0
    window_mib: int = Field(default=16, ge=1, le=1024)

    @model_validator(mode="after")
    def _timeout_spans_heartbeats(self) -> Self:
        if self.acknowledgement_timeout_seconds < 2 * self.heartbeat_seconds:
            _require(
                [
                    f"replication.acknowledgement_timeout_seconds is {self.acknowledgement_timeout_seconds:g}; "
                    f"allowed is twice replication.heartbeat_seconds ({2 * self.heartbeat_seconds:g}) or more"
                ]
            )
        return self


class ElectionSection(Section):
    """How failures are noticed, and how the Raft members, who keep the map of primaries, trust each other."""

    failure_timeout_seconds: Seconds = 1.0
    lease_seconds: Seconds = 0.6
    raft_password: SecretStr | None = None


class TracingSection(Section):
    """Traces of single appends, for an OpenTelemetry collector."""

    endpoint: str = ""

    @model_validator(mode="after")
    def _endpoint_is_an_address(self) -> Self:
        problem = endpoint_problem(self.endpoint)
        if problem is not None:
            _require([f"tracing.endpoint {problem}"])
        return self


class LogSection(Section):
    """The node's own structured log, written to standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "console"] = "auto"


class NodeConfiguration(Section):
    """Everything that a node is told. Make one with `ops.config.load`."""

    cluster: ClusterSection
    node: NodeSection
    nodes: tuple[NodeEntry, ...] = Field(max_length=64)
    limits: LimitsSection = LimitsSection()
    sessions: SessionsSection = SessionsSection()
    storage: StorageSection = StorageSection()
    replication: ReplicationSection = ReplicationSection()
    election: ElectionSection = ElectionSection()
    tracing: TracingSection = TracingSection()
    log: LogSection = LogSection()

    @cached_property
    def cluster_map(self) -> Cluster:
        """The cluster's nodes, shards and groups.

        Raises:
            InvalidCluster: They contradict each other; not for a configuration that was validated.
        """
        return Cluster(
            cluster_id=self.cluster.id,
            layout=ShardLayout(self.cluster.shard_count, self.cluster.shard_group_count),
            nodes=tuple(
                NodeAddress(entry.id, entry.grpc, entry.http, voter=entry.voter, raft_address=entry.raft)
                for entry in self.nodes
            ),
        )

    @property
    def own_address(self) -> NodeAddress:
        """This node among the cluster's."""
        return self.cluster_map.node(self.node.id)

    @model_validator(mode="after")
    def _nodes_make_a_cluster(self) -> Self:
        problems: list[str] = []
        try:
            _ = self.cluster_map
        except InvalidCluster as invalid:
            problems.extend(invalid.problems)
        names = [entry.id for entry in self.nodes]
        if self.node.id not in names:
            problems.append(f"node.id is {self.node.id!r}; allowed are the nodes {', '.join(names) or '(none)'}")
        _require(problems)
        return self

    @model_validator(mode="after")
    def _raft_is_protected(self) -> Self:
        exposed = [entry.raft for entry in self.nodes if entry.raft is not None and not is_loopback(entry.raft)]
        password = self.election.raft_password
        if exposed and (password is None or not password.get_secret_value()):
            _require(
                [
                    f"election.raft_password is missing; {exposed[0]} is not a loopback address, and whoever "
                    "reaches an unprotected Raft port can run code on the node. Give every node the same secret, "
                    "best by the environment: HEADWATER_ELECTION__RAFT_PASSWORD"
                ]
            )
        return self

    @model_validator(mode="after")
    def _times_are_in_order(self) -> Self:
        heartbeat = self.replication.heartbeat_seconds
        lease, failure = self.election.lease_seconds, self.election.failure_timeout_seconds
        problems = []
        if lease < 3 * heartbeat:
            problems.append(
                f"election.lease_seconds is {lease:g}; allowed is three times replication.heartbeat_seconds "
                f"({3 * heartbeat:g}) or more: one late heartbeat must not end a lease"
            )
        if failure <= lease:
            problems.append(
                f"election.failure_timeout_seconds is {failure:g}; allowed is more than election.lease_seconds "
                f"({lease:g}): until a lease has ended the voters elect nobody"
            )
        if self.replication.acknowledgement_timeout_seconds < failure:
            problems.append(
                "replication.acknowledgement_timeout_seconds is "
                f"{self.replication.acknowledgement_timeout_seconds:g}; allowed is "
                f"election.failure_timeout_seconds ({failure:g}) or more"
            )
        _require(problems)
        return self
