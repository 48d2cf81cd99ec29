"""The messages between a node and its worker processes: a JSON head and a body, each with its length before it."""

from __future__ import annotations

import json
import struct
from typing import Any, BinaryIO

LENGTHS = struct.Struct(">II")
"""Lengths in bytes of head and body."""


def encode_message(head: dict[str, Any], body: bytes = b"") -> bytes:
    """One message as bytes."""
    encoded = json.dumps(head).encode()
    return b"".join((LENGTHS.pack(len(encoded), len(body)), encoded, body))


def read_message(stream: BinaryIO) -> tuple[dict[str, Any], bytes] | None:
    """The next message of a blocking stream; None when the other side has closed it."""
    lengths = stream.read(LENGTHS.size)
    if len(lengths) < LENGTHS.size:
        return None
    head_length, body_length = LENGTHS.unpack(lengths)
    head, body = stream.read(head_length), stream.read(body_length)
    if len(head) < head_length or len(body) < body_length:
        return None
    return json.loads(head), body
