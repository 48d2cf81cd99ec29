"""How long a primary goes on without hearing its voters. Pure: no clock, no socket.

This is not the lease. A standby that resyncs echoes no heartbeats and so lends no lease, but a primary that stepped
down for want of them could never finish the resyncs that it needs in order to have a quorum again.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from agent_core.quorum import majority


@dataclass(slots=True)
class Tenure:
    """One primary's time in office.

    Attributes:
        primary: The node that leads.
        voters: All voters of the group, the primary among them.
        began_at: When it began to lead, on its own clock in seconds, as all times here.
        failure_timeout_seconds: How long it goes on without a majority.
    """

    primary: str
    voters: frozenset[str]
    began_at: float
    failure_timeout_seconds: float
    _heard: dict[str, float] = field(default_factory=dict)

    def heard(self, node: str, at: float) -> None:
        """A standby answered what was sent at `at`, or is being resynced at this moment."""
        if node in self.voters and node != self.primary:
            self._heard[node] = max(at, self._heard.get(node, at))

    def is_over(self, now: float) -> bool:
        """Whether no majority has been heard for so long that another node should lead."""
        others = majority(len(self.voters)) - 1
        if others == 0:
            return False
        newest = sorted(self._heard.values(), reverse=True)
        since = max(newest[others - 1], self.began_at) if len(newest) >= others else self.began_at
        return now - since >= self.failure_timeout_seconds
