"""Page tokens of the session list: the last key of a page, opaque to clients and checked when it comes back."""

from __future__ import annotations

import base64
import binascii
from typing import NamedTuple

import orjson

from agent_core.errors import InvalidRequest
from agent_core.routing import SESSION_ID_PATTERN

MAX_TOKEN_CHARACTERS = 512


class PageKey(NamedTuple):
    """Where a page ended; the list is ordered by `updated_at_ms` descending, then `session_id`."""

    updated_at_ms: int
    session_id: str


def encode_page_token(key: PageKey) -> str:
    """The token that continues a list after `key`."""
    return base64.urlsafe_b64encode(orjson.dumps(list(key))).decode().rstrip("=")


def decode_page_token(token: str) -> PageKey | None:
    """The key that a token from outside continues after; None for the empty token.

    Raises:
        InvalidRequest: It is not a token of this list.
    """
    if not token:
        return None
    refusal = InvalidRequest("page_token is not one that this list returned as next_page_token")
    if len(token) > MAX_TOKEN_CHARACTERS:
        raise refusal
    try:
        key = orjson.loads(base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True))
    except (binascii.Error, ValueError) as error:
        raise refusal from error
    match key:
        case [int(updated_at_ms), str(session_id)] if (
            type(updated_at_ms) is int and abs(updated_at_ms) < 2**63 and SESSION_ID_PATTERN.fullmatch(session_id)
        ):
            return PageKey(updated_at_ms, session_id)
    raise refusal
