"""Sessions on their way into memory: read from their shard, or created at this moment; and who waits for them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from agent_core.database.thread import DatabaseThread
from agent_core.errors import HeadwaterError, OutcomeUnknown, ShardDamaged, Unavailable
from primary.actor import SessionActor
from primary.loader import SessionLoader
from primary.residency import Residency

log = structlog.get_logger(__name__)

Outcome = SessionActor | HeadwaterError | None
"""The session's actor, why it could not be brought up, or None: its shard does not hold it."""


class Arrivals:
    """Brings actors up. Every method runs on the event loop.

    Attributes:
        loads: How many sessions were read from their shards.
    """

    def __init__(
        self, loader: DatabaseThread[SessionLoader], residency: Residency, serves: Callable[[str], bool]
    ) -> None:
        """Bring up actors.

        Args:
            loader: Reads sessions from their shards.
            residency: Where actors stay once they are up.
            serves: Whether this node still leads a session's group.
        """
        self._loader = loader
        self._residency = residency
        self._serves = serves
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[str, list[Callable[[Outcome], None]]] = {}
        # Sessions whose creation was written or soon will be, and is not safe yet: nobody may see them.
        self._creating: set[str] = set()
        self._loading: set[asyncio.Task[None]] = set()
        self.loads = 0

    def __contains__(self, session_id: str) -> bool:
        """Whether somebody waits for this session, or creates it and was not answered yet."""
        return session_id in self._waiting

    def call_when_up(self, session_id: str, then: Callable[[Outcome], None]) -> None:
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
        self._loading.add(task)
        task.add_done_callback(self._loading.discard)

    async def brought_up(self, session_id: str) -> SessionActor | None:
        """Bring up an actor and wait for it; None when its shard does not hold it.

        Raises:
            HeadwaterError: It cannot be brought up.
        """
        future: asyncio.Future[SessionActor | None] = self._loop.create_future()

        def tell(outcome: Outcome) -> None:
            if future.done():
                return
            if isinstance(outcome, HeadwaterError):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)

        self.call_when_up(session_id, tell)
        return await future

    def creation_begins(self, session_id: str) -> None:
        """A session that is not there is about to be written; whoever asks for it waits."""
        self._waiting[session_id] = []
        self._creating.add(session_id)

    def creation_is_safe(self, actor: SessionActor) -> None:
        """Let a new session be seen."""
        session_id = actor.session.session_id
        if session_id in self._creating:
            self._creating.discard(session_id)
            self._arrive(session_id, actor)

    def creation_failed(self, session_id: str, error: HeadwaterError) -> None:
        """Its creator was told so; of unknown outcome, it comes up once it is safe, and is not seen before."""
        if isinstance(error, OutcomeUnknown):
            self._tell(session_id, _not_safe_yet(session_id))
        else:
            self._creating.discard(session_id)
            self._tell(session_id, None)

    def forget_creations(self) -> None:
        """Of groups that this node no longer leads: what becomes of their new sessions is the next primary's."""
        for session_id in [name for name in self._creating if not self._serves(name)]:
            self._creating.discard(session_id)
            self._tell(session_id, _not_safe_yet(session_id))

    async def release(self, group: int) -> None:
        """Close what is open of a group's shards, once this node no longer leads it."""
        await self._loader.run(self._loader.owned.release, group)

    async def _load(self, session_id: str) -> None:
        try:
            prepared = self._residency.take_prepared(session_id)
            actor = await self._loader.run(self._loader.owned.load, session_id, prepared)
        except Exception as error:
            # Whatever it was: nobody who waits for the session may be left waiting.
            log.exception("session cannot be read", session_id=session_id)
            if not isinstance(error, ShardDamaged):
                error = Unavailable(f"session {session_id!r} cannot be read: {error}")
            self._tell(session_id, error)
            return
        if actor is None or not self._serves(session_id):
            self._tell(session_id, None)
            return
        self.loads += 1
        self._arrive(session_id, actor)

    def _arrive(self, session_id: str, actor: SessionActor) -> None:
        self._residency.add(actor, self._loop.time())
        self._tell(session_id, actor)

    def _tell(self, session_id: str, outcome: Outcome) -> None:
        for then in self._waiting.pop(session_id, ()):
            then(outcome)


def _not_safe_yet(session_id: str) -> Unavailable:
    return Unavailable(f"the creation of session {session_id!r} is not acknowledged yet; try again")
