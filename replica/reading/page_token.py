"""Page tokens: what a list ended with, opaque to clients, and only a list of values when it comes back."""

from __future__ import annotations

import base64
import binascii
from typing import Any

import orjson

from agent_core.errors import InvalidRequest

MAX_TOKEN_CHARACTERS = 12 << 10
"""A title of 1024 characters fits, whatever they are."""


def encode(values: list[Any]) -> str:
    """A token that holds these values."""
    return base64.urlsafe_b64encode(orjson.dumps(values)).decode().rstrip("=")


def decode(token: str) -> Any:  # noqa: ANN401 - whatever JSON value a client put there
    """What a token from outside holds; the caller checks its shape.

    Raises:
        InvalidRequest: It holds nothing.
    """
    if len(token) > MAX_TOKEN_CHARACTERS:
        raise refusal()
    try:
        return orjson.loads(base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True))
    except (binascii.Error, ValueError) as error:
        raise refusal() from error


def refusal() -> InvalidRequest:
    """What is said of a token that no list made."""
    return InvalidRequest("page_token is not one that this list returned as next_page_token")
