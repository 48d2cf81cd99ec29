"""Page tokens of document lists: the last key of a page, opaque to clients and checked when it comes back."""

from __future__ import annotations

import base64
import binascii
import math
from typing import NamedTuple

import orjson

from agent_core.errors import InvalidRequest
from agent_core.workspace.names import path_problem

MAX_TOKEN_CHARACTERS = 1024


class DocumentKey(NamedTuple):
    """Where a page ended.

    Attributes:
        relevance: Of a full-text search, less is better; 0 in a list by path.
        path: Orders documents of equal relevance.
    """

    relevance: float
    path: str


def encode_page_token(key: DocumentKey) -> str:
    """The token that continues a list after `key`."""
    return base64.urlsafe_b64encode(orjson.dumps(list(key))).decode().rstrip("=")


def decode_page_token(token: str) -> DocumentKey | None:
    """The key that a token from outside continues after; None for the empty token.

    Raises:
        InvalidRequest: It is not a token of such a list.
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
        case [float(relevance), str(path)] if math.isfinite(relevance) and path_problem(path) is None:
            return DocumentKey(relevance, path)
    raise refusal
