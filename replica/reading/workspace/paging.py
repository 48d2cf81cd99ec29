"""Page tokens of document lists: the last key of a page, opaque to clients and checked when it comes back."""

from __future__ import annotations

import math
from typing import NamedTuple

from agent_core.workspace.names import path_problem
from replica.reading import page_token


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
    return page_token.encode(list(key))


def decode_page_token(token: str) -> DocumentKey | None:
    """The key that a token from outside continues after; None for the empty token.

    Raises:
        InvalidRequest: It is not a token of such a list.
    """
    if not token:
        return None
    match page_token.decode(token):
        case [float(relevance), str(path)] if math.isfinite(relevance) and path_problem(path) is None:
            return DocumentKey(relevance, path)
    raise page_token.refusal()
