"""Asks the standbys for the cluster's state again and again, and keeps what they told for a while."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import NamedTuple

from ops.cluster_view import ClusterResponse
from ops.dashboard.cluster.changes import Change, changes
from ops.dashboard.cluster.lag_history import LagHistory, own_lag
from ops.dashboard.cluster.picture import Picture, draw
from ops.dashboard.node_client.reader import NodeReader

INTERVAL_SECONDS = 1.0
MAX_CHANGES = 200


class SeenChange(NamedTuple):
    """A change and when it was seen, in seconds since 1970."""

    at: float
    change: Change


class ClusterWatch:
    """The state of the cluster as it is watched.

    Attributes:
        picture: The last picture; None before the first answer.
        seen_at: When a node last answered, in seconds since 1970; 0: never.
        source: The nodes whose views the picture was made of.
        failures: Why nodes did not answer the last time, by node.
        lag: How far each standby was behind.
        seen: Changes, the newest first.
    """

    def __init__(self, reader: NodeReader) -> None:
        self._reader = reader
        self._views: dict[str, ClusterResponse] = {}
        self.picture: Picture | None = None
        self.seen_at = 0.0
        self.source: tuple[str, ...] = ()
        self.failures: dict[str, str] = {}
        self.lag = LagHistory()
        self.seen: deque[SeenChange] = deque(maxlen=MAX_CHANGES)

    @property
    def age_seconds(self) -> float:
        """How far the freshest of the nodes that were asked is behind."""
        return min((own_lag(view) or 0.0 for view in self._views.values()), default=0.0)

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(INTERVAL_SECONDS)

    async def look(self) -> None:
        """Ask every node that is due once."""
        choice, answers = self._reader.choice, dict[str, ClusterResponse]()
        asked: set[str] = set()
        # What one node tells of who leads can make others due, such as a primary that leads no more.
        while due := [node for node in choice.to_watch(time.monotonic()) if node.address not in asked]:
            asked |= {node.address for node in due}
            views = await asyncio.gather(*(self._reader.cluster_view(node) for node in due))
            answers |= {view.node_id: view for view in views if view is not None}
        self.failures = {node.name: node.failure for node in choice.nodes if node.failure is not None}
        if answers:
            self._views = answers
            self._take(answers, time.time())

    def _take(self, answers: dict[str, ClusterResponse], now: float) -> None:
        picture = draw(answers, self.failures)
        assert picture is not None, "there are answers"
        if self.picture is not None:
            self.seen.extendleft(SeenChange(now, change) for change in changes(self.picture, picture))
        self.picture, self.seen_at, self.source = picture, now, tuple(sorted(answers))
        self.lag.add(now, picture, answers)
