"""The bytes of an entry's payload."""

from __future__ import annotations

from collections.abc import Mapping

import orjson

from agent_core.transcripts.imported import MAX_PAYLOAD_BYTES


class PayloadTooLarge(ValueError):
    """The payload would be larger than `MAX_PAYLOAD_BYTES`."""


def encode_payload(payload: Mapping[str, object], record: bytes | None = None) -> bytes:
    """A payload as JSON, with the record that it was made of.

    The record goes in byte for byte, so that nothing of it is lost: no field, and no digit of a large number.

    Raises:
        PayloadTooLarge: Past the bound.
    """
    whole = payload if record is None else {**payload, "record": orjson.Fragment(record)}
    encoded = orjson.dumps(whole)
    if len(encoded) > MAX_PAYLOAD_BYTES:
        raise PayloadTooLarge(f"its payload would be {len(encoded)} bytes; at most {MAX_PAYLOAD_BYTES} are allowed")
    return encoded
