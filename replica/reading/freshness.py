"""How fresh a read is: what a reader may demand, the waiting for it, and what the answer says about it.

A node's age in a group falls with everything that it hears from the group's primary, and nothing tells when; so a
reader that wants a fresher state asks again every few milliseconds.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from agent_core.errors import InvalidRequest, TooStale
from agent_core.position import Position
from replica.reading.positions import DEFAULT_WAIT_SECONDS, MAX_WAIT_SECONDS, AppliedPositions, GroupPosition

MAX_STALENESS_SECONDS = 86_400.0
ASK_AGAIN_SECONDS = 0.01

AgeOf = Callable[[int], float]
"""The age in seconds of what this node has of a group."""


@dataclass(frozen=True, slots=True)
class Demand:
    """What a reader demands of a node before it is answered.

    Attributes:
        min_positions: By group: this must be applied (read your writes).
        max_staleness_seconds: No group that is read may be older; None: any age will do.
        wait_seconds: How long to wait for both together, 0 to 30; None: 2.

    Raises:
        InvalidRequest: A number is out of range.
    """

    min_positions: Mapping[int, Position] = field(default_factory=dict)
    max_staleness_seconds: float | None = None
    wait_seconds: float | None = None

    def __post_init__(self) -> None:
        if self.wait_seconds is not None and not 0 <= self.wait_seconds <= MAX_WAIT_SECONDS:
            raise InvalidRequest(
                f"the wait for a position is {self.wait_seconds:g} s; allowed are 0 to {MAX_WAIT_SECONDS:g} s"
            )
        staleness = self.max_staleness_seconds
        if staleness is not None and not 0 <= staleness <= MAX_STALENESS_SECONDS:
            raise InvalidRequest(f"max_staleness is {staleness:g} s; allowed are 0 to {MAX_STALENESS_SECONDS:g} s")


NO_DEMAND = Demand()


class Freshness:
    """Meets the demands of the readers of one node. Belongs to the event loop's thread."""

    def __init__(self, applied: AppliedPositions, age_of: AgeOf) -> None:
        self._applied = applied
        self._age_of = age_of

    def now(self, groups: Iterable[int]) -> list[GroupPosition]:
        """Where this node is in these groups. A read that begins after this sees at least as much."""
        return [GroupPosition(group, self._applied.applied(group), self._age_of(group)) for group in groups]

    async def meet(self, demand: Demand, groups: Iterable[int]) -> list[GroupPosition]:
        """Wait until a demand on these groups is met, and say where the node is then.

        Raises:
            PositionNotReached: A position was not applied in time.
            PositionLost: A position will never be applied.
            TooStale: A group stayed older than it may be.
            Overloaded: Too many readers wait.
        """
        seconds = DEFAULT_WAIT_SECONDS if demand.wait_seconds is None else demand.wait_seconds
        deadline = time.monotonic() + seconds
        groups = tuple(groups)
        for group, min_position in demand.min_positions.items():
            await self._applied.wait(group, min_position, max(0, deadline - time.monotonic()))
        while (found := self._too_stale(demand, groups)) is not None:
            if time.monotonic() >= deadline:
                raise TooStale(
                    f"what this node has of group {found.group} is {found.age_seconds:.3g} s old, and did not come "
                    f"within {demand.max_staleness_seconds:g} s of the primary within {seconds:g} s; ask another "
                    "node, or allow more"
                )
            await asyncio.sleep(min(ASK_AGAIN_SECONDS, max(0, deadline - time.monotonic())))
        return self.now(groups)

    def _too_stale(self, demand: Demand, groups: Iterable[int]) -> GroupPosition | None:
        if demand.max_staleness_seconds is None:
            return None
        return next((at for at in self.now(groups) if at.age_seconds > demand.max_staleness_seconds), None)
