"""How far each standby was behind, over time. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import NamedTuple

from ops.cluster_view import ClusterResponse
from ops.dashboard.cluster.picture import Picture

MAX_SAMPLES = 900
"""For each node: a quarter of an hour."""


class LagSample(NamedTuple):
    """A node's lag in the group where it is furthest behind, at a time in seconds since 1970."""

    at: float
    seconds: float


class LagHistory:
    """Samples of lag, a second apart.

    A standby says itself how old the last moment is at which it had everything. One that does not answer cannot, so
    that moment is kept and grows older until the node answers again: whether it is stopped, dead or cut off, it is
    at most so far behind. Nodes that lead, and are not asked, have everything.

    Attributes:
        samples: Of each node that followed or should have, the oldest first.
    """

    def __init__(self) -> None:
        self.samples: dict[str, deque[LagSample]] = {}
        self._level_at: dict[str, float] = {}

    def add(self, now: float, picture: Picture, views: Mapping[str, ClusterResponse]) -> None:
        """Add what one look at the cluster has shown; `now` in seconds since 1970."""
        for node in picture.nodes:
            view = views.get(node.node_id)
            if view is not None:
                own = own_lag(view)
                self._level_at[node.node_id] = now - (own or 0.0)
                if own is not None:
                    self._sample(node.node_id, now)
            elif node.answers is False:
                self._level_at.setdefault(node.node_id, now)
                self._sample(node.node_id, now)
            else:
                self._level_at[node.node_id] = now

    def _sample(self, node_id: str, now: float) -> None:
        samples = self.samples.setdefault(node_id, deque(maxlen=MAX_SAMPLES))
        samples.append(LagSample(now, max(0.0, now - self._level_at[node_id])))


def own_lag(view: ClusterResponse) -> float | None:
    """How far a node says that it is behind in its worst group, in seconds; None where it leads them all."""
    return max((group.lag.seconds for group in view.groups if group.lag is not None), default=None)
