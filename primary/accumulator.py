"""Which queued mutations go into the next batch.

Pure: mutations go in, a batch comes out when the writer is free. Everything that waits goes along, up to the
bounds; a session's mutations keep their order.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from primary.mutation import Append, Mutation, SessionMutation, Transaction


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """Bounds of one batch and of the queue before it, in mutations and bytes."""

    batch_mutations: int = 4096
    batch_bytes: int = 16 << 20
    queue_mutations: int = 8192
    queue_bytes: int = 64 << 20


@dataclass(slots=True)
class Accumulator:
    """The mutations that wait for the writer.

    Attributes:
        limits: A mutation larger than a batch may be still goes, alone.
        size_bytes: The bytes of those that wait.
        reserved: Mutations that will be added soon and take their room already …
        reserved_bytes: … and their bytes.
    """

    limits: BatchLimits = field(default_factory=BatchLimits)
    size_bytes: int = 0
    reserved: int = 0
    reserved_bytes: int = 0
    _waiting: deque[Mutation] = field(default_factory=deque)

    def __len__(self) -> int:
        """How many mutations wait."""
        return len(self._waiting)

    @property
    def full(self) -> bool:
        """Callers must wait before they queue more."""
        return (
            len(self._waiting) + self.reserved >= self.limits.queue_mutations
            or self.size_bytes + self.reserved_bytes >= self.limits.queue_bytes
        )

    def reserve(self, size_bytes: int) -> None:
        """Keep room for a mutation that will be added later."""
        self.reserved += 1
        self.reserved_bytes += size_bytes

    def give_back(self, size_bytes: int) -> None:
        """That mutation is added now, or never."""
        self.reserved -= 1
        self.reserved_bytes -= size_bytes

    def add(self, mutation: Mutation) -> None:
        """Queue a mutation."""
        self._waiting.append(mutation)
        self.size_bytes += mutation.size_bytes

    def close_batch(self) -> list[Transaction]:
        """Take the next batch, one transaction per shard, and give its entries their numbers."""
        by_shard: dict[int, list[Mutation]] = {}
        size = count = 0
        while self._waiting and count < self.limits.batch_mutations:
            mutation = self._waiting[0]
            if count and size + mutation.size_bytes > self.limits.batch_bytes:
                break
            self._waiting.popleft()
            size += mutation.size_bytes
            count += 1
            if isinstance(mutation, Append):
                mutation.actor.number(mutation)
            by_shard.setdefault(mutation.shard, []).append(mutation)
        self.size_bytes -= size
        return [Transaction(shard, mutations) for shard, mutations in by_shard.items()]

    def take_all(self) -> list[Mutation]:
        """Take everything; nothing of it was written."""
        taken = list(self._waiting)
        self._waiting.clear()
        self.size_bytes = 0
        return taken

    def take_expired(self, now: float) -> list[Mutation]:
        """Take what waited too long, and what waits behind that in the same session; nothing of it was written.

        Whoever hears that an append was refused may repeat it; it must not come to stand behind a later one.
        """
        taken: list[Mutation] = []
        while self._waiting and self._waiting[0].expires_at <= now:
            taken.append(self._waiting.popleft())
        if taken and self._waiting:
            expired = {mutation.actor for mutation in taken if isinstance(mutation, SessionMutation)}
            waiting, self._waiting = self._waiting, deque()
            for mutation in waiting:
                behind = isinstance(mutation, SessionMutation) and mutation.actor in expired
                (taken if behind else self._waiting).append(mutation)
        self.size_bytes -= sum(mutation.size_bytes for mutation in taken)
        return taken
