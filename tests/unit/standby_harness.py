"""A standby of one group, with real SQLite files, a real log and a real resync, without a network."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

from agent_core.errors import Unavailable
from agent_core.log.log import ReplicationLog
from agent_core.log.record import Record, RecordCodec, RecordKind
from agent_core.position import Position
from agent_core.routing import ShardLayout
from agent_core.rpc import replication_pb2 as pb
from primary.resync_source import ResyncSource
from replica.group_shards import Keeping
from replica.standby_group import StandbyGroup
from tests.unit.shard_histories import CLUSTER, SHARD, History, pages_of

GROUP = SHARD
LAYOUT = ShardLayout(shard_count=4, shard_group_count=4)
CODEC = RecordCodec()


class Standby:
    """A standby of one group with one shard, and the primary's shard beside it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory / "standby"
        self.shard_path = self.directory / "shards" / LAYOUT.shard_file_name(SHARD)
        self.history = History(directory / "primary.db")
        self.log = ReplicationLog.open(
            self.directory / "log", cluster_id=CLUSTER, group=GROUP, segment_bytes=100_000
        )
        self.source = ResyncSource(
            cluster_id=CLUSTER,
            group=GROUP,
            shard_paths={SHARD: self.history.path},
            wait_committed=self._committed,
            quorum_needs=lambda _: self.quorum_needs_it,
        )
        self.quorum_needs_it = False
        self.source_is_up = True
        self.group: StandbyGroup | None = None

    async def open(self, keeping: Keeping | None = None, *, contained: Position | None = None) -> StandbyGroup:
        self.group = await StandbyGroup.open(
            self.directory,
            cluster_id=CLUSTER,
            node_id="standby",
            layout=LAYOUT,
            group=GROUP,
            log=self.log,
            exchange=self._exchange,
            keeping=keeping,
            contained=contained,
        )
        self.group.begin_stream(1)
        return self.group

    async def close(self) -> None:
        if self.group is not None:
            await self.group.close()
            self.group = None

    def receive(self) -> None:
        """Take over what the primary logged since."""
        for record in self.history.records[self.log.last.lsn :]:
            self.log.append(CODEC.encode(record._replace(group=GROUP)))

    def reset_shard(self) -> int:
        """The primary's shard leaves the log's history: a transaction that no record tells of, and a reset."""
        lsn = len(self.history.records) + 1
        self.history.fill(5, table=f"unlogged_{lsn}")
        self.history.records[-1] = Record(RecordKind.RESET, GROUP, SHARD, Position(1, lsn), 0, 0, b"")
        return lsn

    def is_equal(self) -> bool:
        return pages_of(self.shard_path) == pages_of(self.history.path)

    async def _committed(self, lsn: int) -> None:
        if self.quorum_needs_it and lsn > (self.group.committed_lsn if self.group else 0):
            raise TimeoutError  # as after the source's whole wait

    def _exchange(self, requests: AsyncIterator[pb.ResyncRequest]) -> AsyncIterator[pb.ResyncResponse]:
        if not self.source_is_up:
            raise Unavailable("the primary is down")
        return self.source.serve(requests)
