"""Which shards of one group have moved, and the followers that this releases. Pure: numbers in, numbers out.

A follower of a session has nothing to read before its own shard is written, whatever its group does. Whoever
writes the shards, as primary or as standby, knows each one's own row, so nobody has to tell what moved: whenever
more of the group may be seen, a look at the rows of the shards that are followed finds it.
"""

from __future__ import annotations

from collections.abc import Callable

from agent_core.position import START, Position

RowOf = Callable[[int], Position | None]
"""The position of the transaction that wrote a shard last; None: the shard has not arrived, or cannot be read."""


class ShardMoves:
    """The shards of one group, and who waits for each.

    Attributes:
        row_of: How the role that writes the shards now knows their rows.
    """

    def __init__(self) -> None:
        self.row_of: RowOf = lambda _shard: None
        self._epoch = 0
        self._waiting: dict[int, dict[int, Position]] = {}

    def moved_at(self, shard: int) -> Position:
        """Where a shard was written last, or the beginning of its group's epoch, if that came later.

        What is read afterwards contains at least this. A new epoch counts as a move of every shard: its history may
        lack what was read.
        """
        return max(self.row_of(shard) or START, Position(self._epoch, 0))

    def wait(self, shard: int, since: Position, number: int) -> None:
        """Register waiter `number` until its shard moves past `since`, which it has not yet."""
        self._waiting.setdefault(shard, {})[number] = since

    def discard(self, shard: int, number: int) -> None:
        """Forget a waiter that gave up."""
        del self._waiting[shard][number]
        if not self._waiting[shard]:
            del self._waiting[shard]

    def advance(self, epoch: int) -> list[int]:
        """More of the group may be seen, and it is in this epoch; the waiters whose shards have moved."""
        self._epoch = epoch
        released = []
        for shard, waiting in list(self._waiting.items()):
            moved_at = self.moved_at(shard)
            for number in [number for number, since in waiting.items() if moved_at > since]:
                self.discard(shard, number)
                released.append(number)
        return released
