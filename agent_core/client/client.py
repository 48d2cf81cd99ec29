"""The client: sessions, appends, transcripts and subscriptions of a cluster, for asyncio."""

from __future__ import annotations

import secrets
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from types import TracebackType
from typing import Any

import orjson

from agent_core.client.append_stream import AppendStream
from agent_core.client.calls import call_unary
from agent_core.client.endpoints import Endpoints
from agent_core.client.model import Appended, CreatedSession, Entry, created_session_from_wire
from agent_core.client.reads import SessionReads
from agent_core.client.subscription import Subscription
from agent_core.client.tracing import traced_append
from agent_core.errors import InvalidRequest, OutcomeUnknown, Unavailable
from agent_core.quorum import Acknowledgement
from agent_core.rpc import session_pb2
from agent_core.rpc.session_pb2_grpc import SessionsStub
from agent_core.tracing import Tracer

DEFAULT_TIMEOUT_SECONDS = 10.0
MAX_IN_FLIGHT = 4096
MAX_IN_FLIGHT_BYTES = 64 << 20
MAX_PAYLOAD_BYTES = (64 << 20) - (64 << 10)
"""A little less than the largest message, so that the largest append has room in one."""

_WIRE_ACKNOWLEDGEMENTS: Mapping[str | None, session_pb2.Acknowledgement.ValueType] = {
    None: session_pb2.ACKNOWLEDGEMENT_UNSPECIFIED,
    Acknowledgement.LOCAL: session_pb2.ACKNOWLEDGEMENT_LOCAL,
    Acknowledgement.QUORUM: session_pb2.ACKNOWLEDGEMENT_QUORUM,
    Acknowledgement.ALL: session_pb2.ACKNOWLEDGEMENT_ALL,
}


