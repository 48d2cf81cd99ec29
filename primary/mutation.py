"""What callers ask the group writer to do, and how they hear of the outcome.

A mutation lives from the moment it is queued until the entry that it made is visible. It is made and answered
on the event loop; the writer thread reads it and fills in what only SQLite knows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

from agent_core.errors import HeadwaterError
from agent_core.position import START, Position
from agent_core.quorum import Acknowledgement

if TYPE_CHECKING:
    from primary.actor import SessionActor

OVERHEAD_BYTES = 128
"""What a mutation counts for in queues and batches beyond what its caller sent."""


class OutcomeSink(Protocol):
    """Where outcomes go: an append stream's answers, or one waiting call."""

    def appended(self, request_id: int, group: int, seq: int, position: Position, *, duplicate: bool) -> None:
        """The entry is safe under the acknowledgement mode that was asked for."""

    def failed(self, request_id: int, error: HeadwaterError) -> None:
        """The entry was not acknowledged."""


@dataclass(slots=True)
class NewEntry:
    """An append as a caller asks for it, already checked."""

    session_id: str
    kind: str
    payload: bytes
    created_at_ms: int
    idempotency_key: str
    acknowledgement: Acknowledgement | None

    @property
    def size_bytes(self) -> int:
        """What it counts for in its group's queue."""
        return len(self.payload) + OVERHEAD_BYTES


class Waiter(NamedTuple):
    """A caller that waits for a mutation.

    Attributes:
        acknowledgement: What must hold before it is told that the write is safe.
        sink: Where it is told.
        request_id: By which it knows its request.
        repeats: Whether it repeated the idempotency key of a mutation that was there.
    """

    acknowledgement: Acknowledgement
    sink: OutcomeSink
    request_id: int
    repeats: bool = False


class Mutation:
    """One change of one shard.

    Attributes:
        shard: The shard that it changes …
        group: … and the group that the shard belongs to.
        size_bytes: What it counts for in queues and batches.
        seq: The entry's number; 0 until the batch that writes it is closed, and for a creation.
        position: Where the transaction that holds it stands in the group's history; set once it is logged.
        expires_at: When whoever waits is told that it took too long, on the event loop's clock, in seconds.
        waiters: Who was not told of the outcome yet.
    """

    __slots__ = ("expires_at", "group", "position", "seq", "shard", "size_bytes", "waiters")

    def __init__(
        self,
        size_bytes: int,
        waiter: Waiter | None,
        *,
        shard: int,
        group: int,
    ) -> None:
        self.shard = shard
        self.group = group
        self.size_bytes = size_bytes
        self.seq = 0
        self.position = START
        self.expires_at = 0.0
        self.waiters = [] if waiter is None else [waiter]

    def acknowledge(self, mode: Acknowledgement) -> bool:
        """Tell those who asked for `mode` that the write is safe; whether whoever made it is among them."""
        assert self.position != START, "acknowledged before it was written"
        told = [waiter for waiter in self.waiters if waiter.acknowledgement is mode]
        self.waiters = [waiter for waiter in self.waiters if waiter.acknowledgement is not mode]
        for waiter in told:
            waiter.sink.appended(waiter.request_id, self.group, self.seq, self.position, duplicate=waiter.repeats)
        return any(not waiter.repeats for waiter in told)

    def fail(self, error: HeadwaterError) -> None:
        """Tell whoever still waits that the write was not acknowledged."""
        waiters, self.waiters = self.waiters, []
        for waiter in waiters:
            waiter.sink.failed(waiter.request_id, error)


class SessionMutation(Mutation):
    """One change of one session.

    Attributes:
        actor: The session's actor.
    """

    __slots__ = ("actor",)

    def __init__(self, actor: SessionActor, size_bytes: int, waiter: Waiter | None) -> None:
        super().__init__(size_bytes, waiter, shard=actor.shard, group=actor.group)
        self.actor = actor


class Creation(SessionMutation):
    """A new session: the row in `sessions`. Its fields are the actor's session."""

    __slots__ = ()


class Repeat(SessionMutation):
    """What was made before and is visible. It is not written again; callers may ask that it is safer than that."""

    __slots__ = ()

    def __init__(self, actor: SessionActor, seq: int, visible: Position) -> None:
        """Stand for an entry, or for a creation with seq 0, which lies somewhere up to `visible`."""
        super().__init__(actor, OVERHEAD_BYTES, None)
        self.seq = seq
        self.position = visible


class Append(SessionMutation):
    """A new entry.

    Attributes:
        kind: The entry's kind.
        payload: A JSON value, checked.
        created_at_ms: Milliseconds since the epoch.
        idempotency_key: Empty: the entry may be appended again.
    """

    __slots__ = ("created_at_ms", "idempotency_key", "kind", "payload")

    def __init__(
        self,
        actor: SessionActor,
        waiter: Waiter,
        *,
        kind: str,
        payload: bytes,
        created_at_ms: int,
        idempotency_key: str,
    ) -> None:
        super().__init__(actor, len(payload) + OVERHEAD_BYTES, waiter)
        self.kind = kind
        self.payload = payload
        self.created_at_ms = created_at_ms
        self.idempotency_key = idempotency_key


@dataclass(slots=True)
class Transaction:
    """The mutations of one shard that commit together, and what became of them."""

    shard: int
    mutations: Sequence[Mutation]
    position: Position = START
    error: Exception | None = None
