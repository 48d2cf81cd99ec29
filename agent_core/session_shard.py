"""The one rule that says which shard holds a session; it depends on nothing, so that every process can know it."""

from __future__ import annotations

import xxhash


def shard_of(session_id: str, shard_count: int) -> int:
    """The shard that holds a session, 0 to `shard_count` - 1."""
    return xxhash.xxh3_64_intdigest(session_id.encode()) % shard_count
