"""Which sessions a primary keeps in memory, and which it lets go. Times are told, in seconds of one clock.

An actor stays until nobody has used it for a while, or until all of them together take more memory than they may:
then the longest unused go, at once when another one comes up. What they knew is in their shards. One with a write
on its way stays in any case.

A session that alone takes more than the budget is kept beside the others all the same, since it cannot be served
otherwise, and letting it go would mean reading all of it again at its next use. Only one such session is kept, the
one used last.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import structlog

from primary.actor import SessionActor

log = structlog.get_logger(__name__)

PREPARED_SECONDS = 10.0
"""How long a session that was read for a hand-over is kept, should that not come."""


@dataclass(frozen=True, slots=True)
class ResidencySettings:
    """How long sessions stay in memory.

    Attributes:
        idle_seconds: An actor that nobody asked for this long is let go.
        memory_budget_bytes: What all live actors together may take, and once more those read for a hand-over.
    """

    idle_seconds: float = 300.0
    memory_budget_bytes: int = 512 << 20


class Residency:
    """The actors in memory, by session id.

    Attributes:
        evicted_idle: How many were let go because nobody used them …
        evicted_for_memory: … and how many because of the budget.
    """

    def __init__(self, settings: ResidencySettings) -> None:
        self._settings = settings
        # The longest unused first.
        self._actors: OrderedDict[str, SessionActor] = OrderedDict()
        # As of the last count, and what came and went since: appends in between wait for the next count.
        self._counted_bytes = 0
        self._oversized: SessionActor | None = None
        # Sessions of groups that another node leads, read in case that it hands over to this one.
        self._prepared: dict[str, SessionActor] = {}
        self.evicted_idle = 0
        self.evicted_for_memory = 0

    def __len__(self) -> int:
        """How many actors are live."""
        return len(self._actors)

    @property
    def memory_bytes(self) -> int:
        """What the live actors take together, by estimate."""
        return sum(actor.memory_bytes for actor in self._actors.values())

    def find(self, session_id: str, now: float) -> SessionActor | None:
        """A session's actor, if it is live; this counts as use."""
        actor = self._actors.get(session_id)
        if actor is not None:
            actor.used_at = now
            self._actors.move_to_end(session_id)
        return actor

    def add(self, actor: SessionActor, now: float) -> None:
        """An actor came up: let others go that it leaves no room for."""
        actor.used_at = now
        self._actors[actor.session.session_id] = actor
        if actor.memory_bytes > self._settings.memory_budget_bytes:
            self._count()
        else:
            self._counted_bytes += actor.memory_bytes
        self._fit(newest=actor)

    def drop_group(self, group: int) -> None:
        """This node no longer leads a group."""
        for actor in [actor for actor in self._actors.values() if actor.group == group]:
            self._drop(actor)

    def in_use(self, group: int, limit: int) -> list[str]:
        """The live sessions of a group, the most recently used first, at most `limit`."""
        names: Iterator[str] = (name for name, actor in reversed(self._actors.items()) if actor.group == group)
        return list(islice(names, limit))

    def prepare(self, actor: SessionActor, now: float) -> bool:
        """Keep a session that may be served from here soon; False when there is no room for it.

        All its entries must be committed: when the session is asked for, only what came after them is read.
        """
        prepared_bytes = sum(prepared.memory_bytes for prepared in self._prepared.values())
        if prepared_bytes + actor.memory_bytes > self._settings.memory_budget_bytes:
            return False
        actor.used_at = now
        self._prepared[actor.session.session_id] = actor
        return True

    def take_prepared(self, session_id: str) -> SessionActor | None:
        """What was read of a session for a hand-over, if it was; it is not kept any more."""
        return self._prepared.pop(session_id, None)

    def evict(self, now: float) -> None:
        """Let go of actors that nobody used lately, and of the longest unused while they take too much."""
        for name in [name for name, one in self._prepared.items() if one.used_at <= now - PREPARED_SECONDS]:
            del self._prepared[name]
        idle = []
        for actor in self._actors.values():
            if actor.used_at > now - self._settings.idle_seconds:
                break
            if not actor.outstanding:
                idle.append(actor)
        for actor in idle:
            self._drop(actor)
        self.evicted_idle += len(idle)
        self._count()
        self._fit()

    def _count(self) -> None:
        budget = self._settings.memory_budget_bytes
        oversized = [actor for actor in self._actors.values() if actor.memory_bytes > budget]
        kept = oversized[-1] if oversized else None
        if kept is not self._oversized and kept is not None:
            log.warning(
                "a session alone is larger than the memory budget",
                session_id=kept.session.session_id,
                memory_mib=kept.memory_bytes >> 20,
                budget_mib=budget >> 20,
            )
        self._oversized = kept
        for actor in oversized[:-1]:
            self._let_go(actor)
        self._counted_bytes = sum(actor.memory_bytes for actor in self._actors.values() if actor is not kept)

    def _fit(self, newest: SessionActor | None = None) -> None:
        excess = self._counted_bytes - self._settings.memory_budget_bytes
        leaving = []
        for actor in self._actors.values():
            if excess <= 0:
                break
            if actor.outstanding or actor is newest or actor is self._oversized:
                continue
            leaving.append(actor)
            excess -= actor.memory_bytes
        for actor in leaving:
            self._let_go(actor)

    def _let_go(self, actor: SessionActor) -> None:
        if not actor.outstanding:
            self._drop(actor)
            self.evicted_for_memory += 1

    def _drop(self, actor: SessionActor) -> None:
        del self._actors[actor.session.session_id]
        if actor is self._oversized:
            self._oversized = None
        else:
            self._counted_bytes -= actor.memory_bytes
