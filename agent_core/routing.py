"""Which shard holds a session, and which group holds a shard.

`shard = xxh3_64(session_id) % shard_count`. Changing this loses sight of every session ever written: golden
vectors in the tests pin it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from agent_core.errors import InvalidRequest
from agent_core.session_shard import shard_of

MAX_SHARD_COUNT = 128
SESSION_ID_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")


@dataclass(frozen=True, slots=True)
class ShardLayout:
    """The cluster's shards and groups, fixed when the cluster is created.

    The workspace shard is one more file behind the session shards: number `shard_count`, in group 0.

    Attributes:
        shard_count: Session shards, 1 to 128.
        shard_group_count: Groups, 1 to `shard_count`.
    """

    shard_count: int = 16
    shard_group_count: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.shard_count <= MAX_SHARD_COUNT:
            raise ValueError(f"shard_count is {self.shard_count}; allowed are 1 to {MAX_SHARD_COUNT}")
        if not 1 <= self.shard_group_count <= self.shard_count:
            raise ValueError(
                f"shard_group_count is {self.shard_group_count}; allowed are 1 to shard_count ({self.shard_count})"
            )

    @property
    def workspace_shard(self) -> int:
        """The number of the workspace shard."""
        return self.shard_count

    def shard_of(self, session_id: str) -> int:
        """The shard that holds a session."""
        return shard_of(session_id, self.shard_count)

    def group_of(self, shard: int) -> int:
        """The group that a shard belongs to."""
        return 0 if shard == self.workspace_shard else shard % self.shard_group_count

    def shards_of(self, group: int) -> tuple[int, ...]:
        """The shards of a group, ascending."""
        return tuple(shard for shard in range(self.shard_count + 1) if self.group_of(shard) == group)

    def shard_file_name(self, shard: int) -> str:
        """The file of a shard within a node's data directory."""
        return "workspace.db" if shard == self.workspace_shard else f"shard-{shard:03d}.db"


def check_session_id(session_id: str) -> str:
    """Return a session id that came from outside.

    Raises:
        InvalidRequest: It is empty, too long, or holds a character that is not allowed.
    """
    if not SESSION_ID_PATTERN.fullmatch(session_id):
        raise InvalidRequest(
            "session_id must be 1 to 128 letters, digits, dots, underscores, colons or hyphens and start with "
            f"a letter or digit; got {session_id[:160]!r}"
        )
    return session_id
