"""What the client library hands to its callers, and how it is read from the wire."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson

from agent_core.errors import HeadwaterError
from agent_core.position import Position
from agent_core.rpc import replication_pb2, session_pb2


class Appended(NamedTuple):
    """An append that was acknowledged.

    Attributes:
        seq: The entry's number in its session, from 1.
        position: Where the write stands in its group's history; pass it to a standby as `min_position`.
        group: The shard group that the position belongs to.
        duplicate: The entry of this idempotency key existed already; nothing was added.
    """

    seq: int
    position: Position
    group: int
    duplicate: bool


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a transcript.

    Attributes:
        seq: Its number in the session, from 1 without gaps.
        kind: For example `message`; unknown kinds are kept as they came.
        payload: The JSON text as it was appended.
        created_at_ms: Milliseconds since the Unix epoch.
        idempotency_key: The key under which it was appended.
    """

    seq: int
    kind: str
    payload: bytes
    created_at_ms: int
    idempotency_key: str

    def document(self) -> Any:  # noqa: ANN401 - whatever JSON value was appended
        """The payload, parsed.

        Raises:
            ValueError: The payload is not JSON.
        """
        return orjson.loads(self.payload)


@dataclass(frozen=True, slots=True)
class Session:
    """What is known of a session besides its entries. Times are milliseconds since the Unix epoch."""

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
    metadata: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class CreatedSession(Session):
    """The answer to `create_session`.

    Attributes:
        created: False when a session of this id existed already and was left as it is. A creation whose first
            answer was lost on the way says so too, because it was repeated.
        position: Where the creation stands in its group's history.
        group: The shard group that the position belongs to.
    """

    created: bool
    position: Position
    group: int


def position_from_wire(position: replication_pb2.Position) -> Position:
    """A position as the rest of the project knows it."""
    return Position(position.epoch, position.lsn)


def entry_from_wire(entry: session_pb2.Entry) -> Entry:
    """An entry as callers see it."""
    return Entry(entry.seq, entry.kind, entry.payload_json, entry.created_at_ms, entry.idempotency_key)


def session_from_wire(session: session_pb2.Session) -> Session:
    """A session as callers see it.

    Raises:
        HeadwaterError: Its metadata is not a JSON object.
    """
    return Session(**_session_fields(session))


def created_session_from_wire(response: session_pb2.CreateSessionResponse) -> CreatedSession:
    """The answer to a creation as callers see it.

    Raises:
        HeadwaterError: The session's metadata is not a JSON object.
    """
    return CreatedSession(
        **_session_fields(response.session),
        created=response.created,
        position=position_from_wire(response.position.position),
        group=response.position.group,
    )


def _session_fields(session: session_pb2.Session) -> dict[str, Any]:
    return {
        "session_id": session.session_id,
        "workspace": session.workspace,
        "title": session.title,
        "status": session.status,
        "provider": session.provider,
        "model": session.model,
        "parent_session_id": session.parent_session_id,
        "created_at_ms": session.created_at_ms,
        "updated_at_ms": session.updated_at_ms,
        "entry_count": session.entry_count,
        "metadata": _metadata(session),
    }


def _metadata(session: session_pb2.Session) -> dict[str, Any]:
    try:
        metadata = orjson.loads(session.metadata_json or b"{}")
    except orjson.JSONDecodeError as error:
        raise HeadwaterError(f"the metadata of session {session.session_id!r} is not JSON: {error}") from error
    if not isinstance(metadata, dict):
        raise HeadwaterError(
            f"the metadata of session {session.session_id!r} must be a JSON object; got {type(metadata).__name__}"
        )
    return metadata
