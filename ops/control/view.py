"""The map as this node knows it, wherever it heard of it: from Raft as a member, from the Raft leader otherwise."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from agent_core.control.cluster_map import EMPTY, ClusterMap, Placement


class MapView:
    """The newest map that this node has heard of. Everything runs on the event loop.

    Attributes:
        map: Never goes back.
    """

    def __init__(self) -> None:
        self.map: ClusterMap = EMPTY
        self._listeners: list[Callable[[], None]] = []
        self._changed = asyncio.Event()

    def placement(self, group: int) -> Placement:
        """Who leads a group; of epoch 0 while nobody does."""
        placements = self.map.placements
        return placements[group] if group < len(placements) else Placement()

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call `listener` after each change."""
        self._listeners.append(listener)

    def learn(self, cluster_map: ClusterMap) -> None:
        """Take over a map, unless it is older than what is known."""
        if cluster_map.version <= self.map.version:
            return
        self.map = cluster_map
        self._changed.set()
        self._changed = asyncio.Event()
        for listener in self._listeners:
            listener()

    async def changed(self) -> None:
        """Wait for the next change."""
        await self._changed.wait()