class Client(SessionReads):
    """A connection to a cluster, to be used as `async with Client("127.0.0.1:7101") as client:`.

    The appends of any number of sessions share one stream, and those that wait at the same time share a message:
    call `append` from as many tasks as there are sessions. Everything that can be repeated safely is, until
    `timeout_seconds` have passed; the appends of one session keep the order in which they were called for.

    Args:
        addresses: One node or several, each `host:port`. The first that serves is used, and the primary that
            a node names in its refusal is followed.
        acknowledgement: What must hold before a write counts as safe; None: as the cluster is configured.
        timeout_seconds: How long a call may take, all of its attempts together.
        max_in_flight: Appends that may be unanswered at one time; further callers wait their turn.
        max_in_flight_bytes: The same bound in bytes.
        tracer: Records appends as traces, together with the nodes that have a collector configured;
            `agent_core.open_telemetry.OpenTelemetryTracer` is one. It stays the caller's to close.
        discover: Learn the cluster's other nodes from the one that was reached, beside the work, and turn to them
            when those that were given do not serve; False: use none but these, and the primary that they name.

    Raises:
        ValueError: An address is not `host:port`, or a bound is not positive.
    """

    def __init__(
        self,
        addresses: str | Sequence[str],
        *,
        acknowledgement: Acknowledgement | str | None = None,
        timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
        max_in_flight: int = MAX_IN_FLIGHT,
        max_in_flight_bytes: int = MAX_IN_FLIGHT_BYTES,
        tracer: Tracer | None = None,
        discover: bool = True,
    ) -> None:
        for name, value in (
            ("timeout_seconds", timeout_seconds),
            ("max_in_flight", max_in_flight),
            ("max_in_flight_bytes", max_in_flight_bytes),
        ):
            if value <= 0:
                raise ValueError(f"{name} must be greater than 0; got {value}")
        super().__init__(Endpoints(addresses, discover=discover), SessionsStub, timeout_seconds)
        self._acknowledgement = None if acknowledgement is None else Acknowledgement(acknowledgement)
        self._max_in_flight = max_in_flight
        self._max_in_flight_bytes = max_in_flight_bytes
        self._tracer = tracer
        self._key_prefix = secrets.token_hex(8)
        self._keys = 0
        self._appends: AppendStream | None = None

    async def __aenter__(self) -> Client:
        self._appends = AppendStream(
            self._endpoints,
            timeout_seconds=self._timeout_seconds,
            max_in_flight=self._max_in_flight,
            max_in_flight_bytes=self._max_in_flight_bytes,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections; appends that still wait fail, as unknown if they were sent. Repeatable."""
        if self._appends is not None:
            await self._appends.close()
        await self._endpoints.close()

    async def create_session(
        self,
        *,
        session_id: str | None = None,
        workspace: str = "",
        title: str = "",
        provider: str = "",
        model: str = "",
        parent_session_id: str = "",
        created_at_ms: int = 0,
        metadata: Mapping[str, Any] | None = None,
        acknowledgement: Acknowledgement | str | None = None,
    ) -> CreatedSession:
        """Create a session, or find it when its id exists already; `created` tells which.

        Args:
            session_id: Letters, digits, dots, underscores, colons, hyphens; None: a random UUID.
            workspace: The workspace that it works in.
            title: For people.
            provider: Of the model.
            model: Its name.
            parent_session_id: The session that started this one.
            created_at_ms: Milliseconds since the Unix epoch; 0: the primary's clock.
            metadata: Whatever else should be kept, as JSON.
            acknowledgement: As for `append`.

        Raises:
            InvalidRequest: A field is wrong.
            OutcomeUnknown: The request was sent and not answered in time; calling again is safe.
            Unavailable: No node could be reached in time.
        """
        try:
            session = session_pb2.Session(
                session_id=str(uuid.uuid4()) if session_id is None else session_id,
                workspace=workspace,
                title=title,
                provider=provider,
                model=model,
                parent_session_id=parent_session_id,
                created_at_ms=created_at_ms,
                metadata_json=_encode_json("metadata", metadata or {}),
            )
        except ValueError as error:
            raise InvalidRequest(f"a field of the session cannot be sent: {error}") from error
        request = session_pb2.CreateSessionRequest(
            session=session, acknowledgement=self._wire_acknowledgement(acknowledgement)
        )
        response = await call_unary(
            self._endpoints,
            SessionsStub,
            "CreateSession",
            request,
            session_pb2.CreateSessionResponse,
            timeout_seconds=self._timeout_seconds,
            unanswered=OutcomeUnknown,
        )
        return created_session_from_wire(response)

    async def append(
        self,
        session_id: str,
        kind: str,
        payload: Mapping[str, Any] | bytes,
        *,
        idempotency_key: str | None = None,
        created_at_ms: int = 0,
        acknowledgement: Acknowledgement | str | None = None,
    ) -> Appended:
        """Append one entry to a session and wait until it is acknowledged.

        Args:
            session_id: The session.
            kind: For example `message`.
            payload: A JSON object, or its encoded text.
            idempotency_key: The entry exists once however often it is appended under this key; None: a key of
                its own, which makes the client's repetitions safe.
            created_at_ms: Milliseconds since the Unix epoch; 0: the primary's clock.
            acknowledgement: What must hold before this write counts as safe; None: as the client was told.

        Raises:
            InvalidRequest: A field is wrong.
            SessionNotFound: No session of this id.
            OutcomeUnknown: It was sent and not acknowledged in time; repeating it with the same key is safe.
            Unavailable: It could not be sent in time, or the client is closed; it was not written.
            WriteFailed: The primary could not write it.
        """
        if self._appends is None:
            raise Unavailable("the client is not open: use it as `async with Client(…) as client`")
        if not isinstance(payload, bytes):
            payload = _encode_json("payload", payload)
        if len(payload) > MAX_PAYLOAD_BYTES:
            raise InvalidRequest(f"payload is {len(payload)} bytes; allowed are {MAX_PAYLOAD_BYTES}")
        if idempotency_key is None:
            self._keys += 1
            idempotency_key = f"{self._key_prefix}{self._keys:x}"
        try:
            request = session_pb2.AppendRequest(
                session_id=session_id,
                kind=kind,
                payload_json=payload,
                created_at_ms=created_at_ms,
                idempotency_key=idempotency_key,
                acknowledgement=self._wire_acknowledgement(acknowledgement),
            )
        except ValueError as error:
            raise InvalidRequest(f"a field of the append cannot be sent: {error}") from error
        if self._tracer is None:
            return await self._appends.append(request)
        return await traced_append(self._tracer, self._appends, request)

    def subscribe(
        self, session_id: str, after_seq: int = 0, *, until_caught_up: bool = False
    ) -> AsyncIterator[Entry]:
        """A session's entries after a cursor, then each new one as it is acknowledged; no gap, no duplicate.

        A stream that breaks, or that asks to resume, is replaced by another after the last entry.

        Args:
            session_id: The session.
            after_seq: The last entry that is known already; 0: from the beginning.
            until_caught_up: End where the present end of the transcript is reached.

        Raises:
            SessionNotFound: No session of this id.
            Unavailable: No node answered for `timeout_seconds`.
        """
        return Subscription(
            self._endpoints,
            session_id,
            after_seq=after_seq,
            timeout_seconds=self._timeout_seconds,
            until_caught_up=until_caught_up,
        ).entries()

    def _wire_acknowledgement(
        self, acknowledgement: Acknowledgement | str | None
    ) -> session_pb2.Acknowledgement.ValueType:
        if acknowledgement is None:
            acknowledgement = self._acknowledgement
        try:
            return _WIRE_ACKNOWLEDGEMENTS[acknowledgement]
        except KeyError:
            raise InvalidRequest(f"acknowledgement must be local, quorum or all; got {acknowledgement!r}") from None


def _encode_json(field: str, document: Mapping[str, Any]) -> bytes:
    try:
        return orjson.dumps(document if isinstance(document, dict) else dict(document))
    except (TypeError, ValueError) as error:
        raise InvalidRequest(f"{field} is not a JSON object: {error}") from error
