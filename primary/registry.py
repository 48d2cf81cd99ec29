"""The sessions of the groups that a node leads: who writes them, what is written to them, and who hears of it.

An actor is brought up when its session is first asked for (`primary/arrivals.py`), and let go when nobody has asked
for a while or when all of them together take more memory than they may (`primary/residency.py`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import structlog

from agent_core.cluster import NodeAddress
from agent_core.database.thread import DatabaseThread
from agent_core.errors import (
    HeadwaterError,
    NotPrimary,
    SessionNotFound,
    Unavailable,
)
from agent_core.position import Position
from agent_core.quorum import Acknowledgement
from agent_core.routing import ShardLayout
from agent_core.rpc.session_pb2 import Session
from primary.actor import SessionActor
from primary.arrivals import Arrivals, Outcome
from primary.electing.lease import Lease
from primary.loader import SessionLoader
from primary.mutation import (
    OVERHEAD_BYTES,
    Append,
    Creation,
    Mutation,
    NewEntry,
    OutcomeSink,
    Repeat,
    SessionMutation,
    Waiter,
)
from primary.residency import Residency, ResidencySettings
from primary.succession import Succession
from primary.writer import GroupWriter

log = structlog.get_logger(__name__)

SWEEP_SECONDS = 1.0


@dataclass(slots=True, eq=False)
class News:
    """Wakes one subscriber when its session has a new entry, or is no longer served here."""

    event: asyncio.Event
    moved: bool = False


class SessionRegistry:
    """Finds the actor of a session. Every method runs on the event loop.

    Attributes:
        residency: The sessions in memory …
        arrivals: … and those on their way there.
        succession: Groups whose primary changes at this moment.
        repeated_appends: How many appends had an idempotency key that was used before.
    """

    def __init__(
        self,
        layout: ShardLayout,
        primary_of: Callable[[int], NodeAddress | None],
        loader: DatabaseThread[SessionLoader],
        settings: ResidencySettings,
        acknowledgement: Acknowledgement,
    ) -> None:
        self._layout = layout
        self._primary_of = primary_of
        self.residency = Residency(settings)
        self._acknowledgement = acknowledgement
        self._loop = asyncio.get_running_loop()
        self.succession = Succession()
        self._writers: dict[int, GroupWriter] = {}
        self._leases: dict[int, Lease] = {}
        self.arrivals = Arrivals(loader, self.residency, self._serves)
        self._news: dict[str, set[News]] = {}
        self.repeated_appends = 0

    def lead(self, group: int, writer: GroupWriter, lease: Lease) -> None:
        """This node leads a group, and its epoch is open: serve its sessions, and reads while the lease lasts."""
        self._writers[group] = writer
        self._leases[group] = lease
        self.succession.end(group)

    def step_down(self, group: int) -> None:
        """This node no longer leads a group: drop its actors, send its subscribers elsewhere."""
        self._writers.pop(group, None)
        self._leases.pop(group, None)
        self.residency.drop_group(group)
        self.arrivals.forget_creations()
        for session_id, listeners in self._news.items():
            if self._group_of(session_id) == group:
                for news in listeners:
                    news.moved = True
                    news.event.set()

    async def release(self, group: int) -> None:
        """Close what is open of a group's shards, once this node no longer leads it."""
        await self.arrivals.release(group)

    @property
    def subscribers(self) -> int:
        """How many subscriptions are open."""
        return sum(len(listeners) for listeners in self._news.values())

    def writer(self, session_id: str) -> GroupWriter:
        """The writer of a session's group.

        Raises:
            NotPrimary: Another node leads the group; the message names it and its address.
            Unavailable: This node leads it, but not yet or not any more.
        """
        return self.group_writer(self._group_of(session_id))

    def group_writer(self, group: int) -> GroupWriter:
        """The writer of a group.

        Raises:
            HeadwaterError: As `writer`.
        """
        writer = self._writers.get(group)
        if writer is not None:
            return writer
        primary = self._primary_of(group)
        if primary is None:
            raise Unavailable(f"group {group} has no primary at the moment")
        raise NotPrimary(f"group {group} is led by {primary.node_id} at {primary.grpc_address}")

    async def settled(self, session_id: str) -> None:
        """Wait a moment while the primary of a session's group changes from this node or to it."""
        await self.succession.settled(self._group_of(session_id))

    def readable_position(self, session_id: str) -> Position:
        """The position that a read of a session's actor shows; no write that anybody was told of is missing.

        Raises:
            NotPrimary: Another node leads the group.
            Unavailable: This node has not heard a majority lately: another one may lead the group by now.
        """
        writer = self.writer(session_id)
        group = self._group_of(session_id)
        if not self._leases[group].valid(self._loop.time()):
            raise Unavailable(
                f"this primary of group {group} has not heard a majority lately, so what it holds may be old; "
                "ask again, or read from a standby"
            )
        return writer.visible_position

    async def actor(self, session_id: str) -> SessionActor:
        """The session's actor, brought up if need be.

        Raises:
            SessionNotFound: There is no such session.
            NotPrimary: Another node leads its group.
            ShardDamaged: Its shard holds of it what no primary wrote.
            Unavailable: Its shard cannot be read, or another node may lead its group by now.
        """
        await self.settled(session_id)
        actor = await self._live_actor(session_id)
        if actor is None:
            raise self._absence(session_id)
        return actor

    def append(self, new: NewEntry, sink: OutcomeSink, request_id: int) -> None:
        """Append to a session; the sink hears of the outcome. Appends to one session keep their order."""
        try:
            writer = self.writer(new.session_id)
        except HeadwaterError as error:
            sink.failed(request_id, error)
            return

        def append_to(found: Outcome) -> None:
            writer.give_back(new.size_bytes)
            if isinstance(found, SessionActor):
                self._append_to(found, writer, new, sink, request_id)
            else:
                sink.failed(request_id, found or self._absence(new.session_id))

        actor = self.residency.find(new.session_id, self._loop.time())
        if actor is not None:
            self._append_to(actor, writer, new, sink, request_id)
        else:
            writer.reserve(new.size_bytes)
            self.arrivals.call_when_up(new.session_id, append_to)

    async def create(
        self, session: Session, acknowledgement: Acknowledgement | None
    ) -> tuple[Session, Position, bool]:
        """Create a session unless there is one of this id: the session, its position, whether it is new.

        Raises:
            HeadwaterError: As a write may fail.
        """
        session_id = session.session_id
        await self.settled(session_id)
        writer = self.writer(session_id)
        existing = await self._live_actor(session_id)
        while existing is None and (writer.full or session_id in self.arrivals):
            if session_id not in self.arrivals:  # else another caller creates it just now
                await writer.room()
            existing = await self._live_actor(session_id)
        mode = acknowledgement or self._acknowledgement
        outcome: asyncio.Future[Position] = self._loop.create_future()
        if existing is not None:
            sink = _CreationSink(outcome, lambda _: None)
            writer.join(Repeat(existing, 0, writer.visible_position), Waiter(mode, sink, 0, repeats=True))
            return existing.session, await outcome, False
        session.created_at_ms = session.created_at_ms or time.time_ns() // 1_000_000
        session.updated_at_ms = session.created_at_ms
        session.status = session.status or "idle"
        actor = SessionActor(session, self._layout.shard_of(session_id), self._group_of(session_id))
        self.arrivals.creation_begins(session_id)
        size_bytes = session.ByteSize() + OVERHEAD_BYTES
        sink = _CreationSink(outcome, lambda error: self.arrivals.creation_failed(session_id, error))
        writer.submit(Creation(actor, size_bytes, Waiter(mode, sink, 0)))
        return session, await outcome, True

    def released(self, mutation: Mutation) -> None:
        """A mutation is safe: let it be seen. The group writer calls this."""
        if not isinstance(mutation, SessionMutation):
            return
        actor = mutation.actor
        session_id = actor.session.session_id
        if isinstance(mutation, Append):
            actor.settle(mutation)
            for news in self._news.get(session_id, ()):
                news.event.set()
            return
        self.arrivals.creation_is_safe(actor)

    @contextmanager
    def listen(self, session_id: str) -> Iterator[News]:
        """Hear of a session's new entries, whether its actor stays up or not."""
        news = News(asyncio.Event())
        self._news.setdefault(session_id, set()).add(news)
        try:
            yield news
        finally:
            listeners = self._news[session_id]
            listeners.discard(news)
            if not listeners:
                del self._news[session_id]

    async def sweep(self) -> None:
        """Let go of what is idle or over the budget, for as long as the node runs."""
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            self.residency.evict(self._loop.time())

    def _serves(self, session_id: str) -> bool:
        return self._group_of(session_id) in self._writers

    def _group_of(self, session_id: str) -> int:
        return self._layout.group_of(self._layout.shard_of(session_id))

    def _append_to(
        self, actor: SessionActor, writer: GroupWriter, new: NewEntry, sink: OutcomeSink, request_id: int
    ) -> None:
        mode = new.acknowledgement or self._acknowledgement
        if new.idempotency_key:
            earlier = actor.repeated(new.idempotency_key)
            if earlier is not None:
                self.repeated_appends += 1
                made = earlier.on_its_way or Repeat(actor, earlier.seq, writer.visible_position)
                writer.join(made, Waiter(mode, sink, request_id, repeats=True))
                return
        append = Append(
            actor,
            Waiter(mode, sink, request_id),
            kind=new.kind,
            payload=new.payload,
            created_at_ms=new.created_at_ms or time.time_ns() // 1_000_000,
            idempotency_key=new.idempotency_key,
        )
        actor.queued(append)
        writer.submit(append)

    async def _live_actor(self, session_id: str) -> SessionActor | None:
        self.writer(session_id)
        actor = self.residency.find(session_id, self._loop.time())
        return actor if actor is not None else await self.arrivals.brought_up(session_id)

    def _absence(self, session_id: str) -> HeadwaterError:
        """What to say of a session that its shard does not hold: another primary may hold it by now."""
        try:
            self.readable_position(session_id)
        except HeadwaterError as error:
            return error
        return SessionNotFound(f"there is no session {session_id!r}")


class _CreationSink:
    """The call that waits for a creation, and whoever must hear of its failure even if that call has gone."""

    def __init__(self, outcome: asyncio.Future[Position], on_failed: Callable[[HeadwaterError], None]) -> None:
        self._outcome = outcome
        self._on_failed = on_failed

    def appended(self, request_id: int, group: int, seq: int, position: Position, *, duplicate: bool) -> None:
        """It is safe."""
        if not self._outcome.done():
            self._outcome.set_result(position)

    def failed(self, request_id: int, error: HeadwaterError) -> None:
        """It was not acknowledged."""
        self._on_failed(error)
        if not self._outcome.done():
            self._outcome.set_exception(error)
