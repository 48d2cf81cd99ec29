"""Following one session: what lies behind a cursor, then each new entry, without gap or duplicate.

A subscription keeps nothing but its cursor. News only wakes it; what it sends it reads from the actor, which
comes up again if it was let go meanwhile. So nothing can be skipped, and a slow consumer costs no memory: it
falls behind, and past a bound it is told to come back with its cursor.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from agent_core.errors import InvalidRequest, NotPrimary, SessionNotFound, Unavailable
from agent_core.rpc.session_pb2 import CaughtUp, EntryList, Resume, SubscribeEvent
from primary.registry import SessionRegistry

PAGE_ENTRIES = 256
PAGE_BYTES = 1 << 20
MAX_BEHIND_ENTRIES = 4096
"""A consumer that was live and is this far behind is told to resume."""


async def subscribe(
    registry: SessionRegistry, session_id: str, after_seq: int, *, max_behind: int = MAX_BEHIND_ENTRIES
) -> AsyncIterator[SubscribeEvent]:
    """Events of one subscription; the consumer's pace is the pace at which it is iterated.

    Raises:
        SessionNotFound, NotPrimary, Unavailable: The session is not served here.
        InvalidRequest: The cursor lies past the session's end.
    """
    with registry.listen(session_id) as news:
        actor = await registry.actor(session_id)
        if after_seq > actor.visible_seq:
            raise InvalidRequest(f"after_seq is {after_seq}; the session ends at {actor.visible_seq}")
        cursor = after_seq
        live = False
        while True:
            news.event.clear()
            if news.moved:
                yield _resume(cursor, "this node no longer leads the session's group")
                return
            try:
                actor = await registry.actor(session_id)
            except (NotPrimary, SessionNotFound, Unavailable) as error:
                yield _resume(cursor, str(error))
                return
            if live and actor.visible_seq - cursor > max_behind:
                yield _resume(cursor, f"the consumer is {actor.visible_seq - cursor} entries behind")
                return
            entries = actor.entries(cursor, PAGE_ENTRIES, PAGE_BYTES)
            if entries:
                yield SubscribeEvent(entries=EntryList(entries=entries))
                cursor = entries[-1].seq
                continue
            if not live:
                live = True
                yield SubscribeEvent(caught_up=CaughtUp(seq=cursor))
                continue
            await news.event.wait()


def _resume(after_seq: int, reason: str) -> SubscribeEvent:
    return SubscribeEvent(resume=Resume(after_seq=after_seq, reason=reason))
