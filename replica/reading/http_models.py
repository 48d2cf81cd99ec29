"""The JSON of the read side's HTTP interface, as its OpenAPI page shows it."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from replica.reading.freshness import MAX_STALENESS_SECONDS
from replica.reading.positions import MAX_WAIT_SECONDS

MAX_NUMBER = 2**32 - 1
"""Of numbers that a node's configuration bounds further; over gRPC they have 32 bits."""

MaxStaleness = Annotated[
    int,
    Field(
        description="Wait until nothing that is read is older than this; any age if absent.",
        ge=0,
        le=int(MAX_STALENESS_SECONDS * 1000),
    ),
]
Wait = Annotated[
    int,
    Field(description="How long to wait for both together; 2000 if absent.", ge=0, le=int(MAX_WAIT_SECONDS * 1000)),
]
Number = Annotated[int, Field(ge=0, le=MAX_NUMBER)]


class GroupPositionModel(BaseModel):
    """A position in the history of a shard group."""

    group: int
    position: str = Field(description="epoch:lsn", examples=["3:1204"])
    age_seconds: float = Field(description="For how long the primary may have held more; 0 on the primary itself.")


class SessionModel(BaseModel):
    """One session; times in milliseconds since the epoch (1970)."""

    session_id: str
    workspace: str
    title: str
    status: str
    provider: str
    model: str
    parent_session_id: str
    created_at_ms: int
    updated_at_ms: int
    entry_count: int
    metadata: dict[str, Any]


class EntryModel(BaseModel):
    """One entry of a transcript; the time in milliseconds since the epoch (1970)."""

    seq: int
    kind: str
    payload: Any
    created_at_ms: int
    idempotency_key: str


class FollowedEntryModel(EntryModel):
    """An entry of a followed session, as the event `entry` brings it."""

    position: GroupPositionModel


class SessionsResponse(BaseModel):
    """One page of sessions."""

    sessions: list[SessionModel]
    next_page_token: str = Field(description="Continues the list; empty: no further page.")
    positions: list[GroupPositionModel] = Field(description="Every group's position that was read at.")


class SessionResponse(BaseModel):
    """One session."""

    session: SessionModel
    position: GroupPositionModel


class TranscriptResponse(BaseModel):
    """Entries of one session in order."""

    entries: list[EntryModel]
    more: bool = Field(description="More entries follow the last one.")
    position: GroupPositionModel


class ToolCallModel(BaseModel):
    """One call of a tool; times in milliseconds since the epoch (1970)."""

    tool_call_id: str
    name: str
    seq: int = Field(description="Of the entry that made the call.")
    arguments: Any
    status: str = Field(description="pending, completed or errored")
    started_at_ms: int
    ended_at_ms: int | None
    result_seq: int | None = Field(description="Of the entry that holds the outcome.")


class ToolCallsResponse(BaseModel):
    """Tool calls of one session in order."""

    tool_calls: list[ToolCallModel]
    more: bool = Field(description="The transcript goes on past the entries that were read.")
    position: GroupPositionModel


class QueryBody(BaseModel):
    """One reading SQL statement, and at most one shard to run it over; none: all shards."""

    model_config = ConfigDict(extra="forbid", strict=True)

    sql: str = Field(examples=["SELECT kind, count(*) FROM transcript WHERE session_id = :session GROUP BY kind"])
    shard: Number | None = None
    session_id: str | None = Field(default=None, description="The shard that holds this session.")
    workspace: bool = Field(default=False, description="The workspace shard.")
    parameters: list[Any] | dict[str, Any] = Field(
        default_factory=list,
        description='Positional (?) or named (:name over one shard, $name over all); blobs as {"base64": "…"}.',
        examples=[{"session": "fix-login"}],
    )
    max_rows: Number | None = None
    timeout_ms: Number | None = None
    min_position: str | None = None
    max_staleness_ms: MaxStaleness | None = None
    wait_ms: Wait | None = None


class QueryResponse(BaseModel):
    """The rows of a query."""

    columns: list[str]
    rows: list[list[Any]] = Field(
        description='Blobs as {"base64": "…"}; infinities as null; integers have 64 bits.'
    )
    row_count: int
    truncated: bool = Field(description="max_rows or the limit on bytes cut the result.")
    shard: int | None = Field(description="The shard that was read; null: all of them.")
    positions: list[GroupPositionModel] = Field(description="Of every group that was read.")


class ErrorModel(BaseModel):
    """An error's code (see `agent_core.errors`) and what happened, for people."""

    code: str
    message: str
    retry: bool = Field(description="Whether the same request may succeed a moment later.")


class ErrorResponse(BaseModel):
    """What every request that fails is answered with."""

    error: ErrorModel
