"""The live sessions of a node: found, brought up, written to, and let go.

An actor is brought up when its session is first asked for, and let go when nobody has asked for a while or
when all of them together take more memory than they may. What it knew is in its shard.
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
    OutcomeUnknown,
    SessionNotFound,
    ShardDamaged,
    Unavailable,
)
from agent_core.position import Position
from agent_core.quorum import Acknowledgement
from agent_core.routing import ShardLayout
from agent_core.rpc.session_pb2 import Session
from primary.actor import SessionActor
from primary.electing.lease import Lease
from primary.loader import SessionLoader
from primary.mutation import OVERHEAD_BYTES, Append, Creation, Mutation, OutcomeSink, SessionMutation
from primary.residency import Residency, ResidencySettings
from primary.succession import Succession
from primary.writer import GroupWriter

log = structlog.get_logger(__name__)

SWEEP_SECONDS = 1.0


@dataclass(slots=True)
class RegistryCounters:
    """What metrics tell of the live sessions; all only grow."""

    loads: int = 0
    repeated_appends: int = 0


@dataclass(slots=True, eq=False)
class News:
    """Wakes one subscriber when its session has a new entry, or is no longer served here."""

    event: asyncio.Event
    moved: bool = False


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


class SessionRegistry:
    """Finds the actor of a session. Every method runs on the event loop.

    Attributes:
        residency: The sessions in memory.
        succession: Groups whose primary changes at this moment.
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
        self._loader = loader
        self.residency = Residency(settings)
        self._acknowledgement = acknowledgement
        self._loop = asyncio.get_running_loop()
        self.succession = Succession()
        self._writers: dict[int, GroupWriter] = {}
        self._leases: dict[int, Lease] = {}
        # Sessions whose actors are on their way up, and what goes on once they are there.
        self._waiting: dict[str, list[Callable[[SessionActor | HeadwaterError | None], None]]] = {}
        self._loads: set[asyncio.Task[None]] = set()
        # Sessions whose creation was written or soon will be, and is not safe yet: nobody may see them.
        self._creating: set[str] = set()
        self._news: dict[str, set[News]] = {}
        self.counters = RegistryCounters()

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
        for session_id in [name for name in self._creating if self._group_of(name) == group]:
            self._creating.discard(session_id)
            self._answer(session_id, _not_safe_yet(session_id))
        for session_id, listeners in self._news.items():
            if self._group_of(session_id) == group:
                for news in listeners:
                    news.moved = True
                    news.event.set()

    async def release(self, group: int) -> None:
        """Close what is open of a group's shards, once this node no longer leads it."""
        await self._loader.run(self._loader.owned.release, group)

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
        actor = await self._find(session_id)
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

        def append_to(found: SessionActor | HeadwaterError | None) -> None:
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
            self._when_up(new.session_id, append_to)

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
        existing = await self._find(session_id)
        while existing is None and (writer.full or session_id in self._waiting):
            if session_id not in self._waiting:  # else another caller creates it just now
                await writer.room()
            existing = await self._find(session_id)
        if existing is not None:
            return existing.session, writer.visible_position, False
        session.created_at_ms = session.created_at_ms or time.time_ns() // 1_000_000
        session.updated_at_ms = session.created_at_ms
        session.status = session.status or "idle"
        actor = SessionActor(session, self._layout.shard_of(session_id), self._group_of(session_id))
        self._waiting[session_id] = []
        self._creating.add(session_id)
        outcome: asyncio.Future[Position] = self._loop.create_future()
        size_bytes = session.ByteSize() + OVERHEAD_BYTES
        sink = _CreationSink(outcome, lambda error: self._creation_failed(session_id, error))
        writer.submit(Creation(actor, size_bytes, acknowledgement or self._acknowledgement, sink, 0))
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
        if session_id in self._creating:
            self._creating.discard(session_id)
            self._come_up(session_id, actor)

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

    def _group_of(self, session_id: str) -> int:
        return self._layout.group_of(self._layout.shard_of(session_id))

    def _append_to(
        self, actor: SessionActor, writer: GroupWriter, new: NewEntry, sink: OutcomeSink, request_id: int
    ) -> None:
        if new.idempotency_key:
            earlier = actor.repeated(new.idempotency_key)
            if earlier is not None:
                self.counters.repeated_appends += 1
                if earlier.on_its_way is not None:
                    earlier.on_its_way.waiters.append((sink, request_id))
                else:
                    sink.appended(request_id, actor.group, earlier.seq, writer.visible_position, duplicate=True)
                return
        append = Append(
            actor,
            new.acknowledgement or self._acknowledgement,
            sink,
            request_id,
            kind=new.kind,
            payload=new.payload,
            created_at_ms=new.created_at_ms or time.time_ns() // 1_000_000,
            idempotency_key=new.idempotency_key,
        )
        actor.queued(append)
        writer.submit(append)

    async def _find(self, session_id: str) -> SessionActor | None:
        self.writer(session_id)
        actor = self.residency.find(session_id, self._loop.time())
        if actor is not None:
            return actor
        future: asyncio.Future[SessionActor | None] = self._loop.create_future()

        def found(outcome: SessionActor | HeadwaterError | None) -> None:
            if future.done():
                return
            if isinstance(outcome, HeadwaterError):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)

        self._when_up(session_id, found)
        return await future

    def _absence(self, session_id: str) -> HeadwaterError:
        """What to say of a session that its shard does not hold: another primary may hold it by now."""
        try:
            self.readable_position(session_id)
        except HeadwaterError as error:
            return error
        return SessionNotFound(f"there is no session {session_id!r}")

    def _when_up(self, session_id: str, then: Callable[[SessionActor | HeadwaterError | None], None]) -> None:
        """Bring up an actor and go on; whoever asks meanwhile waits for the same, in order."""
        waiting = self._waiting.get(session_id)
        if waiting is not None:
            waiting.append(then)
            return
        if session_id in self._creating:
            then(_not_safe_yet(session_id))
            return
        self._waiting[session_id] = [then]
        task = self._loop.create_task(self._load(session_id), name=f"load {session_id}")
        self._loads.add(task)
        task.add_done_callback(self._loads.discard)

    async def _load(self, session_id: str) -> None:
        try:
            prepared = self.residency.take_prepared(session_id)
            actor = await self._loader.run(self._loader.owned.load, session_id, prepared)
        except Exception as error:
            # Whatever it was: nobody who waits for the session may be left waiting.
            log.exception("session cannot be read", session_id=session_id)
            told = (
                error
                if isinstance(error, ShardDamaged)
                else Unavailable(f"session {session_id!r} cannot be read: {error}")
            )
            self._answer(session_id, told)
            return
        if actor is None or self._group_of(session_id) not in self._writers:
            self._answer(session_id, None)
            return
        self.counters.loads += 1
        self._come_up(session_id, actor)

    def _come_up(self, session_id: str, actor: SessionActor) -> None:
        self.residency.add(actor, self._loop.time())
        self._answer(session_id, actor)

    def _creation_failed(self, session_id: str, error: HeadwaterError) -> None:
        """Its creator was told so; of unknown outcome, it comes up once it is safe, and is not seen before."""
        if isinstance(error, OutcomeUnknown):
            self._answer(session_id, _not_safe_yet(session_id))
        else:
            self._creating.discard(session_id)
            self._answer(session_id, None)

    def _answer(self, session_id: str, outcome: SessionActor | HeadwaterError | None) -> None:
        for then in self._waiting.pop(session_id, ()):
            then(outcome)


def _not_safe_yet(session_id: str) -> Unavailable:
    return Unavailable(f"the creation of session {session_id!r} is not acknowledged yet; try again")


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
