"""Answers of nodes as `headwater top` hears them: three nodes, of which the first leads."""

from __future__ import annotations

from agent_core.rpc.administration_pb2 import GroupElection, GroupStatus, StandbyStatus, StatusResponse
from agent_core.rpc.replication_pb2 import Position
from agent_core.rpc.session_pb2 import Session

ADDRESSES = ["127.0.0.1:7101", "127.0.0.1:7102", "127.0.0.1:7103"]


def answer(node: int, *groups: GroupStatus, **fields: object) -> StatusResponse:
    """What `node-N` says of itself."""
    response = StatusResponse(
        cluster_id="oak",
        node_id=f"node-{node}",
        acknowledgement="quorum",
        http_address=f"127.0.0.1:720{node}",
        version="0.1.0",
        shard_count=16,
        shard_group_count=1,
        raft_leader="node-1",
        map_version=4,
        groups=groups,
        elections=[GroupElection(group=0, primary="node-1", epoch=3, promised_epoch=3, promised_to="node-1")],
    )
    response.MergeFrom(StatusResponse(**fields))  # type: ignore[arg-type] # whatever fields a test names
    return response


def leading(
    *, group: int = 0, appends: int = 0, lsn: int = 1200, lags: dict[str, float] | None = None
) -> GroupStatus:
    """A group on its primary, with its standbys' lag in seconds."""
    return GroupStatus(
        group=group,
        role="primary",
        epoch=3,
        durable=Position(epoch=3, lsn=lsn),
        committed_lsn=lsn,
        applied_lsn=lsn,
        wal_bytes=2_000_000,
        log_bytes=30_000_000,
        state="leading",
        acknowledged_appends=appends,
        standbys=[
            StandbyStatus(node_id=node, lag_seconds=seconds, lag_transactions=int(seconds * 100))
            for node, seconds in (lags or {}).items()
        ],
    )


def following(*, group: int = 0, lag: float = 0.002, lsn: int = 1200) -> GroupStatus:
    """A group on a standby."""
    return GroupStatus(
        group=group,
        role="standby",
        epoch=3,
        durable=Position(epoch=3, lsn=lsn),
        committed_lsn=lsn,
        applied_lsn=lsn,
        state="following",
        lag_seconds=lag,
        lag_transactions=int(lag * 100),
    )


def session(number: int, entries: int, title: str = "") -> Session:
    """A session of a page."""
    return Session(
        session_id=f"session-{number}",
        title=title or f"Mend the {number}th leak",
        workspace="barn",
        entry_count=entries,
    )
