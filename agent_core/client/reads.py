"""Reading sessions: the same calls at their primary (`Client`) and on any node (`Reader`)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc.aio

from agent_core.client.calls import call_unary
from agent_core.client.endpoints import Endpoints
from agent_core.client.model import Entry, Session, entry_from_wire, session_from_wire
from agent_core.errors import InvalidRequest
from agent_core.position import Position
from agent_core.rpc import replication_pb2, session_pb2


class SessionReads:
    """The reading calls that the services `Sessions` and `Reading` have in common."""

    def __init__(
        self, endpoints: Endpoints, stub: Callable[[grpc.aio.Channel], Any], timeout_seconds: float
    ) -> None:
        self._endpoints = endpoints
        self._stub = stub
        self._timeout_seconds = timeout_seconds

    @property
    def address(self) -> str:
        """The node that calls go to at present."""
        return self._endpoints.current

    async def get_session(self, session_id: str) -> Session:
        """What is known of a session besides its entries.

        Raises:
            SessionNotFound: No session of this id.
            Unavailable: No node answered in time.
        """
        response = await call_unary(
            self._endpoints,
            self._stub,
            "GetSession",
            session_pb2.GetSessionRequest(session_id=session_id),
            session_pb2.GetSessionResponse,
            timeout_seconds=self._timeout_seconds,
        )
        return session_from_wire(response.session)

    async def list_sessions(
        self,
        *,
        workspace: str = "",
        status: str = "",
        model: str = "",
        text: str = "",
        updated_after_ms: int = 0,
        updated_before_ms: int = 0,
        created_after_ms: int = 0,
        created_before_ms: int = 0,
        sort: str = "",
        order: str = "",
        page_size: int = 0,
    ) -> AsyncIterator[Session]:
        """Every session that fits, fetched page by page.

        Args:
            workspace: Only of this workspace.
            status: Only `running`, `idle` or `stopped`.
            model: Only of this model.
            text: Only with this text in the title or the session id.
            updated_after_ms: Only updated after this moment, in milliseconds since 1970; 0: any.
            updated_before_ms: Only updated before this moment.
            created_after_ms: Only created after this moment.
            created_before_ms: Only created before this moment.
            sort: `updated`, `created` or `title`; empty: `updated`.
            order: `asc` or `desc`; empty: the newest first, or titles from their first letter.
            page_size: Sessions per page, 1 to 1000; 0: the server's default.

        Raises:
            InvalidRequest: A filter or the order is wrong.
            Unavailable: No node answered in time.
        """
        try:
            request = session_pb2.ListSessionsRequest(
                workspace=workspace,
                status=status,
                model=model,
                text=text,
                updated_after_ms=updated_after_ms,
                updated_before_ms=updated_before_ms,
                created_after_ms=created_after_ms,
                created_before_ms=created_before_ms,
                sort=sort,
                order=order,
                page_size=page_size,
            )
        except ValueError as error:
            raise InvalidRequest(f"a filter of the session list cannot be sent: {error}") from error
        while True:
            page = await call_unary(
                self._endpoints,
                self._stub,
                "ListSessions",
                request,
                session_pb2.ListSessionsResponse,
                timeout_seconds=self._timeout_seconds,
            )
            for session in page.sessions:
                yield session_from_wire(session)
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def transcript(
        self, session_id: str, after_seq: int = 0, *, min_position: Position | None = None
    ) -> AsyncIterator[Entry]:
        """A session's entries after a cursor, as far as they go now, fetched page by page.

        Args:
            session_id: The session.
            after_seq: The cursor: the last entry that is known already; 0 for none.
            min_position: Wait until the node has applied this position of the session's group; None: whatever
                it has.

        Raises:
            SessionNotFound: No session of this id.
            PositionNotReached: The node did not reach `min_position` in time.
            PositionLost: It never will: another primary's history has replaced that one.
            Unavailable: No node answered in time.
        """
        request = session_pb2.GetTranscriptRequest(session_id=session_id, after_seq=after_seq)
        if min_position is not None:
            request.min_position.CopyFrom(position_to_wire(min_position))
        while True:
            page = await call_unary(
                self._endpoints,
                self._stub,
                "GetTranscript",
                request,
                session_pb2.GetTranscriptResponse,
                timeout_seconds=self._timeout_seconds,
            )
            for entry in page.entries:
                yield entry_from_wire(entry)
            if not page.more or not page.entries:
                return
            request.after_seq = page.entries[-1].seq


def position_to_wire(position: Position) -> replication_pb2.Position:
    """A position as it is sent."""
    return replication_pb2.Position(epoch=position.epoch, lsn=position.lsn)
