"""What a write from outside must satisfy before anything is done with it."""

from __future__ import annotations

from dataclasses import dataclass

import orjson

from agent_core.entry_kinds import KIND_SYNTAX, is_kind
from agent_core.errors import InvalidRequest
from agent_core.quorum import Acknowledgement
from agent_core.routing import check_session_id
from agent_core.rpc.session_pb2 import AppendRequest, Session
from primary.mutation import NewEntry

MAX_KEY_CHARACTERS = 128
MAX_NAME_CHARACTERS = 256
MAX_TITLE_CHARACTERS = 1024
MAX_METADATA_BYTES = 64 << 10
MAX_TIME_MS = 1 << 50
"""Some 35,000 years: any number past it is not a time in milliseconds."""

ACKNOWLEDGEMENTS: tuple[Acknowledgement | None, ...] = (
    None,
    Acknowledgement.LOCAL,
    Acknowledgement.QUORUM,
    Acknowledgement.ALL,
)
"""By the number that stands for each on the wire; None is the cluster's own."""


@dataclass(frozen=True, slots=True)
class WriteChecks:
    """Checks writes against the limits of this node."""

    entry_bytes: int = 16 << 20

    def entry(self, request: AppendRequest) -> NewEntry:
        """An append, checked.

        Raises:
            InvalidRequest: Naming the field and its limit.
        """
        check_session_id(request.session_id)
        kind = request.kind
        if not is_kind(kind):
            raise InvalidRequest(f"kind must be {KIND_SYNTAX}; got {kind[:80]!r}")
        payload = request.payload_json
        if len(payload) > self.entry_bytes:
            raise InvalidRequest(f"payload_json has {len(payload)} bytes; at most {self.entry_bytes} are allowed")
        _check_json("payload_json", payload)
        key = request.idempotency_key
        if len(key) > MAX_KEY_CHARACTERS:
            raise InvalidRequest(
                f"idempotency_key has {len(key)} characters; at most {MAX_KEY_CHARACTERS} are allowed"
            )
        return NewEntry(
            request.session_id,
            kind,
            payload,
            _check_time(request.created_at_ms),
            key,
            acknowledgement(request.acknowledgement),
        )

    def session(self, session: Session) -> Session:
        """A session to create, checked and with its defaults.

        Raises:
            InvalidRequest: Naming the field and its limit.
        """
        check_session_id(session.session_id)
        if session.parent_session_id:
            check_session_id(session.parent_session_id)
        for field, limit in (
            ("workspace", MAX_NAME_CHARACTERS),
            ("provider", MAX_NAME_CHARACTERS),
            ("model", MAX_NAME_CHARACTERS),
            ("status", MAX_NAME_CHARACTERS),
            ("title", MAX_TITLE_CHARACTERS),
        ):
            text = getattr(session, field)
            if len(text) > limit or "\0" in text:
                raise InvalidRequest(f"{field} must be at most {limit} characters without NUL; got {len(text)}")
        if len(session.metadata_json) > MAX_METADATA_BYTES:
            raise InvalidRequest(
                f"metadata_json has {len(session.metadata_json)} bytes; at most {MAX_METADATA_BYTES} are allowed"
            )
        metadata = session.metadata_json or b"{}"
        if not isinstance(_check_json("metadata_json", metadata), dict):
            raise InvalidRequest("metadata_json must be a JSON object")
        checked = Session()
        checked.CopyFrom(session)
        checked.metadata_json = metadata
        checked.created_at_ms = _check_time(session.created_at_ms)
        checked.entry_count = 0
        return checked


def acknowledgement(number: int) -> Acknowledgement | None:
    """The mode that a number on the wire stands for; None for the cluster's own.

    Raises:
        InvalidRequest: No mode has this number.
    """
    if not 0 <= number < len(ACKNOWLEDGEMENTS):
        raise InvalidRequest(f"acknowledgement must be 0 to {len(ACKNOWLEDGEMENTS) - 1}; got {number}")
    return ACKNOWLEDGEMENTS[number]


def _check_json(field: str, text: bytes) -> object:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"{field} is not JSON: {error}") from error


def _check_time(created_at_ms: int) -> int:
    if not 0 <= created_at_ms < MAX_TIME_MS:
        raise InvalidRequest(f"created_at_ms must be milliseconds since 1970, 0 for now; got {created_at_ms}")
    return created_at_ms
